"""Where the annotations and the images of a data set lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

REQUIRED_SPLITS = ("train", "val")
SINGLE = "all"
"""The name of the one split of a data set that is to be divided."""

ReadFile = Callable[[str], bytes]
"""Returns the content of a small file by its path relative to the root of the data set."""


@dataclass(frozen=True)
class SplitFiles:
    """Where a split lies, relative to the root of the data set; '' is the root itself.

    Attributes:
        annotations: The annotation file, or the folder of label files.
        images: The folder that names of images are relative to.
        members: Files that list the images of the split, or folders of them, where ``images`` holds more than the
            split; empty where all of ``images`` is meant.
    """

    annotations: str
    images: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out.

    Attributes:
        format: The name of the reader: ``coco``, ``yolo``, ``voc``, ``cvat`` or ``labelme``.
        splits: Where each split lies; the one entry ``all`` where the data set is to be divided.
        is_single: Whether there is one source of annotations, to be divided into train and val.
        extra: Other files that belong to the content: names of classes, lists of images.
        words: The layout in a line, for people.
        left_out: Optional splits that are named and have no images, each in words.
    """

    format: str
    splits: dict[str, SplitFiles]
    is_single: bool = False
    extra: tuple[str, ...] = ()
    words: str = ""
    left_out: tuple[str, ...] = ()


class LayoutProblem(Exception):
    """Why files that look like a format are not a data set in it, and what to do; without the place."""


@dataclass(frozen=True)
class Candidate:
    """What the files would be in one format.

    Attributes:
        layout: The layout, where the files make a whole data set.
        problem: What is missing or ambiguous, and what to do, where they do not.
    """

    format: str
    layout: Layout | None = None
    problem: str = ""


def settle(
    name: str,
    tool: str,
    splits: dict[str, SplitFiles],
    single: SplitFiles | None = None,
    extra: tuple[str, ...] = (),
    unlabelled: str = "",
    left_out: tuple[str, ...] = (),
) -> Candidate:
    """Return what the splits that were found make: a data set with splits, one to be divided, or a problem.

    Args:
        name: The format.
        tool: The layout in words.
        splits: The splits by name.
        single: Annotations that belong to no split.
        extra: Other files of the content.
        unlabelled: A folder of images that is named after the validation split and has no annotations.
        left_out: Optional splits without images, in words.
    """
    if all(split in splits for split in REQUIRED_SPLITS):
        words = f"{tool}: {', '.join(_ordered(splits))}"
        return Candidate(name, Layout(name, _ordered(splits), False, extra, words, left_out))
    if single is None and set(splits) == {"train"} and not unlabelled:
        single, splits = splits["train"], {}
    if single is not None and not splits:
        words = f"{tool}, without splits: to be divided into train and val"
        return Candidate(name, Layout(name, {SINGLE: single}, True, extra, words, left_out))
    missing = next(split for split in REQUIRED_SPLITS if split not in splits)
    found = ", ".join(_ordered(splits)) or "none"
    if missing == "val" and unlabelled:
        remedy = f"{unlabelled}/ has images and no annotations: export them too, or remove the folder"
    elif missing == "val" and "test" in splits:
        remedy = "rename test to val if it is to be validated on, or remove it: train is divided then"
    else:
        remedy = "export both train and val, or one set without splits, which is divided by data.split"
    return Candidate(name, problem=f"{tool}, but no split {missing!r} (found: {found}); {remedy}")


def _ordered(splits: dict[str, SplitFiles]) -> dict[str, SplitFiles]:
    first = ("train", "val", "test")
    order = sorted(splits, key=lambda split: (first.index(split) if split in first else len(first), split))
    return {split: splits[split] for split in order}
