"""A compiled pipeline run on this machine by kfp, each step in a process or a container of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from kubeyolo.compiled.bind import without_retries
from kubeyolo.compiled.read import pipeline_text
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError, one_line
from kubeyolo.events import RUN_PID, Event, RunObserver, StepRecord, parse_record
from kubeyolo.runs.cache import cached_outputs, forget_dangling
from kubeyolo.runs.folder import LOG_NAME, RunFolder, RunState, summary
from kubeyolo.runs.lock import run_lock
from kubeyolo.runs.runner import ProcessRunner, StepRunner
from kubeyolo.runs.step_process import StepEnd
from kubeyolo.runs.watch import CacheHits, StepLines, last_line
from kubeyolo.storage.file_errors import machine_error, machine_errors, make_folder
from kubeyolo.storage.location import parse
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import read_document

CACHE = ".cache"

# What kfp raises: of a failed step the first; of a container without results, which it takes for a success, when the
# next step asks for them; of an engine that refuses a container.
_KFP_ERRORS = (RuntimeError, ValueError, KeyError, OSError)


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """A run of a compiled pipeline on this machine.

    Attributes:
        name: Its name, that of its folder.
        model: Name of the detector.
        store: URI of its store.
        form: Text by field of the pipeline's form; ``data`` and ``store`` are absolute.
        pipeline: The compiled pipeline.
        places: URIs of what is read from, so that containers can see the folders among them.
        environment: Digest of the packages that compute: results of others are never taken from the cache.
    """

    name: str
    model: str
    store: str
    form: Mapping[str, str]
    pipeline: str = field(default_factory=pipeline_text, repr=False)
    places: tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True)
class RunOutcome:
    """A run that succeeded: its folder, its summary, and what its steps said."""

    folder: Path
    index: Path
    summary: dict[str, Any]
    state: RunState


def run_local(run: LocalRun, runs: Path, observer: RunObserver, runner: StepRunner | None = None) -> RunOutcome:
    """Run a pipeline here; steps that are done already are taken from kfp's cache.

    The same form on the same data is the same run: one that was interrupted goes on where it stopped, and training at
    its newest checkpoint. The index page is written whether the run succeeds or fails.

    Args:
        run: What to run, on what.
        runs: Folder of all runs; the run's own folder is made in it.
        observer: Told what happens.
        runner: Runs the steps; in processes without it.

    Raises:
        InputError: A step refused its input, the same run is under way, or the folder cannot be written.
        WorkError: A step failed; the message is its own. The disk of the folder is full.
    """
    parse(str(runs))
    folder = RunFolder(runs, run.name)
    state = RunState(run.name, run.model, run.form.get("data", ""), run.pipeline)
    with machine_errors(folder.path), run_lock(folder.path / "lock"):
        cache = make_folder(runs.absolute() / CACHE / run.environment)
        forget_dangling(cache, run.store)
        folder.open()
        watcher = _Watcher(state, cache, observer)
        try:
            with (folder.path / LOG_NAME).open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S %z')} {shlex.join(sys.argv)}\n")
                _execute(run.pipeline, run.form, folder.path, cache, log, watcher, runner or ProcessRunner())
            watcher.check()
        except BaseException as error:
            watcher.stop(error)
            # The error to report is the first one, also where the disk takes no page any more.
            with contextlib.suppress(OSError):
                folder.write(state)
            raise
        folder.write(state)
    return RunOutcome(folder.path, folder.index, summary(state), state)


class _Watcher:
    """Keeps the state of a run up to date with what is heard of its steps."""

    def __init__(self, state: RunState, cache: Path, observer: RunObserver) -> None:
        self.state = state
        self.failure: Event | None = None
        self._cache = cache
        self._observer = observer
        self._step = ""

    def on_event(self, event: Event) -> None:
        """Take an event of a step."""
        step = event.step
        known = self.state.steps.get(step)
        if known is None:
            return
        if event.kind == "started":
            self._step, known.status = step, "running"
            self._observer.started(step)
        elif event.kind == "finished":
            known.status, known.record = "succeeded", _read_record(event.fields["record"])
            self._step = ""
            self._observer.finished(step, event.fields["seconds"])
        else:
            self.failure = event
            known.status, known.message = "failed", event.fields["message"]
            known.report = event.fields.get("report", "")
            self._observer.failed(step, known.message, event.fields["exit_code"] == InterruptedWork.exit_code)

    def on_line(self, text: str) -> None:
        """Take a line that a step has printed."""
        self._observer.line(self._step, text)

    def on_hit(self, task: str, key: str) -> None:
        """Take the name of a task whose outputs were in the cache."""
        known = self.state.steps.get(task)
        record = cached_outputs(self._cache, key).get("record")
        if known is not None and record:
            known.status, known.record = "cached", _read_record(record)
            self._observer.cached(task)

    def check(self) -> None:
        """Look whether every step has left its record: a runner may call a failed step a success.

        Raises:
            WorkError: A step has not.
        """
        for step, known in self.state.steps.items():
            if known.record is None:
                raise WorkError(f"{step}: ended without its results; see {LOG_NAME} in the folder of the run")

    def stop(self, error: BaseException) -> None:
        """Note on the step that was running why it is not any more."""
        for known in self.state.steps.values():
            if known.status == "running":
                known.status = "failed"
                known.message = str(error) if isinstance(error, KubeyoloError) else "interrupted"


def _execute(
    text: str,
    arguments: Mapping[str, Any],
    folder: Path,
    cache: Path,
    log: TextIO,
    watcher: _Watcher,
    runner: StepRunner,
) -> None:
    """Run the compiled pipeline with kfp; what its steps have made, the watcher hears."""
    from kfp import components, local

    lines = StepLines(log, watcher.on_event, watcher.on_line)
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(runner.session(folder, text))
        stack.enter_context(_environment())
        stack.enter_context(_kfp_log(CacheHits(log, watcher.on_hit)))
        stack.enter_context(contextlib.redirect_stdout(lines))
        local.init(
            runner.kfp_runner(),
            pipeline_root=str(folder / "kfp"),
            enable_caching=True,
            cache_root=str(cache),
        )
        pipeline = components.load_component_from_text(without_retries(text))
        try:
            pipeline(**arguments)
        except BrokenPipeError:
            raise  # Nobody reads what the observer prints.
        except _KFP_ERRORS as error:
            if interruption.happened:
                raise KeyboardInterrupt(*_words_of_interruption(watcher)) from error
            raise _step_error(watcher, lines, runner.end_of_step(), folder, error) from error


def _words_of_interruption(watcher: _Watcher) -> tuple[str, ...]:
    """Return what the step has said that was told to end, if it has said something."""
    event = watcher.failure
    return () if event is None else (f"{event.step}: {event.fields['message']}",)


def _step_error(watcher: _Watcher, lines: StepLines, end: StepEnd, folder: Path, error: Exception) -> KubeyoloError:
    """Return the error that a step has reported, or one that says how it ended without a report."""
    if watcher.failure is not None:
        fields = watcher.failure.fields
        return (InputError if fields["exit_code"] == InputError.exit_code else WorkError)(fields["message"])
    machine = machine_error(error, folder) if isinstance(error, OSError) else None
    if machine is not None:
        return machine
    steps = watcher.state.steps
    running = [step for step, known in steps.items() if known.status == "running"]
    step = running[0] if running else next((step for step, known in steps.items() if known.record is None), "a step")
    where = f"see {folder / LOG_NAME}"
    if not end.how.startswith("exit code 0") and (end.how or running):
        last = last_line(end.lines or lines.tail)
        how = f" ({end.how})" if end.how else ""
        printed = f"it printed last: {last}" if last else "it printed nothing"
        return WorkError(f"{step}: ended without a report{how}; {printed}; {where}")
    # What kfp says of a step that has failed is that it has.
    known = "" if isinstance(error, RuntimeError) else f": {one_line(error, 300)}"
    return WorkError(f"{step}: its results are missing{known}; {where}")


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Tell the processes of the steps whose they are, and to write their lines at once."""
    values = {RUN_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _kfp_log(handler: logging.Handler) -> Iterator[None]:
    """Let kfp's log, which goes to the root logger, go to a handler of ours alone."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    root.handlers[:] = [handler]
    # A log whose disk is full ends the run at the next line of a step, not by a stack for each line of kfp.
    logging.raiseExceptions = False
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            # It warns of every image that has no "python" in its name.
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = raises


def _read_record(uri: str) -> StepRecord:
    place = split_reference(uri)[0]
    return parse_record(read_document(place), place)
