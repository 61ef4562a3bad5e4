"""The drawing of a pipeline, computed from its edges: horizontal for wide pages, vertical for narrow pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubeyolo.report.index import StepCard

Edges = Sequence[tuple[str, str]]
"""Pairs of steps: the second waits for the first."""

NODE_WIDTH, NODE_HEIGHT = 170.0, 56.0


@dataclass(frozen=True)
class Node:
    """A step and its position, in units of the drawing."""

    card: StepCard
    x: float
    y: float


@dataclass(frozen=True)
class Graph:
    """A drawing: its size, its nodes, its wires as SVG paths, and a description for screen readers."""

    width: float
    height: float
    node_width: float
    node_height: float
    nodes: tuple[Node, ...]
    wires: tuple[str, ...]
    label: str


def layout(names: Sequence[str], edges: Edges) -> dict[str, tuple[float, float]]:
    """Return column and row of each step.

    The column is the length of the longest path to the step; the row is the mean row of the steps that it waits for.
    Steps of a column that would be less than one row apart are spread around their positions.

    Args:
        names: The steps.
        edges: Pairs of steps; pairs with a step that is not among the names are left out.
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
        ideal = {name: _mean([row[other] for other in before[name]]) for name in inside}
        inside.sort(key=ideal.__getitem__)
        row |= dict(zip(inside, _spread([ideal[name] for name in inside]), strict=True))
    top = min(row.values(), default=0.0)
    return {name: (float(column[name]), row[name] - top) for name in names}


def _spread(ideal: Sequence[float]) -> list[float]:
    """Return the rows that are at least 1 apart and nearest to the ideal rows, which must ascend.

    Row minus index must not decrease from one row to the next: an isotonic regression, by pooling neighbours.
    """
    pools: list[list[float]] = []
    for index, row in enumerate(ideal):
        pools.append([row - index])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [index + row for index, row in enumerate(_mean(pool) for pool in pools for _ in pool)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def draw_wide(steps: Sequence[StepCard], edges: Edges) -> Graph:
    """Return a pipeline from left to right."""
    gap, row = 30.0, 76.0
    cells = layout([step.step for step in steps], edges)
    places = {name: (2 + column * (NODE_WIDTH + gap), 2 + line * row) for name, (column, line) in cells.items()}
    wires = []
    for tail, head in _drawn(edges, places):
        x1, y1 = places[tail][0] + NODE_WIDTH, places[tail][1] + NODE_HEIGHT / 2
        x2, y2 = places[head][0] - 2, places[head][1] + NODE_HEIGHT / 2
        turn = x2 + 2 - gap  # First straight past the steps of other rows, then to the next step.
        wires.append(f"M{x1:g} {y1:g}H{turn:g}C{turn + gap / 2:g} {y1:g} {x2 - gap / 2:g} {y2:g} {x2:g} {y2:g}")
    return _graph(steps, places, wires)


def draw_tall(steps: Sequence[StepCard], edges: Edges) -> Graph:
    """Return a pipeline from top to bottom."""
    gap, side = 28.0, 184.0
    cells = layout([step.step for step in steps], edges)
    places = {name: (2 + line * side, 2 + column * (NODE_HEIGHT + gap)) for name, (column, line) in cells.items()}
    wires = []
    for tail, head in _drawn(edges, places):
        x1, y1 = places[tail][0] + NODE_WIDTH / 2, places[tail][1] + NODE_HEIGHT
        x2, y2 = places[head][0] + NODE_WIDTH / 2, places[head][1] - 2
        turn = y2 + 2 - gap
        wires.append(f"M{x1:g} {y1:g}V{turn:g}C{x1:g} {turn + gap / 2:g} {x2:g} {y2 - gap / 2:g} {x2:g} {y2:g}")
    return _graph(steps, places, wires)


def _drawn(edges: Edges, places: Mapping[str, object]) -> Edges:
    return [(tail, head) for tail, head in edges if tail in places and head in places]


def _graph(steps: Sequence[StepCard], places: Mapping[str, tuple[float, float]], wires: Sequence[str]) -> Graph:
    """Return a drawing that ends 2 units after its last steps."""
    return Graph(
        width=max((x for x, _ in places.values()), default=2.0) + NODE_WIDTH + 2,
        height=max((y for _, y in places.values()), default=2.0) + NODE_HEIGHT + 2,
        node_width=NODE_WIDTH,
        node_height=NODE_HEIGHT,
        nodes=tuple(Node(step, *places[step.step]) for step in steps),
        wires=tuple(wires),
        label="The pipeline: " + ", ".join(f"{step.step} {step.status}" for step in steps),
    )
