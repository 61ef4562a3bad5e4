"""Sets of images with annotated and detected boxes, drawn from a world whose AP is known."""

from __future__ import annotations

import numpy as np

from kubeyolo.evaluation.coco_matches import SplitMatches, match_boxes
from kubeyolo.evaluation.engines import Boxes

CLASSES = 2


class DrawnImages:
    """Images of the world, some harder than others; models of any quality see the same images.

    Args:
        seed: Seed of everything random.
        images: Number of images.
    """

    def __init__(self, seed: int, images: int) -> None:
        rng = np.random.default_rng(seed)
        self._images = images
        hardness = rng.normal(0, 0.15, images)
        image = np.repeat(np.arange(images), rng.poisson(3, images))
        size = rng.uniform(30, 120, (len(image), 2))
        xywh = np.concatenate([rng.uniform(0, 500, (len(image), 2)), size], axis=1)
        self._truth = Boxes.annotated(
            image, rng.integers(0, CLASSES, len(image)), xywh, crowd=np.zeros(len(image), bool)
        )
        self._luck = rng.random(len(image)) + hardness[image]
        self._shift = np.abs(rng.normal(0, 0.05, len(image)))[:, None]
        self._score = 1 / (1 + np.exp(-rng.normal(1.2, 1, len(image)) + hardness[image]))
        alarm = np.repeat(np.arange(images), rng.poisson(1.5, images))
        size = rng.uniform(30, 120, (len(alarm), 2))
        self._alarms = Boxes.detected(
            alarm,
            rng.integers(0, CLASSES, len(alarm)),
            np.concatenate([rng.uniform(0, 500, (len(alarm), 2)), size], axis=1),
            score=1 / (1 + np.exp(-rng.normal(-0.5, 1, len(alarm)))),
        )

    def matches(self, quality: float = 0.85, noise: int = 0) -> SplitMatches:
        """Return the matches of a model.

        Args:
            quality: Share of the objects that it finds.
            noise: Seed of small changes of its scores, which do not change its AP in the long run; 0 for no changes.
        """
        found = np.flatnonzero(self._luck < quality)
        boxes = self._truth.take(found)
        xywh = boxes.xywh.copy()
        xywh[:, :2] += xywh[:, 2:] * self._shift[found]
        score = np.concatenate([self._score[found], self._alarms.score])
        if noise:
            score += np.random.default_rng(noise).normal(0, 0.01, len(score))
        detections = Boxes.detected(
            np.concatenate([boxes.image, self._alarms.image]),
            np.concatenate([boxes.category, self._alarms.category]),
            np.concatenate([xywh, self._alarms.xywh]),
            score=score,
        )
        return match_boxes(self._truth, detections, np.arange(self._images), CLASSES)
