"""The command line: ``kubeyolo``. Imports the module of a command only when the command is called, so help is quick."""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kubeyolo import __version__
from kubeyolo.cli import errors, streams
from kubeyolo.cli.spelling import complete_options, option_spelling
from kubeyolo.stop_signals import RaisingHandler, install, stop_signals
from kubeyolo.storage.cache import expand_homes, set_matplotlib_folder

COMMANDS = {
    "run": "run:run",
    "configure": "forms:configure",
    "estimate": "estimate:estimate",
    "validate": "steps:validate",
    "anchors": "anchors:anchors",
    "pretrain": "steps:pretrain",
    "train": "steps:train",
    "evaluate": "steps:evaluate",
    "compare": "compare:compare",
    "export": "steps:export",
    "quantize": "steps:quantize",
    "publish": "steps:publish",
    "sign": "signatures:sign",
    "promote": "retention:promote",
    "predict": "predict:predict",
    "benchmark": "benchmark:benchmark",
    "gate": "gate:gate",
    "sample": "data:sample",
    "copy": "data:copy",
    "convert": "data:convert",
    "gc": "retention:gc",
    "models": "The detectors that can be trained.",
    "models list": "models:list_models",
    "models show": "models:show_model",
    "pipeline": "Compiled pipelines for Kubeflow, and their runs.",
    "pipeline submit": "pipeline:submit",
    "pipeline status": "cluster:status",
    "pipeline logs": "cluster:logs",
    "pipeline cancel": "cluster:cancel",
    "pipeline list": "cluster:list_runs",
    "pipeline gate": "pipeline_gate:gate",
    "pipeline show": "pipeline:show",
    "pipeline schedule": "Recurring runs on Kubeflow, defined by files in git.",
    "pipeline schedule apply": "schedule:apply",
    "pipeline schedule diff": "schedule:diff",
    "pipeline schedule list": "schedule:list_schedules",
    "pipeline schedule run": "schedule:run_now",
    "pipeline schedule delete": "schedule:delete",
    "weights": "Import published weights and export weights.",
    "weights import": "weights:import_",
    "weights export": "weights:export",
}
"""Commands and groups in the order of the help: module and function of each command, help text of each group."""

_WITH_HOME = re.compile(r"(--?[a-z][a-z-]*=|-[a-z])?(~.*)", re.IGNORECASE | re.DOTALL)
"""A path that begins with ``~``, by itself or as the value of an option."""


@cache
def _docstrings(module: str) -> dict[str, str]:
    """Return the docstrings of a module of commands, read from its source because importing takes longer."""
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.FunctionDef)}


class LazyCommand(TyperCommand):
    """A command in lists. The real command is imported to call it, to show its help or to complete its arguments."""

    def __init__(self, name: str, place: str) -> None:
        self._module, _, self._function = place.partition(":")
        super().__init__(name, help=_docstrings(self._module)[self._function])

    def load(self, given: Sequence[str] = ()) -> Any:
        """Import the module of the command and return the real command.

        Args:
            given: The arguments that were typed; the help has the defaults of the model that they name.
        """
        function = getattr(import_module(f"kubeyolo.cli.{self._module}"), self._function)
        if self._module == "steps":
            from kubeyolo.cli.setting_options import with_setting_options

            function = with_setting_options(self._function, function, given)
        from kubeyolo.cli.signatures import with_verify_keys

        function = with_verify_keys(f"{self._module}:{self._function}", function)
        spelling = option_spelling(self._function if self._module == "steps" else "")
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(self.name, context_settings={"token_normalize_func": spelling})(function)
        return typer.main.get_command(alone)

    def make_context(self, info_name: str | None, args: list[str], *given: Any, **options: Any) -> Any:
        """Return a context of the real command, so that the real command is called."""
        completed = complete_options(self._function if self._module == "steps" else "", args)
        return self.load(args).make_context(info_name, completed, *given, **options)


class LazyGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        groups: dict[str, TyperGroup] = {"": self}
        for path, text in COMMANDS.items():
            parent, _, name = path.rpartition(" ")
            if ":" in text:
                groups[parent].add_command(LazyCommand(name, text))
            else:
                groups[path] = TyperGroup(name=name, help=text, no_args_is_help=True, rich_markup_mode="rich")
                groups[parent].add_command(groups[path])


app = typer.Typer(
    name="kubeyolo",
    cls=LazyGroup,
    help="Turns annotated images into a checked, evaluated, exported and quantized YOLO detector.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kubeyolo {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", envvar=errors.DEBUG, help="Print the stack trace of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turns annotated images into a checked, evaluated, exported and quantized YOLO detector.

    Exit codes: 0 done, 1 the work failed, 2 the input cannot be used, 130 interrupted.
    """
    if debug:
        os.environ[errors.DEBUG] = "1"


def with_homes(arguments: Sequence[str]) -> list[str]:
    """Return arguments with a leading ``~`` expanded, because shells do not expand it in ``--config=~/my.yaml``."""
    found = ((_WITH_HOME.fullmatch(argument), argument) for argument in arguments)
    return [
        f"{match[1] or ''}{os.path.expanduser(match[2])}" if match is not None else argument
        for match, argument in found
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    stop = RaisingHandler()
    if arguments is None:
        streams.run_in_utf8()
        streams.prepare_streams()
        install(stop)
    command: Any = typer.main.get_command(app)
    given = with_homes(sys.argv[1:] if arguments is None else arguments)

    def work() -> Any:
        if given and not {*given} & {"-h", "--help", "--version"}:
            expand_homes()
            set_matplotlib_folder()
        return command.main(given, prog_name="kubeyolo", standalone_mode=False)

    code = errors.exit_code_of(work, given, stop.order)
    if stop.order.given:
        # Python takes a moment to exit, and would restore the default handlers, which kill the process.
        for number in stop_signals():
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
