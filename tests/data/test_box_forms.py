"""The form of the boxes of a split, told by their numbers in spite of odd rows; and what is no other form."""

from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.data.annotations import Annotations, Sources, check_annotations
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Findings
from kubeyolo.data.raw import RawBoxes, RawCategories, RawImages, RawSplit

WIDTH, HEIGHT = 640, 480


def usual_boxes(count: int, seed: int = 0) -> np.ndarray:
    """Return [left, top, width, height] of boxes that lie anywhere in their image."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(20, 200, (count, 2))
    return np.concatenate([rng.uniform(0, 1, (count, 2)) * ([WIDTH, HEIGHT] - sides), sides], 1)


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def centres(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], 1)


def fractions(boxes: np.ndarray) -> np.ndarray:
    return boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT]


def split(name: str, boxes: np.ndarray, areas: np.ndarray | None = None) -> RawSplit:
    count = len(boxes)
    return RawSplit(
        f"{name}.json",
        RawCategories([1], ["nut"], [None]),
        RawImages([7], ["a.jpg"], [WIDTH], [HEIGHT]),
        RawBoxes(
            ids=list(range(count)),
            image_ids=[7] * count,
            category_ids=[1] * count,
            boxes=boxes.tolist(),
            areas=[None] * count if areas is None else areas.tolist(),
            crowds=[0] * count,
        ),
    )


def check(tmp_path, findings: Findings, **raws: RawSplit) -> Annotations:
    files = FileNames(tmp_path, ["a.jpg"])
    return check_annotations(Sources(raws, dict.fromkeys(raws, files), set(raws), set(raws)), findings)


def codes(findings: Findings) -> dict[str, int]:
    return {found.code: found.count for found in findings.all()}


@pytest.mark.parametrize(("code", "form"), [("box_corners", corners), ("box_centres", centres)])
@pytest.mark.parametrize("odd", [[10, 10, 10, 30], [600, 10, 900, 30], [-20, 5, 30, 30]])
def test_an_odd_row_does_not_hide_the_form_of_all_others(tmp_path, code, form, odd):
    boxes = form(usual_boxes(30))
    boxes[0] = odd
    findings = Findings()
    check(tmp_path, findings, train=split("train", boxes))
    assert codes(findings)[code] == 30
    assert [found.code for found in findings.refused()] == [code]


@pytest.mark.parametrize("form", [corners, centres])
def test_a_small_split_is_read_in_the_form_that_another_one_shows(tmp_path, form):
    usual = np.array([[40.0, 30, 60, 50]])
    code = f"box_{form.__name__}"
    findings = Findings({code: "mend"})
    result = check(tmp_path, findings, train=split("train", form(usual_boxes(30))), val=split("val", form(usual)))
    assert result.splits["val"].box_xywh.tolist() == usual.tolist()
    assert codes(findings) == {code: 31}


def test_a_split_whose_areas_say_otherwise_keeps_its_form(tmp_path):
    usual = np.array([[40.0, 30, 60, 50]])
    findings = Findings({"box_corners": "mend"})
    raws = {"train": split("train", corners(usual_boxes(30))), "val": split("val", usual, usual[:, 2] * usual[:, 3])}
    assert check(tmp_path, findings, **raws).splits["val"].box_xywh.tolist() == usual.tolist()
    assert codes(findings) == {"box_corners": 30}


def test_areas_of_the_wrong_sides_do_not_hide_corners(tmp_path):
    boxes = corners(usual_boxes(30))
    findings = Findings()
    check(tmp_path, findings, train=split("train", boxes, boxes[:, 2] * boxes[:, 3]))
    assert findings.refused()[0].code == "box_corners"


def test_boxes_that_look_like_corners_can_be_kept(tmp_path):
    findings = Findings({"box_corners": "warn", "boxes_outside": "mend"})
    boxes = corners(usual_boxes(30))
    kept = check(tmp_path, findings, train=split("train", boxes)).splits["train"].box_xywh
    np.testing.assert_array_equal(kept[:, :2], boxes[:, :2])
    found = next(each for each in findings.all() if each.code == "box_corners")
    assert found.done == "kept as they are" and not findings.refused()


def test_large_boxes_drawn_over_the_border_are_neither_corners_nor_too_many(tmp_path):
    boxes = np.tile([4.0, 4, WIDTH + 2, HEIGHT + 2], (12, 1)) + np.arange(12)[:, None] * [0.1, 0.1, 0, 0]
    findings = Findings()
    index = check(tmp_path, findings, train=split("train", boxes)).splits["train"]
    assert codes(findings) == {"box_outside": 12, "box_whole_image": 12}
    assert (index.box_xywh[:, :2] + index.box_xywh[:, 2:]).tolist() == [[WIDTH, HEIGHT]] * 12


def test_masks_larger_than_the_corners_would_be_deny_corners(tmp_path):
    rng = np.random.default_rng(1)
    boxes = np.concatenate([rng.uniform(20, 200, (20, 2)), rng.uniform(300, 460, (20, 2))], 1)
    boxes[:4, :2] = [400, 200]
    boxes[:4, 2:] = [420, 300]
    findings = Findings()
    check(tmp_path, findings, train=split("train", boxes, 0.8 * boxes[:, 2] * boxes[:, 3]))
    assert "box_corners" not in codes(findings)


@pytest.mark.parametrize("odd", [[0, 0, 0, 0], [-0.02, 0.1, 0.3, 0.2], [0.9, 0.9, 0.2, 1.1]])
def test_a_file_of_fractions_may_have_a_box_that_is_empty_or_leaves_its_image(tmp_path, odd):
    usual = usual_boxes(8)
    boxes = fractions(usual)
    boxes[0] = odd
    findings = Findings()
    index = check(tmp_path, findings, train=split("train", boxes)).splits["train"]
    assert codes(findings)["box_fractions"] == 8 and not findings.refused()
    np.testing.assert_allclose(index.box_xywh[-7:], usual[1:])


def test_a_box_in_pixels_among_fractions_is_refused(tmp_path):
    boxes = fractions(usual_boxes(8))
    boxes[0] = [10, 10, 20, 20]
    findings = Findings()
    check(tmp_path, findings, train=split("train", boxes))
    assert codes(findings)["boxes_mixed"] == 7 and findings.refused()[0].code == "boxes_mixed"


def test_numbers_that_no_coordinate_has_are_left_out_without_warnings(tmp_path, recwarn):
    boxes = usual_boxes(5)
    boxes[0] = 1e308
    findings = Findings()
    assert check(tmp_path, findings, train=split("train", boxes)).splits["train"].boxes == 4
    assert codes(findings) == {"box_not_finite": 1} and not recwarn.list
