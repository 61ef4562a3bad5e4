"""The data that a person gives to an evaluation: a stored data set, a folder to validate, or images for test-dev."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.image_folder import is_image_folder, open_image_folder
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.formats import counted
from kubeyolo.output_streams import Show
from kubeyolo.steps.outcome import StoredOutcome
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place


def given_dataset(place: Place, validate: Callable[[str], StoredOutcome], show: Show) -> Dataset:
    """Return the stored data set at a place, or validate and store the data that is there.

    Args:
        place: A stored data set, or a folder or URI of images and annotations.
        validate: Validates and stores data, and returns the outcome.
        show: Shows a line.

    Raises:
        InputError: There are neither, or the data cannot be used; the messages are those of the step validate_dataset.
    """
    if place.digest or (place / MANIFEST_NAME).exists() or not _has_files(place):
        return open_dataset(place)
    stored = validate(place.uri)
    dataset = open_dataset(stored.place.at(stored.record.outputs["dataset"]))
    show(f"data    {dataset.uri}")
    findings = len(dataset.manifest.findings)
    if findings:
        show(f"data    {counted(findings, 'kind')} of findings; see {stored.record.report}")
    return dataset


def test_dev_images(place: Place, config: Config, manifest: BundleManifest) -> Dataset | None:
    """Return the images of a folder without annotations, for detections for test-dev; None for all other data.

    Args:
        place: What a person gives.
        config: The configuration.
        manifest: Manifest of the bundle: its classes are those of images without a list of categories.

    Raises:
        InputError: The list of images is wrong, or an image is missing or damaged.
    """
    local = place.store.local_path()
    if not config.evaluate.test_dev or local is None or (place / MANIFEST_NAME).exists():
        return None
    root = Path(local)
    if not is_image_folder(root):
        return None
    return open_image_folder(root, config.evaluate.split, manifest.classes, manifest.category_ids)


def _has_files(place: Place) -> bool:
    local = place.store.local_path()
    if local is not None:
        return Path(local).is_dir() and any(Path(local).iterdir())
    try:
        return bool(place.store.list())
    except NotFound:
        return False
