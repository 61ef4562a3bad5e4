"""The promise of resuming, for the pretraining of a backbone."""

from __future__ import annotations

import re
from pathlib import Path

from kubeyolo.config.schema import Config
from kubeyolo.training.spec import TrainingSpec
from tests.training.killing import has_checkpoint, history_of, launch_until, weights_of

CONFIG = {
    "model": "yolov5n-r7",
    "data": {"workers": 2},
    "pretrain": {"image_size": 32, "per_batch_size": 16, "max_epoch": 3},
}


def test_a_pretraining_that_was_killed_ends_with_the_same_weights(small_dataset: str, tmp_path: Path) -> None:
    config = Config.model_validate(CONFIG)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch_until(TrainingSpec(task="backbone", dataset=small_dataset, output=str(whole), config=config))
    steps = int(history_of(whole)[-1]["step"])  # type: ignore[call-overload]
    spec = TrainingSpec(task="backbone", dataset=small_dataset, output=str(killed), config=config)
    launch_until(spec, has_checkpoint(steps // 3))
    lines = launch_until(spec)
    assert any(re.fullmatch(rf"resuming at step {steps // 3} of {steps}\b.*", line) for line in lines), lines
    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)
