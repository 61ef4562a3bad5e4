"""Runs a compiled pipeline on this machine through kfp, each step in a separate process or container."""

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

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError, one_line
from kubeyolo.events import RUN_PID, Event, RunObserver, StepRecord, parse_record
from kubeyolo.processes import RUN
from kubeyolo.runs.cache import cached_outputs, forget_dangling
from kubeyolo.runs.folder import LOG_NAME, RunFolder, RunState, run_lock, summary
from kubeyolo.runs.runner import ProcessRunner, StepEnd, StepRunner
from kubeyolo.runs.watch import CacheHits, StepLines, last_line
from kubeyolo.storage.file_errors import machine_error, machine_errors, make_folder
from kubeyolo.storage.location import parse
from kubeyolo.storage.place import Place

CACHE = ".cache"

# Errors of kfp: the first error for a failed step; the other errors if the next step needs the results of a container
# that left none, which kfp treats as successful, and if an engine refuses a container.
_KFP_ERRORS = (RuntimeError, ValueError, KeyError, OSError)


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """A run of a compiled pipeline on this machine.

    Attributes:
        name: Name of the run and of its folder.
        model: Name of the detector.
        store: URI of the store.
        form: Values of the pipeline's form as text; ``data`` and ``store`` are absolute.
        pipeline: The compiled pipeline.
        sources: URIs of the input data, so that folders among them can be mounted into containers.
        environment: Digest of the packages that results depend on; results that depend on different packages are never
            taken from the cache.
    """

    name: str
    model: str
    store: str
    form: Mapping[str, str]
    pipeline: CompiledPipeline = field(default_factory=CompiledPipeline.named, repr=False)
    sources: tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True)
class RunOutcome:
    """A successful run: its folder, its summary, and the state of its steps."""

    folder: Path
    index: Path
    summary: dict[str, Any]
    state: RunState


def run_local(run: LocalRun, runs: Path, observer: RunObserver, runner: StepRunner | None = None) -> RunOutcome:
    """Run a pipeline on this machine; the results of finished steps are taken from kfp's cache.

    The same form on the same data is the same run: an interrupted run continues where it stopped, and its training
    continues from the newest checkpoint. The index page is written whether the run succeeds or fails.

    Args:
        run: What to run, and on which data.
        runs: Folder of all runs; the run's own folder is created in it.
        observer: Receives the events of the run.
        runner: Runs the steps; by default each in a process.

    Raises:
        InputError: A step refused its input, the same run is already running, or the folder cannot be written.
        WorkError: A step failed, with the message of the step; or the disk of the folder is full.
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
            # The first error is reported, even if the page cannot be written because the disk is full.
            with contextlib.suppress(OSError):
                folder.write(state)
            raise
        folder.write(state)
    return RunOutcome(folder.path, folder.index, summary(state), state)


class _Watcher:
    """Keeps the state of a run up to date with the events and lines of its steps."""

    def __init__(self, state: RunState, cache: Path, observer: RunObserver) -> None:
        self.state = state
        self.failure: Event | None = None
        self._cache = cache
        self._observer = observer
        self._step = ""

    def on_event(self, event: Event) -> None:
        """Record an event of a step."""
        step = event.step
        entry = self.state.steps.get(step)
        if entry is None:
            return
        if event.kind == "started":
            self._step, entry.status = step, "running"
            self._observer.started(step)
        elif event.kind == "finished":
            entry.status, entry.record = "succeeded", _read_record(event.fields["record"])
            self._step = ""
            self._observer.finished(step, event.fields["seconds"])
        else:
            self.failure = event
            entry.status, entry.message = "failed", event.fields["message"]
            entry.report = event.fields.get("report", "")
            self._observer.failed(step, entry.message, event.fields["exit_code"] == InterruptedWork.exit_code)

    def on_line(self, text: str) -> None:
        """Pass on a line that a step has printed."""
        self._observer.line(self._step, text)

    def on_hit(self, task: str, key: str) -> None:
        """Record that the outputs of a task were in the cache."""
        entry = self.state.steps.get(task)
        record = cached_outputs(self._cache, key).get("record")
        if entry is not None and record:
            entry.status, entry.record = "cached", _read_record(record)
            self._observer.cached(task)

    def check(self) -> None:
        """Check that every step has written its record: a runner may report a failed step as successful.

        Raises:
            WorkError: A step has no record.
        """
        for step, entry in self.state.steps.items():
            if entry.record is None:
                raise WorkError(f"{step}: ended without its results; see {LOG_NAME} in the folder of the run")

    def stop(self, error: BaseException) -> None:
        """Record why the running step was stopped."""
        for entry in self.state.steps.values():
            if entry.status == "running":
                entry.status = "failed"
                entry.message = str(error) if isinstance(error, KubeyoloError) else "interrupted"


def _execute(
    compiled: CompiledPipeline,
    arguments: Mapping[str, Any],
    folder: Path,
    cache: Path,
    log: TextIO,
    watcher: _Watcher,
    runner: StepRunner,
) -> None:
    """Run the compiled pipeline with kfp; the watcher receives the events of its steps."""
    from kfp import components, local

    lines = StepLines(log, watcher.on_event, watcher.on_line)
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(runner.session(folder, compiled))
        stack.enter_context(_environment(folder.name))
        stack.enter_context(_kfp_log(CacheHits(log, watcher.on_hit)))
        stack.enter_context(contextlib.redirect_stdout(lines))
        local.init(
            runner.kfp_runner(),
            pipeline_root=str(folder / "kfp"),
            enable_caching=True,
            cache_root=str(cache),
        )
        pipeline = components.load_component_from_text(compiled.without_retries().text)
        try:
            pipeline(**arguments)
        except BrokenPipeError:
            raise  # The reader of the observer's output has ended.
        except _KFP_ERRORS as error:
            if interruption.happened:
                raise KeyboardInterrupt(*_interruption_message(watcher)) from error
            raise _step_error(watcher, lines, runner.end_of_step(), folder, error) from error


def _interruption_message(watcher: _Watcher) -> tuple[str, ...]:
    """Return the message of the step that was stopped by a signal, if there is one."""
    event = watcher.failure
    return () if event is None else (f"{event.step}: {event.fields['message']}",)


def _step_error(watcher: _Watcher, lines: StepLines, end: StepEnd, folder: Path, error: Exception) -> KubeyoloError:
    """Return the error that a step has reported, or an error that tells how the step ended without a report."""
    if watcher.failure is not None:
        fields = watcher.failure.fields
        return (InputError if fields["exit_code"] == InputError.exit_code else WorkError)(fields["message"])
    machine = machine_error(error, folder) if isinstance(error, OSError) else None
    if machine is not None:
        return machine
    steps = watcher.state.steps
    running = [step for step, entry in steps.items() if entry.status == "running"]
    step = running[0] if running else next((step for step, entry in steps.items() if entry.record is None), "a step")
    where = f"see {folder / LOG_NAME}"
    if not end.how.startswith("exit code 0") and (end.how or running):
        last = last_line(end.lines or lines.tail)
        how = f" ({end.how})" if end.how else ""
        printed = f"it printed last: {last}" if last else "it printed nothing"
        return WorkError(f"{step}: ended without a report{how}; {printed}; {where}")
    # For a failed step kfp reports only that it failed.
    reason = "" if isinstance(error, RuntimeError) else f": {one_line(error, 300)}"
    return WorkError(f"{step}: its results are missing{reason}; {where}")


@contextlib.contextmanager
def _environment(name: str) -> Iterator[None]:
    """Set the environment variables of the steps: name and process id of the run, unbuffered output, no warnings."""
    values = {RUN: name, RUN_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextlib.contextmanager
def _kfp_log(handler: logging.Handler) -> Iterator[None]:
    """Send kfp's log, which goes to the root logger, to this handler only."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    root.handlers[:] = [handler]
    # If the disk is full, the next line of a step ends the run; logging would print a stack for each line of kfp.
    logging.raiseExceptions = False
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            # kfp warns of every image without "python" in its name.
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = raises


def _read_record(uri: str) -> StepRecord:
    place = Place.of(uri).pinned("")
    return parse_record(place.read(), place.uri)
