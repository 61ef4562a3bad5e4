"""Notes about metrics: thresholds that lower AP, and images with more objects than COCO counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.evaluation.coco_eval import COCO_LIMIT
from kubeyolo.formats import counted

LOWEST_SCORE = 0.001
"""Published COCO results keep boxes from this score on."""

_THRESHOLDS = ("conf_threshold", "iou_threshold", "max_det", "multi_label")


def thresholds_of(config: EvaluateConfig) -> dict[str, Any]:
    """Return the settings that decide which detections there are, by key."""
    return {key: getattr(config, key) for key in _THRESHOLDS}


def threshold_notes(config: EvaluateConfig, most_objects: int = 0) -> list[str]:
    """Return a sentence for each threshold and limit that lowers AP.

    Args:
        config: The settings of the evaluation.
        most_objects: Largest number of boxes of an image.
    """
    notes = []
    if config.conf_threshold > LOWEST_SCORE:
        notes.append(
            f"evaluate.conf_threshold = {config.conf_threshold:g} lowers AP: detections with a lower score are left "
            f"out, and published COCO results keep them from {LOWEST_SCORE:g} on"
        )
    if config.max_det < max(COCO_LIMIT, config.dets_per_class):
        counts = f"AP@maxDets={config.dets_per_class}" if config.max_det >= COCO_LIMIT else "AP"
        notes.append(
            f"evaluate.max_det = {config.max_det} lowers {counts}: an image keeps fewer boxes than the "
            f"{config.dets_per_class if config.max_det >= COCO_LIMIT else COCO_LIMIT} of each class that are counted"
        )
    elif config.max_det < most_objects:
        notes.append(
            f"evaluate.max_det = {config.max_det} lowers AP: an image has {most_objects} annotated objects, and only "
            f"{config.max_det} boxes are kept"
        )
    if not config.multi_label:
        notes.append("evaluate.multi_label = false lowers AP: a box counts for its best class only")
    return notes


def crowded_note(images: int, dets_per_class: int = 0) -> str:
    """Return a sentence about images with more than 100 objects of a class; empty without such images."""
    if not images:
        return ""
    remedy = (
        f"AP@maxDets={dets_per_class} counts {dets_per_class}"
        if dets_per_class
        else "set evaluate.dets_per_class=N for AP@maxDets=N in addition"
    )
    have = "has" if images == 1 else "have"
    return (
        f"{counted(images, 'image')} {have} more than {COCO_LIMIT} objects of a class: AP counts {COCO_LIMIT} "
        f"detections of a class in an image, so even perfect detections get less than 1; {remedy}"
    )


def crowded_splits_notes(crowded: Mapping[str, int]) -> list[str]:
    """Return a sentence for each split with images of more than 100 objects of a class, by split."""
    return [f"split {split}: {crowded_note(images)}" for split, images in crowded.items() if images]


def subset_note(classes: Iterable[str], total: int) -> str:
    """Return a sentence about an evaluation of some of the classes of a model."""
    names = list(classes)
    return f"the metrics are those of {len(names)} of the model's {total} classes: {', '.join(names)}"
