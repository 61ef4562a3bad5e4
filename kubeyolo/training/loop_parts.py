"""The parts of the training loop, each of which decides after which steps it does its work.

The loop calls them in this order after every step: the bar, the log lines, the comparison of ranks, the profiler,
the remaining time, the pictures of batches, the history rows after an epoch (such as validations), hints, early
stopping, the checkpoints, the event files, and the barrier at which the other processes wait. The parts that only show
a training have modules of their own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kubeyolo.data.sampler import SizeSchedule
from kubeyolo.output_streams import Show
from kubeyolo.storage.claim import check_claim
from kubeyolo.storage.place import Place
from kubeyolo.training import history
from kubeyolo.training.best import BestWeights
from kubeyolo.training.checkpoints import TrainingState, best_files, write_checkpoint
from kubeyolo.training.early_stop import EarlyStop, stop_reason
from kubeyolo.training.finite import Guard
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.loss_record import LossRecord

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine

AfterEpoch = Callable[[int, int], HistoryRow | None]
"""Returns a row of the history from the epoch and the number of finished steps."""

Synchronize = Callable[[int, bool], bool]
"""Waits for the first process after a step; takes and returns whether the training ends, as the first process says."""


@dataclass(frozen=True)
class LoopSettings:
    """How long to train, and how often to log and to write checkpoints.

    Attributes:
        total_steps: Steps of the whole run.
        images_per_step: Number of images of a step in all processes together.
        log_interval: Steps between two log lines.
        checkpoint_interval: Steps between two checkpoints; 0 for a checkpoint after each epoch.
        keep_checkpoints: Number of checkpoints to keep.
        kind: Kind of the rows in the history.
        is_scaled: Whether the loss is scaled.
        parts: Names of the history's columns that hold the parts of the loss, "" for a part without a column.
        world: Number of training processes.
        tensorboard: Whether to write TensorBoard's event files.
        need_profiler: Whether to profile some steps.
        pictured: Epochs, from 0, whose first batch is drawn.
        classes: Names of the classes in the labels of a batch.
        sizes: Sizes of the images of the steps; None if all have one size.
    """

    total_steps: int
    images_per_step: int
    log_interval: int = 20
    checkpoint_interval: int = 0
    keep_checkpoints: int = 3
    kind: Any = "train"
    is_scaled: bool = False
    parts: tuple[str, ...] = ("box", "obj", "cls")
    world: int = 1
    tensorboard: bool = False
    need_profiler: bool = False
    pictured: frozenset[int] = frozenset()
    classes: tuple[str, ...] = ()
    sizes: SizeSchedule | None = None


@dataclass
class Moment:
    """The end of a step.

    Attributes:
        step: Number of finished steps.
        epoch: The epoch of the step, from 0.
        ends_epoch: Whether it is the last step of its epoch.
        is_last: Whether it is the last step of the training; early stopping sets it.
        starts_epoch: Whether it is the first step of its epoch.
        batch: The batch of the step in this process.
        compiled: Seconds of the step if it compiled a graph; otherwise 0.
    """

    step: int
    epoch: int
    ends_epoch: bool
    is_last: bool
    starts_epoch: bool = False
    batch: Any = None
    compiled: float = 0.0


class Part(Protocol):
    """A part of the loop, which does its work after some of the steps."""

    def after_step(self, moment: Moment) -> None:
        """Called after each step; does its work if it is due."""


@dataclass(frozen=True)
class Output:
    """The output to which checkpoints are written, and what each checkpoint records.

    Attributes:
        place: The folder of the output.
        identity: What the weights depend on, by key.
        code_digest: Digest of the library.
        writer: Name of the writer in the claim on the output; empty if there is no claim.
        is_written: Whether this process writes into the output.
    """

    place: Place
    identity: dict[str, Any]
    code_digest: str = ""
    writer: str = ""
    is_written: bool = True


class Journal:
    """The history of a training, and its sessions; a session lasts from a start of the process to its end.

    Attributes:
        history: The rows so far.
    """

    def __init__(self, total_steps: int) -> None:
        self.history = TrainingHistory()
        self._total_steps = total_steps
        self._former: list[tuple[int, float]] = []
        self._first_step, self._start, self._is_over = 0, time.monotonic(), False

    def restore(self, state: TrainingState) -> None:
        """Continue the journal of a checkpoint."""
        self.history = TrainingHistory.from_bytes(state.history)
        self._former, self._first_step = list(state.sessions), state.step
        self._is_over = state.step == self._total_steps or self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether the training has stopped early."""
        return bool(stop_reason(self.history))

    @property
    def sessions(self) -> list[tuple[int, float]]:
        """First step and duration in seconds of each session of the training until now."""
        if self._is_over:
            return self._former
        return [*self._former, (self._first_step, round(time.monotonic() - self._start, 2))]


class Speed:
    """Steps per second since the last log line, without the steps that compile a graph."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._steps = 0

    def count_step(self, compiled: float = 0.0) -> None:
        """Count a finished step; ``compiled`` are its seconds if it compiled a graph."""
        if self._since is not None and not compiled:
            self._steps += 1
            return
        with self.paused():
            # All current objects stay: the garbage collector need not search MindSpore's modules repeatedly.
            gc.collect()
            gc.freeze()
        self.leave_out(compiled)
        if self._since is None:
            self._since = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Exclude time that was not spent on steps from the rate."""
        if self._since is not None:
            self._since += seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of a block from the rate."""
        before = time.perf_counter()
        yield
        self.leave_out(time.perf_counter() - before)

    def take(self) -> float:
        """Return the steps per second until now, and restart the count."""
        now = time.perf_counter()
        rate = self._steps / max(now - (self._since or now), 1e-9)
        self._since, self._steps = now, 0
        return rate


class LogLines:
    """Writes a line and a history row every ``log_interval`` steps and after the last step."""

    def __init__(
        self, engine: Engine, losses: LossRecord, journal: Journal, speed: Speed, settings: LoopSettings, show: Show
    ) -> None:
        self._engine, self._losses, self._journal, self._speed = engine, losses, journal, speed
        self._settings, self._show = settings, show

    def after_step(self, moment: Moment) -> None:
        """Write a line with the means of the losses since the previous line, if it is due."""
        self._speed.count_step(moment.compiled)
        if moment.step % self._settings.log_interval == 0 or moment.is_last:
            self.write(moment)

    def write(self, moment: Moment) -> None:
        """Write a line and a row with the means of the losses since the previous line, unless there are none."""
        if not self._losses.rows():
            return
        mean, scaling = self._losses.mean(), self._losses.scaling()
        self._losses.clear()
        names = self._settings.parts
        rate = self._speed.take() * self._settings.images_per_step
        losses = {} if mean is None else {name: mean[1 + i] for i, name in enumerate(names) if name}
        row = HistoryRow(
            kind=self._settings.kind,
            step=moment.step,
            epoch=moment.epoch,
            loss=None if mean is None else sum(mean[1 : 1 + len(names)]),
            lr=self._engine.learning_rate,
            images_per_second=round(rate, 2),
            **losses,
            **scaling,
        )
        self._journal.history.append(row)
        loss = "not finite" if row.loss is None else f"{row.loss:.6f}"
        scaled = f", scale:{row.scale:g}, skipped updates:{row.skipped}" if scaling else ""
        self._show(
            f"epoch[{moment.epoch}], iter[{moment.step}], loss:{loss}, {rate:.2f} imgs/sec, lr:{row.lr:.6g}{scaled}"
        )


class EpochRows:
    """Adds a row to the history after each epoch, such as the row of a validation."""

    def __init__(self, make: AfterEpoch, journal: Journal, speed: Speed) -> None:
        self._make, self._journal, self._speed = make, journal, speed

    def after_step(self, moment: Moment) -> None:
        """Add the row if an epoch ends; processes other than the first have no row."""
        if not moment.ends_epoch:
            return
        with self._speed.paused():
            row = self._make(moment.epoch, moment.step)
        if row is not None:
            self._journal.history.append(row)


class EarlyEnd:
    """Ends the training after a validation if early stopping applies, with a log line and a row of the history."""

    def __init__(self, rule: EarlyStop, journal: Journal, lines: LogLines, show: Show) -> None:
        self._rule, self._journal, self._lines, self._show = rule, journal, lines, show

    def after_step(self, moment: Moment) -> None:
        """Make the step the last step if the training stops."""
        reason = "" if moment.is_last or not moment.ends_epoch else self._rule.reason(self._journal.history)
        if not reason:
            return
        moment.is_last = True
        self._lines.write(moment)
        self._journal.history.append(HistoryRow(kind="stopped", step=moment.step, epoch=moment.epoch, reason=reason))
        self._show(f"epoch[{moment.epoch}], stopping early: {reason} (train.patience = {self._rule.patience})")


class Checkpoints:
    """Writes a checkpoint every ``checkpoint_interval`` steps, or after each epoch, and after the last step.

    Attributes:
        saved_step: Step of the newest checkpoint; -1 if there is none.
    """

    def __init__(
        self,
        engine: Engine,
        losses: LossRecord,
        journal: Journal,
        output: Output,
        settings: LoopSettings,
        guard: Guard,
        best: BestWeights | None = None,
    ) -> None:
        self._engine, self._losses, self._journal, self._best = engine, losses, journal, best
        self._output, self._settings, self._guard = output, settings, guard
        self.saved_step = -1

    def restore(self, state: TrainingState) -> None:
        """Continue from a checkpoint; rows and checkpoints of later steps will be written again."""
        self.saved_step = state.step
        if self._output.is_written:
            self._output.place.store.write_bytes(history.FILE_NAME, state.history)

    def after_step(self, moment: Moment) -> None:
        """Write a checkpoint if it is due."""
        if self.is_due(moment):
            self.write(moment.step)

    def is_due(self, moment: Moment) -> bool:
        """Tell whether a checkpoint is written after a step."""
        interval = self._settings.checkpoint_interval
        return moment.is_last or (moment.step % interval == 0 if interval else moment.ends_epoch)

    def write(self, step: int) -> None:
        """Check that all values are finite, even in a process that does not write, and write a checkpoint.

        Raises:
            NotFiniteError: A loss, a weight, a moment or an average is not finite; all processes stop at the same step.
            WorkError: A different process has taken over the output.
        """
        pending = [list(row) for row in self._losses.rows()]
        if self.saved_step == step:
            return
        output, images = self._output, self._losses.images
        if not output.is_written:
            self._guard.check(step, self._engine.common(), images)
            return
        state = self._engine.capture(output.identity, output.code_digest)
        self._guard.check(step, {"weights": state.weights, "moments": state.moments, "ema": state.ema}, images)
        state.pending = pending
        state.history = self._journal.history.to_bytes()
        state.sessions = self._journal.sessions
        state.best = self._best.candidates if self._best else []
        store = output.place.store
        check_claim(store, output.writer)
        write_checkpoint(store, state, self._settings.keep_checkpoints)
        store.write_bytes(history.FILE_NAME, state.history)
        if self._best:
            self._best.remove_unused(lambda: best_files(store))
        self.saved_step = step


class Barrier:
    """Makes the other processes wait for the work that the first process does alone between two steps.

    They also learn here whether the first process ends the training after this step.
    """

    def __init__(self, synchronize: Synchronize, is_due: Callable[[Moment], bool]) -> None:
        self._synchronize, self._is_due = synchronize, is_due

    def after_step(self, moment: Moment) -> None:
        """Wait if the first process works alone after this step."""
        if self._is_due(moment):
            moment.is_last = self._synchronize(moment.step, moment.is_last)


class Bar:
    """Advances the bar on a terminal."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def after_step(self, moment: Moment) -> None:
        """Advance the bar by one step."""
        self._advance(1)
