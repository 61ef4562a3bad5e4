from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.config.load import load_config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.schedules import (
    Schedule,
    build_schedule,
    cosine_factor,
    ema_decay,
    exponential_factor,
    linear_factor,
    warmup_steps,
)
from tests import golden

PROGRAMS = ("scaledyolov4", "yolov5")


def programs() -> list[Any]:
    """Return one parameter for each file."""
    files = sorted(path.stem for path in (golden.golden_folder() / "schedule").glob("*.json"))
    return golden.case_parameters(files, "schedule")


def cases() -> list[Any]:
    """Return one parameter for each schedule of each file."""
    files = sorted((golden.golden_folder() / "schedule").glob("*.json"))
    found = [f"{path.stem}-{name}" for path in files for name in golden.read_json("schedule", path.name)["configs"]]
    return golden.case_parameters(found, "schedule")


def read_program(program: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    assert program, f"{golden.golden_folder()} holds no schedule"
    assert program in PROGRAMS, f"unknown golden case schedule/{program}"
    return golden.read_json("schedule", f"{program}.json"), golden.read_arrays("schedule", f"{program}.npz")


def golden_schedule(program: str, name: str, facts: dict[str, Any]) -> Schedule:
    shape = {"linear": linear_factor, "cosine": cosine_factor}[name.rpartition("_")[2]]
    least = 100 if program == "yolov5" else 1000
    return Schedule(
        steps_per_epoch=facts["nb"],
        lr=facts["hyp"]["lr0"],
        factor=functools.partial(shape, epochs=facts["epochs"], final=facts["lrf"]),
        warmup=warmup_steps(facts["nb"], 3.0, least),
        warmup_bias_lr=facts["warmup_bias_lr"],
        momentum=facts["hyp"]["momentum"],
        warmup_momentum=facts["warmup_momentum"],
    )


@pytest.mark.parametrize("case", cases())
def test_golden_schedules_are_matched_step_by_step(case: str) -> None:
    program, _, name = case.partition("-")
    meta, arrays = read_program(program)
    facts = meta["configs"][name]
    groups = ("bias", "weight", "norm") if program == "yolov5" else ("norm", "weight", "bias")
    schedule = golden_schedule(program, name, facts)
    assert schedule.warmup == facts["nw"]
    assert [schedule.factor(epoch) for epoch in range(facts["epochs"])] == pytest.approx(facts["lf"], abs=1e-12)
    steps = range(facts["epochs"] * facts["nb"])
    rates = [schedule.at(step) for step in steps]
    lr = np.array([[getattr(rate, group) for group in groups] for rate in rates])
    np.testing.assert_allclose(lr, arrays[f"{name}_lr"], rtol=0, atol=1e-9)
    momentum = np.array([[rate.momentum] * 3 for rate in rates])
    np.testing.assert_allclose(momentum, arrays[f"{name}_momentum"], rtol=0, atol=1e-9)
    expected = arrays[f"{name}_ema_decay"]
    got = [ema_decay(update + 1, 0.9999, 2000.0) for update in range(len(expected))]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("program", programs())
def test_golden_ema_decays_are_matched(program: str) -> None:
    meta, _ = read_program(program)
    assert meta["configs"], f"schedule/{program} holds no schedule"
    for update, expected in meta["ema_decay_of_update"].items():
        assert ema_decay(int(update), 0.9999, 2000.0) == pytest.approx(expected, abs=1e-12)


def test_the_exponential_scheduler_multiplies_at_its_epochs_without_lag() -> None:
    assert [exponential_factor(epoch, (2, 4), 0.1) for epoch in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    config = TrainConfig(lr=0.5, lr_scheduler="exponential", lr_epochs=(2,), warmup_epochs=0)
    schedule = build_schedule(config, steps_per_epoch=10)
    assert [schedule.at(step).weight for step in (0, 19, 20)] == pytest.approx([0.5, 0.5, 0.05])


def test_no_warmup_epochs_means_no_warmup_whatever_the_least_number_of_steps() -> None:
    assert warmup_steps(10, 0, 100) == 0
    assert warmup_steps(10, 3, 100) == 100
    assert warmup_steps(50, 3, 100) == 150
    schedule = build_schedule(TrainConfig(warmup_epochs=0, lr=0.02), steps_per_epoch=7)
    assert schedule.at(0).bias == pytest.approx(0.02)
    assert schedule.at(0).momentum == pytest.approx(0.937)


def test_adamw_does_not_start_its_biases_above_the_peak() -> None:
    schedule = build_schedule(TrainConfig(optimizer="adamw", lr=0.001), steps_per_epoch=100)
    assert max(schedule.at(step).bias for step in range(400)) <= 0.001


def published(model: str, steps_per_epoch: int, *sets: str) -> Schedule:
    return build_schedule(load_config(model, sets=[f"train.{each}" for each in sets]).train, steps_per_epoch)


def as_logged(rate: float) -> str:
    """Write a rate as the model zoo's programs do, which keep rates in single precision."""
    return f"{np.float32(rate):.7e}"


def test_published_points_of_the_model_zoo_are_exact() -> None:
    schedule = published("yolov4", 14658, "lr=0.012", "warmup_epochs=4", "lr_scheduler=cosine_annealing")
    assert as_logged(schedule.at(0).weight) == "2.0466639e-07"
    # The last step of the warm-up has the full rate; the cosine then goes on as if there had been no warm-up.
    assert schedule.at(4 * 14658 - 1).weight == pytest.approx(0.012, rel=1e-12)
    after = 0.012 * (1 + np.cos(np.pi * 4 / 320)) / 2
    assert schedule.at(4 * 14658).weight == pytest.approx(after, rel=1e-12)
    assert as_logged(published("yolov4", 1832, "lr=0.012", "warmup_epochs=20").at(1000).weight) == "3.2783844e-04"
    quant = published("yolov3-quant", 646, "lr_scheduler=cosine_annealing", "warmup_epochs=5")
    last = quant.at(135 * 646 - 1)
    assert last.weight == quant.at(134 * 646).weight  # published as 1.6245e-6, cut off
    assert as_logged(last.weight) == "1.6245530e-06"


def test_quantization_holds_every_rate_at_zero_while_it_calibrates() -> None:
    schedule = published("yolov3-quant", 10, "warmup_epochs=5")
    rates = [schedule.at(step) for step in range(51)]
    assert {(rate.bias, rate.weight, rate.norm, rate.momentum) for rate in rates[:50]} == {(0.0, 0.0, 0.0, 0.9)}
    assert rates[50].bias == rates[50].weight == rates[50].norm == 0.012
    # Its published defaults have no warm-up, and an exponential scheduler.
    default = published("yolov3-quant", 10)
    points = [default.at(10 * epoch).weight for epoch in (0, 91, 92, 104, 105, 134)]
    assert points == pytest.approx([0.012, 0.012, 0.0012, 0.0012, 0.00012, 0.00012], rel=1e-12)


def test_annealing_falls_to_its_lowest_rate_at_t_max_and_rises_after_it() -> None:
    annealed = ("lr_scheduler=cosine_annealing", "lr=0.1", "eta_min=0.02", "t_max=10")
    schedule = published("yolov4", 5, *annealed)
    assert [schedule.at(5 * epoch).weight for epoch in (0, 5, 10, 15)] == pytest.approx([0.1, 0.06, 0.02, 0.06])
    # Per epoch, without a lag: all steps of an epoch have one rate.
    assert [schedule.at(step).weight for step in range(25, 30)] == [schedule.at(25).weight] * 5
    # The length of the training does not change it.
    shorter = published("yolov4", 5, *annealed, "max_epoch=9")
    assert all(shorter.at(step) == schedule.at(step) for step in range(80))


def test_a_linear_warmup_rises_with_the_first_step_in_all_groups() -> None:
    schedule = published("yolov4", 4, "lr=0.8", "warmup_epochs=2", "warmup_bias_lr=0.5", "lr_epochs=[3]")
    rates = [schedule.at(step) for step in range(13)]
    assert [rate.weight for rate in rates] == pytest.approx([*(0.1 * n for n in range(1, 9)), *[0.8] * 4, 0.08])
    assert all(rate.bias == rate.weight == rate.norm and rate.momentum == 0.9 for rate in rates)


def test_one_cycle_is_what_it_was_without_the_keys_of_the_model_zoo() -> None:
    config = load_config("yolov4-csp").train
    assert (config.warmup, config.t_max, config.eta_min) == ("one_cycle", 0, 0.0)
    assert TrainConfig().warmup == "one_cycle" and TrainConfig().t_max == 0
    schedule = build_schedule(TrainConfig(lr_scheduler="cosine_annealing", eta_min=0.005), 50)
    epochs, final = 300, 0.01
    # The warm-up ends in epoch 3, which keeps its factor; then the factor lags by an epoch.
    expected = [0.01 * cosine_factor(epoch, epochs, final) for epoch in (3, 3, 4, 298)]
    assert [schedule.at(50 * epoch + 1).weight for epoch in (3, 4, 5, 299)] == expected
