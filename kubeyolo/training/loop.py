"""The loop over epochs: steps, log lines, history, checkpoints, and an orderly end when told to stop."""

from __future__ import annotations

import gc
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from kubeyolo.errors import WorkError
from kubeyolo.progress import Progress
from kubeyolo.stop_signals import StopOrder, StopSignal, install
from kubeyolo.storage.base import Store
from kubeyolo.storage.claim import check_claim
from kubeyolo.training import history
from kubeyolo.training.checkpoints import TrainingState, write_checkpoint
from kubeyolo.training.finite import Guard
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.spec import TrainingSpec

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine

_ORDER_SECONDS = 0.2
"""How much later than its children a process may hear of a signal that goes to all of them."""

Print = Callable[[str], None]

AfterEpoch = Callable[[int, int], HistoryRow | None]
"""From the epoch and the steps done to a row of the history."""


class Interrupted(Exception):  # noqa: N818 - an order that was followed, no error
    """Training stopped at a checkpoint because the process was told to."""


class Batches(Protocol):
    """Where batches come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Yield batches with ``images`` and ``labels``."""


class StopRequest:
    """Remembers that the process was told to end; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.requested = False
        self._order = StopOrder()

    def install(self, listen: bool = True) -> None:
        """Take over the signals; a process that does not ``listen`` leaves the decision to rank 0."""
        install(self._set if listen else signal.SIG_IGN)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._order.is_second(number):
            raise StopSignal(number)


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and what to leave behind on the way.

    Attributes:
        total_steps: Steps of the whole run.
        images_per_step: Images of all processes.
        log_interval: Steps between two log lines.
        checkpoint_interval: Steps between two checkpoints; 0 writes one an epoch.
        keep_checkpoints: Checkpoints that are kept.
        kind: Kind of the rows in the history.
        parts: Names of the history's columns that hold the parts of the loss, "" for a part that has none.
    """

    total_steps: int
    images_per_step: int
    log_interval: int = 20
    checkpoint_interval: int = 0
    keep_checkpoints: int = 3
    kind: Any = "train"
    parts: tuple[str, ...] = ("box", "obj", "cls")


class LossRecord:
    """Losses of the steps since the last row; fetched from the device only when a row is made."""

    def __init__(self, guard: Guard) -> None:
        self.images: list[int] = []
        self._guard = guard
        self._fetched: list[list[float]] = []
        self._waiting: list[tuple[int, Any, list[int]]] = []

    def add(self, step: int, losses: Any, images: list[int]) -> None:
        """Keep the losses of a step, without waiting for them, and the images of its batch."""
        self.images = images
        self._waiting.append((step, losses, images))

    def rows(self) -> list[list[float]]:
        """Return the losses of all steps since ``clear``.

        Raises:
            NotFiniteError: A loss or the gradients' norm is not; names the step and the last finite losses.
        """
        for step, losses, images in self._waiting:
            values = [float(value) for value in losses.asnumpy()]
            if not all(math.isfinite(value) for value in values):
                last = self._fetched[-1] if self._fetched else None
                raise self._guard.loss(step, _brief(values), _brief(last) if last else "not known", images)
            self._fetched.append(values)
        self._waiting.clear()
        return self._fetched

    def restore(self, rows: Sequence[Sequence[float]]) -> None:
        """Start with the losses of a checkpoint."""
        self._fetched = [list(row) for row in rows]

    def clear(self) -> None:
        """Forget the losses: a row was made of them."""
        self._fetched = []


class TrainingLoop:
    """Steps an engine from where it is to the last step.

    Args:
        engine: Trained and restored here.
        batches: Of this process.
        store: Output of the run; None in processes that write nothing.
        settings: Lengths and intervals.
        identity: What the weights depend on, for the checkpoints.
        code_digest: Of the library, for the checkpoints.
        after_epoch: Called after the last step of each epoch; its row goes into the history.
        stop: Request to stop at the next step.
        show: Prints one line.
        advance: Told the number of steps done.
        meet: Called in every process, with the step, after what one process alone does between two steps.
        guard: Ends the training at values that are not finite.
        writer: Who may write in the output, by the claim there; empty without a claim.
    """

    def __init__(
        self,
        engine: Engine,
        batches: Batches,
        store: Store | None,
        settings: LoopSettings,
        identity: dict[str, Any],
        code_digest: str = "",
        after_epoch: AfterEpoch | None = None,
        stop: StopRequest | None = None,
        show: Print = print,
        advance: Callable[[int], None] | None = None,
        meet: Callable[[int], None] | None = None,
        guard: Guard | None = None,
        writer: str = "",
    ) -> None:
        self.history = TrainingHistory()
        self._engine = engine
        self._batches = batches
        self._store = store
        self._settings = settings
        self._identity = identity
        self._code_digest = code_digest
        self._after_epoch = after_epoch
        self._stop = stop or StopRequest()
        self._show = show
        self._advance = advance or (lambda steps: None)
        self._meet = meet or (lambda step: None)
        self.guard = guard or Guard()
        self._writer = writer
        self._record = LossRecord(self.guard)
        self._saved_step = -1
        self._since: float | None = None
        self._steps_since = 0
        self._former: list[tuple[int, float]] = []
        self._first_step, self._begun = 0, time.monotonic()

    def restore(self, state: TrainingState) -> None:
        """Continue from a checkpoint, history and all."""
        self._engine.restore(state)
        self._record.restore(state.pending)
        self.history = TrainingHistory.from_bytes(state.history)
        self._saved_step = state.step
        self._former, self._first_step = list(state.sessions), state.step
        if self._store is not None:
            # What was written after the checkpoint will be written again.
            self._store.write_bytes(history.FILE_NAME, state.history)

    @property
    def sessions(self) -> list[tuple[int, float]]:
        """First step and seconds of each stretch of training until now."""
        if self._first_step == self._settings.total_steps:
            return self._former
        return [*self._former, (self._first_step, round(time.monotonic() - self._begun, 2))]

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: Stopped on request, after a checkpoint.
            NotFiniteError: The loss is not finite, or what a checkpoint would hold.
            WorkError: Another process has taken the output over.
        """
        per_epoch, engine = self._batches.steps_per_epoch, self._engine
        while engine.step < self._settings.total_steps:
            epoch, offset = divmod(engine.step, per_epoch)
            if self._stop.requested:
                # Compiling takes minutes, and there is nothing to lose.
                self._end_early()
            for batch in self._batches_of(epoch, offset):
                images = [int(image) for image in getattr(batch, "indices", ())]
                self._record.add(engine.step + 1, engine.train(batch.images, batch.labels), images)
                self._count_step()
                self._advance(1)
                self._after_step(epoch, engine.step)
                if engine.step == self._settings.total_steps:
                    break

    def _batches_of(self, epoch: int, offset: int) -> Iterator[Any]:
        """Yield batches; where whoever ends a service has ended the loader's workers too, end in order."""
        try:
            yield from self._batches.epoch(epoch, offset)
        except WorkError:
            if not self._stop.requested:
                time.sleep(_ORDER_SECONDS)
            if not self._stop.requested:
                raise
            self._end_early()

    def _end_early(self) -> NoReturn:
        """End between two steps, as told.

        Raises:
            Interrupted: After a checkpoint, if a step is done that has none.
        """
        step = self._engine.step
        if step == 0:
            raise Interrupted("told to stop before its first step")
        self._checkpoint(step)
        raise Interrupted(f"told to stop at step {step}")

    def _count_step(self) -> None:
        if self._since is None:
            # The first step compiled the graph: it says nothing about the speed. What is there now stays: the
            # garbage collector need not look through MindSpore's modules again and again.
            gc.collect()
            gc.freeze()
            self._since = time.perf_counter()
        else:
            self._steps_since += 1

    def _after_step(self, epoch: int, step: int) -> None:
        settings = self._settings
        last = step == settings.total_steps
        epoch_ends = last or step % self._batches.steps_per_epoch == 0
        if step % settings.log_interval == 0 or last:
            self._log(epoch, step)
        if epoch_ends and self._after_epoch is not None:
            before = time.perf_counter()
            row = self._after_epoch(epoch, step)
            if self._since is not None:
                # What was done beside training says nothing about its speed.
                self._since += time.perf_counter() - before
            if row is not None:
                self.history.append(row)
        interval = settings.checkpoint_interval
        writes = last or (step % interval == 0 if interval else epoch_ends)
        if writes:
            self._checkpoint(step)
        if writes or epoch_ends:
            self._meet(step)
        if self._stop.requested and not last:
            self._end_early()

    def _log(self, epoch: int, step: int) -> None:
        rows = np.asarray(self._record.rows(), np.float64)
        self._record.clear()
        mean = rows.mean(0)
        images = self._settings.images_per_step
        now = time.perf_counter()
        rate = self._steps_since * images / max(now - (self._since or now), 1e-9)
        self._since, self._steps_since = now, 0
        parts = {name: float(mean[1 + i]) for i, name in enumerate(self._settings.parts) if name}
        row = HistoryRow(
            kind=self._settings.kind,
            step=step,
            epoch=epoch,
            loss=float(mean[1 : 1 + len(self._settings.parts)].sum()),
            lr=self._engine.learning_rate,
            images_per_second=round(rate, 2),
            **parts,
        )
        self.history.append(row)
        self._show(f"epoch[{epoch}], iter[{step}], loss:{row.loss:.6f}, {rate:.2f} imgs/sec, lr:{row.lr:.6g}")

    def _checkpoint(self, step: int) -> None:
        # Also in processes that write nothing: all of them stop at a loss that is not finite.
        pending = [list(row) for row in self._record.rows()]
        if self._saved_step == step:
            return
        if self._store is None:
            self.guard.check(step, self._engine.common(), self._record.images)
            return
        state = self._engine.capture(self._identity, self._code_digest)
        parts = {"weights": state.weights, "moments": state.moments, "ema": state.ema}
        self.guard.check(step, parts, self._record.images)
        state.pending = pending
        state.history = self.history.to_bytes()
        state.sessions = self.sessions
        check_claim(self._store, self._writer)
        write_checkpoint(self._store, state, self._settings.keep_checkpoints)
        self._store.write_bytes(history.FILE_NAME, state.history)
        self._saved_step = step


def run_loop(
    engine: Engine,
    batches: Batches,
    store: Store | None,
    settings: LoopSettings,
    identity: dict[str, Any],
    spec: TrainingSpec,
    state: TrainingState | None,
    stop: StopRequest,
    show: Print,
    after_epoch: AfterEpoch | None = None,
    meet: Callable[[int], None] | None = None,
    guard: Guard | None = None,
) -> TrainingLoop:
    """Run the loop from a checkpoint, or from the start when ``state`` is None; with a bar on a terminal."""
    bar = Progress("training", settings.total_steps) if store is not None and sys.stderr.isatty() else None
    loop = TrainingLoop(
        engine,
        batches,
        store,
        settings,
        identity,
        spec.code_digest,
        after_epoch,
        stop,
        show,
        bar.advance if bar else None,
        meet,
        guard,
        spec.writer,
    )
    if state is not None:
        loop.restore(state)
        show(f"resuming at step {state.step} of {settings.total_steps}")
    if bar is None:
        loop.run()
    else:
        with bar:
            bar.advance(engine.step)
            loop.run()
    return loop


def _brief(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
