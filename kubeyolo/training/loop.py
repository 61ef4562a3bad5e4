"""The loop over epochs, and an orderly end when the process receives a stop signal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from kubeyolo.errors import WorkError
from kubeyolo.output_streams import Show
from kubeyolo.progress import Progress
from kubeyolo.stop_signals import StopOrder, StopSignal, install
from kubeyolo.training import event_files
from kubeyolo.training.batch_pictures import BatchPictures
from kubeyolo.training.best import BestWeights
from kubeyolo.training.checkpoints import TrainingState
from kubeyolo.training.early_stop import EarlyStop
from kubeyolo.training.event_files import EventFiles
from kubeyolo.training.finite import Guard
from kubeyolo.training.hints import HintLines, Hints
from kubeyolo.training.loop_parts import (
    AfterEpoch,
    Bar,
    Barrier,
    Checkpoints,
    EarlyEnd,
    EpochRows,
    Journal,
    LogLines,
    LoopSettings,
    Moment,
    Output,
    Part,
    Speed,
    Synchronize,
)
from kubeyolo.training.loss_record import LossRecord
from kubeyolo.training.outlook import Outlook
from kubeyolo.training.pace import Gather, SlowRanks
from kubeyolo.training.profile import (
    CHECKPOINTS,
    COMPILING,
    PROFILER,
    REST,
    STEPS,
    VALIDATIONS,
    WAITING,
    Profiling,
    TimeShares,
)

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine

_ORDER_SECONDS = 0.2
"""Longest delay, in seconds, with which a process receives a signal after its children received the same signal."""


class Interrupted(Exception):  # noqa: N818 - a stop request that was followed, not an error
    """Training stopped at a checkpoint because the process received a stop signal."""


class Batches(Protocol):
    """A source of batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Yield batches with ``images`` and ``labels``."""


class StopRequest:
    """Remembers that the process received a stop signal; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._order = StopOrder()

    def install(self, listen: bool = True) -> None:
        """Handle the signals; a process that does not ``listen`` ignores them, because rank 0 decides."""
        install(self._set if listen else signal.SIG_IGN)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._order.is_second(number):
            raise StopSignal(number)


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the training loop.

    Attributes:
        stop: Request to stop after the current step.
        show: Shows one line.
        after_epoch: Makes a row of the history after each epoch.
        synchronize: Called in every process after the work that rank 0 does alone between two steps.
        guard: Ends the training if values are not finite.
        hints: Hints that are shown after an epoch.
        best: The weights of the best validations, which checkpoints name.
        early_stop: When the training stops early.
        gather: Exchanges vectors between processes, to name a slow one; None for one process.
    """

    stop: StopRequest = field(default_factory=StopRequest)
    show: Show = print
    after_epoch: AfterEpoch | None = None
    synchronize: Synchronize | None = None
    guard: Guard = field(default_factory=Guard)
    hints: Hints | None = None
    best: BestWeights | None = None
    early_stop: EarlyStop = EarlyStop(0)
    gather: Gather | None = None


class TrainingLoop:
    """Trains an engine from its current step to its last step.

    Args:
        engine: The engine to train.
        batches: Batches of this process.
        settings: Lengths and intervals.
        output: Output of the training, for checkpoints.
        hooks: Callbacks of the loop.

    Attributes:
        journal: The history of the training until now, and its sessions.
    """

    def __init__(
        self, engine: Engine, batches: Batches, settings: LoopSettings, output: Output, hooks: Hooks | None = None
    ) -> None:
        hooks = hooks or Hooks()
        self._engine, self._batches, self._settings = engine, batches, settings
        self._stop, self._show = hooks.stop, hooks.show
        self._losses, self.journal = LossRecord(hooks.guard, settings.is_scaled), Journal(settings.total_steps)
        self._checkpoints = Checkpoints(engine, self._losses, self.journal, output, settings, hooks.guard, hooks.best)
        self._best, self._ended = hooks.best, False
        self._events = self._event_files(output)
        draws = output.is_written and sys.stderr.isatty()
        self._bar = Progress("training", settings.total_steps, has_note=True) if draws else None
        self._shares = TimeShares()
        self._profiling = (
            Profiling(output.place.store, self._shares, output.is_written, hooks.show)
            if settings.need_profiler
            else None
        )
        self._parts = list(self._make_parts(output, hooks))

    def _make_parts(self, output: Output, hooks: Hooks) -> Iterator[tuple[Part, str]]:
        """Yield the parts in the order in which they are called, each with the phase to which its time belongs."""
        settings, speed = self._settings, Speed()
        if self._bar:
            yield Bar(self._bar.advance), REST
        lines = LogLines(self._engine, self._losses, self.journal, speed, settings, hooks.show)
        # The log line waits for the losses, which the device may still be computing.
        yield lines, STEPS
        if hooks.gather:
            yield SlowRanks(hooks.gather, self._shares, settings.log_interval, hooks.show), REST
        if self._profiling:
            # Before a validation, which has operators that a step does not have.
            yield self._profiling, PROFILER
        if output.is_written:
            note = self._bar.note if self._bar else None
            yield Outlook(settings.total_steps, hooks.show, note, settings.world, self._seconds_to_compile), REST
            yield BatchPictures(output.place.store, settings.pictured, settings.classes, speed), REST
        if hooks.after_epoch:
            yield EpochRows(hooks.after_epoch, self.journal, speed), VALIDATIONS
        if hooks.hints:
            yield HintLines(hooks.hints, self.journal), REST
        if hooks.after_epoch and output.is_written:
            yield EarlyEnd(hooks.early_stop, self.journal, lines, hooks.show), REST
        yield self._checkpoints, CHECKPOINTS
        if self._events:
            yield self._events, CHECKPOINTS
        if hooks.synchronize:
            yield Barrier(hooks.synchronize, self._is_waited_for), REST

    def _is_waited_for(self, moment: Moment) -> bool:
        """Tell whether the first process works alone after a step: it validates, writes a checkpoint or a profile."""
        is_analysed = self._profiling is not None and self._profiling.ends_after(moment)
        return moment.ends_epoch or self._checkpoints.is_due(moment) or is_analysed

    def _event_files(self, output: Output) -> EventFiles | None:
        """Return the event files, if they are switched on and this process writes them."""
        if not (self._settings.tensorboard and output.is_written):
            return None
        if not event_files.is_installed():
            self._show("warning: no TensorBoard files are written: tensorboardX is not installed (kubeyolo[train])")
            return None
        return EventFiles(output.place.store, output.identity, self.journal, self._checkpoints)

    def run(self, state: TrainingState | None = None) -> None:
        """Train to the last step, from a checkpoint if there is one; with a bar on a terminal.

        Raises:
            Interrupted: Stopped on request, after a checkpoint.
            NotFiniteError: The loss, or a value for a checkpoint, is not finite.
            WorkError: A different process has taken over the output.
        """
        if state is not None:
            self._restore(state)
        with self._bar or nullcontext():
            if self._bar:
                self._bar.advance(self._engine.step)
            try:
                while self._engine.step < self._settings.total_steps and not self._ended:
                    self._epoch()
            except Interrupted:
                self._finish_profile()
                raise
        self._finish_profile()
        compiled = self._engine.compilations.result
        if self._settings.sizes is not None and compiled.graphs:
            self._show(f"compiled {compiled.words}")

    def _restore(self, state: TrainingState) -> None:
        """Continue from a checkpoint."""
        self._engine.restore(state)
        self._losses.restore(state.pending)
        self.journal.restore(state)
        self._checkpoints.restore(state)
        if self._events:
            self._events.restore(state.step)
        if self._best:
            self._best.restore(state.best, self._show)
        self._ended = self.journal.is_stopped
        if self._profiling:
            self._profiling.restore()
        self._show(f"resuming at step {state.step} of {self._settings.total_steps}")

    def _finish_profile(self) -> None:
        if self._profiling:
            self._profiling.finish()

    def _epoch(self) -> None:
        """Train the remaining steps of an epoch."""
        engine = self._engine
        epoch, offset = divmod(engine.step, self._batches.steps_per_epoch)
        if self._stop.requested:
            # The first step compiles for minutes, and nothing is lost before it.
            self._end_early()
        enter = self._shares.enter
        enter(WAITING)
        for batch in self._batches_of(epoch, offset):
            self._announce_compilation(batch)
            enter(STEPS)
            images = [int(image) for image in getattr(batch, "indices", ())]
            losses = engine.train(batch.images, batch.labels)
            if self._profiling:
                losses.asnumpy()  # Wait for the device, so that the time is counted where it is spent.
            if engine.compilations.seconds:
                self._shares.rename(COMPILING)
            self._losses.add(engine.step, losses, images)
            moment = self._moment(epoch, batch)
            for part, phase_of_part in self._parts:
                enter(phase_of_part)
                part.after_step(moment)
            enter(WAITING)
            if moment.is_last:
                self._ended = True
                break
            if self._stop.requested:
                self._end_early()
        enter(REST)

    def _announce_compilation(self, batch: Any) -> None:
        """Show which size is compiled in the next step; only if the sizes of the images differ."""
        sizes, engine = self._settings.sizes, self._engine
        if sizes is None or engine.compilations.has(size := batch.images.shape[-1]):
            return
        line = engine.compilations.announcement(size, sizes.between(engine.step, self._settings.total_steps))
        self._show(line)
        if self._bar:
            self._bar.note(line)

    def _seconds_to_compile(self, step: int) -> float:
        """Return the estimated seconds of the compilations after a step."""
        sizes = self._settings.sizes
        if sizes is None:
            return 0.0
        return self._engine.compilations.seconds_for(sizes.between(step, self._settings.total_steps))

    def _moment(self, epoch: int, batch: Any) -> Moment:
        step, length = self._engine.step, self._batches.steps_per_epoch
        is_last = step == self._settings.total_steps
        return Moment(
            step,
            epoch,
            ends_epoch=is_last or step % length == 0,
            is_last=is_last,
            starts_epoch=(step - 1) % length == 0,
            batch=batch,
            compiled=self._engine.compilations.seconds,
        )

    def _batches_of(self, epoch: int, offset: int) -> Iterator[Any]:
        """Yield batches; write a checkpoint and stop if a stop signal also ended the loader workers of this process."""
        try:
            yield from self._batches.epoch(epoch, offset)
        except WorkError:
            if not self._stop.requested:
                time.sleep(_ORDER_SECONDS)
            if not self._stop.requested:
                raise
            self._end_early()

    def _end_early(self) -> NoReturn:
        """Stop between two steps, as requested.

        Raises:
            Interrupted: Always. A checkpoint is written first, unless the last step has a checkpoint already or no step
                is done.
        """
        step = self._engine.step
        if step == 0:
            raise Interrupted("stopped before the first training step")
        self._checkpoints.write(step)
        if self._events:
            self._events.write()
        raise Interrupted(f"stopped after step {step}")
