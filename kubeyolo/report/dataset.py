"""The report of validate_dataset: findings, counts, classes, box sizes, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Float64Array
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.formats import share_text
from kubeyolo.report.charts import Chart, bar_chart, density_chart, histogram
from kubeyolo.report.findings import NO_FINDINGS
from kubeyolo.report.formats import integer
from kubeyolo.report.page import Stat, fact_rows, render
from kubeyolo.report.samples import SampleImage, class_colors, draw_within_budget

SMALL_AREA, MEDIUM_AREA = 32.0**2, 96.0**2
"""COCO's bounds of small, medium and large boxes, in square pixels of the annotated area."""

LARGEST_BAR_CHART = 18
"""Most classes that have a bar; the table next to the chart has all classes."""

COUNT_NAMES = ("Images", "Boxes", "Crowd boxes", "Images without boxes", "Boxes per image", "Small", "Medium", "Large")


@dataclass(frozen=True)
class ClassRow:
    """Boxes of a class in each split, and its share of all boxes in percent."""

    name: str
    counts: tuple[int, ...]
    share: float


def dataset_report(
    manifest: DatasetManifest,
    splits: Mapping[str, SplitIndex],
    samples: Sequence[SampleImage] = (),
    warnings: Sequence[str] = (),
) -> str:
    """Return the report of a data set as one HTML page.

    Args:
        manifest: The manifest of the stored data set.
        splits: The index of each split, in the order of the page.
        samples: Images with their annotated boxes.
        warnings: Warnings about evaluations on the data set.
    """
    rows = _class_rows(manifest.classes, splits)
    images = sum(len(index) for index in splits.values())
    boxes = sum(index.boxes for index in splits.values())
    colors = class_colors(manifest.classes, samples)
    return render(
        "dataset.html",
        kind="data set",
        title=manifest.name,
        lead="Every annotation was checked and every image decoded before this page was written.",
        stats=[
            Stat("Images", integer(images), " + ".join(f"{integer(len(i))} {name}" for name, i in splits.items())),
            Stat("Boxes", integer(boxes), f"{boxes / max(1, images):.1f} per image"),
            Stat("Classes", integer(len(manifest.classes)), _absent_note(rows)),
            Stat("Digest", manifest.digest[:12], "sha256 of images and annotations"),
        ],
        warnings=warnings,
        findings=manifest.findings,
        no_findings=NO_FINDINGS,
        count_names=COUNT_NAMES,
        splits=[(name, _counts(index)) for name, index in splits.items()],
        split_names=list(splits),
        class_hint=_class_hint(rows),
        class_chart=_class_chart(rows, list(splits)),
        class_rows=rows,
        box_hint="Small, medium and large as in COCO: an annotated area below 32² pixels, below 96² pixels, or larger.",
        charts=[_size_chart(splits), _density(splits), _aspect_chart(splits), _crowding_chart(splits)],
        samples=draw_within_budget([(sample,) for sample in samples], colors),
        colors=colors,
        crowd=any(box.crowd for sample in samples for box in sample.boxes),
        facts=fact_rows(
            {
                "source": manifest.source,
                **({"layout": manifest.layout} if manifest.layout else {}),
                **({"levels": manifest.levels} if manifest.levels else {}),
                "digest": manifest.digest,
                "schema version": manifest.schema_version,
                "stored bytes": sum(shard.size for split in manifest.splits.values() for shard in split.shards),
            }
        ),
    )


def _counts(index: SplitIndex) -> list[str]:
    boxes_per_image = np.diff(index.box_start)
    bands = _bands(index.box_area)
    share = [share_text(count / max(1, index.boxes)) for count in bands]
    return [
        integer(len(index)),
        integer(index.boxes),
        integer(int(index.box_crowd.sum())),
        integer(int((boxes_per_image == 0).sum())),
        f"{index.boxes / max(1, len(index)):.1f}",
        *share,
    ]


def _bands(area: Float64Array) -> tuple[int, int, int]:
    small = int((area < SMALL_AREA).sum())
    large = int((area >= MEDIUM_AREA).sum())
    return small, len(area) - small - large, large


def _class_rows(classes: Sequence[str], splits: Mapping[str, SplitIndex]) -> list[ClassRow]:
    """Return the classes with their counts, most frequent first."""
    counts = [np.bincount(index.box_class, minlength=len(classes)) for index in splits.values()]
    total = max(1, sum(int(count.sum()) for count in counts))
    rows = []
    for number, name in enumerate(classes):
        own = tuple(int(count[number]) for count in counts)
        rows.append(ClassRow(name, own, 100.0 * sum(own) / total))
    return sorted(rows, key=lambda row: -row.share)


def _absent_note(rows: Sequence[ClassRow]) -> str:
    absent = sum(1 for row in rows if min(row.counts, default=0) == 0)
    return f"{absent} not in every split" if absent else "all in every split"


def _class_hint(rows: Sequence[ClassRow]) -> str:
    filled = [row for row in rows if sum(row.counts)]
    if not filled:
        return "The data set has no boxes."
    most, least = filled[0], filled[-1]
    if len(filled) == 1:
        return f"All boxes are {most.name}."
    ratio = sum(most.counts) / sum(least.counts)
    return f"The most frequent class, {most.name}, has {ratio:.3g} times as many boxes as the rarest, {least.name}."


def _class_chart(rows: Sequence[ClassRow], split_names: Sequence[str]) -> Chart:
    shown = rows[:LARGEST_BAR_CHART]
    groups = [(name, [float(row.counts[i]) for row in shown]) for i, name in enumerate(split_names)]
    parts = [f"{row.name} {', '.join(str(count) for count in row.counts)}" for row in shown[:10]]
    note = f"The {len(shown)} most frequent of {len(rows)} classes." if len(rows) > len(shown) else ""
    return bar_chart(
        "class-histogram",
        "Boxes per class",
        [row.name for row in shown],
        groups,
        x_label="boxes",
        label=f"Boxes per class in {', '.join(split_names)}: {'; '.join(parts)}",
        note=note,
    )


def _size_chart(splits: Mapping[str, SplitIndex]) -> Chart:
    sides = [(name, np.sqrt(np.maximum(index.box_area, 1.0))) for name, index in splits.items()]
    largest = max((float(side.max(initial=0.0)) for _, side in sides), default=0.0)
    top = max(256.0, 2.0 ** math.ceil(math.log2(max(2.0, largest))))
    ticks = [(float(2**power), str(2**power)) for power in range(2, int(math.log2(top)) + 1)]
    area = np.concatenate([index.box_area for index in splits.values()]) if splits else np.zeros(0)
    small, medium, large = (100.0 * count / max(1, len(area)) for count in _bands(area))
    return histogram(
        "box-sizes",
        "Box size: square root of the area, in pixels",
        sides,
        np.geomspace(4.0, top, 41),
        x_label="pixels",
        label=f"Histogram of box sizes: {small:.0f} % small, {medium:.0f} % medium, {large:.0f} % large",
        log_x=True,
        ticks=ticks,
        bands=[
            (0.0, 32.0, f"small {small:.0f} %"),
            (32.0, 96.0, f"medium {medium:.0f} %"),
            (96.0, top, f"large {large:.0f} %"),
        ],
    )


def _density(splits: Mapping[str, SplitIndex]) -> Chart:
    widths, heights = [np.zeros(0)], [np.zeros(0)]
    for index in splits.values():
        image = index.box_image()
        widths.append(index.box_xywh[:, 2] / index.width[image])
        heights.append(index.box_xywh[:, 3] / index.height[image])
    width, height = np.concatenate(widths), np.concatenate(heights)
    middle = (float(np.median(width)), float(np.median(height))) if len(width) else (0.0, 0.0)
    return density_chart(
        "box-shapes",
        "Width and height of boxes, as fractions of the image",
        width,
        height,
        label=f"Density of relative box width and height; medians {middle[0]:.3f} and {middle[1]:.3f}",
        note="Stronger colour: more boxes. Dashed line: both fractions are equal.",
    )


def _aspect_chart(splits: Mapping[str, SplitIndex]) -> Chart:
    ratios = [(name, index.box_xywh[:, 2] / np.maximum(index.box_xywh[:, 3], 1e-6)) for name, index in splits.items()]
    texts = {1 / 8: "1:8", 1 / 4: "1:4", 1 / 2: "1:2", 1.0: "1:1", 2.0: "2:1", 4.0: "4:1", 8.0: "8:1"}
    every = np.concatenate([np.zeros(0), *(ratio for _, ratio in ratios)])
    middle = float(np.median(every)) if len(every) else 1.0
    return histogram(
        "aspect-ratios",
        "Aspect ratio: width to height",
        ratios,
        np.geomspace(1 / 8, 8.0, 41),
        x_label="width : height",
        label=f"Histogram of aspect ratios; median {middle:.2f}",
        log_x=True,
        ticks=list(texts.items()),
    )


def _crowding_chart(splits: Mapping[str, SplitIndex]) -> Chart:
    counts = [(name, np.diff(index.box_start).astype(np.float64)) for name, index in splits.items()]
    most = int(max((count.max(initial=0.0) for _, count in counts), default=0.0))
    width = max(1, math.ceil((most + 1) / 32))
    edges = np.arange(0, most + 1 + width, width, dtype=np.float64)
    return histogram(
        "boxes-per-image",
        "Boxes per image",
        counts,
        edges,
        x_label="boxes",
        label=f"Histogram of boxes per image, at most {most}",
    )
