"""Files of drawn pictures: plans their paths and writes them, never over a file that this command has not drawn."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image, PngImagePlugin

from kubeyolo.errors import InputError
from kubeyolo.prediction.sources import MARK, Source, is_drawn
from kubeyolo.storage.file_errors import writable_folder
from kubeyolo.storage.integrity import appearing

JPEG_SIDE = 65500
"""Pixels: the longest side that is written as JPEG; the limit of the format is 65535."""
JPEG_QUALITY = 92

_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_LOSSLESS_SUFFIXES = frozenset({".tif", ".tiff", ".bmp", ".dib"})


@dataclass(frozen=True)
class Written:
    """The path of a drawn picture, and a note (may be empty) if its format differs from the format in its name."""

    path: str
    note: str = ""


def plan_targets(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Return the path of the drawn picture of each source, below ``folder``.

    Paths are those of :func:`free_paths`. JPEG and PNG keep their names; other images get an additional suffix after
    the name, so that ``a.tif`` and ``a.png`` stay different.

    Raises:
        InputError: A picture would replace an image to read or a file that was not drawn by this command, the
            folder is the folder of the images, or the folder cannot be written.
    """
    targets = free_paths(sources, folder, target_name)
    _check_inputs(sources, folder, [path for path, source in zip(targets, sources, strict=True) if not source.fault])
    for path, source in zip(targets, sources, strict=True):
        if not source.fault and os.path.lexists(path) and not is_drawn(path):
            raise InputError(
                f"{path}: exists, and was not drawn by this command; give --output a different folder, or remove it"
            )
    writable_folder("--output", folder)
    return targets


def free_paths(
    sources: Sequence[Source], folder: Path, name_of: Callable[[str], str], reserved: Sequence[str] = ()
) -> list[Path]:
    """Return a different path below ``folder`` for each source.

    Images of one folder keep their path below it; images of several folders keep their path below the common folder.

    Args:
        sources: Images.
        folder: Folder of the paths.
        name_of: Returns the name of the file that is written for an image of a name.
        reserved: Names of files in ``folder`` that no source gets.
    """
    folders = {source.folder: _parts(source) for source in sources if not source.fault}
    common = len(os.path.commonprefix(sorted(folders.values()))) if folders else 0
    paths: list[Path] = []
    owners = {str(folder / name).casefold(): "" for name in reserved}
    for source in sources:
        if source.fault:  # nothing is written for it
            paths.append(folder / name_of(source.inner.name))
            continue
        inner = PurePosixPath(*_parts(source)[common:], *source.inner.parts)
        paths.append(_free(folder / inner.with_name(name_of(inner.name)), source.name, owners))
    return paths


def target_name(name: str) -> str:
    """Return the name of the drawn picture of an image."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _JPEG_SUFFIXES or suffix == ".png":
        return name
    return f"{name}.png" if suffix in _LOSSLESS_SUFFIXES else f"{name}.jpg"


def write_picture(picture: Image.Image, path: Path) -> Written:
    """Write a picture in one step, in the format of its suffix, or as PNG if it is too large for JPEG.

    Raises:
        OSError: The picture cannot be written.
    """
    note = ""
    as_png = path.suffix.lower() == ".png"
    if not as_png and max(picture.size) > JPEG_SIDE:
        path, as_png = path.with_name(f"{path.name}.png"), True
        note = f"{picture.width} x {picture.height} pixels are too many for JPEG"
        if os.path.lexists(path) and not is_drawn(path):
            raise FileExistsError(errno.EEXIST, "exists, and was not drawn by this command", str(path))
    data = BytesIO()
    if as_png:
        about = PngImagePlugin.PngInfo()
        about.add_text("Comment", MARK.decode())
        picture.save(data, "PNG", pnginfo=about, compress_level=2)
    else:
        picture.save(data, "JPEG", quality=JPEG_QUALITY, comment=MARK)
    with appearing(path, durable=False) as part:
        part.write_bytes(data.getbuffer())
    return Written(str(path), note)


def _parts(source: Source) -> tuple[str, ...]:
    """Return the names of the folders from the root to the folder of a source."""
    if source.stored:
        return tuple(part for part in source.folder.split("/") if part and not part.endswith(":"))
    return tuple(part for part in os.path.abspath(source.folder or ".").split(os.sep) if part)


def _free(path: Path, source: str, owners: dict[str, str]) -> Path:
    """Return the path, with a number if another source has this path already (``photo.jpg`` and ``photo``)."""
    number, free = 1, path
    # Names that differ by case are one file on many machines.
    while owners.setdefault(str(free).casefold(), source) != source:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _check_inputs(sources: Sequence[Source], folder: Path, targets: Sequence[Path]) -> None:
    here = os.path.realpath(folder)
    read = {os.path.realpath(source.name) for source in sources if not source.stored}
    folders = {os.path.dirname(name) for name in read} | {
        os.path.realpath(source.folder or ".") for source in sources if not source.stored and not source.fault
    }
    if here in folders:
        raise InputError(
            f"--output {folder}: the images are in this folder; give a different folder for the drawn pictures"
        )
    for target in targets:
        if os.path.realpath(target) in read:
            raise InputError(f"--output {folder}: {target} is an image to read; give a different folder")
