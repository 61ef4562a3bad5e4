"""Which weights a training keeps and publishes, when it stops early, and that an interruption changes neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from kubeyolo.bundle import BundleManifest, open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.config.validation_interval import validation_interval
from kubeyolo.report.model_card import model_card
from kubeyolo.storage.place import Place
from kubeyolo.training.best import BestWeights
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.early_stop import EarlyStop, stop_reason
from kubeyolo.training.extension import changed_keys
from kubeyolo.training.finite import Guard, NotFiniteError
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.loop import Hooks, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.output import publish_weights, state_to_continue
from kubeyolo.training.result import Choice, read_result
from kubeyolo.training.selection import Selection
from kubeyolo.training.spec import TrainingSpec, training_identity
from kubeyolo.weights.safetensors_file import read_safetensors
from kubeyolo.weights.weights_file import read_weights
from tests.training.test_loop import CountingEngine, Numbered

MANIFEST = BundleManifest(model="yolov5n-r7", classes=("a",), image_size=(64, 64), strides=(8,), anchors=((),))
METADATA = MANIFEST.weights_metadata


class Killed(Exception):
    """Ends a training as a kill would: nothing is written afterwards."""


class AveragingEngine(CountingEngine):
    """Its averaged weight is the number of steps it has done."""

    def averaged(self) -> dict[str, Any]:
        return {"w": np.float32([self.step])}


@dataclass
class Training:
    """A training of five steps an epoch with given APs by epoch; ``kill`` names the moment at which it ends."""

    folder: Path
    aps: Sequence[float | None]
    top_k: int = 1
    keep: Any = "best"
    stop: EarlyStop = EarlyStop(0)
    interval: int = 0
    keep_checkpoints: int = 3
    lines: list[str] = field(default_factory=list)

    def run(self, kill: tuple[str, int] = ("", 0), max_epoch: int = 0) -> Training:
        """Train and publish, or raise :class:`Killed`."""
        place, epochs = Place.of(self.folder), max_epoch or len(self.aps)
        spec = TrainingSpec(dataset="d", output=str(self.folder), config=Config())
        identity = {"train.max_epoch": epochs}
        state = state_to_continue(place.store, identity, spec, True, self.lines.append)
        identity = identity if state is None else state.identity
        engine, best = AveragingEngine(), BestWeights(place.store, self.top_k, Guard(), METADATA)

        def validate(epoch: int, step: int) -> HistoryRow:
            assert (epoch + 1) * 5 == step
            if kill == ("before the validation", epoch):
                raise Killed
            row = HistoryRow(kind="val", step=step, epoch=epoch, ap=self.aps[epoch], ap50=0.5)
            best.offer(row, engine.averaged())
            if kill == ("after the validation", epoch):
                raise Killed
            return row

        hooks = Hooks(show=self.lines.append, after_epoch=validate, best=best, early_stop=self.stop)
        settings = LoopSettings(
            epochs * 5, 4, checkpoint_interval=self.interval, keep_checkpoints=self.keep_checkpoints
        )
        output = Output(place, identity)
        loop = TrainingLoop(engine, Numbered(), settings, output, hooks)  # type: ignore[arg-type]
        loop.run(state)
        if kill[0] == "before the end":
            raise Killed
        selection = Selection(best, self.keep, "val", loop.journal.history, self.lines.append)
        publish_weights(output, engine, loop.journal.sessions, MANIFEST, Guard(), selection=selection)  # type: ignore[arg-type]
        return self

    @property
    def files(self) -> list[str]:
        """Names of the files of the best validations."""
        return sorted(path.name for path in (self.folder / "best").glob("*"))

    def published(self, name: str = "bundle") -> float:
        """Return the step whose weights a bundle of the output has."""
        return float(load_file(open_bundle(Place.of(self.folder / name)).path("weights.safetensors"))["w"][0])

    @property
    def choice(self) -> Choice:
        choice = read_result(Place.of(self.folder).store).choice
        assert choice is not None
        return choice

    @property
    def rows(self) -> list[HistoryRow]:
        return TrainingHistory.from_bytes((self.folder / FILE_NAME).read_bytes()).rows


def test_the_best_weights_are_published_and_the_last_are_kept_next_to_them(tmp_path: Path) -> None:
    training = Training(tmp_path, [0.1, 0.31416, 0.2]).run()
    assert training.published() == 10 and training.published("last") == 15
    assert training.files == ["epoch-0001-ap-0.3142.safetensors"]
    last = str(Place.of(tmp_path / "last"))
    assert training.choice == Choice(
        weights="best", split="val", epoch=1, ap=0.31416, ap50=0.5, last_epoch=2, last_ap=0.2, last=last
    )
    assert training.choice.words == (
        "the best validation, after epoch 1: AP 0.3142, AP50 0.5000 on val; last epoch, 2: AP 0.2000"
    )
    metrics = open_bundle(Place.of(tmp_path / "bundle")).manifest.metrics
    assert metrics["train"]["choice"] == training.choice.model_dump()
    card = model_card({"metrics": metrics, "config": {"train": {}}}, {})
    assert f"| published weights | {training.choice.words} |" in card and "| weights after the last epoch |" in card
    noted = open_bundle(Place.of(tmp_path / "last")).manifest.metrics["train"]["choice"]
    assert (noted["weights"], noted["epoch"], noted["ap"]) == ("last", 2, 0.2)


def test_the_files_name_classes_and_model_and_the_bundle_has_bare_weights(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        Training(tmp_path / folder, [0.1, 0.3, 0.2]).run()
    one, two = (tmp_path / folder / "best/epoch-0001-ap-0.3000.safetensors" for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    read = read_weights(one)
    assert (read.classes, read.model, read.anchors) == (("a",), "yolov5n-r7", ((),))
    assert not read_safetensors(open_bundle(Place.of(tmp_path / "one/bundle")).path("weights.safetensors"))[1]


@pytest.mark.parametrize(
    ("aps", "keep", "step", "weights", "last"),
    [
        ([0.1, 0.3, 0.3], "best", 10, "best", True),  # of two equal validations the earlier
        ([0.1, 0.2, 0.3], "best", 15, "best", False),  # the last is the best
        ([0.1, 0.3, 0.2], "last", 15, "last", False),
        ([None, 0.0, None], "best", 15, "last", False),  # without an AP the last
        ([0.0, 0.1, None], "best", 10, "best", True),
    ],
)
def test_the_choice(tmp_path: Path, aps: list[float | None], keep: str, step: int, weights: str, last: bool) -> None:
    training = Training(tmp_path, aps, keep=keep).run()
    assert (training.published(), training.choice.weights) == (step, weights)
    assert (tmp_path / "last").exists() is last
    named = any("no validation on val had an AP above 0" in line for line in training.lines)
    assert named is (aps[1] == 0.0)


def test_as_many_best_files_are_kept_as_set(tmp_path: Path) -> None:
    aps = [0.2, 0.5, 0.1, 0.4, 0.5, 0.45]
    training = Training(tmp_path / "two", aps, top_k=2, keep_checkpoints=1).run()
    assert training.files == ["epoch-0001-ap-0.5000.safetensors", "epoch-0004-ap-0.5000.safetensors"]
    assert training.published() == 10
    assert load((tmp_path / "two" / "best" / training.files[1]).read_bytes())["w"] == [25]
    four = Training(tmp_path / "four", aps, top_k=4, keep_checkpoints=1).run()
    assert [name[:10] for name in four.files] == ["epoch-0001", "epoch-0003", "epoch-0004", "epoch-0005"]


def test_a_file_stays_while_a_checkpoint_names_it(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Training(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5]).run(("before the validation", 4))
    # The three checkpoints that are kept are of the epochs 1, 2 and 3.
    assert [name[:10] for name in Training(tmp_path, []).files] == ["epoch-0001", "epoch-0002", "epoch-0003"]


APS = [0.3, 0.1, 0.4, 0.35, 0.4, 0.2]


@pytest.mark.parametrize("interval", [0, 7])
@pytest.mark.parametrize("moment", ["before the validation", "after the validation", "before the end"])
def test_a_kill_at_any_moment_changes_nothing(tmp_path: Path, moment: str, interval: int) -> None:
    stop = EarlyStop(3, 0.02)
    whole = Training(tmp_path / "whole", APS, top_k=2, stop=stop, interval=interval).run()
    assert whole.published() == 15 and whole.rows[-1].epoch == 5
    for epoch in range(len(APS)):
        folder = tmp_path / str(epoch)
        with pytest.raises(Killed):
            Training(folder, APS, top_k=2, stop=stop, interval=interval).run((moment, epoch))
        training = Training(folder, APS, top_k=2, stop=stop, interval=interval).run()
        for name in ("bundle", "last"):
            assert training.published(name) == whole.published(name)
        assert training.files == whole.files
        assert training.choice.model_copy(update={"last": ""}) == whole.choice.model_copy(update={"last": ""})
        assert [(row.kind, row.step, row.ap, row.loss) for row in training.rows] == [
            (row.kind, row.step, row.ap, row.loss) for row in whole.rows
        ]


def test_a_missing_or_damaged_file_leaves_the_next_best(tmp_path: Path) -> None:
    aps = [0.2, 0.5, 0.4, 0.1]
    with pytest.raises(Killed):
        Training(tmp_path, aps, top_k=3).run(("before the end", 0))
    training = Training(tmp_path, aps, top_k=3)
    (tmp_path / "best" / "epoch-0001-ap-0.5000.safetensors").write_bytes(b"damaged")
    (tmp_path / "best" / "epoch-0000-ap-0.2000.safetensors").unlink()
    training.run()
    assert training.published() == 15 and training.choice.epoch == 2
    warnings = [line for line in training.lines if line.startswith("warning: ")]
    assert ["epoch 1, AP 0.5000" in warnings[0], "epoch 0, AP 0.2000" in warnings[1]] == [True, True]


def test_weights_that_are_not_finite_are_never_the_best(tmp_path: Path) -> None:
    best = BestWeights(Place.of(tmp_path).store, 1, Guard(), METADATA)
    row = HistoryRow(kind="val", step=5, epoch=0, ap=0.5)
    with pytest.raises(NotFiniteError, match="moving average 'w'"):
        best.offer(row, {"w": np.float32([np.nan])})
    assert best.candidates == [] and not (tmp_path / "best").exists()


def rule(patience: int, aps: Sequence[float | None], min_delta: float = 0.0) -> int | None:
    """Return the epoch after which a training with these APs stops; None if it does not."""
    history = TrainingHistory()
    for epoch, ap in enumerate(aps):
        history.append(HistoryRow(kind="val", step=epoch, epoch=epoch, ap=ap))
        if EarlyStop(patience, min_delta).reason(history):
            return epoch
    return None


def test_patience_counts_epochs_without_a_higher_ap() -> None:
    assert rule(2, [0.1, 0.3, 0.2, 0.3, 0.4]) == 3 and rule(3, [0.1, 0.3, 0.2, 0.3, 0.4]) is None
    assert rule(0, [0.3] * 50) is None and rule(1, [0.3, 0.2]) == 1
    # Less than min_delta is no improvement, though the sum of several is.
    assert rule(2, [0.10, 0.11, 0.12, 0.13], 0.015) is None and rule(2, [0.10, 0.11, 0.11], 0.015) == 2
    # A network that does not detect anything yet is given time.
    assert rule(2, [None, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1]) == 6


def test_a_training_stops_early_and_publishes_the_best(tmp_path: Path) -> None:
    training = Training(tmp_path, [0.1, 0.3, 0.2, 0.25, 0.9, 0.9], stop=EarlyStop(2), interval=1000).run()
    reason = "AP has not improved for 2 epochs, since epoch 1"
    assert f"epoch[3], stopping early: {reason} (train.patience = 2)" in training.lines
    assert training.published() == 10 and training.published("last") == 20
    result = read_result(Place.of(tmp_path).store)
    assert (result.steps, result.stopped) == (20, reason)
    assert open_bundle(Place.of(tmp_path / "bundle")).manifest.metrics["train"]["stopped"] == reason
    kinds = [(row.kind, row.step) for row in training.rows if row.kind != "val"]
    # The losses since the last line are not lost.
    assert kinds == [("train", 20), ("stopped", 20)]
    # What stopped is finished: it is published again, and not continued.
    (tmp_path / "training.json").unlink()
    again = Training(tmp_path, training.aps, stop=EarlyStop(2), interval=1000).run()
    assert again.rows == training.rows and again.published() == 10
    assert read_result(Place.of(tmp_path).store).resumed_at == []


def test_an_extension_of_a_training_that_stopped_early_counts_anew(tmp_path: Path) -> None:
    aps = [0.3, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2]
    first = Training(tmp_path, aps, stop=EarlyStop(2)).run(max_epoch=5)
    assert first.rows[-1].kind == "stopped" and first.rows[-1].epoch == 2
    second = Training(tmp_path, aps, stop=EarlyStop(2)).run(max_epoch=7)
    assert "resuming at step 15 of 35" in second.lines
    # Two epochs after the extension, since none of them was better than the first one.
    assert second.rows[-1].kind == "stopped" and second.rows[-1].epoch == 4
    assert second.choice.epoch == 0 and second.choice.last_epoch == 4 and second.published("last") == 25


def test_the_other_processes_end_where_the_first_stops(tmp_path: Path) -> None:
    def told(step: int, ends: bool) -> bool:
        return step == 10 or ends

    engine = AveragingEngine()
    output = Output(Place.of(tmp_path), {}, is_written=False)
    hooks = Hooks(synchronize=told, early_stop=EarlyStop(1))
    engine.common = lambda: {}  # type: ignore[attr-defined]
    TrainingLoop(engine, Numbered(), LoopSettings(20, 4), output, hooks).run()  # type: ignore[arg-type]
    assert engine.step == 10


def test_checkpoints_of_earlier_versions_are_read(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Training(tmp_path, [0.5, 0.2, 0.4]).run(("before the validation", 1))
    (path,) = tmp_path.glob("checkpoints/*/checkpoint.json")
    text = path.read_text()
    start = text.index(' "best"')
    path.write_text(text[:start] + text[text.index(' "files"') :])
    assert '"best"' not in path.read_text()
    state = newest_checkpoint(Place.of(tmp_path).store, print)
    assert state is not None and state.best == []
    # The validations since then are compared.
    assert Training(tmp_path, [0.5, 0.2, 0.4]).run().published() == 15


def test_the_interval_costs_a_twentieth_of_the_training() -> None:
    def interval(steps: int, images: int, **train: Any) -> int:
        config = Config.model_validate({"train": {"image_size": 320, "per_batch_size": 8, **train}})
        return validation_interval(config, steps, images)

    # 0.55 × 40 images against 0.05 × 160.
    assert interval(20, 40) == 3 and interval(20, 14) == 1 and interval(20, 15) == 2
    assert interval(20, 40, max_epoch=2) == 2
    # COCO on one process, and on eight, of which the first validates alone.
    assert interval(14786, 5000) == 1 and interval(1849, 5000) == 4
    assert interval(20, 40, val_interval=7) == 7 and interval(20, 40, val_interval=0) == 0 == interval(20, 0)
    larger = Config.model_validate({"train": {"image_size": 320, "per_batch_size": 8}, "evaluate": {"image_size": 640}})
    assert validation_interval(larger, 20, 40) == 11


def identity(**train: Any) -> dict[str, Any]:
    thresholds = {"conf_threshold": train.pop("conf_threshold", 0.001)}
    config = Config.model_validate({"train": train, "evaluate": thresholds})
    return training_identity(TrainingSpec(dataset="d", output="o", config=config), "digest", "", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"keep": "last"},
        {"top_k": 2},
        {"patience": 5},
        {"min_delta": 0.01},
        {"val_interval": 3},
        {"val_split": "test"},
        {"conf_threshold": 0.01},
    ],
)
def test_what_the_choice_depends_on_is_part_of_the_training(change: dict[str, Any]) -> None:
    key = next(iter(change))
    name = f"evaluate.{key}" if key == "conf_threshold" else f"train.{key}"
    assert name in changed_keys(identity(), identity(**change))


def test_the_last_weights_do_not_depend_on_validations() -> None:
    last = identity(keep="last")
    assert last == identity(keep="last", val_interval=3, val_split="test", conf_threshold=0.5, top_k=4)
    assert last == identity(val_interval=0, patience=3)
    assert last != identity(keep="last", patience=3)


def test_trainings_of_earlier_versions_are_continued_with_any_choice() -> None:
    old = {key: value for key, value in identity(keep="last").items() if key != "train.keep"}
    for train in ({}, {"keep": "last"}, {"val_interval": 3, "patience": 2, "conf_threshold": 0.5}):
        assert changed_keys(old, identity(**train)) == []
    assert changed_keys(old, identity(lr=0.5)) == ["train.lr"]


def test_a_history_without_early_stopping_has_no_reason() -> None:
    rows = [HistoryRow(kind="stopped", step=5, epoch=0, reason="a"), HistoryRow(kind="extended", step=5, epoch=0)]
    assert stop_reason(TrainingHistory(rows)) == "" and stop_reason(TrainingHistory(rows[:1])) == "a"
