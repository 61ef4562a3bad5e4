"""A training with all settings that keep state between steps is killed twice, and ends with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.storage.place import Place
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from tests.training.killing import has_checkpoint, history_of, launch_until, weights_of, writes_checkpoint
from tests.training.small_training import spec_for
from tests.training.test_resume import EVERYTHING

AT_SCALE = {
    "multi_scale": True,
    "sizes": (64, 96),
    "resize_rate": 2,
    "precision": "float16",
    "grad_scaler": "dynamic",
    # The first steps overflow: the scale and the number of skipped updates are part of the state.
    "grad_scaler_value": 2.0**24,
    "nominal_batch": 12,
    "recompute": True,
    "sync_bn": True,
    "val_interval": 1,
    "top_k": 2,
    "patience": 3,
    "ema_tau": 3,
}


@pytest.mark.timeout(3600)
def test_a_training_with_everything_on_is_the_same_however_often_it_is_killed(tmp_path: Path) -> None:
    source = generate_sample_dataset(tmp_path / "source", train=23, val=5, seed=3)
    dataset = write_dataset(source, Place.of(tmp_path / "store")).uri

    def spec(name: str) -> TrainingSpec:
        made = spec_for(dataset, tmp_path / name, "yolov4-tiny", **AT_SCALE)
        augment = EVERYTHING.model_copy(update={"partner_window": 8})
        return made.model_copy(update={"config": made.config.model_copy(update={"augment": augment})})

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    lines = launch_until(spec("whole"))
    assert any("skipped" in line for line in lines), lines
    launch_until(spec("killed"), writes_checkpoint(6))
    launch_until(spec("killed"), has_checkpoint(15))
    launch_until(spec("killed"))
    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)
    assert len(read_result(Place.of(killed).store).resumed_at) == 2
