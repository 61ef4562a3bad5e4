"""The command line: ``kubeyolo``. Commands import what they need when they are called, so that help is quick."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kubeyolo import __version__
from kubeyolo.cli import (
    anchors,
    convert,
    copy,
    errors,
    forms,
    models,
    pipeline,
    predict,
    run,
    sample,
    steps,
    streams,
    weights,
)
from kubeyolo.stop_signals import RaisingHandler, install, stop_signals
from kubeyolo.storage.cache import expand_homes, settle_folders

_WITH_HOME = re.compile(r"(--?[a-z][a-z-]*=|-[a-z])?(~.*)", re.IGNORECASE | re.DOTALL)
"""A path that begins with ``~``, by itself or as the value of an option."""

app = typer.Typer(
    name="kubeyolo",
    help="Annotated images in; a checked, evaluated, exported and quantized YOLO detector out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run")(run.run)
app.command("configure")(forms.configure)
app.command("validate")(steps.validate)
app.command("anchors")(anchors.anchors)
app.command("pretrain")(steps.pretrain)
app.command("train")(steps.train)
app.command("evaluate")(steps.evaluate)
app.command("export")(steps.export)
app.command("quantize")(steps.quantize)
app.command("publish")(steps.publish)
app.command("predict")(predict.predict)
app.command("sample")(sample.sample)
app.command("copy")(copy.copy)
app.command("convert")(convert.convert)
app.add_typer(models.group, name="models")
app.add_typer(pipeline.group, name="pipeline")
app.add_typer(weights.group, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kubeyolo {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", envvar=errors.DEBUG, help="Print the stack of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Annotated images in; a checked, evaluated, exported and quantized YOLO detector out.

    Exit codes: 0 done, 1 the work failed, 2 the input cannot be used, 130 interrupted.
    """
    if debug:
        os.environ[errors.DEBUG] = "1"


def with_homes(arguments: Sequence[str]) -> list[str]:
    """Return arguments with the home for ``~`` where one begins with it: shells leave it in ``--config=~/my.yaml``."""
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
            settle_folders()
        return command.main(given, prog_name="kubeyolo", standalone_mode=False)

    code = errors.exit_code_of(work, given, stop.order)
    if stop.order.given:
        # The interpreter, which takes a moment to end, would put back what kills it.
        for number in stop_signals():
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
