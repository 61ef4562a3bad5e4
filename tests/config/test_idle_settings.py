"""Settings that were chosen and have no effect are named, with what to set; following that gives them an effect."""

from __future__ import annotations

import re

import pytest

from kubeyolo.config.idle_settings import idle_settings
from kubeyolo.config.load import load_resolved, preset_names
from kubeyolo.training.schedules import build_schedule

STEPS_PER_EPOCH = 10


def rates(model: str, *sets: str) -> list[tuple[float, float, float]]:
    train = load_resolved(model, None, [f"train.{each}" for each in sets]).config.train
    schedule = build_schedule(train, STEPS_PER_EPOCH)
    points = [schedule.at(step) for step in range(0, train.max_epoch * STEPS_PER_EPOCH, 25)]
    return [(point.bias, point.weight, point.momentum) for point in points]


def notes(model: str, *sets: str) -> tuple[str, ...]:
    return idle_settings(load_resolved(model, None, [f"train.{each}" for each in sets]))


CHOSEN = {
    "t_max": "50",
    "eta_min": "0.001",
    "lr_epochs": "[100,200]",
    "lr_gamma": "0.5",
    "lr_final": "0.3",
    "warmup": "linear",
    "warmup_steps": "130",
    "warmup_bias_lr": "0.03",
    "warmup_momentum": "0.5",
}
SCHEDULES = (
    ("yolov5n-r7",),
    ("yolov4",),
    ("yolov4", "warmup_epochs=2"),
    ("yolov4-csp",),
    ("yolov4-csp", "t_max=60"),
    ("yolov3-quant", "lr_scheduler=cosine_annealing", "warmup_epochs=5"),
    ("yolov3",),
)


@pytest.mark.parametrize("key", CHOSEN)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_setting_is_named_when_it_changes_no_rate_and_only_then(schedule: tuple[str, ...], key: str) -> None:
    model, *sets = schedule
    if any(each.startswith(f"{key}=") for each in sets):
        return
    value = {"yolov4": "one_cycle"}.get(model, CHOSEN[key]) if key == "warmup" else CHOSEN[key]
    chosen = f"{key}={value}"
    has_effect = rates(model, *sets, chosen) != rates(model, *sets)
    found = [line for line in notes(model, *sets, chosen) if line.startswith(f"train.{key} = ")]
    assert bool(found) != has_effect, found


def test_the_remedy_gives_the_setting_an_effect() -> None:
    (line,) = notes("yolov5n-r7", "t_max=320", "lr=0.012")
    assert line == (
        "train.t_max = 320 has no effect, because train.lr_scheduler is linear; set train.lr_scheduler=cosine_annealing"
    )
    remedy = re.findall(r"set train\.(\w+=\w+)", line)
    assert notes("yolov5n-r7", "t_max=320", *remedy) == ()
    (line,) = notes("yolov4", "label_smooth=false", "label_smooth_factor=0.2")
    assert "train.label_smooth_factor = 0.2 has no effect, because train.label_smooth is off" in line
    assert notes("yolov4", "label_smooth=true", "label_smooth_factor=0.2") == ()
    (line,) = notes("yolov4", "grad_scaler_value=128")
    assert line == (
        "train.grad_scaler_value = 128.0 has no effect, because the loss is not scaled; set train.grad_scaler=static "
        "or dynamic"
    )
    for chosen in ("grad_scaler=static", "precision=float16", "device_target=Ascend"):
        assert notes("yolov4", "grad_scaler_value=128", chosen) == ()
    (line,) = notes("yolov4", "patience=5", "val_interval=0")
    assert line == ("train.patience = 5 has no effect, because train.val_interval is 0; set train.val_interval=auto")
    assert notes("yolov4", "patience=5", "val_interval=auto") == ()


def test_the_start_of_a_retraining_is_named_in_other_trainings() -> None:
    resolved = load_resolved("yolov4", None, ["retrain.start_from=current"])
    assert idle_settings(resolved) == (
        "retrain.start_from = current has no effect: only the pipeline detector-retraining reads it",
    )
    assert idle_settings(resolved, is_retraining=True) == ()


@pytest.mark.parametrize("model", preset_names())
def test_values_of_presets_are_not_named(model: str) -> None:
    assert notes(model) == ()


def test_a_list_without_effect_is_named_as_it_is_typed() -> None:
    (note,) = notes("yolov4", "sizes=[416]")
    assert note.startswith("train.sizes = [416] has no effect, because train.multi_scale is false")
