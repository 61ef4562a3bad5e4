"""Weights that grew far beyond where they began are warned of, whatever the loss is; healthy ones never."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.load import load_config
from kubeyolo.config.training_schema import PretrainConfig, TrainConfig
from kubeyolo.models.registry import build_model
from kubeyolo.training.growth import FACTOR, growth_warnings, usual_sizes, weight_sizes
from tests.training.test_engine import small_engine, trained

pytestmark = pytest.mark.usefixtures("mindspore_ready")


def scaled(network: Any, name: str, factor: float) -> None:
    from mindspore import Tensor

    parameter = next(each for each in network.get_parameters() if each.name == name)
    parameter.set_data(Tensor((parameter.asnumpy() * np.float32(factor)).astype(np.float32)))


@pytest.fixture(scope="module")
def detector(mindspore_ready: None) -> Any:
    return build_model("yolov5n-r7", 3)


def test_fresh_weights_are_of_the_size_they_are_drawn_with(detector: Any) -> None:
    sizes, usual = weight_sizes(detector), usual_sizes(detector)
    assert sizes.keys() == usual.keys() and not any("moving" in name for name in sizes)
    stem = sizes["backbone.stem.conv.weight"]
    assert stem == pytest.approx(1 / math.sqrt(3 * 3 * 6 * 6), rel=0.05)
    convolutions = [name for name in sizes if name.endswith("conv.weight")]
    assert len(convolutions) > 50
    assert all(usual[name] == pytest.approx(sizes[name], rel=0.1) for name in convolutions)


def test_a_parameter_that_has_grown_is_named_with_both_numbers_and_the_rate(detector: Any) -> None:
    before = usual_sizes(detector)
    after = {**weight_sizes(detector), "backbone.stem.conv.weight": 83.0, "head.m.0.bias": 500.0}
    (line,) = growth_warnings(before, after, TrainConfig(lr=10))
    at_start = before["backbone.stem.conv.weight"]
    assert (
        f"backbone.stem.conv.weight {83 / at_start:.3g} times (root mean square 83, at the start {at_start:.3g})"
        in line
    )
    assert f"and 2 of {len(before)} parameters at least 30 times" in line
    assert "train.lr = 10" in line and "--set train.lr=0.01" in line


@pytest.mark.parametrize(("factor", "warns"), [(0.9 * FACTOR, False), (1.1 * FACTOR, True)])
def test_the_factor_is_where_it_begins(detector: Any, factor: float, warns: bool) -> None:
    before = usual_sizes(detector)
    after = {name: factor * size for name, size in before.items()}
    assert bool(growth_warnings(before, after, TrainConfig())) is warns


def test_weights_that_began_next_to_0_may_grow_to_where_fresh_ones_begin(mindspore_ready: None) -> None:
    detector = build_model("yolov5n-r7", 3)
    fresh = weight_sizes(detector)
    for name in ("backbone.stem.conv.weight", "backbone.stem.bn.beta"):
        scaled(detector, name, 1e-6)
    assert growth_warnings(usual_sizes(detector), fresh, TrainConfig()) == []


@pytest.mark.parametrize(
    ("section", "remedy"),
    [
        (TrainConfig(weight_decay=0), "= 0: train again into a different output with --set train.weight_decay=0.0005"),
        (TrainConfig(lr=0.01), "--set train.lr=0.001"),
        (TrainConfig(lr=0.01, optimizer="adamw"), "--set train.lr=0.001"),
        (TrainConfig(lr=3, weight_decay=0), "--set train.lr=0.01"),
        (PretrainConfig(lr=0.5), "pretrain.lr = 0.5: train again into a different output with --set pretrain.lr=0.001"),
    ],
)
def test_the_remedy_is_a_setting_that_is_allowed(section: TrainConfig | PretrainConfig, remedy: str) -> None:
    (line,) = growth_warnings({"w": 0.1}, {"w": 10.0}, section)
    assert remedy in line
    setting = line.rpartition("--set ")[2]
    load_config("yolov5n-r7", sets=[setting])


def test_a_healthy_training_is_not_warned_of() -> None:
    engine = small_engine()
    before = usual_sizes(engine.network)
    trained(engine, 6)
    assert growth_warnings(before, weight_sizes(engine.network), TrainConfig()) == []


def test_a_training_that_diverges_with_a_finite_loss_is_noticed_also_when_it_was_resumed() -> None:
    engine = small_engine(lr=100.0)
    before = usual_sizes(engine.network)
    assert np.isfinite(trained(engine, 6)).all()
    (line,) = growth_warnings(before, weight_sizes(engine.network), TrainConfig(lr=100.0))
    # The names are those of the bundle, though an optimizer gives its own to the parameters.
    assert re.search(r"at the start: \d\.\w+ \d", line)
    resumed = small_engine(lr=100.0)
    before = usual_sizes(resumed.network)
    resumed.restore(engine.capture({}))
    assert growth_warnings(before, weight_sizes(resumed.network), TrainConfig(lr=100.0)) == [line]
