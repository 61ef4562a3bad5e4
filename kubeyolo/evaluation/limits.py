"""Limits on the metrics of a model: only this module decides whether a metric is good enough.

All limits follow one rule. A metric at its limit passes. Since floating point is not exact, a metric also passes if it
misses its limit by half a millionth of its unit at most. The unit is 1 for AP, shares and ratios, 100 for points of AP,
and the limit itself for parity. A missing, NaN or infinite metric fails its limit.

Limits on AP, AP50 and the loss of AP can be judged by an interval instead (``evaluate.judge``, ``quantize.judge``).
``interval`` fails a metric whose whole interval misses the limit, ``strict`` passes a metric whose whole interval meets
the limit; the same tolerance holds for the ends of an interval. If the interval is not known, or comes from too few
images with objects, ``interval`` judges the metric itself, and ``strict`` fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kubeyolo.config.schema import Judge
from kubeyolo.errors import InputError, WorkError, check_known
from kubeyolo.evaluation.intervals import LEAST_IMAGES, LEVEL_TEXT, WITH_INTERVAL, Interval, Resamples
from kubeyolo.evaluation.results import COCO_KEYS

POINTS = 100
"""Points of AP: AP 0.5 is 50 points."""

LEAST_SCORE, LARGEST_DISTANCE, LARGEST_AP_DIFFERENCE = 0.05, 0.5, 0.001
"""Parity of an exported network: detections with a higher score are compared, whose corners may differ by 0.5 pixels of
the input; and AP, 0 to 1, may differ by 0.001."""

_SLACK = 5e-7

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Check:
    """One limit, and whether it holds.

    Attributes:
        name: What is compared, such as ``AP >= 0.5``.
        passed: Whether it holds.
        message: The metric and the limit in words; for a failed limit also what to do, if that is known.
    """

    name: str
    passed: bool
    message: str


@dataclass(frozen=True)
class Verdict:
    """The checks of a step; the verdict passes when all of them pass."""

    checks: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> str:
        """The messages of the limits that do not hold."""
        return "; ".join(check.message for check in self.checks if not check.passed)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The checks in the form of a record."""
        return [asdict(check) for check in self.checks]

    def enforce(self, subject: str = "") -> None:
        """Raise an error if a limit does not hold.

        Raises:
            WorkError: A limit does not hold; the message has the subject and all limits that do not hold.
        """
        if not self.passed:
            raise WorkError(f"{subject}: {self.failures}" if subject else self.failures)


@dataclass(frozen=True)
class Evidence:
    """How to judge a metric, and the interval of the metric or of its loss; the interval is None if unknown.

    ``setting`` is the setting that says how to judge, for messages.
    """

    judge: Judge = "point"
    interval: Interval | None = None
    setting: str = "evaluate.judge"


POINT = Evidence()


@dataclass(frozen=True)
class _Limit:
    """The smallest or the largest allowed value of a metric; the tolerance is relative to ``unit``."""

    bound: float
    is_least: bool = False
    unit: float = 1.0

    def holds(self, value: float | None) -> bool:
        value = _finite(value)
        if value is None:
            return False
        return (self.bound - value if self.is_least else value - self.bound) <= _SLACK * self.unit

    def text(self, value: float, form: str) -> str:
        """Return the metric rounded, with more digits if the rounded metric would get a different verdict."""
        short = format(value, form)
        return short if self.holds(float(short)) == self.holds(value) else f"{value:.9g}"

    def judged(self, value: float | None, evidence: Evidence, form: str, scale: float = 1.0) -> tuple[bool, str]:
        """Return whether a metric passes, and a text about its interval, which may be empty.

        Args:
            value: The metric.
            evidence: How to judge it, and its interval.
            form: Format of the ends of the interval.
            scale: Factor of the ends of the interval.
        """
        by_point, interval, judge = self.holds(value), evidence.interval, evidence.judge
        strict = f"so {evidence.setting} = strict fails"
        fallback = {"interval": "so the value itself decides", "strict": strict}.get(judge)
        if _finite(value) is None:
            return False, ""
        if interval is None:
            why = f"; the {LEVEL_TEXT} interval is not known, {fallback}" if fallback else ""
            return by_point and judge != "strict", why
        ends = (interval.low * scale, interval.high * scale)
        text = f"; {LEVEL_TEXT} interval {self.text(ends[0], form)} to {self.text(ends[1], form)}"
        if not interval.is_usable:
            count = interval.images
            few = f"{count} image{'s' * (count != 1)} with objects {'is' if count == 1 else 'are'} too few to tell"
            end = f", {fallback}" if fallback else ""
            return by_point and judge != "strict", f"{text}: {few} ({LEAST_IMAGES} are required){end}"
        any_holds, all_hold = any(map(self.holds, ends)), all(map(self.holds, ends))
        within = {(True, True): "all of it within the limit", (False, False): "all of it beyond the limit"}
        undecided = f"the limit is inside, so {interval.images} images with objects cannot tell"
        passed = {"point": by_point, "interval": any_holds, "strict": all_hold}[judge]
        return passed, f"{text}: {within.get((any_holds, all_hold), undecided)}"


def number_warnings(numbers: Numbers) -> list[str]:
    """Return warnings that a reader of the metrics should see first; usually there are no warnings."""
    ap = _finite(numbers.get("AP"))
    if ap is not None and ap <= 0:
        return [
            "AP is 0: no detection matches an annotated object. Check whether training has converged, whether the "
            "classes are those of the data set, and whether boxes and images belong together."
        ]
    if "AP" in numbers and ap is None:
        return ["AP is not defined: the split has no annotated objects (crowds are ignored)."]
    return []


def check_numbers(
    numbers: Numbers,
    baseline: Numbers | None = None,
    least: Mapping[str, float] | None = None,
    max_drop: float = math.inf,
    judge: Judge = "point",
    resamples: tuple[Resamples | None, Resamples | None] = (None, None),
) -> Verdict:
    """Compare the metrics of a model with limits.

    Args:
        numbers: COCO metrics of the model, 0 to 1; None if there is no ground truth.
        baseline: COCO metrics of the baseline on the same data.
        least: Smallest allowed value by key, such as ``{"AP": 0.5}``.
        max_drop: Largest number of points of AP (AP × 100) that the model may lose against the baseline.
        judge: How AP, AP50 and the drop are judged.
        resamples: Resamples of the model and of the baseline, on the same data.

    Raises:
        InputError: A key is unknown or cannot be judged in this way, no limit is given, or a largest drop is given
            without a baseline.
    """
    checks = []
    for key, limit in (least or {}).items():
        check_known("COCO metric", key, COCO_KEYS)
        if judge != "point" and key not in WITH_INTERVAL:
            raise InputError(
                f"limit of {key}: evaluate.judge is {judge}, but only {' and '.join(WITH_INTERVAL)} have an interval; "
                "leave this limit out, or set evaluate.judge to point"
            )
        checks.append(check_least(numbers, key, limit, evidence=interval_of(resamples[0], key, judge)))
    if max_drop != math.inf:
        if not math.isfinite(max_drop):
            raise InputError(f"largest drop {max_drop}: expected a number of points, such as 0.5")
        if baseline is None:
            raise InputError("a largest drop is given, but no baseline; give --baseline")
        evidence = interval_of_loss(*resamples, judge)
        checks.append(check_drop(numbers.get("AP"), baseline.get("AP"), max_drop, evidence=evidence))
    if not checks:
        raise InputError("no limit is given: give --min-ap, --min, or --baseline with --max-drop")
    return Verdict(tuple(checks))


def interval_of(resamples: Resamples | None, key: str, judge: Judge) -> Evidence:
    """Return how to judge a metric, with its interval if it is known."""
    return Evidence(judge, resamples.interval(key) if resamples else None)


def interval_of_loss(
    resamples: Resamples | None, baseline: Resamples | None, judge: Judge, setting: str = "evaluate.judge"
) -> Evidence:
    """Return how to judge the loss of AP against a baseline, with its paired interval if it is known."""
    return Evidence(judge, resamples.loss_interval(baseline) if resamples and baseline else None, setting)


def check_least(numbers: Numbers, key: str, least: float, gate: str = "", evidence: Evidence = POINT) -> Check:
    """Compare a COCO metric with its smallest allowed value; ``gate`` is the setting that has this value."""
    value, limit = numbers.get(key), _Limit(least, is_least=True)
    passed, interval = limit.judged(value, evidence, ".4f")
    remedy = ""
    required = f"at least {least:g} is required{f' ({gate})' if gate else ''}"
    if gate and not passed and not limit.holds(value):
        required, remedy = f"below the gate {gate} = {least:g}", "; train longer or lower the gate"
    message = f"{key} is {_ap_text(value, limit)}, {required}{interval}{remedy}"
    return Check(f"{key} >= {least:g}{_judged_by(evidence)}", passed, message)


def check_drop(
    ap: float | None,
    baseline: float | None,
    max_drop: float,
    setting: str = "",
    against: str = "the baseline",
    network: str = "",
    remedy: str = "",
    evidence: Evidence = POINT,
) -> Check:
    """Compare the drop of AP against a baseline, in points, with the largest allowed drop.

    Args:
        ap: AP of the model, 0 to 1.
        baseline: AP of the baseline.
        max_drop: Largest number of points that the model may lose.
        setting: The setting with the limit, for the message.
        against: Name of the baseline.
        network: Name of the network, if a verdict has several networks.
        remedy: What to do if the model loses more.
        evidence: How to judge the loss, and its interval, 0 to 1.
    """
    prefix, limit = f"{network}: " if network else "", _Limit(max_drop, unit=POINTS)
    name = f"{prefix}drop of AP <= {max_drop:g} points{_judged_by(evidence)}"
    compared = f"{prefix}AP is {_ap_text(ap)}, AP of {against} is {_ap_text(baseline)}: "
    drop = points_lost(ap, baseline)
    if drop is None:
        return Check(name, False, f"{compared}there is nothing to compare; evaluate on a split with annotated objects")
    digits = limit.text(drop, ".2f")
    words = f"loses {digits}" if drop > 0 else f"gains {digits.removeprefix('-')}"
    passed, interval = limit.judged(drop, evidence, ".2f", POINTS)
    allowed = f"the limit is {max_drop:g}{f' ({setting})' if setting else ''}"
    advice = f"; {remedy}" if remedy and not passed else ""
    interval = interval.replace("interval", "interval of the loss", 1)
    return Check(name, passed, f"{compared}it {words} points, {allowed}{interval}{advice}")


def check_parity(network: str, level: str, difference: float, rtol: float, images: int) -> Check:
    """Compare the relative difference of a level of an exported network with the largest allowed difference.

    Args:
        network: Name of the exported network.
        level: Name of the level.
        difference: Difference from the trained network, relative to the largest value of the level.
        rtol: The largest difference that is allowed.
        images: Number of images on which the difference was measured.
    """
    limit = _Limit(rtol, unit=rtol)
    passed = limit.holds(difference)
    message = (
        f"{network}: level of {level} differs from the trained network by {limit.text(difference, '.3g')} of its "
        f"largest value on {images} images, at most {rtol:g} is allowed (export.parity_rtol)"
    )
    return Check(
        f"{network}, {level}: difference <= {rtol:g}", passed, message + "; the file was not published" * (not passed)
    )


def check_detections(network: str, detections: int, unmatched: int, distance: float, image: str, images: int) -> Check:
    """Check that the detections of an exported network match those of the trained network one to one.

    Args:
        network: Name of the exported network.
        detections: Detections of the trained network.
        unmatched: Detections of either network without a partner in the other.
        distance: Largest distance of the corners of partners, in pixels of the input.
        image: Name of the first image with a detection that has no partner; empty if there is none.
        images: Number of images.
    """
    limits = f"same class, corners within {LARGEST_DISTANCE:g} pixels of the input"
    if unmatched:
        message = (
            f"{network}: {unmatched} detections with a score above {LEAST_SCORE:g} have no partner in the trained "
            f"network, or none in the file ({limits}), on {images} images, first on {image}; the file was not "
            "published: report this as a bug"
        )
    else:
        message = (
            f"{network}: the {detections} detections with a score above {LEAST_SCORE:g} on {images} images match "
            f"those of the trained network one to one ({limits}); largest distance {distance:.2g} pixels"
        )
    return Check(f"{network}: same detections", not unmatched, message)


def check_ap_parity(network: str, ap: float | None, trained: float | None) -> Check:
    """Compare AP of an exported network with AP of the trained network on the same split, both 0 to 1."""
    limit = _Limit(LARGEST_AP_DIFFERENCE)
    difference = 0.0 if ap is None and trained is None else abs((_finite(ap) or 0.0) - (_finite(trained) or 0.0))
    passed = limit.holds(difference)
    message = (
        f"{network}: AP is {_ap_text(ap)}, AP of the trained network is {_ap_text(trained)}: the difference is "
        f"{limit.text(difference, '.4f')}, at most {LARGEST_AP_DIFFERENCE:g} is allowed"
    )
    return Check(
        f"{network}: difference of AP <= {LARGEST_AP_DIFFERENCE:g}",
        passed,
        message + "; the file was not published: report this as a bug" * (not passed),
    )


def check_measurable(numbers: Numbers, images: int, flat: int) -> Verdict:
    """Return the checks that fail if a loss of AP by quantization cannot be measured; empty if it can be.

    Args:
        numbers: COCO metrics of the float network.
        images: Number of calibration images.
        flat: Number of calibration images of a single colour.
    """
    checks, ap = [], _finite(numbers.get("AP"))
    if ap is None or ap <= 0:
        found = "is not defined (no ground truth)" if ap is None else "is 0"
        checks.append(
            Check(
                "AP of the float network > 0",
                False,
                f"AP of the float network {found}, so nothing can be measured: int8 cannot lose what float does not "
                "find; train longer, or evaluate on a split with annotated objects",
            )
        )
    if images and flat == images:
        checks.append(
            Check(
                "calibration images that show something > 0",
                False,
                f"all {images} calibration images are flat (of a single colour), so they tell nothing about the ranges "
                "of int8; calibrate with images like those that the network will see (split train)",
            )
        )
    return Verdict(tuple(checks))


def check_int8_share(quantized: int, convs: int, least: float) -> Check:
    """Compare the share of the convolutions that are int8 with the smallest allowed share, 0 to 1."""
    share, limit = 100 * quantized / convs if convs else 0.0, _Limit(100 * least, is_least=True, unit=100)
    message = (
        f"{quantized} of {convs} convolutions are quantized ({limit.text(share, '.1f')} %), "
        f"at least {limit.bound:g} % are required (quantize.min_quantized_convs)"
    )
    return Check(f"convolutions in int8 >= {limit.bound:g} %", limit.holds(share), message)


def check_size(int8_bytes: int, float_bytes: int, largest: float) -> Check:
    """Compare the ratio of the sizes of the int8 file and the float file with the largest allowed ratio."""
    ratio, limit = int8_bytes / float_bytes, _Limit(largest)
    message = (
        f"the file has {limit.text(ratio, '.3f')} of the float file's size ({int8_bytes} of {float_bytes} bytes), "
        f"at most {largest:g} is allowed (quantize.max_size_ratio)"
    )
    return Check(f"size, int8 to float <= {largest:g}", limit.holds(ratio), message)


def points_lost(ap: float | None, baseline: float | None) -> float | None:
    """Return how many points of AP a network loses against a baseline; None if one AP is not defined."""
    return None if ap is None or baseline is None else _finite((baseline - ap) * POINTS)


def number_text(value: float | None) -> str:
    """Format a COCO metric with four decimals; None becomes a dash."""
    return "–" if value is None else f"{value:.4f}"


def _judged_by(evidence: Evidence) -> str:
    return "" if evidence.judge == "point" else f", judged by {evidence.judge}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _ap_text(value: float | None, limit: _Limit | None = None) -> str:
    value = _finite(value)
    if value is None:
        return "not defined (no ground truth)"
    return limit.text(value, ".4f") if limit else number_text(value)
