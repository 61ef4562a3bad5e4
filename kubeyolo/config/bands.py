"""The bands of a model's preset: what is often changed, sometimes changed, and better left alone."""

from __future__ import annotations

import re
from importlib import resources

import yaml

from kubeyolo.config.load import preset

BANDS = ("often changed", "sometimes changed", "leave alone")

_HEADING = re.compile(r"# ---- (.+) ----")


def preset_bands(model: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of a model's preset by band, in the order of the files.

    Raises:
        InputError: No preset has this name; the message suggests the nearest one.
    """
    preset(model)
    band_of = _bands_of_keys(model)
    return {band: tuple(key for key, its in band_of.items() if its == band) for band in BANDS}


def _bands_of_keys(name: str) -> dict[str, str]:
    """Return the band that each key stands in, in the file it extends or in its own."""
    text = (resources.files("kubeyolo.config") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    base = yaml.safe_load(text).get("extends")
    found = _bands_of_keys(base) if base else {}
    band = ""
    for line in text.splitlines():
        if heading := _HEADING.fullmatch(line.strip()):
            band = heading[1]
        elif band and (key := re.match(r"[a-z_]+\.[a-z_]+", line)):
            found[key[0]] = band
    return found
