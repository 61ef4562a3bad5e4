"""Fit an image into a rectangle without changing its aspect ratio, and pad the rest with grey."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FILL = 114

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class LetterboxGeometry:
    """Where a letterboxed image lies.

    Attributes:
        width: Width of the resized image in pixels, without padding.
        height: Height of the resized image in pixels, without padding.
        ratio: Resized over original length.
        pad_x: Exact padding of the left and of the right side in pixels; a multiple of one half.
        pad_y: Exact padding of the top and of the bottom.
        left: Whole pixels of padding on the left; ``right``, ``top`` and ``bottom`` alike.
    """

    width: int
    height: int
    ratio: float
    pad_x: float
    pad_y: float
    left: int
    top: int
    right: int
    bottom: int


def letterbox_geometry(
    width: int, height: int, size: int | tuple[int, int], scale_up: bool = True, multiple_of: int = 0
) -> LetterboxGeometry:
    """Return where an image of ``width`` x ``height`` pixels lies after :func:`letterbox`."""
    target_height, target_width = (size, size) if isinstance(size, int) else size
    ratio = min(target_height / height, target_width / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    resized_width, resized_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_width, pad_height = target_width - resized_width, target_height - resized_height
    if multiple_of:
        pad_width, pad_height = pad_width % multiple_of, pad_height % multiple_of
    pad_x, pad_y = pad_width / 2, pad_height / 2
    # An odd padding puts its extra pixel on the right and at the bottom.
    return LetterboxGeometry(
        width=resized_width,
        height=resized_height,
        ratio=ratio,
        pad_x=pad_x,
        pad_y=pad_y,
        left=round(pad_x - 0.1),
        top=round(pad_y - 0.1),
        right=round(pad_x + 0.1),
        bottom=round(pad_y + 0.1),
    )


def letterbox(
    image: Image,
    size: int | tuple[int, int],
    fill: int = FILL,
    scale_up: bool = True,
    *,
    multiple_of: int = 0,
) -> tuple[Image, float, tuple[float, float]]:
    """Resize an image to fit ``size``, keep its aspect ratio, and pad the rest on both sides.

    A point of the result is ``ratio * point + (pad_x, pad_y)``, up to the rounding of the resized image
    to whole pixels.

    Args:
        image: uint8 (height, width, channel).
        size: Side of the square result in pixels, or (height, width).
        fill: Grey value of the padding, 0..255.
        scale_up: Whether an image smaller than ``size`` is enlarged.
        multiple_of: Pad only to the next multiple of this many pixels instead of the whole ``size``; 0 pads fully.

    Returns:
        The padded image, the ratio of resized over original length, and the padding of one side (x, y) in pixels.
    """
    place = letterbox_geometry(image.shape[1], image.shape[0], size, scale_up, multiple_of)
    if image.shape[:2] != (place.height, place.width):
        image = cv2.resize(image, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
    if place.left or place.right or place.top or place.bottom:
        image = cv2.copyMakeBorder(
            image, place.top, place.bottom, place.left, place.right, cv2.BORDER_CONSTANT, value=(fill, fill, fill)
        )
    return image, place.ratio, (place.pad_x, place.pad_y)


def stretch(image: Image, size: int | tuple[int, int]) -> tuple[Image, tuple[float, float]]:
    """Resize an image to ``size`` (side, or (height, width)) regardless of its aspect ratio.

    Returns:
        The image and its ratios (x, y) of resized over original length.
    """
    height, width = (size, size) if isinstance(size, int) else size
    ratios = width / image.shape[1], height / image.shape[0]
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image, ratios
