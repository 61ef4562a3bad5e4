"""Charts of the reports: line charts, histograms, bars and the density of box sizes, as inline SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kubeyolo.arrays import Float64Array
from kubeyolo.report.formats import compact
from kubeyolo.report.svg import ACCENT, INK, LINE, MUTED, SERIES, inline_svg, series_variable

WIDTH, HEIGHT = 380.0, 218.0
"""Size of a chart in points, close to its size on the page, so that its text is not scaled."""

SMALLEST_SIDE = 0.004
"""Smallest relative width or height in the density chart; smaller boxes are counted in its first cells."""

DENSITY_BINS = 36
"""Cells of the density chart along each axis."""

LARGEST_SERIES = 400
"""Most points of a curve; longer curves are averaged over equal spans of their rows."""


_LONGEST_NAME = 22

_COUNTED = ("epoch", "step")
"""Labels of x axes whose values are whole numbers."""

_MARK_SHARE, _MARK_ROWS, _MARK_HEIGHT = 0.35, 3, 12.0
"""Length of a mark's label as a share of the x axis, rows of labels, and height of a row in points."""


@dataclass(frozen=True)
class Series:
    """One curve: y over x, both (points,); the index of its colour, and how it is drawn (faint: thin, in the back)."""

    name: str
    x: Sequence[float] | Float64Array
    y: Sequence[float] | Float64Array
    color: int | None = 0
    faint: bool = False
    smooth: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line in a chart: its position and its label."""

    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A drawn chart with its heading, legend rows (name, CSS colour) and values to show on hover (JSON or empty)."""

    name: str
    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()
    hover: str = ""
    note: str = ""


def line_chart(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    label: str,
    y_limits: tuple[float, float] | None = None,
    of_shares: bool = False,
    marks: Sequence[Mark] = (),
    note: str = "",
) -> Chart:
    """Draw curves over a common x axis.

    Args:
        name: Unique on the page, letters and dashes.
        title: Heading above the chart, with the unit.
        series: The curves; rows that are not finite are left out.
        x_label: Label of the x axis.
        label: A description of the chart for screen readers.
        y_limits: Fixed y range; derived from the values by default.
        of_shares: Whether both axes are from 0 to 1, with room for the marks at 1.
        marks: Vertical lines.
        note: A sentence under the chart.
    """
    y_limits, x_limits = ((0.0, 1.03), (0.0, 1.01)) if of_shares else (y_limits, None)
    figure, axes = _axes(x_label)
    if x_label in _COUNTED:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    shown: list[tuple[Series, Float64Array, Float64Array]] = []
    for row in series:
        x, y = _finite(row.x, row.y)
        if not len(x):
            continue
        x, y = averaged(x, y)
        color = MUTED if row.color is None else SERIES[row.color % len(SERIES)]
        if row.smooth and len(x) > 20:
            axes.plot(x, y, color=color, linewidth=0.8, alpha=0.3)
            y = smoothed(y)
        width, alpha = (0.9, 0.45) if row.faint else (1.8, 1.0)
        marker = {"marker": "o", "markersize": 3.5} if row.dots or len(x) == 1 else {}
        axes.plot(x, y, color=color, linewidth=width, alpha=alpha, gid=f"data-{len(shown)}", **marker)
        shown.append((row, x, y))
    _limits(axes, shown, y_limits, x_limits, headroom=1.16 if marks else 1.06)
    _draw_marks(axes, marks)
    svg = inline_svg(figure, name, label)
    legend = tuple((row.name, _css(row)) for row, _, _ in shown if not row.faint) if len(shown) > 1 else ()
    return Chart(name, title, svg, legend, _hover(figure, axes, shown, x_label), note)


def histogram(
    name: str,
    title: str,
    groups: Sequence[tuple[str, Float64Array]],
    edges: Float64Array,
    *,
    x_label: str,
    label: str,
    log_x: bool = False,
    ticks: Sequence[tuple[float, str]] = (),
    bands: Sequence[tuple[float, float, str]] = (),
) -> Chart:
    """Draw the share of values in bins, one stepped outline per group.

    Args:
        name: Unique on the page.
        title: Heading above the chart.
        groups: Name and values (n,) of each group; each is divided by its own n.
        edges: Bin edges, (bins + 1,).
        x_label: Label of the x axis.
        label: A description of the chart for screen readers.
        log_x: Logarithmic x axis.
        ticks: Positions and texts of the x ticks; chosen by matplotlib by default.
        bands: Ranges of x with a name, shaded alternately.
    """
    figure, axes = _axes(x_label)
    if log_x:
        axes.set_xscale("log")
    _draw_bands(axes, bands, (float(edges[0]), float(edges[-1])), log_x)
    top = 0.0
    for index, (_, values) in enumerate(groups):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
        share = 100.0 * counts / max(1, len(values))
        top = max(top, float(share.max(initial=0.0)))
        color = SERIES[index % len(SERIES)]
        axes.stairs(share, edges, fill=True, color=color, alpha=0.22, linewidth=0)
        axes.stairs(share, edges, color=color, linewidth=1.5, gid=f"data-{index}")
    axes.set_ylim(0, (top or 1.0) * (1.22 if bands else 1.08))
    axes.set_xlim(float(edges[0]), float(edges[-1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    if ticks:
        axes.set_xticks([position for position, _ in ticks], [text for _, text in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    return Chart(name, title, inline_svg(figure, name, label), _legend([group for group, _ in groups]))


def bar_chart(
    name: str,
    title: str,
    rows: Sequence[str],
    groups: Sequence[tuple[str, Sequence[float]]],
    *,
    x_label: str,
    label: str,
    decimals: int | None = None,
    note: str = "",
) -> Chart:
    """Draw horizontal bars: a row for each name with a bar for each group; the scale is logarithmic for a wide range.

    Args:
        name: Unique on the page.
        title: Heading above the chart.
        rows: Names of the rows, top to bottom.
        groups: Name and values of each group, one value for each row.
        x_label: Label of the x axis.
        label: A description of the chart for screen readers.
        decimals: Decimals of the values next to the bars; by default the values are shortened.
        note: A sentence under the chart.
    """
    pitch = max(20.0, 10.0 * len(groups) + 6.0)
    figure, axes = _axes(x_label, height=46.0 + pitch * max(1, len(rows)))
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.yaxis.grid(False)
    values = np.array([list(group) for _, group in groups], dtype=np.float64).reshape(len(groups), len(rows))
    positive = values[values > 0]
    logarithmic = positive.size > 1 and positive.max() / positive.min() > 50
    thickness = min(0.78 / max(1, len(groups)), 0.5)
    start = 0.5 if logarithmic else 0.0
    for index in range(len(groups)):
        offset = (index - (len(groups) - 1) / 2) * thickness
        places = np.arange(len(rows)) + offset
        widths = np.maximum(values[index] - start, 0.0)
        color = SERIES[index % len(SERIES)]
        axes.barh(places, widths, left=start, height=thickness * 0.86, color=color, linewidth=0, gid=f"data-{index}")
        _draw_values(axes, places, values[index], start, decimals)
    _scale_bars(axes, float(positive.max()) if positive.size else 1.0, start)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_short(row) for row in rows], fontsize=10, color=INK)
    legend = _legend([group for group, _ in groups])
    return Chart(name, title, inline_svg(figure, name, label), legend, note=note)


def density_chart(
    name: str, title: str, width: Float64Array, height: Float64Array, *, label: str, note: str = ""
) -> Chart:
    """Draw the distribution of boxes over relative width and height, both in (0, 1], on logarithmic axes.

    Cells are drawn in five strengths, with one path for each strength, so that the drawing stays small with any number
    of boxes.
    """
    figure, axes = _axes("width ÷ image width", height=250.0)
    low = SMALLEST_SIDE
    edges: Any = np.geomspace(low, 1.0, DENSITY_BINS + 1)
    counts, _, _ = np.histogram2d(np.clip(width, low, 1.0), np.clip(height, low, 1.0), bins=edges)
    axes.set_xscale("log")
    axes.set_yscale("log")
    strongest = max(1.0, float(counts.max(initial=0.0)))
    strength = np.ceil(np.log1p(counts) / math.log1p(strongest) * 5).astype(int)
    for level in range(1, 6):
        cells = np.argwhere(strength == level)
        if len(cells):
            outline = Path.make_compound_path(*[_cell(edges, int(i), int(j)) for i, j in cells])
            patch = PathPatch(outline, facecolor=ACCENT, alpha=level / 5, linewidth=0, gid=f"data-{level}")
            axes.add_patch(patch)
    axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_xlim(low, 1.0)
    axes.set_ylim(low, 1.0)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    ticks = [value for value in (0.01, 0.03, 0.1, 0.3, 1.0) if value >= low]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(ticks, [f"{value:g}" for value in ticks])
    return Chart(name, title, inline_svg(figure, name, label), note=note)


def averaged(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the curve with at most :data:`LARGEST_SERIES` points: means over equal spans of rows, and both ends."""
    if len(x) <= LARGEST_SERIES:
        return x, y
    edges = np.linspace(0, len(x), LARGEST_SERIES + 1).astype(np.int64)
    counts = np.diff(edges)
    mean_x = np.add.reduceat(x, edges[:-1]) / counts
    mean_y = np.add.reduceat(y, edges[:-1]) / counts
    mean_x[0], mean_y[0], mean_x[-1], mean_y[-1] = x[0], y[0], x[-1], y[-1]
    return mean_x, mean_y


def smoothed(y: Float64Array) -> Float64Array:
    """Return the moving average of y over a fifteenth of its points, centred, with shorter windows at the ends."""
    half = max(1, len(y) // 30)
    total: Float64Array = np.concatenate([[0.0], np.cumsum(y)])
    reach = np.minimum(half, np.minimum(np.arange(len(y)), np.arange(len(y))[::-1]))
    places = np.arange(len(y))
    mean: Float64Array = (total[places + reach + 1] - total[places - reach]) / (2 * reach + 1)
    return mean


def _axes(x_label: str, height: float = HEIGHT) -> tuple[Figure, Any]:
    """Return an empty figure with one pair of axes: no frame, horizontal grid lines, small grey ticks."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, facecolor="none", layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(length=0, color=LINE, labelsize=10.5, labelcolor=MUTED, pad=5, which="both")
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    axes.set_xlabel(x_label, fontsize=10.5, color=MUTED, loc="right")
    return figure, axes


def _draw_marks(axes: Any, marks: Sequence[Mark]) -> None:
    low, high = axes.get_xlim()
    row, last = 0, -math.inf
    for mark in sorted(marks, key=lambda mark: mark.x):
        axes.axvline(mark.x, color=INK, linewidth=0.9, linestyle=(0, (3, 3)), gid="data-mark")
        share = (mark.x - low) / (high - low)
        # Labels of near lines are below each other, and the label of a line on the right is on its left.
        row = (row + 1) % _MARK_ROWS if share - last < _MARK_SHARE else 0
        last = share
        is_right = share > 1 - _MARK_SHARE
        offset = (-3.0 if is_right else 3.0, -2.0 - _MARK_HEIGHT * row)
        _note(axes, mark.label, mark.x, offset, "right" if is_right else "left")


def _draw_bands(
    axes: Any, bands: Sequence[tuple[float, float, str]], limits: tuple[float, float], logarithmic: bool
) -> None:
    for index, (start, end, text) in enumerate(bands):
        low, high = max(start, limits[0]), min(end, limits[1])
        if low >= high:
            continue
        axes.axvspan(low, high, color=MUTED, alpha=0.10 if index % 2 else 0.03, linewidth=0)
        _note(axes, text, math.sqrt(low * high) if logarithmic else (low + high) / 2, (0, -3), "center")


def _note(axes: Any, text: str, x: float, offset: tuple[float, float], align: str) -> None:
    """Write a small text at the top of the plot, at x."""
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": align, "va": "top"}
    axes.annotate(text, (x, 1.0), xytext=offset, fontsize=9.5, color=MUTED, **where)


def _draw_values(axes: Any, places: Float64Array, values: Float64Array, start: float, decimals: int | None) -> None:
    """Write the values next to the ends of their bars."""
    for place, value in zip(places, values, strict=True):
        text = compact(value) if decimals is None else f"{value:.{decimals}f}"
        where = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (max(value, start), place), fontsize=9, color=MUTED, **where)


def _scale_bars(axes: Any, largest: float, start: float) -> None:
    """Set the x axis for bars that start at ``start``: logarithmic if that is above zero, with room for the values."""
    if start > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(start, largest * 2.2)
    else:
        axes.set_xlim(0, largest * 1.14)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def _limits(
    axes: Any,
    shown: Sequence[tuple[Series, Float64Array, Float64Array]],
    y_limits: tuple[float, float] | None,
    x_limits: tuple[float, float] | None,
    headroom: float,
) -> None:
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    elif shown:
        top = max(float(y.max()) for _, _, y in shown)
        bottom = min(float(y.min()) for _, _, y in shown)
        axes.set_ylim(min(0.0, bottom * 1.05), top * headroom if top > 0 else 1.0)
    if x_limits is not None:
        axes.set_xlim(*x_limits)
    elif shown:
        low = min(float(x.min()) for _, x, _ in shown)
        high = max(float(x.max()) for _, x, _ in shown)
        pad = (high - low) * 0.02 or 0.5
        axes.set_xlim(low - pad, high + pad)


def _hover(figure: Figure, axes: Any, shown: Sequence[tuple[Series, Float64Array, Float64Array]], x_label: str) -> str:
    """Return the data that the page needs to show values on hover: the plot's box (fractions) and its points."""
    if not shown:
        return ""
    box = axes.get_position()
    curves = [
        {
            "name": row.name,
            "color": _css(row),
            "x": [float(f"{value:.5g}") for value in x],
            "y": [float(f"{value:.4g}") for value in y],
        }
        for row, x, y in shown
        if not row.faint
    ]
    return json.dumps(
        {
            "box": [round(value, 4) for value in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
            "x": [float(value) for value in axes.get_xlim()],
            "label": x_label,
            "series": curves,
        },
        separators=(",", ":"),
    )


def _legend(groups: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the names of groups with their colours; empty for a single group."""
    return tuple((group, series_variable(index)) for index, group in enumerate(groups)) if len(groups) > 1 else ()


def _css(row: Series) -> str:
    return "var(--muted)" if row.color is None else series_variable(row.color)


def _finite(x: Sequence[float] | Float64Array, y: Sequence[float] | Float64Array) -> tuple[Float64Array, Float64Array]:
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    keep = np.isfinite(left) & np.isfinite(right)
    return left[keep], right[keep]


def _cell(edges: Float64Array, i: int, j: int) -> Path:
    corners = [(edges[i], edges[j]), (edges[i + 1], edges[j]), (edges[i + 1], edges[j + 1]), (edges[i], edges[j + 1])]
    return Path([*corners, corners[0]], closed=True)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
