"""The promise of resuming, on the real training program: killed or not, the same weights bit for bit."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.launch.local import launch_training
from kubeyolo.report.model_card import model_card
from kubeyolo.steps.record import read_record
from kubeyolo.steps.train import train
from kubeyolo.training.result import read_result
from kubeyolo.training.schedules import build_schedule
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
    (resumed,) = (line for line in second if line.startswith("resuming"))
    assert resumed in ("resuming at step 3 of 24", "resuming at step 6 of 24")
    (half,) = half_written(killed / "checkpoints")
    third = launch_until(spec_for(dataset, killed), has_checkpoint(21))
    assert f"resuming at step {half - 3} of 24" in third
    last = launch_until(spec_for(dataset, killed))
    assert "resuming at step 21 of 24" in last

    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)
    result = read_result(str(killed))
    assert result.resumed_at == [3 if resumed == "resuming at step 3 of 24" else 6, half - 3, 21]
    assert read_result(str(whole)).resumed_at == [] and read_result(str(whole)).seconds > 0
    assert [row["step"] for row in history_of(whole)] == [4, 8, 12, 16, 20, 24]

    # Run again: there is nothing to do, and another configuration is refused by the key that changed.
    assert "nothing to do" in launch_until(spec_for(dataset, killed))[0]
    with pytest.raises(InputError, match=r"train\.lr = 0\.01.*now it is 0\.02.*another output"):
        launch_training(spec_for(dataset, killed, lr=0.02), 1, lambda line: None)
    with pytest.raises(InputError, match=r"train\.processes"):
        launch_training(spec_for(dataset, killed), 2, lambda line: None)


@pytest.fixture(scope="module")
def one_epoch(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The output of a training of one epoch, to be copied, and what the training printed."""
    output = tmp_path_factory.mktemp("one-epoch") / "output"
    return output, launch_until(spec_for(dataset, output, max_epoch=1))


def test_a_training_keeps_what_it_warned_of(dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path) -> None:
    output, lines = str(shutil.copytree(one_epoch[0], tmp_path / "output")), one_epoch[1]
    result = read_result(output)
    warnings = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    assert "within train.anchor_t = 4 at train.image_size = 64" in warnings[-2]
    assert "warm-up of 100 steps" in warnings[-1] and "training of 6 steps" in warnings[-1]
    assert list(result.warnings) == warnings
    assert open_bundle(str(tmp_path / "output" / "bundle")).manifest.metrics == {"train": {"warnings": warnings}}
    assert result.anchor_recall is not None and 0.5 < result.anchor_recall < 0.98
    share = f"{100 * result.anchor_recall:.1f} %"
    assert any(line.startswith("anchors: ") and share in line for line in lines)
    # Said before the first step.
    starts = [line.split("[")[0].split(":")[0] for line in lines]
    assert starts.index("anchors") < starts.index("warning") < starts.index("epoch")

    trained = train(dataset, output, spec_for(dataset, tmp_path, max_epoch=1).config, launch=lambda spec: None)
    metrics = read_record(trained.record).metrics
    assert metrics["warnings"] == warnings and metrics["anchor_recall"] == result.anchor_recall
    report = (tmp_path / "output" / "report.html").read_text()
    assert all(line in html.unescape(report) for line in warnings) and share in report


def test_a_damaged_result_is_published_again(dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path) -> None:
    output = shutil.copytree(one_epoch[0], tmp_path / "output")
    spec = spec_for(dataset, output, max_epoch=1)
    warnings = read_result(str(output)).warnings
    weights, history = weights_of(output), history_of(output)
    path = open_bundle(str(output / "bundle")).path("weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    lines = launch_until(spec)
    assert any("checksum" in line and "publishing again" in line for line in lines)
    assert "resuming at step 6 of 6" in lines
    assert weights_of(output) == weights and history_of(output) == history
    assert read_result(str(output)).resumed_at == [] and read_result(str(output)).warnings == warnings


def test_a_finished_training_is_extended_killed_and_continued(
    dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(one_epoch[0], tmp_path / "output")
    one, two = (spec_for(dataset, output, max_epoch=epochs) for epochs in (1, 2))
    first = train(dataset, str(output), one.config, launch=lambda spec: None)
    rows, weights = history_of(output), weights_of(output)
    lines = launch_until(two, has_checkpoint(9))
    assert "extending from 1 to 2 epochs at step 6: it goes on by the schedule of the new length" in lines
    assert "resuming at step 6 of 12" in lines

    # Until the new bundle takes its place, the first one is what the output holds.
    capsys.readouterr()
    assert train(dataset, str(output), one.config, launch=not_started) == first and weights_of(output) == weights
    continues = "an extension of this training has stopped at step 9; the same command with --set train.max_epoch=2"
    assert f"{continues} continues it" in capsys.readouterr().out
    (output / "report.html").unlink()
    assert train(dataset, str(output), one.config, launch=lambda spec: None) == first

    second = train(dataset, str(output), two.config)
    assert "resuming at step 9 of 12" in capsys.readouterr().out
    after = history_of(output)
    assert after[: len(rows)] == rows and weights_of(output) != weights
    assert after[len(rows)] == {"kind": "extended", "step": 6, "epoch": 0, "length": "from 1 to 2 epochs"}
    schedule = build_schedule(two.config.train, 6)
    assert [(row["step"], row["lr"]) for row in after[len(rows) + 1 :]] == [
        (step, schedule.at(step - 1).weight) for step in (8, 12)
    ]

    told = ["from 1 to 2 epochs at step 6"]
    result, manifest = read_result(str(output)), open_bundle(str(output / "bundle")).manifest
    assert result.extended == told and result.steps == 12 and manifest.metrics["extended"] == told
    assert manifest.config["train"]["max_epoch"] == 2 and read_record(second.record).metrics["extended"] == told[0]
    assert told[0] in model_card(manifest.model_dump(mode="json"), {})
    assert f"It was extended {told[0]}." in html.unescape((output / "report.html").read_text())

    # With the settings of the end there is nothing to do; with fewer epochs it is refused, and all stays.
    weights = weights_of(output)
    assert train(dataset, str(output), two.config, launch=not_started) == second
    with pytest.raises(InputError, match=r"train\.max_epoch = 2, now it is 1: .*use --set train\.max_epoch=2, or"):
        train(dataset, str(output), one.config, launch=not_started)
    assert weights_of(output) == weights


def not_started(spec: TrainingSpec) -> None:
    raise AssertionError("a training was started")


def test_a_finished_training_is_not_taken_for_another_one(
    dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output = shutil.copytree(one_epoch[0], tmp_path / "output")
    config = spec_for(dataset, output, max_epoch=1).config
    train(dataset, str(output), config, launch=lambda spec: None)
    source = generate_sample_dataset(tmp_path / "source", train=4, val=4, seed=1)
    other = write_dataset(source, str(tmp_path / "store"))[1]
    cases = [
        (
            dataset,
            spec_for(dataset, output, max_epoch=1, lr=0.5).config,
            r"lr = 0\.01, now it is 0\.5; .*train\.lr=0\.01",
        ),
        (dataset, config.model_copy(update={"model": "yolov5s-r7"}), r"model = 'yolov5n-r7'.*--model yolov5n-r7"),
        (other, config, r"dataset = '[0-9a-f]+', now it is"),
    ]
    for data, settings, words in cases:
        with pytest.raises(InputError, match=words):
            train(data, str(output), settings, launch=not_started)
    with pytest.raises(InputError, match="absent"):
        train(dataset, str(output), config, backbone=str(tmp_path / "absent"), launch=not_started)


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
