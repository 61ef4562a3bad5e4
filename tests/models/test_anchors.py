"""Anchors in place of a model's own: as many, in pixels, and in the order of its levels."""

from __future__ import annotations

import re

import pytest

from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.named_facts import model_facts, model_names

MODEL = "yolov5n-r7"
SORTED = list(range(2, 20))
"""Nine anchors from small to large."""


def anchors_of(value: object, model: str = MODEL) -> object:
    return trained_facts(load_config(model, sets=[f"train.anchors={value}"])).anchors


@pytest.mark.parametrize("model", model_names())
def test_the_models_own_anchors_may_be_written_out(model: str) -> None:
    own = model_facts(model)
    assert anchors_of(anchors_text(own.anchors), model) == own.anchors
    assert trained_facts(load_config(model)) is own


def test_one_list_is_cut_into_the_levels() -> None:
    anchors = anchors_of(SORTED)
    assert anchors == (
        ((2.0, 3.0), (4.0, 5.0), (6.0, 7.0)),
        ((8.0, 9.0), (10.0, 11.0), (12.0, 13.0)),
        ((14.0, 15.0), (16.0, 17.0), (18.0, 19.0)),
    )
    assert anchors_of([SORTED[:6], SORTED[6:12], SORTED[12:]]) == anchors


def test_levels_may_overlap_and_a_level_has_any_order() -> None:
    levels = [[30, 30, 2, 3, 4, 4], [8, 9, 40, 40, 10, 9], [20, 20, 60, 60, 30, 30]]
    assert anchors_of(levels)[0][0] == (30.0, 30.0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (SORTED[:-2], ["these are 16 numbers", "yolov5n-r7 has 3 levels of 3 anchors, 18 numbers"]),
        ([*SORTED, 20], ["these are 19 numbers"]),
        ([SORTED[:9], SORTED[9:]], ["these are 2 lists", "3 levels"]),
        ([SORTED[:6], SORTED[6:12], SORTED[12:16]], ["list 3 has 4 numbers"]),
        ([side / 100 for side in SORTED], ["train.anchors = [0.02, 0.03", "no side is longer than 1 pixel", "pixels"]),
        (
            [SORTED[12:], SORTED[6:12], SORTED[:6]],
            ["finest (stride 8)", "coarsest (stride 32)", "[[2,3, 4,5, 6,7], [8,9, 10,11, 12,13], [14,15"],
        ),
        ([*SORTED[2:], *SORTED[:2]], ["small to large", "[2,3, 4,5, 6,7, 8,9"]),
    ],
)
def test_anchors_that_do_not_fit_the_model_are_refused(value: object, words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        anchors_of(value)
    message = str(refused.value)
    assert message.startswith("train.anchors = [") and "\n" not in message
    assert all(word in message for word in words), message


def test_what_is_to_be_typed_instead_is_taken() -> None:
    for value in ([SORTED[12:], SORTED[:6], SORTED[6:12]], [*SORTED[2:], *SORTED[:2]]):
        with pytest.raises(InputError) as refused:
            anchors_of(value)
        meant = re.search(r"(?:they are|it is) (\[.*\])$", str(refused.value))
        assert meant and anchors_of(meant[1]) == anchors_of(SORTED)


def test_models_with_other_levels_take_as_many_as_they_have() -> None:
    tiny = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
    assert anchors_of(tiny, "yolov4-tiny")[1][2] == (344.0, 319.0)  # type: ignore[index]
    with pytest.raises(InputError, match="yolov4-p6 has 4 levels of 4 anchors, 32 numbers"):
        anchors_of(tiny, "yolov4-p6")
