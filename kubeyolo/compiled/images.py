"""The images of the steps: their names, and the file of references that ``make images`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubeyolo.catalogue import IMAGES
from kubeyolo.compiled.bind import bind_images, image_names, read_images
from kubeyolo.errors import InputError, split_pair, suggest

IMAGE_NAMES = tuple(f"kubeyolo-{name}" for name in IMAGES)
IMAGE_USER = 10001
"""The user, and group, that the images run as."""


def image_references(
    pipeline: str, file: Path | None, pairs: Sequence[str] = (), *, complete: bool = True
) -> dict[str, str]:
    """Return the references of the images of a compiled pipeline.

    Args:
        pipeline: The compiled pipeline as YAML.
        file: File of references by name, such as ``make images`` writes; it may have those of other pipelines too.
        pairs: ``name=reference``, over what the file says.
        complete: Whether every image must have a reference.

    Raises:
        InputError: The file cannot be read, a name is unknown, or one is missing.
    """
    references = read_images(file) if file else {}
    example = "kubeyolo-train=registry/kubeyolo-train:1.0"
    references |= dict(split_pair(pair, "--image", example, "name=reference") for pair in pairs)
    wanted = image_names(pipeline)
    known = {*wanted, *IMAGE_NAMES}
    for name in references:
        if name not in known:
            raise InputError(f"unknown image {name!r}{suggest(name, known)}")
    missing = [name for name in wanted if name not in references]
    if complete and missing:
        place = f"image list {file}" if file else "--image"
        raise InputError(f"{place}: no reference of {', '.join(missing)}; build the images with 'make images'")
    return {name: reference for name, reference in references.items() if name in wanted}


def bind_image_file(pipeline: str, file: Path | None, pairs: Sequence[str] = (), *, complete: bool = True) -> str:
    """Return a compiled pipeline with the references of :func:`image_references` in place of names."""
    references = image_references(pipeline, file, pairs, complete=complete)
    return bind_images(pipeline, references) if references else pipeline
