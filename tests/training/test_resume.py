"""The promise of resuming, on the real training program: killed or not, the same weights bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.launch.local import launch_training
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from tests.training.killing import (
    half_written,
    has_checkpoint,
    history_of,
    launch_until,
    printed,
    weights_of,
    writes_checkpoint,
)

CONFIG = {
    "model": "yolov5n-r7",
    "data": {"workers": 2},
    "train": {"image_size": 64, "per_batch_size": 4, "max_epoch": 4, "log_interval": 4, "ckpt_interval": 3},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("resume")
    source = generate_sample_dataset(folder / "source", train=24, val=4)
    return write_dataset(source, str(folder / "store"))[1]


def spec_for(dataset: str, output: Path, **train: object) -> TrainingSpec:
    config = Config.model_validate({**CONFIG, "train": {**CONFIG["train"], **train}})  # type: ignore[dict-item]
    return TrainingSpec(dataset=dataset, output=str(output), config=config)


def test_a_run_killed_three_times_ends_with_the_same_weights(dataset: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch_until(spec_for(dataset, whole))

    launch_until(spec_for(dataset, killed), has_checkpoint(3))
    second = launch_until(spec_for(dataset, killed), writes_checkpoint(6))
    assert second[0] in ("resuming at step 3 of 24", "resuming at step 6 of 24")
    (half,) = half_written(killed / "checkpoints")
    third = launch_until(spec_for(dataset, killed), has_checkpoint(21))
    assert f"resuming at step {half - 3} of 24" in third
    last = launch_until(spec_for(dataset, killed))
    assert "resuming at step 21 of 24" in last

    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)
    result = read_result(str(killed))
    assert result.resumed_at == [3 if second[0] == "resuming at step 3 of 24" else 6, half - 3, 21]
    assert read_result(str(whole)).resumed_at == [] and read_result(str(whole)).seconds > 0
    assert [row["step"] for row in history_of(whole)] == [4, 8, 12, 16, 20, 24]

    # Run again: there is nothing to do, and another configuration is refused by the key that changed.
    assert "nothing to do" in launch_until(spec_for(dataset, killed))[0]
    with pytest.raises(InputError, match=r"train\.lr = 0\.01.*now it is 0\.02.*another output"):
        launch_training(spec_for(dataset, killed, lr=0.02), 1, lambda line: None)
    with pytest.raises(InputError, match=r"train\.processes"):
        launch_training(spec_for(dataset, killed), 2, lambda line: None)


def test_a_damaged_result_is_published_again(dataset: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    spec = spec_for(dataset, output, max_epoch=1)
    launch_until(spec)
    weights, history = weights_of(output), history_of(output)
    path = open_bundle(str(output / "bundle")).path("weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    lines = launch_until(spec)
    assert any("checksum" in line and "publishing again" in line for line in lines)
    assert "resuming at step 6 of 6" in lines
    assert weights_of(output) == weights and history_of(output) == history
    assert read_result(str(output)).resumed_at == []


def test_adamw_on_two_threads_ends_with_the_same_weights(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    adamw = {"optimizer": "adamw", "lr": 0.001, "max_epoch": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch_until(spec_for(dataset, whole, **adamw))
    launch_until(spec_for(dataset, killed, **adamw), printed("iter[8]"))
    assert "resuming at step 6 of 12" in launch_until(spec_for(dataset, killed, **adamw))
    assert weights_of(killed) == weights_of(whole)


def test_a_missing_data_set_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-set"):
        launch_training(spec_for(str(tmp_path / "no-such-set"), tmp_path / "out"), 1, lambda line: None)
