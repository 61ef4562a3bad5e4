"""What a user sees of a Volcano job while it waits and runs, and the limits of waiting and running."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kubeyolo.errors import InputError, WorkError
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.pods import PodWatch
from kubeyolo.launch.queueing import queue_report
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.output_streams import Show

WAITING = frozenset({"", "Pending", "Inqueue", "Restarting"})
"""Phases of a job that waits for its pods to be placed."""


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


class JobProgress:
    """Reports the progress of a job, and raises an error if the job takes too long."""

    def __init__(self, settings: ClusterSettings, timing: Timing, show: Show) -> None:
        self._settings, self._timing, self._show = settings, timing, show
        self._phase: str | None = None
        self._since = self._report_at = time.monotonic()
        self._running_since: float | None = None
        self._last_report = ""
        self._stuck_since: dict[str, float] = {}
        self._reported: set[str] = set()
        self._evicted: set[str] = set()
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
        for facts in watch.evicted():
            if facts.uid not in self._reported | self._evicted:
                self._evicted.add(facts.uid)
                self._show(f"pod {facts.index} is lost: {facts.evicted}")
        restarts = restarts_of(job)
        if self._restarts < restarts <= self._settings.max_retry:
            self._show(f"the gang is restarted ({restarts} of {self._settings.max_retry})")
        self._restarts = restarts
        if phase != self._phase:
            self._enter(phase, now, watch)
        self._check_containers(watch, now)
        if phase in WAITING:
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
        if phase in WAITING and self._phase not in WAITING:
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


def phase_of(job: Document) -> str:
    """Return the phase of a job; empty if Volcano has not seen it yet."""
    return str(job.get("status", {}).get("state", {}).get("phase", ""))


def restarts_of(job: Document) -> int:
    """Return how many restarts of the gang Volcano has counted, including a restart that exceeds the limit."""
    return int(job.get("status", {}).get("retryCount", 0))
