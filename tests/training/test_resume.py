"""The promise of resuming, on the real training program: killed or not, the same weights bit for bit."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.launch.local import launch_training
from kubeyolo.training.spec import TrainingSpec

CONFIG = {
    "model": "yolov5n-r7",
    "data": {"workers": 2},
    "train": {"image_size": 64, "per_batch_size": 4, "max_epoch": 4, "log_interval": 4, "ckpt_interval": 3},
}

Condition = Callable[[Path, list[str]], bool]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("resume")
    source = generate_sample_dataset(folder / "source", train=24, val=4)
    return write_dataset(source, str(folder / "store"))[1]


def spec_for(dataset: str, output: Path, **train: object) -> TrainingSpec:
    config = Config.model_validate({**CONFIG, "train": {**CONFIG["train"], **train}})  # type: ignore[dict-item]
    return TrainingSpec(dataset=dataset, output=str(output), config=config)


def launch_until(spec: TrainingSpec, condition: Condition | None = None) -> list[str]:
    """Train, and kill the process with SIGKILL as soon as the condition holds; return what it printed."""
    lines: list[str] = []
    over = threading.Event()
    main = threading.get_native_id()

    def watch() -> None:
        checkpoints = Path(spec.output) / "checkpoints"
        while condition is not None and not over.is_set():
            if condition(checkpoints, lines):
                for child in Path(f"/proc/{os.getpid()}/task/{main}/children").read_text().split():
                    if b"kubeyolo.training.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)
                return
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        launch_training(spec, 1, lines.append)
        assert condition is None, "training ended before it was killed"
    except WorkError as error:
        assert "SIGKILL" in str(error)
    finally:
        over.set()
        thread.join()
    return lines


def has_checkpoint(step: int) -> Condition:
    return lambda folder, lines: (folder / f"step-{step:08d}" / "checkpoint.json").exists()


def writes_checkpoint(step: int) -> Condition:
    def condition(folder: Path, lines: list[str]) -> bool:
        target = folder / f"step-{step:08d}"
        return target.exists() and any(target.iterdir()) and not (target / "checkpoint.json").exists()

    return condition


def printed(text: str) -> Condition:
    return lambda folder, lines: any(text in line for line in lines)


def weights_of(output: Path) -> bytes:
    return open_bundle(str(output / "bundle")).path("weights.safetensors").read_bytes()


def history_of(output: Path) -> list[dict[str, object]]:
    rows = [orjson.loads(line) for line in (output / "history.jsonl").read_bytes().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def test_a_run_killed_three_times_ends_with_the_same_weights(dataset: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch_until(spec_for(dataset, whole))

    launch_until(spec_for(dataset, killed), has_checkpoint(3))
    second = launch_until(spec_for(dataset, killed), writes_checkpoint(9))
    assert second[0] in ("resuming at step 3 of 24", "resuming at step 6 of 24")
    third = launch_until(spec_for(dataset, killed), printed("iter[16]"))
    assert "resuming at step 6 of 24" in third
    last = launch_until(spec_for(dataset, killed))
    assert "resuming at step 15 of 24" in last

    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)
    assert [row["step"] for row in history_of(whole)] == [4, 8, 12, 16, 20, 24]

    # Run again: there is nothing to do, and another configuration is refused by the key that changed.
    assert "nothing to do" in launch_until(spec_for(dataset, killed))[0]
    with pytest.raises(InputError, match=r"train\.lr = 0\.01.*now it is 0\.02.*another output"):
        launch_training(spec_for(dataset, killed, lr=0.02), 1, lambda line: None)
    with pytest.raises(InputError, match=r"train\.processes"):
        launch_training(spec_for(dataset, killed), 2, lambda line: None)


def test_a_missing_data_set_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-set"):
        launch_training(spec_for(str(tmp_path / "no-such-set"), tmp_path / "out"), 1, lambda line: None)
