"""Validations of a training of two processes: they share the images, and both stop early where the first decides so."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.history import FILE_NAME, TrainingHistory, best_validation
from kubeyolo.training.result import read_result
from tests.training.published import evaluated
from tests.training.small_training import spec_for


def test_two_processes_share_a_validation_and_stop_together(small_dataset: str, tmp_path: Path) -> None:
    early = {"val_interval": 1, "patience": 1, "min_delta": 0.99, "ckpt_interval": 100, "lr": 0.001, "ema_tau": 3}
    more = {"processes": 2, "max_epoch": 8, "per_batch_size": 2, "sync_bn": True}
    spec = spec_for(small_dataset, tmp_path, "yolov4-tiny", **more, **early)
    lines: list[str] = []
    launch_work(spec.work(), show=lines.append)
    assert "batch normalization: 19 layers use the statistics of the images of all 2 processes" in lines
    history = TrainingHistory.from_bytes((tmp_path / FILE_NAME).read_bytes())
    # AP is above 0 soon, because every box counts, and cannot rise by 0.99.
    rated = [row for row in history.of("val") if row.ap]
    assert len(rated) == 2
    (stopped,) = history.of("stopped")
    assert stopped.epoch == rated[-1].epoch < 7
    reason = f"AP has not improved by more than 0.99 for 1 epoch, since epoch {rated[0].epoch}"
    assert any(f"epoch[{stopped.epoch}], stopping early: {reason}" in line for line in lines)
    result = read_result(Place.of(tmp_path).store)
    assert (result.steps, result.stopped) == (stopped.step, reason) and stopped.step == 6 * (stopped.epoch + 1)
    # One process finds the same with the published weights, whose running statistics are those of the first process.
    best = best_validation(history.of("val"))
    assert best is not None and (best.ap, best.ap50, best.ap_by_class) == evaluated(
        small_dataset, tmp_path, spec.config.evaluate
    )
    assert not [path for path in (tmp_path / "validation").rglob("*") if path.is_file()]
