"""The same data set in every format is the same data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from globox import Annotation, AnnotationSet, BoundingBox
from globox.boundingbox import BoxFormat

from kubeyolo.data.digest import content_digest
from kubeyolo.data.findings import Findings
from kubeyolo.data.folder import open_source, read_annotations, split_reader
from kubeyolo.data.layout import local_layout
from kubeyolo.data.raw import RawSplit
from kubeyolo.storage.place import Place
from tests.data.formats import CLASSES, FORMATS, SPLITS, documented_coco
from tests.data.small_dataset import encoded_image


def rows_of(raw: RawSplit) -> dict[str, list[tuple[str, list[float]]]]:
    """Return the boxes of each image by its name, with their class, in order."""
    name = dict(zip(raw.images.ids, raw.images.names, strict=True))
    label = dict(zip(raw.categories.ids, raw.categories.names, strict=True))
    rows: dict[str, list[tuple[str, list[float]]]] = {each: [] for each in name.values()}
    for image, category, box in zip(raw.boxes.image_ids, raw.boxes.category_ids, raw.boxes.boxes, strict=True):
        rows[name[image]].append((label[category], list(box)))
    return {each: sorted(boxes) for each, boxes in rows.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("reference")
    documented_coco(root)
    return read_annotations(open_source(root))


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_boxes(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    layout = local_layout(tmp_path)
    assert list(layout.splits) == ["train", "val"]
    read = split_reader(tmp_path, layout)
    for split, files in layout.splits.items():
        raw = read(files)
        assert tuple(raw.categories.names) == CLASSES and list(raw.categories.ids) == [0, 1]
        found = {name.rpartition("/")[2]: boxes for name, boxes in rows_of(raw).items()}
        assert found == {
            picture.name: sorted((CLASSES[label], list(map(float, box))) for label, box in picture.boxes)
            for picture in SPLITS[split]
        }
        sizes = dict(zip(raw.images.names, zip(raw.images.widths, raw.images.heights, strict=True), strict=True))
        for picture in SPLITS[split]:
            (name,) = (name for name in sizes if name.endswith(picture.name))
            assert sizes[name] == (picture.width, picture.height)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_is_downloaded_with_all_that_is_read_of_it(
    tmp_path: Path, write: Callable[[Path], None], minio_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "set")
    source = f"minio://{minio_bucket}/set"
    Place.of(source).store.put_tree(tmp_path / "set", "")
    here, there = (read_annotations(open_source(place)) for place in (tmp_path / "set", source))
    assert there.classes == here.classes
    for split, index in here.splits.items():
        assert there.splits[split].file_name == index.file_name
        np.testing.assert_array_equal(there.splits[split].box_xywh, index.box_xywh)
        np.testing.assert_array_equal(there.splits[split].width, index.width)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_content(tmp_path: Path, write: Callable[[Path], None], reference: Any) -> None:
    write(tmp_path)
    findings = Findings()
    found = read_annotations(open_source(tmp_path), findings=findings)
    # Roboflow's data.yaml names test images that an export without a test split does not have.
    assert {finding.code for finding in findings.all()} <= {"split_left_out"}
    assert (found.classes, found.category_ids) == (reference.classes, reference.category_ids)
    contents = []
    for each in (found, reference):
        splits = {}
        for split, index in each.splits.items():
            names = [name.rpartition("/")[2] for name in index.file_name]
            splits[split] = (dataclasses.replace(index, file_name=names), [""] * len(names))
        contents.append(content_digest(each.classes, each.category_ids, splits))
    assert contents[0] == contents[1]


@pytest.fixture(scope="module")
def drawn() -> AnnotationSet:
    """Return 12 images with boxes at any place."""
    random = np.random.default_rng(5)
    annotations = []
    for number in range(12):
        width, height = (int(side) for side in random.integers(40, 900, 2))
        boxes = []
        for _ in range(int(random.integers(1, 6))):
            left, top = random.uniform(0, 0.7, 2) * (width, height)
            right, bottom = (left, top) + random.uniform(0.01, 0.3, 2) * (width, height)
            label = CLASSES[int(random.integers(2))]
            corners = tuple(map(float, (left, top, right, bottom)))
            boxes.append(BoundingBox.create(label=label, coords=corners, box_format=BoxFormat.LTRB))
        annotations.append(Annotation(f"{number:02d}.jpg", (width, height), boxes))
    return AnnotationSet(annotations)


def yolo_of(drawn: AnnotationSet, root: Path) -> None:
    drawn.save_yolo_v5(root / "labels", label_to_id={name: i for i, name in enumerate(CLASSES)})
    (root / "classes.txt").write_text("\n".join(CLASSES))


def coco_of(drawn: AnnotationSet, root: Path) -> None:
    drawn.save_coco(root / "labels.json", auto_ids=True)


CONVERTERS: dict[str, Callable[[AnnotationSet, Path], None]] = {
    "coco": coco_of,
    "yolo": yolo_of,
    "voc": lambda drawn, root: drawn.save_pascal_voc(root / "annotations"),
    "cvat": lambda drawn, root: drawn.save_cvat(root / "annotations.xml"),
    "labelme": lambda drawn, root: drawn.save_labelme(root / "images"),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_boxes_are_those_of_another_converter(tmp_path: Path, drawn: AnnotationSet, name: str) -> None:
    (tmp_path / "images").mkdir()
    for annotation in drawn:
        (tmp_path / "images" / annotation.image_id).write_bytes(encoded_image(*annotation.image_size, 1))
    CONVERTERS[name](drawn, tmp_path)
    layout = local_layout(tmp_path)
    assert (layout.format, layout.is_single) == (name, True)
    found = rows_of(split_reader(tmp_path, layout)(layout.splits["all"]))
    assert sorted(found) == sorted(drawn.image_ids)
    for annotation in drawn:
        wanted = sorted((box.label, list(box.ltwh)) for box in annotation.boxes)
        assert [label for label, _ in found[annotation.image_id]] == [label for label, _ in wanted]
        got = np.array([box for _, box in found[annotation.image_id]])
        np.testing.assert_allclose(got, [box for _, box in wanted], rtol=0, atol=1e-6)
