from __future__ import annotations

import re

import pytest

from kubeyolo.errors import InputError
from kubeyolo.models.registry import model_facts
from kubeyolo.weights.names import from_layout, is_no_weight, layers_of, layouts_of, to_layout
from tests import golden

CASES = [case for case in golden.model_cases() if re.fullmatch(r"yolov5_v(5\.0|7)_[nsmlx]", case)]


@pytest.mark.parametrize("case", golden.case_parameters(CASES))
def test_every_upstream_name_goes_there_and_back(case: str) -> None:
    release, letter = case.split("_")[1:]
    facts = model_facts(f"yolov5{letter}" + ("-r7" if release == "v7" else ""))
    upstream = [name for name, _ in golden.read_json(case, "names.json")]
    ours = [from_layout(name, facts, "yolov5") for name in upstream]
    assert len(set(ours)) == len(upstream)
    assert [to_layout(name or "", facts, "yolov5") for name in ours] == upstream
    assert {(name or "").split(".")[0] for name in ours} == {"backbone", "neck", "head"}


def test_names_of_other_programs_stay_as_they_are() -> None:
    facts = model_facts("yolov5n-r7")
    for name in ("conv1.weight", "model.99.conv.weight", "model.x.conv.weight", "model.0", "backbone.stem.conv.weight"):
        assert from_layout(name, facts, "yolov5") == name
    assert to_layout("classifier.weight", facts, "yolov5") == "classifier.weight"


def test_counters_anchors_and_optimizer_state_are_no_weights() -> None:
    for name in ("model.0.bn.num_batches_tracked", "model.24.anchors", "moments.head.m.0.bias", "learning_rate"):
        assert is_no_weight(name)
        assert from_layout(name, model_facts("yolov5n-r7"), "yolov5") is None
    assert not is_no_weight("model.0.bn.weight")


def test_unknown_layouts_are_refused() -> None:
    facts = model_facts("yolov5n-r7")
    assert layouts_of(facts) == ("yolov5",)
    with pytest.raises(InputError, match="unknown weight layout 'yolo5'; did you mean 'yolov5'"):
        layers_of(facts, "yolo5")
    with pytest.raises(InputError, match="model 'yolov5n-r7' has no weights in layout 'darknet'; it has: yolov5"):
        layers_of(facts, "darknet")
