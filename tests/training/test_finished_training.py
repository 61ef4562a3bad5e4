"""The output of a finished training: what it warned of, and that it is repaired, extended, or left as it is."""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.launch import local
from kubeyolo.report.model_card import model_card
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from kubeyolo.training.result import read_result
from kubeyolo.training.schedules import build_schedule
from kubeyolo.work import Work
from tests.steps import called
from tests.training.killing import has_checkpoint, history_of, launch_until, weights_of
from tests.training.small_training import spec_for


@pytest.fixture(scope="module")
def one_epoch(small_dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The output of a training of one epoch, to be copied, and what the training printed."""
    output = tmp_path_factory.mktemp("one-epoch") / "output"
    return output, launch_until(spec_for(small_dataset, output, max_epoch=1))


def train(*arguments: Any, launch: Callable[[Work], None] | None = None, **options: Any) -> called.Called:
    """Call the step, with a function in place of that which starts the processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "launch_work", launch or local.launch_work)
        return called.train(*arguments, **options)


def not_started(work: Work) -> None:
    raise AssertionError("a training was started")


def test_a_training_keeps_what_it_warned_of(
    small_dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output, lines = str(shutil.copytree(one_epoch[0], tmp_path / "output")), one_epoch[1]
    result = read_result(Place.of(output).store)
    warnings = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    assert "within train.anchor_t = 4 at train.image_size = 64" in warnings[-2]
    assert "warm-up of 100 steps" in warnings[-1] and "training of 6 steps" in warnings[-1]
    assert list(result.warnings) == warnings
    assert open_bundle(Place.of(tmp_path / "output" / "bundle")).manifest.metrics == {"train": {"warnings": warnings}}
    assert result.anchor_recall is not None and 0.5 < result.anchor_recall < 0.98
    share = f"{100 * result.anchor_recall:.1f} %"
    assert any(line.startswith("anchors: ") and share in line for line in lines)
    # Said before the first step.
    starts = [line.split("[")[0].split(":")[0] for line in lines]
    assert starts.index("anchors") < starts.index("warning") < starts.index("epoch")

    trained = train(
        small_dataset, output, spec_for(small_dataset, tmp_path, max_epoch=1).config, launch=lambda work: None
    )
    metrics = read_record(Place.of(trained.record)).metrics
    assert metrics["warnings"] == warnings and metrics["anchor_recall"] == result.anchor_recall
    report = (tmp_path / "output" / "report.html").read_text()
    assert all(line in html.unescape(report) for line in warnings) and share in report


def test_a_damaged_result_is_published_again(
    small_dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output = shutil.copytree(one_epoch[0], tmp_path / "output")
    spec = spec_for(small_dataset, output, max_epoch=1)
    warnings = read_result(Place.of(output).store).warnings
    weights, history = weights_of(output), history_of(output)
    path = open_bundle(Place.of(output / "bundle")).path("weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    lines = launch_until(spec)
    assert any("checksum" in line and "publishing again" in line for line in lines)
    assert "resuming at step 6 of 6" in lines
    assert weights_of(output) == weights and history_of(output) == history
    result = read_result(Place.of(output).store)
    assert result.resumed_at == [] and result.warnings == warnings


def test_a_finished_training_is_extended_killed_and_continued(
    small_dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(one_epoch[0], tmp_path / "output")
    one, two = (spec_for(small_dataset, output, max_epoch=epochs) for epochs in (1, 2))
    first = train(small_dataset, str(output), one.config, launch=lambda work: None)
    rows, weights = history_of(output), weights_of(output)
    lines = launch_until(two, has_checkpoint(9))
    assert "extending from 1 to 2 epochs at step 6: it continues with the schedule of the new length" in lines
    assert "resuming at step 6 of 12" in lines

    # Until the new bundle takes its place, the first one is what the output holds.
    capsys.readouterr()
    assert train(small_dataset, str(output), one.config, launch=not_started) == first and weights_of(output) == weights
    stopped = "an extension of this training has stopped at step 9"
    assert f"{stopped}; to continue it, run the same command with --set train.max_epoch=2\n" in capsys.readouterr().out
    (output / "report.html").unlink()
    assert train(small_dataset, str(output), one.config, launch=lambda work: None) == first

    second = train(small_dataset, str(output), two.config)
    assert "resuming at step 9 of 12" in capsys.readouterr().out
    after = history_of(output)
    assert after[: len(rows)] == rows and weights_of(output) != weights
    assert after[len(rows)] == {"kind": "extended", "step": 6, "epoch": 0, "length": "from 1 to 2 epochs"}
    schedule = build_schedule(two.config.train, 6)
    assert [(row["step"], row["lr"]) for row in after[len(rows) + 1 :]] == [
        (step, schedule.at(step - 1).weight) for step in (8, 12)
    ]

    told = ["from 1 to 2 epochs at step 6"]
    result, manifest = read_result(Place.of(output).store), open_bundle(Place.of(output / "bundle")).manifest
    assert result.extended == told and result.steps == 12 and manifest.metrics["extended"] == told
    assert (
        manifest.config["train"]["max_epoch"] == 2
        and read_record(Place.of(second.record)).metrics["extended"] == told[0]
    )
    assert told[0] in model_card(manifest.model_dump(mode="json"), {})
    assert f"The training was extended {told[0]}." in html.unescape((output / "report.html").read_text())

    # With the settings of the end there is nothing to do; with fewer epochs it is refused, and all stays.
    weights = weights_of(output)
    assert train(small_dataset, str(output), two.config, launch=not_started) == second
    with pytest.raises(InputError, match=r"train\.max_epoch = 2, now it is 1: .*use --set train\.max_epoch=2, or"):
        train(small_dataset, str(output), one.config, launch=not_started)
    assert weights_of(output) == weights


def test_a_finished_training_is_not_taken_for_another_one(
    small_dataset: str, one_epoch: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output = shutil.copytree(one_epoch[0], tmp_path / "output")
    config = spec_for(small_dataset, output, max_epoch=1).config
    train(small_dataset, str(output), config, launch=lambda work: None)
    source = generate_sample_dataset(tmp_path / "source", train=4, val=4, seed=1)
    other = write_dataset(source, Place.of(tmp_path / "store")).uri
    cases = [
        (
            small_dataset,
            spec_for(small_dataset, output, max_epoch=1, lr=0.5).config,
            r"lr = 0\.01, now it is 0\.5; .*train\.lr=0\.01",
        ),
        (small_dataset, config.model_copy(update={"model": "yolov5s-r7"}), r"model = 'yolov5n-r7'.*--model yolov5n-r7"),
        (other, config, r"dataset = '[0-9a-f]+', now it is"),
    ]
    for data, settings, words in cases:
        with pytest.raises(InputError, match=words):
            train(data, str(output), settings, launch=not_started)
    with pytest.raises(InputError, match=rf"{tmp_path}/absent: there is no bundle\.json"):
        train(small_dataset, str(output), config, backbone=str(tmp_path / "absent"), launch=not_started)
