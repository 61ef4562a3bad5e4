"""Test-time augmentation: a network sees each image in three views, and the boxes of all views are merged by NMS.

The views are those of Scaled-YOLOv4: the scales 1, .83 with a left-right flip, and .67, the smaller ones padded on the
right and at the bottom. YOLOv5 leaves out the coarsest level of the largest view and the finest level of the smallest
view, and pads less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.models.facts import ModelFacts

PADDING = 0.447
"""Grey of the padding, in 0..1: the mean of ImageNet's images."""

SCALED_MULTIPLE = 128
"""Scaled-YOLOv4 pads to a multiple of the largest stride of its largest network, for all its networks."""


@dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
        scale: Size of the view divided by the size of the image.
        is_flipped: Whether left and right are swapped.
    """

    scale: float
    is_flipped: bool = False

    def image(self, images: Float32Array, multiple: int) -> Float32Array:
        """Return the view of images (N, 3, H, W) in 0..1, with sides padded to a multiple of some pixels.

        Linear interpolation between pixel centres, of floats; sides are rounded down to whole pixels.
        """
        if self.is_flipped:
            images = np.ascontiguousarray(images[..., ::-1])
        if self.scale == 1:
            return images
        count, channels, height, width = images.shape
        shape = tuple(math.ceil(side * self.scale / multiple) * multiple for side in (height, width))
        inner_height, inner_width = int(height * self.scale), int(width * self.scale)
        view = np.full((count, channels, *shape), PADDING, np.float32)
        for image, padded in zip(images, view, strict=True):
            for plane, target in zip(image, padded, strict=True):
                resized = cv2.resize(plane, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
                target[:inner_height, :inner_width] = resized
        return view

    def boxes(self, found: Float32Array, width: int) -> Float32Array:
        """Move boxes (k, 5+nc) found in this view to the image, in place, and return them.

        Args:
            found: Centre x, centre y, width, height in pixels of the view; divided by the scale itself, although the
                sides of the view are rounded.
            width: Width of the image in pixels.
        """
        if self.scale != 1:
            found[:, :4] /= np.float32(self.scale)
        if self.is_flipped:
            found[:, 0] = np.float32(width) - found[:, 0]
        return found


VIEWS = (View(1.0), View(0.83, is_flipped=True), View(0.67))


def padded_multiple(facts: ModelFacts) -> int:
    """Return the pixels to a multiple of which the sides of views are padded; a multiple of all strides."""
    return max(facts.strides) if facts.clips_tails else max(SCALED_MULTIPLE, *facts.strides)


def used_levels(view: int, levels: int, clips_tails: bool) -> slice:
    """Return the levels of a view whose boxes are used.

    Args:
        view: Number of the view, from 0.
        levels: Number of levels of the network, finest first.
        clips_tails: Whether the coarsest level of the first view and the finest level of the last view are left out.
    """
    if clips_tails and view == 0:
        return slice(0, levels - 1)
    return slice(1 if clips_tails and view == len(VIEWS) - 1 else 0, levels)
