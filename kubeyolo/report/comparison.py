"""The report of compare: the metrics of two models, paired differences, classes, the images that differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubeyolo.evaluation.comparison import Difference, MatchedComparison
from kubeyolo.evaluation.intervals import LEAST_IMAGES, LEVEL_TEXT, Interval
from kubeyolo.formats import DASH
from kubeyolo.report.charts import Chart, bar_chart
from kubeyolo.report.formats import integer, number3, signed_points
from kubeyolo.report.page import Stat, fact_rows, render
from kubeyolo.report.samples import SampleImage, class_colors, draw_within_budget

LARGEST_BAR_CHART = 18


def comparison_report(
    labels: tuple[str, str],
    numbers: Sequence[Difference],
    found: MatchedComparison,
    document: Mapping[str, Any],
    samples: Sequence[tuple[SampleImage, ...]] = (),
) -> str:
    """Return the report of a comparison as one HTML page.

    Args:
        labels: Descriptions of the two networks, which the page calls A and B.
        numbers: The 12 COCO metrics of both.
        found: The comparison of their matches: classes, intervals, images.
        document: comparison.json.
        samples: Images with the annotated boxes, the detections of A, and those of B.
    """
    ap = numbers[0]
    colors = class_colors([each.name for each in found.classes], [sample for group in samples for sample in group])
    chart = _class_chart(found.classes)
    a, b = document["bundles"]
    return render(
        "comparison.html",
        kind="comparison",
        title="A compared with B",
        lead=f"A is {labels[0]}, B is {labels[1]}. Both were evaluated on the same {integer(document['images'])} "
        f"image{'s' * (document['images'] != 1)} of the split {document['split']}.",
        stats=[
            Stat("AP of A", number3(ap.first), _range(found.resamples[0].interval("AP"))),
            Stat("AP of B", number3(ap.second), _range(found.resamples[1].interval("AP"))),
            Stat("B minus A, points", signed_points(ap.difference), interval_text(ap.interval)),
            Stat("Images that differ", integer(document["images_that_differ"]), "by mistakes at the best F1"),
        ],
        decision=document["verdict"],
        numbers=numbers,
        classes=sorted(found.classes, key=lambda each: each.difference if each.difference is not None else 9.0),
        interval_text=interval_text,
        level=LEVEL_TEXT,
        charts=[chart] if chart else [],
        images=document["most_different"],
        thresholds=found.thresholds,
        groups=draw_within_budget(samples, colors),
        colors=colors,
        crowd=any(box.crowd for group in samples for sample in group for box in sample.boxes),
        facts=[(name, fact_rows(_facts(each))) for name, each in (("A", a), ("B", b))],
    )


def decision_text(ap: Difference, images: int) -> str:
    """Return the decision by the interval of the difference of AP as a sentence."""
    interval = interval_text(ap.interval)
    if ap.difference is None or ap.interval is None:
        return "The split has no annotated objects, so there is nothing to compare."
    start = f"B minus A is {signed_points(ap.difference)} points of AP, {LEVEL_TEXT} interval {interval}: "
    if not ap.interval.is_usable:
        count = "1 image with objects is" if images == 1 else f"{integer(images)} images with objects are"
        return f"{start}{count} too few to tell which is better ({LEAST_IMAGES} are required)."
    return (
        start
        + {
            "better": "B is better on images like these.",
            "worse": "B is worse on images like these.",
            "equal": "A and B have the same AP in every resample.",
            "undecided": f"0 is inside, so {integer(images)} images with objects cannot tell which is better.",
        }[ap.decision]
    )


def interval_text(interval: Interval | None) -> str:
    """Return an interval of a difference in points; a dash if there is none."""
    return DASH if interval is None else f"{signed_points(interval.low)} to {signed_points(interval.high)}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{LEVEL_TEXT}: {number3(interval.low)} to {number3(interval.high)}"


def _facts(bundle: Mapping[str, Any]) -> dict[str, object]:
    size = bundle["image_size"]
    return {
        "bundle": bundle["bundle"],
        "runtime": bundle["runtime"],
        "image_size": f"{size[1]} × {size[0]}" if size else "",
        "score_of_the_best_F1": bundle["threshold"],
    }


def _class_chart(classes: Sequence[Difference]) -> Chart | None:
    rated = [each for each in classes if each.first is not None and each.second is not None]
    if not 0 < len(rated) <= LARGEST_BAR_CHART:
        return None
    return bar_chart(
        "class-ap",
        "AP of each class",
        [each.name for each in rated],
        [("A", [each.first or 0.0 for each in rated]), ("B", [each.second or 0.0 for each in rated])],
        x_label="average precision",
        label="; ".join(f"{each.name}: A {number3(each.first)}, B {number3(each.second)}" for each in rated),
        decimals=3,
    )
