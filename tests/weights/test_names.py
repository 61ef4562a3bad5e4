from __future__ import annotations

import pytest

from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.weights.names import from_layout, is_weight, layers_of, layouts_of, to_layout
from kubeyolo.weights.network_parameters import NetworkParameters
from tests import golden

CASES = golden.model_cases()
CFG_CASES = [case for case in CASES if case.startswith("darknet_")]


@pytest.mark.parametrize("case", golden.case_parameters(CASES))
def test_every_golden_name_goes_there_and_back(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no model case"
    facts = model_facts(golden.model_of(case))
    (layout,) = layouts_of(facts)
    upstream = [name for name, _ in golden.read_json(case, "names.json")]
    ours = [from_layout(name, facts, layout) for name in upstream]
    assert len(set(ours)) == len(upstream)
    assert [to_layout(name or "", facts, layout) for name in ours] == upstream
    assert {(name or "").split(".")[0] for name in ours} == {"backbone", "neck", "head"}


@pytest.mark.parametrize("case", golden.case_parameters(CFG_CASES))
def test_the_convolutions_of_a_weights_file_are_in_the_golden_order_of_the_cfg_file(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no model case"
    facts = model_facts(golden.model_of(case))
    shapes = {
        from_layout(name, facts, "darknet") or "": tuple(shape) for name, shape in golden.read_json(case, "names.json")
    }
    network = NetworkParameters(facts, golden.read_json(case, "meta.json")["nc"], shapes)
    wanted = [
        (name.removesuffix(".conv.weight"), tuple(shape))
        for name, shape in golden.read_json(case, "names.json")
        if name.endswith(".conv.weight")
    ]
    convolutions = network.darknet_convolutions()
    assert [(convolution.name, convolution.shape) for convolution in convolutions] == wanted
    outputs = [convolution.name for convolution in convolutions if convolution.anchors]
    assert outputs == [f"layer{layer:03d}" for layer in golden.read_json(case, "meta.json")["head_conv_layers"]]
    # A file of the backbone alone is the beginning of the whole.
    assert network.backbone().darknet_convolutions() == convolutions[: len(network.backbone().darknet_convolutions())]


def test_names_of_cfg_modules_are_those_of_cfg_layers() -> None:
    facts = model_facts("yolov4-csp")
    for theirs, ours in {
        "module_list.0.Conv2d.weight": "backbone.stem.conv.weight",
        "module_list.9.BatchNorm2d.running_var": "backbone.stage.0.m.0.cv1.bn.moving_variance",
        "module_list.143.Conv2d.bias": "head.m.0.bias",
        "module_list.7.Conv2d.weight": "module_list.7.Conv2d.weight",
    }.items():
        assert from_layout(theirs, facts, "darknet") == ours
    assert from_layout("module_list.0.BatchNorm2d.num_batches_tracked", facts, "darknet") is None


def test_names_of_other_programs_stay_as_they_are() -> None:
    facts = model_facts("yolov5n-r7")
    for name in ("conv1.weight", "model.99.conv.weight", "model.x.conv.weight", "model.0", "backbone.stem.conv.weight"):
        assert from_layout(name, facts, "yolov5") == name
    assert to_layout("classifier.weight", facts, "yolov5") == "classifier.weight"


def test_counters_anchors_and_optimizer_state_are_not_weights() -> None:
    for name in ("model.0.bn.num_batches_tracked", "model.24.anchors", "moments.head.m.0.bias", "learning_rate"):
        assert not is_weight(name)
        assert from_layout(name, model_facts("yolov5n-r7"), "yolov5") is None
    assert is_weight("model.0.bn.weight")


def test_unknown_layouts_are_refused() -> None:
    facts = model_facts("yolov5n-r7")
    assert layouts_of(facts) == ("yolov5",)
    with pytest.raises(InputError, match="unknown weight layout 'yolo5'; did you mean 'yolov5'"):
        layers_of(facts, "yolo5")
    with pytest.raises(InputError, match="model 'yolov5n-r7' has no weights in layout 'darknet'; it has: yolov5"):
        layers_of(facts, "darknet")
