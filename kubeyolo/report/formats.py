"""How numbers and settings are written in reports; :mod:`kubeyolo.formats` has sizes, shares and times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kubeyolo.formats import DASH


def integer(value: float) -> str:
    """Return a count with a thin space between thousands, at which lines do not break."""
    return f"{round(value):,}".replace(",", "\u202f")


def compact(value: float) -> str:
    """Return a number for an axis: ``0.02``, ``5``, ``12k``, ``1.5M``; tiny numbers with an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else DASH
    size = abs(value)
    for bound, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= bound:
            unit = 1e3 if suffix == "k" else bound
            return f"{value / unit:.3g}{suffix}"
    if size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value:.4g}"


def number3(value: float | None) -> str:
    """Return a COCO metric in 0..1 with three decimals, as pycocotools prints it; a dash if there is no value."""
    return DASH if value is None or not math.isfinite(value) or value < 0 else f"{value:.3f}"


def signed_points(value: float | None) -> str:
    """Return a difference of COCO metrics in points (times 100) with its sign; a dash if there is no value."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{100 * value:+.2f}"
    return ("±0.00" if float(text) == 0 else text).replace("-", "−")


def setting(value: object) -> str:
    """Return any value of a configuration or of facts as text: lists with commas, no quotes, short floats."""
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return integer(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(setting(item) for item in value)
    return str(value)


def label_of(key: str) -> str:
    """Return a key as words: ``float bytes`` for ``float_bytes``."""
    return key.replace("_", " ")
