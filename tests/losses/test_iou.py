"""IoU of boxes worked out by hand."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.losses.iou import IouKind, corner_iou, paired_iou


def column(*values: float) -> ms.Tensor:
    return ms.Tensor(np.asarray(values, np.float32).reshape(4, 1))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("iou", 1 / 7), ("giou", 1 / 7 - 2 / 9), ("diou", 1 / 7 - 2 / 18), ("ciou", 1 / 7 - 2 / 18)],
)
def test_two_squares_that_share_a_quarter(kind: IouKind, expected: float) -> None:
    value = corner_iou(column(0, 0, 2, 2), column(1, 1, 3, 3), kind)
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


def test_box_without_area_gives_finite_numbers_and_gradients() -> None:
    boxes = column(1, 1, 0, 0)
    for others in (column(1, 1, 0, 0), column(1, 1, 2, 2)):
        assert np.isfinite(paired_iou(boxes, others, "ciou").asnumpy()).all()
        assert np.isfinite(ciou_gradient(boxes, others)).all()


def test_aspect_term_of_ciou() -> None:
    # Same centre, 4x2 in 2x4: overlap 4, union 12; v = 4/pi^2 (atan 2 - atan 1/2)^2, alpha = v / (1 - IoU + v).
    aspect = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    expected = 1 / 3 - aspect * aspect / (1 - 1 / 3 + aspect)
    np.testing.assert_allclose(paired_iou(column(0, 0, 4, 2), column(0, 0, 2, 4)).asnumpy(), [expected], rtol=1e-5)
