"""Settings that a training is too short for are named, with both numbers and a value that works."""

from __future__ import annotations

import re

import pytest

from kubeyolo.config.load import load_config, preset_names
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.reach import MOST_FRESH, fresh_share, idle_warnings, reach_warnings
from kubeyolo.training.schedules import ema_decay


@pytest.mark.parametrize(
    ("updates", "decay", "tau"), [(1, 0.9999, 2000), (6, 0.9999, 0.01), (700, 0.999, 3), (9, 0, 1)]
)
def test_the_share_is_what_the_updates_of_the_average_leave(updates: int, decay: float, tau: float) -> None:
    share = 1.0
    for update in range(1, updates + 1):
        share *= ema_decay(update, decay, tau)
    assert fresh_share(updates, decay, tau) == pytest.approx(share, rel=1e-9)


def test_a_long_training_leaves_nothing_of_its_start() -> None:
    assert fresh_share(10**9, 0.9999, 1e-3) == 0.0
    assert fresh_share(2 * 10**6, 0.9999999, 1e-3) == pytest.approx(0.9999999 ** (2 * 10**6), rel=1e-6)


def test_an_average_that_is_still_that_of_the_start_is_named_and_the_remedy_works() -> None:
    train = TrainConfig(max_epoch=2, ema_tau=0.01)
    (line,) = reach_warnings(train, 3)
    assert line.startswith("100 % of the published average")
    assert "all 6 updates" in line and "train.ema_tau = 0.01" in line
    (tau,) = re.findall(r"--set train\.ema_tau=(\d+)", line)
    assert reach_warnings(train.model_copy(update={"ema_tau": float(tau)}), 3) == []


@pytest.mark.parametrize(("steps", "warns"), [(229, True), (230, False)])
def test_a_tenth_is_where_the_warning_ends(steps: int, warns: bool) -> None:
    train = TrainConfig(max_epoch=steps, ema_decay=0.99, ema_tau=1e-3)
    assert (fresh_share(steps, 0.99, 1e-3) >= MOST_FRESH) is warns
    assert bool(reach_warnings(train, 1)) is warns


def test_intervals_beyond_the_end_are_named_with_both_numbers() -> None:
    assert reach_warnings(TrainConfig(max_epoch=4, val_interval=4, ckpt_interval=12), 3) == []
    assert reach_warnings(TrainConfig(max_epoch=4, val_interval="auto", patience=2), 3) == []
    validations, checkpoints = reach_warnings(TrainConfig(max_epoch=4, val_interval=5, ckpt_interval=13), 3)
    assert "train.val_interval = 5 is more than the 4 epochs" in validations
    assert "train.ckpt_interval = 13 is more than all 12 steps" in checkpoints


def test_a_training_with_few_updates_is_named_with_their_number() -> None:
    train = TrainConfig(max_epoch=40, per_batch_size=8, nominal_batch=64, warmup_steps=0, warmup_epochs=0)
    (line,) = reach_warnings(train, 37)
    assert "updated only 185 times in 1480 steps" in line and "gradients of 8 batches" in line
    assert "--set train.nominal_batch=0" in line
    assert reach_warnings(train.model_copy(update={"nominal_batch": 0}), 37) == []
    assert reach_warnings(train.model_copy(update={"max_epoch": 110}), 37) == []


def test_settings_that_act_in_mosaics_only_are_named_when_mosaics_are_off() -> None:
    sets = ["augment.copy_paste=0.1", "augment.mixup=0.2"]
    config = load_config("yolov5n-r7", sets=[*sets, "augment.mosaic=0"])
    copies, mixup = idle_warnings(config.augment)
    assert copies.startswith("augment.copy_paste = 0.1 has no effect") and "augment.mosaic = 0" in copies
    assert mixup.startswith("augment.mixup = 0.2 has no effect: augment.mixup_mosaics_only is set")
    assert idle_warnings(load_config("yolov5n-r7", sets=sets).augment) == []
    assert idle_warnings(load_config("yolov3", sets=["augment.mixup=0.2"]).augment) == []


@pytest.mark.parametrize("model", preset_names())
def test_no_preset_warns_of_itself_even_on_128_images(model: str) -> None:
    train = load_config(model).train
    assert reach_warnings(train, 128 // train.per_batch_size) == []
