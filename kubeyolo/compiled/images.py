"""The images of the steps: their names, and the file of references that ``make images`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubeyolo.catalogue import IMAGES
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.load import read_mapping
from kubeyolo.errors import InputError, check_known, split_pair

IMAGE_NAMES = tuple(f"kubeyolo-{name}" for name in IMAGES)
IMAGE_USER = 10001
"""User id and group id of the processes in the images."""


def image_references(
    pipeline: CompiledPipeline, file: Path | None, pairs: Sequence[str] = (), *, complete: bool = True
) -> dict[str, str]:
    """Return the references of the images of a compiled pipeline.

    Args:
        pipeline: The compiled pipeline.
        file: File of references by name, as written by ``make images``; references for other pipelines are ignored.
        pairs: ``name=reference``; they override the file.
        complete: Whether every image must have a reference.

    Raises:
        InputError: The file cannot be read, a name is unknown, or a reference is missing.
    """
    references = read_images(file) if file else {}
    example = "kubeyolo-train=registry/kubeyolo-train:1.0"
    references |= dict(split_pair(pair, "--image", example, "name=reference") for pair in pairs)
    wanted = pipeline.image_names
    known = {*wanted, *IMAGE_NAMES}
    for name in references:
        check_known("image", name, known)
    missing = [name for name in wanted if name not in references]
    if complete and missing:
        place = f"image list {file}" if file else "--image"
        raise InputError(f"{place}: no image reference for {', '.join(missing)}; build the images with 'make images'")
    return {name: reference for name, reference in references.items() if name in wanted}


def bind_image_file(
    pipeline: CompiledPipeline, file: Path | None, pairs: Sequence[str] = (), *, complete: bool = True
) -> CompiledPipeline:
    """Return a compiled pipeline with the references from :func:`image_references` instead of names."""
    references = image_references(pipeline, file, pairs, complete=complete)
    return pipeline.bind_images(references) if references else pipeline


def read_images(file: Path) -> dict[str, str]:
    """Read a YAML or JSON file of image references by name.

    Raises:
        InputError: The file cannot be read, or is not a mapping of names to references.
    """
    if not file.exists():
        raise InputError(f"image list {file}: there is no such file; 'make images' writes it, or give --images FILE")
    content = read_mapping(file, "image list")
    if not all(isinstance(value, str) for value in content.values()):
        raise InputError(f"image list {file}: expected image references by name, such as kubeyolo-train: registry/…")
    return {str(name): reference for name, reference in content.items()}
