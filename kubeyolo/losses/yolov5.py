"""The loss of the YOLOv5 family, with the settings of YOLOv5 and of Scaled-YOLOv4."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

from kubeyolo.losses.assign import LevelAnchors, Shapes, assign
from kubeyolo.losses.iou import centred_iou


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


class YoloV5Loss(nn.Cell):
    """Box, objectness and class loss over all levels at once, in static shapes.

    Args:
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels, finest first.
        num_classes: Number of classes; with one class there is no class loss.
        gains: Weights of the parts.
        anchor_t: Largest ratio of a label's and an anchor's sides, exclusive.
        label_smooth_factor: With factor f the class targets are 1 − f/2 and f/2.
        eps: Added to the denominators of CIoU.
    """

    def __init__(
        self,
        anchors: LevelAnchors,
        strides: tuple[int, ...],
        num_classes: int,
        gains: LossGains,
        anchor_t: float = 4.0,
        label_smooth_factor: float = 0.0,
        eps: float = 1e-7,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.strides = strides
        self.num_classes = num_classes
        self.anchor_t = anchor_t
        self.eps = eps
        self.box_gain, self.obj_gain, self.cls_gain, self.balance = gains.box, gains.obj, gains.cls, gains.balance
        self.positive = Tensor(1 - 0.5 * label_smooth_factor, mstype.float32)
        self.negative = Tensor(0.5 * label_smooth_factor, mstype.float32)
        self.scatter_max = ops.TensorScatterMax()
        self.cross_entropy = CrossEntropy()
        self.pick = Pick()

    def construct(self, raws: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            raws: (N, anchor, ny, nx, 5 + classes) of each level, finest first.
            labels: (T, 6) image, class, centre x, centre y, width, height; boxes as fractions of the image; unused
                rows have image −1.

        Returns:
            The total, times the batch size, and its parts (3,) box, objectness, class, with gains, per image.
        """
        total, parts, _ = self.loss_and_target(raws, labels)
        return total, parts

    def loss_and_target(self, raws: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss, and return the objectness target of each row (level, image, anchor, y, x) beside it."""
        shapes: Shapes = ()
        for raw in raws:
            shapes += ((raw.shape[2], raw.shape[3]),)
        batch = raws[0].shape[0]
        mask, row, centre, size, anchor, label_class = assign(labels, self.anchors, self.strides, shapes, self.anchor_t)
        boxes, objectness, entropy = self._pick(raws, row, label_class)
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

    def _pick(self, raws: tuple[Tensor, ...], row: Tensor, label_class: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the raw boxes (K, 4), the objectness of all rows and the class entropy (K,), summed over classes.

        Level by level, as to join the levels first would copy all predictions, forward and backward.
        """
        rows = ops.unstack(row.reshape(len(self.anchors), -1), 0)
        classes = ops.unstack(label_class.reshape(len(self.anchors), -1), 0)
        boxes: tuple[Tensor, ...] = ()
        objectness: tuple[Tensor, ...] = ()
        entropy: tuple[Tensor, ...] = ()
        for level, raw in enumerate(raws):
            box, confidence, scores = self.pick(raw.reshape(-1, 5 + self.num_classes), rows[level])
            target = ops.one_hot(classes[level], self.num_classes, self.positive, self.negative)
            boxes += (box,)
            objectness += (confidence,)
            entropy += (self.cross_entropy(scores, target).sum(1),)
        return ops.concat(boxes, 0), ops.concat(objectness, 0), ops.concat(entropy, 0)

    def _mean_weights(self, mask: Tensor) -> Tensor:
        """Weigh the candidates so that a weighted sum is the sum of the levels' means over positives."""
        positive = mask.astype(mstype.float32).reshape(len(self.anchors), -1)
        count = positive.sum(1, keepdims=True)
        # A level without positives would divide by zero.
        return (positive / ops.maximum(count, ops.ones_like(count))).reshape(-1)

    def _overlap(self, raw_boxes: Tensor, centre: Tensor, size: Tensor, anchor: Tensor) -> Tensor:
        """Decode the candidates (K, 4) and compare them with their labels."""
        centres, sides = ops.split(ops.sigmoid(ops.transpose(raw_boxes, (1, 0))) * 2, 2, 0)
        return centred_iou(centres - 0.5, sides * sides * anchor, centre, size, "ciou", self.eps)

    def _objectness_target(self, ciou: Tensor, mask: Tensor, row: Tensor, shapes: Shapes, batch: int) -> Tensor:
        """Give each row the CIoU of its last candidate, which is the one of the largest number.

        The largest number is found whatever the order in which threads work; a plain scatter would depend on it.
        Masked candidates have the number zero, which stands for no candidate.
        """
        numbers = ops.where(mask, _ordinals(mask.shape[0]), ops.zeros_like(row))
        rows = _row_count(shapes, batch, len(self.anchors[0]))
        row = (row.reshape(len(self.anchors), -1) + _first_rows(shapes, batch, len(self.anchors[0]))).reshape(-1, 1)
        last = self.scatter_max(ops.zeros((rows,), mstype.int32), row, numbers)
        values = ops.concat((ops.zeros((1,), mstype.float32), ops.relu(ciou)), 0)
        return ops.gather(values, last, 0)


class Pick(nn.Cell):
    """Takes from the predictions of a level what the loss reads, with a gradient of two passes over them."""

    def __init__(self) -> None:
        super().__init__()
        self.scatter_add = ops.TensorScatterAdd()

    def construct(self, predictions: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split predictions.

        Args:
            predictions: (rows, 5 + classes) of one level.
            row: (K,) int32, rows of the candidates.

        Returns:
            Boxes (K, 4) of the candidates, objectness (rows,) of all, class scores (K, classes) of the candidates.
        """
        rows, outputs = predictions.shape
        count = row.shape[0]
        candidates = ops.gather(predictions, row, 0)
        # Not predictions[:, 4], which graph mode takes as two slices with two gradients of the whole size.
        confidence = ops.slice(predictions, (0, 4), (rows, 1)).reshape(-1)
        boxes = ops.slice(candidates, (0, 0), (count, 4))
        return boxes, confidence, ops.slice(candidates, (0, 5), (count, outputs - 5))

    def bprop(self, predictions: Tensor, row: Tensor, out: Tensor, dout: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the gradients of predictions and row; candidates of one row are added in their order."""
        boxes, confidence, scores = dout
        candidates = ops.concat((boxes, ops.zeros((row.shape[0], 1), mstype.float32), scores), 1)
        spread = confidence.reshape(-1, 1) * _objectness_column(predictions.shape[1])
        return self.scatter_add(spread, row.reshape(-1, 1), candidates), ops.zeros_like(row)


class CrossEntropy(nn.Cell):
    """Binary cross entropy of each element, from logits; the target is a constant."""

    def __init__(self) -> None:
        super().__init__()
        # One kernel where softplus takes eight. Its own gradient is a scalar loop on a CPU, five times slower than σ.
        self.entropy = ops.SigmoidCrossEntropyWithLogits()
        self.sigmoid = ops.Sigmoid()

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        """Keep the shape."""
        return self.entropy(logits, target)

    def bprop(self, logits: Tensor, target: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of logits and target."""
        return (self.sigmoid(logits) - target) * dout, ops.zeros_like(target)


def _row_count(shapes: Shapes, batch: int, anchors_per_level: int) -> int:
    count = 0
    for ny, nx in shapes:
        count += batch * anchors_per_level * ny * nx
    return count


# The constants below are made while a graph is compiled.


@constexpr
def _ordinals(count: int) -> Tensor:
    return Tensor(np.arange(1, count + 1, dtype=np.int32))


@constexpr
def _objectness_weights(shapes: Shapes, batch: int, anchors_per_level: int, balance: tuple[float, ...]) -> Tensor:
    """Weigh the rows so that a weighted sum is the balanced sum of the levels' means."""
    counts = [batch * anchors_per_level * ny * nx for ny, nx in shapes]
    weights = [weight / count for weight, count in zip(balance, counts, strict=True)]
    return Tensor(np.repeat(np.asarray(weights, np.float32), counts))


@constexpr
def _first_rows(shapes: Shapes, batch: int, anchors_per_level: int) -> Tensor:
    rows = np.asarray([batch * anchors_per_level * ny * nx for ny, nx in shapes])
    return Tensor((np.cumsum(rows) - rows).astype(np.int32).reshape(-1, 1))


@constexpr
def _objectness_column(outputs: int) -> Tensor:
    return Tensor(np.eye(1, outputs, 4, dtype=np.float32))
