"""Whoever starts a training on a cluster stays with it: adopts or submits its job, follows it, and cleans up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError
from kubeyolo.launch.cluster import AlreadyExists, Cluster, Document, Unreachable
from kubeyolo.launch.manifest import BAD_INPUT, SPEC_ANNOTATION
from kubeyolo.launch.pods import PodWatch, Show
from kubeyolo.launch.queueing import check_queue, queue_report
from kubeyolo.launch.settings import ClusterSettings

_OVER = frozenset({"Completed", "Failed", "Aborted", "Terminated"})
_WAITING = frozenset({"", "Pending", "Inqueue", "Restarting"})


@dataclass(frozen=True)
class Pace:
    """How often and how long a shepherd does what, in seconds.

    Attributes:
        poll: Between two looks at the job.
        say: Between two lines that say for what it waits.
        patience: How long the API server may be away.
        pull: How long an image may fail to be pulled.
        settle: For the last lines of the logs.
        vanish: How long a job may take to be gone.
    """

    poll: float = 1.0
    say: float = 30.0
    patience: float = 300.0
    pull: float = 60.0
    settle: float = 3.0
    vanish: float = 120.0


class Shepherd:
    """Runs one job to its end.

    Args:
        cluster: Where to.
        manifest: The job.
        settings: Limits are taken from them.
        show: Takes each line.
        pace: How often it looks.
        clock: In seconds.
        is_replaced: Asked when this process is told to end: whether another one will adopt the job.
    """

    def __init__(
        self,
        cluster: Cluster,
        manifest: Mapping[str, Any],
        settings: ClusterSettings,
        show: Show,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_replaced: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cluster, self._manifest, self._settings = cluster, manifest, settings
        self._is_replaced = is_replaced
        self._show, self._pace, self._clock = show, pace or Pace(), clock
        self._name: str = manifest["metadata"]["name"]
        self._uid = ""
        self._watch: PodWatch | None = None
        self._away: float | None = None

    def run(self) -> None:
        """Train, and leave no job behind, whatever happens; but to another process that takes the place of this one.

        A job of this name that is under way is adopted. One that ended, or whose training is another one's, is not.

        Raises:
            InputError: The cluster cannot be used, or the trainer refused its input.
            WorkError: Training failed, or a limit has passed; with the reason of every failed pod.
        """
        for again in range(self._settings.resubmissions + 1):
            try:
                self._begin(adopt=again == 0)
                reason = self._follow()
            except (SystemExit, InterruptedWork):
                # A step that is told to end has less than a second: two short requests fit.
                if self._uid and self._is_replaced():
                    self._uid = ""
                    # Whoever has read these lines may be gone already.
                    with contextlib.suppress(OSError):
                        self._show(f"job {self._name} goes on: the next try of this step adopts it")
                raise
            finally:
                self._delete()
                if self._watch is not None:
                    self._watch.stop()
            if not reason:
                return
            if again == self._settings.resubmissions:
                raise WorkError(f"{reason}; gave up after {again + 1} jobs; the same command continues")
            self._show(f"{reason}; submitting again ({again + 1} of {self._settings.resubmissions})")

    def _begin(self, adopt: bool) -> None:
        """Adopt the job, or submit it once no old one is in the way."""
        end = self._clock() + self._pace.vanish
        adopted = False
        while True:
            job = self._cluster.job(self._name)
            if job is None:
                check_queue(self._cluster, self._manifest)
                try:
                    job = self._cluster.create_job(self._manifest)
                except AlreadyExists:
                    continue
                self._show(f"submitted job {self._name} to queue {self._settings.queue}")
                break
            going = not job["metadata"].get("deletionTimestamp")
            if adopt and going and _phase(job) not in _OVER:
                self._check_same(job)
                self._show(f"adopted job {self._name}, which is {_phase(job) or 'new'}")
                adopted = True
                break
            if going:
                self._cluster.delete_job(self._name, job["metadata"]["uid"])
            if self._clock() > end:
                raise WorkError(f"job {self._name}: an old one is not gone after {self._pace.vanish:.0f} s")
            time.sleep(self._pace.poll)
        self._uid = job["metadata"]["uid"]
        selector = f"volcano.sh/job-name={self._name}"
        self._watch = PodWatch(self._cluster, selector, self._show, history=not adopted)
        self._watch.start()

    def _check_same(self, job: Document) -> None:
        notes = job["metadata"].get("annotations") or {}
        if notes.get(SPEC_ANNOTATION) != self._manifest["metadata"]["annotations"][SPEC_ANNOTATION]:
            raise InputError(
                f"job {self._name} is there, and trains with other settings; wait for its end, or delete it: "
                f"kubectl -n {self._cluster.namespace} delete vcjob {self._name}"
            )

    def _follow(self) -> str:
        """Follow the job to its end; return empty when it is complete, else why it may be submitted again."""
        progress = _Progress(self._settings, self._pace, self._clock, self._show)
        while True:
            time.sleep(self._pace.poll)
            try:
                job = self._cluster.job(self._name)
                self._back()
            except KubeyoloError as error:
                self._wait_for_server(error)
                continue
            if job is None or job["metadata"]["uid"] != self._uid:
                raise WorkError(f"job {self._name} was deleted by somebody else; the same command continues")
            phase = _phase(job)
            if phase == "Completed":
                self._settle()
                return ""
            if phase in _OVER:
                self._settle()
                return self._failure(job, phase)
            assert self._watch is not None
            try:
                progress.look(job, phase, self._watch, self._cluster)
            except Unreachable as error:
                self._wait_for_server(error)

    def _failure(self, job: Document, phase: str) -> str:
        """Return why the job failed; raise it when another job would fail in the same way."""
        assert self._watch is not None
        failed = self._watch.failed()
        newest = max((facts.attempt for facts in failed), default="", key=lambda attempt: (len(attempt), attempt))
        failed = [facts for facts in failed if facts.attempt == newest]
        reports = "; ".join(facts.report() for facts in failed) or "no pod said why"
        refused = [facts for facts in failed if facts.exit_code == BAD_INPUT]
        if refused:
            raise InputError(refused[0].failure.removesuffix(f" (exit code {BAD_INPUT})"))
        retries = int(job.get("status", {}).get("retryCount", 0))
        said = f"job {self._name} is {phase}: {reports}"
        if phase != "Failed":
            raise WorkError(said)
        if self._settings.max_retry and retries >= self._settings.max_retry:
            raise WorkError(f"{said}; the gang was restarted {retries} times; the same command continues")
        return said

    def _settle(self) -> None:
        if self._watch is not None:
            self._watch.settle(self._pace.settle)

    def _wait_for_server(self, error: KubeyoloError) -> None:
        """Bear with an API server that is away for a while: the job needs it less than we do."""
        now = self._clock()
        if self._away is None:
            self._away = now
            self._show(f"warning: {error}; trying again for {self._pace.patience:.0f} s")
        elif now - self._away > self._pace.patience:
            raise error

    def _back(self) -> None:
        if self._away is not None:
            self._away = None
            self._show("the API server is back")

    def _delete(self) -> None:
        """Delete the job that is ours, if it is still there."""
        if not self._uid:
            return
        try:
            self._cluster.delete_job(self._name, self._uid)
        except KubeyoloError as error:
            self._show(
                f"warning: job {self._name} could not be deleted ({error}); "
                f"delete it: kubectl -n {self._cluster.namespace} delete vcjob {self._name}"
            )
        self._uid = ""


class _Progress:
    """Says aloud how a job gets on, and ends what takes too long."""

    def __init__(self, settings: ClusterSettings, pace: Pace, clock: Callable[[], float], show: Show) -> None:
        self._settings, self._pace, self._clock, self._show = settings, pace, clock, show
        self._phase: str | None = None
        self._since = clock()
        self._running_since: float | None = None
        self._say_at = clock()
        self._said = ""
        self._pull_since: float | None = None
        self._told: set[str] = set()

    def look(self, job: Document, phase: str, watch: PodWatch, cluster: Cluster) -> None:
        """Take the state of the job.

        Raises:
            InputError: A pod can never start.
            WorkError: A limit has passed.
        """
        now = self._clock()
        for facts in watch.failed():
            if facts.uid not in self._told:
                self._told.add(facts.uid)
                self._show(f"pod {facts.index} failed: {facts.failure}")
        if phase != self._phase:
            self._enter(job, phase, now, watch)
        self._check_containers(watch, now)
        if phase in _WAITING:
            report = queue_report(cluster, job, watch.present())
            waited = now - self._since
            if waited > self._settings.queue_limit:
                raise WorkError(
                    f"job {job['metadata']['name']} found no room within {self._settings.queue_limit} s "
                    f"(queue_limit): {report}"
                )
            if now >= self._say_at and (report != self._said or waited > self._pace.say):
                self._show(f"waiting since {waited:.0f} s: {report}")
                self._said, self._say_at = report, now + self._pace.say
        limit = self._settings.run_limit
        if limit and self._running_since is not None and now - self._running_since > limit:
            raise WorkError(f"job {job['metadata']['name']} ran longer than {limit} s (run_limit)")

    def _enter(self, job: Document, phase: str, now: float, watch: PodWatch) -> None:
        retries = int(job.get("status", {}).get("retryCount", 0))
        if phase == "Running":
            nodes = ", ".join(sorted({facts.node for facts in watch.present() if facts.node}))
            self._show(f"running on {nodes}" if nodes else "running")
            if self._running_since is None:
                self._running_since = now
        elif phase == "Restarting":
            self._show(f"the gang is restarted ({retries} of {self._settings.max_retry})")
        if phase in _WAITING and self._phase not in _WAITING:
            self._since = self._say_at = now
        self._phase = phase

    def _check_containers(self, watch: PodWatch, now: float) -> None:
        stuck = [facts for facts in watch.present() if facts.phase == "Pending" and facts.node and facts.waiting]
        if not stuck:
            self._pull_since = None
            return
        if self._pull_since is None:
            self._pull_since = now
        first = stuck[0]
        if first.hopeless or now - self._pull_since > self._pace.pull:
            raise InputError(f"pod {first.index} cannot start: {first.waiting}")


def _phase(job: Document) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase", ""))
