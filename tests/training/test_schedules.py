from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.config.schema import TrainConfig
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
