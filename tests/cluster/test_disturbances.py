"""What happens to a training while it runs: it ends as one that nothing has happened to, and nothing is left."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.cluster.site import CHECKPOINT_STEPS, Site, Submission, wait_for

TRAIN = re.compile(r"\.train(\(\d+\))?\.executor")
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
    pods = site.objects("pods", f"workflows.argoproj.io/workflow={submission.run.workflow}")
    name = "workflows.argoproj.io/node-name"
    # Every part of the name has the number of its try where Argo tries everything again.
    steps = [pod for pod in pods if TRAIN.search(pod["metadata"]["annotations"].get(name, ""))]
    running = next(pod["metadata"]["name"] for pod in steps if pod["status"]["phase"] == "Running")
    before = site.uid_of(submission.job)
    site.kubectl("delete", "pod", running, "--wait=false")
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


def test_a_terminated_run_leaves_nothing(site: Site, data: str) -> None:
    submission = site.submit(data, site.new_store())
    submission.trained_to(1)
    job = submission.job
    assert len(site.trainers(job)) == 2
    code, text = site.call("pipeline", "cancel", submission.id)
    assert code == 0, text
    site.nothing_left(job, 60)
    assert submission.end(300) == 3, submission.command.text
    assert "was terminated" in submission.command.text
