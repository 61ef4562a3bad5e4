"""Fits an image into a network's input without changing its aspect ratio, and pads the rest with grey.

Training, evaluation, prediction, calibration and export all use this module to position an image in a network's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from kubeyolo.arrays import Float64Array, Pixels

FILL = 114


@dataclass(frozen=True)
class LetterboxGeometry:
    """Position of an image in the network's input; maps boxes from the image to the input and back.

    Coordinates are continuous: pixel i covers [i, i + 1), so a whole image covers 0 to its width or height.
    The resized sides are rounded to whole pixels, so the ratios of the two axes differ slightly. The padding is in
    whole pixels too.

    Attributes:
        image_width: Width of the image in pixels.
        image_height: Height of the image in pixels.
        input_width: Width of the network's input in pixels.
        input_height: Height of the network's input in pixels.
        width: Width of the resized image in pixels of the input, without padding.
        height: Height of the resized image in pixels of the input, without padding.
        left: Padding on the left in pixels of the input.
        top: Padding at the top in pixels of the input.
    """

    image_width: int
    image_height: int
    input_width: int
    input_height: int
    width: int
    height: int
    left: int
    top: int

    @property
    def right(self) -> int:
        """Padding on the right in pixels of the input: the same as on the left, or one pixel more."""
        return self.input_width - self.width - self.left

    @property
    def bottom(self) -> int:
        """Padding at the bottom in pixels of the input: the same as at the top, or one pixel more."""
        return self.input_height - self.height - self.top

    @property
    def ratio_x(self) -> float:
        """Resized width divided by original width."""
        return self.width / self.image_width

    @property
    def ratio_y(self) -> float:
        """Resized height divided by original height."""
        return self.height / self.image_height

    def forward(self, points: ArrayLike) -> Float64Array:
        """Map points (..., 2) of x, y or boxes (..., 4) of x1, y1, x2, y2 from the image to the network's input."""
        image = np.asarray(points, np.float64)
        times = image.shape[-1] // 2
        return image * self._ratios(times) + self._corner(times)

    def back(self, points: ArrayLike) -> Float64Array:
        """Map points (..., 2) of x, y or boxes (..., 4) of x1, y1, x2, y2 from the network's input to the image.

        Points in the padding are mapped beyond the edges of the image.
        """
        network = np.asarray(points, np.float64)
        times = network.shape[-1] // 2
        return (network - self._corner(times)) / self._ratios(times)

    def _ratios(self, times: int) -> Float64Array:
        return np.array((self.ratio_x, self.ratio_y) * times)

    def _corner(self, times: int) -> Float64Array:
        return np.array((self.left, self.top) * times, np.float64)


def letterbox_geometry(
    width: int, height: int, size: int | tuple[int, int], within: tuple[int, int] | None = None
) -> LetterboxGeometry:
    """Return the position of an image of ``width`` x ``height`` pixels after :func:`letterbox` fits it to ``size``."""
    input_height, input_width = (size, size) if isinstance(size, int) else size
    ratio = min(input_height / height, input_width / width)
    if within is not None:
        ratio = min(ratio, within[0] / height, within[1] / width)
    resized_width, resized_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    return LetterboxGeometry(
        image_width=width,
        image_height=height,
        input_width=input_width,
        input_height=input_height,
        width=resized_width,
        height=resized_height,
        # An odd padding puts its extra pixel on the right and at the bottom.
        left=(input_width - resized_width) // 2,
        top=(input_height - resized_height) // 2,
    )


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Resize an image (height, width, channel) as the letterbox does; return it unchanged if it has this size.

    Linear interpolation between pixel centres maps an edge at x to x times the ratio of the widths.
    """
    if image.shape[:2] == (height, width):
        return image
    resized: Pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def letterbox(
    image: Pixels, size: int | tuple[int, int], fill: int = FILL, within: tuple[int, int] | None = None
) -> tuple[Pixels, LetterboxGeometry]:
    """Resize an image to fit ``size``, keep its aspect ratio, and pad the rest on both sides.

    Args:
        image: uint8 (height, width, channel).
        size: Side of the square result in pixels, or (height, width).
        fill: Grey value of the padding, 0..255.
        within: Height and width that the resized image must fit too; then ``size`` may have more padding.

    Returns:
        The padded image, and the position of the original in it.
    """
    geometry = letterbox_geometry(image.shape[1], image.shape[0], size, within)
    image = resize(image, geometry.width, geometry.height)
    if image.shape[:2] != (geometry.input_height, geometry.input_width):
        image = cv2.copyMakeBorder(
            image,
            geometry.top,
            geometry.bottom,
            geometry.left,
            geometry.right,
            cv2.BORDER_CONSTANT,
            value=(fill, fill, fill),
        )
    return image, geometry
