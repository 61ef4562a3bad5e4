"""Rotates, shears and tilts the canvas of a sample as a whole, and copies objects within the canvas.

Edges of images are then no longer parallel to the axes, so the canvas is painted and warped once. A box becomes the
box around its four warped corners.

Coordinates are continuous: pixel i covers [i, i + 1). A point of the canvas is moved by C, P, R, S and T, in this
order: C moves the centre of the canvas to the origin, P is the perspective, R rotates and scales, S shears, T moves
the origin to its place in the result. The draws are those of YOLOv5 and Scaled-YOLOv4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array, Float64Array, Pixels
from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.letterbox import FILL
from kubeyolo.data.mosaic import BoxRule, Placement, Window, label_rows

LEAST_WEIGHT = 0.1
"""Smallest third homogeneous coordinate of a point of the canvas: perspective enlarges by at most a factor of 10."""
MOST_COVERED = 0.3
"""A copied object covers less than this share of every other box."""


@dataclass(frozen=True)
class Distortion:
    """Rotation, shear and perspective of a canvas.

    Attributes:
        angle: Counterclockwise rotation in degrees.
        shear_x: Angle in degrees by which vertical edges lean.
        shear_y: Angle in degrees by which horizontal edges lean.
        tilt_x: Perspective per pixel of the canvas, left to right.
        tilt_y: Perspective per pixel of the canvas, top to bottom.
    """

    angle: float = 0.0
    shear_x: float = 0.0
    shear_y: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0


def draw_distortion(rng: np.random.Generator, config: AugmentConfig) -> Distortion:
    """Draw a distortion; no random number is drawn if rotation, shear and perspective are all off."""
    if not (config.degrees or config.shear or config.perspective):
        return Distortion()
    widths = config.degrees, config.shear, config.shear, config.perspective, config.perspective
    return Distortion(*(rng.uniform(-1.0, 1.0, 5) * widths).tolist())


def warp_matrix(window: Window, distortion: Distortion) -> Float64Array:
    """Return the matrix (3, 3) that maps points of the canvas to points of the result.

    A perspective that would turn a corner of the canvas behind the viewer is reduced, see ``LEAST_WEIGHT``.
    """
    half = window.canvas / 2
    tilt = np.array([distortion.tilt_x, distortion.tilt_y])
    strongest = half * float(np.abs(tilt).sum())
    tilt *= min(1.0, (1.0 - LEAST_WEIGHT) / strongest) if strongest else 1.0
    angle = np.radians(distortion.angle)
    cosine, sine = window.scale * np.cos(angle), window.scale * np.sin(angle)
    shear_x, shear_y = np.tan(np.radians([distortion.shear_x, distortion.shear_y]))
    to_origin = np.array([[1.0, 0.0, -half], [0.0, 1.0, -half], [0.0, 0.0, 1.0]])
    perspective = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [tilt[0], tilt[1], 1.0]])
    rotation = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    shear = np.array([[1.0, shear_x, 0.0], [shear_y, 1.0, 0.0], [0.0, 0.0, 1.0]])
    to_place = np.array([[1.0, 0.0, window.origin_x], [0.0, 1.0, window.origin_y], [0.0, 0.0, 1.0]])
    matrix: Float64Array = to_place @ shear @ rotation @ perspective @ to_origin
    return matrix


def warped_corners(boxes: Float64Array, matrix: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the corners (boxes, 2) with the smallest and the largest x and y of warped boxes (boxes, 4)."""
    points = np.ones((len(boxes), 4, 3))
    points[:, :, :2] = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = points @ matrix.T
    corners = moved[:, :, :2] / moved[:, :, 2:]
    return corners.min(axis=1), corners.max(axis=1)


@dataclass(frozen=True, eq=False)
class CanvasBoxes:
    """The boxes on a canvas.

    Attributes:
        classes: float64 (boxes,): contiguous class numbers.
        corners: float64 (boxes, 4): x1, y1, x2, y2 in pixels of the canvas, clipped to the canvas.
        whole: float64 (boxes,): area before clipping, in pixels of the canvas.
    """

    classes: Float64Array
    corners: Float64Array
    whole: Float64Array


def boxes_on_canvas(placements: Sequence[Placement], boxes: BoxTable, canvas: int) -> CanvasBoxes:
    """Return the boxes of placed images; a box of which nothing is on the canvas has no area."""
    spans = [slice(boxes.start[placed.image], boxes.start[placed.image + 1]) for placed in placements]
    counts = [span.stop - span.start for span in spans]
    size = np.repeat(np.array([(placed.width, placed.height) * 2 for placed in placements], np.float64), counts, axis=0)
    corner = np.repeat(np.array([(placed.x, placed.y) * 2 for placed in placements], np.float64), counts, axis=0)
    corners = np.concatenate([boxes.corners[span] for span in spans]) * size + corner
    whole = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    classes = np.concatenate([boxes.classes[span] for span in spans])
    return CanvasBoxes(classes, np.clip(corners, 0.0, float(canvas)), whole)


def draw_copies(
    rng: np.random.Generator, boxes: CanvasBoxes, canvas: int, share: float, rule: BoxRule
) -> tuple[int, ...]:
    """Choose the objects of which a mirrored copy is added, as row numbers of their boxes.

    Each object is drawn with probability ``share``, and copied to the mirrored position of the canvas if the copy
    covers less than ``MOST_COVERED`` of every box, including the copies chosen before.

    Args:
        rng: The random numbers of the sample.
        boxes: The boxes on the canvas.
        canvas: Side of the canvas in pixels.
        share: Probability, 0..1.
        rule: Only boxes that it keeps on the canvas are copied.
    """
    drawn = rng.random(len(boxes.classes)) < share
    drawn &= rule.keeps(boxes.corners[:, 2:] - boxes.corners[:, :2], boxes.whole)
    present = boxes.corners[(boxes.corners[:, 2:] > boxes.corners[:, :2]).all(axis=1)]
    chosen = []
    for row in np.flatnonzero(drawn).tolist():
        copy = mirrored(boxes.corners[[row]], canvas)
        if (_covered(present, copy[0]) < MOST_COVERED).all():
            chosen.append(row)
            present = np.concatenate([present, copy])
    return tuple(chosen)


def mirrored(boxes: Float64Array, canvas: int) -> Float64Array:
    """Return boxes (boxes, 4) of x1, y1, x2, y2 with left and right of the canvas exchanged."""
    return np.stack([canvas - boxes[:, 2], boxes[:, 1], canvas - boxes[:, 0], boxes[:, 3]], axis=1)


def _covered(boxes: Float64Array, cover: Float64Array) -> Float64Array:
    """Return the share of each box (boxes, 4) that one box (4,) covers."""
    low, high = np.maximum(boxes[:, :2], cover[:2]), np.minimum(boxes[:, 2:], cover[2:])
    shares: Float64Array = np.clip(high - low, 0.0, None).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shares


@dataclass(frozen=True, eq=False)
class WarpedScene:
    """Images on a canvas that is painted and warped.

    Attributes:
        placements: The images on the canvas.
        window: The canvas, the scale of the warp, and the size of the result.
        matrix: float64 (3, 3): maps points of the canvas to points of the result.
        copies: Row numbers of the boxes of which a mirrored copy is added, see :func:`draw_copies`.
    """

    placements: tuple[Placement, ...]
    window: Window
    matrix: Float64Array
    copies: tuple[int, ...] = ()

    def resized(self, size: int) -> WarpedScene:
        """Return the scene with a result of another size: the matrix scales too, so pixels are resampled once."""
        window, factor = self.window, size / self.window.size
        scaled = Window(size, window.canvas, window.scale * factor, window.origin_x * factor, window.origin_y * factor)
        return replace(self, window=scaled, matrix=np.diag([factor, factor, 1.0]) @ self.matrix)

    def labels(self, table: BoxTable, rule: BoxRule) -> Float32Array:
        """Return the boxes that the rule keeps, float32 (boxes, 5): class, cx, cy, w, h in 0..1.

        As in YOLOv5, the area that is left is compared with the area of the box before the warp times scale².
        """
        boxes, rows = boxes_on_canvas(self.placements, table, self.window.canvas), list(self.copies)
        corners = np.concatenate([boxes.corners, mirrored(boxes.corners[rows], self.window.canvas)])
        classes = np.concatenate([boxes.classes, boxes.classes[rows]])
        whole = np.concatenate([boxes.whole, boxes.whole[rows]]) * self.window.scale**2
        seen: BoolArray = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        low, high = warped_corners(corners[seen], self.matrix)
        low, high = np.clip(low, 0.0, self.window.size), np.clip(high, 0.0, self.window.size)
        return label_rows(classes[seen], low, high, self.window.size)[rule.keeps(high - low, whole[seen])]

    def paint(self, table: BoxTable, read_tile: Callable[[int], Pixels], canvas: Pixels, out: Pixels) -> None:
        """Paint the canvas, and warp it into ``out``; both are uint8 (side, side, channel) of the sides in the window.

        Args:
            table: The boxes of all images.
            read_tile: Returns the image with a given number, in the size of its placement.
            canvas: Memory for the canvas.
            out: The result.
        """
        canvas.fill(FILL)
        side = self.window.canvas
        for placed in self.placements:
            x1, y1 = max(placed.x, 0), max(placed.y, 0)
            x2, y2 = min(placed.x + placed.width, side), min(placed.y + placed.height, side)
            if x1 < x2 and y1 < y2:
                tile = read_tile(placed.image)
                canvas[y1:y2, x1:x2] = tile[y1 - placed.y : y2 - placed.y, x1 - placed.x : x2 - placed.x]
        if self.copies:
            self._paint_copies(boxes_on_canvas(self.placements, table, side).corners[list(self.copies)], canvas)
        self._warp(canvas, out)

    def _paint_copies(self, boxes: Float64Array, canvas: Pixels) -> None:
        low, high = np.floor(boxes[:, :2]).astype(int), np.ceil(boxes[:, 2:]).astype(int)
        # All copies show the canvas as it was before the first copy.
        cuts = [canvas[y1:y2, x1:x2][:, ::-1].copy() for (x1, y1), (x2, y2) in zip(low, high, strict=True)]
        for (x1, y1), (x2, y2), cut in zip(low, high, cuts, strict=True):
            canvas[y1:y2, len(canvas) - x2 : len(canvas) - x1] = cut

    def _warp(self, canvas: Pixels, out: Pixels) -> None:
        # OpenCV counts from pixel centres, the matrix from pixel edges.
        half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
        matrix = np.linalg.inv(half) @ self.matrix @ half
        size, grey = (self.window.size, self.window.size), (FILL, FILL, FILL)
        if (matrix[2] == (0.0, 0.0, 1.0)).all():
            cv2.warpAffine(canvas, matrix[:2], size, dst=out, flags=cv2.INTER_LINEAR, borderValue=grey)
        else:
            cv2.warpPerspective(canvas, matrix, size, dst=out, flags=cv2.INTER_LINEAR, borderValue=grey)
