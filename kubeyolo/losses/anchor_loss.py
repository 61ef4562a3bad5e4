"""The common part of all losses over anchors: from raw predictions and labels to a total and its parts."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

from kubeyolo.losses.assign import Shapes
from kubeyolo.models.facts import Anchors


class AnchorLoss(nn.Cell):
    """A loss over all levels at once; subclasses assign labels to anchors in ``loss_and_target``.

    Args:
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels, finest first.
        num_classes: Number of classes.
        gains: Coefficients of box, objectness and class loss.
        targets: Target of the score of a label's class, and of the scores of the other classes.

    Attributes:
        is_mean: Whether the total is a mean over the images of a batch; otherwise it grows with their number.
    """

    is_mean = False

    def __init__(
        self,
        anchors: Anchors,
        strides: tuple[int, ...],
        num_classes: int,
        gains: tuple[float, float, float],
        targets: tuple[float, float],
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.strides = strides
        self.num_classes = num_classes
        self.box_gain, self.obj_gain, self.cls_gain = gains
        self.positive = Tensor(targets[0], mstype.float32)
        self.negative = Tensor(targets[1], mstype.float32)
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
            The total, and its parts (3,): box, objectness and class loss, each times its gain, per image.
        """
        total, parts, _ = self.loss_and_target(raws, labels)
        return total, parts

    def loss_and_target(self, raws: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss, and return with it the objectness target of each row (level, image, anchor, y, x)."""
        raise NotImplementedError

    def largest_numbers(
        self, numbers: Tensor, mask: Tensor, row: Tensor, shapes: Shapes, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Find the largest number among the candidates of each row; the result does not depend on the order of threads.

        Args:
            numbers: (K,) int32, larger than zero.
            mask: (K,) bool; candidates without it are ignored.
            row: (K,) int32, rows of the candidates in the predictions of their level.
            shapes: (ny, nx) of each level.
            batch: Number of images.

        Returns:
            The largest number (rows,) of the rows of all levels, zero if there is no candidate; and the row (K,) of
            each candidate among these rows.
        """
        per_level, rows = len(self.anchors[0]), 0
        for ny, nx in shapes:
            rows += batch * per_level * ny * nx
        row = (row.reshape(len(self.anchors), -1) + _first_rows(shapes, batch, per_level)).reshape(-1)
        numbers = ops.where(mask, numbers, ops.zeros_like(numbers))
        return self.scatter_max(ops.zeros((rows,), mstype.int32), row.reshape(-1, 1), numbers), row

    def pick_candidates(
        self, raws: tuple[Tensor, ...], row: Tensor, label_class: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the raw boxes (K, 4), the objectness of all rows and the class entropy (K,), summed over classes.

        Works level by level: joining the levels first would copy all predictions, forward and backward.
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


class Pick(nn.Cell):
    """Picks the values that the loss reads from the predictions of a level.

    Its gradient passes over all predictions twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scatter_add = ops.TensorScatterAdd()

    def construct(self, predictions: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split predictions.

        Args:
            predictions: (rows, 5 + classes) of one level.
            row: (K,) int32, rows of the candidates.

        Returns:
            Boxes (K, 4) of the candidates, objectness (rows,) of all rows, class scores (K, classes) of the candidates.
        """
        rows, outputs = predictions.shape
        count = row.shape[0]
        candidates = ops.gather(predictions, row, 0)
        # Not predictions[:, 4], which graph mode compiles to two slices, each with a gradient of the full size.
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
        # One kernel instead of softplus's eight. Its own gradient is a scalar loop on a CPU, five times slower than σ.
        self.entropy = ops.SigmoidCrossEntropyWithLogits()
        self.sigmoid = ops.Sigmoid()

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the entropy of each element."""
        return self.entropy(logits, target)

    def bprop(self, logits: Tensor, target: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of logits and target."""
        return (self.sigmoid(logits) - target) * dout, ops.zeros_like(target)


def grid_shapes(raws: tuple[Tensor, ...]) -> Shapes:
    """Return (ny, nx) of each level."""
    shapes: Shapes = ()
    for raw in raws:
        shapes += ((raw.shape[2], raw.shape[3]),)
    return shapes


# The constants below are computed while a graph is compiled.


@constexpr
def _first_rows(shapes: Shapes, batch: int, anchors_per_level: int) -> Tensor:
    """Return (level, 1) int32, the first row of each level among the rows of all levels."""
    rows = np.asarray([batch * anchors_per_level * ny * nx for ny, nx in shapes])
    return Tensor((np.cumsum(rows) - rows).astype(np.int32).reshape(-1, 1))


@constexpr
def _objectness_column(outputs: int) -> Tensor:
    return Tensor(np.eye(1, outputs, 4, dtype=np.float32))
