"""Whoever starts a training on a cluster stays with it: adopts or submits its job, follows it, and cleans up."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError
from kubeyolo.launch.cluster import AlreadyExists, Cluster, Document, Unreachable
from kubeyolo.launch.manifest import BAD_INPUT, OUTPUT_LABEL, SPEC_ANNOTATION, WORKFLOW_ANNOTATION
from kubeyolo.launch.patience import Patience
from kubeyolo.launch.pods import PodWatch, Show
from kubeyolo.launch.queueing import check_queue, queue_report
from kubeyolo.launch.settings import ClusterSettings

_OVER = frozenset({"Completed", "Failed", "Aborted", "Terminated"})
_WAITING = frozenset({"", "Pending", "Inqueue", "Restarting"})

_FEW = 10.0
"""Looks at the job, between which two launchers that are in each other's way choose by chance."""


@dataclass(frozen=True)
class Pace:
    """How often and how long a shepherd does what, in seconds.

    Attributes:
        poll: Between two looks at the job.
        say: Between two lines that say for what it waits.
        patience: How long the API server may be away.
        stuck: How long a pod may be unable to start for a reason that may pass, such as an image that is not pulled.
        settle: For the last lines of the logs.
        vanish: How long a job may take to be gone.
    """

    poll: float = 1.0
    say: float = 30.0
    patience: float = 300.0
    stuck: float = 180.0
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
        patient: Whether an API server that does not answer from the start is waited for; else only one that has
            answered before.
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
        patient: bool = False,
    ) -> None:
        self._cluster, self._manifest, self._settings = cluster, manifest, settings
        self._is_replaced = is_replaced
        self._show, self._pace, self._clock = show, pace or Pace(), clock
        self._name: str = manifest["metadata"]["name"]
        self._uid = ""
        self._submitting = False
        self._answered = patient
        self._taken_since: float | None = None
        self._watch: PodWatch | None = None
        self._patience = Patience(self._pace.patience, show, clock)

    def run(self) -> None:
        """Train, and leave no job behind, whatever happens; but to another process that takes the place of this one.

        A job of this name that is under way is adopted. One that has ended is not, nor one whose training is another
        one's, nor one of an earlier workflow of the same name.

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
                if self._watch is not None:
                    self._watch.stop()
                self._delete()
            if not reason:
                return
            if again == self._settings.resubmissions:
                raise WorkError(f"{reason}; gave up after {again + 1} jobs; the same command continues")
            self._show(f"{reason}; submitting again ({again + 1} of {self._settings.resubmissions})")

    def _begin(self, adopt: bool) -> None:
        """Adopt the job, or submit it once no old one is in the way."""
        since, adopted = self._clock(), False
        while True:
            try:
                job = self._cluster.job(self._name)
                self._answered = True
                if job is None:
                    since, self._submitting = self._clock(), False
                    check_queue(self._cluster, self._manifest)
                    job = None if self._is_taken() else self._submit()
                    if job is not None and self._stays(job):
                        break
                elif job["metadata"].get("deletionTimestamp"):
                    pass  # It will be gone.
                elif adopt and _phase(job) not in _OVER and self._is_of_this_workflow(job):
                    self._check_same(job)
                    adopted = not self._submitting
                    if adopted or self._stays(job):
                        break
                else:
                    self._cluster.delete_job(self._name, job["metadata"]["uid"])
                self._patience.answered()
            except Unreachable as error:
                if not self._answered:
                    raise
                self._patience.bear(error)
                since = self._clock()
            if self._clock() - since > self._pace.vanish:
                raise WorkError(f"job {self._name}: an old one is not gone after {self._pace.vanish:.0f} s")
            time.sleep(self._pace.poll)
        # First of all: whatever happens from here on, the job is known to be ours.
        self._uid, self._submitting = job["metadata"]["uid"], False
        self._patience.answered()
        if adopted:
            self._show(f"adopted job {self._name}, which is {_phase(job) or 'new'}")
        else:
            self._show(f"submitted job {self._name} to queue {self._settings.queue}")
        selector = f"volcano.sh/job-name={self._name}"
        self._watch = PodWatch(self._cluster, selector, self._show, history=not adopted)
        self._watch.start()

    def _submit(self) -> Document | None:
        """Create the job; return None when it has to be looked for again."""
        self._submitting = True
        try:
            return self._cluster.create_job(self._manifest)
        except Unreachable:
            raise  # The job may be there.
        except AlreadyExists:
            self._submitting = False
            return None
        except InputError:
            self._submitting = False
            raise

    def _stays(self, job: Document) -> bool:
        """Tell whether a job that was just made may stay: of two that were made at the same moment the older one may.

        Times of creation are whole seconds. When they are the same both go, and try again a little later.
        """
        if not self._others(before=job["metadata"]["creationTimestamp"]):
            return True
        self._cluster.delete_job(self._name, job["metadata"]["uid"])
        self._submitting = False
        time.sleep(random.uniform(0.0, _FEW) * self._pace.poll)
        return False

    def _is_taken(self) -> bool:
        """Tell whether another job trains into the same output; its end is waited for as room is."""
        others = self._others()
        if not others:
            self._taken_since = None
            return False
        now = self._clock()
        said = f"job {others[0]} trains into the same output"
        if self._taken_since is None:
            self._taken_since = now
            self._show(f"{said}; waiting for its end")
        elif now - self._taken_since > self._settings.queue_limit:
            raise WorkError(f"{said}, and has not ended within {self._settings.queue_limit} s (queue_limit)")
        return True

    def _others(self, before: str = "") -> list[str]:
        """Return the names of other jobs under way with the same output; only those made by then, where it is given."""
        output = self._manifest["metadata"]["labels"][OUTPUT_LABEL]
        return [
            job["metadata"]["name"]
            for job in self._cluster.jobs(f"{OUTPUT_LABEL}={output}")
            if job["metadata"]["name"] != self._name
            and _phase(job) not in _OVER
            and (not before or job["metadata"]["creationTimestamp"] <= before)
        ]

    def _is_of_this_workflow(self, job: Document) -> bool:
        """Tell whether a job was submitted by this workflow, and not by an earlier one that had the same name."""
        workflow = (job["metadata"].get("annotations") or {}).get(WORKFLOW_ANNOTATION)
        return workflow in (None, self._manifest["metadata"]["annotations"].get(WORKFLOW_ANNOTATION))

    def _check_same(self, job: Document) -> None:
        notes = job["metadata"].get("annotations") or {}
        if notes.get(SPEC_ANNOTATION) != self._manifest["metadata"]["annotations"][SPEC_ANNOTATION]:
            self._submitting = False  # What was submitted would be the same.
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
            except InterruptedWork:
                raise
            except KubeyoloError as error:
                self._patience.bear(error)
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
                self._patience.answered()
            except Unreachable as error:
                self._patience.bear(error)

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
        said = f"job {self._name} is {phase}: {reports}"
        if phase != "Failed":
            raise WorkError(said)
        if _restarts(job) > self._settings.max_retry:
            times = self._settings.max_retry
            raise WorkError(f"{said}; the gang was restarted {times} times; the same command continues")
        return said

    def _settle(self) -> None:
        if self._watch is not None:
            self._watch.settle(self._pace.settle)

    def _delete(self) -> None:
        """Delete the job that is ours, if it is still there."""
        if not self._uid and not self._submitting:
            return
        try:
            self._cluster.delete_job(self._name, self._uid)
        except (InterruptedWork, KeyboardInterrupt, SystemExit):
            # Told to end in the middle of it: once more, since that is what is to be done then.
            self._delete()
            raise
        except KubeyoloError as error:
            self._show(
                f"warning: job {self._name} could not be deleted ({error}); "
                f"delete it: kubectl -n {self._cluster.namespace} delete vcjob {self._name}"
            )
        self._uid, self._submitting = "", False


class _Progress:
    """Says aloud how a job gets on, and ends what takes too long."""

    def __init__(self, settings: ClusterSettings, pace: Pace, clock: Callable[[], float], show: Show) -> None:
        self._settings, self._pace, self._clock, self._show = settings, pace, clock, show
        self._phase: str | None = None
        self._since = clock()
        self._running_since: float | None = None
        self._say_at = clock()
        self._said = ""
        self._stuck_since: dict[str, float] = {}
        self._told: set[str] = set()
        self._restarts = 0

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
        restarts = _restarts(job)
        if self._restarts < restarts <= self._settings.max_retry:
            self._show(f"the gang is restarted ({restarts} of {self._settings.max_retry})")
        self._restarts = restarts
        if phase != self._phase:
            self._enter(phase, now, watch)
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

    def _enter(self, phase: str, now: float, watch: PodWatch) -> None:
        if phase == "Running":
            nodes = ", ".join(sorted({facts.node for facts in watch.present() if facts.node}))
            self._show(f"running on {nodes}" if nodes else "running")
            if self._running_since is None:
                self._running_since = now
        if phase in _WAITING and self._phase not in _WAITING:
            self._since = self._say_at = now
        self._phase = phase

    def _check_containers(self, watch: PodWatch, now: float) -> None:
        stuck = [facts for facts in watch.present() if facts.phase == "Pending" and facts.node and facts.waiting]
        self._stuck_since = {facts.uid: self._stuck_since.get(facts.uid, now) for facts in stuck}
        for facts in stuck:
            since = self._stuck_since[facts.uid]
            if facts.hopeless or now - since > self._pace.stuck:
                raise InputError(f"pod {facts.index} cannot start: {facts.waiting}")
            if since == now:
                self._show(f"pod {facts.index} does not start: {facts.waiting}; waiting for {self._pace.stuck:.0f} s")


def _phase(job: Document) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase", ""))


def _restarts(job: Document) -> int:
    """Return how often Volcano has begun to restart the gang; the last of them may have been one too many."""
    return int(job.get("status", {}).get("retryCount", 0))
