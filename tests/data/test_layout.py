"""How data sets are laid out, told by the names of their files."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest

from kubeyolo.data.layout import find_layout, local_layout
from kubeyolo.data.layouts.names import split_of
from kubeyolo.data.layouts.tree import list_files
from kubeyolo.data.layouts.types import Layout
from kubeyolo.errors import InputError


def laid_out(paths: list[str], described: bytes = b"", format: str = "") -> Layout:
    """Return the layout of a data set in which every small file has the content ``described``."""
    return find_layout(paths, "x", lambda path: described, format)


def images(folder: str, count: int = 2, suffix: str = "jpg") -> list[str]:
    return [f"{folder}/{i}.{suffix}" if folder else f"{i}.{suffix}" for i in range(count)]


def labels(folder: str, suffix: str = "txt") -> list[str]:
    return images(folder, suffix=suffix)


def summary(layout: Layout) -> tuple[str, dict[str, tuple[str, str]]]:
    return layout.format, {name: (files.annotations, files.images) for name, files in layout.splits.items()}


JSON = "annotations/train.json", "annotations/val.json"
YEARS = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
OTHERS = "annotations/captions_val2017.json", "annotations/person_keypoints_train2017.json"
NOTES = "README.roboflow.txt", "README.dataset.txt"
ROBOFLOW = "train/_annotations.coco.json", "valid/_annotations.coco.json", "test/_annotations.coco.json"
MAC = "annotations/._train.json", "__MACOSX/annotations/._train.json", ".DS_Store", "train/.ipynb_checkpoints/0.jpg"

COCO = {
    "documented": ([*JSON, *images("train"), *images("val")], [(JSON[0], "train"), (JSON[1], "val")]),
    "published": (
        [*YEARS, *OTHERS, "annotations/image_info_test2017.json", *images("train2017"), *images("val2017")],
        [(YEARS[0], "train2017"), (YEARS[1], "val2017")],
    ),
    "below images": (
        [*YEARS, *images("images/train2017"), *images("images/val2017")],
        [(YEARS[0], "images/train2017"), (YEARS[1], "images/val2017")],
    ),
    "one image folder": ([*JSON, *images("images")], [(JSON[0], "images"), (JSON[1], "images")]),
    "nested images": (
        [*JSON, *images("train/images"), *images("val/images")],
        [(JSON[0], "train/images"), (JSON[1], "val/images")],
    ),
    "roboflow": (
        [*ROBOFLOW, *NOTES, *images("train"), *images("valid"), *images("test")],
        [(ROBOFLOW[0], "train"), (ROBOFLOW[1], "valid"), (ROBOFLOW[2], "test")],
    ),
    "cvat": (
        [
            "annotations/instances_Train.json",
            "annotations/instances_Validation.json",
            *images("images/Train"),
            *images("images/Validation"),
        ],
        [
            ("annotations/instances_Train.json", "images/Train"),
            ("annotations/instances_Validation.json", "images/Validation"),
        ],
    ),
    "fiftyone": (
        ["train/labels.json", "validation/labels.json", *images("train/data"), *images("validation/data")],
        [("train/labels.json", "train/data"), ("validation/labels.json", "validation/data")],
    ),
    "at the root": (
        ["train.json", "val.json", *images("train"), *images("val")],
        [("train.json", "train"), ("val.json", "val")],
    ),
    "other words": (
        ["train_annotations.json", "val_annotations.json", *images("images/train"), *images("images/val")],
        [("train_annotations.json", "images/train"), ("val_annotations.json", "images/val")],
    ),
    "val for valid": (
        [*JSON, *images("Training"), *images("VALID")],
        [(JSON[0], "Training"), (JSON[1], "VALID")],
    ),
    "dev and eval": (
        ["annotations/training.json", "annotations/dev.json", *images("training"), *images("dev")],
        [("annotations/training.json", "training"), ("annotations/dev.json", "dev")],
    ),
    "any name in the folder of a split": (
        ["train/9f3a.json", "val/77c1.json", *images("train"), *images("val")],
        [("train/9f3a.json", "train"), ("val/77c1.json", "val")],
    ),
    "folders of annotations": (
        ["annotations/train/instances.json", "annotations/val/instances.json", *images("images/train")]
        + images("images/val"),
        [("annotations/train/instances.json", "images/train"), ("annotations/val/instances.json", "images/val")],
    ),
    "leftovers": ([*JSON, *MAC, *images("train"), *images("val")], [(JSON[0], "train"), (JSON[1], "val")]),
}


@pytest.mark.parametrize(("paths", "places"), COCO.values(), ids=COCO)
def test_coco(paths: list[str], places: list[tuple[str, str]]) -> None:
    layout = laid_out(paths)
    assert summary(layout) == ("coco", dict(zip(("train", "val", "test"), places, strict=False)))
    assert not layout.is_single
    assert layout.words.endswith(": train, val, test" if len(places) == 3 else ": train, val")


def test_optional_splits_without_images_are_named() -> None:
    layout = laid_out([*JSON, "annotations/test.json", *images("train"), *images("val")])
    assert (list(layout.splits), layout.left_out) == (
        ["train", "val"],
        ("annotations/test.json has no image folder test/",),
    )
    paths, described, _, _ = YOLO["roboflow"]
    layout = laid_out(paths, described)
    assert layout.left_out == ("data.yaml names ../test/images for 'test', which has no images",)


def test_files_of_classes_and_images_of_odd_names_do_not_mislead() -> None:
    paths = [*JSON, "data.yaml", "classes.txt", "train/train.jpg", *images("train"), *images("val")]
    assert laid_out(paths, b"train: train\nval: val\nnames: [a]").format == "coco"


def test_other_splits_of_coco_keep_their_names() -> None:
    paths = [*JSON, "annotations/night.json", "annotations/stray.json", *images("train"), *images("val")]
    assert list(laid_out([*paths, *images("night")]).splits) == ["train", "val", "night"]


SINGLE = {
    "cvat": (["annotations/instances_default.json", *images("images/default")], "images/default"),
    "cvat flat": (["annotations/instances_default.json", *images("images")], "images"),
    "fiftyone": (["labels.json", *images("data")], "data"),
    "label studio": (["result.json", *images("images")], "images"),
    "azure": (["0c5e-77.json", *images("UI/2021/images")], "UI/2021/images"),
    "all at the root": (["annotations.json", *images("")], ""),
    "roboflow without splits": (["train/_annotations.coco.json", *NOTES, *images("train")], "train"),
}


@pytest.mark.parametrize(("paths", "folder"), SINGLE.values(), ids=SINGLE)
def test_coco_that_is_to_be_divided(paths: list[str], folder: str) -> None:
    layout = laid_out(paths)
    assert summary(layout) == ("coco", {"all": (paths[0], folder)})
    assert layout.is_single


ULTRALYTICS = b"path: /home/u/cells\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: a\n  1: b\n"
ROBOFLOW_YOLO = b"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['a']\n"
LISTS = b"train: train.txt\nval: ./val.txt\nnames: ['a']\n"
SEVERAL = b"train: [a/images, b/images]\nval: c/images\nnames: ['a']\n"
SAME = b"path: ../datasets/coco128\ntrain: images/train2017\nval: images/train2017\nnames: ['a']\n"
PATTERN = b"train: C:\\data\\images\\train\\*.jpg\nval: C:\\data\\images\\val\\*.jpg\nnames: [a]\n"
DARKNET = b"classes = 2\ntrain = data/train.txt\nvalid=data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
TWO = [*images("images/train"), *images("images/val"), *labels("labels/train"), *labels("labels/val")]
TWO_PLACES = {"train": ("labels/train", "images/train", ()), "val": ("labels/val", "images/val", ())}
OBJ = [*images("obj_train_data"), *labels("obj_train_data")]

YOLO = {
    "ultralytics": (["data.yaml", *TWO], ULTRALYTICS, TWO_PLACES, ("data.yaml",)),
    "by folders": (["classes.txt", *TWO], b"", TWO_PLACES, ("classes.txt",)),
    "patterns": (["data.yaml", *TWO], PATTERN, TWO_PLACES, ("data.yaml",)),
    "roboflow": (
        ["data.yaml", *NOTES, *images("train/images"), *images("valid/images"), *labels("train/labels")]
        + labels("valid/labels"),
        ROBOFLOW_YOLO,
        {"train": ("train/labels", "train/images", ()), "val": ("valid/labels", "valid/images", ())},
        ("data.yaml",),
    ),
    "lists": (
        ["data.yaml", "train.txt", "val.txt", "labels.cache", *images("images"), *labels("labels")],
        LISTS,
        {"train": ("labels", "images", ("train.txt",)), "val": ("labels", "images", ("val.txt",))},
        ("data.yaml", "train.txt", "val.txt"),
    ),
    "lists without data.yaml": (
        ["classes.txt", "train.txt", "val.txt", *images("images"), *labels("labels")],
        b"",
        {"train": ("labels", "images", ("train.txt",)), "val": ("labels", "images", ("val.txt",))},
        ("classes.txt", "train.txt", "val.txt"),
    ),
    "several folders": (
        ["data.yaml", *[path for name in "abc" for path in images(f"{name}/images") + labels(f"{name}/labels")]],
        SEVERAL,
        {"train": ("", "", ("a/images", "b/images")), "val": ("c/labels", "c/images", ())},
        ("data.yaml",),
    ),
    "the same folder twice": (
        ["coco128.yaml", *images("images/train2017"), *labels("labels/train2017")],
        SAME,
        {split: ("labels/train2017", "images/train2017", ()) for split in ("train", "val")},
        ("coco128.yaml",),
    ),
    "darknet": (
        ["obj.data", "obj.names", "train.txt", "valid.txt", *OBJ],
        DARKNET,
        {split: ("obj_train_data", "obj_train_data", (f"{name}.txt",)) for split, name in
         (("train", "train"), ("val", "valid"))},
        ("obj.data", "obj.names", "train.txt", "valid.txt"),
    ),
    "roboflow's darknet": (
        ["train/_darknet.labels", "valid/_darknet.labels", *images("train"), *labels("train"), *images("valid")]
        + labels("valid"),
        b"",
        {"train": ("train", "train", ()), "val": ("valid", "valid", ())},
        ("train/_darknet.labels", "valid/_darknet.labels"),
    ),
    "label studio": (
        ["classes.txt", "notes.json", *images("images"), *labels("labels")],
        b"",
        {"all": ("labels", "images", ())},
        ("classes.txt",),
    ),
    "labelimg": (["classes.txt", *images(""), *labels("")], b"", {"all": ("", "", ())}, ("classes.txt",)),
}  # fmt: skip


@pytest.mark.parametrize(("paths", "described", "places", "extra"), YOLO.values(), ids=YOLO)
def test_yolo(
    paths: list[str], described: bytes, places: dict[str, tuple[str, str, tuple[str, ...]]], extra: tuple[str, ...]
) -> None:
    layout = laid_out(paths, described)
    found = {name: (files.annotations, files.images, files.members) for name, files in layout.splits.items()}
    assert (layout.format, found, layout.extra) == ("yolo", places, extra)
    assert layout.is_single == ("all" in places)


VOC_FOLDERS = [*images("JPEGImages"), *labels("Annotations", "xml")]
MAIN = "ImageSets/Main"
OTHER = {
    "voc": (
        [f"{MAIN}/{name}.txt" for name in ("train", "val", "trainval", "test", "cat_train")] + VOC_FOLDERS,
        "voc",
        {split: ("Annotations", "JPEGImages", (f"{MAIN}/{split}.txt",)) for split in ("train", "val", "test")},
    ),
    "voc without val": (
        [f"{MAIN}/trainval.txt", *VOC_FOLDERS],
        "voc",
        {"all": ("Annotations", "JPEGImages", (f"{MAIN}/trainval.txt",))},
    ),
    "voc of cvat": (
        [f"{MAIN}/default.txt", "labelmap.txt", *VOC_FOLDERS],
        "voc",
        {"all": ("Annotations", "JPEGImages", (f"{MAIN}/default.txt",))},
    ),
    "voc without lists": (
        [*images("images"), *labels("annotations", "xml")],
        "voc",
        {"all": ("annotations", "images", ())},
    ),
    "voc of roboflow": (
        [path for name in ("train", "valid") for path in images(name) + labels(name, "xml")],
        "voc",
        {"train": ("train", "train", ()), "val": ("valid", "valid", ())},
    ),
    "cvat": (["annotations.xml", *images("images")], "cvat", {"all": ("annotations.xml", "images", ())}),
    "cvat with subsets": (
        ["annotations.xml", *images("images/Train"), *images("images/Validation")],
        "cvat",
        {
            "train": ("annotations.xml", "images/Train", ()),
            "val": ("annotations.xml", "images/Validation", ()),
        },
    ),
    "labelme": ([*images(""), *labels("", "json")], "labelme", {"all": ("", "", ())}),
    "labelme with splits": (
        [path for name in ("train", "val") for path in images(name) + labels(name, "json")],
        "labelme",
        {"train": ("train", "train", ()), "val": ("val", "val", ())},
    ),
}


@pytest.mark.parametrize(("paths", "name", "places"), OTHER.values(), ids=OTHER)
def test_other_formats(paths: list[str], name: str, places: dict[str, tuple[str, str, tuple[str, ...]]]) -> None:
    layout = laid_out(paths)
    found = {split: (files.annotations, files.images, files.members) for split, files in layout.splits.items()}
    assert (layout.format, found) == (name, places)


TWICE = "annotations/instances_train2017.json"
REFUSED = {
    "nothing": ([], "x: there are no files; expected COCO"),
    "only a readme": (["README.md"], "x: has no images; expected COCO"),
    "images alone": (images("a"), "2 images in folders and no annotations; annotate them, export COCO"),
    "folders of classes": (
        [*images("cat"), *images("dog")],
        r"4 images in folders of classes \(cat/, dog/\) and no boxes: use them to pretrain",
    ),
    "folders of classes in splits": (
        [*images("train/cat"), *images("train/dog"), *images("val/cat")],
        r"folders of classes \(cat/, dog/\)",
    ),
    "split without annotations": (
        ["annotations/train.json", *images("train"), *images("val")],
        r"no split 'val' \(found: train\); val/ has images but no annotations",
    ),
    "no val": (
        ["annotations/train.json", "annotations/test.json", *images("train"), *images("test")],
        r"no split 'val' \(found: train, test\); rename test to val",
    ),
    "no image folder": (
        [*JSON, *images("train")],
        "annotations/val.json has no image folder val/ or images/val/ next to it",
    ),
    "two files of a split": (
        [*JSON, TWICE, *images("train"), *images("train2017"), *images("val")],
        r"annotations/instances_train2017.json and annotations/train.json are both for split 'train'; remove one",
    ),
    "two folders of a split": (
        [*JSON, *images("train"), *images("valid"), *images("validation")],
        "annotations/val.json is for split 'val', and so are valid/ and validation/; remove or rename one",
    ),
    "two files without splits": (
        ["a.json", "b.json", *images("images")],
        "2 annotation files and no splits: a.json, b",
    ),
    "one file for folders of splits": (
        ["labels.json", *images("train"), *images("val")],
        "labels.json is the only annotation file, but the images lie in folders of splits \(train/, val/\)",
    ),
    "one level too high": (
        [f"cells/{path}" for path in (*JSON, *images("train"), *images("val"))],
        r"is not a data set, but its folder cells/ is \(COCO: train, val\); give x/cells",
    ),
    "two levels too high": (
        [f"VOCdevkit/VOC2012/{path}" for path in VOC_FOLDERS],
        "is not a data set, but its folder VOCdevkit/VOC2012/ is .*; give x/VOCdevkit/VOC2012",
    ),
    "several data sets": (
        [f"{name}/{path}" for name in ("a", "b") for path in ("labels.json", *images("data"))],
        "contains several data sets: a/, b/; give one data set, such as x/a",
    ),
    "two formats": (
        [*JSON, *TWO],
        r"can be read as coco \(COCO: train, val\) and yolo .*; set data.format=coco or data.format=yolo",
    ),
    "csv": (["_annotations.csv", *images("train")], "_annotations.csv is in a format that is not supported; export"),
    "supervisely": (
        ["meta.json", *[f"train/ann/{i}.jpg.json" for i in range(2)], *images("train/img")],
        r"Supervisely's JSON \(a file for each image\) is not supported; export the data set as COCO",
    ),
    "an archive in it": (["cells.zip"], "contains the archive cells.zip; unpack it"),
    "labels without images": (labels("labels"), r"has no images \(found: labels/0.txt"),
    "unknown names": ([*images("a"), "a/notes.txt"], r"2 images, but no annotations .* \(found: a/notes.txt\)"),
}


@pytest.mark.parametrize(("paths", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_a_data_set_is_named(paths: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        laid_out(paths)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (b"train: images/one\nval: images/val\nnames: [a]\n", "data.yaml names images/one for 'train'"),
        (b"train: {a: 1}\nval: images/val\nnames: [a]\n", "train is {'a': '1'}; write the path of a folder"),
        (
            b"train: images/train\nval: images/val\nnames: {1: a}\n",
            "write a list of the classes, or number them all from 0",
        ),
        (b"train: [\n", r"data.yaml: not YAML: .*line 2, column 1"),
    ],
)
def test_faults_of_data_yaml_are_named(described: bytes, message: str) -> None:
    paths = ["data.yaml", *images("images/one_more"), *images("images/val"), *labels("labels/val")]
    with pytest.raises(InputError, match=message):
        laid_out(paths, described)


def test_train_alone_in_data_yaml_is_divided() -> None:
    paths = ["data.yaml", *images("train/images"), *labels("train/labels")]
    with pytest.raises(InputError, match="names ../valid/images for 'val', .* or remove val from data.yaml"):
        laid_out(paths, ROBOFLOW_YOLO)
    layout = laid_out(paths, b"train: ../train/images\nnames: [a]\n")
    assert summary(layout) == ("yolo", {"all": ("train/labels", "train/images")})


def test_the_format_may_be_said() -> None:
    paths = [*JSON, *TWO]
    assert laid_out(paths, format="yolo").splits["val"].annotations == "labels/val"
    assert laid_out(paths, format="coco").splits["val"].annotations == "annotations/val.json"
    with pytest.raises(InputError, match="data.format = 'yool' is not a format; did you mean 'yolo'"):
        laid_out(paths, format="yool")
    with pytest.raises(InputError, match="has no data set in voc format"):
        laid_out(paths, format="voc")


def test_an_incomplete_format_does_not_hide_a_complete_one() -> None:
    paths = ["annotations/instances_val2017.json", *images("images/train"), *images("images/val")]
    assert laid_out([*paths, *labels("labels/train"), *labels("labels/val")]).format == "yolo"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train2017", "train"),
        ("Training", "train"),
        ("VALID", "val"),
        ("validation_set", "val"),
        ("dev", "val"),
        ("eval", "val"),
        ("testImages", "test"),
        ("test_2012", "test"),
        ("obj_train_data", "train"),
        ("trainval", ""),
        ("train_box_2", ""),
        ("cat_train", ""),
        ("contest", ""),
        ("images", ""),
    ],
)
def test_meaning_of_names(name: str, split: str) -> None:
    assert split_of(name) == split


def test_files_that_are_not_folders_are_named(tmp_path: Path) -> None:
    root = tmp_path / "cells"
    for name in [*JSON, *images("train"), *images("val")]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    archive = tmp_path / "cells.bin"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("annotations/train.json", "{}")
    cases = {
        archive: "is a ZIP archive; unpack it and give the folder",
        root
        / "annotations"
        / "train.json": f"is a file of a data set; give the folder of the data set, {root} .COCO: train, val.",
        root / "train" / "0.jpg": "is an image; give the folder",
        tmp_path / "absent": "no such folder; expected COCO",
        root / "annotations": f"is part of a data set; give the folder of the data set, {root} .COCO: train, val.",
        root / "train": f"is part of a data set; give the folder of the data set, {root} ",
        Path("/dev/null"): "is neither a folder nor a file",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            local_layout(path)
    assert summary(local_layout(root))[0] == "coco"


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "set" / "train").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"x")
    (tmp_path / "set" / "val").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "train" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "train" / "gone.jpg").symlink_to(tmp_path / "nothing")
    assert list_files(tmp_path / "set") == ["train/gone.jpg", "val/a.jpg"]


def test_many_files_take_about_a_second(tmp_path: Path) -> None:
    paths = [*YEARS, *images("train2017", 115_000), *images("val2017", 5_000)]
    began = time.process_time()
    laid_out(paths)
    assert time.process_time() - began < 2
