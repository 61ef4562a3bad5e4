"""Pods that are evicted, preempted, deleted or stopped: the job is submitted again, and no restart is used up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubeyolo.errors import WorkError
from tests.kubernetes_server import wait_for
from tests.launch.launching import Launch, nothing_left
from tests.launch.volcano_double import Volcano

PREEMPTED = ("PreemptionByScheduler", "volcano: preempting to accommodate a higher priority pod")


def preempt(volcano: Volcano, job: dict[str, Any], names: list[str]) -> str:
    return volcano.evict(job, names[1], *PREEMPTED)


def drain(volcano: Volcano, job: dict[str, Any], names: list[str]) -> str:
    return volcano.evict(job, names[1], "EvictionByEvictionAPI", "Eviction API: evicting")


def delete_at_once(volcano: Volcano, job: dict[str, Any], names: list[str]) -> str:
    volcano.delete_pod(names[1], 0)
    return volcano.happens(job, "PodEvicted")


def stop_by_signal(volcano: Volcano, job: dict[str, Any], names: list[str]) -> str:
    volcano.end_pod(names[1], 143, "error: interrupted: stopped by a signal")
    return volcano.happens(job, "PodFailed", 143)


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (preempt, "PreemptionByScheduler: volcano: preempting to accommodate a higher priority pod"),
        (drain, "EvictionByEvictionAPI: Eviction API: evicting"),
        (delete_at_once, "deleted"),
        (stop_by_signal, "interrupted: stopped by a signal (killed by signal 15)"),
    ],
)
def test_a_job_that_lost_a_pod_is_submitted_again_without_a_restart(
    launch: Callable[..., Launch], volcano: Volcano, lose: Callable[..., str], reason: str
) -> None:
    run = launch(max_retry=0, resubmissions=0)
    job = volcano.wait_job()
    names = volcano.run(job)
    run.heard("running on")
    assert lose(volcano, job, names) == "TerminateJob"
    run.heard(f"job {job['metadata']['name']} lost pod 1 ({reason}); submitting again (eviction 1 of 10)")
    second = volcano.wait_job(job["metadata"]["uid"])
    assert second["spec"] == job["spec"]
    wait_for(lambda: not volcano.pods())
    volcano.run(second)
    volcano.phase(second, "Completed")
    assert run.end() is None
    assert not any("is restarted" in line for line in run.lines)
    assert nothing_left(volcano)


def test_evictions_are_bounded_and_named(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run, uid = launch(evictions=1), ""
    for _ in range(2):
        wait_for(lambda: not volcano.pods())
        job = volcano.wait_job(uid)
        uid = job["metadata"]["uid"]
        preempt(volcano, job, volcano.run(job))
    error = run.end()
    assert isinstance(error, WorkError)
    assert "no further job after 2 evictions (cluster setting evictions = 1)" in str(error)
    assert "pod 1 (PreemptionByScheduler: " in str(error)
    assert nothing_left(volcano)


def test_evictions_and_failures_of_all_pods_are_counted_separately(
    launch: Callable[..., Launch], volcano: Volcano
) -> None:
    run = launch(resubmissions=0)
    job = volcano.wait_job()
    preempt(volcano, job, volcano.run(job))
    run.heard("eviction 1 of 10")
    second = volcano.wait_job(job["metadata"]["uid"])
    wait_for(lambda: not volcano.pods())
    for name in volcano.run(second):
        volcano.end_pod(name, 1, "the loss is not finite")
    volcano.phase(second, "Failed")
    error = run.end()
    assert "the loss is not finite" in str(error) and "no further job after 1 jobs" in str(error)


def test_a_restart_because_of_an_eviction_does_not_count(launch: Callable[..., Launch], volcano: Volcano) -> None:
    """The other pod fails first, or the kubelet kills the container: Volcano sees a failure, and counts it."""
    run = launch(max_retry=1, resubmissions=0)
    job = volcano.wait_job()
    first = volcano.run(job)
    said = "The node was low on resource: memory."
    volcano.pod_status(first[0], {"phase": "Failed", "reason": "Evicted", "message": said})
    run.heard(f"pod 0 failed: evicted: {said}")
    assert volcano.happens(job, "PodFailed", 137) == "RestartJob"
    run.heard("the gang is restarted (1 of 1)")
    second = volcano.run(job)
    volcano.end_pod(second[0], 1, "broken")
    run.heard("pod 0 failed: broken")
    assert volcano.happens(job, "PodFailed", 1) == "RestartJob"
    run.heard("1 of 2 restarts were evictions; submitting again (eviction 1 of 10)")
    third = volcano.wait_job(job["metadata"]["uid"])
    wait_for(lambda: not volcano.pods())
    volcano.run(third)
    volcano.phase(third, "Completed")
    assert run.end() is None


@pytest.mark.parametrize("marked", [True, False], ids=["Volcano 1.15", "older Volcano"])
def test_pods_that_volcano_deletes_itself_are_not_evicted(
    launch: Callable[..., Launch], volcano: Volcano, marked: bool
) -> None:
    run = launch(max_retry=1, resubmissions=0)
    job = volcano.wait_job()
    for count in (1, 2):
        volcano.end_pod(volcano.run(job)[0], 1, f"broken {count}")
        run.heard(f"pod 0 failed: broken {count}")
        volcano.restart(job, count, marked)
    assert "the gang was restarted 1 times" in str(run.end())
    assert not any("lost" in line for line in run.lines)


def test_a_job_that_somebody_terminates_is_not_submitted_again(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch()
    job = volcano.wait_job()
    volcano.run(job)
    run.heard("running on")
    volcano.terminate(job)
    error = run.end()
    assert isinstance(error, WorkError) and "is Terminated: no pod has reported a reason" in str(error)
    assert nothing_left(volcano)
