"""The watch on a real API server, as its own account: which jobs it deletes, and which it never touches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.manifest import Run, job_manifest
from kubeyolo.launch.watch import Watch
from tests.kubernetes_server import JSON, KubernetesServer, definition, wait_for
from tests.launch.launching import SPEC, hear, make_step_pod, settings, start_step
from tests.launch.volcano_double import Volcano

MANIFESTS = Path(__file__).parents[2] / "manifests"
ACCOUNT = "kubeyolo-watch"
RUN = "detector-training-x7k2p"
LIMIT = 120.0


def jobs_of(namespace: str) -> str:
    return f"/apis/batch.volcano.sh/v1alpha1/namespaces/{namespace}/jobs"


def workflows_of(namespace: str) -> str:
    return f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"


def give_rights(kubernetes: KubernetesServer, file: Path, namespace: str, home: str) -> None:
    """Apply the roles of the watch in a manifest, with its account in the namespace ``home``."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    for document in yaml.safe_load_all(file.read_text()):
        if document["kind"] in ("Role", "RoleBinding") and document["metadata"]["name"] == ACCOUNT:
            document["metadata"] = {"name": ACCOUNT}
            for subject in document.get("subjects", ()):
                subject["namespace"] = home
            kubernetes.do("POST", f"{path}/{document['kind'].lower()}s", document)


@pytest.fixture(autouse=True, scope="module")
def workflow_kind(kubernetes: KubernetesServer) -> None:
    kinds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kubernetes.request("POST", kinds, definition("argoproj.io", "v1alpha1", "Workflow", "workflows", "Namespaced", {}))
    wait_for(lambda: kubernetes.request("GET", workflows_of("default"))[0] == 200)


@pytest.fixture
def home(kubernetes: KubernetesServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The namespace of the runs, in which this process is the account of the watch."""
    kubernetes.do("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
    give_rights(kubernetes, MANIFESTS / "base" / "watch.yaml", namespace, namespace)
    token = kubernetes.token_of(namespace, ACCOUNT)
    wait_for(lambda: kubernetes.request("GET", jobs_of(namespace), token=token)[0] == 200)
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig(f"watch-{namespace}", token, namespace)))
    return namespace


@pytest.fixture
def elsewhere(kubernetes: KubernetesServer, home: str) -> str:
    """A namespace of trainers alone, in which the watch has the rights of the overlay ascend."""
    name = kubernetes.namespace(f"{home}-trainers")
    give_rights(kubernetes, MANIFESTS / "overlays" / "ascend" / "trainers.yaml", name, home)
    token = kubernetes.token_of(home, ACCOUNT)
    wait_for(lambda: kubernetes.request("GET", jobs_of(name), token=token)[0] == 200)
    return name


class Sight:
    """A watch whose clock stands still until a test moves it, and what it says."""

    def __init__(self, runs: str, *jobs: str, connect: Callable[[str], Cluster] = Cluster.connect) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self._watch = Watch([runs], [runs, *jobs], self.lines.append, connect=connect, clock=lambda: self.now)

    def look(self, after: float = 0.0) -> bool:
        self.now += after
        return self._watch.look()


def make_workflow(kubernetes: KubernetesServer, namespace: str, **content: Any) -> str:
    """Make the workflow of the run, under way unless it is given otherwise, and return its uid."""
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": RUN}}
    answer = kubernetes.do("POST", workflows_of(namespace), {**body, "status": {"phase": "Running"}, **content})
    return str(answer["metadata"]["uid"])


def change_workflow(kubernetes: KubernetesServer, namespace: str, **content: Any) -> None:
    kubernetes.do("PATCH", f"{workflows_of(namespace)}/{RUN}", content)


def make_job(
    kubernetes: KubernetesServer, namespace: str, run_namespace: str, workflow_uid: str, **metadata: Any
) -> JSON:
    """Make the job of the run as the launcher does."""
    run = Run(
        RUN, run_namespace, {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": RUN, "uid": workflow_uid}
    )
    manifest = job_manifest(SPEC.work(), settings(), name=f"{RUN}-train", namespace=namespace, image="image", run=run)
    manifest["metadata"] |= metadata
    return kubernetes.do("POST", jobs_of(namespace), manifest)


def job_names(kubernetes: KubernetesServer, namespace: str) -> list[str]:
    return [job["metadata"]["name"] for job in kubernetes.do("GET", jobs_of(namespace))["items"]]


def gone(kubernetes: KubernetesServer, namespace: str) -> bool:
    wait_for(lambda: not job_names(kubernetes, namespace))
    return True


ENDS: dict[str, tuple[JSON, str]] = {
    "succeeded": ({"status": {"phase": "Succeeded"}}, "has ended (Succeeded)"),
    "failed": ({"status": {"phase": "Failed"}}, "has ended (Failed)"),
    "error": ({"status": {"phase": "Error"}}, "has ended (Error)"),
    # Kubeflow's way; the phase stays Running until all pods have ended.
    "terminated": ({"spec": {"activeDeadlineSeconds": 0}}, "was terminated"),
    "terminated-and-over": ({"spec": {"activeDeadlineSeconds": 0}, "status": {"phase": "Failed"}}, "was terminated"),
    "stopped-by-argo": ({"spec": {"shutdown": "Stop"}}, "was terminated"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_job_of_a_run_that_has_ended_is_deleted(kubernetes: KubernetesServer, home: str, end: str) -> None:
    uid = make_workflow(kubernetes, home)
    make_job(kubernetes, home, home, uid)
    sight = Sight(home)
    assert sight.look() and sight.look(3600.0)
    assert job_names(kubernetes, home) == [f"{RUN}-train"]
    change, how = ENDS[end]
    change_workflow(kubernetes, home, **change)
    assert sight.look()
    assert gone(kubernetes, home)
    assert sight.lines == [f"deleted job {home}/{RUN}-train: run {home}/{RUN} {how}"]
    assert sight.look() and len(sight.lines) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"status": {}},
        {"status": {"phase": "Pending"}},
        {"spec": {"activeDeadlineSeconds": 86400}},
        {"spec": {"suspend": True}},
    ],
    ids=["new", "pending", "with-a-deadline", "suspended"],
)
def test_the_job_of_a_run_that_goes_on_is_not_touched(kubernetes: KubernetesServer, home: str, content: JSON) -> None:
    uid = make_workflow(kubernetes, home, **content)
    job = make_job(kubernetes, home, home, uid)
    sight = Sight(home)
    assert all(sight.look(60.0) for _ in range(3))
    assert kubernetes.do("GET", f"{jobs_of(home)}/{RUN}-train")["metadata"]["uid"] == job["metadata"]["uid"]
    assert sight.lines == []


def test_a_job_in_another_namespace_than_its_run_is_deleted(
    kubernetes: KubernetesServer, home: str, elsewhere: str
) -> None:
    uid = make_workflow(kubernetes, home)
    job = make_job(kubernetes, elsewhere, home, uid)
    assert "ownerReferences" not in job["metadata"]
    sight = Sight(home, elsewhere)
    assert sight.look() and job_names(kubernetes, elsewhere) == [f"{RUN}-train"]
    change_workflow(kubernetes, home, status={"phase": "Failed"})
    assert sight.look() and gone(kubernetes, elsewhere)
    assert sight.lines == [f"deleted job {elsewhere}/{RUN}-train: run {home}/{RUN} has ended (Failed)"]


def test_the_job_of_a_deleted_run_is_deleted_after_two_looks(
    kubernetes: KubernetesServer, home: str, elsewhere: str
) -> None:
    uid = make_workflow(kubernetes, home)
    make_job(kubernetes, elsewhere, home, uid)
    kubernetes.do("DELETE", f"{workflows_of(home)}/{RUN}")
    sight = Sight(home, elsewhere)
    assert sight.look() and sight.look(4.0)
    assert job_names(kubernetes, elsewhere) == [f"{RUN}-train"] and sight.lines == []
    assert sight.look(2.0) and gone(kubernetes, elsewhere)
    assert sight.lines == [f"deleted job {elsewhere}/{RUN}-train: run {home}/{RUN} does not exist any more"]


def test_a_workflow_that_was_missing_once_counts_anew(kubernetes: KubernetesServer, home: str, elsewhere: str) -> None:
    make_job(kubernetes, elsewhere, home, make_workflow(kubernetes, home))
    missing = [True, False, True]

    class Flaky(Cluster):
        def workflow(self, name: str) -> Document | None:
            return None if missing.pop(0) else super().workflow(name)

    sight = Sight(home, elsewhere, connect=Flaky.connect)
    assert all(sight.look(60.0) for _ in range(3))
    assert missing == [] and sight.lines == []
    assert job_names(kubernetes, elsewhere) == [f"{RUN}-train"]


def test_the_job_of_a_run_that_is_being_deleted_goes(kubernetes: KubernetesServer, home: str, elsewhere: str) -> None:
    """Argo's garbage collection of artifacts keeps a deleted workflow by a finalizer."""
    finalizers = ["workflows.argoproj.io/artifact-gc"]
    uid = make_workflow(kubernetes, home, metadata={"name": RUN, "finalizers": finalizers})
    make_job(kubernetes, elsewhere, home, uid)
    kubernetes.do("DELETE", f"{workflows_of(home)}/{RUN}")
    sight = Sight(home, elsewhere)
    assert sight.look() and gone(kubernetes, elsewhere)
    assert sight.lines == [f"deleted job {elsewhere}/{RUN}-train: run {home}/{RUN} was deleted"]
    change_workflow(kubernetes, home, metadata={"finalizers": None})


def test_kubernetes_deletes_the_job_of_a_deleted_run_in_the_same_namespace(
    kubernetes: KubernetesServer, home: str
) -> None:
    make_job(kubernetes, home, home, make_workflow(kubernetes, home))
    kubernetes.do("DELETE", f"{workflows_of(home)}/{RUN}")
    wait_for(lambda: not job_names(kubernetes, home), LIMIT)


def test_a_new_run_of_the_same_name_is_not_taken_for_the_old_one(
    kubernetes: KubernetesServer, home: str, elsewhere: str
) -> None:
    old = make_workflow(kubernetes, home)
    make_job(kubernetes, elsewhere, home, old)
    kubernetes.do("DELETE", f"{workflows_of(home)}/{RUN}")
    new = make_workflow(kubernetes, home)
    sight = Sight(home, elsewhere)
    assert sight.look() and sight.look(20.0) and gone(kubernetes, elsewhere)
    said = f"deleted job {elsewhere}/{RUN}-train: run {home}/{RUN} was deleted, and a different run has its name"
    assert sight.lines == [said]
    job = make_job(kubernetes, elsewhere, home, new)
    assert all(sight.look(20.0) for _ in range(3))
    assert kubernetes.do("GET", f"{jobs_of(elsewhere)}/{RUN}-train")["metadata"]["uid"] == job["metadata"]["uid"]


def test_jobs_that_are_of_no_run_of_these_namespaces_are_not_touched(kubernetes: KubernetesServer, home: str) -> None:
    part = {"app.kubernetes.io/part-of": "kubeyolo"}
    mine = {"kubeyolo.io/run-namespace": home, "kubeyolo.io/workflow-uid": "0000"}
    without_owner: JSON = {"ownerReferences": []}
    others: dict[str, JSON] = {
        # Submitted from a terminal.
        "without-a-run": {"labels": part, "annotations": mine},
        # Of another Kubeflow installation.
        "of-another-namespace": {"annotations": {**mine, "kubeyolo.io/run-namespace": "kubeflow-of-others"}},
        "without-a-namespace": {"annotations": {"kubeyolo.io/workflow-uid": "0000"}},
        "without-a-workflow": {"annotations": {"kubeyolo.io/run-namespace": home}},
        "of-somebody-else": {"labels": {"kubeyolo.io/run": RUN}, "annotations": mine},
    }
    for name, metadata in others.items():
        make_job(kubernetes, home, home, "0000", **without_owner, **metadata, name=name)
    sight = Sight(home)
    assert all(sight.look(60.0) for _ in range(3))
    assert sorted(job_names(kubernetes, home)) == sorted(others)
    assert sight.lines == []


def test_a_job_that_was_made_after_the_look_began_is_not_deleted(
    kubernetes: KubernetesServer, home: str, elsewhere: str
) -> None:
    uid = make_workflow(kubernetes, home, status={"phase": "Failed"})
    first = make_job(kubernetes, elsewhere, home, uid)

    class Late(Cluster):
        def workflow(self, name: str) -> Document | None:
            kubernetes.do("DELETE", f"{jobs_of(elsewhere)}/{RUN}-train")
            gone(kubernetes, elsewhere)
            make_job(kubernetes, elsewhere, home, uid)
            return super().workflow(name)

    sight = Sight(home, elsewhere, connect=Late.connect)
    assert sight.look() and sight.lines == []
    left = kubernetes.do("GET", f"{jobs_of(elsewhere)}/{RUN}-train")
    assert left["metadata"]["uid"] != first["metadata"]["uid"] and "deletionTimestamp" not in left["metadata"]


def test_a_lost_right_for_one_namespace_does_not_stop_the_others(
    kubernetes: KubernetesServer, home: str, elsewhere: str
) -> None:
    uid = make_workflow(kubernetes, home, status={"phase": "Failed"})
    make_job(kubernetes, home, home, uid)
    make_job(kubernetes, elsewhere, home, uid)
    token = kubernetes.token_of(home, ACCOUNT)
    binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{elsewhere}/rolebindings/{ACCOUNT}"
    lost = kubernetes.do("GET", binding)
    kubernetes.do("DELETE", binding)
    wait_for(lambda: kubernetes.request("GET", jobs_of(elsewhere), token=token)[0] == 403)
    sight = Sight(home, elsewhere)
    assert not sight.look() and not sight.look(20.0)
    assert gone(kubernetes, home) and job_names(kubernetes, elsewhere) == [f"{RUN}-train"]
    assert len(sight.lines) == 2
    deleted, warning = sight.lines
    assert deleted.startswith(f"deleted job {home}/")
    assert warning.startswith(f"warning: this account may not list Volcano jobs in namespace {elsewhere}: ")
    kubernetes.do("POST", binding.rpartition("/")[0], {**lost, "metadata": {"name": ACCOUNT}})
    wait_for(lambda: kubernetes.request("GET", jobs_of(elsewhere), token=token)[0] == 200)
    assert sight.look(20.0) and gone(kubernetes, elsewhere)
    assert sight.lines[-1] == f"listing jobs in namespace {elsewhere} works again"


def test_a_cluster_that_does_not_know_workflows_loses_no_job(
    kubernetes: KubernetesServer, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while Argo is installed anew: that is not the same as a run that was deleted."""
    make_job(kubernetes, home, home, "0000", ownerReferences=[])
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig(namespace=home)))

    class WithoutArgo(Cluster):
        def _workflows(self, name: str = "") -> str:
            return super()._workflows(name).replace("argoproj.io", "absent.argoproj.io")

    sight = Sight(home, connect=WithoutArgo.connect)
    assert not any(sight.look(60.0) for _ in range(3))
    assert job_names(kubernetes, home) == [f"{RUN}-train"]
    said = "Argo Workflows is not installed on this cluster; install it with all its CRDs"
    assert sight.lines == [f"warning: {said}; trying again"]


def test_a_token_that_has_expired_is_read_again(kubernetes: KubernetesServer, home: str) -> None:
    uid = make_workflow(kubernetes, home, status={"phase": "Failed"})
    make_job(kubernetes, home, home, uid)
    file = Path(os.environ["KUBECONFIG"])
    renewed = file.read_text()
    kubeconfig = yaml.safe_load(renewed)
    kubeconfig["users"][0]["user"]["token"] = "expired"
    file.write_text(yaml.safe_dump(kubeconfig))
    sight = Sight(home)
    assert not sight.look() and not sight.look(20.0)
    (line,) = sight.lines
    assert "refuses the credentials; they may have expired" in line
    file.write_text(renewed)
    assert sight.look(20.0) and gone(kubernetes, home)


@pytest.fixture
def watching(home: str) -> Iterator[list[str]]:
    """A watch with the settings that are the default, at work in a thread; what it says."""
    lines: list[str] = []
    stop = threading.Event()
    watch = Watch([home], [home], lines.append)
    thread = threading.Thread(target=watch.run, args=(20.0, stop), daemon=True)
    thread.start()
    yield lines
    stop.set()
    thread.join(60)


def test_an_answer_that_nobody_expected_does_not_end_the_watch(kubernetes: KubernetesServer, home: str) -> None:
    uid = make_workflow(kubernetes, home, status={"phase": "Failed"})
    make_job(kubernetes, home, home, uid)
    errors = [KeyError("metadata"), RuntimeError("what is this")]

    def connect(namespace: str) -> Cluster:
        if errors:
            raise errors.pop(0)
        return Cluster.connect(namespace)

    lines: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(target=Watch([home], [home], lines.append, connect=connect).run, args=(1.0, stop))
    thread.start()
    assert gone(kubernetes, home)
    stop.set()
    thread.join(60)
    assert lines[0] == "warning: this round failed: KeyError('metadata')" and lines[-1].startswith("deleted job")


def step_of(kubernetes: KubernetesServer, namespace: str, workflow_uid: str) -> None:
    """Make the pod of the step, as it is of the workflow, and let Argo keep it."""
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": RUN, "uid": workflow_uid}
    make_step_pod(kubernetes, namespace, ownerReferences=[owner])


def test_the_job_of_a_step_that_was_killed_for_memory_goes_with_its_run(
    kubernetes: KubernetesServer, home: str, account: Path, volcano: Volcano
) -> None:
    step_of(kubernetes, home, make_workflow(kubernetes, home))
    step = start_step(account, "stops_with_its_run()", KFP_POD_NAME="step")
    volcano.run(volcano.wait_job())
    hear(step, "running")
    step.kill()
    assert step.wait(30) == -signal.SIGKILL
    sight = Sight(home)
    assert sight.look() and job_names(kubernetes, home) == [f"{RUN}-train"]
    change_workflow(kubernetes, home, status={"phase": "Failed"})
    assert sight.look() and gone(kubernetes, home)
    assert sight.lines == [f"deleted job {home}/{RUN}-train: run {home}/{RUN} has ended (Failed)"]


def test_the_job_of_a_step_that_is_tried_again_is_not_touched(
    kubernetes: KubernetesServer, home: str, account: Path, volcano: Volcano, watching: list[str]
) -> None:
    step_of(kubernetes, home, make_workflow(kubernetes, home))
    first = start_step(account, "stops_with_its_run()", KFP_POD_NAME="step")
    job = volcano.wait_job()
    names = volcano.run(job)
    hear(first, "running")
    first.kill()
    first.wait(30)
    sight = Sight(home)
    assert all(sight.look(60.0) for _ in range(3))
    second = start_step(account, "stops_with_its_run()", KFP_POD_NAME="step")
    hear(second, f"adopted job {RUN}-train, which is Running")
    assert all(sight.look(60.0) for _ in range(3))
    assert [each["metadata"]["uid"] for each in volcano.jobs()] == [job["metadata"]["uid"]]
    volcano.kubelet.end(*names)
    volcano.phase(job, "Completed")
    assert second.wait(60) == 0
    assert sight.lines == [] and watching == []


def start_watch(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kubeyolo.launch.watch", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_says_what_it_watches_and_ends_when_it_is_told(
    kubernetes: KubernetesServer, home: str, elsewhere: str, tmp_path: Path
) -> None:
    uid = make_workflow(kubernetes, home, status={"phase": "Failed"})
    make_job(kubernetes, elsewhere, home, uid)
    alive = tmp_path / "alive"
    process = start_watch(f"--jobs={elsewhere}", f"--alive={alive}", "--poll=1")
    assert gone(kubernetes, elsewhere)
    wait_for(alive.is_file)
    probe = [part.replace("/tmp/alive", str(alive)) for part in liveness_probe()]
    assert subprocess.run(probe, check=False).returncode == 0
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert said.splitlines() == [
        f"watching jobs in {home}, {elsewhere} of runs in {home}",
        f"deleted job {elsewhere}/{RUN}-train: run {home}/{RUN} has ended (Failed)",
    ]
    os.utime(alive, (1.0, time.time() - 121.0))
    assert subprocess.run(probe, check=False).returncode == 1


def liveness_probe() -> list[str]:
    documents = list(yaml.safe_load_all((MANIFESTS / "base" / "watch.yaml").read_text()))
    deployment = next(each for each in documents if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return list(container["livenessProbe"]["exec"]["command"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--poll=600"], "--poll 600: expected 1 to 40 seconds"), ([], "error: no Kubernetes cluster: ")],
)
def test_the_program_refuses_what_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], words: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    process = start_watch(*arguments)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2 and words in errors


def test_an_api_server_that_was_away_is_waited_for(
    kubernetes: KubernetesServer, home: str, watching: list[str]
) -> None:
    uid = make_workflow(kubernetes, home)
    make_job(kubernetes, home, home, uid)
    kubernetes.stop_api_server()
    wait_for(lambda: watching, LIMIT)
    time.sleep(10.0)
    kubernetes.start_api_server()
    began = time.monotonic()
    # It answers with 429 until it has read what is stored.
    for path in (workflows_of(home), jobs_of(home)):
        wait_for(lambda path=path: kubernetes.request("GET", path)[0] == 200)  # type: ignore[misc]
    change_workflow(kubernetes, home, status={"phase": "Failed"})
    wait_for(lambda: not job_names(kubernetes, home), LIMIT)
    assert time.monotonic() - began < LIMIT
    wait_for(lambda: len(watching) >= 3)
    assert watching[0].endswith("trying again") and watching[0].count("\n") == 0
    assert sorted(watching[1:]) == [
        f"deleted job {home}/{RUN}-train: run {home}/{RUN} has ended (Failed)",
        "the API server is back",
    ]
