"""One small data set written in every format, as the tools that export them lay it out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import yaml

from tests.data.small_dataset import encoded_image

CLASSES = ("bolt", "nut")


@dataclass(frozen=True)
class Picture:
    """An image: its name, size, and boxes as class number and [left, top, width, height]."""

    name: str
    width: int
    height: int
    boxes: tuple[tuple[int, tuple[float, float, float, float]], ...]


# Sizes are powers of two and boxes have even sides: fractions of the image are exact.
SPLITS: dict[str, tuple[Picture, ...]] = {
    "train": (
        Picture("a.jpg", 64, 32, ((0, (2, 4, 10, 12)), (1, (20, 6, 30, 20)))),
        Picture("b.jpg", 32, 64, ((1, (0, 0, 32, 64)),)),
        Picture("c.jpg", 128, 64, ()),
        Picture("d.jpg", 64, 64, ((1, (10, 12, 14, 16)), (0, (30, 40, 6, 8)), (0, (40, 2, 20, 10)))),
    ),
    "val": (
        Picture("e.jpg", 64, 32, ((1, (8, 8, 16, 16)),)),
        Picture("f.jpg", 32, 32, ((0, (2, 2, 4, 28)), (1, (12, 4, 14, 18)))),
    ),
}
ALL = tuple(picture for pictures in SPLITS.values() for picture in pictures)


def write_images(folder: Path, pictures: Sequence[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        seed = ord(picture.name[0])
        (folder / picture.name).write_bytes(encoded_image(picture.width, picture.height, seed))


def coco_document(pictures: Sequence[Picture], prefix: str = "") -> dict[str, Any]:
    images, annotations = [], []
    for number, picture in enumerate(pictures, 1):
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": number, "file_name": prefix + picture.name, **size})
        for label, box in picture.boxes:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label, "bbox": list(box)}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def yolo_lines(picture: Picture) -> str:
    lines = []
    for label, (left, top, width, height) in picture.boxes:
        x, y = (left + width / 2) / picture.width, (top + height / 2) / picture.height
        lines.append(f"{label} {x} {y} {width / picture.width} {height / picture.height}\n")
    return "".join(lines)


def write_yolo(folder: Path, pictures: Sequence[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name[:-4]}.txt").write_text(yolo_lines(picture))


def voc_xml(picture: Picture, first: int, source: str = "Unknown") -> str:
    """Return an XML file whose coordinates count from ``first``; the last column belongs to the box if that is 1."""
    objects = "".join(
        f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{left + first}</xmin>"
        f"<ymin>{top + first}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax></bndbox></object>"
        for label, (left, top, width, height) in picture.boxes
    )
    return (
        f"<annotation><filename>{picture.name}</filename><source><database>{source}</database></source>"
        f"<size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>"
        f"{objects}</annotation>"
    )


def write_voc(folder: Path, pictures: Sequence[Picture], first: int, source: str = "Unknown") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name[:-4]}.xml").write_text(voc_xml(picture, first, source))


def cvat_image(number: int, picture: Picture, subset: str = "") -> str:
    boxes = "".join(
        f'<box label="{CLASSES[label]}" source="manual" occluded="0" xtl="{left}" ytl="{top}" xbr="{left + width}" '
        f'ybr="{top + height}" z_order="0"></box>'
        for label, (left, top, width, height) in picture.boxes
    )
    extra = f" subset={quoteattr(subset)}" if subset else ""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<image id="{number}" name={quoteattr(picture.name)}{extra} {size}>{boxes}</image>'


def cvat_xml(images: Sequence[str]) -> str:
    labels = "".join(f"<label><name>{name}</name><color>#fff</color></label>" for name in CLASSES)
    meta = f"<meta><project><name>x</name><labels>{labels}</labels></project></meta>"
    body = f"<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}'


def write_labelme(folder: Path, pictures: Sequence[Picture]) -> None:
    for picture in pictures:
        shapes = [
            {"label": CLASSES[label], "points": [[x, y], [x + w, y + h]], "shape_type": "rectangle"}
            for label, (x, y, w, h) in picture.boxes
        ]
        size = {"imageWidth": picture.width, "imageHeight": picture.height}
        document = {"version": "5.5.0", "shapes": shapes, "imagePath": picture.name, "imageData": None, **size}
        write_json(folder / f"{picture.name[:-4]}.json", document)


def documented_coco(root: Path) -> None:
    for split, pictures in SPLITS.items():
        write_images(root / split, pictures)
        write_json(root / "annotations" / f"{split}.json", coco_document(pictures))


def published_coco(root: Path) -> None:
    for split, pictures in SPLITS.items():
        write_images(root / "images" / f"{split}2017", pictures)
        write_json(root / "annotations" / f"instances_{split}2017.json", coco_document(pictures))


def roboflow_coco(root: Path) -> None:
    for split, pictures in (("train", SPLITS["train"]), ("valid", SPLITS["val"])):
        write_images(root / split, pictures)
        write_json(root / split / "_annotations.coco.json", coco_document(pictures))
    (root / "README.roboflow.txt").write_text("cells - v1")


def cvat_coco(root: Path) -> None:
    for split, pictures in (("Train", SPLITS["train"]), ("Validation", SPLITS["val"])):
        write_images(root / "images" / split, pictures)
        write_json(root / "annotations" / f"instances_{split}.json", coco_document(pictures))


def fiftyone_coco(root: Path) -> None:
    for split, pictures in (("train", SPLITS["train"]), ("validation", SPLITS["val"])):
        write_images(root / split / "data", pictures)
        write_json(root / split / "labels.json", coco_document(pictures))


def ultralytics_yolo(root: Path) -> None:
    for split, pictures in SPLITS.items():
        write_images(root / "images" / split, pictures)
        write_yolo(root / "labels" / split, pictures)
    (root / "labels" / "train" / "c.txt").unlink()  # an image without boxes may have no label file
    (root / "labels" / "train.cache").write_bytes(b"\x93NUMPY")
    described = {"path": "/home/someone/datasets/cells", "train": "images/train", "val": "images/val", "test": None}
    (root / "data.yaml").write_text(yaml.safe_dump({**described, "names": dict(enumerate(CLASSES))}))


def roboflow_yolo(root: Path) -> None:
    for split, pictures in (("train", SPLITS["train"]), ("valid", SPLITS["val"])):
        write_images(root / split / "images", pictures)
        write_yolo(root / split / "labels", pictures)
    described = {"train": "../train/images", "val": "../valid/images", "test": "../test/images", "nc": 2}
    (root / "data.yaml").write_text(yaml.safe_dump({**described, "names": list(CLASSES)}))


def listed_yolo(root: Path) -> None:
    """Darknet's layout: lists of paths of another machine, images and labels in one folder."""
    write_images(root / "obj_train_data", ALL)
    write_yolo(root / "obj_train_data", ALL)
    for name, split in (("train", "train"), ("valid", "val")):
        lines = [f"data\\obj_train_data\\{picture.name}\r\n" for picture in SPLITS[split]]
        (root / f"{name}.txt").write_text("".join(lines), encoding="utf-16")
    (root / "obj.names").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(CLASSES).encode())
    (root / "obj.data").write_text(
        "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    )


def unlisted_yolo(root: Path) -> None:
    for split, pictures in SPLITS.items():
        write_images(root / "images" / split, pictures)
        write_yolo(root / "labels" / split, pictures)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n\n")


def devkit_voc(root: Path) -> None:
    write_images(root / "JPEGImages", ALL)
    write_voc(root / "Annotations", ALL, first=1)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, pictures in SPLITS.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{each.name[:-4]}\n" for each in pictures))
        (root / "ImageSets" / "Main" / f"bolt_{split}.txt").write_text("".join(f"{p.name[:-4]} -1\n" for p in pictures))
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("".join(f"{each.name[:-4]}\n" for each in ALL))


def roboflow_voc(root: Path) -> None:
    for split, pictures in (("train", SPLITS["train"]), ("valid", SPLITS["val"])):
        write_images(root / split, pictures)
        write_voc(root / split, pictures, first=0, source="roboflow.com")


def cvat_images(root: Path) -> None:
    images = []
    for split, pictures in (("Train", SPLITS["train"]), ("Validation", SPLITS["val"])):
        write_images(root / "images" / split, pictures)
        images += [cvat_image(len(images) + i, picture, split) for i, picture in enumerate(pictures)]
    (root / "annotations.xml").write_text(cvat_xml(images))


def labelme(root: Path) -> None:
    for split, pictures in SPLITS.items():
        write_images(root / split, pictures)
        write_labelme(root / split, pictures)


FORMATS: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer
    for writer in (
        documented_coco,
        published_coco,
        roboflow_coco,
        cvat_coco,
        fiftyone_coco,
        ultralytics_yolo,
        roboflow_yolo,
        listed_yolo,
        unlisted_yolo,
        devkit_voc,
        roboflow_voc,
        cvat_images,
        labelme,
    )
}
"""What writes the data set into a folder, by the layout; all of them mean the same."""
