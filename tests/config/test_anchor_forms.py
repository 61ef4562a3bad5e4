"""Anchors as people write them, on the command line and in the form."""

from __future__ import annotations

import json

import pytest

from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.form import fill_form, resolve_form
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError

LEVELS = ((10.0, 13.0, 16.0, 30.0), (33.0, 23.0, 30.0, 61.0))
ONE_LIST = ((10.0, 13.0, 16.0, 30.0, 33.0, 23.0, 30.0, 61.0),)


def anchors_of(text: str) -> tuple[tuple[float, ...], ...]:
    return load_config(sets=[f"train.anchors={text}"]).train.anchors


@pytest.mark.parametrize(
    "text",
    [
        "[[10,13, 16,30], [33,23, 30,61]]",
        "[[10, 13, 16, 30], [33, 23, 30, 61.0]]",
        "[[[10,13],[16,30]], [[33,23],[30,61]]]",
        "[[(10, 13), (16, 30)], [(33, 23), (30, 61)]]",
        "'[[10,13, 16,30], [33,23, 30,61]]'",
        '"[[(10,13), (16,30)], [(33,23), (30,61)]]"',
        "['10,13, 16,30', '33,23, 30,61']",
    ],
)
def test_a_list_for_each_level(text: str) -> None:
    assert anchors_of(text) == LEVELS


@pytest.mark.parametrize(
    "text",
    [
        "[10,13, 16,30, 33,23, 30,61]",
        "10,13,  16,30,  33,23,  30,61",
        "10,13 16,30 33,23 30,61",
        "[[10,13], [16,30], [33,23], [30,61]]",
        "[(10, 13), (16, 30), (33, 23), (30, 61)]",
        "['10,13', '16,30', '33,23', '30,61']",
        "[[10,13, 16,30, 33,23, 30,61]]",
    ],
)
def test_one_list_of_all(text: str) -> None:
    assert anchors_of(text) == ONE_LIST


@pytest.mark.parametrize("text", ["", "[]", "null"])
def test_nothing_is_the_models_own(text: str) -> None:
    assert anchors_of(text) == ()


def test_the_form_of_a_pipeline_takes_the_same_and_keeps_it() -> None:
    text = "train: {anchors: [[10,13, 16,30], [33,23, 30,61]]}"
    config = resolve_form({"settings": text}).config
    assert config.train.anchors == LEVELS
    assert Config.model_validate_json(config.model_dump_json()) == config
    filled = fill_form(["settings", "model"], sets=["train.anchors=10,13,16,30,33,23,30,61"])
    assert resolve_form(filled).config.train.anchors == ONE_LIST
    assert json.loads(filled["settings"])["train"]["anchors"] == "10,13,16,30,33,23,30,61"


@pytest.mark.parametrize(
    "text",
    ["3", "true", "word", "[10, x]", "[10, -13]", "[0, 3]", "[9000, 3]", "[10, [13]]", "[[10, 13], 5]", "[[], [1, 2]]"],
)
def test_what_is_no_list_of_sizes_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(InputError, match=r"^train\.anchors = .*from --set.*widths and heights.*\[\[10,13, 16,30"):
        anchors_of(text)


def test_numbers_that_are_not_finite_are_refused() -> None:
    for text, reason in {
        "[10, .nan]": ".nan is not a finite number",
        "[10, .inf]": ".inf is not a finite number",
        "[1e400, 1]": "1e400 is too large",
    }.items():
        with pytest.raises(InputError) as refused:
            anchors_of(text)
        assert str(refused.value) == f"--set 'train.anchors={text}': not JSON or YAML: {reason}"


def test_the_text_of_anchors_is_read_back() -> None:
    levels = (((10.0, 13.5), (16.0, 30.0)), ((33.0, 23.0), (30.0, 61.0)))
    assert anchors_text(levels) == "[[10,13.5, 16,30], [33,23, 30,61]]"
    assert anchors_of(anchors_text(levels)) == ((10.0, 13.5, 16.0, 30.0), LEVELS[1])
