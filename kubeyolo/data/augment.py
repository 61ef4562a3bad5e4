"""Plan, label and paint augmented training samples.

All random numbers of a sample are drawn for its :class:`SamplePlan`; its boxes and pixels are computed from the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kubeyolo.arrays import Float32Array, Int32Array, Int64Array, Pixels
from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.letterbox import letterbox_geometry
from kubeyolo.data.mosaic import (
    BoxRule,
    Paste,
    Placement,
    Window,
    compose,
    mosaic_placements,
    resized_pastes,
    visible_boxes,
    visible_pastes,
)
from kubeyolo.data.warp import Distortion, WarpedScene, boxes_on_canvas, draw_copies, draw_distortion, warp_matrix

HUES = 180
STRIP = 64
"""Rows of an image whose colours are changed together: their memory is small enough for the cache of a core."""

TileReader = Callable[[int], Pixels]
Scene = tuple[Paste, ...] | WarpedScene
"""The parts of images, and the rectangles of the sample into which they are resized; or a warped canvas."""


@dataclass(frozen=True)
class SamplePlan:
    """The random choices from which a sample is made.

    Attributes:
        scene: The images, and their positions in the sample.
        size: Side of the sample in pixels.
        blended: A second scene for mixup, or None.
        blend: Weight of the first scene, 0..1.
        hsv: Factors of hue, saturation and value, or None.
        fliplr: Whether left and right are exchanged.
        flipud: Whether top and bottom are exchanged.
    """

    scene: Scene
    size: int
    blended: Scene | None = None
    blend: float = 1.0
    hsv: tuple[float, float, float] | None = None
    fliplr: bool = False
    flipud: bool = False

    def resized(self, size: int) -> SamplePlan:
        """Return the same choices for a sample of another size."""
        if size == self.size:
            return self
        blended = None if self.blended is None else self._resized(self.blended, size)
        return replace(self, scene=self._resized(self.scene, size), blended=blended, size=size)

    def _resized(self, scene: Scene, size: int) -> Scene:
        if isinstance(scene, WarpedScene):
            return scene.resized(size)
        return resized_pastes(scene, size / self.size)


def jitter_hsv(image: Pixels, gains: tuple[float, float, float]) -> None:
    """Multiply hue (which wraps), saturation and value of an RGB image (height, width, 3) in place."""
    # Only hue needs a look-up table, because it wraps: OpenCV scales and clips the other channels with SIMD.
    table = (np.arange(256) * gains[0] % HUES).astype(np.uint8)
    width = image.shape[1]
    strip, planes = np.empty((STRIP, width, 3), np.uint8), np.empty((3, STRIP, width), np.uint8)
    for top in range(0, len(image), STRIP):
        rgb = image[top : top + STRIP]
        hsv = strip[: len(rgb)]
        hue, saturation, value = (plane[: len(rgb)] for plane in planes)
        cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV, dst=hsv)
        cv2.split(hsv, [hue, saturation, value])
        cv2.LUT(hue, table, dst=hue)
        cv2.convertScaleAbs(saturation, dst=saturation, alpha=gains[1])
        cv2.convertScaleAbs(value, dst=value, alpha=gains[2])
        cv2.merge((hue, saturation, value), dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=rgb)


def flip_boxes(boxes: Float32Array, fliplr: bool, flipud: bool) -> Float32Array:
    """Mirror boxes (boxes, 5) of class, cx, cy, w, h in 0..1 in place and return them."""
    if fliplr:
        boxes[:, 1] = 1.0 - boxes[:, 1]
    if flipud:
        boxes[:, 2] = 1.0 - boxes[:, 2]
    return boxes


class Augmenter:
    """Plans, labels and paints samples from the images of a split.

    Samples are planned for ``image_size`` pixels; a plan can be resized before it is labelled and painted.

    Attributes:
        sizes: int64 (images, 2): width and height of the tiles, which are images whose longer side is resized to
            ``image_size`` pixels.
    """

    def __init__(
        self, config: AugmentConfig, boxes: BoxTable, widths: Int32Array, heights: Int32Array, image_size: int
    ) -> None:
        self.config = config
        self.rule = BoxRule.of(config)
        self.boxes = boxes
        self.image_size = image_size
        tiles = [letterbox_geometry(int(w), int(h), image_size) for w, h in zip(widths, heights, strict=True)]
        self.sizes: Int64Array = np.array([(tile.width, tile.height) for tile in tiles], np.int64)
        self._images = np.arange(len(tiles), dtype=np.int64)
        self._corners = np.array([(tile.left, tile.top) for tile in tiles], np.int64)
        self._canvas = np.empty((2, image_size, image_size, 3), np.uint8)
        self._wide: Pixels | None = None

    def draw(
        self, rng: np.random.Generator, image: int, mosaic: bool = True, partners: Int64Array | None = None
    ) -> SamplePlan:
        """Draw the plan of a sample of ``image_size`` pixels.

        Args:
            rng: The random numbers of the sample.
            image: The first image of the sample.
            mosaic: Whether mosaic, mixup and copies of objects may be used, each with its probability.
            partners: int64 (candidates,): the images from which the other images of a mosaic and of mixup are drawn; if
                None, all images.
        """
        config = self.config
        partners = self._images if partners is None else partners
        joined = mosaic and rng.random() < config.mosaic
        scene = self._scene(rng, image, joined, partners)
        blended, blend = None, 1.0
        if (joined if config.mixup_mosaics_only else mosaic) and rng.random() < config.mixup:
            blended = self._scene(rng, int(partners[rng.integers(len(partners))]), joined, partners)
            blend = float(rng.beta(config.mixup_beta, config.mixup_beta))
        hue, saturation, value = rng.uniform(-1.0, 1.0, 3) * (config.hsv_h, config.hsv_s, config.hsv_v) + 1.0
        colored = bool(config.hsv_h or config.hsv_s or config.hsv_v)
        return SamplePlan(
            scene,
            self.image_size,
            blended,
            blend,
            hsv=(float(hue), float(saturation), float(value)) if colored else None,
            fliplr=bool(rng.random() < config.fliplr),
            flipud=bool(rng.random() < config.flipud),
        )

    def labels(self, plan: SamplePlan) -> Float32Array:
        """Return the boxes of a sample, float32 (boxes, 5): class, cx, cy, w, h in 0..1.

        Boxes are kept or left out by their size in a sample of ``image_size`` pixels, whatever the size of this sample.
        """
        boxes = self._scene_labels(plan.scene, plan.size)
        if plan.blended is not None:
            boxes = np.concatenate([boxes, self._scene_labels(plan.blended, plan.size)])
        return flip_boxes(boxes, plan.fliplr, plan.flipud)

    def paint(self, plan: SamplePlan, read_tile: TileReader, out: Pixels) -> None:
        """Paint a sample into ``out``, uint8 (3, size, size) RGB of the size of the plan.

        Args:
            plan: The sample.
            read_tile: Returns the tile of an image number, uint8 RGB (height, width, 3) of the size in ``sizes``.
            out: C-contiguous; may be in shared memory.
        """
        if self._canvas.shape[1] != plan.size:
            self._canvas = np.empty((2, plan.size, plan.size, 3), np.uint8)
        canvas = self._canvas[0]
        self._paint_scene(plan.scene, read_tile, canvas)
        if plan.blended is not None:
            other = self._canvas[1]
            self._paint_scene(plan.blended, read_tile, other)
            cv2.addWeighted(canvas, plan.blend, other, 1.0 - plan.blend, 0.0, dst=canvas)
        if plan.hsv is not None:
            jitter_hsv(canvas, plan.hsv)
        if plan.fliplr or plan.flipud:
            code = -1 if plan.fliplr and plan.flipud else int(plan.fliplr)
            canvas = cv2.flip(canvas, code, dst=self._canvas[1])
        cv2.split(canvas, [out[0], out[1], out[2]])

    def _scene(self, rng: np.random.Generator, image: int, joined: bool, partners: Int64Array) -> Scene:
        size, config = self.image_size, self.config
        placements: tuple[Placement, ...]
        if joined:
            others = partners[rng.integers(len(partners), size=3)]
            nearest, farthest = (1.0 - config.mosaic_center) * size, (1.0 + config.mosaic_center) * size
            center_x, center_y = rng.uniform(nearest, farthest, 2)
            placements = mosaic_placements([image, *map(int, others)], self.sizes, (int(center_x), int(center_y)))
        else:
            placements = (self._letterboxed(image),)
        scale = float(rng.uniform(1.0 - config.scale, 1.0 + config.scale))
        shift_x, shift_y = rng.uniform(-config.translate, config.translate, 2)
        canvas = 2 * size if joined else size
        window = Window(size, canvas, scale, (0.5 + float(shift_x)) * size, (0.5 + float(shift_y)) * size)
        distortion = draw_distortion(rng, config)
        copies: tuple[int, ...] = ()
        if joined and config.copy_paste:
            boxes = boxes_on_canvas(placements, self.boxes, canvas)
            copies = draw_copies(rng, boxes, canvas, config.copy_paste, self.rule)
        if copies or distortion != Distortion():
            return WarpedScene(placements, window, warp_matrix(window, distortion), copies)
        return visible_pastes(placements, window)

    def _scene_labels(self, scene: Scene, size: int) -> Float32Array:
        rule = replace(self.rule, min_side=self.rule.min_side * size / self.image_size)
        if isinstance(scene, WarpedScene):
            return scene.labels(self.boxes, rule)
        return visible_boxes(scene, self.boxes, size, rule)

    def _paint_scene(self, scene: Scene, read_tile: TileReader, out: Pixels) -> None:
        if not isinstance(scene, WarpedScene):
            compose(scene, read_tile, out)
            return
        if self._wide is None:
            self._wide = np.empty((2 * self.image_size, 2 * self.image_size, 3), np.uint8)
        side = scene.window.canvas
        scene.paint(self.boxes, read_tile, self._wide[:side, :side], out)

    def _letterboxed(self, image: int) -> Placement:
        width, height = self.sizes[image]
        x, y = self._corners[image]
        return Placement(image, int(width), int(height), int(x), int(y))
