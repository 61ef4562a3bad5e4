"""The drawing of a pipeline: nodes do not overlap, and every wire leads from a step to a later one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import pytest
from pytest import approx

from kubeyolo.catalogue import steps_of
from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names
from kubeyolo.report.dag import Edges, Graph, draw_tall, draw_wide, layout
from kubeyolo.report.index import StepCard

DIAMOND: Edges = (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"))
FAN: Edges = tuple(("a", name) for name in "bcdef")
NAMES = {name: CompiledPipeline.named(name).tasks for name in pipeline_names()}
SKEWED: Edges = (("a", "b"), ("a", "c"), ("b", "d"), ("b", "e"), ("c", "f"), ("c", "g"), ("c", "h"))
"""Two tasks one row apart, each with followers that should be spread around it."""

EVERY_GRAPH = [
    *(
        pytest.param(CompiledPipeline.named(name).tasks, CompiledPipeline.named(name).edges, id=name)
        for name in pipeline_names()
    ),
    *(
        pytest.param(tuple(sorted({name for edge in edges for name in edge})), edges, id=title)
        for title, edges in {"diamond": DIAMOND, "fan": FAN, "skewed": SKEWED}.items()
    ),
    pytest.param(("alone",), (), id="one"),
    pytest.param(("a", "b", "c"), (), id="no-edges"),
]
every_graph = pytest.mark.parametrize(("names", "edges"), EVERY_GRAPH)
every_drawing = pytest.mark.parametrize("draw", [draw_wide, draw_tall])
Draw = Callable[[Sequence[StepCard], Edges], Graph]


def cards(names: Sequence[str]) -> list[StepCard]:
    return [StepCard(name, "succeeded", 1.0) for name in names]


@every_graph
def test_every_step_is_in_a_later_column_than_what_it_waits_for(names: Sequence[str], edges: Edges) -> None:
    cells = layout(names, edges)
    assert set(cells) == set(names)
    assert all(cells[before][0] < cells[after][0] for before, after in edges)
    assert min(column for column, _ in cells.values()) == 0 == min(row for _, row in cells.values())
    for one, other in itertools.combinations(cells.values(), 2):
        assert one[0] != other[0] or abs(one[1] - other[1]) >= 1


@every_drawing
@every_graph
def test_no_two_nodes_overlap_and_all_are_within_the_drawing(names: Sequence[str], edges: Edges, draw: Draw) -> None:
    graph = draw(cards(names), edges)
    assert sorted(node.card.step for node in graph.nodes) == sorted(names)
    for node in graph.nodes:
        assert node.x >= 0 and node.x + graph.node_width <= graph.width, node.card.step
        assert node.y >= 0 and node.y + graph.node_height <= graph.height, node.card.step
    for one, other in itertools.combinations(graph.nodes, 2):
        apart = abs(one.x - other.x) >= graph.node_width or abs(one.y - other.y) >= graph.node_height
        assert apart, (one.card.step, other.card.step)


@every_drawing
@every_graph
def test_wires_lead_from_the_end_of_a_step_to_the_start_of_the_next_and_never_back(
    names: Sequence[str], edges: Edges, draw: Draw
) -> None:
    graph = draw(cards(names), edges)
    assert len(graph.wires) == len(edges)
    nodes = {node.card.step: node for node in graph.nodes}
    for (tail, head), wire in zip(edges, graph.wires, strict=True):
        x1, y1, turn, *points = (float(number) for number in re.findall(r"-?[\d.]+", wire))
        first, last = nodes[tail], nodes[head]
        if draw is draw_wide:
            begin, along = x1, [turn, *points[::2]]
            assert (x1, y1) == approx((first.x + graph.node_width, first.y + graph.node_height / 2))
            assert points[-2:] == approx([last.x - 2, last.y + graph.node_height / 2])
        else:
            begin, along = y1, [turn, *points[1::2]]
            assert (x1, y1) == approx((first.x + graph.node_width / 2, first.y + graph.node_height))
            assert points[-2:] == approx([last.x + graph.node_width / 2, last.y - 2])
        way = [begin, *curve(along)]
        assert way == sorted(way), (tail, head)


def curve(points: Sequence[float]) -> list[float]:
    """Return 21 points of a cubic Bézier curve, in one direction."""
    a, b, c, d = points
    shares = [step / 20 for step in range(21)]
    return [a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3 for t in shares]


@pytest.mark.parametrize("name", pipeline_names())
def test_no_wire_runs_through_a_step(name: str) -> None:
    """A straight wire past a column in which a step has the same row would be hidden by that step."""
    names, edges = CompiledPipeline.named(name).tasks, CompiledPipeline.named(name).edges
    cells = layout(names, edges)
    for before, after in edges:
        between = [cell for cell in cells.values() if cells[before][0] < cell[0] < cells[after][0]]
        assert [row for _, row in between if abs(row - cells[before][1]) < 0.4] == [], (before, after)


def test_steps_that_wait_for_the_same_step_are_spread_around_it() -> None:
    cells = layout("abcd", DIAMOND)
    assert cells == {"a": (0.0, 0.5), "b": (1.0, 0.0), "c": (1.0, 1.0), "d": (2.0, 0.5)}


def test_a_step_that_waits_only_for_a_step_that_is_not_drawn_is_in_the_first_column() -> None:
    assert layout(["b", "c"], [("a", "b"), ("b", "c")]) == {"b": (0.0, 0.0), "c": (1.0, 0.0)}


@every_drawing
def test_the_drawing_has_a_description_for_screen_readers(draw: Draw) -> None:
    graph = draw([StepCard("train", "failed"), StepCard("evaluate", "pending")], [("train", "evaluate")])
    assert graph.label == "The pipeline: train failed, evaluate pending"


def test_a_pipeline_is_drawn_in_the_order_of_the_catalogue() -> None:
    steps = [step.name for step in steps_of(CompiledPipeline.named().tasks)]
    columns = [layout(steps, CompiledPipeline.named().edges)[step][0] for step in steps]
    assert columns == sorted(columns) and columns[0] == 0 and columns[-1] == 6
