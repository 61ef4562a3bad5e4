"""Overlaps of boxes: shared areas and intersection over union (IoU), in the precision of the boxes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array, Float64Array

Boxes = TypeVar("Boxes", Float32Array, Float64Array)


def corners(boxes: Float64Array) -> Float64Array:
    """Return (A, 4) left, top, right, bottom of boxes (A, 4) x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def areas(boxes: Boxes) -> Boxes:
    """Return the areas (A,) of boxes (A, 4) left, top, right, bottom."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def shared_areas(boxes: Boxes, others: Boxes) -> Boxes:
    """Return the areas (A, B) shared by ``boxes`` (A, 4) and ``others`` (B, 4), all left, top, right, bottom."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(boxes: Boxes, others: Boxes) -> Boxes:
    """Return the IoU (A, B) of ``boxes`` and ``others`` as in :func:`shared_areas`; NaN if neither has an area."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shared = shared_areas(boxes, others)
        return shared / (areas(boxes)[:, None] + areas(others)[None] - shared)


def coco_iou(detected: Float64Array, annotated: Float64Array, crowd: BoolArray) -> Float64Array:
    """Return the IoU (P,) of pairs of boxes (P, 4) x, y, width, height, as COCO's evaluation computes it.

    Args:
        detected: The detected boxes.
        annotated: The annotated boxes.
        crowd: Whether an annotated box is a crowd (P,); the value is then the share of the detected box inside it.
    """
    low = np.maximum(detected[:, :2], annotated[:, :2])
    high = np.minimum(detected[:, :2] + detected[:, 2:], annotated[:, :2] + annotated[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    area = detected[:, 2:].prod(axis=1)
    whole = np.where(crowd, area, area + annotated[:, 2:].prod(axis=1) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def concentric_iou(sides: Float64Array, others: Float64Array) -> Float64Array:
    """Return the IoU (A, B) of boxes around the same centre with the widths and heights (A, 2) and (B, 2)."""
    shared = np.minimum(sides[:, None], others[None]).prod(axis=2)
    iou: Float64Array = shared / (sides.prod(axis=1)[:, None] + others.prod(axis=1)[None] - shared)
    return iou
