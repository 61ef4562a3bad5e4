"""The meaning of the names of files and folders in data sets."""

from __future__ import annotations

import re

from kubeyolo.file_kinds import IMAGE_SUFFIXES, UNREAD_IMAGE_SUFFIXES

_WORDS_OF_SPLITS = {
    "train": "train training",
    "val": "val valid validation validate dev eval evaluation",
    "test": "test testing",
}
_MEANINGS = {word: split for split, words in _WORDS_OF_SPLITS.items() for word in words.split()}
# Words that describe a file but do not name its split.
_FILLER_WORDS = """
all ann anns annotated annotation annotations box boxes bbox bboxes coco createml data dataset default
detection detections export full image images img imgs instance instances jpegimages json label labels obj
object objects photos picture pictures result results set split subset via voc xml yolo
"""
_FILLERS = frozenset(_FILLER_WORDS.split())
_WORDS = re.compile(r"[^a-z0-9]+")
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_YEAR = re.compile(r"(?<=[a-z])\d{4}$|^\d{4}$")

IMAGE_FOLDERS = ("images", "jpegimages", "image", "imgs", "img", "data", "pictures", "photos", "frames")
"""Names of image folders, in lower case, the most common name first."""

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
"""The kind of a file by its suffix in lower case."""

_LEFTOVERS = frozenset({"thumbs.db", "desktop.ini", "license", "licence", "license.txt", "license.md"})
_LEFTOVER_FOLDERS = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information"})


def is_leftover_folder(name: str) -> bool:
    """Tell whether a folder was left by the system or a tool and does not belong to the data set."""
    return name.startswith(".") or name.lower() in _LEFTOVER_FOLDERS


def is_leftover(name: str) -> bool:
    """Tell whether a file was left by the system or a tool, or only describes the data set for people."""
    lower = name.lower()
    if name.startswith(".") or lower in _LEFTOVERS or lower.endswith((".cache", "~")):
        return True
    return lower.startswith("readme") and not is_image_name(lower)


def words_of(name: str) -> list[str]:
    """Return the words of a name without filler words: ``instances_train2017`` gives ``["train"]``."""
    words = _WORDS.split(_HUMPS.sub("_", name).lower())
    return [short for word in words if word not in _FILLERS and (short := _YEAR.sub("", word))]


def split_of(path: str) -> str:
    """Return the split that the last part of a path means (``train``, ``val``, ``test``), or '' if there is none."""
    name = path.rpartition("/")[2]
    words = words_of(name)
    return _MEANINGS.get(words[0], "") if len(words) == 1 else ""


def is_image_name(path: str) -> bool:
    """Tell from the suffix of its name whether a file is an image."""
    return KINDS.get(path.rpartition(".")[2].lower()) == "image"
