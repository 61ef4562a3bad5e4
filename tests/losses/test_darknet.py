"""The losses of YOLOv3 and YOLOv4: cases worked out by hand, gradients, and the two modes."""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.config.load import load_config
from kubeyolo.losses.build import build_loss
from kubeyolo.losses.darknet import YOLOV4_THRESHOLD, DarknetLoss
from kubeyolo.losses.darknet_assign import NO_THRESHOLD
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import model_facts
from tests.losses.darknet_reference import DarknetReference
from tests.losses.gradients import LossAndGradients, padded, run

LN2 = math.log(2)
ONE_ANCHOR = (((8.0, 8.0),),)


def small_loss(box_loss: Any = "squares", anchors: Any = ONE_ANCHOR, classes: int = 2, **settings: Any) -> DarknetLoss:
    return DarknetLoss(anchors, (8,) * len(anchors), classes, (1.0,) * len(anchors), box_loss, **settings)


def compute(loss: DarknetLoss, raws: list[NDArray[np.float32]], labels: list[list[float]]) -> tuple[Any, Any, Any]:
    rows = padded(np.asarray(labels, np.float32).reshape(-1, 6), 8)
    total, parts, target = loss.loss_and_target(tuple(ms.Tensor(raw) for raw in raws), ms.Tensor(rows))
    return float(total.asnumpy()), parts.asnumpy(), target.asnumpy()


def zeros(anchors: int = 1, cells: int = 2, classes: int = 2, batch: int = 1) -> NDArray[np.float32]:
    return np.zeros((batch, anchors, cells, cells, 5 + classes), np.float32)


def test_one_label_in_the_middle_of_a_cell() -> None:
    # 16 x 16 pixels, 2 x 2 cells, every logit 0: all probabilities are a half, all boxes 8 x 8 in the middle of cells.
    total, parts, target = compute(small_loss(), [zeros()], [[0, 1, 0.25, 0.25, 0.5, 0.5]])
    # Two cross entropies of the centre, no error of the sides, weight 2 - 1/4; four cells; two classes.
    np.testing.assert_allclose(parts, [3.5 * LN2, 4 * LN2, 2 * LN2], rtol=1e-6)
    assert total == pytest.approx(9.5 * LN2, rel=1e-6)
    assert target.tolist() == [1, 0, 0, 0]


def test_sides_twice_the_anchor_cost_half_the_squared_logarithm() -> None:
    _, parts, _ = compute(small_loss(), [zeros()], [[0, 1, 0.25, 0.25, 1.0, 0.5]])
    assert parts[0] == pytest.approx((2 - 0.5) * (2 * LN2 + 0.5 * LN2**2), rel=1e-6)


def test_yolov4_takes_ciou_in_their_place() -> None:
    # The box is 8 x 8, the label 16 x 8 around it: IoU 1/2, no distance; v = 4/pi^2 (atan 2 - atan 1)^2.
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    ciou = 0.5 - aspect * aspect / (1 - 0.5 + aspect)
    loss = small_loss("ciou", gains=(10.0, 1.0, 1.0))
    _, parts, _ = compute(loss, [zeros()], [[0, 1, 0.25, 0.25, 1.0, 0.5]])
    assert parts[0] == pytest.approx(10 * (2 - 0.5) * (1 - ciou), rel=1e-5)


def test_sums_are_divided_by_the_batch_and_by_the_divisor() -> None:
    labels = [[0, 1, 0.25, 0.25, 0.5, 0.5]]
    _, one, _ = compute(small_loss(), [zeros()], labels)
    _, two, _ = compute(small_loss(), [zeros(batch=2)], labels)
    np.testing.assert_allclose(two, [one[0] / 2, one[1], one[2] / 2], rtol=1e-6)
    total, parts, _ = compute(small_loss(divisor=64.0), [zeros()], labels)
    np.testing.assert_allclose(parts, one / 64, rtol=1e-6)
    assert total == pytest.approx(parts.sum(), rel=1e-6)


def test_the_totals_of_two_processes_add_up_to_the_mean_over_their_images() -> None:
    labels = [[0, 1, 0.25, 0.25, 0.5, 0.5], [1, 0, 0.75, 0.75, 0.25, 0.5]]
    whole, parts, _ = compute(small_loss(), [zeros(batch=2)], labels)
    first, _, _ = compute(small_loss(processes=2), [zeros()], labels[:1])
    second, _, _ = compute(small_loss(processes=2), [zeros()], [[0, *labels[1][1:]]])
    assert first + second == pytest.approx(whole, rel=1e-6) and whole == pytest.approx(parts.sum(), rel=1e-6)


def test_a_box_near_a_label_does_not_count() -> None:
    # The label reaches from 3.2 to 11.2; the second cell's box is moved to 4 .. 12: IoU 57.6 / 70.4 = 0.82.
    label = [0.0, 0.0, 0.45, 0.25, 0.5, 0.5]
    raw = zeros()
    raw[0, 0, 0, 1, 0] = -30
    _, parts, target = compute(small_loss(), [raw], [label])
    assert target.tolist() == [1, -1, 0, 0]
    assert parts[1] == pytest.approx(3 * LN2, rel=1e-6)
    # It is of no concern to a label of another image, nor at a higher threshold.
    _, _, target = compute(small_loss(), [np.concatenate((raw, raw))], [label])
    assert target.tolist() == [1, -1, 0, 0, 0, 0, 0, 0]
    _, _, target = compute(small_loss(ignore_threshold=0.9), [raw], [label])
    assert target.tolist() == [1, 0, 0, 0]


def test_the_best_anchor_answers_and_in_yolov4_every_one_above_the_threshold() -> None:
    # Overlap of sizes with a label of 8 x 8: 16/64, 64/256 and 1.
    anchors = (((4.0, 4.0), (8.0, 8.0), (16.0, 16.0)),)
    labels = [[0, 0, 0.75, 0.25, 0.5, 0.5]]
    _, _, target = compute(small_loss(anchors=anchors), [zeros(3)], labels)
    assert np.flatnonzero(target == 1).tolist() == [5]
    _, _, target = compute(small_loss(anchors=anchors, anchor_threshold=YOLOV4_THRESHOLD), [zeros(3)], labels)
    assert np.flatnonzero(target == 1).tolist() == [1, 5, 9]
    _, _, target = compute(small_loss(anchors=anchors, anchor_threshold=0.25), [zeros(3)], labels)
    assert np.flatnonzero(target == 1).tolist() == [5]


def test_an_anchor_of_two_levels_answers_on_both() -> None:
    anchors = (((4.0, 4.0), (8.0, 8.0)), ((8.0, 8.0), (16.0, 16.0)))
    loss = DarknetLoss(anchors, (8, 16), 2, (1.0, 1.0), "squares")
    _, _, target = compute(loss, [zeros(2), zeros(2, 1)], [[0, 0, 0.25, 0.25, 0.5, 0.5]])
    assert np.flatnonzero(target == 1).tolist() == [4, 8]


def test_of_two_labels_in_one_place_the_best_match_wins_then_the_later() -> None:
    best, other = [0, 0, 0.25, 0.25, 0.5, 0.5], [0, 1, 0.25, 0.25, 0.4, 0.4]
    anchors = (((8.0, 8.0), (6.4, 6.4)),)
    raw = zeros(2)
    raw[..., 5] = 2  # class 0 costs log(1 + e^-2), class 1 costs log(1 + e^2)
    cheap, dear = math.log1p(math.exp(-2)) + LN2, math.log1p(math.exp(2)) + LN2
    loss = small_loss(anchors=anchors, anchor_threshold=YOLOV4_THRESHOLD)
    for labels in ([best, other], [other, best]):
        # Each label has its own best anchor, and passes the threshold of the other one.
        _, parts, _ = compute(loss, [raw], labels)
        assert parts[2] == pytest.approx(cheap + dear, rel=1e-6)
    for labels, cost in (([best, [*other[:4], 0.5, 0.5]], dear), ([[*other[:4], 0.5, 0.5], best], cheap)):
        _, parts, target = compute(small_loss(), [raw[:, :1]], labels)
        assert parts[2] == pytest.approx(cost, rel=1e-6)
        assert target.tolist() == [1, 0, 0, 0]


def test_smoothing_spares_the_label_for_the_others() -> None:
    raw = zeros(classes=5)
    raw[..., 5] = 1
    _, parts, _ = compute(small_loss(classes=5, label_smooth_factor=0.1), [raw], [[0, 0, 0.25, 0.25, 0.5, 0.5]])
    assert parts[2] == pytest.approx(math.log1p(math.exp(1)) - 0.9 + 4 * LN2, rel=1e-6)
    _, parts, _ = compute(small_loss(classes=1), [zeros(classes=1)], [[0, 0, 0.25, 0.25, 0.5, 0.5]])
    assert parts[2] == pytest.approx(LN2, rel=1e-6)


@pytest.mark.parametrize(
    "edge", [[1.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.3], [0.5, 0.5, 1e-6, 1e-6]]
)
@pytest.mark.parametrize("box_loss", ["squares", "ciou"])
def test_boxes_on_the_border_and_without_area_give_numbers(edge: list[float], box_loss: str) -> None:
    loss = small_loss(box_loss, anchor_threshold=YOLOV4_THRESHOLD)
    raws, labels = ms.Tensor(zeros()), ms.Tensor(padded(np.asarray([[0, 1, *edge]], np.float32), 4))
    value, gradient = ms.value_and_grad(lambda raw: loss((raw,), labels)[0])(raws)
    assert np.isfinite(value.asnumpy()) and np.isfinite(gradient.asnumpy()).all()
    _, _, target = compute(loss, [zeros()], [[0, 1, *edge]])
    assert (target == 1).sum() == (1 if edge[2] > 0 else 0)


SETTINGS = {
    "yolov3": {"squares": True, "threshold": NO_THRESHOLD, "gains": (1.0, 1.0, 1.0), "divisor": 1.0},
    "yolov3-quant": {"squares": True, "threshold": NO_THRESHOLD, "gains": (1.0, 1.0, 1.0), "divisor": 1024.0},
    "yolov4": {"squares": False, "threshold": YOLOV4_THRESHOLD, "gains": (10.0, 1.0, 1.0), "divisor": 64.0},
    "yolov4-tiny": {"squares": False, "threshold": YOLOV4_THRESHOLD, "gains": (10.0, 1.0, 1.0), "divisor": 64.0},
}
CLASSES, HEIGHT, WIDTH = 3, 64, 96


def some_batch(facts: ModelFacts, seed: int = 3) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    raws = [
        generator.normal(0, 0.7, (3, 3, HEIGHT // stride, WIDTH // stride, 5 + CLASSES)).astype(np.float32)
        for stride in facts.strides
    ]
    # Image 1 is empty; sides from a tenth of the image to more than all of it.
    images, classes = generator.choice([0, 2], 14), generator.integers(0, CLASSES, 14)
    sides = np.exp(generator.uniform(math.log(0.1), math.log(1.2), (14, 2)))
    labels = np.column_stack((images, classes, generator.random((14, 2)), sides)).astype(np.float32)
    # The box of a cell's right border is nearly that of a label whose centre is in the next cell.
    raws[-1][2, 0, 0, 0, :4] = (4, 0, 0, 0)
    stride, (width, height) = facts.strides[-1], facts.anchors[-1][0]
    near = [2, 0, 1.02 * stride / WIDTH, 0.5 * stride / HEIGHT, width / WIDTH, height / HEIGHT]
    return raws, np.concatenate((labels, np.asarray([near], np.float32)))


def chosen_rows(claims: dict[Any, int], target: NDArray[np.float32], shapes: list[Any]) -> list[Any]:
    """Return answering rows, and one of each level that counts as background and that does not count."""
    rows, start = list(claims)[:8], 0
    for level, shape in enumerate(shapes):
        values = target[start : start + math.prod(shape)]
        start += math.prod(shape)
        for kind in (0, -1):
            found = np.flatnonzero(values == kind)
            rows += [(level, *map(int, np.unravel_index(found[0], shape)))] if len(found) else []
    return rows


@pytest.mark.parametrize("name", ["yolov3", "yolov4", "yolov4-tiny"])
def test_loss_and_gradients_are_those_of_plain_loops(name: str, mode: str) -> None:
    facts, settings = model_facts(name), SETTINGS[name]
    raws, labels = some_batch(facts)
    cell = LossAndGradients(build_loss(facts, CLASSES, 64, label_smooth_factor=0.1), len(raws))
    reference = DarknetReference(
        facts.anchors, facts.strides, CLASSES, facts.scale_xy, settings["squares"], settings["threshold"], smooth=0.1
    )
    (total, parts, target), gradients = run(cell, raws, padded(labels, 24))
    gains = np.asarray(settings["gains"]) / settings["divisor"]
    np.testing.assert_allclose(parts, reference.parts(raws, labels) * gains, rtol=2e-5)
    assert total == pytest.approx(parts.sum(), rel=1e-6)
    shapes = [raw.shape[:4] for raw in raws]
    claims = reference.claims(labels, [raw.shape[2:4] for raw in raws])
    assert (target == 1).sum() == len(claims) > 10
    assert (target == -1).sum() > 0
    compared = 0
    for row in chosen_rows(claims, target, shapes):
        for output in range(5 + CLASSES):
            wanted = (reference.gradient(raws, labels, row, output) * gains).sum()
            assert gradients[row[0]][(*row[1:], output)] == pytest.approx(wanted, rel=2e-3, abs=2e-6), (row, output)
            compared += 1
    assert compared >= 80

    # An empty batch: objectness alone, and every row counts.
    (_, parts, target), gradients = run(cell, raws, padded(labels[:0], 24))
    assert parts[0] == 0 and parts[2] == 0 and parts[1] > 0
    assert not target.any()
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not gradient[..., :4].any() and not gradient[..., 5:].any() and gradient[..., 4].all()

    # The same bits again, and where the unused rows are makes no difference.
    spread = np.full((24, 6), -1, np.float32)
    spread[3:18] = labels
    first, second = run(cell, raws, spread), run(cell, raws, spread)
    assert first[0][0] == second[0][0] == pytest.approx(float(total), rel=1e-6)
    for gradient, other in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(gradient, other)


@pytest.mark.parametrize("name", ["yolov3", "yolov4", "yolov4-tiny"])
def test_both_modes_give_the_same_numbers(name: str) -> None:
    raws, labels = some_batch(model_facts(name), seed=4)
    found = []
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode, jit_syntax_level=ms.STRICT)
        cell = LossAndGradients(build_loss(model_facts(name), CLASSES, 64), len(raws))
        found.append(run(cell, raws, padded(labels, 24)))
    (outputs, gradients), (others, other_gradients) = found
    np.testing.assert_array_equal(outputs[2], others[2])
    for value, other in zip(outputs[:2], others[:2], strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        assert np.abs(gradient).max() > 0
        np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("name", SETTINGS)
def test_published_settings(name: str) -> None:
    loss, settings = build_loss(model_facts(name), 80, 416), SETTINGS[name]
    assert loss.by_squares == settings["squares"]
    assert loss.anchor_threshold == settings["threshold"]
    gains = [gain / settings["divisor"] for gain in settings["gains"]]
    assert [loss.box_gain, loss.obj_gain, loss.cls_gain] == pytest.approx(gains)
    # The preset shows the divisor; another divisor replaces it.
    assert load_config(name).train.loss_scale == settings["divisor"]
    scaled = build_loss(model_facts(name), 80, 416, loss_scale=8.0)
    expected = [gain / 8 for gain in settings["gains"]]
    assert [scaled.box_gain, scaled.obj_gain, scaled.cls_gain] == pytest.approx(expected)
