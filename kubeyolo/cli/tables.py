"""How results are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

from kubeyolo.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ENDLESS = 10_000
_ACTION_WIDTH = len("refuse ")


def wide_console() -> Console:
    """Return the console for tables: as wide as the terminal; in a pipe or file, lines of any length."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    return console if console.is_terminal else Console(soft_wrap=True, highlight=False, width=_ENDLESS)


def print_record(uri: str, as_json: bool = False, with_warnings: bool = True) -> None:
    """Print the record of a step: its outputs and figures as a table, or all of it as JSON.

    Args:
        uri: URI or reference of the record.
        as_json: Whether to print JSON.
        with_warnings: Whether its warnings follow the table; those of a training are in its log.
    """
    from kubeyolo.steps.record import read_record

    record = read_record(uri)
    if as_json:
        print(record.model_dump_json(indent=1))
        return
    rows = [(name, value) for name, value in record.outputs.items() if value]
    rows += [("report", record.report)] if record.report else []
    # Some outputs are among the metrics too, so that Kubeflow shows them.
    printed_below = ("findings", "findings_count", "warnings")
    metrics = {
        name: value
        for name, value in flat(record.metrics).items()
        if record.outputs.get(name) != value and name not in printed_below
    }
    rows += [(name, figure(value)) for name, value in metrics.items()]
    rows.append(("seconds", f"{record.seconds:.1f}"))
    wide_console().print(pairs_table(record.step, rows))
    if "findings" in record.metrics:
        print_findings(record.metrics["findings"])
    for line in record.metrics.get("warnings", ()) if with_warnings else ():
        print(f"warning: {line}")


def print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """Print the findings of a data set: each with its count, action, first case and remedy, wrapped on a terminal."""
    print(f"findings: {len(findings) or 'none'}")
    # Paths are copied from the terminal: they are not broken.
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
    """Return nested values under dotted names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def figure(value: object) -> str:
    """Return a value as text: short numbers, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def coco_table(title: str, numbers: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Return a table of COCO numbers, a column for each network."""
    from rich import box
    from rich.table import Table

    from kubeyolo.report.formats import number3

    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("COCO", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    for key in next(iter(numbers.values())):
        table.add_row(key, *(number3(of_network[key]) for of_network in numbers.values()))
    return table


def pairs_table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Return a table of names and values."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
