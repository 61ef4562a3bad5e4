"""How long a training still takes and how much memory its processes use, as a text for the bar and the log."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from kubeyolo.formats import duration, share_text, size_text
from kubeyolo.memory import memory_of
from kubeyolo.output_streams import Show
from kubeyolo.resources import usable_memory
from kubeyolo.training.loop_parts import Moment

RECENT_SECONDS = 300.0
"""The remaining time is estimated from the steps of this time, with the validations and checkpoints in it."""

FIRST_LINE_SECONDS, LINE_SECONDS = 60.0, 300.0
"""Time from the first step to the first line, and between two lines, of a log without a bar."""

BAR_SECONDS = 2.0
"""Time between two texts of the bar: measuring the memory takes some milliseconds."""


class RemainingTime:
    """Estimates the remaining time from the recent steps.

    Steps that compile a graph are left out.
    """

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._recent: deque[tuple[float, int]] = deque()
        self._compiled_steps, self._compiled_seconds = 0, 0.0

    def count(self, step: int, now: float, compiled: float = 0.0) -> None:
        """Note that a step was finished at a time in seconds; ``compiled`` are its seconds if it compiled a graph."""
        if compiled:
            self._compiled_steps += 1
            self._compiled_seconds += compiled
        step, now = self._without_compilations(step, now)
        # A second is the finest grain, so that a training with short steps keeps few values.
        if not self._recent or now - self._recent[-1][0] >= 1:
            self._recent.append((now, step))
        while len(self._recent) > 2 and now - self._recent[1][0] > RECENT_SECONDS:
            self._recent.popleft()

    def seconds(self, step: int, now: float) -> float | None:
        """Return the remaining time in seconds after a step, without compilations; None after the first step."""
        left = self._total - step
        step, now = self._without_compilations(step, now)
        since, first = self._recent[0] if self._recent else (now, step)
        return None if step == first else left * (now - since) / (step - first)

    def _without_compilations(self, step: int, now: float) -> tuple[int, float]:
        return step - self._compiled_steps, now - self._compiled_seconds


class Outlook:
    """Shows the remaining time and the memory: at the end of the bar, or else as a line every few minutes.

    Args:
        total_steps: Steps of the whole training.
        show: Shows a line in the log.
        note: Shows a text at the end of the bar; None if there is no bar.
        world: Number of training processes; several processes of this machine have the same parent.
        compiling: Returns the estimated seconds of the compilations after a step.
    """

    def __init__(
        self,
        total_steps: int,
        show: Show,
        note: Callable[[str], None] | None = None,
        world: int = 1,
        compiling: Callable[[int], float] = lambda step: 0.0,
    ) -> None:
        self._total, self._show, self._note, self._compiling = total_steps, show, note, compiling
        self._pid = os.getpid() if world == 1 else os.getppid()
        self._remaining = RemainingTime(total_steps)
        self._due: float | None = None

    def after_step(self, moment: Moment) -> None:
        """Show the text if it is due."""
        now = time.monotonic()
        self._remaining.count(moment.step, now, moment.compiled)
        if self._due is None:
            self._due = now + (BAR_SECONDS if self._note else FIRST_LINE_SECONDS)
        if now < self._due or moment.is_last:
            return
        self._due = now + (BAR_SECONDS if self._note else LINE_SECONDS)
        seconds = self._remaining.seconds(moment.step, now)
        if seconds is not None:
            seconds += self._compiling(moment.step)
        text = outlook_text(seconds, memory_of(self._pid), usable_memory())
        if self._note:
            self._note(text)
        else:
            self._show(f"training: {share_text(moment.step / self._total, 0)} done, {text}")


def outlook_text(seconds: float | None, used: int, limit: int | None) -> str:
    """Return the remaining time, and the used memory of the memory that may be used: both in bytes."""
    memory = f"{size_text(used)} of {size_text(limit)} memory" if limit else f"{size_text(used)} memory"
    parts = ([] if seconds is None else [f"{duration(seconds)} left"]) + ([memory] if used else [])
    return ", ".join(parts)
