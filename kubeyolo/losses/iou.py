"""IoU of pairs of boxes and its generalisations, differentiable, in graph mode and PyNative.

IoU; GIoU (https://arxiv.org/abs/1902.09630); DIoU and CIoU (https://arxiv.org/abs/1911.08287).
Boxes are columns, (2, K) of x and y, all in the same unit.
"""

from __future__ import annotations

import math
from typing import Literal

from mindspore import Tensor, ops

IouKind = Literal["iou", "giou", "diou", "ciou"]


def centred_iou(
    centre: Tensor, size: Tensor, centre2: Tensor, size2: Tensor, kind: IouKind = "ciou", eps: float = 1e-7
) -> Tensor:
    """Compare each box with the other box of the same column.

    Args:
        centre: (2, K) x and y of the centres.
        size: (2, K) widths and heights.
        centre2: Centres of the other boxes.
        size2: Widths and heights of the other boxes.
        kind: "iou" in [0, 1]; "giou", "diou" and "ciou" in about [-1, 1].
        eps: Added to each denominator, so that boxes without area give finite values.

    Returns:
        (K,) overlap. The gradient treats the weight of CIoU's aspect term as a constant, as the paper requires.
    """
    half, half2 = size * 0.5, size2 * 0.5
    return box_iou(centre - half, centre + half, size, centre2 - half2, centre2 + half2, size2, kind, eps)


def box_iou(
    low: Tensor, high: Tensor, size: Tensor, low2: Tensor, high2: Tensor, size2: Tensor, kind: IouKind, eps: float
) -> Tensor:
    """Compare boxes given by their corners and sizes, each (2, K); see :func:`centred_iou`."""
    # Rows are separated by unstack: on a CPU slices cost more than all the arithmetic here.
    width, height = ops.unstack(size, 0)
    width2, height2 = ops.unstack(size2, 0)
    # Without the clamp at zero, disjoint boxes would overlap by the product of two negative sides.
    shared_x, shared_y = ops.unstack(ops.relu(ops.minimum(high, high2) - ops.maximum(low, low2)), 0)
    intersection = shared_x * shared_y
    union = width * height + width2 * height2 - intersection + eps
    iou = intersection / union
    if kind == "iou":
        return iou
    hull = ops.maximum(high, high2) - ops.minimum(low, low2)
    if kind == "giou":
        hull_x, hull_y = ops.unstack(hull, 0)
        area = hull_x * hull_y + eps
        return iou - (area - union) / area
    offset = (low2 + high2 - low - high) * 0.5
    distance = (offset * offset).sum(0) / ((hull * hull).sum(0) + eps)
    if kind == "diou":
        return iou - distance
    turn = ops.atan(width2 / (height2 + eps)) - ops.atan(width / (height + eps))
    aspect = (4 / math.pi**2) * (turn * turn)
    # Rounding may make the IoU larger than one: without the clamp identical boxes could divide by zero.
    weight = ops.stop_gradient(aspect / (ops.relu(1 - iou) + aspect + eps))
    return iou - (distance + aspect * weight)
