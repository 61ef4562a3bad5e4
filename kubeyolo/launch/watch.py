"""Deletes leftover training jobs of ended runs: ``python -m kubeyolo.launch.watch``, run by a separate Deployment.

The launcher deletes its job, and Kubernetes deletes what a deleted workflow owns. Neither happens when the step was
killed (out of memory, node lost) or when the job is in a different namespace than its run, because an owner must be in
the same namespace. The watch deletes these jobs. It keeps no state: after a restart it finds the same jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.launch.cluster import Cluster, Document, Unreachable
from kubeyolo.launch.manifest import POD_LABELS, RUN_LABEL, RUN_NAMESPACE_ANNOTATION, WORKFLOW_ANNOTATION
from kubeyolo.output_streams import Show, print_line
from kubeyolo.stop_signals import install

_PART_OF = "app.kubernetes.io/part-of"
_SELECTOR = f"{_PART_OF}={POD_LABELS[_PART_OF]},{RUN_LABEL}"
_ENDED = frozenset({"Succeeded", "Failed", "Error"})
_API_SERVER = "the API server"

_POLL_SECONDS, _LONGEST_POLL = 20.0, 40.0
_FIRST_RETRY_SECONDS = 2.0
_APART_SECONDS = 5.0
"""Shortest time, in seconds, between the two rounds that must both find a workflow missing."""


@dataclass(frozen=True)
class RunJob:
    """A training job, and the workflow that submitted it."""

    namespace: str
    name: str
    uid: str
    run: str
    run_namespace: str
    workflow_uid: str

    def __str__(self) -> str:
        return f"job {self.namespace}/{self.name}"

    @classmethod
    def of(cls, job: Document) -> RunJob | None:
        """Read a Volcano job; None if it does not name the workflow that submitted it."""
        meta = job["metadata"]
        notes = meta.get("annotations") or {}
        run = (meta.get("labels") or {}).get(RUN_LABEL)
        namespace, workflow = notes.get(RUN_NAMESPACE_ANNOTATION), notes.get(WORKFLOW_ANNOTATION)
        if not (run and namespace and workflow):
            return None
        return cls(meta["namespace"], meta["name"], meta["uid"], run, namespace, workflow)


def how_ended(workflow: Document) -> str:
    """Return how the run of a workflow has ended, such as ``has ended (Failed)``; empty while it runs.

    Kubeflow terminates a run by a deadline of zero seconds, Argo by ``shutdown``. The phase becomes Failed only when
    all pods have ended.
    """
    spec, phase = workflow.get("spec") or {}, (workflow.get("status") or {}).get("phase", "")
    if spec.get("activeDeadlineSeconds") == 0 or spec.get("shutdown"):
        return "was terminated"
    if phase in _ENDED:
        return f"has ended ({phase})"
    return "was deleted" if workflow["metadata"].get("deletionTimestamp") else ""


class Watch:
    """Checks the jobs of runs and deletes each job whose run has ended.

    Args:
        runs: Namespaces of the runs. Jobs of runs in other namespaces are not touched.
        jobs: Namespaces of the jobs.
        show: Shows a line.
        alive: Called after each request, whether it succeeded or not.
        connect: Returns the cluster for a namespace. It is called again in each round, so that renewed tokens and
            certificates are read.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        runs: Sequence[str],
        jobs: Sequence[str],
        show: Show,
        alive: Callable[[], None] = lambda: None,
        connect: Callable[[str], Cluster] = Cluster.connect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._jobs = frozenset(runs), tuple(dict.fromkeys(jobs))
        self._show, self._alive, self._connect, self._clock = show, alive, connect, clock
        self._clusters: dict[str, Cluster] = {}
        self._missing_since: dict[str, float] = {}
        self._failures: dict[str, str] = {}

    def run(self, poll: float, stop: threading.Event | None = None) -> None:
        """Check all jobs repeatedly, until stopped; check sooner than ``poll`` seconds after a failure."""
        stop, pause = stop or threading.Event(), 0.0
        retry = _FIRST_RETRY_SECONDS
        while not stop.wait(pause):
            try:
                succeeded = self.look()
            except Exception as error:  # An unexpected answer must not stop the watch.
                self._show(f"warning: this round failed: {one_line(repr(error), 300)}")
                succeeded = False
            pause, retry = (poll, _FIRST_RETRY_SECONDS) if succeeded else (min(poll, retry), min(poll, 2 * retry))

    def look(self) -> bool:
        """Check all jobs once, even if a request fails; return whether every request succeeded."""
        self._clusters.clear()
        failures_before, self._failures = self._failures, {}
        missing_before, self._missing_since = self._missing_since, {}
        # Jobs first: the workflow of a listed job existed when the job was submitted.
        for job in self._jobs_of_runs():
            how = ""
            with self._note_failure(f"reading workflows in namespace {job.run_namespace}"):
                how = self._how_ended(job, missing_before.get(job.uid))
            if how:
                with self._note_failure(f"deleting {job}"):
                    if self._cluster(job.namespace).delete_job(job.name, job.uid):
                        self._show(f"deleted {job}: run {job.run_namespace}/{job.run} {how}")
        self._report(failures_before)
        return not self._failures

    def _jobs_of_runs(self) -> list[RunJob]:
        jobs: list[RunJob] = []
        for namespace in self._jobs:
            with self._note_failure(f"listing jobs in namespace {namespace}"):
                present = [job for job in self._cluster(namespace).jobs(_SELECTOR) if not _is_being_deleted(job)]
                jobs += [job for job in map(RunJob.of, present) if job and job.run_namespace in self._runs]
        return jobs

    def _how_ended(self, job: RunJob, missing_since: float | None) -> str:
        workflow = self._cluster(job.run_namespace).workflow(job.run)
        if workflow is not None and workflow["metadata"]["uid"] == job.workflow_uid:
            return how_ended(workflow)
        now = self._clock()
        since = self._missing_since[job.uid] = now if missing_since is None else missing_since
        if missing_since is None or now - since < _APART_SECONDS:
            return ""
        return "does not exist any more" if workflow is None else "was deleted, and a different run has its name"

    def _cluster(self, namespace: str) -> Cluster:
        if namespace not in self._clusters:
            self._clusters[namespace] = self._connect(namespace)
        return self._clusters[namespace]

    @contextlib.contextmanager
    def _note_failure(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            self._failures[_API_SERVER] = str(error)
        except KubeyoloError as error:
            self._failures[doing] = str(error)
        self._alive()

    def _report(self, before: dict[str, str]) -> None:
        """Report once each request that starts to fail, and each request that succeeds again."""
        for error in dict.fromkeys(error for doing, error in self._failures.items() if doing not in before):
            self._show(f"warning: {error}; trying again")
        if _API_SERVER in self._failures:
            # Requests that failed before may not have been repeated in this round: they count as still failing.
            self._failures = {**before, **self._failures}
        for doing in before:
            if doing not in self._failures:
                self._show("the API server is back" if doing == _API_SERVER else f"{doing} works again")


def _is_being_deleted(job: Document) -> bool:
    return bool(job["metadata"].get("deletionTimestamp"))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    what = "Deletes leftover training jobs of ended runs."
    parser = argparse.ArgumentParser(prog="python -m kubeyolo.launch.watch", description=what)
    for name, which in (
        ("--runs", "of the runs, by default the namespace of this pod"),
        ("--jobs", "of training jobs, in addition to the namespaces of the runs"),
    ):
        text = f"namespace {which}; may be repeated"
        parser.add_argument(name, action="append", default=[], metavar="NAMESPACE", help=text)
    parser.add_argument("--poll", type=float, default=_POLL_SECONDS, metavar="SECONDS", help="between two rounds")
    parser.add_argument("--alive", type=Path, metavar="FILE", help="file that is touched after each request")
    chosen = parser.parse_args(argv)
    if not 1.0 <= chosen.poll <= _LONGEST_POLL:
        parser.error(f"--poll {chosen.poll:g}: expected 1 to {_LONGEST_POLL:g} seconds")
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Watch until a signal tells this process to end."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    # The first process of a container ignores a signal that it has no handler for.
    install(end)
    chosen = _arguments(argv)
    try:
        runs = chosen.runs or [Cluster.connect().home]
    except KubeyoloError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    jobs = [*runs, *chosen.jobs]
    print_line(f"watching jobs in {', '.join(dict.fromkeys(jobs))} of runs in {', '.join(runs)}")
    file: Path | None = chosen.alive

    def touch() -> None:
        if file is not None:
            file.touch()

    Watch(runs, jobs, print_line, touch).run(chosen.poll)


if __name__ == "__main__":
    main()
