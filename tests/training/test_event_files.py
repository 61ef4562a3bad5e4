"""TensorBoard's event files, read by TensorBoard itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.errors import WorkError
from kubeyolo.storage.place import Place
from kubeyolo.training import event_files
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.event_files import scalars_of, settings_table
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.loop import Hooks, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from tests.training.curves import curves_of
from tests.training.test_loop import CountingEngine, Numbered

SETTINGS = LoopSettings(total_steps=12, images_per_step=4, log_interval=2, checkpoint_interval=3, tensorboard=True)


@pytest.fixture(autouse=True)
def after_each_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a file after each checkpoint, not only once a minute."""
    monkeypatch.setattr(event_files, "INTERVAL_SECONDS", 0.0)


def validate(epoch: int, step: int) -> HistoryRow:
    return HistoryRow(
        kind="val", step=step, epoch=epoch, ap=step / 16, ap50=step / 8, ap_by_class={"a b": 0.25, "a/ü": 0.5}
    )


def train(place: Place, engine: CountingEngine) -> None:
    output = Output(place, {"train.lr": 0.01, "model": "yolov5n|r7"})
    loop = TrainingLoop(engine, Numbered(), SETTINGS, output, Hooks(show=lambda line: None, after_epoch=validate))
    loop.run(newest_checkpoint(place.store, print))


def test_tensorboard_reads_losses_rates_and_validations_and_the_settings(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Place.of(tmp_path), CountingEngine())
    curves = curves_of(tmp_path / "events")
    rows = TrainingHistory.from_bytes((tmp_path / "history.jsonl").read_bytes())
    assert curves["loss/total"] == [(row.step, row.loss) for row in rows.of("train")]
    assert [step for step, _ in curves["loss/total"]] == [2, 4, 6, 8, 10, 12]
    assert curves["loss/box"][0] == (2, 0.75) and curves["learning_rate"] == [(s, 0.25) for s in range(2, 13, 2)]
    assert curves["validation/AP"] == [(5, 5 / 16), (10, 10 / 16), (12, 12 / 16)]
    assert curves["AP_by_class/a b"] == [(5, 0.25), (10, 0.25), (12, 0.25)]
    assert curves["AP_by_class/a/ü"] == [(5, 0.5), (10, 0.5), (12, 0.5)]
    assert len(curves["images_per_second"]) == 6
    reader = EventAccumulator(str(tmp_path / "events"))
    reader.Reload()
    (text,) = reader.Tensors("settings/text_summary")
    assert b"| model | yolov5n\\|r7 |\n| train.lr | 0.01 |" in text.tensor_proto.string_val[0]


def test_an_interrupted_training_has_the_same_points_as_one_that_was_not(tmp_path: Path) -> None:
    train(Place.of(tmp_path / "whole"), CountingEngine())
    place = Place.of(tmp_path / "killed")
    with pytest.raises(WorkError, match="step 8"):
        train(place, CountingEngine(losses={8: float("nan")}))
    assert [step for step, _ in curves_of(tmp_path / "killed" / "events")["loss/total"]] == [2, 4, 6]
    # The newest checkpoint is damaged: its steps are trained again, and the file with their points is removed.
    os.truncate(tmp_path / "killed" / "checkpoints" / "step-00000006" / "weights.safetensors", 3)
    train(place, CountingEngine())
    whole, killed = (curves_of(tmp_path / name / "events") for name in ("whole", "killed"))
    speed = "images_per_second"
    assert {tag: points for tag, points in killed.items() if tag != speed} == {
        tag: points for tag, points in whole.items() if tag != speed
    }
    assert [step for step, _ in killed[speed]] == [2, 4, 6, 8, 10, 12]


def test_files_that_were_lost_before_a_kill_are_written_by_the_next_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "INTERVAL_SECONDS", 60.0)
    place = Place.of(tmp_path)
    with pytest.raises(WorkError, match="step 8"):
        train(place, CountingEngine(losses={8: float("nan")}))
    assert not (tmp_path / "events").exists()
    train(place, CountingEngine())
    assert len(list((tmp_path / "events").iterdir())) == 1
    assert [step for step, _ in curves_of(tmp_path / "events")["loss/total"]] == [2, 4, 6, 8, 10, 12]


def test_an_object_store_has_the_same_files(minio_bucket: str, tmp_path: Path) -> None:
    place = Place.of(f"minio://{minio_bucket}/output")
    train(place, CountingEngine())
    place.store.get_tree("events", tmp_path)
    assert [step for step, _ in curves_of(tmp_path)["loss/total"]] == [2, 4, 6, 8, 10, 12]


def test_a_training_without_the_package_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "is_installed", lambda: False)
    lines: list[str] = []
    output = Output(Place.of(tmp_path), {})
    TrainingLoop(CountingEngine(), Numbered(), SETTINGS, output, Hooks(show=lines.append)).run()
    assert [line for line in lines if "TensorBoard" in line] == [
        "warning: no TensorBoard files are written: tensorboardX is not installed (kubeyolo[train])"
    ]
    assert not (tmp_path / "events").exists() and (tmp_path / "history.jsonl").exists()


def test_a_process_that_does_not_write_the_output_writes_no_file(tmp_path: Path) -> None:
    output = Output(Place.of(tmp_path), {}, is_written=False)
    engine = CountingEngine()
    engine.common = dict  # type: ignore[attr-defined]
    TrainingLoop(engine, Numbered(), SETTINGS, output, Hooks(show=lambda line: None)).run()
    assert engine.step == 12 and list(tmp_path.iterdir()) == []


def test_rows_of_a_pretraining_and_of_an_extension() -> None:
    row = HistoryRow(kind="pretrain", step=1, epoch=0, loss=0.5, accuracy=0.75)
    assert list(scalars_of(row)) == [("loss/classification", 0.5), ("validation/accuracy", 0.75)]
    assert list(scalars_of(HistoryRow(kind="extended", step=1, epoch=0, length="from 1 to 2 epochs"))) == []
    assert settings_table({"b": 1, "a": [2]}).splitlines()[2:] == ["| a | [2] |", "| b | 1 |"]
