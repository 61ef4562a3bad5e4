"""A training on different numbers of devices."""

from __future__ import annotations

import math

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.estimate.devices import DEVICES
from kubeyolo.estimate.run import estimate_run
from kubeyolo.estimate.scaling import scaling
from kubeyolo.models.named_facts import model_facts

IMAGES = {"train": 118_287, "val": 5000}
FACTS = model_facts("yolov4")
CONFIG = load_config("yolov4", sets=["data.workers=12", "train.image_size=416"])


def test_more_devices_are_faster_and_less_efficient() -> None:
    rows = scaling(FACTS, CONFIG, IMAGES, [1, 8, 64, 512], DEVICES["Ascend910"])
    assert [(row.devices, row.machines) for row in rows] == [(1, 1), (8, 1), (64, 8), (512, 64)]
    speeds, times = [row.images_per_second for row in rows], [row.training_seconds for row in rows]
    assert speeds == sorted(speeds) and times == sorted(times, reverse=True)
    efficiencies = [row.efficiency for row in rows]
    assert efficiencies[0] == 1 and efficiencies == sorted(efficiencies, reverse=True)
    batch = CONFIG.train.per_batch_size
    for row in rows:
        assert row.images_per_step == row.devices * batch
        assert row.images_per_second == pytest.approx(row.images_per_step / row.step.total)
        assert row.epoch_seconds == pytest.approx(math.ceil(118_287 / row.images_per_step) * row.step.total)
        assert row.training_seconds > CONFIG.train.max_epoch * row.epoch_seconds


def test_the_plan_of_a_run_has_the_same_numbers() -> None:
    [row] = scaling(FACTS, CONFIG, IMAGES, [64], DEVICES["Ascend910B"])
    train = CONFIG.train.model_copy(update={"processes": 64, "device_target": "Ascend"})
    planned = estimate_run(
        FACTS, CONFIG.model_copy(update={"train": train}), IMAGES, nodes=8, cores=192, device=DEVICES["Ascend910B"]
    )
    assert planned.seconds["train"] == row.training_seconds
    assert planned.step == row.step


def test_a_newer_device_is_faster_and_processors_are_slower() -> None:
    [old], [new], [cpu] = (
        scaling(FACTS, CONFIG, IMAGES, [8], device, cores=192)
        for device in (DEVICES["Ascend910"], DEVICES["Ascend910B"], None)
    )
    assert new.images_per_second > old.images_per_second > cpu.images_per_second
    assert (cpu.device, cpu.machines) == ("CPU", 1)
    assert new.host_memory < cpu.host_memory
