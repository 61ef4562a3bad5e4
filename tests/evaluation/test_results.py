from __future__ import annotations

import pytest

from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import COCO_NUMBERS, ClassResult, EvaluationResult


def result(**numbers):
    values = {number.key: 0.1234 for number in COCO_NUMBERS} | numbers
    return EvaluationResult(
        numbers=values,
        per_class=[ClassResult(name="disc", AP=0.5, AP50=None, images=2, boxes=3)],
        curves={"disc": [1.0] * 101},
        split="val",
    )


def test_words_are_those_of_pycocotools():
    lines = result(AP=0.5045, AR1=0.3868, APs=None).words().splitlines()
    assert len(lines) == 12
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.504"
    assert lines[1] == " Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.123"
    assert lines[3] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = -1.000"
    assert lines[6] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.387"
    assert lines[11] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.123"


def test_json_round_trip_keeps_missing_numbers():
    before = result(APl=None)
    text = before.to_json()
    assert '"APl": null' in text
    assert EvaluationResult.from_json(text) == before


def test_other_json_is_refused():
    with pytest.raises(InputError, match="not an evaluation result: numbers: Field required"):
        EvaluationResult.from_json('{"AP": 1}')
