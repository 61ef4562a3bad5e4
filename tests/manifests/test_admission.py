"""The admission policy on a real API server: it admits our jobs and refuses hostile ones; without policy, all."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.launch import forms, policy
from kubeyolo.launch.ascend import DRIVER_MOUNTS
from kubeyolo.launch.manifest import job_manifest
from kubeyolo.launch.policy import CONFIG_MAP, read_policy
from kubeyolo.launch.settings import cluster_presets, cluster_settings
from kubeyolo.training.spec import TrainingSpec
from tests.kubernetes_server import JSON, KubernetesServer, wait_for

MANIFESTS = Path(__file__).parents[2] / "manifests"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
RUNTIME_CLASS = "of-the-administrator"
IMAGE = "kubeyolo-train@sha256:00"


def read(*parts: str) -> list[JSON]:
    return [each for each in yaml.safe_load_all(MANIFESTS.joinpath(*parts).read_text()) if each]


class Admission:
    """The admission policy, for two namespaces of its own: the namespace of the policy, and that of the trainers."""

    def __init__(self, kubernetes: KubernetesServer) -> None:
        self.kubernetes = kubernetes
        name = uuid.uuid4().hex[:8]
        self.home = kubernetes.namespace(f"policy-{name}")
        self.trainers = kubernetes.namespace(f"trainers-{name}", {f"{name}/jobs": "yes", f"{name}/pods": "yes"})
        (self.policy,) = read("base", "policy.yaml")
        self.policy["data"]["mounts"] = "/opt/driver /opt/driver/*"
        kubernetes.do("POST", self._policies, self.policy)
        kubernetes.do("POST", f"/api/v1/namespaces/{self.trainers}/serviceaccounts", {"metadata": {"name": "admin"}})
        self._runtime_class = f"/apis/node.k8s.io/v1/runtimeclasses/{RUNTIME_CLASS}"
        path = self._runtime_class.rpartition("/")[0]
        kubernetes.request("POST", path, {"metadata": {"name": RUNTIME_CLASS}, "handler": "runc"})
        self._objects: list[str] = []
        for document in [*read("admission", "trainers.yaml"), *read("admission", "store-keys.yaml")]:
            self._install(copy.deepcopy(document), name)
        wait_for(lambda: self._is_active(self.job()), 30.0)

    @property
    def _policies(self) -> str:
        return f"/api/v1/namespaces/{self.home}/configmaps"

    def _install(self, document: JSON, name: str) -> None:
        plural = f"{document['kind'].lower().removesuffix('y')}ies" if document["kind"].endswith("y") else ""
        plural = plural or f"{document['kind'].lower()}s"
        spec = document["spec"]
        document["metadata"]["name"] += f"-{name}"
        if "policyName" in spec:
            spec["policyName"] += f"-{name}"
            if "paramRef" in spec:
                spec["paramRef"]["namespace"] = self.home
            labels = spec["matchResources"]["namespaceSelector"]["matchLabels"]
            spec["matchResources"]["namespaceSelector"]["matchLabels"] = {
                f"{name}/{key.rpartition('/')[2]}": "yes" for key in labels
            }
        for condition in spec.get("matchConditions", ()):
            condition["expression"] = condition["expression"].replace(":kubeflow:", f":{self.home}:")
        self.kubernetes.do("POST", f"{REGISTRATION}/{plural}", document)
        self._objects.append(f"{REGISTRATION}/{plural}/{document['metadata']['name']}")

    def _is_active(self, job: JSON) -> bool:
        """Tell whether the API server has read the policy and its parameter."""
        for kind, good in (("jobs", job), ("pods", self.pod(job))):
            bad = copy.deepcopy(good)
            spec = bad["spec"]["tasks"][0]["template"]["spec"] if kind == "jobs" else bad["spec"]
            spec["automountServiceAccountToken"] = True
            if self.create(kind, bad)[0] != 422 or self.create(kind, good)[0] != 201:
                return False
        return True

    def remove(self) -> None:
        for path in self._objects:
            self.kubernetes.request("DELETE", path)

    def set_policy(self, **data: str) -> None:
        self.kubernetes.do("PATCH", f"{self._policies}/{CONFIG_MAP}", {"data": {**self.policy["data"], **data}})

    def job(self, preset: str = "cpu", has_own_key: bool = True, **values: Any) -> JSON:
        config = load_config("yolov5n-r7", sets=("train.processes=16",))
        spec = TrainingSpec(dataset="minio://data/sets/cells-1", output="minio://data/trainings/one", config=config)
        settings = cluster_settings({"preset": preset, "queue": "kubeyolo", **values})[1]["train"]
        own = {"namespace": self.trainers, "image": IMAGE, "has_own_key": has_own_key}
        return job_manifest(spec.work(), settings, name="run-train", **own)

    def pod(self, job: JSON) -> JSON:
        """Return a pod of a job, with everything that Volcano adds."""
        name = job["metadata"]["name"]
        template = copy.deepcopy(job["spec"]["tasks"][0]["template"])
        spec, meta = template["spec"], template["metadata"]
        meta["name"] = f"{name}-worker-0"
        meta["labels"] |= {"volcano.sh/job-name": name, "volcano.sh/job-namespace": self.trainers}
        meta["annotations"] = {
            **meta.get("annotations", {}),
            "volcano.sh/job-version": "0",
            "volcano.sh/task-spec": "worker",
            "scheduling.k8s.io/group-name": f"{name}-1",
        }
        spec["schedulerName"] = job["spec"]["schedulerName"]
        spec["volumes"].append({"name": f"{name}-svc", "configMap": {"name": f"{name}-svc"}})
        (container,) = spec["containers"]
        container["volumeMounts"].append({"name": f"{name}-svc", "mountPath": "/etc/volcano"})
        source = {"configMapKeyRef": {"name": f"{name}-svc", "key": "VC_WORKER_HOSTS"}}
        container["env"] += [{"name": "VC_TASK_INDEX", "value": "0"}, {"name": "VC_WORKER_HOSTS", "valueFrom": source}]
        return {"apiVersion": "v1", "kind": "Pod", **template}

    def create(self, kind: str, manifest: JSON) -> tuple[int, JSON]:
        """Try to create a job or a pod, and return the answer."""
        group = "/api/v1" if kind == "pods" else "/apis/batch.volcano.sh/v1alpha1"
        return self.kubernetes.request("POST", f"{group}/namespaces/{self.trainers}/{kind}?dryRun=All", manifest)


@pytest.fixture(scope="module")
def admission(kubernetes: KubernetesServer) -> Iterator[Admission]:
    made = Admission(kubernetes)
    yield made
    made.remove()


GOOD: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in cluster_presets()},
    "the Secret of the administrator": {"has_own_key": False},
    "a rank table": {"preset": "ascend910b", "rank_table": True},
    "another user": {"run_as_user": 2000},
    "the cards of HAMi": {"preset": "ascend910b", "device_resource": "huawei.com/Ascend910B3"},
    "values with references": {"environment": {"HCCL_Q": "$(HOME) $$"}},
}


@pytest.mark.parametrize("what", GOOD)
def test_jobs_of_kubeyolo_and_their_pods_are_admitted(admission: Admission, what: str) -> None:
    job = admission.job(**GOOD[what])
    for kind, manifest in (("jobs", job), ("pods", admission.pod(job))):
        status, answer = admission.create(kind, manifest)
        assert status == 201, answer["message"]


def test_an_administrator_allows_the_driver_of_the_host(admission: Admission) -> None:
    job = admission.job("ascend910b", host_driver=True)
    status, answer = admission.create("jobs", job)
    assert status == 422 and "folders of the host must be among mounts" in answer["message"]
    admission.set_policy(mounts=" ".join(DRIVER_MOUNTS))
    try:
        for kind, manifest in (("jobs", job), ("pods", admission.pod(job))):
            wait_for(lambda kind=kind, manifest=manifest: admission.create(kind, manifest)[0] == 201, 20.0)
    finally:
        admission.set_policy()
        wait_for(lambda: admission.create("jobs", job)[0] == 422, 20.0)


Change = Callable[[JSON, JSON], Any]
"""Changes the metadata and the specification of a pod."""


def container(spec: JSON) -> JSON:
    return dict(spec["containers"][0])


def volume(source: JSON, **mount: Any) -> Change:
    def change(meta: JSON, spec: JSON) -> None:
        spec["volumes"].append({"name": "more", **source})
        spec["containers"][0]["volumeMounts"].append({"name": "more", "mountPath": "/more", **mount})

    return change


def variable(name: str, **value: Any) -> Change:
    return lambda meta, spec: spec["containers"][0]["env"].append({"name": name, **value})


def pod_security(**values: Any) -> Change:
    return lambda meta, spec: spec["securityContext"].update(values)


def container_security(**values: Any) -> Change:
    return lambda meta, spec: spec["containers"][0]["securityContext"].update(values)


def fields(**values: Any) -> Change:
    return lambda meta, spec: spec.update(values)


def annotation(name: str, value: str) -> Change:
    return lambda meta, spec: meta.setdefault("annotations", {}).update({name: value})


def devices_of(path: str) -> Change:
    return variable("ASCEND_VISIBLE_DEVICES", valueFrom={"fieldRef": {"fieldPath": path}})


def image(reference: str) -> Change:
    return lambda meta, spec: spec["containers"][0].update(image=reference)


def resource(name: str) -> Change:
    def change(meta: JSON, spec: JSON) -> None:
        for sizes in spec["containers"][0]["resources"].values():
            sizes[name] = "1"

    return change


def all_of(*changes: Change) -> Change:
    return lambda meta, spec: [change(meta, spec) for change in changes]


TOKEN = {"serviceAccountToken": {"path": "token"}}

HOSTILE: dict[str, tuple[Change, str]] = {
    "root of the host": (volume({"hostPath": {"path": "/"}}, readOnly=True), "among mounts"),
    "way out of a mount": (volume({"hostPath": {"path": "/opt/driver/../../etc"}}, readOnly=True), "among mounts"),
    "writable driver": (volume({"hostPath": {"path": "/opt/driver/lib64"}}), "read only"),
    "token in a projected volume": (volume({"projected": {"sources": [TOKEN]}}), "volumes must be"),
    "claim of a volume": (volume({"persistentVolumeClaim": {"claimName": "data"}}), "volumes must be"),
    "other secret as a volume": (volume({"secret": {"secretName": "admin"}}), "Secrets must be"),
    "key of another job": (volume({"secret": {"secretName": "other-train-store-key"}}), "Secrets must be"),
    "other secret as a variable": (
        variable("KEY", valueFrom={"secretKeyRef": {"name": "admin", "key": "key"}}),
        "Secrets must be",
    ),
    "all of a secret as variables": (
        lambda meta, spec: spec["containers"][0]["envFrom"].append({"secretRef": {"name": "admin"}}),
        "Secrets must be",
    ),
    "other ConfigMap": (
        lambda meta, spec: spec["containers"][0]["envFrom"].append({"configMapRef": {"name": "of-kubeflow"}}),
        "ConfigMaps must be",
    ),
    "privileged": (container_security(privileged=True, allowPrivilegeEscalation=True), "privileges"),
    "privilege escalation": (container_security(allowPrivilegeEscalation=True), "privileges"),
    "capability": (container_security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "capabilities"),
    "capabilities of the runtime": (container_security(capabilities={}), "capabilities"),
    "root in the container": (container_security(runAsUser=0, runAsNonRoot=False), "the user"),
    "no seccomp": (pod_security(seccompProfile={"type": "Unconfined"}), "seccomp"),
    "root": (pod_security(runAsUser=0, runAsNonRoot=False), "runAs"),
    "user of the system": (pod_security(runAsUser=33, runAsGroup=33, fsGroup=33), "users: 1000-65535"),
    "group root": (pod_security(supplementalGroups=[0]), "groups: 1000"),
    "group of docker": (pod_security(fsGroup=998), "groups: 1000"),
    "network of the host": (fields(hostNetwork=True), "hostNetwork"),
    "processes of the host": (fields(hostPID=True), "hostPID"),
    "port of the host": (
        lambda meta, spec: spec["containers"][0].update(ports=[{"containerPort": 80, "hostPort": 80}]),
        "hostPort",
    ),
    "token": (fields(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "account": (fields(serviceAccountName="admin"), "service account"),
    "init container": (
        lambda meta, spec: spec.update(initContainers=[{**container(spec), "name": "first"}]),
        "init containers",
    ),
    "second container": (
        lambda meta, spec: spec["containers"].append({**container(spec), "name": "second"}),
        "one container",
    ),
    "tolerates everything": (fields(tolerations=[{"operator": "Exists"}]), "tolerations"),
    "tolerates the control plane": (
        fields(tolerations=[{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]),
        "tolerations",
    ),
    "priority": (fields(priorityClassName="system-node-critical"), "priority"),
    "runtime class": (fields(runtimeClassName=RUNTIME_CLASS), "runtime"),
    "node": (fields(nodeName="control-plane"), "nodeName"),
    "scheduler": (fields(schedulerName="default-scheduler"), "scheduler must be volcano"),
    **{
        f"image {reference}": (image(reference), "images: kubeyolo-*")
        for reference in (
            "elsewhere/kubeyolo-train",
            "kubeyolo-evil.example.com/any:1",
            "kubeyolo-evil:5000/any",
            "kubeyolo-evil/any:1",
            "kubeyolo-train evil",
            "kubeyolo-train/../evil",
            "kubeyolo-train\n",
        )
    },
    **{
        f"resource {name}": (resource(name), "among devices: huawei.com/Ascend*")
        for name in ("devices.kubevirt.io/kvm", "nvidia.com/gpu", "huawei.com/x", "hugepages-2Mi")
    },
    "devices through the runtime": (variable("ASCEND_VISIBLE_DEVICES", value="0-7"), "container runtime"),
    "devices of other makers": (variable("AMD_VISIBLE_DEVICES", value="all"), "container runtime"),
    **{
        f"devices of {path}": (all_of(change, devices_of(path)), "container runtime")
        for path, change in {
            "metadata.annotations['kubeyolo.io/x']": annotation("kubeyolo.io/x", "0-7"),
            "metadata.annotations['sp-block']": annotation("sp-block", "0-7"),
            "metadata.annotations['x.huawei.com/Ascend910']": lambda meta, spec: None,
            "metadata.labels['kubeyolo.io/x']": lambda meta, spec: meta["labels"].update({"kubeyolo.io/x": "0-7"}),
            "metadata.name": lambda meta, spec: None,
        }.items()
    },
    "folders through the runtime": (variable("ASCEND_RUNTIME_MOUNTS", value="all"), "container runtime"),
    "devices through the plugin": (
        lambda meta, spec: meta.setdefault("annotations", {}).update({"huawei.com/Ascend910": "Ascend910-0"}),
        "annotations",
    ),
    "no AppArmor": (
        lambda meta, spec: meta.setdefault("annotations", {}).update(
            {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}
        ),
        "annotations",
    ),
    "outside of the network policy": (lambda meta, spec: meta["labels"].pop("app.kubernetes.io/component"), "network"),
    "behind a service of Kubeflow": (lambda meta, spec: meta["labels"].update(app="ml-pipeline"), "labels of pods"),
    "probe of another host": (
        lambda meta, spec: spec["containers"][0].update(
            livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}
        ),
        "probes",
    ),
}


@pytest.mark.parametrize("kind", ["jobs", "pods"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_job_or_pod_is_refused(admission: Admission, what: str, kind: str) -> None:
    change, words = HOSTILE[what]
    job = admission.job()
    if kind == "jobs":
        template = job["spec"]["tasks"][0]["template"]
        change(template["metadata"], template["spec"])
        status, answer = admission.create("jobs", job)
    else:
        pod = admission.pod(job)
        change(pod["metadata"], pod["spec"])
        status, answer = admission.create("pods", pod)
    assert status in (403, 422), (status, answer)
    assert "kubeyolo-trainers" in answer["message"] or (kind == "pods" and what in KUBERNETES_REFUSES), answer[
        "message"
    ]
    # Kubernetes replaces some annotations and fields of pods before it asks the policy.
    assert words in answer["message"] or kind == "pods", answer["message"]


KUBERNETES_REFUSES = {"way out of a mount", "privileged", "image kubeyolo-train\n", "resource hugepages-2Mi"}
"""Pods that Kubernetes itself refuses before it asks the policy."""


JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "queue": ({"queue": "of-others"}, "queues"),
    "priority": ({"priorityClassName": "system-node-critical"}, "priority"),
    "scheduler": ({"schedulerName": "default-scheduler"}, "scheduler must be volcano"),
    "volumes": ({"volumes": [{"mountPath": "/data", "volumeClaimName": "data"}]}, "volumes of its own"),
    "plugin": ({"plugins": {"ssh": []}}, "plugins"),
}


@pytest.mark.parametrize("what", JOBS)
def test_a_hostile_specification_of_a_job_is_refused(admission: Admission, what: str) -> None:
    job = admission.job()
    change, words = JOBS[what]
    job["spec"].update(change)
    status, answer = admission.create("jobs", job)
    assert status == 422 and words in answer["message"], (status, answer["message"])


def test_changes_of_admitted_pods_and_jobs_are_checked_too(admission: Admission) -> None:
    kubernetes, path = admission.kubernetes, f"/api/v1/namespaces/{admission.trainers}/pods"
    pod = kubernetes.do("POST", path, admission.pod(admission.job()))
    name = f"{path}/{pod['metadata']['name']}"
    annotated = {"metadata": {"annotations": {"cni.example.com/address": "10.0.0.1"}}}
    kubernetes.do("PATCH", name, annotated)
    debugger = {**container(pod["spec"]), "name": "debugger"}
    debugger = {key: debugger[key] for key in ("name", "image", "securityContext")}
    for sub, change in (
        ("/ephemeralcontainers", {"spec": {"ephemeralContainers": [debugger]}}),
        ("", {"metadata": {"labels": {"app.kubernetes.io/component": None}}}),
        ("", {"spec": {"containers": [{"name": "trainer", "image": "elsewhere/image"}]}}),
        ("", {"spec": {"tolerations": [*pod["spec"]["tolerations"], {"key": "reserved", "operator": "Exists"}]}}),
    ):
        status, answer = kubernetes.request("PATCH", f"{name}{sub}", change, patch="strategic-merge-patch+json")
        assert status == 422 and "kubeyolo-trainers" in answer["message"], (change, status, answer)
    jobs = f"/apis/batch.volcano.sh/v1alpha1/namespaces/{admission.trainers}/jobs"
    job = kubernetes.do("POST", jobs, admission.job())
    place = f"{jobs}/{job['metadata']['name']}"

    def changed(change: Change) -> JSON:
        tasks = copy.deepcopy(job["spec"]["tasks"])
        change(tasks[0]["template"].setdefault("metadata", {}), tasks[0]["template"]["spec"])
        return {"spec": {"tasks": tasks}}

    for body, words in (
        ({"spec": {"queue": "of-others"}}, "queues"),
        (changed(annotation("huawei.com/Ascend910", "Ascend910-0")), "annotations of pods"),
        (changed(annotation("k8s.v1.cni.cncf.io/networks", "of-hosts")), "annotations of pods"),
        (changed(fields(nodeName="control-plane")), "nodeName"),
        (changed(fields(schedulerName="default-scheduler")), "scheduler"),
        (changed(image("kubeyolo-evil/any:1")), "images"),
    ):
        status, answer = kubernetes.request("PATCH", place, body)
        assert status == 422 and words in answer["message"], (body, status, answer)
    kubernetes.do("PATCH", place, changed(fields(terminationGracePeriodSeconds=60)))
    kubernetes.do("DELETE", place)


Words = dict[str, str]

READINGS: dict[str, tuple[Words, dict[str, Any], str]] = {
    "lines of another system": ({"users": "5\r\n1000-65535\r\n", "images": "x\r\nkubeyolo-*"}, {}, ""),
    "tabs": ({"images": "x\tkubeyolo-*", "queues": "\tkubeyolo\t", "groups": "5\t1000"}, {}, ""),
    "several lines": ({"images": "x\ny"}, {}, "images must be among images: x y"),
    "any user": ({"users": "*"}, {}, "numbers and ranges such as 1000-65535: users *, groups 1000"),
    "half a range": ({"users": "1000-65535 1000-"}, {}, "users 1000-65535 1000-, groups"),
    "another form of numbers": ({"users": "1000-65535 0x10"}, {}, "users 1000-65535 0x10, groups"),
    "too large a number": ({"users": "0-99999999999"}, {}, "users 0-99999999999, groups"),
    "groups that start with a number": ({"groups": "1*"}, {}, "groups 1*"),
    "a range of groups": ({"groups": "5 1000-1003"}, {"supplemental_groups": [5, 1003]}, ""),
    "a group outside of a range": ({"groups": "1000-1003"}, {"supplemental_groups": [1004]}, "groups: 1000-1003"),
    "any Secret": ({"store_secrets": "*"}, {"has_own_key": False, "store_secret": "of-others"}, ""),
    "Secrets of a team": ({"store_secrets": "team-*"}, {"has_own_key": False, "store_secret": "team-a"}, ""),
    "Secrets of others": ({"store_secrets": "team-*"}, {"has_own_key": False, "store_secret": "b"}, "Secrets must be"),
    "any ConfigMap": ({"store_configs": "*"}, {"store_config": "of-others"}, ""),
    "any priority": ({"priority_classes": "*"}, {"priority_class": "training"}, ""),
    "priorities of a team": ({"priority_classes": "team-*"}, {"priority_class": "other"}, "priority classes must be"),
    "any runtime": ({"runtime_classes": "*"}, {"runtime_class": RUNTIME_CLASS}, ""),
    "no devices": ({"devices": ""}, {"preset": "ascend910b"}, "resources must be"),
}


@pytest.mark.parametrize("what", READINGS)
def test_the_policy_means_the_same_in_the_cluster_and_in_a_command(admission: Admission, what: str) -> None:
    data, values, words = READINGS[what]
    data = {"images": "kubeyolo-*", **data}
    own = {key: value for key, value in values.items() if key != "has_own_key"}
    settings = cluster_settings({"queue": "kubeyolo", **own})[1]["train"].model_copy(update={"image": IMAGE})
    try:
        read_policy({**admission.policy["data"], **data}).check(settings)
        is_refused = False
    except InputError:
        is_refused = True
    # The key of the toleration shows that the API server has read this policy.
    mark = f"of-{uuid.uuid4().hex[:8]}"
    admission.set_policy(**{"tolerations": mark, **data})
    toleration = {"tolerations": [{"key": mark}]}
    try:
        job = admission.job(**values, **toleration)
        seen: list[tuple[int, JSON]] = []

        def is_read() -> bool:
            seen[:] = [admission.create("jobs", job)]
            return seen[0][0] == 201 if not words else words in seen[0][1].get("message", "")

        wait_for(is_read, 20.0)
        assert bool(words) == is_refused
    finally:
        admission.set_policy()


def test_without_the_policy_every_job_and_every_pod_is_refused(kubernetes: KubernetesServer) -> None:
    own = Admission(kubernetes)
    try:
        job = own.job()
        kubernetes.do("DELETE", f"/api/v1/namespaces/{own.home}/configmaps/{CONFIG_MAP}")
        for kind, manifest in (("jobs", job), ("pods", own.pod(job))):
            wait_for(lambda kind=kind, manifest=manifest: own.create(kind, manifest)[0] != 201, 20.0)
            status, answer = own.create(kind, manifest)
            assert status in (403, 422) and "no params found" in answer["message"], answer
    finally:
        own.remove()


def test_the_account_of_the_steps_writes_only_keys_of_jobs(admission: Admission) -> None:
    kubernetes, home, namespace = admission.kubernetes, admission.home, admission.trainers
    kubernetes.do("POST", f"/api/v1/namespaces/{home}/serviceaccounts", {"metadata": {"name": "pipeline-runner"}})
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}
    subject = {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": home}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    kubernetes.do("POST", f"{rbac}/roles", {"metadata": {"name": "keys"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keys"}
    binding = {"metadata": {"name": "keys"}, "roleRef": reference, "subjects": [subject]}
    kubernetes.do("POST", f"{rbac}/rolebindings", binding)
    token, path = kubernetes.token_of(home, "pipeline-runner"), f"/api/v1/namespaces/{namespace}/secrets"
    wait_for(lambda: kubernetes.request("GET", path, token=token)[0] == 200)
    owner = {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "name": "run-train", "uid": "1"}
    kubernetes.do("POST", path, {"metadata": {"name": "admin"}, "type": "Opaque"})

    def answer(name: str, kind: str = "Opaque", owners: tuple[JSON, ...] = (owner,), method: str = "POST") -> JSON:
        secret = {"metadata": {"name": name, "ownerReferences": list(owners)}, "type": kind}
        if kind.endswith("token"):
            secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
        place = path if method == "POST" else f"{path}/{name}"
        return kubernetes.request(method, f"{place}?dryRun=All", secret, token=token)[1]

    assert answer("run-train-store-key")["kind"] == "Secret"
    assert "names end with" in answer("run-train")["message"]
    assert "names end with" in answer("admin", method="PUT")["message"]
    assert "names end with" in answer("run-train-store-key", "kubernetes.io/service-account-token")["message"]
    assert "must be owned" in answer("run-train-store-key", owners=())["message"]
    assert "must be owned" in answer("other-train-store-key")["message"]


def test_a_missing_key_of_the_policy_is_an_empty_list(admission: Admission) -> None:
    """As in a ConfigMap that is older than the key."""
    kubernetes, job = admission.kubernetes, admission.job
    place = f"/api/v1/namespaces/{admission.home}/configmaps/{CONFIG_MAP}"
    kubernetes.do("PATCH", place, {"data": {"devices": None, "priority_classes": None}})
    try:
        wait_for(lambda: "among devices" in admission.create("jobs", job("ascend910b"))[1].get("message", ""), 20.0)
        status, answer = admission.create("jobs", job())
        assert status == 201, answer["message"]
        assert "priority_classes" in admission.create("jobs", job(priority_class="high"))[1]["message"]
    finally:
        admission.set_policy()


def test_the_forms_in_the_admission_policy_are_those_of_the_commands() -> None:
    text = MANIFESTS.joinpath("admission", "trainers.yaml").read_text()
    assert f"'^{forms.IMAGE.pattern}$'" in text
    assert text.count(f"'^{policy._RANGE.pattern}$'") == 3
