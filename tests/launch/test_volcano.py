"""The launcher on a real API server, as the account of the steps; a double does what Volcano's controller does."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.launch.cluster import Cluster
from kubeyolo.launch.volcano import launch_on_volcano
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work
from tests.kubernetes_server import KubernetesServer, volcano_definitions, wait_for
from tests.launch.launching import SPEC, TIMING, Launch, hear, make_step_pod, nothing_left, settings, start_step
from tests.launch.volcano_double import Volcano

QUEUES = "/apis/scheduling.volcano.sh/v1beta1/queues"


def test_a_training_runs_is_heard_and_leaves_nothing(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch()
    job = volcano.wait_job()
    volcano.queue(job)
    names = volcano.run(job)
    run.heard("running on test-node")
    volcano.kubelet.say(names[0], "epoch[0], iter[1], loss:3.1", "epoch[0], iter[2], loss:2.9")
    volcano.kubelet.say(names[1], "a line of another rank")
    run.heard("iter[2]")
    for name in names:
        volcano.end_pod(name, 0)
    volcano.phase(job, "Completed")
    assert run.end() is None
    assert [line for line in run.lines if line.startswith("epoch")] == [
        "epoch[0], iter[1], loss:3.1",
        "epoch[0], iter[2], loss:2.9",
    ]
    assert not any("another rank" in line for line in run.lines)
    assert nothing_left(volcano)


def test_lines_are_heard_once_over_broken_connections(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch()
    job = volcano.wait_job()
    names = volcano.run(job)
    for step in range(3):
        volcano.kubelet.say(names[0], f"step {step}")
        run.heard(f"step {step}")
        connections = volcano.kubelet.connections
        volcano.kubelet.cut()
        wait_for(lambda before=connections: volcano.kubelet.connections > before)  # type: ignore[misc]
    volcano.kubelet.say(names[0], "the end")
    volcano.kubelet.end(*names)
    volcano.phase(job, "Completed")
    assert run.end() is None
    said = [line for line in run.lines if line.startswith(("step", "the end"))]
    assert said == ["step 0", "step 1", "step 2", "the end"]


def test_waiting_is_told_with_position_and_what_is_missing(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(queue="training")
    job = volcano.wait_job()
    run.heard("not yet seen by Volcano")
    volcano.queue(job, "2/2 tasks in gang unschedulable: 0/1 nodes are available, 1 Insufficient cpu", "Pending")
    run.heard("position 1")
    line = next(line for line in run.lines if "position 1" in line)
    assert "queue training, 2 pods of 500m cpu, 6Gi memory each" in line
    assert "0 of 2 pods placed" in line and "1 Insufficient cpu" in line
    volcano.phase(job, "Completed")
    assert run.end() is None


@pytest.fixture
def small_queue(kubernetes: KubernetesServer) -> Iterator[str]:
    """A queue that another job has three of four processors of."""
    name = f"small-{uuid.uuid4().hex[:6]}"
    queue = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": {"name": name}}
    kubernetes.do("POST", QUEUES, {**queue, "spec": {"capability": {"cpu": "4", "memory": "16Gi"}}})
    kubernetes.do("PATCH", f"{QUEUES}/{name}/status", {"status": {"allocated": {"cpu": "3", "memory": "1Gi"}}})
    yield name
    kubernetes.do("DELETE", f"{QUEUES}/{name}")


def test_a_full_queue_is_told_with_what_is_in_use(
    launch: Callable[..., Launch], volcano: Volcano, small_queue: str
) -> None:
    run = launch(queue=small_queue, cpu="1500m")
    job = volcano.wait_job()
    volcano.queue(job, phase="Pending", event="queue resource quota insufficient: insufficient cpu")
    run.heard("insufficient cpu / in use: 3 of 4 cpu")
    volcano.phase(job, "Completed")
    assert run.end() is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cpu": "2500m"}, "2 pods of 2500m cpu, 6Gi memory each request 5 cpu, the queue's capability is 4; lower"),
        (
            {"cpu": "3", "memory": "9Gi"},
            "each request 6 cpu, the queue's capability is 4; 18Gi memory, the queue's capability is 16Gi;",
        ),
    ],
)
def test_a_job_that_its_queue_never_has_room_for_is_refused(
    cluster: Cluster, volcano: Volcano, small_queue: str, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=f"queue '{small_queue}' is too small for this job") as caught:
        launch_on_volcano(SPEC.work(), settings(queue=small_queue, **values), print, cluster=cluster)
    assert words in str(caught.value)
    assert volcano.jobs() == []


def test_the_queue_limit_ends_a_wait_and_the_job(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(queue="training", queue_limit=1)
    volcano.queue(volcano.wait_job(), "queue resource quota insufficient")
    error = run.end()
    assert isinstance(error, WorkError)
    for words in ("was not placed within 1 s", "queue training", "2 pods of 500m cpu, 6Gi", "quota insufficient"):
        assert words in str(error)
    assert nothing_left(volcano)


def test_the_run_limit_ends_a_job(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(run_limit=1)
    volcano.run(volcano.wait_job())
    assert "ran longer than 1 s (run_limit)" in str(run.end())
    assert nothing_left(volcano)


def test_bad_input_of_the_trainer_is_bad_input_here(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch()
    job = volcano.wait_job()
    names = volcano.run(job)
    volcano.end_pod(names[0], 2, "data set minio://data/sets/cells-1: there is nothing there")
    volcano.phase(job, "Terminated")
    error = run.end()
    assert isinstance(error, InputError)
    assert str(error) == "data set minio://data/sets/cells-1: there is nothing there"
    assert nothing_left(volcano)


def test_every_failed_rank_is_reported_with_its_reason(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(resubmissions=0)
    job = volcano.wait_job()
    names = volcano.run(job)
    volcano.kubelet.say(names[1], "the last words of rank 1")
    volcano.end_pod(names[0], 137, reason="OOMKilled")
    volcano.end_pod(names[1], 1, "a line before\nerror: a training process failed (killed by SIGSEGV)\n")
    volcano.phase(job, "Failed")
    error = run.end()
    assert isinstance(error, WorkError)
    for words in (
        "pod 0: out of memory (OOMKilled at 6Gi); raise the cluster setting memory, or use smaller batches",
        "pod 1: a training process failed (killed by SIGSEGV) (exit code 1); it printed last: the last words of rank 1",
    ):
        assert words in str(error)


def test_an_evicted_pod_is_told(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(evictions=0)
    job = volcano.wait_job()
    names = volcano.run(job)
    volcano.kubelet.end(names[0])
    said = "The node was low on resource: memory."
    volcano.pod_status(names[0], {"phase": "Failed", "reason": "Evicted", "message": said})
    run.heard(f"pod 0 failed: evicted: {said}")
    volcano.phase(job, "Failed")
    assert f"lost pod 0 (Evicted: {said})" in str(run.end())


def test_all_pods_failing_at_once_is_submitted_again(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(resubmissions=1)
    job = volcano.wait_job()
    for name in volcano.run(job):
        volcano.end_pod(name, 137)
    volcano.phase(job, "Failed")
    run.heard("submitting again (1 of 1)")
    second = volcano.wait_job(job["metadata"]["uid"])
    assert second["metadata"]["name"] == job["metadata"]["name"]
    wait_for(lambda: not volcano.pods())
    volcano.run(second)
    volcano.phase(second, "Completed")
    assert run.end() is None
    assert nothing_left(volcano)


def test_resubmissions_are_bounded(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run, uid = launch(resubmissions=1), ""
    for _ in range(2):
        wait_for(lambda: not volcano.pods())
        job = volcano.wait_job(uid)
        uid = job["metadata"]["uid"]
        for name in volcano.run(job):
            volcano.end_pod(name, 1, "the loss is not finite")
        volcano.phase(job, "Failed")
    error = run.end()
    assert "no further job after 2 jobs" in str(error) and "the loss is not finite" in str(error)
    assert nothing_left(volcano)


def test_a_restart_of_the_gang_is_told_and_followed(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch()
    job = volcano.wait_job()
    names = volcano.run(job)
    volcano.kubelet.say(names[0], "step 1")
    run.heard("step 1")
    volcano.end_pod(names[1], 137, "")
    run.heard("pod 1 failed: killed by signal 9")
    assert volcano.restart(job, 1)
    run.heard("the gang is restarted (1 of 3)")
    names = volcano.run(job)
    volcano.kubelet.say(names[0], "resuming at step 1 of 4")
    run.heard("resuming at step 1 of 4")
    volcano.kubelet.say(names[0], "step 2")
    run.heard("step 2")
    volcano.phase(job, "Completed")
    volcano.kubelet.end(*names)
    assert run.end() is None
    said = [line for line in run.lines if line.startswith(("step", "resuming"))]
    assert said == ["step 1", "resuming at step 1 of 4", "step 2"]


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_gang_is_restarted_as_often_as_is_allowed_and_then_not_submitted_again(
    launch: Callable[..., Launch], volcano: Volcano, allowed: int
) -> None:
    run = launch(max_retry=allowed)
    job = volcano.wait_job()
    for count in range(1, allowed + 2):
        volcano.end_pod(volcano.run(job)[0], 1, "broken")
        run.heard("pod 0 failed: broken")
        assert volcano.restart(job, count) == (count <= allowed)
        if count <= allowed:
            run.heard(f"the gang is restarted ({count} of {allowed})")
    assert f"the gang was restarted {allowed} times" in str(run.end())
    assert nothing_left(volcano)


@pytest.mark.parametrize("phase", ["Aborted", "Terminated"])
def test_a_job_that_somebody_stops_fails(launch: Callable[..., Launch], volcano: Volcano, phase: str) -> None:
    run = launch()
    job = volcano.wait_job()
    volcano.run(job)
    run.heard("running")
    volcano.phase(job, phase)
    error = run.end()
    assert isinstance(error, WorkError) and f"is {phase}" in str(error)
    assert nothing_left(volcano)


def test_a_job_that_somebody_deletes_fails(
    launch: Callable[..., Launch], volcano: Volcano, kubernetes: KubernetesServer
) -> None:
    run = launch()
    job = volcano.wait_job()
    path = f"/apis/batch.volcano.sh/v1alpha1/namespaces/{volcano.namespace}/jobs/{job['metadata']['name']}"
    run.heard("submitted")
    kubernetes.do("DELETE", path)
    assert "deleted by somebody else" in str(run.end())


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ImagePullBackOff", "image registry/nowhere:1 cannot be pulled (not found)"),
        ("CreateContainerConfigError", "CreateContainerConfigError (not found)"),
        ("InvalidImageName", "InvalidImageName (not found)"),
    ],
)
def test_pods_that_cannot_start_end_the_job(
    launch: Callable[..., Launch], volcano: Volcano, reason: str, words: str
) -> None:
    run = launch()
    job = volcano.wait_job()
    volcano.phase(job, "Pending")
    for name in volcano.create_pods(job):
        volcano.container_waits(name, reason, "not found")
    error = run.end()
    assert isinstance(error, InputError) and words in str(error)
    assert nothing_left(volcano)


def test_a_pod_that_starts_a_little_later_is_waited_for(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch(timing=replace(TIMING, stuck=60.0))
    job = volcano.wait_job()
    names = volcano.create_pods(job)
    volcano.phase(job, "Pending")
    volcano.container_waits(names[1], "CreateContainerConfigError", "failed to sync secret cache")
    run.heard("pod 1 does not start: CreateContainerConfigError (failed to sync secret cache)")
    for name in names:
        volcano.end_pod(name, 0)
    volcano.phase(job, "Completed")
    assert run.end() is None


def test_a_job_under_way_is_adopted(launch: Callable[..., Launch], volcano: Volcano, cluster: Cluster) -> None:
    first = launch()
    job = volcano.wait_job()
    names = volcano.run(job)
    volcano.kubelet.say(names[0], "an old line")
    first.heard("an old line")
    second = launch()
    second.heard(f"adopted job {job['metadata']['name']}, which is Running")
    volcano.kubelet.end(*names)
    volcano.phase(job, "Completed")
    assert second.end() is None
    assert len(volcano.jobs()) <= 1
    # The first may find the job complete, or gone since the second one has tidied up.
    assert first.end() is None or "deleted by somebody else" in str(first.error)


def test_a_job_of_other_settings_is_not_adopted(launch: Callable[..., Launch], volcano: Volcano) -> None:
    first = launch()
    job = volcano.wait_job()
    volcano.run(job)
    other = SPEC.model_copy(update={"config": load_config("yolov5n-r7", sets=("train.processes=2", "train.lr=0.5"))})
    for second in (launch(other), launch(memory="8Gi")):
        error = second.end()
        assert isinstance(error, InputError) and "exists, with different settings" in str(error)
    assert [each["metadata"]["uid"] for each in volcano.jobs()] == [job["metadata"]["uid"]]
    volcano.phase(job, "Completed")
    assert first.end() is None


def other_job(kubernetes: KubernetesServer, volcano: Volcano, job: dict[str, Any]) -> dict[str, Any]:
    """Make the job of another run with the same output."""
    path = f"/apis/batch.volcano.sh/v1alpha1/namespaces/{volcano.namespace}/jobs"
    labels = {"kubeyolo.io/output": job["metadata"]["labels"]["kubeyolo.io/output"]}
    rest = {key: job[key] for key in ("apiVersion", "kind", "spec")}
    return dict(kubernetes.do("POST", path, {**rest, "metadata": {"name": "of-another-run", "labels": labels}}))


def test_a_job_that_trains_into_the_same_output_is_waited_for(
    launch: Callable[..., Launch], volcano: Volcano, kubernetes: KubernetesServer
) -> None:
    first = launch()
    job = volcano.wait_job()
    other = other_job(kubernetes, volcano, job)
    volcano.phase(job, "Completed")
    assert first.end() is None
    second = launch()
    second.heard("job of-another-run writes to the same output; waiting for its end")
    assert [each["metadata"]["name"] for each in volcano.jobs()] == ["of-another-run"]
    limited = launch(queue_limit=1)
    assert "has not ended within 1 s (queue_limit)" in str(limited.end())
    volcano.phase(other, "Completed")
    second.heard("submitted job")
    volcano.phase(volcano.wait_job(other["metadata"]["uid"]), "Completed")
    assert second.end() is None


@pytest.mark.parametrize("between", [0.0, 1.1])
def test_of_two_jobs_that_were_made_at_the_same_moment_the_later_one_goes(
    launch: Callable[..., Launch],
    volcano: Volcano,
    kubernetes: KubernetesServer,
    monkeypatch: pytest.MonkeyPatch,
    between: float,
) -> None:
    create, made = Cluster.create_job, []

    def create_late(cluster: Cluster, manifest: dict[str, Any]) -> Any:
        if not made:
            job = {"metadata": manifest["metadata"], **{key: manifest[key] for key in ("apiVersion", "kind", "spec")}}
            made.append(other_job(kubernetes, volcano, job))
            time.sleep(between)  # Times of creation are whole seconds.
        return create(cluster, manifest)

    monkeypatch.setattr(Cluster, "create_job", create_late)
    run = launch()
    run.heard("job of-another-run writes to the same output")
    volcano.phase(made[0], "Completed")
    run.heard("submitted job")
    volcano.phase(volcano.wait_job(made[0]["metadata"]["uid"]), "Completed")
    assert run.end() is None


def test_a_job_that_has_ended_is_replaced(
    launch: Callable[..., Launch], volcano: Volcano, kubernetes: KubernetesServer
) -> None:
    first = launch()
    job = volcano.wait_job()
    name, path = job["metadata"]["name"], f"/apis/batch.volcano.sh/v1alpha1/namespaces/{volcano.namespace}/jobs"
    kubernetes.do("DELETE", f"{path}/{name}")
    first.end()
    keys = ("apiVersion", "kind", "spec")
    left = {**{key: job[key] for key in keys}, "metadata": {"name": name}}
    old = kubernetes.do("POST", path, left)
    volcano.phase(old, "Failed")
    second = launch()
    new = volcano.wait_job(old["metadata"]["uid"])
    volcano.phase(new, "Completed")
    assert second.end() is None


def test_a_run_of_a_pipeline_names_owns_and_labels_its_job(
    launch: Callable[..., Launch],
    volcano: Volcano,
    kubernetes: KubernetesServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = f"/api/v1/namespaces/{volcano.namespace}"
    # Any object stands in for the workflow: owner references are by uid.
    workflow = kubernetes.do("POST", f"{path}/configmaps", {"metadata": {"name": "detector-training-x7k2p"}})
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "detector-training-x7k2p",
        "uid": workflow["metadata"]["uid"],
    }
    make_step_pod(kubernetes, volcano.namespace, ownerReferences=[reference])
    monkeypatch.setenv("KFP_POD_NAME", "step")
    run = launch(image="")
    job = volcano.wait_job()
    assert job["metadata"]["name"] == "detector-training-x7k2p-train"
    assert job["metadata"]["labels"]["kubeyolo.io/run"] == "detector-training-x7k2p"
    assert job["metadata"]["ownerReferences"] == [reference]
    image = job["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry/of-the-step:2"
    assert job["metadata"]["annotations"]["kubeyolo.io/run-namespace"] == volcano.namespace
    assert job["metadata"]["annotations"]["kubeyolo.io/workflow-uid"] == reference["uid"]
    volcano.phase(job, "Completed")
    assert run.end() is None


def test_a_pretraining_is_a_job_next_to_that_of_the_training(
    launch: Callable[..., Launch], volcano: Volcano, kubernetes: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_step_pod(kubernetes, volcano.namespace)
    monkeypatch.setenv("KFP_POD_NAME", "step")
    config = load_config("yolov5n-r7", sets=("pretrain.processes=2",))
    spec = SPEC.model_copy(update={"task": "backbone", "output": "minio://data/backbones/one", "config": config})
    pretraining = launch(spec, devices_per_node=2, per_device={"cpu": "1500m", "memory": "3Gi"})
    job = volcano.wait_job()
    assert job["metadata"]["name"] == "detector-training-x7k2p-pretrain"
    training = launch(devices_per_node=2, per_device={"cpu": "1500m", "memory": "3Gi"})
    training.heard("submitted job detector-training-x7k2p-train")
    assert {each["metadata"]["labels"]["kubeyolo.io/run"] for each in volcano.jobs()} == {"detector-training-x7k2p"}

    (task,) = job["spec"]["tasks"]
    container = task["template"]["spec"]["containers"][0]
    values = {each["name"]: each.get("value", "") for each in container["env"]}
    assert (task["replicas"], values["KUBEYOLO_GANG_NODES"], values["KUBEYOLO_GANG_DEVICES"]) == (1, "1", "2")
    assert container["resources"]["requests"] == {"cpu": "3000m", "memory": "6Gi"}
    work = Work.model_validate_json(values["KUBEYOLO_WORK"])
    assert TrainingSpec.model_validate_json(work.document).task == "backbone"

    (name,) = volcano.run(job)
    volcano.kubelet.say(name, "step 3 of 10, accuracy 0.5")
    pretraining.heard("accuracy 0.5")
    volcano.end_pod(name, 0)
    volcano.phase(job, "Completed")
    assert pretraining.end() is None
    (left,) = volcano.jobs()
    assert left["metadata"]["name"] == "detector-training-x7k2p-train" and not training.ended()
    volcano.phase(left, "Completed")
    assert training.end() is None
    wait_for(lambda: not volcano.jobs())


def test_the_job_of_an_earlier_workflow_of_the_same_name_is_replaced(
    launch: Callable[..., Launch], volcano: Volcano, kubernetes: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubeflow makes a workflow anew, with its name, when a run is tried again whose workflow is gone."""
    path = f"/api/v1/namespaces/{volcano.namespace}"
    workflow = kubernetes.do("POST", f"{path}/configmaps", {"metadata": {"name": "detector-training-x7k2p"}})
    uid = workflow["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "detector-training-x7k2p", "uid": uid}
    make_step_pod(kubernetes, volcano.namespace, ownerReferences=[owner])
    monkeypatch.setenv("KFP_POD_NAME", "step")
    first = launch()
    job = volcano.wait_job()
    notes = {"annotations": {"kubeyolo.io/workflow-uid": "of-the-earlier-one"}}
    jobs = f"/apis/batch.volcano.sh/v1alpha1/namespaces/{volcano.namespace}/jobs"
    kubernetes.do("PATCH", f"{jobs}/{job['metadata']['name']}", {"metadata": notes})
    second = launch()
    new = volcano.wait_job(job["metadata"]["uid"])
    assert new["metadata"]["annotations"]["kubeyolo.io/workflow-uid"] == uid
    assert "deleted by somebody else" in str(first.end())
    volcano.phase(new, "Completed")
    assert second.end() is None


@pytest.mark.parametrize(
    ("context", "number", "code"),
    [
        # As a step of a pipeline, and as a command of a terminal.
        ("stops_with_its_run()", signal.SIGTERM, 143),
        ("contextlib.nullcontext()", signal.SIGTERM, 1),
        ("contextlib.nullcontext()", signal.SIGINT, 1),
    ],
)
def test_who_is_told_to_end_deletes_the_job_at_once(
    account: Path, volcano: Volcano, context: str, number: int, code: int
) -> None:
    step = start_step(account, context)
    volcano.run(volcano.wait_job())
    hear(step, "running")
    step.send_signal(number)
    assert step.wait(30) == code
    assert nothing_left(volcano)


def test_a_step_whose_pod_is_deleted_leaves_the_job_to_the_next_try(
    account: Path, volcano: Volcano, kubernetes: KubernetesServer
) -> None:
    # Argo puts a finalizer on its pods: one that is deleted is there until Argo has seen how it ended.
    pod = make_step_pod(kubernetes, volcano.namespace, finalizers=["workflows.argoproj.io/status"])
    step = start_step(account, "stops_with_its_run()", KFP_POD_NAME="step")
    job = volcano.wait_job()
    names = volcano.run(job)
    hear(step, "running")
    kubernetes.do("DELETE", pod)
    step.send_signal(signal.SIGTERM)
    assert step.wait(30) == 143
    assert [each["metadata"]["uid"] for each in volcano.jobs()] == [job["metadata"]["uid"]]
    retry = start_step(account, "stops_with_its_run()", KFP_POD_NAME="step")
    hear(retry, "adopted job detector-training-x7k2p-train, which is Running")
    volcano.kubelet.end(*names)
    volcano.phase(job, "Completed")
    assert retry.wait(30) == 0
    kubernetes.do("PATCH", pod, {"metadata": {"finalizers": None}})
    assert nothing_left(volcano)


def test_a_job_in_another_namespace_goes_on_when_its_step_is_drained(
    account: Path, volcano: Volcano, kubernetes: KubernetesServer, tmp_path: Path
) -> None:
    """The next try adopts it. It has no owner: where none comes, the watch deletes it when the run has ended."""
    home = f"{volcano.namespace}-home"
    kubernetes.namespace(home, {})
    subject = {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": volcano.namespace}
    rule = {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get"]}
    policy = {"metadata": {"name": "kubeyolo-policy"}, "data": {"namespaces": volcano.namespace}}
    kubernetes.do("POST", f"/api/v1/namespaces/{home}/configmaps", policy)
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{home}"
    kubernetes.do("POST", f"{path}/roles", {"metadata": {"name": "pods"}, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"}
    kubernetes.do(
        "POST", f"{path}/rolebindings", {"metadata": {"name": "pods"}, "roleRef": role, "subjects": [subject]}
    )
    config = yaml.safe_load(account.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = home
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    pod = make_step_pod(kubernetes, home, finalizers=["workflows.argoproj.io/status"])
    elsewhere = json.dumps({"namespace": volcano.namespace})
    kubeconfig = tmp_path / "kubeconfig"
    step = start_step(kubeconfig, "stops_with_its_run()", KFP_POD_NAME="step", MORE_SETTINGS=elsewhere)
    job = volcano.wait_job()
    assert "ownerReferences" not in job["metadata"]
    volcano.run(job)
    hear(step, "running")
    kubernetes.do("DELETE", pod)
    step.send_signal(signal.SIGTERM)
    assert step.wait(30) == 143
    (left,) = volcano.jobs()
    assert left["metadata"]["uid"] == job["metadata"]["uid"] and "deletionTimestamp" not in left["metadata"]
    kubernetes.do("PATCH", pod, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"queue": "trainin"}, "queue 'trainin' is not on this cluster; did you mean 'training'?"),
        ({"nodes": 3}, "3 pods of 1 devices are 3 processes, but train.processes is 2"),
        ({"devices_per_node": 4}, "but each pod runs 4 processes"),
        ({"preset": "ascend910b", "devices_per_node": 2}, "device_target is CPU, but these nodes are for Ascend"),
        ({"image": ""}, "the image of the trainer is not set"),
        ({"namespace": "elsewhere"}, None),
    ],
)
def test_what_cannot_work_is_refused_before_a_job_is_made(
    cluster: Cluster, kubernetes: KubernetesServer, volcano: Volcano, values: dict[str, Any], words: str | None
) -> None:
    if words is None:
        # A command follows the policy of the namespace of its job.
        policy = {"metadata": {"name": "kubeyolo-policy"}, "data": {"groups": "1000"}}
        kubernetes.do("POST", f"/api/v1/namespaces/{volcano.namespace}/configmaps", policy)
        with pytest.raises(InputError, match="may not .* in namespace elsewhere"):
            launch_on_volcano(SPEC.work(), settings(**values), print)
        with pytest.raises(InputError, match="supplemental_groups = 0: the policy of this cluster allows 1000"):
            launch_on_volcano(SPEC.work(), settings(supplemental_groups=[0]), print)
        return
    with pytest.raises(InputError) as caught:
        launch_on_volcano(SPEC.work(), settings(**values), print, cluster=cluster)
    assert words in str(caught.value)
    assert volcano.jobs() == []


def test_folders_of_this_machine_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"dataset": str(tmp_path)})
    with pytest.raises(InputError, match="pods cannot read folders on this machine"):
        launch_on_volcano(spec.work(), settings(), print, cluster=cluster)


def test_a_cluster_without_volcano_is_told(
    kubernetes: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any CRD of it, and without that of the queues."""
    bare = KubernetesServer(kubernetes.binaries, tmp_path)
    definitions, jobs = (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/batch.volcano.sh/v1alpha1/jobs",
    )
    words = "^Volcano is not installed on this cluster; install it with all its CRDs$"
    try:
        bare.start(volcano=False)
        monkeypatch.setenv("KUBECONFIG", str(bare.kubeconfig()))
        with pytest.raises(InputError, match=words):
            launch_on_volcano(SPEC.work(), settings(), print, cluster=Cluster.connect())
        bare.do(
            "POST", definitions, next(one for one in volcano_definitions() if one["spec"]["names"]["kind"] == "Job")
        )
        wait_for(lambda: bare.request("GET", jobs)[0] == 200)
        with pytest.raises(InputError, match=words):
            launch_on_volcano(SPEC.work(), settings(), print, cluster=Cluster.connect())
        assert bare.do("GET", jobs)["items"] == []
    finally:
        bare.stop()


def test_a_closed_queue_is_refused(cluster: Cluster, kubernetes: KubernetesServer) -> None:
    queue = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": {"name": "shut"}}
    kubernetes.do("POST", QUEUES, {**queue, "spec": {"weight": 1}})
    kubernetes.do("PATCH", f"{QUEUES}/shut/status", {"status": {"state": "Closed"}})
    with pytest.raises(InputError, match="queue 'shut' is closed"):
        launch_on_volcano(SPEC.work(), settings(queue="shut"), print, cluster=cluster)
