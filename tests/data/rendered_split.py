"""A split without files, for tests of what is made from a split: images with one bright rectangle for each box."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from kubeyolo.data.index import SplitIndex

BACKGROUND = (40, 90, 60)
CLASS_COLORS = np.array([(255, 40, 30), (20, 230, 250), (250, 240, 20)], np.uint8)


def split_index(sizes, boxes) -> SplitIndex:
    """Return an index of images (width, height) with boxes (image, class, x, y, w, h, crowd), ordered by image."""
    columns = np.array(boxes, np.float64).reshape(-1, 7)
    counts = np.bincount(columns[:, 0].astype(int), minlength=len(sizes))
    return SplitIndex(
        image_id=np.arange(len(sizes), dtype=np.int64),
        file_name=[f"{i:03}.png" for i in range(len(sizes))],
        width=np.array([w for w, _ in sizes], np.int32),
        height=np.array([h for _, h in sizes], np.int32),
        box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        box_id=np.arange(1, len(columns) + 1),
        box_class=columns[:, 1].astype(np.int32),
        box_xywh=columns[:, 2:6].copy(),
        box_area=columns[:, 4] * columns[:, 5],
        box_crowd=columns[:, 6].astype(bool),
    )


class RenderedSplit:
    """Images with a few boxes each, the last box of every fourth image a crowd; the images follow from the index."""

    def __init__(self, images: int = 12, seed: int = 0, most_boxes: int = 4) -> None:
        rng = np.random.default_rng(seed)
        sizes = [(int(rng.integers(60, 160)), int(rng.integers(60, 160))) for _ in range(images)]
        boxes = []
        for image, (width, height) in enumerate(sizes):
            for number in range(int(rng.integers(0, most_boxes + 1))):
                w, h = int(rng.integers(8, width // 2)), int(rng.integers(8, height // 2))
                x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
                crowd = image % 4 == 0 and number == 0
                boxes.append((image, int(rng.integers(3)), x, y, w, h, crowd))
        self.index = split_index(sizes, boxes)

    def read_image(self, i):
        image = np.empty((self.index.height[i], self.index.width[i], 3), np.uint8)
        image[:] = BACKGROUND
        for row in range(*self.index.boxes_of(i).indices(self.index.boxes)):
            x, y, w, h = self.index.box_xywh[row].astype(int)
            image[y : y + h, x : x + w] = CLASS_COLORS[self.index.box_class[row]]
        return image


class FailingSplit(RenderedSplit):
    """A split that fails in a worker on its third image: by an exception, a signal, an exit, or never answers."""

    def __init__(self, failure: str) -> None:
        super().__init__()
        self.failure = failure

    def read_image(self, i):
        if i == 2 and self.failure == "raise":
            raise ValueError("image 2 cannot be read")
        if i == 2 and self.failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if i == 2 and self.failure == "exit":
            os.write(2, b"caf\xe9: the last words\n\n")
            os._exit(3)
        if self.failure == "slow":
            time.sleep(0.05)
        return super().read_image(i)
