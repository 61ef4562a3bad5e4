"""The drawing of the pipeline: a fixed layout, lying for wide pages and standing for narrow ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

WIRES = (
    ("validate_dataset", "pretrain_backbone"),
    ("pretrain_backbone", "train"),
    ("train", "evaluate"),
    ("train", "export_model"),
    ("export_model", "quantize"),
    ("quantize", "publish"),
    ("evaluate", "publish"),
)

# Column and row of each step; evaluate runs beside export_model and quantize.
_PLACES = {
    "validate_dataset": (0.0, 0.5),
    "pretrain_backbone": (1.0, 0.5),
    "train": (2.0, 0.5),
    "evaluate": (3.0, 0.0),
    "export_model": (3.0, 1.0),
    "quantize": (4.0, 1.0),
    "publish": (5.0, 0.5),
}

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


def draw_wide(steps: Sequence[Step]) -> Graph:
    """Return the pipeline from left to right."""
    width, gap, row = 170.0, 30.0, 76.0
    places = {name: (2 + column * (width + gap), 2 + line * row) for name, (column, line) in _PLACES.items()}
    wires = []
    for tail, head in WIRES:
        x1, y1 = places[tail][0] + width, places[tail][1] + NODE_HEIGHT / 2
        x2, y2 = places[head][0] - 2, places[head][1] + NODE_HEIGHT / 2
        turn = x2 + 2 - gap  # Straight on past the other row, then over to the next step.
        wires.append(f"M{x1:g} {y1:g}H{turn:g}C{turn + gap / 2:g} {y1:g} {x2 - gap / 2:g} {y2:g} {x2:g} {y2:g}")
    return Graph(
        6 * width + 5 * gap + 4,
        row + NODE_HEIGHT + 4,
        width,
        NODE_HEIGHT,
        _nodes(steps, places),
        tuple(wires),
        _label(steps),
    )


def draw_tall(steps: Sequence[Step]) -> Graph:
    """Return the pipeline from top to bottom."""
    width, gap, side = 170.0, 28.0, 184.0
    places = {name: (2 + line * side, 2 + column * (NODE_HEIGHT + gap)) for name, (column, line) in _PLACES.items()}
    wires = []
    for tail, head in WIRES:
        x1, y1 = places[tail][0] + width / 2, places[tail][1] + NODE_HEIGHT
        x2, y2 = places[head][0] + width / 2, places[head][1] - 2
        turn = y2 + 2 - gap
        wires.append(f"M{x1:g} {y1:g}V{turn:g}C{x1:g} {turn + gap / 2:g} {x2:g} {y2 - gap / 2:g} {x2:g} {y2:g}")
    height = 6 * NODE_HEIGHT + 5 * gap + 4
    return Graph(side + width + 4, height, width, NODE_HEIGHT, _nodes(steps, places), tuple(wires), _label(steps))


def _nodes(steps: Sequence[Step], places: dict[str, tuple[float, float]]) -> tuple[Node, ...]:
    """Place every step of the pipeline; one that the run does not have is drawn as pending."""
    given = {step.step: step for step in steps}
    nodes = []
    for name, (x, y) in places.items():
        step = given.get(name)
        if step is None:
            nodes.append(Node(name, "pending", "quiet-tone", "not in this run", None, x, y))
        else:
            nodes.append(Node(name, step.status, step.tone, step.time, step.link, x, y))
    return tuple(nodes)


def _label(steps: Sequence[Step]) -> str:
    given = {step.step: step.status for step in steps}
    return "The pipeline: " + ", ".join(f"{name} {given.get(name, 'not in this run')}" for name in _PLACES)
