"""How numbers, sizes, times and settings are written in reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

DASH = "–"


def integer(value: float) -> str:
    """Return a count with a thin space between thousands, which a line break cannot part."""
    return f"{round(value):,}".replace(",", "\u202f")


def compact(value: float) -> str:
    """Return an axis number: ``0.02``, ``5``, ``12k``, ``1.5M``; tiny ones with an exponent."""
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
    """Return a COCO number of 0..1 with three decimals, as pycocotools prints it; a dash for none."""
    return DASH if value is None or not math.isfinite(value) or value < 0 else f"{value:.3f}"


def signed_points(value: float | None) -> str:
    """Return a difference of COCO numbers in points (times 100) with its sign; a dash for none."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{100 * value:+.2f}"
    return ("±0.00" if float(text) == 0 else text).replace("-", "−")


def size_text(value: float) -> str:
    """Return a file size in kB or MB (powers of ten)."""
    if value < 1e3:
        return f"{value:.0f} B"
    return f"{value / 1e3:.0f} kB" if value < 1e6 else f"{value / 1e6:.2f} MB"


def duration(seconds: float | None) -> str:
    """Return a span of time: ``0.4 s``, ``48 s``, ``12 min 05 s``, ``3 h 20 min``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def setting(value: object) -> str:
    """Return any value of a configuration or of facts as text: lists with commas, no quotes, floats kept short."""
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
    """Return the words of a key: ``float_bytes`` is shown as ``float bytes``."""
    return key.replace("_", " ")
