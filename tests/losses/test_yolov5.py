"""The loss of the YOLOv5 family: masks, empty sets, determinism, settings."""

from __future__ import annotations

import math
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.losses.build import build_loss
from kubeyolo.losses.yolov5 import scaledyolov4_gains, yolov5_gains
from kubeyolo.models.named_facts import model_facts
from tests.losses.gradients import LossAndGradients, padded, run

FACTS = model_facts("yolov5n-r7")
CLASSES = 3


def raw_levels(seed: int = 0, size: int = 64, batch: int = 2) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal((batch, 3, size // stride, size // stride, 5 + CLASSES)).astype(np.float32)
        for stride in FACTS.strides
    ]


def some_labels(count: int, seed: int = 1, batch: int = 2) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    boxes = np.concatenate((generator.random((count, 2)), generator.uniform(0.1, 0.7, (count, 2))), 1)
    images, classes = generator.integers(0, batch, (count, 1)), generator.integers(0, CLASSES, (count, 1))
    return np.concatenate((images, classes, boxes), 1).astype(np.float32)


@pytest.fixture
def cell(mode: str) -> LossAndGradients:
    return LossAndGradients(build_loss(FACTS, CLASSES, 64), 3)


def test_masks_batches_and_threads(cell: LossAndGradients) -> None:
    # One test for several facts, as a graph is compiled for each fixture.
    raws, labels = raw_levels(), some_labels(20)
    (total, parts, _), gradients = run(cell, raws, padded(labels, 48))
    assert total == pytest.approx(parts.sum() * 2, rel=1e-6)
    assert parts.min() > 0

    # Where the unused rows are makes no difference to the numbers.
    spread = np.full((48, 6), -1, np.float32)
    spread[3:43:2] = labels
    (total_spread, _, target_spread), gradients_spread = run(cell, raws, spread)
    assert total_spread == pytest.approx(float(total), rel=1e-6)
    for gradient, other in zip(gradients, gradients_spread, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-8)

    # An empty batch has no box or class loss, and a gradient in the objectness alone.
    (_, parts_empty, target_empty), gradients_empty = run(cell, raws, padded(labels[:0], 48))
    assert parts_empty[0] == 0 and parts_empty[2] == 0 and parts_empty[1] > 0
    assert not target_empty.any()
    for gradient in gradients_empty:
        assert np.isfinite(gradient).all()
        assert not gradient[..., :4].any() and not gradient[..., 5:].any()
        assert gradient[..., 4].all()

    # Labels of the second image leave the first, its first cell included, as in an empty batch.
    second = labels.copy()
    second[:, 0] = 1
    (_, _, target), gradients_second = run(cell, raws, padded(second, 48))
    assert target.max() > 0
    for gradient, empty in zip(gradients_second, gradients_empty, strict=True):
        np.testing.assert_array_equal(gradient[0], empty[0])
        assert np.abs(gradient[1] - empty[1]).max() > 0

    # The same bits whatever the threads do.
    for _ in range(20):
        (again, _, target_again), gradients_again = run(cell, raws, padded(labels, 48))
        assert again == total
        for gradient, other in zip(gradients, gradients_again, strict=True):
            np.testing.assert_array_equal(gradient, other)
    np.testing.assert_allclose(target_again, target_spread, atol=1e-6)


def test_one_class_has_no_class_loss() -> None:
    loss = build_loss(FACTS, 1, 64)
    raws = [raw[..., :6] for raw in raw_levels()]
    labels = some_labels(8)
    labels[:, 1] = 0
    _, parts = loss(tuple(ms.Tensor(raw) for raw in raws), ms.Tensor(padded(labels, 16)))
    assert parts.asnumpy()[2] == 0
    assert parts.asnumpy()[0] > 0


def test_later_label_wins_a_cell() -> None:
    loss = build_loss(FACTS, CLASSES, 64)
    first = np.asarray([[0, 0, 0.55, 0.55, 0.3, 0.3]], np.float32)
    second = np.asarray([[0, 1, 0.56, 0.56, 0.5, 0.5]], np.float32)
    raws = tuple(ms.Tensor(raw) for raw in raw_levels())
    targets = {}
    for name, labels in {"first": first, "second": second, "both": np.concatenate((first, second))}.items():
        targets[name] = loss.loss_and_target(raws, ms.Tensor(padded(labels, 4)))[2].asnumpy()
    shared = (targets["first"] > 0) & (targets["second"] > 0)
    # Centre cells are written by both with the same offset, so that the later label decides.
    both = targets["both"][shared]
    assert shared.sum() >= 3
    assert np.isclose(both, targets["second"][shared], atol=1e-6).sum() >= 3


def test_gains_grow_with_classes_and_image() -> None:
    assert yolov5_gains(3, 80, 640).obj == 1.0
    assert yolov5_gains(3, 80, 320).obj == 0.25
    assert yolov5_gains(3, 20, 640).cls == 0.125
    assert yolov5_gains(5, 80, 640).balance == (4.0, 1.0, 0.25, 0.06, 0.02)
    assert scaledyolov4_gains(4, 80).obj == pytest.approx(1.05)
    assert scaledyolov4_gains(5, 80).balance == (4.0, 1.0, 0.5, 0.4, 0.1)


def test_unknown_family_of_losses_is_refused() -> None:
    with pytest.raises(InputError, match="there is no loss 'darknet'; known: yolov5, scaledyolov4, yolov3, yolov4"):
        build_loss(replace(FACTS, loss="darknet"), 3, 64)


def test_image_sizes_that_do_not_fit_the_strides_are_refused() -> None:
    with pytest.raises(InputError, match="yolov4-p7': the image size 672 is not a multiple of its largest stride, 128"):
        build_loss(model_facts("yolov4-p7"), 3, 672)


def test_smoothing_takes_half_its_factor_from_the_label_and_gives_it_to_every_other_class() -> None:
    raws = [np.zeros_like(raw) for raw in raw_levels()]
    for raw in raws:
        raw[..., 5], raw[..., 6] = 1.0, 2.0
    labels = ms.Tensor(padded(np.asarray([[0, 0, 0.4, 0.4, 0.5, 0.5]], np.float32), 4))
    tensors = tuple(ms.Tensor(raw) for raw in raws)

    def entropy(label: float, others: float) -> float:
        """Cross entropy of the logits 1, 2 and 0, of which the first belongs to the label."""
        return math.log1p(math.e) - label + math.log1p(math.e**2) - 2 * others + math.log(2)

    _, plain = build_loss(FACTS, CLASSES, 64)(tensors, labels)
    _, smooth = build_loss(FACTS, CLASSES, 64, label_smooth_factor=0.1)(tensors, labels)
    plain, smooth = plain.asnumpy(), smooth.asnumpy()
    assert smooth[2] / plain[2] == pytest.approx(entropy(0.95, 0.05) / entropy(1.0, 0.0), rel=1e-5)
    assert smooth[:2].tolist() == plain[:2].tolist()
    # The divisor divides every part; the published divisor is 1.
    _, divided = build_loss(FACTS, CLASSES, 64, loss_scale=64.0)(tensors, labels)
    np.testing.assert_allclose(divided.asnumpy(), plain / 64, rtol=1e-6)
    _, same = build_loss(FACTS, CLASSES, 64, loss_scale=load_config(FACTS.name).train.loss_scale)(tensors, labels)
    assert same.asnumpy().tolist() == plain.tolist()
