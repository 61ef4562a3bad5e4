"""Detection of objects in images, by any runtime; boxes are in pixels of the original images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.bundle import MINDIR, ONNX, ONNX_INT8, WEIGHTS, BundleManifest, Preprocessing
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.letterbox import LetterboxGeometry, letterbox
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.class_map import categories_of_classes
from kubeyolo.evaluation.coco_eval import Detection, evaluate_detections
from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.nms import non_max_suppression
from kubeyolo.evaluation.notes import crowded_note, subset_note, threshold_notes, thresholds_of
from kubeyolo.evaluation.results import EvaluationResult, RuntimeName, check_runtime
from kubeyolo.evaluation.runtimes import CellRuntime, OnnxRuntime, Runtime
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.models.named_facts import model_facts
from kubeyolo.progress import track
from kubeyolo.resources import usable_processors

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle
    from kubeyolo.data.dataset import Split

BATCHES_AHEAD = 3
BOX_DECIMALS = 3
SCORE_DECIMALS = 6


@dataclass(frozen=True)
class Thresholds:
    """Limits on the boxes of an image.

    Attributes:
        conf: Lowest score of a box.
        iou: IoU above which the box of the lower score is dropped.
        max_det: Largest number of boxes that an image may have.
        multi_label: Whether a box may have several classes.
    """

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    multi_label: bool = False


@dataclass(frozen=True)
class Prepared:
    """A letterboxed image and the position of the original in it.

    Attributes:
        image: uint8 RGB (H, W, 3), in the size of the network's input.
        geometry: Position of the original in it.
    """

    image: Pixels
    geometry: LetterboxGeometry


def prepare(image: Pixels, size: tuple[int, int], preprocessing: Preprocessing) -> Prepared:
    """Letterbox one RGB image (h, w, 3) to ``size`` (height, width)."""
    return Prepared(*letterbox(image, size, fill=preprocessing.fill))


def network_input(prepared: Sequence[Prepared], preprocessing: Preprocessing) -> Float32Array:
    """Return (N, 3, H, W) float32 in 0..1, contiguous."""
    stacked = np.stack([each.image for each in prepared]).transpose(0, 3, 1, 2)
    return np.divide(stacked, np.float32(preprocessing.divisor), dtype=np.float32, order="C")


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

    Raises:
        InputError: The runtime requires a different image size, or the size is not a multiple of the largest stride.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        runtime: Runtime,
        name: RuntimeName = "mindspore",
        batch_size: int = 8,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self.manifest = manifest
        self.name: RuntimeName = name
        self.batch_size = runtime.batch_size or batch_size
        self._runtime = runtime
        self._facts = model_facts(manifest.model)
        self.image_size = image_size or runtime.image_size or manifest.image_size
        self._check_size()

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

    def _in_batches(
        self, images: Float32Array, forward: Callable[[Float32Array], list[Float32Array]]
    ) -> Iterator[list[Float32Array]]:
        """Run full batches, so that only one shape is compiled: the last batch is filled with zeros."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            count = len(batch)
            if count < self.batch_size:
                padding = np.zeros((self.batch_size - count, *batch.shape[1:]), np.float32)
                batch = np.concatenate([batch, padding])
            yield [output[:count] for output in forward(batch)]


def load_predictor(
    bundle: Bundle,
    runtime: RuntimeName = "mindspore",
    batch_size: int = 8,
    image_size: tuple[int, int] | None = None,
    device_target: str = "CPU",
) -> Predictor:
    """Open the model of a bundle on a runtime; MindSpore is imported only for ``mindspore`` and ``mindir``.

    Raises:
        InputError: The runtime is unknown, the bundle is not a detector, it has no file for the runtime, or the file
            does not fit.
    """
    manifest = bundle.manifest
    if manifest.kind != "detector":
        raise InputError(f"{bundle.uri}: a {manifest.kind}, not a detector; give the bundle of a trained detector")
    model: Runtime
    if check_runtime(runtime) in ("mindspore", "mindir"):
        from kubeyolo.evaluation.network import MindirRuntime, load_network

        if runtime == "mindspore":
            model = CellRuntime(load_network(manifest, bundle.path(WEIGHTS), device_target, bundle.uri))
        else:
            model = MindirRuntime(bundle.path(MINDIR), device_target)
    else:
        model = OnnxRuntime(bundle.path(ONNX if runtime == "onnx" else ONNX_INT8), manifest)
    return Predictor(manifest, model, runtime, batch_size, image_size)


def detect_prepared(predictor: Predictor, prepared: Sequence[Prepared], thresholds: Thresholds) -> list[Float32Array]:
    """Find objects in letterboxed images.

    Returns:
        For each image (k, 6) rows x1, y1, x2, y2 in pixels of the original, score, class number, best first.
    """
    rows: list[Float32Array] = []
    for start in range(0, len(prepared), predictor.batch_size):
        batch = prepared[start : start + predictor.batch_size]
        decoded = predictor.predictions(network_input(batch, predictor.manifest.preprocessing))
        kept = non_max_suppression(decoded, thresholds.conf, thresholds.iou, thresholds.max_det, thresholds.multi_label)
        rows += map(original_pixels, kept, batch)
    return rows


def evaluate_split(
    predictor: Predictor,
    split: Split,
    manifest: DatasetManifest,
    config: EvaluateConfig,
    progress: bool = True,
    share: Share = WHOLE,
) -> tuple[EvaluationResult, list[Detection]]:
    """Detect on every image of a split and compute the COCO metrics.

    Args:
        predictor: The model.
        split: Images and boxes.
        manifest: Manifest of the split's data set: class names and category ids.
        config: Thresholds; batch size and image size come from the predictor.
        progress: Whether to show a bar.
        share: If several processes share the work, the share of process 0, which waits for the other shares.

    Returns:
        The metrics, and the detections as rows of a COCO results file.

    Raises:
        InputError: The model was trained on different classes, or an image cannot be read.
    """
    detections = detect_split(predictor, split, manifest, config, progress, share)
    if share.world > 1:
        detections = share.gathered(detections, split.index.image_id.tolist(), predictor.batch_size)
    truth = split.index.to_coco(manifest.classes, manifest.category_ids)
    result = evaluate_detections(truth, detections, config.engine, config.dets_per_class)
    about: dict[str, Any] = {"split": split.name, "runtime": predictor.name, "image_size": predictor.image_size}
    about |= {"thresholds": thresholds_of(config), "notes": _notes(predictor, split, manifest, config, result)}
    return result.model_copy(update=about), detections


def _notes(
    predictor: Predictor, split: Split, manifest: DatasetManifest, config: EvaluateConfig, result: EvaluationResult
) -> list[str]:
    """Return what lowers AP or makes it another number, as sentences."""
    counts = np.diff(split.index.box_start)
    notes = threshold_notes(config, int(counts.max(initial=0)))
    notes += [note] if (note := crowded_note(result.crowded_images, config.dets_per_class)) else []
    classes = len(predictor.manifest.classes)
    return notes + ([subset_note(manifest.classes, classes)] if len(manifest.classes) < classes else [])


def detect_split(
    predictor: Predictor,
    split: Split,
    manifest: DatasetManifest,
    config: EvaluateConfig,
    progress: bool = True,
    share: Share = WHOLE,
) -> list[Detection]:
    """Detect on the images of a share of a split; if several processes share the work, store the detections.

    Images are read and letterboxed by threads while the network runs.

    Args:
        predictor: The model.
        split: Images and boxes.
        manifest: Manifest of the split's data set: class names and category ids.
        config: Thresholds; batch size and image size come from the predictor.
        progress: Whether to show a bar.
        share: The share of this process.

    Returns:
        The detections as rows of a COCO results file.

    Raises:
        InputError: The model was trained on different classes, or an image cannot be read.
    """
    categories = categories_of_classes(predictor.manifest.classes, manifest, partial=bool(config.classes))
    numbers = share.numbers(len(split.index), predictor.batch_size)
    image_ids = split.index.image_id[numbers].tolist()
    if share.world > 1 and (stored := share.stored(image_ids)) is not None:
        return stored
    thresholds = Thresholds(config.conf_threshold, config.iou_threshold, config.max_det, config.multi_label)
    detections: list[Detection] = []
    batches = _prepared_batches(predictor, split, numbers)
    per_image: Iterable[Float32Array] = (
        rows for prepared in batches for rows in detect_prepared(predictor, prepared, thresholds)
    )
    if progress:
        per_image = track(per_image, f"evaluating {split.name} ({predictor.name})", len(numbers))
    for image_id, rows in zip(image_ids, per_image, strict=True):
        detections += coco_rows(rows, image_id, categories)
    if share.world > 1:
        share.store(image_ids, detections)
    return detections


def coco_rows(rows: Float32Array, image_id: int, category_ids: Sequence[int | None]) -> list[Detection]:
    """Return rows x1, y1, x2, y2, score, class of one image as rows of a COCO results file.

    Args:
        rows: The rows (k, 6).
        image_id: Id of the image.
        category_ids: Category id of each class; rows of a class without an id are left out.
    """
    boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1).astype(np.float64)
    return [
        Detection(
            image_id=image_id,
            category_id=int(category),
            bbox=[round(value, BOX_DECIMALS) for value in box],
            score=round(float(row[4]), SCORE_DECIMALS),
        )
        for row, box in zip(rows, boxes.tolist(), strict=True)
        if (category := category_ids[int(row[5])]) is not None
    ]


def _prepared_batches(predictor: Predictor, split: Split, numbers: Sequence[int]) -> Iterator[list[Prepared]]:
    """Yield images of a split by their numbers, batch by batch, and read a few batches ahead."""
    preprocessing = predictor.manifest.preprocessing

    def read(number: int) -> Prepared:
        return prepare(split.read_image(number), predictor.image_size, preprocessing)

    size, total = predictor.batch_size, len(numbers)
    with ThreadPoolExecutor(usable_processors(), thread_name_prefix="kubeyolo-evaluate") as pool:
        waiting: list[Future[Prepared]] = []
        asked = 0
        for start in range(0, total, size):
            ahead = min(start + size * BATCHES_AHEAD, total)
            waiting += [pool.submit(read, number) for number in numbers[asked:ahead]]
            asked = max(asked, ahead)
            batch, waiting = waiting[:size], waiting[size:]
            try:
                yield [future.result() for future in batch]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
