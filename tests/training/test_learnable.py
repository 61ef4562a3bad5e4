"""What a training says it cannot learn from, by numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.load import load_config, preset_names
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.mosaic import BoxRule
from kubeyolo.models.named_facts import model_facts
from kubeyolo.storage.place import Place
from kubeyolo.training.history import HistoryRow
from kubeyolo.training.learnable import (
    Learnable,
    anchor_ratios,
    anchors_command,
    box_sides,
    empty_warnings,
    look_at_training,
    loss_warnings,
    nearest_overlaps,
    size_warnings,
)
from kubeyolo.training.reach import schedule_warnings
from kubeyolo.training.result import RESULT_NAME, read_result

LONG = 1000


def index_of(sides: list[list[tuple[float, float]]], size: tuple[int, int] = (640, 640)) -> SplitIndex:
    """Return an index of images of one size, each with boxes of these widths and heights in its corner."""
    counts = [len(boxes) for boxes in sides]
    xywh = np.array([(0.0, 0.0, *side) for boxes in sides for side in boxes], np.float64).reshape(-1, 4)
    images, boxes = len(sides), sum(counts)
    return SplitIndex(
        image_id=np.arange(images, dtype=np.int64),
        file_name=[f"{i}.png" for i in range(images)],
        width=np.full(images, size[0], np.int32),
        height=np.full(images, size[1], np.int32),
        box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        box_id=np.arange(boxes, dtype=np.int64),
        box_class=np.zeros(boxes, np.int32),
        box_xywh=xywh,
        box_area=xywh[:, 2:].prod(1),
        box_crowd=np.zeros(boxes, np.bool_),
    )


def look(index: SplitIndex, *sets: str, model: str = "yolov5n-r7") -> Learnable:
    return look_at_training(index, model_facts(model), load_config(model, sets=sets), LONG)


def schedule(*sets: str, steps_per_epoch: int = LONG, model: str = "yolov5n-r7") -> list[str]:
    config = load_config(model, sets=sets)
    return schedule_warnings(config.train, config.augment, steps_per_epoch)


def test_an_ordinary_training_has_one_line_and_no_warning() -> None:
    found = look(index_of([[(40.0, 40.0), (100.0, 80.0)]] * 3))
    assert found.warnings == () and found.recall == 1.0
    (line,) = found.lines
    assert line.startswith("anchors: 6 of 6 (100.0 %) boxes fit an anchor")


def test_sides_are_those_of_the_letterboxed_image_and_crowds_do_not_count() -> None:
    index = index_of([[(320.0, 60.0), (64.0, 32.0)]], (640, 320))
    index = replace(index, box_crowd=np.array([True, False]))
    table = BoxTable(index)
    assert box_sides(index, table, 64).tolist() == [[pytest.approx(6.4), pytest.approx(3.2)]]


@pytest.mark.parametrize(("small", "warns"), [(0, False), (1, False), (2, True), (18, True), (20, True)])
def test_boxes_that_vanish_at_the_training_size_are_counted_from_a_tenth_on(small: int, warns: bool) -> None:
    sides = np.array([(1.0, 9.0)] * small + [(9.0, 9.0)] * (20 - small))
    warnings = size_warnings(sides, 64)
    assert len(warnings) == warns
    if warns:
        assert warnings[0].startswith(f"{small} of 20 ({5 * small}.0 %) training boxes are 2 pixels or less")
        assert "train.image_size = 64" in warnings[0]
        assert ("almost no boxes are left" in warnings[0]) == (small >= 18)


def test_exactly_two_pixels_are_left_out_as_the_augmentation_does() -> None:
    assert len(size_warnings(np.array([(2.0, 9.0)]), 64)) == 1
    assert size_warnings(np.array([(2.01, 9.0)]), 64) == []


@pytest.mark.parametrize(("stride", "named"), [(32, 160), (128, 256)])
def test_the_size_that_is_named_is_the_least_that_keeps_the_boxes(stride: int, named: int) -> None:
    # 1 px at 64 is 2 px, too small, at 128.
    sides = np.full((30, 2), 1.0)
    assert f"with train.image_size = {named} or more, " in size_warnings(sides, 64, stride)[0]
    assert size_warnings(sides * named / 64, named, stride) == []
    assert size_warnings(sides * (named - stride) / 64, named - stride, stride) != []


def test_boxes_that_no_size_saves_want_cut_images_and_long_ones_are_named() -> None:
    assert "cut the images into parts" in size_warnings(np.full((3, 2), 0.01), 640)[0]
    (long,) = size_warnings(np.array([(500.0, 4.0), (50.0, 50.0)]), 640)
    assert long.startswith("1 of 2 (50.0 %) training boxes are at least 100 times as long")
    shorter = np.array([(90.0, 4.0), (50.0, 50.0)])
    (long,) = size_warnings(shorter, 640, rule=BoxRule(20.0, 0.2))
    assert "at least 20 times as long as they are wide (augment.max_aspect)" in long
    assert size_warnings(shorter, 640) == []


def test_anchors_are_computed_from_the_boxes_that_the_training_keeps() -> None:
    assert "max_aspect" not in anchors_command("d", load_config("yolov5n-r7"))
    assert anchors_command("d", load_config("yolov4-csp")).endswith("--set augment.max_aspect=20")


def test_a_box_fits_below_the_ratio_and_not_at_it() -> None:
    anchors = (((10.0, 20.0),),)
    sides = np.array([(39.9, 20.0), (40.0, 20.0), (2.5, 20.0), (2.6, 79.0), (10.0, 81.0)])
    assert (anchor_ratios(sides, anchors) < 4.0).tolist() == [True, False, False, True, False]
    assert (anchor_ratios(sides, anchors) < 4.1).all()


def test_overlaps_are_those_of_the_nearest_anchor() -> None:
    anchors = (((10.0, 10.0),), ((40.0, 40.0),))
    assert nearest_overlaps(np.array([(10.0, 10.0), (20.0, 40.0)]), anchors).tolist() == [1.0, 0.5]


def test_the_count_agrees_with_the_assignment_of_the_loss(mindspore_ready: None, pynative: None) -> None:
    from mindspore import Tensor

    from kubeyolo.losses.assign import assign

    facts = model_facts("yolov5n-r7")
    sides = np.random.default_rng(0).uniform(1, 640, (60, 2)) ** np.array([1.0, 0.5])
    labels = np.concatenate([np.zeros((60, 2)), np.full((60, 2), 0.5), sides / 640], axis=1).astype(np.float32)
    shapes = tuple((640 // stride, 640 // stride) for stride in facts.strides)
    mask = assign(Tensor(labels), facts.anchors, facts.strides, shapes, 4.0)[0].asnumpy()
    answered = mask.reshape(-1, 60).any(axis=0)
    assert 0 < answered.sum() < 60
    assert (anchor_ratios(sides, facts.anchors) < 4.0).tolist() == answered.tolist()


def test_a_share_below_98_percent_is_a_warning_with_the_keys() -> None:
    fits, long = (40.0, 40.0), (600.0, 24.0)
    good = look(index_of([[fits] * 98 + [long] * 2]))
    assert good.recall == 0.98 and good.warnings == ()
    found = look(index_of([[fits] * 97 + [long] * 3]))
    assert found.recall == 0.97
    (warning,) = found.warnings
    assert warning.startswith("no anchor fits 3 of 100 (3.0 %) training boxes within train.anchor_t = 4 at")
    assert "train.image_size = 640" in warning and "stays 0" not in warning


def test_anchors_that_fit_no_box_leave_the_box_loss_at_0() -> None:
    found = look(index_of([[(300.0, 12.0)] * 6], (320, 320)), "train.image_size=64")
    assert found.recall == 0.0 and "0 of 6 (0.0 %)" in found.lines[0]
    assert "the box loss stays 0" in found.warnings[0] and "with train.image_size" not in found.warnings[0]


def test_the_anchor_t_that_is_named_works() -> None:
    index = index_of([[(300.0, 12.0), (320.0, 10.0), (40.0, 40.0)]] * 5, (320, 320))
    (warning,) = look(index).warnings
    named = float(warning.split("train.anchor_t = ")[2].split()[0])
    assert look(index, f"train.anchor_t={named}").warnings == ()
    assert look(index, f"train.anchor_t={named - 0.1:g}").warnings != ()
    # (2σ)²·anchor is at most four times the anchor.
    assert named > 4 and "a decoded side is at most 4 times its anchor" in warning


def test_a_training_size_at_which_the_anchors_fit_is_named_and_works() -> None:
    index = index_of([[(8.0, 8.0)] * 10])
    found = look(index, "train.image_size=192")
    assert found.recall == 0.0
    named = int(found.warnings[-1].split("with train.image_size = ")[1].split(",")[0])
    assert named > 192 and look(index, f"train.image_size={named}").recall == 1.0


def test_the_darknet_family_answers_for_every_box() -> None:
    found = look(index_of([[(600.0, 24.0)]]), model="yolov3")
    assert found.recall == 1.0 and found.warnings == ()
    assert "1 of 1 (100.0 %)" in found.lines[0] and "mean overlap" in found.lines[0]


def test_a_split_without_any_box_is_looked_at_too() -> None:
    found = look(index_of([[], []]))
    assert found.recall is None and found.lines == ()
    assert len(found.warnings) == 1 and found.warnings[0].startswith("2 of 2 (100.0 %) training images have no boxes")


@pytest.mark.parametrize(("empty", "warns"), [(9, False), (10, True)])
def test_images_without_boxes_are_counted_from_half_of_them_on(empty: int, warns: bool) -> None:
    counts = np.array([0] * empty + [3] * (20 - empty), np.int64)
    assert len(empty_warnings(counts)) == warns


def test_a_warm_up_that_does_not_end_is_named_with_both_numbers() -> None:
    (warning,) = schedule("train.max_epoch=1", steps_per_epoch=3)
    assert "warm-up of 100 steps" in warning and "training of 3 steps" in warning and "rises to 0.0002" in warning
    (long,) = schedule("train.max_epoch=2", steps_per_epoch=200)
    assert "warm-up of 600 steps" in long and "training of 400 steps" in long
    assert schedule("train.max_epoch=4", steps_per_epoch=200) == []
    assert schedule("train.max_epoch=1", "train.warmup_epochs=0", steps_per_epoch=3) == []


def test_milestones_beyond_the_end_are_named_where_they_count() -> None:
    (warning,) = schedule("train.max_epoch=4", "train.lr_scheduler=exponential")
    assert "train.lr_epochs has 220, 250" in warning and "4 epochs" in warning and "never falls" in warning
    (one,) = schedule("train.max_epoch=5", "train.lr_scheduler=exponential", "train.lr_epochs=[4,5]")
    assert "train.lr_epochs has 5," in one and "never" not in one
    assert schedule("train.max_epoch=4", "train.lr_scheduler=cosine_annealing") == []


def test_an_annealing_that_rises_again_is_named() -> None:
    annealed = ("train.lr_scheduler=cosine_annealing", "train.max_epoch=50")
    (warning,) = schedule(*annealed, "train.t_max=40")
    assert "train.t_max = 40" in warning and "50 epochs" in warning and "set train.t_max to 50" in warning
    assert schedule(*annealed, "train.t_max=50") == schedule(*annealed, "train.t_max=0") == []
    (warning,) = schedule(*annealed, "train.t_max=50", "train.eta_min=0.5")
    assert "train.eta_min = 0.5 is larger than train.lr = 0.01" in warning


def test_a_close_mosaic_of_the_whole_training_is_named() -> None:
    (warning,) = schedule("train.max_epoch=50", "augment.close_mosaic=50")
    assert "augment.close_mosaic = 50" in warning and "all 50 epochs" in warning
    assert schedule("train.max_epoch=50", "augment.close_mosaic=49") == []
    assert schedule("train.max_epoch=50", "augment.close_mosaic=50", "augment.mosaic=0") == []


@pytest.mark.parametrize("model", preset_names())
def test_no_preset_warns_of_its_own_schedule(model: str) -> None:
    assert schedule(steps_per_epoch=4, model=model) == []


def rows_of(losses: list[float], box: float = 0.1) -> list[HistoryRow]:
    return [HistoryRow(step=10 * (i + 1), epoch=i, loss=loss, box=box) for i, loss in enumerate(losses)]


def test_a_loss_that_never_moved_is_a_warning() -> None:
    (still,) = loss_warnings(rows_of([2.0, 2.001, 2.0]))
    assert "0.1 % in 30 steps" in still
    assert loss_warnings(rows_of([2.0, 2.01, 2.0])) == []
    assert loss_warnings(rows_of([2.0])) == [] and loss_warnings([]) == []
    (box,) = loss_warnings(rows_of([2.0], box=0.0))
    assert box.startswith("the box loss was 0 in all 10 steps")


OLD: dict[str, Any] = {
    "identity": {},
    "code_digest": "",
    "steps": 3,
    "bundle": "b",
    "seconds": 1.0,
    "resumed_at": [],
}


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / RESULT_NAME).write_text(json.dumps(OLD))
    result = read_result(Place.of(tmp_path).store)
    assert result.warnings == () and result.anchor_recall is None
