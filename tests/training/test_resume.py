"""The promise of resuming, on the real training program: killed or not, the same weights bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load, load_file

from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.detector import train_detector
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.history import FILE_NAME, TrainingHistory, best_validation
from kubeyolo.training.loop import StopRequest
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import OUTCOME_FOLDER
from tests.training.curves import curves_of
from tests.training.detectors import detector_bundle
from tests.training.killing import (
    half_written,
    has_checkpoint,
    history_of,
    launch_until,
    weights_of,
    writes_checkpoint,
)
from tests.training.small_training import spec_for as small_training

EVERYTHING = AugmentConfig(mixup=0.3, copy_paste=0.5, degrees=10.0, shear=3.0, perspective=0.0005, close_mosaic=1)
FROZEN = ["backbone.stem.*"]


def spec_for(
    dataset: str, output: Path, lr: float = 0.001, processes: int = 1, need_profiler: bool = False
) -> TrainingSpec:
    """Return the training of the network that is compiled in the shortest time, with every kind of augmentation.

    It starts from the detector next to its output, with a part of the backbone frozen, may profile some steps, and
    publishes its best weights.
    """
    choice: dict[str, object] = {"val_interval": 1, "top_k": 2, "patience": 3, "ema_tau": 3, "freeze": FROZEN}
    spec = small_training(
        dataset, output, "yolov4-tiny", lr=lr, processes=processes, need_profiler=need_profiler, **choice
    )
    config = spec.config.model_copy(update={"augment": EVERYTHING})
    return spec.model_copy(update={"config": config, "weights": str(output.parent / "old" / "bundle")})


def test_a_run_killed_twice_ends_with_the_same_weights(
    small_dataset: str, tmp_path: Path, mindspore_ready: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first_class = open_dataset(Place.of(small_dataset)).manifest.classes[0]
    old = open_bundle(Place.of(detector_bundle(tmp_path / "old", "yolov4-tiny", (first_class, "cat"))))
    launch_until(spec_for(small_dataset, whole))

    launch_until(spec_for(small_dataset, killed), writes_checkpoint(6))
    (half,) = half_written(killed / "checkpoints")
    # The profile changes nothing, so it may be switched on for some sessions.
    second = launch_until(spec_for(small_dataset, killed, need_profiler=True), has_checkpoint(21))
    assert f"resuming at step {half - 3} of 24" in second
    last = launch_until(spec_for(small_dataset, killed, need_profiler=True))
    assert "resuming at step 21 of 24" in last

    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)
    result = read_result(Place.of(killed).store)
    best = [
        sorted((path.name, path.read_bytes()) for path in (folder / "best").iterdir()) for folder in (whole, killed)
    ]
    assert best[0] == best[1] and len(best[0]) == 2
    rated = best_validation(TrainingHistory.from_bytes((killed / FILE_NAME).read_bytes()).rows)
    assert rated is not None and result.choice is not None and result.choice.epoch == rated.epoch
    # The files of the best validations have the same arrays, and the names of the classes besides.
    published = load(weights_of(killed))
    assert any(
        arrays.keys() == published.keys() and all((arrays[name] == published[name]).all() for name in published)
        for arrays in (load(content) for _, content in best[0])
    )
    before = load_file(old.path(WEIGHTS))
    frozen = [name for name in before if name.startswith("backbone.stem.")]
    assert len(frozen) == 5 and all((before[name] == published[name]).all() for name in frozen)
    assert not (before["backbone.down.conv.weight"] == published["backbone.down.conv.weight"]).all()
    assert (killed / "profile" / "summary.json").exists()
    assert result.resumed_at == [half - 3, 21]
    assert read_result(Place.of(whole).store).resumed_at == [] and read_result(Place.of(whole).store).seconds > 0
    assert [row["step"] for row in history_of(whole) if row["kind"] == "train"] == [4, 8, 12, 16, 20, 24]
    assert [row["step"] for row in history_of(whole) if row["kind"] == "val"] == [6, 12, 18, 24]
    # What is drawn is the same, too.
    assert [step for step, _ in curves_of(killed / "events")["loss/total"]] == [4, 8, 12, 16, 20, 24]
    assert curves_of(killed / "events")["loss/total"] == curves_of(whole / "events")["loss/total"]
    names = ["epoch-000001.jpg", "epoch-000004.jpg"]  # the first epoch, and the first without mosaic
    pictures = [[(output / "batches" / name).read_bytes() for name in names] for output in (killed, whole)]
    assert pictures[0] == pictures[1]

    # Run again: there is nothing to do, and another configuration is refused by the key that changed.
    lines: list[str] = []
    train_detector(spec_for(small_dataset, killed), Distribution(), StopRequest(), lines.append)
    assert "nothing to do" in lines[0]
    with pytest.raises(InputError, match=r"train\.lr = 0\.001.*now it is 0\.002.*another output"):
        train_detector(spec_for(small_dataset, killed, lr=0.002), Distribution(), StopRequest())
    monkeypatch.setenv(OUTCOME_FOLDER, str(tmp_path))  # as if a launcher had started two processes
    with pytest.raises(InputError, match=r"now it has 2 processes of 4 images; .* use --set train\.per_batch_size=2"):
        train_detector(spec_for(small_dataset, killed, processes=2), Distribution(0, 2), StopRequest())


def test_a_missing_data_set_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{Place.of(tmp_path)}/no-such-set: no data set there"):
        launch_work(spec_for(str(tmp_path / "no-such-set"), tmp_path / "out").work(), lambda line: None)
