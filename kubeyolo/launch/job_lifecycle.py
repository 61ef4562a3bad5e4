"""The life of a Volcano job: it is adopted or submitted, followed to its end, and deleted."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError
from kubeyolo.launch.cluster import AlreadyExists, Cluster, Document, Outage, Unreachable
from kubeyolo.launch.job_progress import JobProgress, Timing, phase_of, restarts_of
from kubeyolo.launch.manifest import (
    BAD_INPUT,
    OUTPUT_LABEL,
    SPEC_ANNOTATION,
    WORKFLOW_ANNOTATION,
    rank_table_manifest,
)
from kubeyolo.launch.pods import PodFacts, PodWatch
from kubeyolo.launch.queueing import check_queue
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.launch.store_key import StoreKey
from kubeyolo.output_streams import Show
from kubeyolo.work import EXIT_INTERRUPTED

_OVER = frozenset({"Completed", "Failed", "Aborted", "Terminated"})

_FEW = 10.0
"""Longest random pause, as a number of polls, of a launcher whose job was submitted at the same time as another job."""


@dataclass(frozen=True)
class _Loss:
    """Why a job must be submitted again.

    Attributes:
        reason: The reason, for a message.
        is_eviction: Whether a pod was evicted, preempted, deleted or stopped, and the work itself has not failed.
    """

    reason: str
    is_eviction: bool


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
        key: The key of the store for the pods of the job; None if they use the key of the settings.
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
        key: StoreKey | None = None,
    ) -> None:
        self._cluster, self._manifest, self._settings = cluster, manifest, settings
        self._show, self._timing, self._is_replaced = show, timing, is_replaced
        self._key = key
        self._name: str = manifest["metadata"]["name"]
        self._uid = ""
        self._submitting = False
        self._answered = waits_from_start
        self._taken_since: float | None = None
        self._watch: PodWatch | None = None
        self._outage = Outage(timing.outage, show)

    def run(self) -> None:
        """Run the job, and delete it at the end, unless a different process will adopt it.

        A running job with this name is adopted. A job that has ended, and a job of an earlier workflow with the same
        name, are deleted; a running job of different work is an error.

        Raises:
            InputError: The cluster cannot be used, or a pod refused its input.
            WorkError: The work failed, or a limit has passed; with the reason of every failed pod.
        """
        failures = evictions = 0
        while True:
            try:
                self._begin(adopt=failures + evictions == 0)
                loss = self._follow()
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
            if loss is None:
                return
            failures += not loss.is_eviction
            evictions += loss.is_eviction
            self._show(f"{loss.reason}; {self._again(loss, failures, evictions)}")

    def _again(self, loss: _Loss, failures: int, evictions: int) -> str:
        """Return that the job is submitted again, and how often it was.

        Raises:
            WorkError: It was submitted again as often as the settings allow.
        """
        count, limit = failures, self._settings.resubmissions
        if loss.is_eviction:
            count, limit = evictions, self._settings.evictions
        if count > limit:
            what = f"{count} evictions (cluster setting evictions = {limit})" if loss.is_eviction else f"{count} jobs"
            raise WorkError(f"{loss.reason}; no further job after {what}; run the same command again to continue")
        return f"submitting again ({'eviction ' if loss.is_eviction else ''}{count} of {limit})"

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
                elif adopt and phase_of(job) not in _OVER and self._is_of_this_workflow(job):
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
            self._show(f"adopted job {self._name}, which is {phase_of(job) or 'new'}")
        else:
            self._show(f"submitted job {self._name} to queue {self._settings.queue}")
        self._provide_rank_table(keep=adopted)
        selector = f"volcano.sh/job-name={self._name}"
        self._watch = PodWatch(self._cluster, selector, self._show, history=not adopted)
        self._watch.start()

    def _provide_rank_table(self, keep: bool) -> None:
        """Create the ConfigMap for which the pods of a job with a rank table wait.

        Args:
            keep: Whether an existing ConfigMap may belong to the job, which is adopted; otherwise it belongs to an
                earlier job, with which Kubernetes removes it.
        """
        table = rank_table_manifest(self._manifest, self._uid)
        end = time.monotonic() + self._timing.deletion
        while table is not None:
            try:
                self._outage.retry(partial(self._cluster.create_config_map, table), self._timing.poll)
                return
            except AlreadyExists:
                if keep:
                    return
            if time.monotonic() > end:
                name = table["metadata"]["name"]
                raise WorkError(
                    f"the ConfigMap {name} of an earlier job still exists after {self._timing.deletion:.0f} s; "
                    f"delete it: kubectl -n {self._cluster.namespace} delete configmap {name}"
                )
            time.sleep(self._timing.poll)

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
        """Tell whether a new job may stay; delete it if a job that is not younger writes to the same output.

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
        """Tell whether a different job writes to the same output; the wait for its end has the limit of the queue."""
        others = self._others()
        if not others:
            self._taken_since = None
            return False
        now = time.monotonic()
        reason = f"job {others[0]} writes to the same output"
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
            and phase_of(job) not in _OVER
            and (not before or job["metadata"]["creationTimestamp"] <= before)
        ]

    def _is_of_this_workflow(self, job: Document) -> bool:
        """Tell whether a job was submitted by this workflow, and not by an earlier workflow with the same name."""
        workflow = (job["metadata"].get("annotations") or {}).get(WORKFLOW_ANNOTATION)
        return workflow in (None, self._manifest["metadata"]["annotations"].get(WORKFLOW_ANNOTATION))

    def _check_same(self, job: Document) -> None:
        annotations = job["metadata"].get("annotations") or {}
        if annotations.get(SPEC_ANNOTATION) != self._manifest["metadata"]["annotations"][SPEC_ANNOTATION]:
            self._submitting = False  # A job of this process would have the same settings.
            raise InputError(
                f"job {self._name} exists, with different settings; wait for its end, or delete it: "
                f"kubectl -n {self._cluster.namespace} delete vcjob {self._name}"
            )

    def _follow(self) -> _Loss | None:
        """Follow the job to its end; return None if it is complete, else the reason to submit it again."""
        watch, progress = self._watch, JobProgress(self._settings, self._timing, self._show)
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
            phase = phase_of(job)
            if phase in _OVER:
                watch.settle(self._timing.settle)
                return None if phase == "Completed" else self._failure(job, phase, watch)
            try:
                if self._key is not None:
                    self._key.keep(job)
                progress.look(job, phase, watch, self._cluster)
                self._outage.answered()
            except Unreachable as error:
                self._outage.failed(error)

    def _failure(self, job: Document, phase: str, watch: PodWatch) -> _Loss:
        """Return why the job failed; raise the reason as an error if a new job would fail in the same way."""
        failed = _of_newest_attempt(watch.failed())
        reports = "; ".join(facts.report() for facts in failed) or "no pod has reported a reason"
        refused = [facts for facts in failed if facts.exit_code == BAD_INPUT]
        if refused:
            raise InputError(refused[0].failure.removesuffix(f" (exit code {BAD_INPUT})"))
        summary, retries = f"job {self._name} is {phase}: {reports}", self._settings.max_retry
        lost = _losses(_of_newest_attempt(watch.pods()))
        if lost and phase in ("Failed", "Terminated"):
            return _Loss(f"job {self._name} lost {lost}", is_eviction=True)
        if phase != "Failed":
            raise WorkError(summary)
        if restarts_of(job) > retries:
            # If the other pods fail first, Volcano restarts the gang because of an eviction, and counts the restart.
            evictions = len({facts.attempt for facts in watch.evicted()})
            if restarts_of(job) - evictions <= retries:
                return _Loss(f"{summary}; {evictions} of {restarts_of(job)} restarts were evictions", is_eviction=True)
            raise WorkError(
                f"{summary}; the gang was restarted {retries} times; run the same command again to continue"
            )
        return _Loss(summary, is_eviction=False)

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


def _of_newest_attempt(pods: list[PodFacts]) -> list[PodFacts]:
    newest = max((facts.attempt for facts in pods), default="", key=lambda attempt: (len(attempt), attempt))
    return [facts for facts in pods if facts.attempt == newest]


def _losses(pods: list[PodFacts]) -> str:
    """Return which pods were evicted, preempted, deleted or stopped by a signal, and why; empty if none was."""
    reasons = {facts.index: facts.evicted for facts in pods if facts.evicted}
    reasons |= {
        facts.index: facts.failure for facts in pods if facts.exit_code == EXIT_INTERRUPTED and not facts.evicted
    }
    return "; ".join(f"pod {index} ({reason})" for index, reason in reasons.items())
