"""Dividing a data set without splits: share, groups, classes, and nothing that depends on the order of the file."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kubeyolo.data.dividing import divide
from kubeyolo.data.raw import RawBoxes, RawCategories, RawFinding, RawImages, RawSplit
from kubeyolo.errors import InputError


def raw(classes: list[list[int]], groups: list[object] | None = None, order: list[int] | None = None) -> RawSplit:
    """Return a data set whose image ``i`` has a box of each of ``classes[i]``, listed in another order."""
    order = order if order is not None else list(range(len(classes)))
    images = RawImages(
        ids=[100 + i for i in order],
        names=[f"{i:03d}.jpg" for i in order],
        widths=[64] * len(order),
        heights=[64] * len(order),
        groups=None if groups is None else [groups[i] for i in order],
    )
    found = [(100 + i, label) for i in order for label in classes[i]]
    boxes = RawBoxes(
        ids=list(range(len(found))),
        image_ids=[image for image, _ in found],
        category_ids=[label for _, label in found],
        boxes=[[n, 0, 1, 1] for n in range(len(found))],
        areas=[None] * len(found),
        crowds=[0] * len(found),
    )
    numbers = sorted({label for labels in classes for label in labels})
    categories = RawCategories(numbers, [f"class {n}" for n in numbers], [None] * len(numbers))
    return RawSplit("x.json", categories, images, boxes)


def names(parts: dict[str, RawSplit], split: str) -> set[str]:
    return set(parts[split].images.names)


def classes_of(part: RawSplit) -> set[int]:
    return set(part.boxes.category_ids)


@pytest.mark.parametrize(
    ("count", "share", "val"), [(100, 0.2, 20), (10, 0.2, 2), (7, 0.2, 1), (2, 0.2, 1), (3, 0.9, 2)]
)
def test_share_of_single_images(count: int, share: float, val: int) -> None:
    parts = divide(raw([[1]] * count), share, 0)
    assert len(names(parts, "val")) == val
    assert names(parts, "train") | names(parts, "val") == {f"{i:03d}.jpg" for i in range(count)}
    assert names(parts, "train").isdisjoint(names(parts, "val"))


def test_the_order_of_the_file_does_not_matter_and_the_seed_does() -> None:
    classes = [[1 + i % 3] for i in range(60)]
    mixed = list(range(60))
    random.Random(1).shuffle(mixed)
    first = names(divide(raw(classes), 0.25, 0), "val")
    assert len(first) == 15
    assert names(divide(raw(classes, order=mixed), 0.25, 0), "val") == first
    assert names(divide(raw(classes), 0.25, 1), "val") != first


def test_ids_do_not_matter() -> None:
    first, second = raw([[1]] * 20), raw([[1]] * 20)
    second.images.ids = [str(number) for number in second.images.ids]
    assert names(divide(first, 0.2, 0), "val") == names(divide(second, 0.2, 0), "val")
    assert len(divide(second, 0.2, 0)["val"].boxes.ids) == 4


def test_an_image_that_is_added_moves_few_others() -> None:
    before = names(divide(raw([[1]] * 200), 0.2, 0), "val")
    after = names(divide(raw([[1]] * 201), 0.2, 0), "val")
    assert len(before - after) <= 1


def test_groups_are_not_divided() -> None:
    groups: list[object] = [f"video {i // 7}" for i in range(98)]
    parts = divide(raw([[1]] * 98, groups), 0.2, 0)
    sides = {split: {groups[int(name[:3])] for name in names(parts, split)} for split in parts}
    assert sides["train"].isdisjoint(sides["val"])
    assert len(names(parts, "val")) == 21  # 19.6 wanted: three groups of seven are nearer than two
    assert list(parts["val"].images.groups or ()) == [groups[int(name[:3])] for name in parts["val"].images.names]


def test_images_without_a_group_are_groups_of_their_own() -> None:
    parts = divide(raw([[1]] * 20, [None] * 16 + ["v"] * 4), 0.2, 3)
    assert len(names(parts, "val")) == 4
    video = {f"{i:03d}.jpg" for i in range(16, 20)}
    assert video <= names(parts, "val") or video <= names(parts, "train")


@pytest.mark.parametrize("seed", range(8))
def test_every_class_of_two_images_is_on_both_sides(seed: int) -> None:
    classes = [[1]] * 90 + [[2]] * 2 + [[3]] * 3 + [[2, 4], [4], [5]]
    parts = divide(raw(classes), 0.1, seed)
    assert classes_of(parts["val"]) == {1, 2, 3, 4}
    assert classes_of(parts["train"]) == {1, 2, 3, 4, 5}
    assert len(names(parts, "val")) == 10


def test_a_class_in_one_group_stays_in_train() -> None:
    groups: list[object] = ["a"] * 5 + ["b"] * 5 + ["c"] * 5
    parts = divide(raw([[1, 2]] * 5 + [[1]] * 10, groups), 0.3, 0)
    assert 2 in classes_of(parts["train"])
    assert 2 not in classes_of(parts["val"])
    assert len(names(parts, "val")) == 5


def test_many_rare_classes_do_not_take_more_than_half() -> None:
    parts = divide(raw([[i // 2] for i in range(40)]), 0.2, 0)
    assert len(names(parts, "val")) == 20
    assert classes_of(parts["val"]) == classes_of(parts["train"])


def test_classes_of_one_image_each_still_give_a_val() -> None:
    parts = divide(raw([[i] for i in range(10)]), 0.2, 0)
    assert len(names(parts, "val")) == 1


def test_boxes_and_masks_go_with_their_images() -> None:
    data = raw([[1, 1], [1], [], [1, 1, 1]] * 5)
    data.boxes.masks = {number: [[number] * 6] for number in (0, 3, 7)}
    data.boxes.image_ids = [*data.boxes.image_ids[:-1], 999]  # of an image that is not listed
    parts = divide(data, 0.25, 0)
    seen = []
    for split, part in parts.items():
        own = set(part.images.ids)
        lengths = {len(column) for column in vars(part.boxes).values() if isinstance(column, list)}
        assert lengths == {len(part.boxes.ids)}
        for i, (number, image) in enumerate(zip(part.boxes.ids, part.boxes.image_ids, strict=True)):
            assert image in own or (image == 999 and split == "train")
            assert part.boxes.boxes[i] == [number, 0, 1, 1]
            if i in part.boxes.masks:
                assert part.boxes.masks[i] == [[number] * 6]
                seen.append(number)
    assert sorted(seen) == [0, 3, 7]
    assert sum(len(part.boxes.ids) for part in parts.values()) == len(data.boxes.ids)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InputError, match="x.json: 1 image cannot be divided into train and val; add images"):
        divide(raw([[1]]), 0.2, 0)
    with pytest.raises(InputError, match="x.json: 1 group cannot be divided"):
        divide(raw([[1]] * 5, ["a"] * 5), 0.2, 0)
    with pytest.raises(InputError, match="data.split = 1.5: expected a share of images for val, between 0 and 1"):
        divide(raw([[1]] * 5), 1.5, 0)


def test_an_id_of_two_images_is_refused_before_it_is_divided() -> None:
    whole = raw([[1]] * 10)
    whole.images.ids[9] = 100
    with pytest.raises(InputError, match=r"x\.json: image id 100 is used twice \(images\[9\]\); make ids unique"):
        divide(whole, 0.2, 0)


def test_findings_of_the_reader_are_kept_once() -> None:
    whole = replace(raw([[1]] * 10), findings=(RawFinding("shape_without_box", "a", 3),))
    parts = divide(whole, 0.2, 0)
    assert sum(finding.count for part in parts.values() for finding in part.findings) == 3
