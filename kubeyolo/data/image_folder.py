"""Images without annotations as a data set that is not stored: a folder of images, or COCO's list of test-dev.

The list is ``image_info_*.json``, which has ids and file names of images, and the categories. Without a list all
images of the folder are used, and the id of an image is the number in its file name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.config.text_file import decode_text
from kubeyolo.data.dataset import Dataset, Split
from kubeyolo.data.folder import dataset_name
from kubeyolo.data.headers import Header, ImageFault, read_file_header, read_image_file
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.layouts.names import KINDS
from kubeyolo.data.layouts.tree import data_files
from kubeyolo.data.manifest import DatasetManifest, SplitManifest, StoredFile
from kubeyolo.documents import read_json
from kubeyolo.errors import InputError
from kubeyolo.names import name_fault
from kubeyolo.regular_files import ANNOTATIONS_SIZE, read_regular
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place

TEST_DEV_LIST = "image_info_test-dev2017.json"
_LISTS = "image_info_*.json"
_AGAIN = "give the list of images as COCO publishes it"
_DIGITS = 18
"""Digits of the largest id that is read as a number: it has 64 bits."""


@dataclass(frozen=True)
class ImageFolder(Dataset):
    """Images without annotations, as a data set with a single split.

    Attributes:
        only: The split.
    """

    only: Split

    def split(self, name: str) -> Split:
        """Return the split."""
        return self.only

    def index(self, name: str) -> SplitIndex:
        """Return the images; they have no boxes."""
        return self.only.index


class FolderSplit(Split):
    """Images in files of a folder."""

    def __init__(self, name: str, index: SplitIndex, root: Path) -> None:
        super().__init__(name, index, ())
        self.root = root

    def with_index(self, index: SplitIndex) -> FolderSplit:
        """Return the same images with other boxes."""
        return FolderSplit(self.name, index, self.root)

    def read_bytes(self, i: int) -> bytes:
        """Return the file of image ``i``.

        Raises:
            InputError: The file cannot be read.
        """
        return _content(self.root / self.index.file_name[i])

    def _damaged(self, i: int) -> InputError:
        return InputError(f"{self.root / self.index.file_name[i]}: this image is damaged and cannot be decoded")


@dataclass(frozen=True)
class _Listed:
    """Images with their ids, and categories by name, if a list has them."""

    files: list[str]
    ids: list[int]
    keys: list[str] | None = None
    categories: tuple[tuple[int, str], ...] = ()


def is_image_folder(root: Path) -> bool:
    """Tell whether a folder has COCO's list of images without annotations, or images and no annotations."""
    if not root.is_dir():
        return False
    if _lists(root):
        return True
    kinds = {_kind(name) for name in data_files(root)}
    return "image" in kinds and not kinds & {"json", "xml", "txt", "yaml", "jsonl", "csv"}


def open_image_folder(root: Path, split: str, classes: Sequence[str], category_ids: Sequence[int]) -> ImageFolder:
    """Return the images of a folder as a data set with one split.

    Args:
        root: The folder.
        split: Name of the split.
        classes: The classes of the model, for images without a list of categories.
        category_ids: Their category ids.

    Raises:
        InputError: The list is wrong, an image of it is missing, or a file is not an image.
    """
    listed = _listed(root)
    if listed.categories:
        category_ids, classes = zip(*sorted(listed.categories), strict=True)
    elif not category_ids:
        raise InputError(
            f"{root}: the ids of the categories are not known: the bundle has none; put COCO's {TEST_DEV_LIST} into "
            "the folder, which lists images and categories"
        )
    headers = [_header(root / name) for name in listed.files]
    index = _index(listed, headers)
    facts = [[name, each, (root / name).stat().st_size] for name, each in zip(listed.files, listed.ids, strict=True)]
    digest = sha256_bytes(json.dumps([facts, list(classes), list(category_ids)]).encode())
    nothing = StoredFile(name="nothing", size=0, sha256="")
    manifest = DatasetManifest(
        name=dataset_name(str(root)) if name_fault(root.resolve().name) else root.resolve().name,
        source=str(root),
        digest=digest,
        classes=tuple(classes),
        category_ids=tuple(category_ids),
        splits={split: SplitManifest(images=len(index), boxes=0, crowd=0, index=nothing, shards=())},
    )
    place = Place.of(root).pinned(digest)
    return ImageFolder(manifest, place, cache_folder("datasets"), FolderSplit(split, index, root))


def _lists(root: Path) -> list[Path]:
    """Return the lists of images, that of test-dev first."""
    found = {path for folder in (root, root / "annotations") for path in folder.glob(_LISTS)}
    return sorted(found, key=lambda path: (path.name != TEST_DEV_LIST, path))


def _kind(name: str) -> str:
    return KINDS.get(name.rpartition(".")[2].lower(), "other")


def _listed(root: Path) -> _Listed:
    lists = _lists(root)
    if len(lists) > 1 and lists[0].name != TEST_DEV_LIST:
        raise InputError(
            f"{root}: has several lists of images: {', '.join(path.name for path in lists)}; leave one of them there"
        )
    images = [name for name in data_files(root) if _kind(name) == "image"]
    if lists:
        return _of_list(lists[0], images)
    if not images:
        raise InputError(f"{root}: has no images; give a folder of images, or a data set")
    stems = [Path(name).stem for name in images]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"{root}: several images have the name {twice!r}, which is the id of an image; rename them")
    if all(stem.isascii() and stem.isdecimal() and len(stem) <= _DIGITS for stem in stems):
        ids = [int(stem) for stem in stems]
        if len(set(ids)) < len(ids):
            same = [name for name, each in zip(images, ids, strict=True) if ids.count(each) > 1][:2]
            raise InputError(
                f"{root}: {same[0]} and {same[1]} have the same number, which is the id of an image; rename them"
            )
        return _Listed(images, ids)
    return _Listed(images, list(range(1, len(images) + 1)), stems)


def _of_list(path: Path, images: Sequence[str]) -> _Listed:
    """Return the images of a list; each is found by its file name, in any folder below."""
    try:
        text = decode_text(read_regular(path, ANNOTATIONS_SIZE), str(path))
        document = read_json(text, str(path), _AGAIN, ANNOTATIONS_SIZE)
        rows = [(_id_of(row), str(row["file_name"])) for row in document["images"]]
        categories = tuple((_id_of(row), str(row["name"])) for row in document.get("categories", ()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a list of images as COCO publishes it ({error!r})") from error
    _check_distinct(path, "images", [each for each, _ in rows])
    _check_distinct(path, "categories", [each for each, _ in categories])
    # The images of image_info_test-dev2017.json are in test2017; other folders may have the same file names.
    word = re.split(r"[^a-z]", path.stem.removeprefix("image_info_"))[0]
    found: dict[str, str] = {}
    for name in sorted(images, key=lambda each: (not _folder_of(each).startswith(word), each)):
        found.setdefault(name.rpartition("/")[2], name)
    missing = [name for _, name in rows if name.rpartition("/")[2] not in found]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(rows)} images are not in {path.parent}, such as {missing[0]}; put the "
            "folder of the images next to the annotations"
        )
    if not rows:
        raise InputError(f"{path}: lists no images")
    return _Listed([found[name.rpartition("/")[2]] for _, name in rows], [each for each, _ in rows], None, categories)


def _id_of(row: Mapping[str, Any]) -> int:
    """Return the id of an image or category of a list.

    Raises:
        ValueError: It is not a whole number of 64 bits.
    """
    given = row["id"]
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) >= 10**_DIGITS:
        raise ValueError(f"the id {given!r} is not a whole number of at most {_DIGITS} digits")
    return given


def _check_distinct(path: Path, what: str, ids: Sequence[int]) -> None:
    twice = next((each for each, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path}: several {what} have the id {twice}; give each an id of its own")


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _header(path: Path) -> Header:
    try:
        return read_file_header(path)
    except ImageFault as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _content(path: Path) -> bytes:
    try:
        return read_image_file(path)
    except ImageFault as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _index(listed: _Listed, headers: Sequence[Header]) -> SplitIndex:
    sizes = np.array([header.size(header.orientation) for header in headers], np.int32).reshape(-1, 2)
    images = len(headers)
    index = SplitIndex(
        image_id=np.array(listed.ids, np.int64),
        file_name=listed.files,
        width=sizes[:, 0],
        height=sizes[:, 1],
        box_start=np.zeros(images + 1, np.int64),
        box_xywh=np.zeros((0, 4)),
        image_key=listed.keys,
        box_id=np.zeros(0, np.int64),
        box_class=np.zeros(0, np.int32),
        box_area=np.zeros(0),
        box_crowd=np.zeros(0, np.bool_),
    )
    return index.with_orientation([header.orientation for header in headers])
