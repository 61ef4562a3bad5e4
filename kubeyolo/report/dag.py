"""The drawing of a pipeline, computed from what waits for what: horizontal for wide pages, vertical for narrow ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Edges = Sequence[tuple[str, str]]
"""Pairs of steps: the second waits for the first."""

NODE_HEIGHT = 56.0


class Step(Protocol):
    """What the drawing needs of a step."""

    @property
    def step(self) -> str:
        """Its name."""

    @property
    def status(self) -> str:
        """Its status."""

    @property
    def tone(self) -> str:
        """CSS class of its status."""

    @property
    def time(self) -> str:
        """How long it took, in words."""

    @property
    def link(self) -> str | None:
        """Relative link of its report."""


@dataclass(frozen=True)
class Node:
    """A step at its place, in units of the drawing."""

    step: str
    status: str
    tone: str
    time: str
    link: str | None
    x: float
    y: float


@dataclass(frozen=True)
class Graph:
    """A drawing: its size, its nodes, its wires as SVG paths, and itself in words."""

    width: float
    height: float
    node_width: float
    node_height: float
    nodes: tuple[Node, ...]
    wires: tuple[str, ...]
    label: str


def layout(names: Sequence[str], edges: Edges) -> dict[str, tuple[float, float]]:
    """Return column and row of each step.

    The column is the longest way to the step, the row that of the steps it waits for; steps of a column that would be
    nearer than a row are spread around their places.

    Args:
        names: The steps.
        edges: What waits for what; steps that are not among the names are left out.
    """
    before = {name: [tail for tail, head in edges if head == name and tail in names] for name in names}
    column: dict[str, int] = {}

    def column_of(name: str) -> int:
        if name not in column:
            column[name] = 1 + max((column_of(other) for other in before[name]), default=-1)
        return column[name]

    row: dict[str, float] = {}
    for number in range(1 + max((column_of(name) for name in names), default=0)):
        inside = [name for name in names if column[name] == number]
        wanted = {name: _mean([row[other] for other in before[name]]) for name in inside}
        inside.sort(key=wanted.__getitem__)
        row |= dict(zip(inside, _spread([wanted[name] for name in inside]), strict=True))
    top = min(row.values(), default=0.0)
    return {name: (float(column[name]), row[name] - top) for name in names}


def _spread(wanted: Sequence[float]) -> list[float]:
    """Return the rows nearest to the wanted ones, which ascend, that are at least 1 apart.

    Less its index, each row has to be no smaller than the one before: an isotonic regression, by pooling neighbours.
    """
    pools: list[list[float]] = []
    for index, row in enumerate(wanted):
        pools.append([row - index])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [index + row for index, row in enumerate(_mean(pool) for pool in pools for _ in pool)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def draw_wide(steps: Sequence[Step], edges: Edges) -> Graph:
    """Return a pipeline from left to right."""
    width, gap, row = 170.0, 30.0, 76.0
    cells = layout([step.step for step in steps], edges)
    places = {name: (2 + column * (width + gap), 2 + line * row) for name, (column, line) in cells.items()}
    wires = []
    for tail, head in _drawn(edges, places):
        x1, y1 = places[tail][0] + width, places[tail][1] + NODE_HEIGHT / 2
        x2, y2 = places[head][0] - 2, places[head][1] + NODE_HEIGHT / 2
        turn = x2 + 2 - gap  # Straight on past the other row, then over to the next step.
        wires.append(f"M{x1:g} {y1:g}H{turn:g}C{turn + gap / 2:g} {y1:g} {x2 - gap / 2:g} {y2:g} {x2:g} {y2:g}")
    columns, rows = _extent(cells)
    size = (columns * (width + gap) - gap + 4, (rows - 1) * row + NODE_HEIGHT + 4)
    return Graph(*size, width, NODE_HEIGHT, _nodes(steps, places), tuple(wires), _label(steps))


def draw_tall(steps: Sequence[Step], edges: Edges) -> Graph:
    """Return a pipeline from top to bottom."""
    width, gap, side = 170.0, 28.0, 184.0
    cells = layout([step.step for step in steps], edges)
    places = {name: (2 + line * side, 2 + column * (NODE_HEIGHT + gap)) for name, (column, line) in cells.items()}
    wires = []
    for tail, head in _drawn(edges, places):
        x1, y1 = places[tail][0] + width / 2, places[tail][1] + NODE_HEIGHT
        x2, y2 = places[head][0] + width / 2, places[head][1] - 2
        turn = y2 + 2 - gap
        wires.append(f"M{x1:g} {y1:g}V{turn:g}C{x1:g} {turn + gap / 2:g} {x2:g} {y2 - gap / 2:g} {x2:g} {y2:g}")
    columns, rows = _extent(cells)
    size = ((rows - 1) * side + width + 4, columns * (NODE_HEIGHT + gap) - gap + 4)
    return Graph(*size, width, NODE_HEIGHT, _nodes(steps, places), tuple(wires), _label(steps))


def _extent(cells: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    return (
        1 + max((column for column, _ in cells.values()), default=0.0),
        1 + max((row for _, row in cells.values()), default=0.0),
    )


def _drawn(edges: Edges, places: Mapping[str, object]) -> Edges:
    return [(tail, head) for tail, head in edges if tail in places and head in places]


def _nodes(steps: Sequence[Step], places: Mapping[str, tuple[float, float]]) -> tuple[Node, ...]:
    return tuple(Node(step.step, step.status, step.tone, step.time, step.link, *places[step.step]) for step in steps)


def _label(steps: Sequence[Step]) -> str:
    return "The pipeline: " + ", ".join(f"{step.step} {step.status}" for step in steps)
