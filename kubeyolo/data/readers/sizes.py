"""Sizes of images from their headers, for annotations that are fractions of the image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kubeyolo.data.headers import ImageFault, read_file_header

_FIRST_TURNED = 5
"""EXIF orientations from this one on exchange width and height."""


def shown_sizes(folder: Path, names: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return width and height of images as a viewer shows them, EXIF orientation applied; None where there is no image.

    A file that is missing or damaged is found again, and named, when the images are checked.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="kubeyolo-sizes") as pool:
        return list(pool.map(lambda name: _shown_size(folder / name), names))


def _shown_size(path: Path) -> tuple[int, int] | None:
    try:
        header = read_file_header(path)
    except (OSError, ImageFault):
        return None
    is_turned = header.orientation >= _FIRST_TURNED
    return (header.height, header.width) if is_turned else (header.width, header.height)
