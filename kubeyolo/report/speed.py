"""The report of benchmark: images per second, latency and memory of the networks of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubeyolo.formats import counted, size_or_dash
from kubeyolo.report.charts import Chart, bar_chart
from kubeyolo.report.page import fact_rows, render

LARGEST_BAR_CHART = 12
"""Number of rows of a chart; further combinations of batch size and threads are in the table only."""


def speed_report(model: str, document: Mapping[str, Any]) -> str:
    """Return the report of a benchmark as one HTML page.

    Args:
        model: Name of the model.
        document: The machine, the bundle, and the speeds, as ``kubeyolo benchmark --json`` prints them.
    """
    speeds = document["speeds"]
    fastest = max(speeds, key=lambda each: each["images_per_second"], default=None)
    lead = f"Measured on {document['machine']}. The time is that of the network with its decoding."
    if fastest:
        lead += f" Fastest: {_label(fastest)}, {fastest['images_per_second']:.1f} images/s."
    return render(
        "speed.html",
        kind="benchmark",
        title=f"Speed of {model}",
        lead=lead,
        charts=_charts(speeds),
        speeds=speeds,
        memory=[size_or_dash(each["memory"]) for each in speeds],
        facts=fact_rows({"bundle": document["bundle"], "machine": document["machine"]}),
    )


def _charts(speeds: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draw a bar of each runtime for each batch size and number of threads."""
    if not speeds:
        return []
    by_case = {(each["runtime"], each["batch"], each["threads"]): each for each in speeds}
    runtimes = list(dict.fromkeys(each["runtime"] for each in speeds))
    rows = list(dict.fromkeys((each["batch"], each["threads"]) for each in speeds))[:LARGEST_BAR_CHART]
    names = [f"{batch} × {threads}" for batch, threads in rows]

    def groups(value: Callable[[Mapping[str, Any]], float]) -> list[tuple[str, list[float]]]:
        cells = {name: [by_case.get((name, *row)) for row in rows] for name in runtimes}
        return [(name, [value(cell) if cell else 0.0 for cell in of]) for name, of in cells.items()]

    return [
        bar_chart(
            "speed",
            "Images per second",
            names,
            groups(lambda each: float(each["images_per_second"])),
            x_label="images per second",
            decimals=1,
            label="; ".join(f"{_label(each)}: {each['images_per_second']:.1f}" for each in speeds),
            note="Rows: images of a batch × threads.",
        ),
        bar_chart(
            "latency",
            "Median time of a batch, milliseconds",
            names,
            groups(lambda each: float(each["latency_ms"]["p50"])),
            x_label="milliseconds",
            decimals=1,
            label="; ".join(f"{_label(each)}: {each['latency_ms']['p50']:.1f} ms" for each in speeds),
            note="Rows: images of a batch × threads.",
        ),
    ]


def _label(each: Mapping[str, Any]) -> str:
    return f"{each['runtime']}, batch {each['batch']}, {counted(each['threads'], 'thread')}"
