"""Where the time of a training goes: the parts of the loop, and with MindSpore's profiler the operators of some steps.

With ``train.need_profiler`` the folder ``profile/`` of the output has MindSpore's profile and ``summary.json``.
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.documents import NotJson, read_model
from kubeyolo.errors import one_line
from kubeyolo.formats import duration, share_text
from kubeyolo.output_streams import Show
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.training.loop_parts import Moment

FOLDER = "profile"
SUMMARY = f"{FOLDER}/summary.json"

SKIPPED_STEPS, PROFILED_STEPS = 2, 5
"""Steps at the start of a process that are not profiled, since the first compiles the graph, and steps that are."""

MOST_OPERATORS = 12

_LONGEST_FOLDER = 70

COMPILING, WAITING, STEPS, VALIDATIONS, CHECKPOINTS, PROFILER, REST = (
    "compiling and first step",
    "waiting for batches",
    "training steps",
    "validations",
    "checkpoints",
    "profiler",
    "rest",
)

# The columns of kinds of operators, their number, and their time in ms or us, in the files that MindSpore writes for
# processors and for Ascend.
_FILES = (
    ("cpu_op_type_info_*.csv", "op_type", "type_occurrences", "total_compute_time", 1e-3),
    ("op_statistic*.csv", "OP Type", "Count", "Total Time(us)", 1e-6),
)


class Operator(BaseModel):
    """A kind of operator: how often it ran in the profiled steps, and its time in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    count: int
    seconds: float


class ProfileSummary(BaseModel):
    """``summary.json``.

    Attributes:
        seconds: Time of all sessions by part of the loop.
        steps: First and last profiled step; empty if no step was profiled.
        operators: Kinds of operators in these steps, from long to short.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: dict[str, float] = {}
    steps: tuple[int, ...] = ()
    operators: tuple[Operator, ...] = ()

    def time_rows(self) -> list[tuple[str, str, str]]:
        """Return part, share and time of the parts of the loop, from long to short."""
        total = sum(self.seconds.values()) or 1.0
        rows = sorted(self.seconds.items(), key=lambda row: -row[1])
        return [(part, share_text(seconds / total), duration(seconds)) for part, seconds in rows if seconds > 0]

    def operator_rows(self) -> list[tuple[str, str, str, str]]:
        """Return kind, share of the time of all operators, time of a step and number in a step."""
        total = sum(each.seconds for each in self.operators) or 1.0
        steps = self.steps[1] - self.steps[0] + 1 if self.steps else 1
        return [
            (
                each.kind,
                share_text(each.seconds / total),
                f"{1e3 * each.seconds / steps:.2f} ms",
                f"{each.count / steps:g}",
            )
            for each in self.operators[:MOST_OPERATORS]
        ]

    def lines(self) -> list[str]:
        """Return the summary as a table for the log."""
        lines = ["time of this training:"]
        lines += [f"  {part:<26}{share:>8}  {seconds}" for part, share, seconds in self.time_rows()]
        if self.operators:
            lines.append(f"operators of the steps {self.steps[0]} to {self.steps[1]}, times of a step:")
            lines += [f"  {kind:<26}{share:>8}  {ms}, {count} x" for kind, share, ms, count in self.operator_rows()]
        return lines


class TimeShares:
    """Adds up the time of the parts of the loop."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._part, self._since = REST, time.perf_counter()

    def enter(self, part: str) -> None:
        """Count the time from now on for a part."""
        now = time.perf_counter()
        self.seconds[self._part] = self.seconds.get(self._part, 0.0) + now - self._since
        self._part, self._since = part, now

    def rename(self, part: str) -> None:
        """Count the time since the last call of :meth:`enter` for another part."""
        self._part = part


class Profiling:
    """Profiles some steps of rank 0 with MindSpore, and stores the profile and the summary.

    The other processes have this part as well, so that all know after which step rank 0 analyses the profile.

    Args:
        store: The output of the training.
        shares: The time of the parts of the loop.
        is_first: Whether this process profiles.
        show: Shows a line.
    """

    def __init__(self, store: Store, shares: TimeShares, is_first: bool, show: Show) -> None:
        self._store, self._shares, self._is_first, self._show = store, shares, is_first, show
        self._count = 0
        self._first_step: int | None = None
        self._last_step: int | None = None
        self._summary = ProfileSummary()
        self._profiler: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def restore(self) -> None:
        """Continue the summary of earlier sessions."""
        if self._is_first:
            self._summary = read_summary(self._store) or self._summary

    def ends_after(self, moment: Moment) -> bool:
        """Tell whether rank 0 has analysed the profile after this step."""
        return self._last_step == moment.step

    def after_step(self, moment: Moment) -> None:
        """Start or stop the profiler if it is due.

        The profiled steps are in the same epoch, so that no operators of a validation are among them.
        """
        self._count += 1
        if self._first_step is None:
            if self._count >= SKIPPED_STEPS and not moment.ends_epoch:
                self._first_step = moment.step + 1
                with self._reported():
                    self._start()
        elif self._last_step is None and (moment.ends_epoch or moment.step - self._first_step + 1 == PROFILED_STEPS):
            self._last_step = moment.step
            with self._reported():
                self._stop(self._first_step, moment.step)

    def finish(self) -> None:
        """Store the summary and show it; called when the loop ends, also early."""
        if not self._is_first:
            return
        self._shares.enter(REST)
        earlier, now = self._summary.seconds, self._shares.seconds
        seconds = {part: round(earlier.get(part, 0.0) + now.get(part, 0.0), 3) for part in {**earlier, **now}}
        summary = self._summary.model_copy(update={"seconds": seconds})
        self._store.write_bytes(SUMMARY, summary.model_dump_json(indent=1).encode())
        for line in summary.lines():
            self._show(line)

    def _start(self) -> None:
        if not self._is_first:
            return
        # Only here: MindSpore must be configured before it is imported.
        from mindspore.profiler import profile, tensorboard_trace_handler

        self._folder = tempfile.TemporaryDirectory(prefix="kubeyolo-profile-")
        self._profiler = profile(start_profile=False, on_trace_ready=tensorboard_trace_handler(self._folder.name))
        self._profiler.start()

    def _stop(self, first: int, last: int) -> None:
        if self._profiler is None or self._folder is None:
            return
        profiler, self._profiler = self._profiler, None
        with self._folder as folder:
            with _short_temporary_folder():
                profiler.stop()
            update = {"steps": (first, last), "operators": operators_of(Path(folder))}
            self._summary = self._summary.model_copy(update=update)
            for path in [each for each in Path(folder).iterdir() if each.is_dir()]:
                self._store.put_tree(path, f"{FOLDER}/{path.name}")
        self._show(f"profiled the steps {first} to {last}: {self._store.uri_of(FOLDER)}")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report an error of the profiler: a training does not end because of it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - MindSpore raises errors of any kind
            self._profiler = None
            reason = one_line(error, 200) or type(error).__name__
            self._show(f"warning: MindSpore's profiler failed, the training continues: {reason}")


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Let temporary files be in /tmp if the path of the temporary folder is long.

    MindSpore analyses a profile with several processes, whose sockets have paths of at most 107 characters.
    """
    former = tempfile.tempdir
    if len(tempfile.gettempdir()) > _LONGEST_FOLDER and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = former


def read_summary(store: Store) -> ProfileSummary | None:
    """Return the summary in an output; None if it has none."""
    with suppress(NotFound, ValidationError, NotJson):
        return read_model(store.read_bytes(SUMMARY), ProfileSummary, SUMMARY)
    return None


def operators_of(folder: Path) -> tuple[Operator, ...]:
    """Return the kinds of operators in a profile of MindSpore, from long to short; empty if unknown."""
    for pattern, kind, count, total, unit in _FILES:
        for path in sorted(folder.rglob(pattern)):
            with path.open(encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if row.get(kind)]
            kinds = [Operator(kind=row[kind], count=int(row[count]), seconds=unit * float(row[total])) for row in rows]
            return tuple(sorted(kinds, key=lambda each: -each.seconds))
    return ()
