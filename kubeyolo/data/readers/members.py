"""Finds the images of a split that the annotations do not list: all images of a folder, or the images in lists."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path

from kubeyolo.config.text_file import read_text_file
from kubeyolo.data.layouts.names import is_image_name
from kubeyolo.data.layouts.tree import data_files
from kubeyolo.data.layouts.types import SplitFiles
from kubeyolo.errors import InputError
from kubeyolo.regular_files import LIST_SIZE


def images_of(root: Path, files: SplitFiles) -> list[str]:
    """Return the images of a split, sorted, as paths relative to its image folder; listed images may be missing.

    Raises:
        InputError: A list cannot be read, or there are no images.
    """
    folder = root / files.images
    names = [name for name in data_files(folder) if is_image_name(name)]
    if files.members:
        names = list(_listed(root, files, names))
    if not names:
        where = root / (files.members or (files.images,))[0]
        raise InputError(f"{where}: there are no images; put the images of the split there")
    return sorted(set(names))


def list_entries(path: Path) -> list[str]:
    """Return the lines of a list of images, without empty lines.

    Raises:
        InputError: The list cannot be read, or is not text.
    """
    return [line.strip() for line in read_text_file(path, "", LIST_SIZE).splitlines() if line.strip()]


def _listed(root: Path, files: SplitFiles, names: list[str]) -> Iterable[str]:
    """Yield the images that lists name, and the images in listed folders; a missing image is named as in the list."""
    images = set(names)
    prefix = f"{files.images}/" if files.images else ""
    for member in files.members:
        if (root / member).is_dir():
            inside = member.removeprefix(prefix)
            yield from (name for name in names if member == files.images or name.startswith(f"{inside}/"))
            continue
        for entry in list_entries(root / member):
            yield _nearest(entry, posixpath.dirname(member), prefix, images)


def _nearest(entry: str, folder: str, prefix: str, images: set[str]) -> str:
    """Return the image that an entry means, relative to the list's folder or the root, or by its last parts."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for base in (folder.split("/") if folder else [], []):
        whole = "/".join([*base, *parts])
        name = whole.removeprefix(prefix)
        if name in images and whole.startswith(prefix):
            return name
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        for each in (name, name.removeprefix(prefix)):
            if each in images:
                return each
    return "/".join(parts).removeprefix(prefix)
