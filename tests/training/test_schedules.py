from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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

CASES = ["scaledyolov4", "yolov5"]


def golden_schedule(case: str, name: str, facts: dict[str, Any]) -> Schedule:
    shape = linear_factor if name.endswith("linear") else cosine_factor
    least = 100 if case == "yolov5" else 1000
    return Schedule(
        steps_per_epoch=facts["nb"],
        lr=facts["hyp"]["lr0"],
        factor=functools.partial(shape, epochs=facts["epochs"], final=facts["lrf"]),
        warmup=warmup_steps(facts["nb"], 3.0, least),
        warmup_bias_lr=facts["warmup_bias_lr"],
        momentum=facts["hyp"]["momentum"],
        warmup_momentum=facts["warmup_momentum"],
    )


@pytest.mark.parametrize("case", CASES)
def test_golden_schedules_are_matched_step_by_step(golden_dir: Path, case: str) -> None:
    folder = golden_dir / "schedule"
    unknown = sorted({path.stem for path in folder.glob("*.json")} - set(CASES))
    assert not unknown, f"unknown golden schedules: {unknown}"
    meta = json.loads((folder / f"{case}.json").read_text())
    arrays = np.load(folder / f"{case}.npz")
    assert meta["configs"], "a golden file without cases"
    groups = ("bias", "weight", "norm") if case == "yolov5" else ("norm", "weight", "bias")
    for name, facts in meta["configs"].items():
        schedule = golden_schedule(case, name, facts)
        assert schedule.warmup == facts["nw"]
        assert [schedule.factor(epoch) for epoch in range(facts["epochs"])] == pytest.approx(facts["lf"], abs=1e-12)
        steps = range(facts["epochs"] * facts["nb"])
        rates = [schedule.at(step) for step in steps]
        lr = np.array([[getattr(rate, group) for group in groups] for rate in rates])
        np.testing.assert_allclose(lr, arrays[f"{name}_lr"], rtol=0, atol=1e-9)
        momentum = np.array([[rate.momentum] * 3 for rate in rates])
        np.testing.assert_allclose(momentum, arrays[f"{name}_momentum"], rtol=0, atol=1e-9)
        accumulate = [schedule.accumulate(step, facts["batch_size"]) for step in steps]
        np.testing.assert_array_equal(accumulate, arrays[f"{name}_accumulate"])


@pytest.mark.parametrize("case", CASES)
def test_golden_ema_decays_are_matched(golden_dir: Path, case: str) -> None:
    meta = json.loads((golden_dir / "schedule" / f"{case}.json").read_text())
    arrays = np.load(golden_dir / "schedule" / f"{case}.npz")
    for update, expected in meta["ema_decay_of_update"].items():
        assert ema_decay(int(update), 0.9999, 2000.0) == pytest.approx(expected, abs=1e-12)
    for name in meta["configs"]:
        expected = arrays[f"{name}_ema_decay"]
        got = [ema_decay(update + 1, 0.9999, 2000.0) for update in range(len(expected))]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


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
