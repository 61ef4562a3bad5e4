"""How runs and results are printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from textwrap import TextWrapper
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kubeyolo.consoles import SafeConsole
from kubeyolo.errors import one_line
from kubeyolo.events import StepRecord
from kubeyolo.formats import duration
from kubeyolo.report.formats import number3

_ENDLESS = 10_000
_ACTION_WIDTH = len("refuse ")
_OF_CLASSES = "best_thresholds.classes."
"""Start of the names of metrics that have a value for each class; the report lists them."""


class RunDisplay:
    """Prints a line when a step of a run starts and ends, and the lines that the step prints; nothing if quiet."""

    def __init__(self, quiet: bool = False) -> None:
        # The stream is named now: while kfp runs, sys.stdout is a different stream.
        self._console = SafeConsole(sys.stdout, soft_wrap=True, quiet=quiet)
        self._since: dict[str, float] = {}

    def started(self, step: str) -> None:
        """Print that a step has started."""
        self._since[step] = time.monotonic()
        self._print(("▶ ", "cyan"), (step, "bold"))

    def cached(self, step: str) -> None:
        """Print that a step's result is from the cache."""
        self._print(("• ", "green"), (step, "bold"), (" from the cache", "dim"))

    def line(self, step: str, text: str) -> None:
        """Show a line that a step has printed."""
        self._print((f"    {text}", "dim"))

    def finished(self, step: str, seconds: float) -> None:
        """Print how long a step took."""
        self._print(("✓ ", "green"), (step, "bold"), (f" {duration(seconds)}", "dim"))

    def failed(self, step: str, message: str, interrupted: bool = False) -> None:
        """Print that a step has failed, or was interrupted; the message is printed at the end."""
        seconds = time.monotonic() - self._since.get(step, time.monotonic())
        how = "interrupted" if interrupted else "failed"
        self._print(("✗ ", "red"), (step, "bold"), (f" {how} after {duration(seconds)}", "red"))

    def _print(self, *parts: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts))


def wide_console() -> SafeConsole:
    """Return the console for tables: as wide as the terminal; in a pipe or file, lines of any length."""
    console = SafeConsole(soft_wrap=True)
    return console if console.is_terminal else SafeConsole(soft_wrap=True, width=_ENDLESS)


def print_record(record: StepRecord, as_json: bool = False, with_warnings: bool = True) -> None:
    """Print the record of a step: its outputs and metrics as a table, or the whole record as JSON.

    Args:
        record: The record.
        as_json: Whether to print JSON.
        with_warnings: Whether its warnings follow the table; the warnings of a training are in its log.
    """
    if as_json:
        print(record.model_dump_json(indent=1))
        return
    rows = [(name, value) for name, value in record.outputs.items() if value]
    rows += [("report", record.report)] if record.report else []
    # Some outputs are among the metrics too, so that Kubeflow shows them.
    printed_below = ("findings", "findings_count", "warnings", "checks", "intervals")
    metrics = {
        name: value
        for name, value in flat(record.metrics).items()
        if record.outputs.get(name) != value
        and not {*name.split(".")} & {*printed_below, "resamples"}
        and not name.startswith(_OF_CLASSES)
        and value != ""
    }
    rows += [(name, figure(value)) for name, value in metrics.items()]
    intervals = record.metrics.get("intervals") or {}
    rows += [(f"95 % interval of {key}", f"{low:.4f} to {high:.4f}") for key, (low, high) in intervals.items()]
    rows.append(("seconds", f"{record.seconds:.1f}"))
    wide_console().print(pairs_table(record.step, rows))
    if "findings" in record.metrics:
        print_findings(record.metrics["findings"])
    for check in record.metrics.get("checks", ()):
        print(f"{'✓' if check['passed'] else '✗'} {check['name']}: {check['message']}")
    for line in record.metrics.get("warnings", ()) if with_warnings else ():
        print(f"warning: {line}")


def print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """Print the findings of a data set: each with its count, action, first case and remedy, wrapped on a terminal."""
    print(f"findings: {len(findings) or 'none'}")
    # Paths are not wrapped, so that they can be copied from the terminal.
    wrapper = TextWrapper(wide_console().width, break_long_words=False, break_on_hyphens=False)
    wrapper.subsequent_indent = indent = " " * (2 + _ACTION_WIDTH)
    for each in findings:
        note = f" ({each['note']})" if each.get("note") else ""
        remedy = each["remedy"]
        texts = (
            f"{each['about']}: {each['count']:,}{note} [{each['code']}]",
            each["done"],
            f"first: {one_line(str(each['first']), 300)}",
            remedy if remedy.startswith("optional: ") else f"to do: {remedy}",
        )
        for start, text in zip((f"  {each['action']:<{_ACTION_WIDTH}}", *3 * [indent]), texts, strict=True):
            wrapper.initial_indent = start
            print(wrapper.fill(text))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def figure(value: object) -> str:
    """Return a value as text: numbers are rounded, None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def new_table(*columns: str, title: str | None = None) -> Table:
    """Return a table with columns of texts that are not wrapped."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def coco_table(title: str, numbers: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Return a table of COCO metrics, a column for each network."""
    table = new_table("COCO", title=title)
    for name in numbers:
        table.add_column(name, justify="right")
    for key in next(iter(numbers.values())):
        table.add_row(key, *(number3(of_network[key]) for of_network in numbers.values()))
    return table


def pairs_table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Return a table of names and values."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
