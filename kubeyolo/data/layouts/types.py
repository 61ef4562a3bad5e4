"""The layout of a data set: where its annotations and images lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

REQUIRED_SPLITS = ("train", "val")
SINGLE = "all"
"""The name of the only split in a data set that must be divided."""

ReadFile = Callable[[str], bytes]
"""Returns the content of a small file, given its path relative to the root of the data set."""


@dataclass(frozen=True)
class SplitFiles:
    """Where a split lies, relative to the root of the data set; '' is the root itself.

    Attributes:
        annotations: The annotation file, or the folder of label files.
        images: The folder to which the names of images are relative.
        members: Lists or folders of the images of the split, if ``images`` also has images that are not in the split;
            otherwise empty.
    """

    annotations: str
    images: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How the files of a data set are arranged.

    Attributes:
        format: The name of the reader: ``coco``, ``yolo``, ``voc``, ``cvat`` or ``labelme``.
        splits: The files of each split; only the entry ``all`` if the data set must be divided.
        is_single: Whether the data set has no splits and must be divided into train and val.
        extra: Other files that belong to the data set: names of classes, lists of images.
        words: The layout in words, on one line.
        left_out: Optional splits without images, each in words.
    """

    format: str
    splits: dict[str, SplitFiles]
    is_single: bool = False
    extra: tuple[str, ...] = ()
    words: str = ""
    left_out: tuple[str, ...] = ()


class LayoutProblem(Exception):
    """The files look like a format but are not a data set in that format; the message has the reason and the remedy."""


def make_layout(
    name: str,
    tool: str,
    splits: dict[str, SplitFiles],
    single: SplitFiles | None = None,
    extra: tuple[str, ...] = (),
    unlabelled: str = "",
    left_out: tuple[str, ...] = (),
) -> Layout | None:
    """Return the layout of a data set with splits, or of a data set to divide; None if there are no annotations.

    Args:
        name: The format.
        tool: The layout in words.
        splits: The splits by name.
        single: Annotations that belong to no split.
        extra: Other files that belong to the data set.
        unlabelled: An image folder that is named after the validation split and has no annotations.
        left_out: Optional splits without images, in words.

    Raises:
        LayoutProblem: A split is missing.
    """
    first = ("train", "val", "test")
    order = sorted(splits, key=lambda split: (first.index(split) if split in first else len(first), split))
    splits = {split: splits[split] for split in order}
    missing = next((split for split in REQUIRED_SPLITS if split not in splits), None)
    if missing is None:
        return Layout(name, splits, False, extra, f"{tool}: {', '.join(splits)}", left_out)
    if single is None and set(splits) == {"train"} and not unlabelled:
        single, splits = splits["train"], {}
    if single is not None and not splits:
        words = f"{tool}, without splits: to be divided into train and val"
        return Layout(name, {SINGLE: single}, True, extra, words, left_out)
    if not splits:
        return None
    if missing == "val" and unlabelled:
        remedy = f"{unlabelled}/ has images but no annotations: export the annotations too, or remove the folder"
    elif missing == "val" and "test" in splits:
        remedy = "rename test to val to validate on it, or remove test to divide train"
    else:
        remedy = "export both train and val, or one data set without splits, which data.split divides"
    raise LayoutProblem(f"{tool}, but no split {missing!r} (found: {', '.join(splits)}); {remedy}")
