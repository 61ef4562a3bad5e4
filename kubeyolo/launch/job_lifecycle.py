"""The life of a Volcano job: it is adopted or submitted, followed to its end, and deleted."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError
from kubeyolo.launch.cluster import AlreadyExists, Cluster, Document, Outage, Unreachable
from kubeyolo.launch.manifest import BAD_INPUT, OUTPUT_LABEL, SPEC_ANNOTATION, WORKFLOW_ANNOTATION
from kubeyolo.launch.pods import PodFacts, PodWatch
from kubeyolo.launch.queueing import check_queue, queue_report
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.output_streams import Show

_OVER = frozenset({"Completed", "Failed", "Aborted", "Terminated"})
_WAITING = frozenset({"", "Pending", "Inqueue", "Restarting"})

_FEW = 10.0
"""Longest random pause, as a number of polls, of a launcher whose job was submitted at the same time as another job."""


@dataclass(frozen=True)
class Timing:
    """How often a job is polled, and the limits of each wait, in seconds.

    Attributes:
        poll: Time between two polls of the job.
        report: Time between two lines about the reason why the job waits.
        outage: How long the API server may be unreachable.
        stuck: How long a pod may be unable to start for a temporary reason, such as an image that is not pulled.
        settle: How long to wait for the last lines of the logs.
        deletion: How long a deleted job may take to disappear.
    """

    poll: float = 1.0
    report: float = 30.0
    outage: float = 300.0
    stuck: float = 180.0
    settle: float = 3.0
    deletion: float = 120.0


class JobLifecycle:
    """Runs one job to its end.

    Args:
        cluster: Cluster of the job.
        manifest: Manifest of the job.
        settings: Cluster settings, with the limits of waiting and running.
        show: Shows a line.
        timing: How often to poll.
        is_replaced: Called after a stop signal; tells whether a different process will adopt the job.
        waits_from_start: Whether to wait for an API server that has never answered; if not, only outages after its
            first answer are tolerated.
    """

    def __init__(
        self,
        cluster: Cluster,
        manifest: Mapping[str, Any],
        settings: ClusterSettings,
        show: Show,
        timing: Timing,
        *,
        is_replaced: Callable[[], bool],
        waits_from_start: bool,
    ) -> None:
        self._cluster, self._manifest, self._settings = cluster, manifest, settings
        self._show, self._timing, self._is_replaced = show, timing, is_replaced
        self._name: str = manifest["metadata"]["name"]
        self._uid = ""
        self._submitting = False
        self._answered = waits_from_start
        self._taken_since: float | None = None
        self._watch: PodWatch | None = None
        self._outage = Outage(timing.outage, show)

    def run(self) -> None:
        """Train, and delete the job at the end, unless a different process will adopt it.

        A running job with this name is adopted. A job that has ended, and a job of an earlier workflow with the same
        name, are deleted; a running job of a different training is an error.

        Raises:
            InputError: The cluster cannot be used, or the trainer refused its input.
            WorkError: Training failed, or a limit has passed; with the reason why each pod failed.
        """
        for again in range(self._settings.resubmissions + 1):
            try:
                self._begin(adopt=again == 0)
                reason = self._follow()
            except (SystemExit, InterruptedWork):
                # After its stop signal a step has less than a second: two short requests fit.
                if self._uid and self._is_replaced():
                    self._uid = ""
                    # The program that reads these lines may have ended already.
                    with contextlib.suppress(OSError):
                        self._show(f"job {self._name} continues: the next attempt of this step adopts it")
                raise
            finally:
                if self._watch is not None:
                    self._watch.stop()
                self._delete()
            if not reason:
                return
            if again == self._settings.resubmissions:
                raise WorkError(
                    f"{reason}; no further job after {again + 1} jobs; run the same command again to continue"
                )
            self._show(f"{reason}; submitting again ({again + 1} of {self._settings.resubmissions})")

    def _begin(self, adopt: bool) -> None:
        """Adopt the job, or submit it as soon as no old job has its name."""
        since, adopted = time.monotonic(), False
        while True:
            try:
                job = self._cluster.job(self._name)
                self._answered = True
                if job is None:
                    since, self._submitting = time.monotonic(), False
                    check_queue(self._cluster, self._manifest)
                    job = None if self._is_taken() else self._submit()
                    if job is not None and self._stays(job):
                        break
                elif job["metadata"].get("deletionTimestamp"):
                    pass  # The old job will disappear.
                elif adopt and _phase(job) not in _OVER and self._is_of_this_workflow(job):
                    self._check_same(job)
                    adopted = not self._submitting
                    if adopted or self._stays(job):
                        break
                else:
                    self._cluster.delete_job(self._name, job["metadata"]["uid"])
                self._outage.answered()
            except Unreachable as error:
                if not self._answered:
                    raise
                self._outage.failed(error)
                since = time.monotonic()
            if time.monotonic() - since > self._timing.deletion:
                raise WorkError(
                    f"job {self._name}: the old job of this name still exists {self._timing.deletion:.0f} s "
                    "after it was deleted"
                )
            time.sleep(self._timing.poll)
        # Set first: whatever happens after this line, this process must delete the job.
        self._uid, self._submitting = job["metadata"]["uid"], False
        self._outage.answered()
        if adopted:
            self._show(f"adopted job {self._name}, which is {_phase(job) or 'new'}")
        else:
            self._show(f"submitted job {self._name} to queue {self._settings.queue}")
        selector = f"volcano.sh/job-name={self._name}"
        self._watch = PodWatch(self._cluster, selector, self._show, history=not adopted)
        self._watch.start()

    def _submit(self) -> Document | None:
        """Create the job; return None if a job with this name exists."""
        self._submitting = True
        try:
            return self._cluster.create_job(self._manifest)
        except Unreachable:
            raise  # The job may exist.
        except AlreadyExists:
            self._submitting = False
            return None
        except InputError:
            self._submitting = False
            raise

    def _stays(self, job: Document) -> bool:
        """Tell whether a new job may stay; delete it if a job that is not younger trains into the same output.

        Creation times are whole seconds. If they are equal, both launchers delete their job and submit it again after a
        random pause.
        """
        if not self._others(before=job["metadata"]["creationTimestamp"]):
            return True
        self._cluster.delete_job(self._name, job["metadata"]["uid"])
        self._submitting = False
        time.sleep(random.uniform(0.0, _FEW) * self._timing.poll)
        return False

    def _is_taken(self) -> bool:
        """Tell whether a different job trains into the same output; raise an error if it does after ``queue_limit``."""
        others = self._others()
        if not others:
            self._taken_since = None
            return False
        now = time.monotonic()
        reason = f"job {others[0]} trains into the same output"
        if self._taken_since is None:
            self._taken_since = now
            self._show(f"{reason}; waiting for its end")
        elif now - self._taken_since > self._settings.queue_limit:
            raise WorkError(f"{reason}, and has not ended within {self._settings.queue_limit} s (queue_limit)")
        return True

    def _others(self, before: str = "") -> list[str]:
        """Return the names of other running jobs with the same output, created no later than ``before`` (if set)."""
        output = self._manifest["metadata"]["labels"][OUTPUT_LABEL]
        return [
            job["metadata"]["name"]
            for job in self._cluster.jobs(f"{OUTPUT_LABEL}={output}")
            if job["metadata"]["name"] != self._name
            and _phase(job) not in _OVER
            and (not before or job["metadata"]["creationTimestamp"] <= before)
        ]

    def _is_of_this_workflow(self, job: Document) -> bool:
        """Tell whether a job was submitted by this workflow, and not by an earlier workflow with the same name."""
        workflow = (job["metadata"].get("annotations") or {}).get(WORKFLOW_ANNOTATION)
        return workflow in (None, self._manifest["metadata"]["annotations"].get(WORKFLOW_ANNOTATION))

    def _check_same(self, job: Document) -> None:
        notes = job["metadata"].get("annotations") or {}
        if notes.get(SPEC_ANNOTATION) != self._manifest["metadata"]["annotations"][SPEC_ANNOTATION]:
            self._submitting = False  # A job of this process would have the same settings.
            raise InputError(
                f"job {self._name} exists, and trains with different settings; wait for its end, or delete it: "
                f"kubectl -n {self._cluster.namespace} delete vcjob {self._name}"
            )

    def _follow(self) -> str:
        """Follow the job to its end; return an empty string if it is complete, else the reason to submit it again."""
        watch, progress = self._watch, _Progress(self._settings, self._timing, self._show)
        assert watch is not None
        while True:
            time.sleep(self._timing.poll)
            try:
                job = self._cluster.job(self._name)
            except InterruptedWork:
                raise
            except KubeyoloError as error:
                self._outage.failed(error)
                continue
            if job is None or job["metadata"]["uid"] != self._uid:
                raise WorkError(
                    f"job {self._name} was deleted by somebody else; run the same command again to continue"
                )
            phase = _phase(job)
            if phase in _OVER:
                watch.settle(self._timing.settle)
                return "" if phase == "Completed" else self._failure(job, phase, watch.failed())
            try:
                progress.look(job, phase, watch, self._cluster)
                self._outage.answered()
            except Unreachable as error:
                self._outage.failed(error)

    def _failure(self, job: Document, phase: str, failed: list[PodFacts]) -> str:
        """Return why the job failed; raise the reason as an error if a new job would fail in the same way."""
        newest = max((facts.attempt for facts in failed), default="", key=lambda attempt: (len(attempt), attempt))
        failed = [facts for facts in failed if facts.attempt == newest]
        reports = "; ".join(facts.report() for facts in failed) or "no pod has reported a reason"
        refused = [facts for facts in failed if facts.exit_code == BAD_INPUT]
        if refused:
            raise InputError(refused[0].failure.removesuffix(f" (exit code {BAD_INPUT})"))
        summary = f"job {self._name} is {phase}: {reports}"
        if phase != "Failed":
            raise WorkError(summary)
        if _restarts(job) > self._settings.max_retry:
            times = self._settings.max_retry
            raise WorkError(f"{summary}; the gang was restarted {times} times; run the same command again to continue")
        return summary

    def _delete(self) -> None:
        """Delete the job of this process, if it still exists."""
        if not self._uid and not self._submitting:
            return
        try:
            self._cluster.delete_job(self._name, self._uid)
        except (InterruptedWork, KeyboardInterrupt, SystemExit):
            # A signal interrupted the request: send it again, since the job must be deleted in this case too.
            self._delete()
            raise
        except KubeyoloError as error:
            self._show(
                f"warning: job {self._name} could not be deleted ({error}); "
                f"delete it: kubectl -n {self._cluster.namespace} delete vcjob {self._name}"
            )
        self._uid, self._submitting = "", False


class _Progress:
    """Reports the progress of a job, and raises an error if the job takes too long."""

    def __init__(self, settings: ClusterSettings, timing: Timing, show: Show) -> None:
        self._settings, self._timing, self._show = settings, timing, show
        self._phase: str | None = None
        self._since = self._report_at = time.monotonic()
        self._running_since: float | None = None
        self._last_report = ""
        self._stuck_since: dict[str, float] = {}
        self._reported: set[str] = set()
        self._restarts = 0

    def look(self, job: Document, phase: str, watch: PodWatch, cluster: Cluster) -> None:
        """Report the state of the job, and check the limits.

        Raises:
            InputError: A pod can never start.
            WorkError: A limit has passed.
        """
        now = time.monotonic()
        for facts in watch.failed():
            if facts.uid not in self._reported:
                self._reported.add(facts.uid)
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
                    f"job {job['metadata']['name']} was not placed within {self._settings.queue_limit} s "
                    f"(queue_limit): {report}"
                )
            if now >= self._report_at and (report != self._last_report or waited > self._timing.report):
                self._show(f"waiting for {waited:.0f} s: {report}")
                self._last_report, self._report_at = report, now + self._timing.report
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
            self._since = self._report_at = now
        self._phase = phase

    def _check_containers(self, watch: PodWatch, now: float) -> None:
        stuck = [facts for facts in watch.present() if facts.phase == "Pending" and facts.node and facts.waiting]
        self._stuck_since = {facts.uid: self._stuck_since.get(facts.uid, now) for facts in stuck}
        for facts in stuck:
            since = self._stuck_since[facts.uid]
            if facts.hopeless or now - since > self._timing.stuck:
                raise InputError(f"pod {facts.index} cannot start: {facts.waiting}")
            if since == now:
                self._show(f"pod {facts.index} does not start: {facts.waiting}; waiting for {self._timing.stuck:.0f} s")


def _phase(job: Document) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase", ""))


def _restarts(job: Document) -> int:
    """Return how many restarts of the gang Volcano has counted, including a restart that exceeds the limit."""
    return int(job.get("status", {}).get("retryCount", 0))
