"""Detection on all images of a split, and the COCO metrics of the detections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.evaluation.batches import BatchPlan, rectangular_batches, square_batches
from kubeyolo.evaluation.class_map import categories_of_classes
from kubeyolo.evaluation.coco_eval import Detection, evaluate_detections
from kubeyolo.evaluation.notes import crowded_note, subset_note, threshold_notes, thresholds_of
from kubeyolo.evaluation.predictor import Predictor, Prepared, Thresholds, network_input, prepare
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.progress import track
from kubeyolo.resources import usable_processors

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Split

BATCHES_AHEAD = 3
BOX_DECIMALS = 3
SCORE_DECIMALS = 6


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
    """Return sentences about settings that lower AP or change its meaning."""
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
