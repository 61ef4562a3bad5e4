"""Watches a run on the cluster to its end, and shows its steps like the steps of a run on this machine.

The log of a step also has lines from Argo and Kubeflow; :func:`own_lines` leaves them out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from kubeyolo.compiled.resources import doubled
from kubeyolo.errors import InputError, KubeyoloError, WorkError
from kubeyolo.events import RunObserver, parse_event
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.connection import NoApi, Unreachable
from kubeyolo.kubeflow.remote import TERMINATED, RemoteRun, RemoteStep

POLL_SECONDS = 5.0
STUCK_SECONDS = 180.0
"""How long the pod of a step may be unable to start: the next attempt to pull its image may succeed."""

PATIENCE_SECONDS = 900.0
"""How long to wait while Kubeflow does not answer: its API server may be restarting."""

LAST_LINES = 15
_LOOKS = 6

_BEGUN = frozenset({"RUNNING", "SUCCEEDED", "FAILED", "CANCELED", "CANCELING"})


# Argo's emissary, Kubeflow's launcher (klog), and the executor of kfp.
_MACHINERY = re.compile(r"time=\S+ level=\w+ |[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ |\[KFP Executor ")


class TerminatedRun(KubeyoloError):
    """The run was terminated: by 'kubeyolo pipeline cancel', or in Kubeflow's user interface."""

    exit_code = 3


class _Seen:
    """Reports to an observer the events since the previous poll."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer
        self._state: dict[str, str] = {}

    def look(self, run: RemoteRun) -> None:
        for step in run.steps:
            before = self._state.get(step.name, "")
            if step.state == before:
                continue
            self._state[step.name] = step.state
            if step.state in ("SKIPPED", TERMINATED):
                continue
            if step.is_cached:
                self._observer.cached(step.name)
                continue
            if before not in _BEGUN and step.state in _BEGUN:
                self._observer.started(step.name)
            if step.state == "SUCCEEDED":
                self._observer.finished(step.name, seconds_of(step))
            elif step.state in ("FAILED", "CANCELED"):
                self._observer.failed(step.name, step.message)


class _Stuck:
    """Ends a run with a pod that can never start: Kubeflow would report the run as running forever."""

    def __init__(self, kubeflow: Kubeflow, limit: float) -> None:
        self._kubeflow, self._limit = kubeflow, limit
        self._step, self._since, self._look_at = "", 0.0, 0.0

    def look(self, run: RemoteRun) -> None:
        """Check the pods of a run at intervals.

        Raises:
            InputError: A pod was unable to start for too long; the run is terminated.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._limit / _LOOKS
        step, reason = self._kubeflow.stuck(run) or ("", "")
        if step != self._step:
            self._step, self._since = step, now
        if step and now - self._since >= self._limit:
            self._kubeflow.terminate(run.id)
            raise InputError(f"run {run.name} ({run.id}): {step} cannot start: {reason}; the run is terminated")


def follow(
    kubeflow: Kubeflow,
    run_id: str,
    observer: RunObserver,
    poll_seconds: float = POLL_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
    stuck_seconds: float = STUCK_SECONDS,
) -> RemoteRun:
    """Wait for the end of a run.

    Args:
        kubeflow: The client.
        run_id: Id of the run.
        observer: Receives the events of its steps.
        poll_seconds: Time between two polls.
        patience_seconds: How long to wait if Kubeflow does not answer.
        stuck_seconds: How long the pod of a step may be unable to start.

    Returns:
        The run, which has succeeded.

    Raises:
        WorkError: The run has failed; the message has the failing step and its last lines.
        InputError: One of its pods can never start; the run was terminated.
        TerminatedRun: Somebody has terminated the run.
        Unreachable: Kubeflow has not answered for too long. The run continues.
        NoApi: The login has expired. The run continues.
    """
    seen, silent_since, stuck = _Seen(observer), 0.0, _Stuck(kubeflow, stuck_seconds)
    while True:
        try:
            run = kubeflow.run(run_id)
            silent_since = 0.0
        except Unreachable as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > patience_seconds:
                raise Unreachable(
                    f"{error}; the run {run_id} continues: 'kubeyolo pipeline status {run_id}'"
                ) from error
            time.sleep(poll_seconds)
            continue
        except NoApi as error:
            raise NoApi(f"{error}; the run {run_id} continues: 'kubeyolo pipeline status {run_id}'") from error
        seen.look(run)
        if run.is_over:
            return check_end(kubeflow, run)
        stuck.look(run)
        time.sleep(poll_seconds)


def check_end(kubeflow: Kubeflow, run: RemoteRun) -> RemoteRun:
    """Return the run if it has succeeded.

    Raises:
        WorkError: It has failed.
        TerminatedRun: It was terminated.
    """
    if run.state == "SUCCEEDED":
        return run
    if run.state == TERMINATED:
        raise TerminatedRun(f"run {run.name} ({run.id}) was terminated")
    failed = [step for step in run.steps if step.state == "FAILED"]
    if not failed:
        raise WorkError(f"run {run.name} ({run.id}) failed: {run.message or kubeflow.why(run)}")
    step = failed[-1]
    limit = kubeflow.memory_kill(step)
    if limit is not None:
        raise WorkError(f"run {run.name} ({run.id}): {step.name} failed: {_out_of_memory(step.name, limit)}")
    lines = last_lines(kubeflow, run, step)
    why = " | ".join(lines) or step.message or run.message or "its log is not stored"
    raise WorkError(f"run {run.name} ({run.id}): {step.name} failed: {why}")


def _out_of_memory(step: str, limit: str) -> str:
    """Return that a step's pod was killed at its memory limit, which may be unknown, and the remedy."""
    more = doubled(limit) if limit else "QUANTITY"
    where = f"at the limit of its pod, {limit}" if limit else "by its node"
    return (
        f"out of memory (OOMKilled {where}); allow more with --resources {step}.memory={more} of 'kubeyolo pipeline', "
        "or lower batch size, image size or data.cache_limit_mb"
    )


def last_lines(kubeflow: Kubeflow, run: RemoteRun, step: RemoteStep) -> list[str]:
    """Return the last lines that a step itself has printed, or only its error if there is one."""
    try:
        lines = [line.strip() for line in own_lines(kubeflow.log(run.id, step).splitlines()) if line.strip()]
    except KubeyoloError:
        return []
    errors = [line for line in lines if line.startswith("error: ")]
    return [errors[-1].removeprefix("error: ")] if errors else lines[-LAST_LINES:]


def own_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log that were printed by the step; its final event is converted to readable text.

    Argo and Kubeflow also write JSON documents of several lines. Such a document starts at the end of one of their own
    log lines, or on the line after it.
    """
    in_document = after_machinery = False
    for line in lines:
        is_machinery, event = _MACHINERY.match(line) is not None, parse_event(line)
        # A document without an end must not hide the lines after it.
        if in_document and not (is_machinery or event or line.startswith("error: ")):
            in_document = line != "}"
            continue
        in_document = (is_machinery and line.endswith("{")) or (after_machinery and line == "{")
        after_machinery = is_machinery
        if is_machinery or in_document:
            continue
        if event is None:
            yield line
        elif event.kind == "finished":
            yield f"finished after {event.fields['seconds']:.1f} s: {event.fields['record']}"


def seconds_of(step: RemoteStep) -> float:
    """Return how many seconds a step has taken; for a running step, the seconds until now."""
    if step.started is None:
        return 0.0
    return max(0.0, ((step.ended or datetime.now(UTC)) - step.started).total_seconds())
