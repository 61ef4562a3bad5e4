"""Detection of objects in images, by any runtime; boxes are in pixels of the original images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.bundle import BundleManifest, Preprocessing
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.letterbox import LetterboxGeometry, letterbox
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.augmentation import VIEWS, padded_multiple
from kubeyolo.evaluation.batches import BatchPlan, rectangular_batches, square_batches
from kubeyolo.evaluation.class_map import categories_of_classes
from kubeyolo.evaluation.coco_eval import Detection, evaluate_detections
from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.network_files import NETWORK_FILES, check_network
from kubeyolo.evaluation.nms import NmsKind, non_max_suppression
from kubeyolo.evaluation.notes import crowded_note, subset_note, threshold_notes, thresholds_of
from kubeyolo.evaluation.outputs import Outputs
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

    def check_any_size(self, what: str, key: str, settings: str) -> None:
        """Refuse a runtime that takes images of a single size.

        Raises:
            InputError: It does; the message names what needs several sizes, and the option and the settings for it.
        """
        if self._runtime.image_size is not None:
            height, width = self._runtime.image_size
            raise InputError(
                f"{what} needs a network for images of any size: the {self.name} file of this bundle was exported for "
                f"{height} x {width}; use the mindspore runtime, or leave --{key} out ({settings})"
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
    if runtime in ("mindspore", "mindir"):
        from kubeyolo.evaluation.network import MindirRuntime, load_network

        if runtime == "mindspore":
            model = CellRuntime(load_network(manifest, path, device_target, bundle.uri))
        else:
            model = MindirRuntime(path, device_target)
    else:
        model = OnnxRuntime(path, manifest)
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
        plan = _batch_plan(predictor, split, config)
        detections = share.gathered(detections, split.index.image_id[plan.order].tolist(), predictor.batch_size)
    detections = _in_order_of_images(detections, split)
    truth = split.index.to_coco(manifest.classes, manifest.category_ids)
    result = evaluate_detections(truth, detections, config.engine, config.dets_per_class)
    about: dict[str, Any] = {"split": split.name, "runtime": predictor.name, "image_size": predictor.image_size}
    about |= {"tta": predictor.tta, "rect": config.rect, "nms": config.nms}
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

    While the network runs, threads read and letterbox the next images and suppress the boxes of the last images.

    Args:
        predictor: The model.
        split: Images and boxes.
        manifest: Manifest of the split's data set: class names and category ids.
        config: Thresholds, and whether batches are rectangular; batch size and image size come from the predictor.
        progress: Whether to show a bar.
        share: The share of this process.

    Returns:
        The detections as rows of a COCO results file, image by image in the order of the batches.

    Raises:
        InputError: The model was trained on different classes, the network takes no rectangles, or an image cannot be
            read.
    """
    categories = categories_of_classes(predictor.manifest.classes, manifest, partial=bool(config.classes))
    plan = _batch_plan(predictor, split, config)
    positions = share.numbers(len(split.index), predictor.batch_size)
    image_ids = split.index.image_id[plan.order[positions]].tolist()
    if share.world > 1 and (stored := share.stored(image_ids)) is not None:
        return stored
    if config.rect and progress and share.rank == 0 and positions:
        print(plan.words(), flush=True)
    limits = (config.conf_threshold, config.iou_threshold, config.max_det, config.multi_label, config.nms)
    thresholds = Thresholds(*limits)
    detections: list[Detection] = []
    per_image: Iterable[Float32Array] = _detected(predictor, split, plan, positions, thresholds)
    if progress:
        per_image = track(per_image, f"evaluating {split.name} ({predictor.name})", len(positions))
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
    boxes = _rounded(np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1), BOX_DECIMALS)
    scores = _rounded(rows[:, 4], SCORE_DECIMALS)
    labels = rows[:, 5].astype(np.int64).tolist()
    return [
        Detection(image_id=image_id, category_id=int(category), bbox=box, score=score)
        for label, box, score in zip(labels, boxes, scores, strict=True)
        if (category := category_ids[label]) is not None
    ]


def _rounded(values: Float32Array, decimals: int) -> Any:
    """Return values as lists, rounded as by ``round``: in float64 the power of ten times a float32 is exact."""
    factor = 10.0**decimals
    return (np.rint(values.astype(np.float64) * factor) / factor).tolist()


def _batch_plan(predictor: Predictor, split: Split, config: EvaluateConfig) -> BatchPlan:
    if not config.rect:
        return square_batches(len(split.index), predictor.batch_size, predictor.image_size)
    predictor.check_any_size("an evaluation with rectangular batches", "rect", "evaluate.rect=false")
    stride = max(predictor.manifest.strides)
    return rectangular_batches(split.index, predictor.batch_size, predictor.image_size, stride)


def _in_order_of_images(detections: list[Detection], split: Split) -> list[Detection]:
    """Return detections in the order of the images of a split; those of an image keep their order."""
    places = {image_id: place for place, image_id in enumerate(split.index.image_id.tolist())}
    return sorted(detections, key=lambda row: places[row["image_id"]])


def _detected(
    predictor: Predictor, split: Split, plan: BatchPlan, positions: Sequence[int], thresholds: Thresholds
) -> Iterator[Float32Array]:
    """Yield the rows of the images at some positions of a plan, in their order.

    The network runs in this thread. Threads read a few batches ahead, and find the rows of the last batch while the
    network runs on the next one: three batches of images and two of outputs are in memory.
    """
    preprocessing = predictor.manifest.preprocessing
    size, total = predictor.batch_size, len(positions)

    def read(position: int) -> Prepared:
        image = split.read_image(int(plan.order[position]))
        return prepare(image, plan.size(position), preprocessing, within=predictor.image_size)

    pool = ThreadPoolExecutor(usable_processors(), thread_name_prefix="kubeyolo-evaluate")
    try:
        reading: deque[Future[Prepared]] = deque()
        finding: deque[Future[Float32Array]] = deque()
        asked = 0
        for start in range(0, total, size):
            ahead = min(start + size * BATCHES_AHEAD, total)
            reading.extend(pool.submit(read, position) for position in positions[asked:ahead])
            asked = max(asked, ahead)
            batch = [reading.popleft().result() for _ in range(min(size, total - start))]
            outputs = predictor.outputs(network_input(batch, preprocessing))
            while finding:
                yield finding.popleft().result()
            finding.extend(
                pool.submit(predictor.rows, outputs, number, each, thresholds) for number, each in enumerate(batch)
            )
        while finding:
            yield finding.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
