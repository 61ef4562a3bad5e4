"""What the names of files and folders of data sets mean."""

from __future__ import annotations

import re

from kubeyolo.file_kinds import IMAGE_SUFFIXES, UNREAD_IMAGE_SUFFIXES

_MEANINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
}
# Words that say what a file is and not which split it belongs to.
_FILLERS = frozenset(
    {
        "all",
        "ann",
        "anns",
        "annotated",
        "annotation",
        "annotations",
        "box",
        "boxes",
        "bbox",
        "bboxes",
        "coco",
        "createml",
        "data",
        "dataset",
        "default",
        "detection",
        "detections",
        "export",
        "full",
        "image",
        "images",
        "img",
        "imgs",
        "instance",
        "instances",
        "jpegimages",
        "json",
        "label",
        "labels",
        "obj",
        "object",
        "objects",
        "photos",
        "picture",
        "pictures",
        "result",
        "results",
        "set",
        "split",
        "subset",
        "via",
        "voc",
        "xml",
        "yolo",
    }
)
_WORDS = re.compile(r"[^a-z0-9]+")
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_YEAR = re.compile(r"(?<=[a-z])\d{4}$|^\d{4}$")

IMAGE_FOLDERS = ("images", "jpegimages", "image", "imgs", "img", "data", "pictures", "photos", "frames")
"""Names of folders of images, in lower case, the usual ones first."""

_ARCHIVE_SUFFIXES = ("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar", "zst")
KINDS = {
    **dict.fromkeys((suffix[1:] for suffix in IMAGE_SUFFIXES | UNREAD_IMAGE_SUFFIXES), "image"),
    **dict.fromkeys(_ARCHIVE_SUFFIXES, "archive"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    **{
        suffix: suffix
        for suffix in ("txt", "xml", "json", "jsonl", "csv", "names", "labels", "data", "tfrecord", "parquet")
    },
}
"""What a file is by its suffix in lower case."""

_LEFTOVERS = frozenset({"thumbs.db", "desktop.ini", "license", "licence", "license.txt", "license.md"})
_LEFTOVER_FOLDERS = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information"})


def is_leftover_folder(name: str) -> bool:
    """Tell whether a folder was left by the machine or a tool and holds nothing of a data set."""
    return name.startswith(".") or name.lower() in _LEFTOVER_FOLDERS


def is_leftover(name: str) -> bool:
    """Tell whether a file was left by the machine or a tool, or explains the data set to people."""
    lower = name.lower()
    if name.startswith(".") or lower in _LEFTOVERS or lower.endswith((".cache", "~")):
        return True
    return lower.startswith("readme") and not is_image_name(lower)


def words_of(name: str) -> list[str]:
    """Return the words of a name that are no filler: ``instances_train2017`` gives ``["train"]``."""
    words = _WORDS.split(_HUMPS.sub("_", name).lower())
    return [short for word in words if word not in _FILLERS and (short := _YEAR.sub("", word))]


def split_of(path: str) -> str:
    """Return the split that the last name of a path means (``train``, ``val``, ``test``), or '' where it means none."""
    name = path.rpartition("/")[2]
    words = words_of(name)
    return _MEANINGS.get(words[0], "") if len(words) == 1 else ""


def is_image_name(path: str) -> bool:
    """Tell whether a file is an image by the suffix of its name."""
    return KINDS.get(path.rpartition(".")[2].lower()) == "image"
