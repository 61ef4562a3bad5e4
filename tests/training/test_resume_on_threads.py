"""The promise of resuming, with another optimizer and more than one thread."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.killing import launch_until, printed, weights_of
from tests.training.small_training import spec_for


def test_adamw_on_two_threads_ends_with_the_same_weights(
    small_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    adamw = {"optimizer": "adamw", "lr": 0.001, "max_epoch": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch_until(spec_for(small_dataset, whole, **adamw))
    launch_until(spec_for(small_dataset, killed, **adamw), printed("iter[8]"))
    assert "resuming at step 6 of 12" in launch_until(spec_for(small_dataset, killed, **adamw))
    assert weights_of(killed) == weights_of(whole)
