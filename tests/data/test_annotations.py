from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest

from kubeyolo.config.training_schema import DataConfig
from kubeyolo.data.digest import content_digest
from kubeyolo.data.finding_kinds import KINDS
from kubeyolo.data.findings import Findings
from kubeyolo.data.folder import open_source, read_annotations
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError
from tests.data.small_dataset import SmallDataset


def read(folder, **data):
    """Return the annotations of a folder and what was found, by code."""
    config = DataConfig(**data)
    findings = Findings(config.findings, config.strict)
    annotations = read_annotations(open_source(folder), config, findings=findings)
    return annotations, {finding.code: finding for finding in findings.all()}


def read_train(folder):
    annotations, _ = read(folder)
    return annotations.splits["train"], annotations.classes, annotations.category_ids


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
    annotations, found = read(shared / "data" / name)
    index, names = annotations.splits[split], annotations.classes
    assert found == {}
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
    "id a list": (set_image(id=[2]), "images[1] has id [2], which is neither a 64-bit integer nor a text"),
    "id a fraction": (set_image(id=2.5), "images[1] has id 2.5, which is neither a 64-bit integer nor a text"),
    "id too large": (set_image(id=2**63), "images[1] has id 9223372036854775808, which is neither"),
    "image id twice": (set_image(id=1), "image id 1 is used twice (images[1])"),
    "category id twice": (lambda d: d["categories"][1].update(id=7), "category id 7 is used twice ('nut', 'bolt')"),
    "category name twice": (lambda d: d["categories"][1].update(name="nut"), "category name 'nut' is used twice"),
    "category no text": (lambda d: d["categories"][1].update(name="\ud800"), "category 3 has the name"),
    "category without name": (lambda d: d["categories"][1].update(name=" "), "category 3 has the name ' '"),
    "category unknown": (set_annotation(category_id=4), "101 has the unknown category_id 4; the categories are 3, 7"),
    "image id no id": (set_annotation(image_id=[9]), "annotation 101 has image_id [9], which is not an id"),
    "file twice, other size": (set_image(file_name="./001.jpg"), "images 1 and 2 have the same file_name './001.jpg'"),
    "box of three": (set_box([5, 5, 3]), "annotation 101 has the bbox [5, 5, 3], not four numbers"),
    "box with null": (set_box([5, None, 3, 4]), "annotation 101 has the bbox [5, None, 3, 4], not four numbers"),
    "box no list": (set_box(7), "annotation 101 has the bbox 7, not four numbers"),
    "box too large": (set_box([5, 5, 3, 10**400]), "not four numbers"),
    "crowd 2": (set_annotation(iscrowd=2), "annotation 101 has iscrowd 2"),
    "name absolute": (set_image(file_name="/etc/passwd"), "image 2 has the file_name '/etc/passwd', which is outside"),
    "name escapes": (set_image(file_name="../val/011.jpg"), "file_name '../val/011.jpg', which is outside the folder"),
    "name escapes inside": (set_image(file_name="a/../../x.jpg"), "file_name 'a/../../x.jpg', which is outside"),
    "name a number": (set_image(file_name=12), "image 2 has the file_name 12, which is not a file name"),
    "name empty": (set_image(file_name=""), "image 2 has the file_name '', which is not a file name"),
    "name with NUL": (set_image(file_name="a\0.jpg"), "which is not a file name"),
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


def first_polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def without_box(d):
    for annotation in d["annotations"]:
        annotation["segmentation"] = first_polygon(annotation.pop("bbox"))


def every_box(change):
    def apply(d):
        for annotation in d["annotations"]:
            image = next(i for i in d["images"] if i["id"] == annotation["image_id"])
            annotation["bbox"] = change(annotation["bbox"], image["width"], image["height"])

    return apply


def unit_box(box, width, height):
    x, y, w, h = box
    return [x / width, y / height, w / width, h / height]


def every_image(**values):
    return lambda d: [image.update(values) for image in d["images"]]


def as_text(key):
    return lambda d: [image.update({key: str(image[key])}) for image in d["images"]]


def twice(d):
    d["annotations"] += [{**a, "id": a["id"] + 50} for a in d["annotations"]]


# What is changed in train, the finding and its count; the boxes of train stay what they were.
MENDED = {
    "widths as text": (as_text("width"), "number_as_text", 3),
    "widths with a point": (lambda d: [i.update(width=float(i["width"])) for i in d["images"]], "number_as_text", 3),
    "ids with a point": (lambda d: [i.update(id=float(i["id"])) for i in d["images"]], "number_as_text", 3),
    "ids in quotes": (as_text("id"), "number_as_text", 3),
    "sizes of -1": (every_image(width=-1, height=-1), "size_unknown", 3),
    "sizes of 0": (every_image(width=0), "size_unknown", 3),
    "sizes null": (every_image(width=None, height=None), "size_unknown", 3),
    "sizes no numbers": (every_image(width="wide"), "size_unknown", 3),
    "sizes absent": (lambda d: [(i.pop("width"), i.pop("height")) for i in d["images"]], "size_unknown", 3),
    "polygons for boxes": (without_box, "box_from_mask", 3),
    "boxes in fractions": (every_box(unit_box), "box_fractions", 3),
    "boxes as text": (every_box(lambda b, *_: str(b)), "box_form", 3),
    "boxes of texts": (every_box(lambda b, *_: [str(v) for v in b]), "box_form", 3),
    "boxes as objects": (every_box(lambda b, *_: dict(zip("xywh", b, strict=True))), "box_form", 3),
    "boxes as corners with names": (
        every_box(lambda b, *_: {"xmin": b[0], "ymin": b[1], "xmax": b[0] + b[2], "ymax": b[1] + b[3]}),
        "box_form",
        3,
    ),
    "sides swapped": (every_box(lambda b, *_: [b[0] + b[2], b[1] + b[3], -b[2], -b[3]]), "box_swapped", 3),
    "every box twice": (twice, "box_double", 3),
    "crowd as a text": (lambda d: [a.update(iscrowd=str(a["iscrowd"])) for a in d["annotations"]], "number_as_text", 3),
    "area in text": (lambda d: [a.update(area=str(a["area"])) for a in d["annotations"]], "number_as_text", 3),
    "names in capitals": (lambda d: [i.update(file_name=i["file_name"].upper()) for i in d["images"]], "name_near", 3),
    "names with the folder": (
        lambda d: [i.update(file_name="train/" + i["file_name"]) for i in d["images"]], "name_near", 3),
    "names with backslashes": (
        lambda d: [i.update(file_name="c:\\set\\" + i["file_name"]) for i in d["images"]], "name_near", 3),
    "names of another machine": (
        lambda d: [i.update(file_name="/home/anna/set/" + i["file_name"]) for i in d["images"]], "name_near", 3),
    "names as addresses": (
        lambda d: [i.update(file_name=f"https://host.invalid/set/{i['file_name']}?v=1") for i in d["images"]],
        "name_near", 3),
    "names with percent codes": (
        lambda d: [i.update(file_name=i["file_name"].replace("0", "%30", 1)) for i in d["images"]], "name_near", 3),
    "a file listed for each box": (
        lambda d: (d["images"].append({**d["images"][0], "id": 77}), d["annotations"][1].update(image_id=77)),
        "image_listed_twice", 1),
    "annotation without image": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "image_id": 99}), "image_unknown", 1),
    "annotation without box": (
        lambda d: d["annotations"].append({"id": 9, "image_id": 1, "category_id": 3}), "box_absent", 1),
    "box of size zero": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [3, 3, 0, 5]}), "box_empty", 1),
    "box of nearly zero": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [3, 3, -1e-13, 5]}), "box_empty", 1),
    "sliver outside": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [40.0, 3, 0.4, 5]}), "box_empty", 1),
    "box off the image": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [500, 5, 10, 5]}), "box_empty", 1),
    "box of NaN": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [NAN, 5, 10, 5]}),
        "box_not_finite", 1),
    "box of infinity": (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [5, 5, INF, 5]}),
        "box_not_finite", 1),
    "category of the background": (
        lambda d: d["categories"].append({"id": 0, "name": "background"}), "category_parent", 1),
}  # fmt: skip


@pytest.mark.parametrize("case", MENDED)
def test_what_can_be_worked_out_is_mended_and_counted(small, tmp_path, case):
    change, code, count = MENDED[case]
    before, _ = read(small.write(tmp_path / "before"))
    change(small.train)
    folder = small.write(tmp_path / "after")
    after, found = read(folder)
    crowds = {"crowd_many"}  # one box of three, in both
    assert found.keys() - crowds == {code}
    assert found[code].count == count
    assert "annotations/" in found[code].first
    for name in ("box_class", "box_crowd", "width", "height", "file_name", "box_start"):
        np.testing.assert_array_equal(getattr(after.splits["train"], name), getattr(before.splits["train"], name))
    np.testing.assert_allclose(after.splits["train"].box_xywh, before.splits["train"].box_xywh, atol=1e-9)
    np.testing.assert_allclose(after.splits["train"].box_area, before.splits["train"].box_area, atol=1e-9)
    with pytest.raises(InputError, match=rf"\[{code}\]"):
        annotations_strictly(folder)


def annotations_strictly(folder):
    findings = Findings(strict=True)
    read_annotations(open_source(folder), findings=findings)
    findings.check()


REFUSED = {
    "corners": (
        every_box(lambda b, *_: [b[0] + 1, b[1] + 1, b[0] + 1 + b[2], b[1] + 1 + b[3]]),
        "box_corners", "look like [x1, y1, x2, y2]"),
    "fractions among pixels": (set_box([0.1, 0.2, 0.3, 0.3]), "boxes_mixed", "in pixels, or all as fractions"),
    "most boxes outside": (
        every_box(lambda b, *_: [b[0] + 30, b[1], b[2] + 9, b[3]]), "boxes_outside", "boxes_outside=mend"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_systematic_is_refused_with_what_to_type(small, tmp_path, case):
    change, code, words = REFUSED[case]
    # Objects of ordinary size, in the lower right half of their image.
    for document in (small.train, small.val):
        for annotation in document["annotations"]:
            image = next(i for i in document["images"] if i["id"] == annotation["image_id"])
            annotation["bbox"] = [image["width"] // 2, image["height"] // 2, 8, 9]
            annotation["area"], annotation["iscrowd"] = 72, 0
    change(small.train)
    findings = Findings()
    folder = open_source(small.write(tmp_path))
    with pytest.raises(InputError) as caught:
        read_annotations(folder, findings=findings)
        findings.check()
    assert f"[{code}]" in str(caught.value)
    assert words in str(caught.value) or words in KINDS[code].about
    assert "train.json: annotation 10" in str(caught.value)


def test_corners_are_read_on_request(small, tmp_path):
    for document in (small.train, small.val):
        document["annotations"][2]["bbox"] = [2, 2, 28, 40]
    before, _ = read(small.write(tmp_path / "before"))
    for document in (small.train, small.val):
        every_box(lambda b, *_: [b[0], b[1], b[0] + b[2], b[1] + b[3]])(document)
        for annotation in document["annotations"]:
            del annotation["area"]
    after, found = read(small.write(tmp_path / "after"), findings={"box_corners": "mend"})
    assert found["box_corners"].action == "mend"
    np.testing.assert_allclose(after.splits["train"].box_xywh, before.splits["train"].box_xywh)


def test_boxes_that_reach_beyond_are_cut_and_counted(small, tmp_path):
    box = {"image_id": 3, "category_id": 3, "iscrowd": 0}
    inside = [{**box, "id": 300 + i, "bbox": [i, i, 20, 20], "area": 400} for i in range(20)]
    small.train["annotations"] += [*inside, {**box, "id": 400, "bbox": [-20, 40, 60, 90], "area": 5400}]
    annotations, found = read(small.write(tmp_path))
    index = annotations.splits["train"]
    assert found["box_outside"].count == 1
    assert "annotation 400 has the bbox [-20, 40, 60, 90], outside its image '003.jpg' of 64 x 64" in str(
        found["box_outside"].first
    )
    row = index.box_id.tolist().index(400)
    assert index.box_xywh[row].tolist() == [0, 40, 40, 24]
    assert index.box_area[row] == 40 * 24


@pytest.mark.parametrize("area", [0, 1, 0.05, -1, 10**400, NAN, 5000])
def test_area_that_cannot_be_is_that_of_the_box(small, tmp_path, area):
    small.train["annotations"][0]["area"] = area
    annotations, found = read(small.write(tmp_path))
    assert annotations.splits["train"].box_area[0] == 125.0
    # NaN and what is no number of a float say nothing, which is no fault.
    assert ("area_wrong" in found) == (area not in (10**400,) and area == area)


@pytest.mark.parametrize("ids", [(None, None, None), (100, 100, 101)])
def test_annotations_without_ids_of_their_own_are_numbered(small, tmp_path, ids):
    for annotation, value in zip(small.train["annotations"], ids, strict=True):
        annotation["id"] = value
    annotations, found = read(small.write(tmp_path))
    assert annotations.splits["train"].box_id.tolist() == [1, 2, 3]
    assert found["id_twice"].count in (1, 3)


def test_ids_that_are_texts_are_numbered_and_kept(small, tmp_path):
    for image in small.train["images"]:
        image["id"] = f"frame_{9 - image['id']}"
    for annotation in small.train["annotations"]:
        annotation["image_id"] = f"frame_{9 - annotation['image_id']}"
    annotations, found = read(small.write(tmp_path))
    index = annotations.splits["train"]
    assert found["id_as_text"].count == 3
    assert index.image_key == ["frame_8", "frame_7", "frame_6"]
    assert index.image_id.tolist() == [3, 2, 1]
    assert index.boxes == 3


def test_most_boxes_crowds_is_said_with_its_share(small, tmp_path):
    small.train["annotations"][0]["iscrowd"] = 1
    _, found = read(small.write(tmp_path))
    assert found["crowd_many"].note == "67 % of the boxes in train.json"
    assert found["crowd_many"].action == "warn"


def test_split_of_crowds_alone_is_refused_with_the_usual_cause(small, tmp_path):
    for annotation in small.train["annotations"]:
        annotation["iscrowd"] = 1
    with pytest.raises(InputError, match=r"no boxes .*all 3 have iscrowd 1, which tools export for brush masks"):
        read_train(small.write(tmp_path))


def test_near_names_of_two_files_are_not_guessed(small, tmp_path):
    small.train["images"][1]["file_name"] = "B/002.JPG"
    folder = small.write(tmp_path)
    for name in ("x", "y"):
        (folder / "train" / name).mkdir()
        (folder / "train/002.jpg").rename(folder / f"train/{name}/002.jpg") if name == "x" else None
    (folder / "train/y/002.jpg").write_bytes((folder / "train/x/002.jpg").read_bytes())
    annotations, found = read(folder)
    assert "name_near" not in found
    assert "B/002.JPG" in annotations.splits["train"].file_name


def test_accents_are_compared_composed(small, tmp_path):
    small.train["images"][1]["file_name"] = "caf\u00e9.jpg"
    folder = small.write(tmp_path)
    (folder / "train/002.jpg").rename(folder / "train/cafe\u0301.jpg")
    annotations, found = read(folder)
    assert found["name_near"].count == 1
    assert "cafe\u0301.jpg" in annotations.splits["train"].file_name


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_with_a_mark_are_read(small, tmp_path, encoding):
    folder = small.write(tmp_path)
    path = folder / "annotations/train.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert len(read_train(folder)[0]) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b'{"images": [', "not JSON"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of git-lfs"),
        (b'{"images": [{"file_name": "Schl\xfcssel.jpg"}]}', "byte 0xfc in line 1, at byte 32 of the line"),
        (b"[1, 2]", "not COCO: the top level is a list, not an object"),
        (b"null", "not COCO: the top level is null, not an object"),
        (b"[" * 100_000, "nested more than 100 deep"),
    ],
)
def test_file_that_is_not_coco_json_is_bad_input(small_folder, content, expected):
    (small_folder / "annotations/train.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_train(small_folder)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_values_are_shortened(small, tmp_path):
    small.train["annotations"][0]["bbox"] = list(range(5000))
    with pytest.raises(InputError) as caught:
        read_train(small.write(tmp_path))
    assert len(str(caught.value)) < 250 + len(str(tmp_path))


def test_links_are_followed(small_folder, tmp_path):
    (small_folder / "train/002.jpg").rename(tmp_path / "elsewhere.jpg")
    os.symlink(tmp_path / "elsewhere.jpg", small_folder / "train/002.jpg")
    (small_folder / "val").rename(tmp_path / "pool")
    os.symlink(tmp_path / "pool", small_folder / "val")
    annotations, found = read(small_folder)
    assert {split: len(index) for split, index in annotations.splits.items()} == {"train": 3, "val": 3}
    assert found.keys() == {"crowd_many"}


def test_splits_that_list_a_subset_are_joined(small, tmp_path):
    small.val["categories"] = small.val["categories"][:1]
    small.val["annotations"] = [a for a in small.val["annotations"] if a["category_id"] == 7]
    annotations, found = read(small.write(tmp_path))
    assert annotations.classes == ("bolt", "nut")
    assert annotations.splits["val"].box_class.tolist() == [1, 1]
    assert "'bolt' is not listed" in found["categories_joined"].first


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c[0].update(name="screw"), r"category id 7 is 'screw', but 'nut' in .*train\.json"),
        (lambda c: (c[0].update(id=3), c[1].update(id=7)), r"'nut' has id 3, but id 7 in .*train\.json"),
        (lambda c: (c[0].update(id=1), c[1].update(id=2)), r"'nut' has id 1, but id 7 in .*train\.json"),
    ],
)
def test_splits_that_disagree_on_a_class_are_refused(small, tmp_path, change, expected):
    change(small.val["categories"])
    for annotation in small.val["annotations"]:
        annotation["category_id"] = small.val["categories"][0]["id"]
    with pytest.raises(InputError, match=expected):
        read(small.write(tmp_path))


def test_root_category_of_the_others_is_left_out(small, tmp_path):
    for document in (small.train, small.val):
        for category in document["categories"]:
            category["supercategory"] = "parts"
        document["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
    annotations, found = read(small.write(tmp_path))
    assert annotations.classes == ("bolt", "nut")
    assert found["category_parent"].count == 1


def test_root_category_that_has_boxes_stays(small, tmp_path):
    for document in (small.train, small.val):
        for category in document["categories"]:
            category["supercategory"] = "parts"
        document["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
    small.val["annotations"][0]["category_id"] = 0
    annotations, found = read(small.write(tmp_path))
    assert "parts" in annotations.classes
    assert "category_parent" not in found


def test_names_of_classes_are_cleaned_and_compared(small, tmp_path):
    small.train["categories"][0]["name"] = " nut\u0301 "
    small.val["categories"][0]["name"] = "nu\u0074\u0301"
    small.train["categories"].append({"id": 9, "name": "Bolt"})
    small.val["categories"].append({"id": 9, "name": "Bolt"})
    annotations, found = read(small.write(tmp_path))
    assert len(annotations.classes) == 3
    assert found["class_names_alike"].count == 1


def test_order_of_categories_does_not_matter(small, tmp_path):
    small.val["categories"].reverse()
    assert read(small.write(tmp_path))[0].classes == ("bolt", "nut")


def test_split_without_boxes_is_refused(small, tmp_path):
    small.val["annotations"] = []
    with pytest.raises(InputError, match=r"val\.json: split 'val' has no boxes"):
        read(small.write(tmp_path))


def with_test_split(small, folder, document):
    small.write(folder)
    (folder / "test").mkdir()
    for name in ("011", "012", "013"):
        (folder / f"test/{name}.jpg").write_bytes((folder / f"val/{name}.jpg").read_bytes())
    (folder / "annotations/test.json").write_text(json.dumps(document))
    return folder


def test_optional_split_may_be_without_annotations(small, tmp_path):
    document = {key: small.val[key] for key in ("images", "categories")}
    annotations, found = read(with_test_split(small, tmp_path, document))
    assert annotations.splits["test"].boxes == 0
    assert found["split_without_annotations"].count == 3


def test_fault_in_an_optional_split_does_not_stop_the_others(small, tmp_path):
    document = copy.deepcopy(small.val)
    document["annotations"][0]["bbox"] = 7
    annotations, found = read(with_test_split(small, tmp_path, document))
    assert sorted(annotations.splits) == ["train", "val"]
    assert "not four numbers" in found["split_left_out"].first


def test_split_that_is_evaluated_needs_boxes(small, tmp_path):
    document = {**small.val, "annotations": []}
    folder = with_test_split(small, tmp_path, document)
    with pytest.raises(InputError, match=r"split 'test' has no boxes"):
        read_annotations(open_source(folder), evaluated="test")


def test_unchanged_documents_are_read(small, tmp_path):
    assert copy.deepcopy(small) == SmallDataset()
    annotations, found = read(small.write(tmp_path))
    assert json.loads(json.dumps(annotations.splits["train"].box_id.tolist())) == [100, 101, 102]
    assert found.keys() == {"crowd_many"}


def many_boxes(small, change):
    """Give both splits twelve boxes in the middle of their third image."""
    for document, first in ((small.train, 100), (small.val, 200)):
        image = document["images"][2]
        document["annotations"] = [
            {
                "id": first + i,
                "image_id": image["id"],
                "category_id": 3,
                "bbox": [i + 20, 40 - i, 20 + i, 20],
                "iscrowd": 0,
            }
            for i in range(12)
        ]
        for annotation in document["annotations"]:
            annotation["bbox"] = change(*annotation["bbox"])


def test_boxes_by_their_centre_are_refused_or_read_on_request(small, tmp_path):
    many_boxes(small, lambda x, y, w, h: [x, y, w, h])
    before, _ = read(small.write(tmp_path / "before"))
    many_boxes(small, lambda x, y, w, h: [x + w / 2, y + h / 2, w, h])
    with pytest.raises(InputError, match=r"\[box_centres\]"):
        read_annotations(open_source(small.write(tmp_path / "after")))
    after, _ = read(tmp_path / "after", findings={"box_centres": "mend"})
    np.testing.assert_allclose(after.splits["train"].box_xywh, before.splits["train"].box_xywh)


def test_boxes_of_whole_images_are_said(small, tmp_path):
    many_boxes(small, lambda x, y, w, h: [0, 0, 64, 64 - x / 100])
    _, found = read(small.write(tmp_path))
    assert found["box_whole_image"].count == 24


def test_a_group_is_divided_by_a_key_that_there_is(small, tmp_path):
    folder = small.write(tmp_path)
    (folder / "val").rename(tmp_path / "gone")
    (folder / "annotations/val.json").unlink()
    with pytest.raises(InputError, match=r"no image has the key 'video' \(data.split_group\)"):
        read(folder, split_group="video")


@pytest.mark.parametrize("ids", [[None] * 3, [5, 5, 5], ["c", "a", "b"]])
def test_made_ids_do_not_depend_on_the_order_of_the_file(small, tmp_path, ids):
    for annotation, number in zip(small.train["annotations"], ids, strict=True):
        annotation["id"] = number
    expected = read_train(small.write(tmp_path / "a"))[0]
    small.train["annotations"].reverse()
    index = read_train(small.write(tmp_path / "b"))[0]
    assert index.box_id.tolist() == expected.box_id.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(index.box_xywh, expected.box_xywh)


def test_image_listed_twice_has_the_lowest_id_and_the_size_that_is_known(small, tmp_path):
    again = {**small.train["images"][0], "id": 50}
    del small.train["images"][0]["width"]
    again["height"] = "30"
    small.train["images"].insert(0, again)
    annotations, found = read(small.write(tmp_path))
    assert annotations.splits["train"].image_id.tolist() == [1, 2, 3]
    assert annotations.splits["train"].width.tolist() == [40, 32, 64]
    assert found["image_listed_twice"].count == 1 and "size_unknown" not in found


def test_box_of_zeros_is_that_of_its_mask(small, tmp_path):
    small.train["annotations"][0] |= {"bbox": [0, 0, 0, 0], "segmentation": [[2, 4, 12, 4, 12, 20]]}
    annotations, found = read(small.write(tmp_path))
    assert annotations.splits["train"].box_xywh[0].tolist() == [2, 4, 10, 16]
    assert found["box_from_mask"].count == 1 and "box_empty" not in found


def test_four_values_that_are_no_numbers_are_not_an_absent_box(small, tmp_path):
    small.train["annotations"][0]["bbox"] = [{}] * 4
    with pytest.raises(InputError, match=r"annotation 100 has the bbox \[\{\}, .*, not four numbers"):
        read(small.write(tmp_path))


def test_run_lengths_written_as_fractions_are_read(small, tmp_path):
    annotation = small.train["annotations"][0]
    annotation |= {"bbox": None, "segmentation": {"size": [30, 40], "counts": [32.0, 4.0, 1164.0]}}
    assert read_train(small.write(tmp_path))[0].box_xywh[0].tolist() == [1, 2, 1, 4]


def test_numbers_of_annotations_written_as_text_are_counted(small, tmp_path):
    for annotation in small.train["annotations"]:
        annotation["category_id"] = str(annotation["category_id"])
    assert read(small.write(tmp_path))[1]["number_as_text"].count == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_id": 999}, "images that the file does not list: 3; left out; first: .* annotation 100 of image 999"),
        ({"bbox": [1, 1, 0, 0]}, "boxes without width or height.*: 3; left out; first: .* annotation 100"),
        ({"bbox": None, "segmentation": "x"}, "annotations without a box or a mask: 3; left out"),
    ],
)
def test_split_that_is_left_without_boxes_says_why(small, tmp_path, change, expected):
    for annotation in small.train["annotations"]:
        annotation |= change
    with pytest.raises(InputError, match=rf"split 'train' has no boxes \(crowds not counted\); .*{expected}"):
        read(small.write(tmp_path))


def _with_test_split(small, folder):
    small.write(folder)
    (folder / "val").rename(folder / "test")
    small.write(folder)
    document = copy.deepcopy(small.val)
    return document, folder / "annotations" / "test.json"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(categories=[{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}]), "'bolt' has id 7, but"),
        (lambda d: d.update(categories=[]), "'categories' is empty"),
        (lambda d: d.update(annotations=[{**a, "bbox": [0.1, 30, 90, 9]} for a in d["annotations"]]), "boxes_outside"),
    ],
)
def test_any_fault_of_an_optional_split_leaves_it_out(small, tmp_path, change, expected):
    document, path = _with_test_split(small, tmp_path)
    document["categories"].append({"id": 9, "name": "washer"})
    change(document)
    path.write_text(json.dumps(document))
    annotations, found = read(tmp_path)
    assert sorted(annotations.splits) == ["train", "val"] and annotations.classes == ("bolt", "nut")
    assert expected in found["split_left_out"].first and "categories_joined" not in found
    with pytest.raises(InputError, match="split_left_out"):
        read_annotations(open_source(tmp_path), DataConfig(findings={"split_left_out": "refuse"}))


def test_list_of_test_images_may_be_without_categories(small, tmp_path):
    document, path = _with_test_split(small, tmp_path)
    path.write_text(json.dumps({"images": document["images"], "categories": []}))
    annotations, found = read(tmp_path)
    assert len(annotations.splits["test"]) == 3 and found["split_without_annotations"].count == 3


def test_a_name_that_means_the_file_of_another_split_is_not_taken_for_one_of_this(small, tmp_path):
    small.write(tmp_path)
    (tmp_path / "val" / "001.jpg").write_bytes((tmp_path / "val" / "011.jpg").read_bytes())
    small.train["images"][0]["file_name"] = "val/001.jpg"
    small.train["images"][1]["file_name"] = "elsewhere/002.jpg"
    _, found = read(small.write(tmp_path))
    assert found["name_near"].count == 1 and "'elsewhere/002.jpg'" in found["name_near"].first


@pytest.mark.parametrize("name", ["a%20001.jpg", " a 001.jpg"])
def test_files_whose_names_hold_percent_codes_or_spaces_are_near(small, tmp_path, name):
    small.write(tmp_path)
    (tmp_path / "train" / "001.jpg").rename(tmp_path / "train" / name)
    small.train["images"][0]["file_name"] = "a 001.jpg"
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(small.train))
    annotations, found = read(tmp_path)
    assert name in annotations.splits["train"].file_name and found["name_near"].count == 1


@pytest.mark.parametrize("name", ["a\nb.jpg", "x" * 300, "  "])
def test_names_that_no_file_has_are_refused_in_one_line(small, tmp_path, name):
    small.train["images"][0]["file_name"] = name
    with pytest.raises(InputError, match=r"which is not a file name") as caught:
        read(small.write(tmp_path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_ids_with_line_ends_do_not_break_messages(small, tmp_path):
    small.train["images"][0]["id"] = small.train["images"][1]["id"] = "a\nb"
    with pytest.raises(InputError, match=r"image id 'a\\nb' is used twice"):
        read(small.write(tmp_path))


def test_keys_of_images_are_kept_on_request_in_the_order_of_the_images(small, tmp_path):
    for number, image in enumerate(small.train["images"]):
        image.update(camera=f"c{number}", exposed=number / 4, note="not kept")
    del small.train["images"][0]["camera"]
    plain, _ = read(small.write(tmp_path))
    kept, _ = read(tmp_path, slice_keys=["camera", "exposed"])
    assert plain.splits["train"].image_facts is None
    index = kept.splits["train"]
    by_name = {image["file_name"]: image for image in small.train["images"]}
    expected = [
        {key: by_name[name][key] for key in ("camera", "exposed") if key in by_name[name]} for name in index.file_name
    ]
    assert [json.loads(facts) for facts in index.image_facts] == expected
    assert [json.loads(facts) for facts in kept.splits["val"].image_facts] == [{}] * len(kept.splits["val"])
    last = np.arange(len(index)) == len(index) - 1
    assert index.select(last).image_facts == index.image_facts[-1:]
    index.save(tmp_path / "index.npz")
    assert SplitIndex.load(tmp_path / "index.npz").image_facts == index.image_facts
    plain.splits["train"].save(tmp_path / "plain.npz")
    assert SplitIndex.load(tmp_path / "plain.npz").image_facts is None


def test_keys_of_images_belong_to_the_content_of_a_data_set(small, tmp_path):
    small.train["images"][0]["camera"] = 1
    folder = small.write(tmp_path)
    digests = []
    for keys in ([], ["camera"]):
        annotations, _ = read(folder, slice_keys=keys)
        splits = {split: (index, ["0"] * len(index)) for split, index in annotations.splits.items()}
        digests.append(content_digest(annotations.classes, annotations.category_ids, splits))
    assert digests[0] != digests[1]


def test_a_key_that_no_image_has_or_that_cannot_be_compared_is_refused(small, tmp_path):
    small.train["images"][0]["place"] = {"city": "Ulm"}
    folder = small.write(tmp_path)
    with pytest.raises(InputError, match=r"no image has the key 'camera' \(data.slice_keys\)"):
        read(folder, slice_keys=["camera"])
    with pytest.raises(InputError, match=r"has a 'place' that is not a number or a text; take 'place' out"):
        read(folder, slice_keys=["place"])
