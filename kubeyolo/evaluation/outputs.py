"""Outputs of a network for a batch of images, and the boxes of an image in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.evaluation.augmentation import VIEWS, used_levels
from kubeyolo.evaluation.decode import decode_above
from kubeyolo.models.facts import ModelFacts


@dataclass(frozen=True)
class Outputs:
    """Outputs of a network for a batch; the last images may be padding of the batch.

    Attributes:
        width: Width of the network's input in pixels.
        views: Raw levels (N, na, ny, nx, 5+nc), finest first, of each of :data:`VIEWS`; without test-time
            augmentation only of the first.
        decoded: Predictions (N, boxes, 5+nc) of a network that decodes its outputs itself, in place of ``views``.
    """

    width: int
    views: Sequence[Sequence[Float32Array]] = ()
    decoded: Float32Array | None = None

    def boxes(self, number: int, conf_threshold: float, manifest: BundleManifest, facts: ModelFacts) -> Float32Array:
        """Return the boxes (k, 5+nc) of an image: centre and size in pixels of the input, scores in 0..1.

        Boxes whose objectness does not exceed the threshold may be left out.

        Args:
            number: Number of the image in the batch.
            conf_threshold: Objectness must exceed this threshold.
            manifest: Anchors and strides of the network.
            facts: Formula of its boxes.
        """
        if self.decoded is not None:
            return self.decoded[number]
        clips_tails = len(self.views) > 1 and facts.clips_tails
        found = []
        for at, levels in enumerate(self.views):
            used = used_levels(at, len(levels), clips_tails)
            image = [level[number : number + 1] for level in levels[used]]
            formula = (manifest.anchors[used], manifest.strides[used], facts.decode, facts.scale_xy[used])
            (boxes,) = decode_above(image, *formula, conf_threshold)
            found.append(VIEWS[at].boxes(boxes, self.width))
        return np.concatenate(found) if len(found) > 1 else found[0]
