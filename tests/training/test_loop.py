from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kubeyolo.errors import InputError, WorkError
from kubeyolo.stop_signals import stop_signals
from kubeyolo.storage.claim import CLAIM_NAME, claimed
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import TrainingState, newest_checkpoint
from kubeyolo.training.compilations import Compilations
from kubeyolo.training.distribution import Distribution, check_early_stop
from kubeyolo.training.history import TrainingHistory
from kubeyolo.training.loop import Hooks, Interrupted, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.work import OUTCOME_FOLDER


@dataclass
class CountingEngine:
    """Stands in for the engine: its one weight counts the batches it was given."""

    losses: dict[int, float] = field(default_factory=dict)
    step: int = 0
    learning_rate: float = 0.25
    seen: list[tuple[int, int]] = field(default_factory=list)
    compilations: Compilations = field(default_factory=Compilations)

    def train(self, images: Any, labels: Any) -> Any:
        self.step += 1
        self.seen.append((images, labels))
        value = self.losses.get(self.step, float(self.step))
        return SimpleNamespace(asnumpy=lambda: np.array([value * 4, value / 2, value / 4, value / 4, 1.0]))

    def capture(self, identity: dict[str, Any], code_digest: str = "") -> TrainingState:
        weights = {"w": np.float32([self.step])}
        return TrainingState(step=self.step, identity=identity, weights=weights, code_digest=code_digest)

    def restore(self, state: TrainingState) -> None:
        self.step = state.step


class Numbered:
    steps_per_epoch = 5

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        for step in range(start_step, self.steps_per_epoch):
            yield SimpleNamespace(images=epoch, labels=step)


def loop_on(
    tmp_path: Path,
    engine: Any,
    lines: list[str],
    hooks: Hooks | None = None,
    writer: str = "",
    **settings: Any,
) -> TrainingLoop:
    values = LoopSettings(**{"total_steps": 12, "images_per_step": 4, "log_interval": 4, **settings})
    output = Output(Place.of(tmp_path), {"a": 1}, writer=writer)
    return TrainingLoop(engine, Numbered(), values, output, replace(hooks or Hooks(), show=lines.append))


def steps_in(tmp_path: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir())


def test_log_lines_are_those_that_users_grep(tmp_path: Path) -> None:
    lines: list[str] = []
    loop_on(tmp_path, CountingEngine(), lines).run()
    assert [line.split(" imgs/sec")[0].rsplit(", ", 1)[0] for line in lines] == [
        "epoch[0], iter[4], loss:2.500000",
        "epoch[1], iter[8], loss:6.500000",
        "epoch[2], iter[12], loss:10.500000",
    ]
    assert all(line.endswith(" imgs/sec, lr:0.25") for line in lines)
    rows = TrainingHistory.from_bytes((tmp_path / "history.jsonl").read_bytes()).rows
    assert [(row.step, row.loss, row.box) for row in rows] == [(4, 2.5, 1.25), (8, 6.5, 3.25), (12, 10.5, 5.25)]


def test_checkpoints_are_written_at_the_end_of_epochs_or_at_an_interval(tmp_path: Path) -> None:
    loop_on(tmp_path / "a", CountingEngine(), [], keep_checkpoints=9).run()
    assert steps_in(tmp_path / "a") == [5, 10, 12]
    loop_on(tmp_path / "b", CountingEngine(), [], checkpoint_interval=3, keep_checkpoints=9).run()
    assert steps_in(tmp_path / "b") == [3, 6, 9, 12]


def test_a_resumed_loop_sees_the_same_batches_and_writes_the_same_history(tmp_path: Path) -> None:
    whole = CountingEngine()
    loop_on(tmp_path / "a", whole, [], checkpoint_interval=6).run()
    first = CountingEngine(losses={9: float("nan")})
    with pytest.raises(WorkError, match="step 9"):
        loop_on(tmp_path / "b", first, [], checkpoint_interval=6).run()
    state = newest_checkpoint(Place.of(tmp_path / "b").store, print)
    assert state is not None and state.step == 6 and len(state.pending) == 2
    second = CountingEngine()
    loop = loop_on(tmp_path / "b", second, [], checkpoint_interval=6)
    loop.run(state)
    assert second.seen == whole.seen[6:]
    histories = [TrainingHistory.from_bytes((tmp_path / name / "history.jsonl").read_bytes()) for name in "ab"]
    assert [(row.step, row.loss) for row in histories[0].rows] == [(row.step, row.loss) for row in histories[1].rows]


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint_and_names_the_step(tmp_path: Path) -> None:
    engine = CountingEngine(losses={7: float("inf")})
    with pytest.raises(WorkError, match=r"step 7: the loss is not finite.*\(inf.*previous step \(24, 3, 1\.5, 1\.5, 1"):
        loop_on(tmp_path, engine, []).run()
    assert steps_in(tmp_path) == [5]


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore who takes the signals."""
    before = {number: signal.getsignal(number) for number in stop_signals()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class TellingEngine(CountingEngine):
    """Is sent a signal in the middle of its third step."""

    number = signal.SIGTERM

    def train(self, images: Any, labels: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), self.number)
        return super().train(images, labels)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_writes_a_checkpoint_after_the_step(tmp_path: Path, signals: None, number: signal.Signals) -> None:
    stop, engine = StopRequest(), TellingEngine()
    engine.number = number
    stop.install()
    with pytest.raises(Interrupted, match="step 3"):
        loop_on(tmp_path, engine, [], Hooks(stop)).run()
    assert steps_in(tmp_path) == [3]


def test_nothing_is_compiled_once_the_training_was_told_to_stop(tmp_path: Path, signals: None) -> None:
    stop, engine = StopRequest(), CountingEngine()
    stop.install()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped before the first training step"):
        loop_on(tmp_path, engine, [], Hooks(stop)).run()
    assert engine.seen == [] and not (tmp_path / "checkpoints").exists()


def test_a_sighup_that_was_ignored_stays_ignored(tmp_path: Path, signals: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    stop.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


class EndedBatches:
    """Batches whose workers are ended with the training, as by a service manager that signals all processes."""

    steps_per_epoch = 5

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        yield from Numbered().epoch(epoch, start_step) if epoch == 0 else ()
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise WorkError("a worker of the loader ended (killed by SIGTERM)")


def test_workers_that_are_ended_with_the_training_cost_no_step(tmp_path: Path, signals: None) -> None:
    stop, engine = StopRequest(), CountingEngine()
    stop.install()
    loop = loop_on(tmp_path, engine, [], Hooks(stop), checkpoint_interval=100)
    loop._batches = EndedBatches()
    with pytest.raises(Interrupted, match="step 5"):
        loop.run()
    assert steps_in(tmp_path) == [5]


def test_nothing_is_written_once_another_process_has_taken_the_output_over(tmp_path: Path) -> None:
    store, engine = Place.of(tmp_path).store, CountingEngine()
    with claimed(Place.of(tmp_path)) as claim:

        def take_over(epoch: int, step: int) -> None:
            if epoch == 1:
                store.write_bytes(CLAIM_NAME, claim.model_copy(update={"owner": "b", "writer": "b"}).document())

        loop = loop_on(tmp_path, engine, [], Hooks(after_epoch=take_over), writer=claim.writer)
        with pytest.raises(WorkError, match=f"process {claim.process} on .* took over this output"):
            loop.run()
    assert steps_in(tmp_path) == [5] and engine.step == 10
    assert loop.journal.history.of("train")[-1].step == 8


def test_rows_of_validations_are_in_the_history(tmp_path: Path) -> None:
    from kubeyolo.training.history import HistoryRow

    def validate(epoch: int, step: int) -> HistoryRow:
        return HistoryRow(kind="val", step=step, epoch=epoch, ap=0.5)

    loop = loop_on(tmp_path, CountingEngine(), [], Hooks(after_epoch=validate))
    loop.run()
    assert [(row.step, row.ap) for row in loop.journal.history.of("val")] == [(5, 0.5), (10, 0.5), (12, 0.5)]


def test_processes_synchronize_after_checkpoints_and_epochs(tmp_path: Path) -> None:
    steps: list[tuple[int, bool]] = []

    def synchronize(step: int, ends: bool) -> bool:
        steps.append((step, ends))
        return ends

    loop_on(tmp_path, CountingEngine(), [], Hooks(synchronize=synchronize), checkpoint_interval=4).run()
    assert steps == [(4, False), (5, False), (8, False), (10, False), (12, True)]


def test_the_other_processes_wait_at_the_barrier_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OUTCOME_FOLDER, str(tmp_path))
    first, other = Distribution(0, 2), Distribution(1, 2)
    passed: list[int] = []
    thread = threading.Thread(target=lambda: (other.synchronize(7), passed.append(7)))
    thread.start()
    thread.join(0.2)
    assert passed == []
    first.synchronize(7)
    thread.join(20)
    assert passed == [7]
    other.synchronize(7)
    Distribution(0, 1).synchronize(8)
    assert [path.name for path in tmp_path.iterdir()] == ["barrier-7"]
    # The other processes learn whether the first ends the training.
    assert not other.synchronize(7) and first.synchronize(9, True) and other.synchronize(9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["barrier-7", "barrier-9-end"]
    check_early_stop("train.patience", 3, other)
    monkeypatch.delenv(OUTCOME_FOLDER)
    other.synchronize(8)
    check_early_stop("train.patience", 0, other)
    with pytest.raises(InputError, match=r"train\.patience is 3, but these 2 processes were not started by"):
        check_early_stop("train.patience", 3, other)
