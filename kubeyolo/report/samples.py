"""Sample images with boxes: an inline JPEG under an SVG overlay."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kubeyolo.arrays import Pixels

LONGEST_SIDE = 480
JPEG_QUALITY = 80
BYTE_BUDGET = 2_000_000
"""Largest total of base64 characters of all images in a report; further samples are left out."""

# Light enough for dark text on them (contrast above 7), and drawn over a dark halo on the image.
BOX_COLORS = (
    "#ffb000",
    "#4cc9f0",
    "#7ae582",
    "#ff8fc0",
    "#c4a7ff",
    "#ff9e64",
    "#2dd4bf",
    "#f4ee8e",
    "#9ecbff",
    "#ff9a92",
)

OUTCOME_COLORS = {"hit": "#7ae582", "missed": "#ff9a92", "false alarm": "#ffb000", "annotated": "#9ecbff"}
"""Colours of boxes that have an outcome, for all classes."""

_TEXT_HEIGHT = 17.0
_CHARACTER = 7.6


@dataclass(frozen=True)
class Box:
    """A box in pixels of its image (x1, y1, x2, y2), its label, and its score if it was detected.

    ``outcome`` is a key of :data:`OUTCOME_COLORS`, which then decides the colour; otherwise empty.
    """

    xyxy: tuple[float, float, float, float]
    label: str
    score: float | None = None
    crowd: bool = False
    outcome: str = ""


@dataclass(frozen=True)
class SampleImage:
    """An image, uint8 RGB (height, width, 3), its boxes and a line under it."""

    image: Pixels
    boxes: Sequence[Box]
    caption: str = ""


@dataclass(frozen=True)
class ErrorPictures:
    """Images with the most errors, and cut-outs around suspects, each with its boxes and a line under it."""

    worst: Sequence[SampleImage] = ()
    suspects: Sequence[SampleImage] = ()


NO_PICTURES = ErrorPictures()


@dataclass(frozen=True)
class DrawnBox:
    """A box as it is drawn, in pixels of the scaled image, with the position of its label."""

    x: float
    y: float
    width: float
    height: float
    color: str
    text: str
    title: str
    crowd: bool
    chip_x: float
    chip_y: float
    chip_width: float
    chip_shown: bool
    outcome: str = ""


@dataclass(frozen=True)
class DrawnSample:
    """A sample for the page: a data URI, its size in pixels, its boxes, and its alt text."""

    source: str
    width: int
    height: int
    boxes: tuple[DrawnBox, ...]
    caption: str
    alt: str


def class_colors(classes: Sequence[str], samples: Iterable[SampleImage]) -> dict[str, str]:
    """Return a colour for each label of the samples, for their legend.

    Up to ten classes have the same colours in every report; with more classes, the most frequent
    labels of the samples have different colours.
    """
    counts = Counter(box.label for sample in samples for box in sample.boxes)
    if len(classes) <= len(BOX_COLORS) and counts.keys() <= set(classes):
        return {name: BOX_COLORS[index] for index, name in enumerate(classes) if name in counts}
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: BOX_COLORS[index % len(BOX_COLORS)] for index, name in enumerate(order)}


def draw(sample: SampleImage, colors: dict[str, str], longest: int = LONGEST_SIDE) -> DrawnSample:
    """Scale an image to at most ``longest`` px, encode it, and lay out its boxes and their labels."""
    height, width = sample.image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    image = sample.image
    if scale < 1.0:
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    source = "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
    ratios = (new_width / width, new_height / height)
    boxes = _place(sample.boxes, ratios, (new_width, new_height), colors)
    return DrawnSample(source, new_width, new_height, boxes, sample.caption, _alt(sample))


def draw_within_budget(
    samples: Sequence[tuple[SampleImage, ...]],
    colors: dict[str, str],
    budget: int = BYTE_BUDGET,
    longest: int = LONGEST_SIDE,
) -> list[tuple[DrawnSample, ...]]:
    """Draw groups of samples (an image, or a pair) up to the budget in bytes; the first group is always drawn."""
    drawn: list[tuple[DrawnSample, ...]] = []
    used = 0
    for group in samples:
        pictures = tuple(draw(sample, colors, longest) for sample in group)
        used += sum(len(picture.source) + 400 * len(picture.boxes) for picture in pictures)
        if drawn and used > budget:
            break
        drawn.append(pictures)
    return drawn


def _place(
    boxes: Sequence[Box], ratios: tuple[float, float], size: tuple[int, int], colors: dict[str, str]
) -> tuple[DrawnBox, ...]:
    """Scale and clip boxes, and lay out labels without overlap; small boxes last, so that they are on top."""
    placed: list[DrawnBox] = []
    taken: list[tuple[float, float, float, float]] = []
    scaled = [(box, *_clip(box.xyxy, ratios, size)) for box in boxes]
    scaled.sort(key=lambda row: -(row[3] * row[4]))
    for box, x, y, width, height in scaled:
        text = box.label if box.score is None else f"{box.label} {box.score:.2f}"
        chip_width = _CHARACTER * len(text) + 10
        chip_x = min(max(0.0, x), max(0.0, size[0] - chip_width))
        chip_y = y - _TEXT_HEIGHT if y >= _TEXT_HEIGHT else y
        chip = (chip_x, chip_y, chip_x + chip_width, chip_y + _TEXT_HEIGHT)
        # A label that would cover another label, or most of a small image, appears only on hover; so do labels of hits.
        fits = box.outcome != "hit" and chip_width < 0.6 * size[0]
        shown = fits and not any(overlap(chip, other) for other in taken)
        if shown:
            taken.append(chip)
        about = box.outcome or ("crowd" if box.crowd else "")
        title = f"{text} ({about})" if about else text
        color = OUTCOME_COLORS.get(box.outcome) or colors.get(box.label, BOX_COLORS[0])
        placed.append(
            DrawnBox(
                x,
                y,
                width,
                height,
                color,
                text,
                title,
                box.crowd,
                chip_x,
                chip_y,
                round(chip_width, 1),
                shown,
                box.outcome,
            )
        )
    return tuple(placed)


def _clip(
    xyxy: tuple[float, float, float, float], ratios: tuple[float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return x, y, width, height in pixels of the scaled image, inside it and at least one pixel large."""
    left, right = sorted((xyxy[0] * ratios[0], xyxy[2] * ratios[0]))
    top, bottom = sorted((xyxy[1] * ratios[1], xyxy[3] * ratios[1]))
    left, top = min(max(left, 0.0), size[0] - 1.0), min(max(top, 0.0), size[1] - 1.0)
    right, bottom = min(max(right, left + 1.0), float(size[0])), min(max(bottom, top + 1.0), float(size[1]))
    return round(left, 1), round(top, 1), round(right - left, 1), round(bottom - top, 1)


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Tell whether two rectangles x1, y1, x2, y2 have an area in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _alt(sample: SampleImage) -> str:
    counts = Counter(box.label for box in sample.boxes)
    boxes = ", ".join(f"{count} {label}" for label, count in counts.items()) or "no boxes"
    return f"{sample.caption}: {boxes}" if sample.caption else boxes
