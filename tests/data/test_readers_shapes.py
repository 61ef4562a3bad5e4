"""CVAT's XML and LabelMe's JSON: the boxes around shapes that are not boxes, and files that are wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kubeyolo.data.layout import local_layout
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers import cvat
from kubeyolo.data.readers.labelme import LabelmeReader
from kubeyolo.errors import InputError
from tests.data.small_dataset import encoded_image


def cvat_set(root: Path, shapes: str, labels: str = "<label><name>nut</name></label>") -> RawSplit:
    (root / "images").mkdir(exist_ok=True)
    (root / "images" / "a.jpg").write_bytes(encoded_image(100, 80, 1))
    image = f'<image id="0" name="a.jpg" width="100" height="80">{shapes}</image>'
    meta = f"<meta><task><labels>{labels}</labels></task></meta>" if labels else ""
    (root / "annotations.xml").write_text(f"<annotations>{meta}{image}</annotations>")
    layout = local_layout(root)
    return cvat.read(root, layout.splits["all"], layout)


ROOT = math.sqrt(2)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<box label="nut" xtl="1.5" ytl="2" xbr="11.5" ybr="22" />', [1.5, 2, 10, 20]),
        ('<box label="nut" xtl="40" ytl="30" xbr="60" ybr="50" rotation="45.0" />',
         [50 - 10 * ROOT, 40 - 10 * ROOT, 20 * ROOT, 20 * ROOT]),
        ('<box label="nut" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90" />', [45, 25, 10, 20]),
        ('<polygon label="nut" points="10.0,20.0;30.5,25.0;12.0,44.0" />', [10, 20, 20.5, 24]),
        ('<ellipse label="nut" cx="50" cy="40" rx="20" ry="10" />', [30, 30, 40, 20]),
        ('<ellipse label="nut" cx="50" cy="40" rx="20" ry="10" rotation="90" />', [40, 20, 20, 40]),
        ('<mask label="nut" left="3" top="4" width="5" height="6" rle="1, 2" />', [3, 4, 5, 6]),
        ('<cuboid label="nut" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="5" ytr1="2" xbr1="5" ybr1="9" xtl2="6" '
         'ytl2="1" xbl2="6" ybl2="8" xtr2="8" ytr2="1" xbr2="8" ybr2="8" />', [1, 1, 7, 8]),
    ],
    ids=["box", "turned by 45", "turned by 90", "polygon", "ellipse", "turned ellipse", "mask", "cuboid"],
)  # fmt: skip
def test_boxes_around_shapes_of_cvat(tmp_path: Path, shape: str, box: list[float]) -> None:
    raw = cvat_set(tmp_path, shape)
    assert raw.boxes.boxes[0] == pytest.approx(box, abs=1e-12)
    assert list(raw.categories.names) == ["nut"]


def test_shapes_of_cvat_without_a_box_are_left_out_and_counted(tmp_path: Path) -> None:
    shapes = '<points label="nut" points="1,2" /><polyline label="nut" points="1,2;3,4" /><points points="1,2" />'
    raw = cvat_set(tmp_path, f'{shapes}<tag label="nut" /><box label="nut" xtl="1" ytl="2" xbr="3" ybr="4" />')
    assert list(raw.boxes.boxes) == [[1, 2, 2, 2]]
    assert [(finding.code, finding.count, finding.note) for finding in raw.findings] == [
        ("shape_without_box", 3, "2 points, 1 polyline")
    ]


def test_labels_of_cvat_keep_their_order(tmp_path: Path) -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("zebra", "ant", "knee"))
    labels = labels.replace(
        "</name></label><label><name>knee</name>", "</name></label><label><name>knee</name><parent>ant</parent>"
    )
    raw = cvat_set(tmp_path, '<box label="ant" xtl="1" ytl="2" xbr="3" ybr="4" />', labels)
    assert list(raw.categories.names) == ["zebra", "ant"]
    assert list(raw.boxes.category_ids) == [1]


def test_subsets_of_cvat_share_image_names(tmp_path: Path) -> None:
    images = []
    for number, (subset, left) in enumerate((("Train", 1), ("Validation", 2))):
        (tmp_path / "images" / subset).mkdir(parents=True)
        (tmp_path / "images" / subset / "a.jpg").write_bytes(encoded_image(100, 80, number))
        box = f'<box label="nut" xtl="{left}" ytl="2" xbr="9" ybr="9" />'
        images.append(f'<image id="{number}" name="a.jpg" subset="{subset}" width="100" height="80">{box}</image>')
    (tmp_path / "annotations.xml").write_text(f"<annotations>{''.join(images)}</annotations>")
    layout = local_layout(tmp_path)
    for split, left in (("train", 1), ("val", 2)):
        raw = cvat.read(tmp_path, layout.splits[split], layout)
        assert [box[0] for box in raw.boxes.boxes] == [left]
        assert list(raw.images.names) == ["a.jpg"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            '<box label="nut" xtl="1" ytl="x" xbr="3" ybr="4" />',
            "shape 1 of image 'a.jpg' has the ytl 'x', which is not",
        ),
        ('<box label="nut" xtl="1" xbr="3" ybr="4" />', "shape 1 of image 'a.jpg' has no ytl"),
        ('<polygon label="nut" points="1;2" />', "has no y"),
        ('</image><track id="0"></track><image>', "is CVAT for video; export CVAT for images or COCO"),
        ("<box", "annotations.xml: not XML"),
    ],
)
def test_wrong_files_of_cvat_are_named(tmp_path: Path, shape: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cvat_set(tmp_path, shape)


def labelme_set(root: Path, *shapes: object, **more: object) -> RawSplit:
    (root / "a.jpg").write_bytes(encoded_image(100, 80, 1))
    document = {"shapes": list(shapes), "imagePath": "..\\x\\a.jpg", "imageWidth": 100, "imageHeight": 80, **more}
    (root / "a.json").write_text(json.dumps(document))
    layout = local_layout(root)
    return LabelmeReader(root, layout).read(layout.splits["all"])


@pytest.mark.parametrize(
    ("kind", "points", "box"),
    [
        ("rectangle", [[30, 40], [10, 20]], [10, 20, 20, 20]),
        ("polygon", [[1, 2], [5, 2.5], [3, 9]], [1, 2, 4, 7]),
        ("circle", [[50, 40], [53, 44]], [45, 35, 10, 10]),
    ],
)
def test_boxes_around_shapes_of_labelme(tmp_path: Path, kind: str, points: object, box: list[float]) -> None:
    raw = labelme_set(tmp_path, {"label": "nut", "points": points, "shape_type": kind})
    assert list(raw.boxes.boxes) == [box]
    assert (list(raw.images.names), list(raw.images.widths), list(raw.images.heights)) == (["a.jpg"], [100], [80])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": [[1, 2], [3, 4]]}, r"a.json: shapes\[0\] has no label"),
        ({"label": "nut", "points": [[1], [3, 4]], "shape_type": "rectangle"}, "has the points .* expected pairs"),
        ({"label": "nut", "points": [[1, 2]], "shape_type": "rectangle"}, "has 1 points; a rectangle needs two"),
    ],
)
def test_wrong_files_of_labelme_are_named(tmp_path: Path, shape: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        labelme_set(tmp_path, shape)


def test_points_of_labelme_are_left_out_and_counted(tmp_path: Path) -> None:
    shapes = [{"label": "tip", "points": [[1, 2]], "shape_type": "point"}]
    shapes.append({"label": "nut", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"})
    raw = labelme_set(tmp_path, *shapes)
    assert list(raw.categories.names) == ["nut"]
    assert [(each.code, each.count, each.note) for each in raw.findings] == [("shape_without_box", 1, "1 point")]
