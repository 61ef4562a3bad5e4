"""TensorBoard's event files of a training, in the folder ``events/`` of its output.

Event files are made from the rows of the history that a checkpoint contains, and a file is never changed: each file has
the rows since the file before it. A training that is continued from a checkpoint writes the rows after that checkpoint
again, and no file has these rows yet, so that no point is drawn twice. A store of objects has no files that grow, and
TensorBoard reads the files of a folder in the order of their names.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubeyolo.storage.base import Store
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training.history import HistoryRow
from kubeyolo.training.loop_parts import Checkpoints, Journal, Moment

FOLDER = "events"

INTERVAL_SECONDS = 60.0
"""Shortest time between two files, except for the last file."""

SCALARS = {
    "train": {
        "loss": "loss/total",
        "box": "loss/box",
        "obj": "loss/objectness",
        "cls": "loss/class",
        "lr": "learning_rate",
        "images_per_second": "images_per_second",
        "scale": "scale_of_loss",
        "skipped": "skipped_updates",
    },
    "val": {"ap": "validation/AP", "ap50": "validation/AP50"},
    "pretrain": {
        "loss": "loss/classification",
        "lr": "learning_rate",
        "images_per_second": "images_per_second",
        "accuracy": "validation/accuracy",
        "top5": "validation/top-5",
    },
}
"""Names of the curves by kind and column of a row."""

BY_CLASS = {"ap_by_class": "AP_by_class"}
"""Names of groups of curves by the column of a row that has a value for each class."""

_STEP = re.compile(r"\.step-(\d{8})$")


class EventFiles:
    """Writes an event file after a checkpoint, at most once a minute, and after the last step.

    Args:
        store: The output of the training.
        settings: Settings of the training, which TensorBoard shows as a table.
        journal: The history of the training.
        checkpoints: The checkpoints of the training.
    """

    def __init__(self, store: Store, settings: Mapping[str, Any], journal: Journal, checkpoints: Checkpoints) -> None:
        self._store, self._settings = store, settings
        self._journal, self._checkpoints = journal, checkpoints
        self._written_step = 0
        self._next_row = 0
        self._times: list[float] = []
        self._since = time.monotonic()

    def restore(self, step: int) -> None:
        """Continue after a checkpoint: remove files with later steps, and find the first row that no file has."""
        for key, last in _files(self._store):
            if last > step:
                self._store.delete(key)
            else:
                self._written_step = max(self._written_step, last)
        rows = self._journal.history.rows
        self._next_row = sum(row.step <= self._written_step for row in rows)
        self._times = [time.time()] * len(rows)

    def after_step(self, moment: Moment) -> None:
        """Remember the time of new rows; write a file if it is due."""
        rows = len(self._journal.history.rows)
        self._times += [time.time()] * (rows - len(self._times))
        if moment.is_last or time.monotonic() - self._since >= INTERVAL_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the rows that the newest checkpoint contains and no file has."""
        step, history = self._checkpoints.saved_step, self._journal.history.rows
        rows = [
            (row, self._times[number])
            for number, row in enumerate(history[self._next_row :], self._next_row)
            if row.step <= step
        ]
        if not rows:
            return
        with temporary_folder("events") as folder:
            path = _write(folder, rows, step, {} if self._next_row else self._settings)
            self._store.put_file(path, f"{FOLDER}/{path.name}")
        self._next_row += len(rows)
        self._written_step, self._since = step, time.monotonic()


def is_installed() -> bool:
    """Tell whether the package that writes event files is installed."""
    return importlib.util.find_spec("tensorboardX") is not None


def scalars_of(row: HistoryRow) -> Iterator[tuple[str, float]]:
    """Yield names and values of the points that a row adds to curves."""
    values = row.model_dump(exclude_none=True)
    for key, name in SCALARS.get(row.kind, {}).items():
        if key in values:
            yield name, float(values[key])
    for key, name in BY_CLASS.items():
        for of_class, value in values.get(key, {}).items():
            yield f"{name}/{of_class}", float(value)


def settings_table(settings: Mapping[str, Any]) -> str:
    """Return settings as a table in Markdown."""
    cells = ((key, str(value).replace("|", "\\|")) for key, value in sorted(settings.items()))
    return "\n".join(["| setting | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in cells)])


def _files(store: Store) -> Iterator[tuple[str, int]]:
    """Yield the keys of event files, with the step up to which each has rows."""
    for stored in store.list(FOLDER):
        if match := _STEP.search(stored.key):
            yield stored.key, int(match[1])


def _write(folder: Path, rows: Iterable[tuple[HistoryRow, float]], step: int, settings: Mapping[str, Any]) -> Path:
    """Write an event file and return its path; the second value of each row is the time that TensorBoard shows."""
    # Only here: a training without event files does not need the package.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import text

    writer = EventsWriter(str(folder / "events"), f".step-{step:08d}")
    if settings:
        summary = text("settings", settings_table(settings))
        writer.write_event(Event(wall_time=time.time(), step=0, summary=summary))
    for row, seconds in rows:
        points = [Summary.Value(tag=name, simple_value=value) for name, value in scalars_of(row)]
        writer.write_event(Event(wall_time=seconds, step=row.step, summary=Summary(value=points)))
    writer.close()
    (path,) = folder.iterdir()
    return path
