from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest

from kubeyolo.data.coco import read_coco
from kubeyolo.data.folder import open_source, pair_splits, read_annotations
from kubeyolo.errors import InputError
from tests.data.small_dataset import SmallDataset


def read_train(folder):
    return read_coco(folder / "annotations/train.json", folder / "train")


def test_small_file_gives_these_arrays(small_folder):
    index, classes, category_ids = read_train(small_folder)
    assert (classes, category_ids) == (("bolt", "nut"), (3, 7))
    assert index.image_id.tolist() == [1, 2, 3]
    assert index.width.tolist() == [40, 32, 64]
    assert index.box_class.tolist() == [1, 0, 1]
    assert index.box_xywh[0].tolist() == [1.5, 2.25, 10.0, 12.5]
    assert index.box_area.tolist() == [62.5, 150.0, 768.0]
    assert index.box_crowd.tolist() == [False, False, True]


def test_images_and_boxes_are_ordered_by_name_and_id(small, tmp_path):
    expected = read_train(small.write(tmp_path / "a"))[0]
    for key in ("images", "annotations", "categories"):
        small.train[key].reverse()
    index = read_train(small.write(tmp_path / "b"))[0]
    assert index.file_name == expected.file_name == ["001.jpg", "002.jpg", "003.jpg"]
    assert index.box_id.tolist() == [100, 101, 102]
    np.testing.assert_array_equal(index.box_class, expected.box_class)


def test_box_up_to_one_pixel_outside_is_clipped(small, tmp_path):
    small.train["annotations"][0]["bbox"] = [-0.75, 3, 41.5, 27.5]
    index = read_train(small.write(tmp_path))[0]
    assert index.box_xywh[0].tolist() == [0, 3, 40, 27]


def test_area_and_crowd_have_defaults(small, tmp_path):
    for annotation in small.train["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    index = read_train(small.write(tmp_path))[0]
    assert index.box_area.tolist() == [125.0, 300.0, 1536.0]
    assert not index.box_crowd.any()


@pytest.mark.parametrize(
    ("name", "split", "images", "boxes", "crowd", "classes", "without_boxes"),
    [
        ("coco_cc", "train", 80, 770, 9, 80, 1),
        ("coco_cc", "val", 57, 517, 7, 80, 2),
        ("bccd", "train", 292, 3941, 0, 3, None),
        ("bccd", "val", 72, 945, 0, 3, None),
    ],
)
def test_real_data_sets_have_their_published_counts(shared, name, split, images, boxes, crowd, classes, without_boxes):
    folder = shared / "data" / name
    index, names, _ = read_coco(folder / "annotations" / f"{split}.json", folder / split)
    assert (len(index), index.boxes, int(index.box_crowd.sum()), len(names)) == (images, boxes, crowd, classes)
    if without_boxes is not None:
        assert int((np.diff(index.box_start) == 0).sum()) == without_boxes
    if name == "bccd" and split == "train":
        assert dict(zip(names, np.bincount(index.box_class).tolist(), strict=True)) == {
            "WBC": 301,
            "RBC": 3348,
            "Platelets": 292,
        }


def set_box(box):
    return set_annotation(bbox=box)


def set_annotation(**values):
    return lambda d: d["annotations"][1].update(values)


def set_image(**values):
    return lambda d: d["images"][1].update(values)


NAN, INF = float("nan"), float("inf")

BAD_ANNOTATIONS = {
    "no images": (lambda d: d.pop("images"), "not COCO: key 'images' is missing"),
    "no annotations": (lambda d: d.pop("annotations"), "not COCO: key 'annotations' is missing"),
    "no categories": (lambda d: d.pop("categories"), "not COCO: key 'categories' is missing"),
    "images no list": (lambda d: d.update(images={}), "not COCO: 'images' is an object, not a list"),
    "image no object": (lambda d: d["images"].append(3), "images[3] is a number, not an object"),
    "images empty": (lambda d: d.update(images=[]), "'images' is empty"),
    "categories empty": (lambda d: d.update(categories=[]), "'categories' is empty"),
    "image without id": (lambda d: d["images"][2].pop("id"), "images[2] has no 'id'"),
    "box missing": (lambda d: d["annotations"][2].pop("bbox"), "annotations[2] has no 'bbox'"),
    "id a string": (set_image(id="2"), "images[1] has id '2', which is no 64-bit integer"),
    "id a float": (set_image(id=2.5), "images[1] has id 2.5, which is no 64-bit integer"),
    "id too large": (set_image(id=2**63), "images[1] has id 9223372036854775808, which is no 64-bit integer"),
    "image id twice": (set_image(id=1), "image id 1 is used twice (images[1])"),
    "annotation id twice": (lambda d: d["annotations"][2].update(id=100), "annotation id 100 is used twice"),
    "category id twice": (lambda d: d["categories"][1].update(id=7), "category id 7 is used twice ('bolt')"),
    "category name twice": (lambda d: d["categories"][1].update(name="nut"), "category name 'nut' is used twice"),
    "category no text": (lambda d: d["categories"][1].update(name="\ud800"), "category 3 has the name"),
    "category without name": (lambda d: d["categories"][1].update(name=" "), "category 3 has the name ' '"),
    "file twice": (set_image(file_name="./001.jpg"), "images 1 and 2 have the same file_name './001.jpg'"),
    "size zero": (set_image(width=0), "image 2 has the size 0 x 48"),
    "category unknown": (set_annotation(category_id=4), "101 has the unknown category_id 4; the categories are 3, 7"),
    "image unknown": (set_annotation(image_id=9), "annotation 101 has the unknown image_id 9"),
    "box outside": (set_box([30, 5, 11.5, 5]), "has the bbox [30, 5, 11.5, 5], outside its image '001.jpg' of 40 x 30"),
    "box far outside": (set_box([500, 5, 10, 5]), "outside its image"),
    "box just beyond": (set_box([40.2, 5, 0.5, 5]), "outside its image"),
    "box left of image": (set_box([-2, 5, 10, 5]), "annotation 101 has the bbox [-2, 5, 10, 5], outside"),
    "box negative": (set_box([5, 5, -3, 5]), "annotation 101 has the bbox [5, 5, -3, 5], whose size is negative"),
    "box NaN": (set_box([5, NAN, 3, 4]), "annotation 101 has the bbox [5, nan, 3, 4], which is not finite"),
    "box infinite": (set_box([5, 5, INF, 4]), "annotation 101 has the bbox [5, 5, inf, 4], which is not finite"),
    "box of three": (set_box([5, 5, 3]), "annotation 101 has the bbox [5, 5, 3], not four numbers"),
    "box of strings": (set_box(["5", "5", "3", "4"]), "annotation 101 has the bbox ['5', '5', '3', '4'], not four"),
    "box with null": (set_box([5, None, 3, 4]), "annotation 101 has the bbox [5, None, 3, 4], not four numbers"),
    "box no list": (set_box(7), "annotation 101 has the bbox 7, not four numbers"),
    "box too large": (set_box([5, 5, 3, 10**400]), "not four numbers"),
    "area too large": (set_annotation(area=10**400), "annotation 101 has the area 1000"),
    "area NaN": (set_annotation(area=NAN), "annotation 101 has the area nan"),
    "area negative": (set_annotation(area=-1), "annotation 101 has the area -1"),
    "crowd 2": (set_annotation(iscrowd=2), "annotation 101 has iscrowd 2"),
    "name absolute": (set_image(file_name="/etc/passwd"), "image 2 has the file_name '/etc/passwd', which leaves"),
    "name escapes": (set_image(file_name="../val/011.jpg"), "file_name '../val/011.jpg', which leaves the folder"),
    "name escapes inside": (set_image(file_name="a/../../x.jpg"), "file_name 'a/../../x.jpg', which leaves the folder"),
    "name a number": (set_image(file_name=12), "image 2 has the file_name 12, which is no file name"),
    "name empty": (set_image(file_name=""), "image 2 has the file_name '', which is no file name"),
    "name with NUL": (set_image(file_name="a\0.jpg"), "which is no file name"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ANNOTATIONS)
def test_bad_annotation_is_one_clear_line(small, tmp_path, case):
    change, expected = BAD_ANNOTATIONS[case]
    change(small.train)
    folder = small.write(tmp_path)
    with pytest.raises(InputError) as caught:
        read_train(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}/annotations/train.json: ")
    assert expected in message
    assert "; " in message and "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not JSON"),
        (b'{"images": [', "not JSON (unexpected end of data: line 1 column 13"),
        (b"\xff\xd8\xff\xe0", "not JSON"),
        (b"[1, 2]", "not COCO: the top level is a list, not an object"),
        (b"null", "not COCO: the top level is null, not an object"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_file_that_is_not_coco_json_is_bad_input(small_folder, content, expected):
    (small_folder / "annotations/train.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_train(small_folder)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_entries_with_the_same_fault_are_counted(small, tmp_path):
    box = small.train["annotations"][0]
    small.train["annotations"] = [{**box, "id": n, "bbox": [5, 5, -n, 5]} for n in range(1, 14)]
    with pytest.raises(InputError, match=r"annotation 1 has .*negative \(and 12 more\); correct"):
        read_train(small.write(tmp_path))


def test_long_values_are_shortened(small, tmp_path):
    small.train["annotations"][0]["bbox"] = list(range(5000))
    with pytest.raises(InputError) as caught:
        read_train(small.write(tmp_path))
    assert len(str(caught.value)) < 250 + len(str(tmp_path))


def test_link_out_of_the_folder_is_refused(small_folder, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (small_folder / "train/002.jpg").unlink()
    os.symlink(tmp_path / "secret.jpg", small_folder / "train/002.jpg")
    with pytest.raises(InputError, match=r"image 2 has the file_name '002.jpg', a link out of the folder"):
        read_train(small_folder)


def test_linked_folder_that_leads_out_is_refused(small, tmp_path):
    small.train["images"][1]["file_name"] = "sub/002.jpg"
    folder = small.write(tmp_path / "a")
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "out", folder / "train/sub")
    with pytest.raises(InputError, match=r"'sub/002.jpg', a link out of the folder"):
        read_train(folder)


def test_link_inside_the_folder_is_fine(small_folder):
    (small_folder / "train/002.jpg").rename(small_folder / "train/real.jpg")
    os.symlink("real.jpg", small_folder / "train/002.jpg")
    assert len(read_train(small_folder)[0]) == 3


def test_split_of_coco_layout_is_found(small, tmp_path):
    folder = small.write(tmp_path / "My COCO")
    for split in ("train", "val"):
        (folder / f"annotations/{split}.json").rename(folder / f"annotations/instances_{split}2017.json")
        (folder / split).rename(folder / f"{split}2017")
    (folder / "annotations/captions_train2017.json").write_text("{}")
    source = open_source(folder)
    assert source.name == "my-coco"
    assert sorted(source.splits) == ["train", "val"]
    assert source.images("train") == folder / "train2017"
    assert len(read_annotations(source).splits["val"]) == 3


@pytest.mark.parametrize(
    ("names", "folders", "expected"),
    [
        ([], {"train"}, "x: no annotations/train.json; expected annotations/<split>.json beside <split>/"),
        (["train.json"], {"train", "val"}, r"x: no annotations/val.json \(found: train\)"),
        (["train.json", "val.json"], {"train"}, "annotations/val.json has no image folder val/"),
        (["train.json", "instances_train.json", "val.json"], {"train", "val"}, "are both split 'train'"),
        (["train.json", "instances_train2017.json"], {"train", "train2017"}, "are both split 'train'"),
    ],
)
def test_missing_or_doubled_split_is_refused(names, folders, expected):
    with pytest.raises(InputError, match=expected):
        pair_splits(names, folders, "x")


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}/absent: no such folder"):
        open_source(tmp_path / "absent")
    with pytest.raises(InputError, match="no such folder; train.json needs its images there"):
        read_coco(tmp_path / "train.json", tmp_path / "train")
    with pytest.raises(InputError, match=r"train\.json: no such annotation file"):
        read_coco(tmp_path / "train.json", tmp_path)


def test_splits_with_other_classes_are_refused(small, tmp_path):
    small.val["categories"][0]["name"] = "screw"
    folder = open_source(small.write(tmp_path))
    with pytest.raises(InputError, match=r"val\.json: its categories differ from those of train\.json: 7 'nut' is in"):
        read_annotations(folder)


def test_order_of_categories_does_not_matter(small, tmp_path):
    small.val["categories"].reverse()
    assert read_annotations(open_source(small.write(tmp_path))).classes == ("bolt", "nut")


def test_split_without_boxes_is_refused(small, tmp_path):
    small.val["annotations"] = [a for a in small.val["annotations"] if a["iscrowd"]]
    with pytest.raises(InputError, match=r"val\.json: split 'val' has no boxes"):
        read_annotations(open_source(small.write(tmp_path)))


def test_unchanged_documents_are_read(small, tmp_path):
    """The cases above differ from a good data set by their one change only."""
    before = copy.deepcopy(small.train)
    read_train(small.write(tmp_path))
    assert json.dumps(before) == json.dumps(SmallDataset().train)


def test_boxes_without_width_or_height_are_left_out_aloud(small, tmp_path, caplog):
    boxes = len(small.train["annotations"])
    small.train["annotations"][0]["bbox"][2] = 0
    index, _, _ = read_train(small.write(tmp_path))
    assert index.boxes == boxes - 1
    assert small.train["annotations"][0]["id"] not in index.box_id
    assert "1 boxes of size zero are left out" in caplog.text
