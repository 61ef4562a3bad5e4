from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest

from kubeyolo.data import lookalikes
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.scene import MOST_HIDDEN
from kubeyolo.data.shapes import CLASSES, SMALLEST, render_scene, shape_mask
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return generate_sample_dataset(tmp_path_factory.mktemp("sample") / "sample", train=80, val=20)


@pytest.fixture(scope="module")
def documents(sample):
    return {split: json.loads((sample / f"annotations/{split}.json").read_text()) for split in ("train", "val")}


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(np.random.default_rng((5, n)), 320, 288) for n in range(60)]


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_arguments_give_the_same_bytes(tmp_path):
    first = generate_sample_dataset(tmp_path / "a", seed=3, train=4, val=2)
    second = generate_sample_dataset(tmp_path / "b", seed=3, train=4, val=2)
    other = generate_sample_dataset(tmp_path / "c", seed=4, train=4, val=2)
    assert digests(first) == digests(second)
    assert not set(digests(first).values()) & set(digests(other).values())


def test_the_lock_of_a_killed_process_next_to_a_complete_data_set_is_removed(tmp_path):
    generate_sample_dataset(tmp_path / "a", train=1, val=1)
    (tmp_path / ".1.lock.kubeyolo-part").touch()
    generate_sample_dataset(tmp_path / "a", train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_train_and_val_share_no_image(sample):
    train = {p.read_bytes() for p in (sample / "train").iterdir()}
    val = {p.read_bytes() for p in (sample / "val").iterdir()}
    assert (len(train), len(val), len(train & val)) == (80, 20, 0)


def test_more_images_leave_the_first_ones_as_they_are(tmp_path, sample):
    few = generate_sample_dataset(tmp_path / "few", train=3, val=1)
    for name in ("000001.jpg", "000003.jpg"):
        assert (few / "train" / name).read_bytes() == (sample / "train" / name).read_bytes()


def test_it_is_a_valid_data_set(sample, documents, tmp_path):
    manifest = write_dataset(sample, Place.of(tmp_path / "store")).manifest
    assert manifest.classes == CLASSES == ("disc", "triangle", "cross")
    train = manifest.splits["train"]
    assert (train.images, train.boxes) == (80, len(documents["train"]["annotations"]))
    assert train.crowd >= 3
    assert manifest.splits["val"].images == 20


def test_classes_and_counts_are_balanced(documents):
    single = [a for a in documents["train"]["annotations"] if not a["iscrowd"]]
    shares = np.bincount([a["category_id"] for a in single])[1:] / len(single)
    assert (np.abs(shares - 1 / 3) < 0.07).all()
    assert 4 < len(single) / 80 < 7


def test_sizes_span_ten_pixels_to_half_the_image(documents):
    images = {image["id"]: image for image in documents["train"]["images"]}
    single = [a for a in documents["train"]["annotations"] if not a["iscrowd"]]
    longer = np.array([max(a["bbox"][2:]) for a in single])
    half = np.array([min(images[a["image_id"]]["width"], images[a["image_id"]]["height"]) / 2 for a in single])
    assert longer.min() <= SMALLEST + 2
    assert (longer / half).max() > 0.95
    assert (longer <= half + 2).all()
    assert 0.02 < (longer < 16).mean() < 0.15
    assert len({(image["width"], image["height"]) for image in images.values()}) > 50


def test_classes_do_not_differ_in_colour(scenes):
    """The mean colours of the classes lie within what chance gives; those of single objects are far apart."""
    colours = {label: [] for label in range(len(CLASSES))}
    for scene in scenes:
        for item in scene.objects:
            if not item.crowd:
                x, y, w, h = item.xywh
                colours[item.label].append(scene.image[y : y + h, x : x + w][item.visible].mean(0))
    means = np.array([np.mean(rows, 0) for rows in colours.values()])
    errors = np.array([np.std(rows, 0) / np.sqrt(len(rows)) for rows in colours.values()])
    assert np.std(np.concatenate(list(colours.values())), 0).min() > 40
    for a in range(len(CLASSES)):
        for b in range(a):
            assert (np.abs(means[a] - means[b]) < 4 * np.hypot(errors[a], errors[b])).all()


def test_shapes_can_be_told_by_their_outline():
    """Area over box area, and the share of the convex hull that is filled, tell the classes at any rotation."""
    rng = np.random.default_rng(0)
    for size in (16, 40, 120):
        filled, solid = np.zeros((3, 40)), np.zeros((3, 40))
        for label in range(3):
            for n in range(40):
                mask = (shape_mask(rng, label, size) > 127).astype(np.uint8)
                outline = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
                hull = cv2.convexHull(outline)
                circle = np.pi * cv2.minEnclosingCircle(hull)[1] ** 2
                filled[label, n] = cv2.contourArea(hull) / circle
                solid[label, n] = cv2.contourArea(outline) / cv2.contourArea(hull)
        assert solid[2].max() < min(solid[0].min(), solid[1].min())
        assert filled[1].max() < filled[0].min()


@pytest.mark.parametrize("size", [10, 11.5, 37, 160])
@pytest.mark.parametrize("label", range(3))
def test_shape_has_the_size_that_was_asked_for(label, size):
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = shape_mask(rng, label, size)
        assert mask.any(0).all() and mask.any(1).all()
        extent = max(np.ptp(np.flatnonzero((mask > 127).any(axis))) + 1 for axis in (0, 1))
        assert abs(extent - size) <= 2


def test_boxes_are_tight_around_the_visible_part(scenes):
    for scene in scenes:
        for item in scene.objects:
            x, y, w, h = item.xywh
            assert item.visible.shape == (h, w)
            assert item.visible[[0, -1]].any(1).all() and item.visible[:, [0, -1]].any(0).all()
            assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 288


def test_objects_overlap_and_hidden_ones_are_not_annotated(scenes):
    hidden = np.array([item.hidden for scene in scenes for item in scene.objects if not item.crowd])
    assert 0.05 < (hidden > 0.1).mean() < 0.5
    assert hidden.max() <= MOST_HIDDEN == 0.7
    assert hidden.max() > 0.4


def test_mask_of_a_crowd_agrees_with_its_area(documents):
    from pycocotools import mask as coco_mask

    crowds = [a for a in documents["train"]["annotations"] if a["iscrowd"]]
    for annotation in crowds:
        height, width = annotation["segmentation"]["size"]
        rle = coco_mask.frPyObjects(annotation["segmentation"], height, width)
        assert int(coco_mask.area(rle)) == annotation["area"]
        assert coco_mask.toBbox(rle).tolist() == annotation["bbox"]
        assert max(annotation["bbox"][2:]) <= 48


def test_folder_that_holds_it_is_left_as_it_is(tmp_path):
    folder = generate_sample_dataset(tmp_path / "a", train=2, val=1)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert generate_sample_dataset(folder, train=2, val=1) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    with pytest.raises(InputError, match="does not contain this sample data set"):
        generate_sample_dataset(folder, train=3, val=1)


def test_other_content_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    generate_sample_dataset(tmp_path / "mine", train=1, val=1)  # an empty folder may be filled
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="choose a different folder"):
        generate_sample_dataset(tmp_path / "photos", train=1, val=1)
    assert (tmp_path / "photos/a.jpg").read_bytes() == b"x"
    with pytest.raises(InputError, match="64 px"):
        generate_sample_dataset(tmp_path / "b", train=0)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["mine", "photos"]


@pytest.fixture(scope="module")
def buttons():
    return [lookalikes.render_scene(np.random.default_rng((7, n)), 320, 288) for n in range(60)]


def test_buttons_have_one_outline_and_details_of_four_to_ten_pixels(buttons):
    items = [item for scene in buttons for item in scene.objects]
    assert 3.5 < len(items) / 60 < 4.5
    assert (np.bincount([item.label for item in items], minlength=6) / len(items) > 0.1).all()
    longer = np.array([max(item.xywh[2:]) for item in items if item.hidden == 0])
    assert longer.min() >= 34 * 0.9 * 0.85 and longer.max() <= 88 * 0.9 + 3
    # The holes at training size 256: the diameter is 0.14 of that of the button.
    holes = 0.14 * longer * 256 / 320
    assert 3.5 < holes.min() < 5 and 7.5 < holes.max() < 10
    shares = {n: np.mean([i.visible.mean() for i in items if i.label == n and i.hidden == 0]) for n in range(6)}
    assert max(shares.values()) - min(shares.values()) < 0.02  # all of them are discs: pi / 4 of their box
    assert abs(np.mean(list(shares.values())) - np.pi / 4) < 0.03


def test_buttons_hide_little_of_each_other(buttons):
    hidden = np.array([item.hidden for scene in buttons for item in scene.objects])
    assert hidden.max() < 0.3 and 0.02 < (hidden > 0).mean() < 0.5


def test_buttons_do_not_differ_in_colour(buttons):
    colours = {label: [] for label in range(6)}
    for scene in buttons:
        for item in scene.objects:
            x, y, w, h = item.xywh
            colours[item.label].append(scene.image[y : y + h, x : x + w][item.visible].mean(0))
    means = np.array([np.mean(rows, 0) for rows in colours.values()])
    errors = np.array([np.std(rows, 0) / np.sqrt(len(rows)) for rows in colours.values()])
    for a in range(6):
        for b in range(a):
            assert (np.abs(means[a] - means[b]) < 4 * np.hypot(errors[a], errors[b])).all()


def test_holes_tell_the_buttons_apart():
    """The number of holes and the share of the button that they fill differ between any two classes."""
    seen = set()
    for label in range(6):
        image = np.zeros((400, 400), np.uint8)
        for points in lookalikes.holes(label):
            cv2.fillPoly(image, [np.round(200 + 200 * points).astype(np.int32)], 1)
        count = cv2.connectedComponents(image)[0] - 1
        filled = image.sum() / (np.pi * 200**2)
        assert 0.03 < filled < 0.12
        seen.add((count, round(filled / 0.005)))
        assert np.hypot(*(np.argwhere(image).mean(0) - 200)) < 3  # around the centre
    assert len(seen) == 6


def test_the_kind_of_a_sample_is_written_and_kept(tmp_path):
    first = generate_sample_dataset(tmp_path / "a", train=2, val=1, kind="lookalike")
    assert digests(first) == digests(generate_sample_dataset(tmp_path / "b", train=2, val=1, kind="lookalike"))
    document = json.loads((first / "annotations/train.json").read_text())
    assert document["info"]["kind"] == "lookalike"
    assert [each["name"] for each in document["categories"]] == list(lookalikes.CLASSES)
    with pytest.raises(InputError, match="does not contain this sample data set"):
        generate_sample_dataset(tmp_path / "a", train=2, val=1)
    with pytest.raises(InputError, match="unknown kind of sample 'lookalikes'; did you mean 'lookalike'"):
        generate_sample_dataset(tmp_path / "c", kind="lookalikes")
    shapes = generate_sample_dataset(tmp_path / "d", train=1, val=1)
    assert "kind" not in json.loads((shapes / "annotations/val.json").read_text())["info"]


@pytest.mark.parametrize("seed", [-1, 2**32, 10**23])
def test_a_seed_out_of_range_is_refused(tmp_path, seed):
    with pytest.raises(InputError, match=f"seed = {seed}: .* at least 0 and at most 4294967295"):
        generate_sample_dataset(tmp_path / "a", seed=seed, train=1, val=1)
    assert not (tmp_path / "a").exists()
