"""Names, facts, and refusal of what cannot be built."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mindspore import nn

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import check_batch_norm, check_precision, model_facts, model_names
from kubeyolo.models.registry import build_model


def test_all_detectors_of_the_catalogue_are_registered() -> None:
    yolov5 = {f"yolov5{letter}" for letter in "smlx"} | {f"yolov5{letter}-r7" for letter in "nsmlx"}
    darknet = {"yolov3", "yolov3-quant", "yolov4", "yolov4-tiny", "yolov4-csp"}
    assert set(model_names()) == yolov5 | darknet | {"yolov4-p5", "yolov4-p6", "yolov4-p7"}


def test_the_eps_of_batch_normalization_can_be_that_of_another_program() -> None:
    network = build_model("yolov4-tiny", 2, bn_eps=1e-4)
    assert network.facts.bn_eps == 1e-4
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-4} and len(norms) == 19
    assert build_model("yolov5n-r7", 2, bn_eps=1e-3).facts.bn_eps == 1e-3
    with pytest.raises(InputError, match="'yolov5n-r7': bn_eps is 0.0001, must be 0.001 for this family"):
        build_model("yolov5n-r7", 2, bn_eps=1e-4)
    with pytest.raises(InputError, match="bn_eps is 0, must be between 0 and 1"):
        build_model("yolov4-tiny", 2, bn_eps=0)


@pytest.mark.parametrize("name", model_names())
def test_facts_fit_together(name: str) -> None:
    facts = model_facts(name)
    assert facts.name == name
    assert len(facts.anchors) == len(facts.strides) == len(facts.scale_xy)
    assert list(facts.strides) == sorted(facts.strides)
    assert {len(level) for level in facts.anchors} == {facts.anchors_per_level}
    assert facts.image_size % facts.strides[-1] == 0
    assert all(0 < result.ap < 1 for result in facts.published)


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown model 'yolov5n-r8'; did you mean 'yolov5n-r7'"):
        model_facts("yolov5n-r8")


def test_one_value_for_each_channel_is_refused_with_what_to_raise() -> None:
    def config(model: str, section: str, size: int, batch: int) -> Config:
        return Config.model_validate({"model": model, section: {"image_size": size, "per_batch_size": batch}})

    words = r"image_size = 32: .*yolov5n-r7 is then one cell.*pretrain\.per_batch_size to 2.*image_size to 64 or more"
    with pytest.raises(InputError, match=words):
        check_batch_norm(config("yolov5n-r7", "pretrain", 32, 1), "pretrain")
    # A map of 96 pixels at stride 128 is one cell, of 160 two a side.
    with pytest.raises(InputError, match=r"pretrain\.image_size to 160 or more"):
        check_batch_norm(config("yolov4-p7", "pretrain", 96, 1), "pretrain")
    with pytest.raises(InputError, match=r"train\.per_batch_size to 2.*train\.image_size to 256 or more"):
        check_batch_norm(config("yolov4-p7", "train", 128, 1), "train")
    check_batch_norm(config("yolov4-p7", "pretrain", 160, 1), "pretrain")
    check_batch_norm(config("yolov4-p7", "train", 256, 1), "train")
    check_batch_norm(config("yolov5n-r7", "pretrain", 64, 1), "pretrain")
    check_batch_norm(config("yolov5n-r7", "pretrain", 32, 2), "pretrain")
    check_batch_norm(config("yolov5n-r7", "train", 64, 1), "train")


def test_bfloat16_is_refused_on_a_cpu() -> None:
    values = {"precision": "bfloat16", "device_target": "CPU"}
    with pytest.raises(InputError, match=r"precision = bfloat16: .* no kernels .*; set train\.precision to float32"):
        check_precision(Config.model_validate({"train": values}))
    for change in ({"device_target": "Ascend"}, {"precision": "float16"}, {"precision": "auto"}):
        check_precision(Config.model_validate({"train": {**values, **change}}))


def test_facts_are_read_without_mindspore() -> None:
    code = (
        "import sys; from kubeyolo.models.named_facts import model_facts; model_facts('yolov5s');"
        "import kubeyolo.weights; sys.exit('mindspore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([[[1, 2]] * 3] * 2, "must be 3 levels of 3"),
        ([[[1, 2]] * 4] * 3, "must be 3 levels of 3"),
        ([[[1, 2, 3]] * 3] * 3, "must be 3 levels of 3"),
        ([[[1, 0]] * 3] * 3, "must be larger than 0"),
    ],
)
def test_anchors_of_another_shape_are_refused(anchors: list[list[list[float]]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model("yolov5n-r7", 3, anchors=anchors)


def test_own_anchors_are_kept() -> None:
    network = build_model("yolov5n-r7", 3, anchors=[[[1, 2]] * 3, [[3, 4]] * 3, [[5, 6]] * 3])
    assert network.facts.anchors[2] == ((5.0, 6.0),) * 3
    assert model_facts("yolov5n-r7").anchors[2][0] == (116.0, 90.0)


def test_a_model_without_classes_is_refused() -> None:
    with pytest.raises(InputError, match="num_classes is 0"):
        build_model("yolov5n-r7", 0)
