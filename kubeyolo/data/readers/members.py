"""Which images belong to a split, where the annotations do not say: all of a folder, or what lists name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from kubeyolo.config.text_file import read_text_file
from kubeyolo.data.layouts.names import is_image_name
from kubeyolo.data.layouts.tree import data_files
from kubeyolo.data.layouts.types import SplitFiles
from kubeyolo.errors import InputError


def images_of(root: Path, files: SplitFiles) -> list[str]:
    """Return the images of a split that are there or are listed, relative to its image folder, sorted.

    Raises:
        InputError: A list cannot be read, or there is no image.
    """
    folder = root / files.images
    found = [name for name in data_files(folder) if is_image_name(name)]
    if files.members:
        found = list(_listed(root, files, found))
    if not found:
        raise InputError(f"{root / (files.members or (files.images,))[0]}: there are no images; put them there")
    return sorted(set(found))


def list_entries(path: Path) -> list[str]:
    """Return the lines of a list of images, without empty ones.

    Raises:
        InputError: It cannot be read, or is not text.
    """
    return [line.strip() for line in read_text_file(path).splitlines() if line.strip()]


def _listed(root: Path, files: SplitFiles, found: list[str]) -> Iterable[str]:
    """Yield the images that lists name, and those in listed folders; a missing one by the name that the list gives."""
    known = set(found)
    prefix = f"{files.images}/" if files.images else ""
    for member in files.members:
        if (root / member).is_dir():
            inside = member.removeprefix(prefix)
            yield from (name for name in found if member == files.images or name.startswith(f"{inside}/"))
            continue
        beside = PurePosixPath(member).parent.as_posix()
        for entry in list_entries(root / member):
            yield _nearest(entry, "" if beside == "." else beside, prefix, known)


def _nearest(entry: str, beside: str, prefix: str, known: set[str]) -> str:
    """Return the known image that an entry means: relative to its list, to the root, or by the end of its path."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for base in (beside.split("/") if beside else [], []):
        whole = "/".join([*base, *parts])
        name = whole.removeprefix(prefix)
        if name in known and whole.startswith(prefix):
            return name
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        for each in (name, name.removeprefix(prefix)):
            if each in known:
                return each
    return "/".join(parts).removeprefix(prefix)
