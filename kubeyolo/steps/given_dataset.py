"""Opens the data that an evaluation is called with: a stored data set, data to validate, or images for test-dev.

Also counts the images of the data that an estimate is called with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import Config
from kubeyolo.config.section import MOST
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.digest import image_counts
from kubeyolo.data.image_folder import is_image_folder, open_image_folder
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError, suggest
from kubeyolo.formats import counted
from kubeyolo.output_streams import Show
from kubeyolo.steps.configure import check_store_apart, look_at_data
from kubeyolo.steps.outcome import StoredOutcome
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.location import FileLocation
from kubeyolo.storage.place import Place

_MOST_DIGITS = 4000
"""Python converts texts of up to 4300 digits to whole numbers."""


def open_given(
    place: Place, store: Place, config: Config, validate: Callable[[str, str], StoredOutcome], show: Show
) -> Dataset:
    """Return the stored data set at a place, or validate and store the data that is there.

    The validation is that of a run: its result is used again as long as no file of the data changes.

    Args:
        place: A stored data set, or a folder or URI of images and annotations.
        store: The store for data that are validated.
        config: Its section ``data`` and its key ``evaluate.split`` are used.
        validate: Validates and stores the data at a URI with a fingerprint, and returns the outcome.
        show: Shows a line.

    Raises:
        InputError: The place has neither, or the data cannot be used, or they have no split ``evaluate.split``.
    """
    if place.digest or is_stored(place) or not _has_files(place):
        dataset, split = open_dataset(place), config.evaluate.split
        if split not in dataset.manifest.splits:
            raise InputError(
                f"evaluate.split: {dataset.uri} has no split {split!r}{suggest(split, dataset.manifest.splits)}"
            )
        return dataset
    check_store_apart(store.uri, place.uri)
    source, _ = look_at_data(place.uri, config, trains=False)
    stored = validate(place.uri, source.fingerprint)
    dataset = open_dataset(stored.place.at(stored.record.outputs["dataset"]))
    findings = len(dataset.manifest.findings)
    about = f"{counted(findings, 'kind')} of findings, see {stored.record.report}" if findings else "no findings"
    show(f"{place.uri} is stored as {dataset.uri}: {about}")
    return dataset


def is_stored(place: Place) -> bool:
    """Tell whether a place has a stored data set; other programs also name their annotations ``dataset.json``."""
    if isinstance(place.location, FileLocation) and place.location.path.is_file():
        return False
    try:
        document = read_json(place.store.read_bytes(MANIFEST_NAME), place.uri)
    except (NotFound, NotJson):
        return False
    return isinstance(document, dict) and {"schema_version", "digest"} <= document.keys()


def count_images(data: str, config: Config) -> dict[str, int]:
    """Return the number of images by split of the data that an estimate is called with; no image is read.

    Args:
        data: A number of training images, a stored data set, or a folder or URI of images and annotations.
        config: Its section ``data`` is used.

    Raises:
        InputError: There is no data set, it has no training images, or the number is too large.
    """
    if (number := whole_number(data)) is not None:
        if number > MOST:
            raise InputError(f"--data {data[:40]}: expected at most {MOST:,} training images")
        counts = {"train": number}
    elif is_stored(place := Place.of(data)):
        counts = {name: split.images for name, split in open_dataset(place).manifest.splits.items()}
    else:
        counts = image_counts(place.uri, config.data)
    if not counts.get("train"):
        raise InputError(f"--data {data}: no training images; give a data set, or a number of images such as 118287")
    return counts


def whole_number(text: str) -> int | None:
    """Return the number that a text of decimal digits is; None for any other text, and for too many digits."""
    digits = text.strip()
    return int(digits) if digits.isdecimal() and len(digits) <= _MOST_DIGITS else None


def test_dev_images(place: Place, config: Config, manifest: BundleManifest) -> Dataset | None:
    """Return the images of a folder without annotations, for detections for test-dev; None for all other data.

    Args:
        place: The data that the evaluation is called with.
        config: The configuration.
        manifest: Manifest of the bundle: its classes are those of images without a list of categories.

    Raises:
        InputError: The list of images is wrong, or an image is missing or damaged.
    """
    local = place.store.local_path()
    if not config.evaluate.test_dev or local is None or is_stored(place):
        return None
    root = Path(local)
    if not is_image_folder(root):
        return None
    return open_image_folder(root, config.evaluate.split, manifest.classes, manifest.category_ids)


def _has_files(place: Place) -> bool:
    """Tell whether there is something to validate; a single file is refused there, by the folder that it is in."""
    if isinstance(place.location, FileLocation) and place.location.path.is_file():
        return True
    local = place.store.local_path()
    if local is not None:
        return Path(local).is_dir() and any(Path(local).iterdir())
    try:
        return bool(place.store.list())
    except NotFound:
        return False
