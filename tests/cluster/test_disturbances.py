"""What happens to a training while it runs: it ends as one that nothing has happened to, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.site import CHECKPOINT_STEPS, Site, Submission, wait_for

RESTART = "KUBEYOLO_TEST_RESTART_API_SERVER"

Disturb = Callable[[Site, Submission], None]


def delete_a_worker(site: Site, submission: Submission) -> None:
    pod = site.trainers(submission.job)[1]["metadata"]["name"]
    site.kubectl("delete", "pod", pod, "--wait=false")


def kill_a_worker(site: Site, submission: Submission) -> None:
    site.kill_training(site.trainers(submission.job)[1]["metadata"]["name"])


def kill_the_first_and_delete_the_other(site: Site, submission: Submission) -> None:
    first, second = (pod["metadata"]["name"] for pod in site.trainers(submission.job))
    site.kill_training(first)
    site.kubectl("delete", "pod", second, "--wait=false", "--grace-period=0", "--force")


def delete_the_step(site: Site, submission: Submission) -> None:
    running, before = site.step_pod(submission), site.uid_of(submission.job)
    assert running
    site.kubectl("delete", "pod", running, "--wait=false")
    wait_for(lambda: "adopted job" in submission.log(), 180, "the next try of the step")
    assert site.uid_of(submission.job) == before


def kill_the_processes_of_the_step(site: Site, submission: Submission) -> None:
    running, before = site.step_pod(submission), site.uid_of(submission.job)
    assert running
    site.kill_step(running)
    wait_for(lambda: "adopted job" in submission.log(), 180, "the next try of the step")
    assert site.uid_of(submission.job) == before


def stop_the_store(site: Site, submission: Submission, meanwhile: Disturb = lambda site, submission: None) -> None:
    store = os.environ.get("KUBEYOLO_TEST_STORE", "deployment/kubeyolo-minio")
    site.kubectl("scale", store, "--replicas=0")
    try:
        meanwhile(site, submission)
        time.sleep(60)
    finally:
        site.kubectl("scale", store, "--replicas=1")
        site.kubectl("rollout", "status", store, "--timeout=120s")


def stop_the_store_and_delete_a_worker(site: Site, submission: Submission) -> None:
    """The gang begins again without a store."""
    stop_the_store(site, submission, delete_a_worker)


def restart_the_api_server(site: Site, submission: Submission) -> None:
    subprocess.run(os.environ[RESTART], shell=True, check=True, timeout=300)


@pytest.mark.parametrize(
    ("disturb", "resumes"),
    [
        pytest.param(delete_a_worker, True, id="worker deleted"),
        pytest.param(kill_a_worker, True, id="worker killed"),
        pytest.param(kill_the_first_and_delete_the_other, True, id="all workers at once"),
        pytest.param(delete_the_step, False, id="step deleted"),
        pytest.param(kill_the_processes_of_the_step, False, id="step killed"),
        pytest.param(stop_the_store, None, id="store stopped for a minute"),
        pytest.param(stop_the_store_and_delete_a_worker, True, id="store stopped, worker deleted"),
        pytest.param(
            restart_the_api_server,
            None,
            id="API server restarted",
            marks=pytest.mark.skipif(not os.environ.get(RESTART), reason=f"{RESTART} is not set"),
        ),
    ],
)
def test_a_disturbed_training_ends_as_an_undisturbed_one(
    site: Site, data: str, undisturbed: Submission, disturb: Disturb, resumes: bool | None
) -> None:
    # One disturbance is one restart of the gang.
    submission = site.submit(data, site.new_store(), cluster={"max_retry": 1})
    try:
        newest = submission.trained_to(2 * CHECKPOINT_STEPS)
        disturb(site, submission)
        assert submission.end() == 0, submission.command.text
    finally:
        submission.abandon()
    result = submission.result()
    assert result["steps"] == undisturbed.result()["steps"]
    # Nothing before the newest checkpoint is trained again, and the log names the step.
    assert all(step >= newest for step in result["resumed_at"])
    if resumes is not None:
        assert bool(result["resumed_at"]) is resumes
    for step in result["resumed_at"]:
        assert f"resuming at step {step} of {result['steps']}" in submission.log()
    # Steps that were trained twice are the same steps.
    there = undisturbed.losses()
    for step, loss in submission.losses().items():
        assert loss == pytest.approx(there[step], rel=1e-4), step
    assert submission.ap() == pytest.approx(undisturbed.ap(), rel=0.02)
    site.nothing_left(submission.job)


@pytest.fixture
def training(site: Site, data: str) -> Iterator[Submission]:
    """A run whose training is under way in two pods."""
    submission = site.submit(data, site.new_store())
    try:
        submission.trained_to(1)
        assert len(site.trainers(submission.job)) == 2
        yield submission
    finally:
        submission.abandon()


def test_a_terminated_run_leaves_nothing(site: Site, training: Submission) -> None:
    job = training.job
    code, text = site.call("pipeline", "cancel", training.id)
    assert code == 0, text
    site.nothing_left(job)
    assert training.end(300) == 3, training.command.text
    assert "was terminated" in training.command.text


def test_a_run_that_is_terminated_when_its_step_is_gone_leaves_nothing(site: Site, training: Submission) -> None:
    """Nobody has told the step, which could have deleted the job."""
    job, pod = training.job, site.step_pod(training)
    site.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=0", "--force")
    code, text = site.call("pipeline", "cancel", training.id)
    assert code == 0, text
    site.nothing_left(job)


def test_a_deleted_run_leaves_nothing(site: Site, training: Submission) -> None:
    job = training.job
    training.delete()
    site.nothing_left(job)
    assert training.end(300) != 0


def test_a_run_whose_step_is_killed_at_every_try_leaves_nothing(site: Site, training: Submission) -> None:
    """As by the kernel when memory runs out: the step says nothing, and has no time to delete its job."""
    job, killed = training.job, []

    def next_try() -> str:
        pod = site.step_pod(training)
        return pod if pod not in killed else ("over" if training.run.is_over else "")

    # The first try and three more.
    for _ in range(4):
        pod = wait_for(next_try, 300, "the next try of the step, or the end of the run")
        if pod == "over":
            break
        killed.append(pod)
        # Argo waits for the process of the step: it is there before the job is adopted.
        time.sleep(5)
        site.kill_step(pod)
    run = training.wait(300)
    assert run.state == "FAILED"
    site.nothing_left(job)
    assert training.end(300) == 1, training.command.text
