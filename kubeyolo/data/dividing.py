"""Divides a data set without splits into train and val by share and seed, with every class in both splits if possible.

Images that belong together (a video, a patient) are a group and go to the same split; without groups each image is a
group. The groups are ordered by a hash of the seed and their names, so the result does not depend on the order of the
file or on the machine, and most images stay in their split when an image is added. Then

1. for each class, the rarest first, a group with the class goes to val: the first group that fits, otherwise the
   smallest. This is done only if another group with the class remains in train, and val has at most half of the images;
2. groups are added to val in the same order until val has its share, except groups that are too large or have the last
   boxes of a class;
3. one more group is added if the size of val is then closer to its share.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kubeyolo.data.columns import plain
from kubeyolo.data.raw import RawBoxes, RawImages, RawSplit
from kubeyolo.errors import InputError
from kubeyolo.formats import counted


@dataclass
class _Group:
    """Images that go to the same split: their positions, and the classes of their boxes."""

    images: list[int] = field(default_factory=list)
    classes: set[Hashable] = field(default_factory=set)


def divide(raw: RawSplit, share: float, seed: int) -> dict[str, RawSplit]:
    """Return the splits ``train`` and ``val`` of a data set without splits.

    Args:
        raw: All images and annotations.
        share: The share of images that go to val, between 0 and 1.
        seed: A different seed divides the images differently.

    Raises:
        InputError: There are fewer than two images or groups.
    """
    if not 0 < share < 1:
        raise InputError(f"data.split = {share}: expected a share of images for val, between 0 and 1, such as 0.2")
    _refuse_shared_ids(raw)
    groups = _groups(raw, seed)
    if len(groups) < 2:
        what = "group" if raw.images.groups is not None and len(raw.images.ids) > 1 else "image"
        raise InputError(
            f"{raw.where}: {counted(len(groups), what)} cannot be divided into train and val; "
            "add images, or export train and val separately"
        )
    chosen = _choose(groups, share * len(raw.images.ids))
    val = {image for number in chosen for image in groups[number].images}
    train = [i for i in range(len(raw.images.ids)) if i not in val]
    return {
        "train": _part(raw, train, with_unlisted=True),
        "val": _part(raw, sorted(val), with_unlisted=False),
    }


def _refuse_shared_ids(raw: RawSplit) -> None:
    """Refuse an id that two images share: after the split the duplicate could not be detected."""
    names: dict[str, Any] = {}
    for i, (number, name) in enumerate(zip(raw.images.ids, raw.images.names, strict=True)):
        if names.setdefault(_key(number), name) != name:
            raise InputError(f"{raw.where}: image id {plain(number)} is used twice (images[{i}]); make ids unique")


def _key(value: Any) -> str:
    """Return an id as text; 7, 7.0 and "7" give the same text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _groups(raw: RawSplit, seed: int) -> list[_Group]:
    """Return the groups in the order of the hash of their names."""
    by_name: dict[str, _Group] = defaultdict(_Group)
    group_of_image: dict[str, _Group] = {}
    labels = raw.images.groups if raw.images.groups is not None else [None] * len(raw.images.ids)
    for i, (number, name, label) in enumerate(zip(raw.images.ids, raw.images.names, labels, strict=True)):
        group = by_name[f"image {_key(name)}" if label is None else f"group {_key(label)}"]
        group.images.append(i)
        group_of_image[_key(number)] = group
    boxes = raw.boxes
    for image, label, crowd in zip(boxes.image_ids, boxes.category_ids, boxes.crowds, strict=True):
        if _key(image) in group_of_image and _key(crowd) not in ("1", "True"):
            group_of_image[_key(image)].classes.add(_key(label))

    def order(name: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest(), name

    return [by_name[name] for name in sorted(by_name, key=order)]


class _Val:
    """The groups that are chosen for val, and how many groups with each class remain in train."""

    def __init__(self, groups: Sequence[_Group]) -> None:
        self.groups = groups
        self.sizes = [len(group.images) for group in groups]
        self.chosen: set[int] = set()
        self.size = 0
        self.left = Counter(label for group in groups for label in group.classes)

    def is_free(self, number: int) -> bool:
        """Tell whether a group is in train, and each of its classes is in other groups of train too."""
        return number not in self.chosen and all(self.left[label] > 1 for label in self.groups[number].classes)

    def take(self, number: int) -> None:
        """Move a group to val."""
        self.chosen.add(number)
        self.size += self.sizes[number]
        self.left.subtract(self.groups[number].classes)


def _choose(groups: Sequence[_Group], target: float) -> set[int]:
    """Return the positions of the groups that go to val; together they have about ``target`` images."""
    val = _Val(groups)
    _cover_classes(val, target)
    for number, size in enumerate(val.sizes):
        if val.size + size <= target and val.is_free(number):
            val.take(number)
    gap = target - val.size
    over = [
        (abs(size - gap), number)
        for number, size in enumerate(val.sizes)
        if (size < 2 * gap or not val.chosen) and val.is_free(number)
    ]
    if over:
        val.take(min(over)[1])
    elif not val.chosen:
        # Every group has the last boxes of a class, but val must not be empty: it gets the smallest group.
        val.take(min(range(len(groups)), key=lambda number: (val.sizes[number], number)))
    return val.chosen


def _cover_classes(val: _Val, target: float) -> None:
    """Move a group for each class to val, the rarest class first: a group that fits, otherwise the smallest group."""
    having: dict[Hashable, list[int]] = defaultdict(list)
    for number, group in enumerate(val.groups):
        for label in group.classes:
            having[label].append(number)
    half = sum(val.sizes) / 2
    for label in sorted(having, key=lambda each: (len(having[each]), str(each))):
        if not val.chosen.isdisjoint(having[label]):
            continue
        free = [number for number in having[label] if val.is_free(number)]
        fitting = (number for number in free if val.size + val.sizes[number] <= target)
        best = next(fitting, min(free, key=lambda each: (val.sizes[each], each), default=None))
        if best is not None and val.size + val.sizes[best] <= max(half, 1):
            val.take(best)


def _pick(values: Sequence[Any] | None, positions: Sequence[int]) -> Any:
    return None if values is None else [values[i] for i in positions]


def _part(raw: RawSplit, positions: list[int], with_unlisted: bool) -> RawSplit:
    """Return the images at ``positions`` with their annotations and, if requested, annotations of unlisted images."""
    images, boxes = raw.images, raw.boxes
    listed = {_key(number) for number in images.ids}
    ours = {_key(images.ids[i]) for i in positions}
    chosen = [
        i
        for i, image in enumerate(map(_key, boxes.image_ids))
        if image in ours or (with_unlisted and image not in listed)
    ]
    position = {old: new for new, old in enumerate(chosen)}
    names = [column.name for column in fields(boxes) if column.name != "masks"]
    masks = {position[i]: mask for i, mask in boxes.masks.items() if i in position}
    return replace(
        raw,
        images=RawImages(*(_pick(getattr(images, column.name), positions) for column in fields(images))),
        boxes=RawBoxes(**{name: _pick(getattr(boxes, name), chosen) for name in names}, masks=masks),
        findings=raw.findings if with_unlisted else (),
    )
