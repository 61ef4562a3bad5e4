"""Writes counts, shares, sizes and times as text for people."""

from __future__ import annotations

import math

DASH = "–"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``2 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def share_text(share: float, decimals: int = 1) -> str:
    """Return a share of 0..1 in percent: ``12.5 %``."""
    return f"{100 * share:.{decimals}f} %"


def share_of(some: int, whole: int) -> str:
    """Return a part with its whole and its share: ``3 of 4 (75.0 %)``."""
    return f"{some} of {whole} ({share_text(some / whole)})"


def size_text(count: float) -> str:
    """Return a number of bytes with three digits: ``999 B``, ``12.0 kB``, ``7.22 MB``, ``1.07 GB`` (powers of ten)."""
    if count < 999.5:
        return f"{count:.0f} B"
    unit = next((unit for unit in ("kB", "MB", "GB") if (count := count / 1e3) < 999.5), "GB")
    return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"


def size_or_dash(count: float) -> str:
    """Return a number of bytes as :func:`size_text` does; a dash if it is 0, which means unknown."""
    return size_text(count) if count else DASH


def duration(seconds: float | None) -> str:
    """Return a time: ``0.4 s``, ``48 s``, ``12 min 05 s``, ``3 h 20 min``; a dash if it is None or infinite."""
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


def about_size(count: float) -> str:
    """Return an estimated number of bytes in MB or GB, with two digits at most."""
    if count < 1e9:
        return f"{_about(count / 1e6)} MB"
    return f"{count / 1e9:.1f} GB" if count < 9.95e9 else f"{_about(count / 1e9)} GB"


def about_duration(seconds: float) -> str:
    """Return an estimated time in one unit, with two digits at most."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{_about(seconds / unit)} {name}"
    return f"{_about(seconds / 86400)} days"


def _about(value: float) -> int:
    """Round to a whole number of at least 1; from 20 to a multiple of 5, from 100 to two digits."""
    if value < 20:
        return max(1, round(value))
    return round(value / 5) * 5 if value < 100 else int(float(f"{value:.2g}"))
