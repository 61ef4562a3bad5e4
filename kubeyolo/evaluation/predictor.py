"""Detection of objects in images, by any runtime; boxes are in pixels of the original images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.bundle import BundleManifest, Preprocessing
from kubeyolo.config.schema import NmsKind
from kubeyolo.data.letterbox import LetterboxGeometry, letterbox
from kubeyolo.errors import InputError
from kubeyolo.evaluation.augmentation import VIEWS, padded_multiple
from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.network_files import NETWORK_FILES, check_facts, check_network
from kubeyolo.evaluation.nms import non_max_suppression
from kubeyolo.evaluation.openvino_runtime import OpenvinoRuntime
from kubeyolo.evaluation.outputs import Outputs
from kubeyolo.evaluation.results import NEED_MINDSPORE, NEED_OPENVINO, RuntimeName, check_runtime
from kubeyolo.evaluation.runtimes import CellRuntime, CheckedRuntime, OnnxRuntime, Runtime
from kubeyolo.models.named_facts import model_facts

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle


@dataclass(frozen=True)
class Thresholds:
    """Limits on the boxes of an image.

    Attributes:
        conf: Lowest score of a box.
        iou: IoU above which the box of the lower score is dropped.
        max_det: Largest number of boxes that an image may have.
        multi_label: Whether a box may have several classes.
        nms: How the overlap of two boxes is measured.
    """

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    multi_label: bool = False
    nms: NmsKind = "greedy"


@dataclass(frozen=True)
class Prepared:
    """A letterboxed image and the position of the original in it.

    Attributes:
        image: uint8 RGB (H, W, 3), in the size of the network's input.
        geometry: Position of the original in it.
    """

    image: Pixels
    geometry: LetterboxGeometry


def prepare(
    image: Pixels, size: tuple[int, int], preprocessing: Preprocessing, within: tuple[int, int] | None = None
) -> Prepared:
    """Letterbox one RGB image (h, w, 3) to ``size`` (height, width), resized to fit ``within`` too."""
    return Prepared(*letterbox(image, size, fill=preprocessing.fill, within=within))


def network_input(prepared: Sequence[Prepared], preprocessing: Preprocessing) -> Float32Array:
    """Return (N, 3, H, W) float32 in 0..1, contiguous."""
    height, width = prepared[0].image.shape[:2]
    batch = np.empty((len(prepared), 3, height, width), np.float32)
    for each, planes in zip(prepared, batch, strict=True):
        # Planes that are contiguous are divided faster than those of an image.
        for pixels, plane in zip(cv2.split(each.image), planes, strict=True):
            np.divide(pixels, np.float32(preprocessing.divisor), out=plane, dtype=np.float32)
    return batch


def original_pixels(rows: Float32Array, prepared: Prepared) -> Float32Array:
    """Return rows x1, y1, x2, y2, score, class with corners moved to the original image and clipped to it."""
    geometry = prepared.geometry
    width, height = geometry.image_width, geometry.image_height
    moved = rows.copy()
    moved[:, :4] = np.clip(geometry.back(rows[:, :4]), 0, (width, height, width, height))
    return moved


class Predictor:
    """A model of a bundle on a runtime.

    Args:
        manifest: Manifest of the bundle.
        runtime: Runs the network.
        name: Name of the runtime.
        batch_size: Images per forward pass; a runtime with a fixed batch size uses that size.
        image_size: Height and width of the network's input; if None, the size in the manifest is used.
        tta: Whether the network sees each image in several views (test-time augmentation).

    Raises:
        InputError: The runtime requires a different image size, or one size although views have several; or the size
            is not a multiple of the largest stride.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        runtime: Runtime,
        name: RuntimeName = "mindspore",
        batch_size: int = 8,
        image_size: tuple[int, int] | None = None,
        tta: bool = False,
    ) -> None:
        self.manifest = manifest
        self.name: RuntimeName = name
        self.batch_size = runtime.batch_size or batch_size
        self._runtime = runtime
        self._facts = model_facts(manifest.model)
        self.image_size = image_size or runtime.image_size or manifest.image_size
        self.tta = tta
        self._check_size()
        if tta:
            self.check_any_size("test-time augmentation", "tta", "evaluate.tta=false, for predict predict.tta=false")

    def check_any_size(self, feature: str, key: str, settings: str) -> None:
        """Refuse a runtime that takes images of a single size.

        Raises:
            InputError: The runtime does; the message names the feature that needs several sizes, its option and its
                settings.
        """
        if self._runtime.image_size is not None:
            height, width = self._runtime.image_size
            raise InputError(
                f"{feature} needs a network for images of any size: the {self.name} file of this bundle was exported "
                f"for {height} x {width}; use the mindspore runtime, or leave --{key} out ({settings})"
            )

    def _check_size(self) -> None:
        fixed, largest = self._runtime.image_size, max(self.manifest.strides)
        height, width = self.image_size
        if fixed is not None and fixed != self.image_size:
            raise InputError(
                f"image size {height} x {width}: the {self.name} file of this bundle was exported for "
                f"{fixed[0]} x {fixed[1]}; use that size or the mindspore runtime"
            )
        if height % largest or width % largest:
            raise InputError(f"image size {height} x {width} is not a multiple of the largest stride, {largest}")

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Map any number of images (N, 3, H, W) in 0..1 to a raw (N, na, ny, nx, 5+nc) array for each level."""
        parts = list(self._in_batches(images, self._runtime.raw))
        return [np.concatenate(level) for level in zip(*parts, strict=True)]

    def predictions(self, images: Float32Array) -> Float32Array:
        """Map any number of images to (N, boxes, 5+nc): centre, size in input pixels, scores in 0..1.

        An exported ONNX network decodes its outputs itself; otherwise they are decoded here.
        """
        return np.concatenate([part[0] for part in self._in_batches(images, self._forward)])

    def _forward(self, images: Float32Array) -> list[Float32Array]:
        decoded = self._runtime.predictions(images)
        if decoded is None:
            decoded = decode(
                self._runtime.raw(images),
                self.manifest.anchors,
                self.manifest.strides,
                self._facts.decode,
                self._facts.scale_xy,
            )
        return [decoded]

    def outputs(self, images: Float32Array) -> Outputs:
        """Run the network on at most one batch of images (N, 3, H, W) in 0..1."""
        batch, width = self._filled(images), images.shape[3]
        if self.tta:
            multiple = padded_multiple(self._facts)
            return Outputs(width, [self._runtime.raw(view.image(batch, multiple)) for view in VIEWS])
        decoded = self._runtime.predictions(batch)
        return Outputs(width, [self._runtime.raw(batch)]) if decoded is None else Outputs(width, decoded=decoded)

    def rows(self, outputs: Outputs, number: int, prepared: Prepared, thresholds: Thresholds) -> Float32Array:
        """Return (k, 6) rows of an image of a batch, best first, as :func:`detect_prepared` does."""
        boxes = outputs.boxes(number, thresholds.conf, self.manifest, self._facts)
        limits = (thresholds.conf, thresholds.iou, thresholds.max_det, thresholds.multi_label, thresholds.nms)
        return original_pixels(non_max_suppression([boxes], *limits)[0], prepared)

    def _filled(self, batch: Float32Array) -> Float32Array:
        """Fill a batch with zeros to its full size, so that only one batch size is compiled."""
        missing = self.batch_size - len(batch)
        return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)]) if missing else batch

    def _in_batches(
        self, images: Float32Array, forward: Callable[[Float32Array], list[Float32Array]]
    ) -> Iterator[list[Float32Array]]:
        """Run batches, each filled to its full size."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            yield [output[: len(batch)] for output in forward(self._filled(batch))]


def load_predictor(
    bundle: Bundle,
    runtime: RuntimeName = "mindspore",
    batch_size: int = 8,
    image_size: tuple[int, int] | None = None,
    device_target: str = "CPU",
    tta: bool = False,
) -> Predictor:
    """Open the model of a bundle on a runtime; MindSpore is imported only for ``mindspore`` and ``mindir``.

    Raises:
        InputError: The runtime is unknown, the bundle is not a detector, it has no file for the runtime, or the file
            does not fit.
    """
    manifest = bundle.manifest
    check_network(bundle, check_runtime(runtime))
    path = bundle.path(NETWORK_FILES[runtime])
    model: Runtime
    if runtime in NEED_MINDSPORE:
        from kubeyolo.evaluation.network import MindirRuntime, load_network

        if runtime == "mindspore":
            model = CellRuntime(load_network(manifest, path, device_target, bundle.uri))
        else:
            model = CheckedRuntime(MindirRuntime(path, device_target), path, manifest)
    elif runtime in NEED_OPENVINO:
        model = CheckedRuntime(OpenvinoRuntime(path, manifest), path, manifest)
    else:
        onnx = OnnxRuntime(path, manifest)
        onnx.check_classes(manifest)
        model = CheckedRuntime(onnx, path, manifest)
    check_facts(manifest, bundle.uri)
    return Predictor(manifest, model, runtime, batch_size, image_size, tta)


def detect_prepared(predictor: Predictor, prepared: Sequence[Prepared], thresholds: Thresholds) -> list[Float32Array]:
    """Find objects in letterboxed images.

    Returns:
        For each image (k, 6) rows x1, y1, x2, y2 in pixels of the original, score, class number, best first.
    """
    rows: list[Float32Array] = []
    for start in range(0, len(prepared), predictor.batch_size):
        batch = prepared[start : start + predictor.batch_size]
        outputs = predictor.outputs(network_input(batch, predictor.manifest.preprocessing))
        rows += [predictor.rows(outputs, number, each, thresholds) for number, each in enumerate(batch)]
    return rows
