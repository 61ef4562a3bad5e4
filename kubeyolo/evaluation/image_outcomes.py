"""Hits, misses and false alarms of each image at the best thresholds, and the images with the most errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array
from kubeyolo.evaluation.matching import Matches


@dataclass(frozen=True, eq=False)
class ImageOutcomes:
    """Counts of each image (I,), and which detections (D,) and boxes (B,) they count."""

    hits: Int64Array
    misses: Int64Array
    false_alarms: Int64Array
    confident: BoolArray
    found: BoolArray

    def worst(self, most: int) -> list[int]:
        """Return the positions of the images with the most misses and false alarms, at most ``most``, worst first."""
        errors = self.misses + self.false_alarms
        order = np.lexsort((self.hits, -errors))[:most]
        return [int(i) for i in order if errors[i] > 0]

    def document(self, matches: Matches) -> list[dict[str, Any]]:
        """Return a row for each image in the form of the stored document."""
        index = matches.index
        return [
            {"id": key, "file_name": name, "hits": hits, "misses": misses, "false_alarms": false_alarms}
            for key, name, hits, misses, false_alarms in zip(
                index.image_key or index.image_id.tolist(),
                index.file_name,
                self.hits.tolist(),
                self.misses.tolist(),
                self.false_alarms.tolist(),
                strict=True,
            )
        ]


def image_outcomes(matches: Matches, thresholds: Float64Array) -> ImageOutcomes:
    """Count hits, misses and false alarms of each image.

    Args:
        matches: Detections and boxes. Since the best detections choose first, detections below the thresholds do not
            change what the others found.
        thresholds: Lowest score of the detections of each class (classes,).
    """
    images = len(matches.index)
    confident = matches.score >= thresholds[matches.label]
    found = np.zeros(len(matches.regular), np.bool_)
    found[matches.box[confident & (matches.box >= 0)]] = True
    box_image = matches.index.box_image()
    return ImageOutcomes(
        hits=np.bincount(box_image[found], minlength=images),
        misses=np.bincount(box_image[matches.regular & ~found], minlength=images),
        false_alarms=np.bincount(matches.image[confident & matches.false], minlength=images),
        confident=confident,
        found=found,
    )
