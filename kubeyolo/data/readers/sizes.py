"""Sizes of images from their headers, for annotations that are fractions of the image."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kubeyolo.data.headers import size_of_file
from kubeyolo.processors import usable_processors


def shown_sizes(folder: Path, names: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return width and height of images as a viewer shows them, EXIF orientation applied; None where there is no image.

    A file that is missing or damaged is found again, and named, when the images are checked.
    """
    with ThreadPoolExecutor(min(8, usable_processors()), thread_name_prefix="kubeyolo-sizes") as pool:
        return list(pool.map(lambda name: size_of_file(folder / name), names))
