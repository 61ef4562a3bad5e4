"""IoU of boxes worked out by hand."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.losses.iou import IouKind, box_iou, centred_iou


def column(*values: float) -> ms.Tensor:
    return ms.Tensor(np.asarray(values, np.float32).reshape(4, 1))


def pair(value: float) -> ms.Tensor:
    return ms.Tensor(np.full((2, 1), value, np.float32))


def paired_iou(boxes: ms.Tensor, others: ms.Tensor, kind: IouKind = "ciou") -> ms.Tensor:
    return centred_iou(boxes[:2], boxes[2:], others[:2], others[2:], kind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("iou", 1 / 7), ("giou", 1 / 7 - 2 / 9), ("diou", 1 / 7 - 2 / 18), ("ciou", 1 / 7 - 2 / 18)],
)
def test_two_squares_that_share_a_quarter(kind: IouKind, expected: float) -> None:
    low, high, low2, high2 = (pair(value) for value in (0, 2, 1, 3))
    value = box_iou(low, high, high - low, low2, high2, high2 - low2, kind, 1e-7)
    np.testing.assert_allclose(value.asnumpy(), [expected], rtol=1e-5)


def ciou_gradient(boxes: ms.Tensor, others: ms.Tensor) -> np.ndarray:
    """Gradient of the summed CIoU with respect to `boxes` (4, 1)."""

    # A named function: a compiler that reads source lines cannot cut a lambda out of a longer expression.
    def total(a: ms.Tensor, b: ms.Tensor) -> ms.Tensor:
        return paired_iou(a, b, "ciou").sum()

    return ms.grad(total)(boxes, others).asnumpy()


def test_disjoint_boxes_overlap_by_zero_and_are_pulled_together() -> None:
    boxes, others = column(0, 0, 2, 2), column(10, 10, 2, 2)
    assert paired_iou(boxes, others, "iou").asnumpy() == 0
    gradient = ciou_gradient(boxes, others).reshape(-1)
    assert gradient[0] > 0 and gradient[1] > 0


@pytest.mark.parametrize(
    # In a square around it: v = 4/pi^2 (atan 1 - atan 0)^2 = 1/4, alpha = v / (1 - 0 + v) = 1/5.
    ("other", "ciou"),
    [((1, 1, 0, 0), 0), ((1, 1, 2, 2), -1 / 4 * 1 / 5)],
)
def test_a_box_without_area_overlaps_nothing_and_has_finite_gradients(other: tuple[float, ...], ciou: float) -> None:
    boxes, others = column(1, 1, 0, 0), column(*other)
    assert paired_iou(boxes, others, "iou").asnumpy() == 0
    np.testing.assert_allclose(paired_iou(boxes, others, "ciou").asnumpy(), [ciou], rtol=1e-4)
    gradient = ciou_gradient(boxes, others).reshape(-1)
    assert np.isfinite(gradient).all() and gradient[[0, 1, 3]].tolist() == [0, 0, 0]


def test_aspect_term_of_ciou() -> None:
    # Same centre, 4x2 in 2x4: overlap 4, union 12; v = 4/pi^2 (atan 2 - atan 1/2)^2, alpha = v / (1 - IoU + v).
    aspect = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    expected = 1 / 3 - aspect * aspect / (1 - 1 / 3 + aspect)
    np.testing.assert_allclose(paired_iou(column(0, 0, 4, 2), column(0, 0, 2, 4)).asnumpy(), [expected], rtol=1e-5)
