"""The boxes that a detector is trained on, and the padded label array of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kubeyolo.arrays import Float32Array, Float64Array, Int64Array
from kubeyolo.data.overlaps import corners

if TYPE_CHECKING:
    from kubeyolo.data.index import SplitIndex

LABEL_COLUMNS = 6
CAPACITY_STEP = 64
UNUSED = -1.0


class BoxTable:
    """All boxes of a split that are used in training, as fractions of their image.

    Boxes are clipped to their image. Crowd boxes, and boxes without area, are left out.

    Attributes:
        start: int64 (images + 1,): the rows of image i are start[i] to start[i + 1] - 1.
        corners: float64 (boxes, 4): x1, y1, x2, y2 in 0..1.
        classes: float64 (boxes,): contiguous class numbers.
    """

    def __init__(self, index: SplitIndex) -> None:
        owner = index.box_image()
        extent = np.stack([index.width, index.height, index.width, index.height], axis=1).astype(np.float64)
        boxes = np.clip(corners(index.box_xywh) / extent[owner], 0.0, 1.0)
        kept = ~index.box_crowd & (boxes[:, 2:] > boxes[:, :2]).all(1)
        self.start: Int64Array = np.zeros(len(index) + 1, np.int64)
        np.cumsum(np.bincount(owner[kept], minlength=len(index)), out=self.start[1:])
        self.corners: Float64Array = boxes[kept]
        self.classes: Float64Array = index.box_class[kept].astype(np.float64)

    @property
    def counts(self) -> Int64Array:
        """Number of boxes of each image, int64 (images,)."""
        return np.diff(self.start)


def round_capacity(boxes: float) -> int:
    """Return the number of label rows for a number of boxes: rounded up to a multiple of 64, at least 64."""
    return max(int(np.ceil(boxes / CAPACITY_STEP)), 1) * CAPACITY_STEP


def training_capacity(sample_counts: Int64Array, per_batch_size: int) -> int:
    """Return a number of label rows that a batch of random samples practically never exceeds.

    The number of boxes in a batch is a sum over independent samples, so it is nearly normally distributed. The result
    is six standard deviations above the mean, or the largest sample together with average samples, whichever is more.

    Args:
        sample_counts: int64 (samples,): number of boxes of augmented samples, drawn as in training.
        per_batch_size: Number of samples in a batch.
    """
    mean, deviation = float(sample_counts.mean()), float(sample_counts.std())
    likely = per_batch_size * mean + 6.0 * np.sqrt(per_batch_size) * deviation
    return round_capacity(max(likely, float(sample_counts.max()) + (per_batch_size - 1) * mean))


def pack_labels(samples: Sequence[Float32Array], out: Float32Array) -> int:
    """Write the boxes of a batch into its padded label array.

    If they do not fit, the smallest boxes are left out; among equally small boxes, the later boxes.

    Args:
        samples: For each image float32 (boxes, 5): class, cx, cy, w, h as fractions of the image.
        out: float32 (capacity, 6): image in the batch, class, cx, cy, w, h; unused rows have image -1 and zeros.

    Returns:
        The number of boxes that were left out.
    """
    boxes = np.concatenate(samples) if samples else np.zeros((0, 5), np.float32)
    images = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    surplus = max(len(boxes) - len(out), 0)
    if surplus:
        largest_first = np.argsort(-(boxes[:, 3] * boxes[:, 4]), kind="stable")
        kept = np.sort(largest_first[: len(out)])
        boxes, images = boxes[kept], images[kept]
    used = len(boxes)
    out[:used, 0] = images
    out[:used, 1:] = boxes
    out[used:, 0] = UNUSED
    out[used:, 1:] = 0.0
    return surplus
