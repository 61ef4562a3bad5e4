"""The loss of the YOLOv5 family, with the settings of YOLOv5 and of Scaled-YOLOv4."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

from kubeyolo.losses.anchor_loss import AnchorLoss, grid_shapes
from kubeyolo.losses.assign import Shapes, assign
from kubeyolo.losses.iou import centred_iou
from kubeyolo.models.facts import Anchors


@dataclass(frozen=True)
class LossGains:
    """Weights of the parts of the loss.

    Attributes:
        box: Gain of the mean of 1 − CIoU.
        obj: Gain of the objectness.
        cls: Gain of the class scores.
        balance: Weight of each level's objectness, finest level first.
    """

    box: float
    obj: float
    cls: float
    balance: tuple[float, ...]


def yolov5_gains(
    levels: int, num_classes: int, image_size: int, box: float = 0.05, obj: float = 1.0, cls: float = 0.5
) -> LossGains:
    """Scale the hyperparameters of YOLOv5 to the levels, the classes and the image size in pixels."""
    share = 3 / levels
    balance = (4.0, 1.0, 0.4) if levels == 3 else (4.0, 1.0, 0.25, 0.06, 0.02)[:levels]
    return LossGains(box * share, obj * (image_size / 640) ** 2 * share, cls * num_classes / 80 * share, balance)


def scaledyolov4_gains(
    levels: int, num_classes: int, box: float = 0.05, obj: float = 1.0, cls: float = 0.5
) -> LossGains:
    """Scale the hyperparameters of Scaled-YOLOv4 to the levels and the classes."""
    share = 3 / levels
    balances = {4: (4.0, 1.0, 0.4, 0.1), 5: (4.0, 1.0, 0.5, 0.4, 0.1)}
    return LossGains(
        box * share,
        obj * share * (1.4 if levels >= 4 else 1.0),
        cls * num_classes / 80 * share,
        balances.get(levels, (4.0, 1.0, 0.4)[:levels]),
    )


class YoloV5Loss(AnchorLoss):
    """Box, objectness and class loss over all levels at once, in static shapes; the total is scaled by the batch size.

    Args:
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels, finest first.
        num_classes: Number of classes; with one class there is no class loss.
        gains: Weights of the parts.
        anchor_t: Largest ratio of a label's and an anchor's sides, exclusive.
        label_smooth_factor: With factor f the class targets are 1 − f/2 and f/2.
        eps: Added to the denominators of CIoU.
        processes: Number of processes whose positive candidates are counted together, in one exchange. The sum of the
            gradients of all processes is then the gradient of one process with all of their images. With 1, each
            process takes its means over its own candidates.
    """

    def __init__(
        self,
        anchors: Anchors,
        strides: tuple[int, ...],
        num_classes: int,
        gains: LossGains,
        anchor_t: float = 4.0,
        label_smooth_factor: float = 0.0,
        eps: float = 1e-7,
        processes: int = 1,
    ) -> None:
        spared = 0.5 * label_smooth_factor
        super().__init__(anchors, strides, num_classes, (gains.box, gains.obj, gains.cls), (1 - spared, spared))
        self.anchor_t = anchor_t
        self.eps = eps
        self.balance = gains.balance
        self.processes = processes
        self.sum = ops.AllReduce(ops.ReduceOp.SUM) if processes > 1 else None

    def loss_and_target(self, raws: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss, and return with it the objectness target of each row (level, image, anchor, y, x)."""
        shapes, batch = grid_shapes(raws), raws[0].shape[0]
        mask, row, centre, size, anchor, label_class = assign(labels, self.anchors, self.strides, shapes, self.anchor_t)
        boxes, objectness, entropy = self.pick_candidates(raws, row, label_class)
        weight = self._mean_weights(mask)
        ciou = self._overlap(boxes, centre, size, anchor)
        zero = ops.zeros_like(ciou)
        box = ops.where(mask, (1 - ciou) * weight, zero).sum() * self.box_gain
        target = self._objectness_target(ops.stop_gradient(ciou), mask, row, shapes, batch)
        balance = _objectness_weights(shapes, batch, len(self.anchors[0]), self.balance)
        obj = (self.cross_entropy(objectness, target) * balance).sum() * self.obj_gain
        cls = zero.sum()
        if self.num_classes > 1:
            cls = ops.where(mask, entropy * weight, zero).sum() * (self.cls_gain / self.num_classes)
        return (box + obj + cls) * batch, ops.stack((box, obj, cls)), target

    def _mean_weights(self, mask: Tensor) -> Tensor:
        """Weigh the candidates so that a weighted sum is the sum of the levels' means over positives."""
        positive = mask.astype(mstype.float32).reshape(len(self.anchors), -1)
        count = positive.sum(1, keepdims=True)
        if self.sum is not None:
            count = self.sum(count)
            positive = positive * self.processes
        # A level without positives would divide by zero.
        return (positive / ops.maximum(count, ops.ones_like(count))).reshape(-1)

    def _overlap(self, raw_boxes: Tensor, centre: Tensor, size: Tensor, anchor: Tensor) -> Tensor:
        """Decode the candidates (K, 4) and compare them with their labels."""
        centres, sides = ops.split(ops.sigmoid(ops.transpose(raw_boxes, (1, 0))) * 2, 2, 0)
        return centred_iou(centres - 0.5, sides * sides * anchor, centre, size, "ciou", self.eps)

    def _objectness_target(self, ciou: Tensor, mask: Tensor, row: Tensor, shapes: Shapes, batch: int) -> Tensor:
        """Give each row the CIoU of its last candidate; a plain scatter would depend on the order of threads."""
        last, _ = self.largest_numbers(_ordinals(mask.shape[0]), mask, row, shapes, batch)
        values = ops.concat((ops.zeros((1,), mstype.float32), ops.relu(ciou)), 0)
        return ops.gather(values, last, 0)


# The constants below are computed while a graph is compiled.


@constexpr
def _ordinals(count: int) -> Tensor:
    return Tensor(np.arange(1, count + 1, dtype=np.int32))


@constexpr
def _objectness_weights(shapes: Shapes, batch: int, anchors_per_level: int, balance: tuple[float, ...]) -> Tensor:
    """Weigh the rows so that a weighted sum is the balanced sum of the levels' means."""
    counts = [batch * anchors_per_level * ny * nx for ny, nx in shapes]
    weights = [weight / count for weight, count in zip(balance, counts, strict=True)]
    return Tensor(np.repeat(np.asarray(weights, np.float32), counts))
