"""The Volcano Job of some work, from settings to a manifest: a pure function."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.launch import ascend
from kubeyolo.launch.policy import without_reserved
from kubeyolo.launch.rank_table import RANK_TABLE_FILE, TABLE_FOLDER, initial_table
from kubeyolo.launch.rendezvous import ADDRESS, ATTEMPT, GANG_NAME, MASTER, NODES, PORT, RENDEZVOUS_LIMIT
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.processes import CONTAINER_VARIABLES, IMAGE, RUN
from kubeyolo.signing import TRUSTED_KEYS
from kubeyolo.storage.credentials_file import CREDENTIALS_FILE
from kubeyolo.work import DEVICES, EXIT_INTERRUPTED, WORK, Work

GROUP, VERSION, PLURAL = "batch.volcano.sh", "v1alpha1", "jobs"
TASK = "worker"
CONTAINER = "trainer"

RUN_LABEL = "kubeyolo.io/run"
OUTPUT_LABEL = "kubeyolo.io/output"
SPEC_ANNOTATION = "kubeyolo.io/spec"
RUN_NAMESPACE_ANNOTATION = "kubeyolo.io/run-namespace"
WORKFLOW_ANNOTATION = "kubeyolo.io/workflow-uid"
PASSWORD_ANNOTATION = "kubeyolo.io/passwd"
"""Annotation of pods with their /etc/passwd, if the user of the image is replaced."""
POD_LABELS = {"app.kubernetes.io/part-of": "kubeyolo", "app.kubernetes.io/component": "trainer"}

BAD_INPUT = 2
"""Exit code of a pod that refuses its input; a restart would not help."""

_IMAGE_USER = 10001
"""User of the images, who is in their /etc/passwd; without an entry there HCCL fails with more than one card."""

_MASTER_PORT = 8118
_SECRET_KEYS = {
    "MINIO_ACCESS_KEY": "accesskey",
    "MINIO_SECRET_KEY": "secretkey",
    "MINIO_SESSION_TOKEN": "sessiontoken",
}
_NAME_LENGTH = 40
_KEY_SUFFIX = "-store-key"
_KEY_FOLDER = "/var/run/kubeyolo/store"
KEY_FILE = "credentials"
"""Key of the Secret of :func:`key_secret`, and name of the file in the pods."""
_TABLE = "ranktable"
"""Volume of the rank table; the operator looks for this name."""


@dataclass(frozen=True)
class Run:
    """The run of a pipeline that a job belongs to.

    Attributes:
        name: Name of its workflow.
        namespace: Namespace of its workflow, which may differ from that of the job.
        workflow: Owner reference of the pods of its steps: ``apiVersion``, ``kind``, ``name`` and ``uid``; None if
            the pods have no owner. With the reference Kubernetes removes a job when its workflow is removed.
    """

    name: str
    namespace: str
    workflow: Mapping[str, str] | None = None


def digest_of(text: str, digits: int = 12) -> str:
    """Return the first digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def job_name(run: str, task: str) -> str:
    """Return the name of the job of a task of a run: the same for every attempt, and short enough for host names."""
    plain = re.sub(r"[^a-z0-9-]+", "-", run.lower()).strip("-") or "run"
    if not plain[0].isalpha():
        plain = f"run-{plain}"
    if len(plain) > _NAME_LENGTH:
        plain = f"{plain[: _NAME_LENGTH - 9].rstrip('-')}-{digest_of(run, 8)}"
    return f"{plain}-{task}"


def job_manifest(
    work: Work,
    settings: ClusterSettings,
    *,
    name: str,
    namespace: str,
    image: str,
    run: Run | None = None,
    has_own_key: bool = False,
) -> dict[str, Any]:
    """Return the ``batch.volcano.sh/v1alpha1`` Job that runs some work as a gang of pods.

    Every pod runs under the restricted PodSecurity level, except for mounts of the driver of its host; it has a
    read-only root and no token of a service account. Secrets are referred to by name.

    Args:
        work: The work; its number of processes is the number of devices of all pods.
        settings: Cluster settings.
        name: Name of the job.
        namespace: Namespace of the job.
        image: Image of the trainer.
        run: The run that the job belongs to. Its workflow owns the job when both are in the same namespace.
        has_own_key: Whether the pods use the key of the store in :func:`key_secret`, or that of the settings.

    Raises:
        InputError: The number of processes does not fit the pods.
    """
    # The settings cannot replace these labels: the network policy and the watch select jobs and pods by them.
    labels = {
        **without_reserved("labels", settings.labels),
        **POD_LABELS,
        OUTPUT_LABEL: digest_of(work.output),
        **({RUN_LABEL: run.name} if run else {}),
    }
    nodes = settings.nodes_for(work.processes)
    # The scheduler reads annotations of the job, which Volcano copies to the pod group, and of the pods.
    scheduling = {**without_reserved("annotations", settings.annotations), **_super_pod(settings, nodes)}
    template: dict[str, Any] = {
        "metadata": {"labels": labels, "annotations": {**scheduling, **_password_file(settings)}},
        "spec": _pod(work, settings, name, nodes, image),
    }
    if not template["metadata"]["annotations"]:
        del template["metadata"]["annotations"]
    job = _job(settings, nodes, template)
    if _has_table(work, settings):
        # The operator takes the ranks from the annotation that this plugin writes.
        job["plugins"]["hcclrank"] = []
    annotations = {**scheduling, SPEC_ANNOTATION: digest_of(json.dumps(job, sort_keys=True))}
    if has_own_key:
        # Not part of the digest: whether the store gives out keys may change until a job is adopted.
        _use_own_key(template["spec"], name)
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    if run and run.workflow:
        annotations |= {RUN_NAMESPACE_ANNOTATION: run.namespace, WORKFLOW_ANNOTATION: run.workflow["uid"]}
        # Kubernetes removes an object at once if its owner is in another namespace.
        if run.namespace == namespace:
            metadata["ownerReferences"] = [dict(run.workflow)]
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Job", "metadata": metadata, "spec": job}


def key_secret(name: str) -> str:
    """Return the name of the Secret with the key of the store for a job."""
    return f"{name}{_KEY_SUFFIX}"


def _use_own_key(pod: dict[str, Any], name: str) -> None:
    """Let a pod read the key of the store from the Secret of its job, which changes before the key expires."""
    (container,) = pod["containers"]
    container["env"] = [each for each in container["env"] if each["name"] not in _SECRET_KEYS]
    container["env"].append({"name": CREDENTIALS_FILE, "value": f"{_KEY_FOLDER}/{KEY_FILE}"})
    # The file belongs to root and to the group of the pod.
    secret = {"secretName": key_secret(name), "defaultMode": 0o440}
    pod["volumes"].append({"name": "store-key", "secret": secret})
    container["volumeMounts"].append({"name": "store-key", "mountPath": _KEY_FOLDER, "readOnly": True})


def rank_table_manifest(job: Mapping[str, Any], uid: str) -> dict[str, Any] | None:
    """Return the ConfigMap in which the operator writes the rank table of a job; None if the job has no rank table.

    Args:
        job: Manifest of the job.
        uid: Its uid: the ConfigMap is removed with the job.
    """
    name, task = job["metadata"]["name"], job["spec"]["tasks"][0]
    if not any(volume["name"] == _TABLE for volume in task["template"]["spec"]["volumes"]):
        return None
    label = {ascend.RANK_TABLE_LABEL: job["metadata"]["labels"][ascend.RANK_TABLE_LABEL]}
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _table_name(name), "labels": label, "ownerReferences": [owner]},
        "data": initial_table(),
    }


def _table_name(job: str) -> str:
    return f"rings-config-{job}"


def _has_table(work: Work, settings: ClusterSettings) -> bool:
    """Tell whether the processes of a job find each other by a rank table; a single process needs none."""
    return settings.rank_table and work.processes > 1


def _super_pod(settings: ClusterSettings, nodes: int) -> dict[str, str]:
    """Return the annotation that a job of one pod on a super pod needs: the number of its cards."""
    policy = ascend.schedule_policy(settings.annotations, settings.node_selector)
    if settings.device_resource != ascend.CARDS or not policy.endswith("-sp") or nodes > 1:
        return {}
    return {ascend.SUPER_POD_BLOCK: str(settings.devices_per_node)}


def _password_file(settings: ClusterSettings) -> dict[str, str]:
    """Return the annotation with the /etc/passwd of a pod whose user is not in that of the images."""
    user = settings.run_as_user
    if user == _IMAGE_USER:
        return {}
    lines = ("root:x:0:0:root:/root:/usr/sbin/nologin", f"kubeyolo:x:{user}:{user}:kubeyolo:/tmp:/usr/sbin/nologin")
    return {PASSWORD_ANNOTATION: "".join(f"{line}\n" for line in lines)}


def _job(settings: ClusterSettings, nodes: int, template: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = {
        "schedulerName": "volcano",
        "queue": settings.queue,
        "minAvailable": nodes,
        # Volcano counts a restart before it compares the count with the limit.
        "maxRetry": settings.max_retry + 1,
        "ttlSecondsAfterFinished": settings.ttl,
        "plugins": {"svc": ["--publish-not-ready-addresses=true"], "env": []},
        "policies": [
            {"event": "PodFailed", "action": "RestartJob"},
            # Volcano counts every restart: the launcher submits the job again, and counts evictions separately.
            {"event": "PodEvicted", "action": "TerminateJob"},
        ],
        "tasks": [
            {
                "name": TASK,
                "replicas": nodes,
                # The policies of a task take precedence: with bad input a restart does not help, and a pod that is
                # being evicted fails with the other exit code before it is gone.
                "policies": [
                    {"exitCode": BAD_INPUT, "action": "TerminateJob"},
                    {"exitCode": EXIT_INTERRUPTED, "action": "TerminateJob"},
                    {"event": "TaskCompleted", "action": "CompleteJob"},
                ],
                "template": template,
            }
        ],
    }
    if settings.priority_class:
        job["priorityClassName"] = settings.priority_class
    return job


def _volumes(work: Work, settings: ClusterSettings, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the volumes of a pod, and their mounts."""
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.pod_shared_memory}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if settings.run_as_user != _IMAGE_USER:
        source = {"fieldRef": {"fieldPath": f"metadata.annotations['{PASSWORD_ANNOTATION}']"}}
        volumes.append({"name": "users", "downwardAPI": {"items": [{"path": "passwd", **source}]}})
        mounts.append({"name": "users", "mountPath": "/etc/passwd", "subPath": "passwd", "readOnly": True})
    if _has_table(work, settings):
        volumes.append({"name": _TABLE, "configMap": {"name": _table_name(name)}})
        mounts.append({"name": _TABLE, "mountPath": TABLE_FOLDER, "readOnly": True})
    for number, (path, kind) in enumerate(ascend.DRIVER_MOUNTS.items() if settings.host_driver else ()):
        volumes.append({"name": f"driver-{number}", "hostPath": {"path": path, "type": kind}})
        mounts.append({"name": f"driver-{number}", "mountPath": path, "readOnly": True})
    return volumes, mounts


def _pod(work: Work, settings: ClusterSettings, name: str, nodes: int, image: str) -> dict[str, Any]:
    volumes, mounts = _volumes(work, settings, name)
    limits = {"memory": settings.pod_memory}
    if settings.device_resource:
        limits[settings.device_resource] = str(settings.devices_per_node)
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "kubeyolo.launch.pod"],
        # MindSpore and CANN write into the working folder.
        "workingDir": "/tmp",
        "env": _environment(work, settings, name, nodes, image),
        "envFrom": [{"configMapRef": {"name": settings.store_config}}],
        # There is no CPU limit: it would slow down a training while processors are idle.
        "resources": {"requests": {"cpu": settings.pod_cpu, **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": settings.run_as_user,
        "runAsGroup": settings.run_as_user,
        "fsGroup": settings.run_as_user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if settings.supplemental_groups:
        security["supplementalGroups"] = list(settings.supplemental_groups)
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": security,
        "containers": [container],
        "volumes": volumes,
        **_placement(settings, name),
    }


def _placement(settings: ClusterSettings, name: str) -> dict[str, Any]:
    """Return the fields that decide on which nodes a pod may run."""
    pod: dict[str, Any] = {}
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    if settings.runtime_class:
        pod["runtimeClassName"] = settings.runtime_class
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        pod["tolerations"] = [
            {key: value for key, value in toleration.model_dump().items() if value}
            for toleration in settings.tolerations
        ]
    if settings.one_pod_per_host:
        term = {
            "labelSelector": {"matchLabels": {"volcano.sh/job-name": name}},
            "topologyKey": "kubernetes.io/hostname",
        }
        pod["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return pod


def _environment(work: Work, settings: ClusterSettings, name: str, nodes: int, image: str) -> list[dict[str, Any]]:
    is_ascend = settings.device_target == "Ascend"
    ours: Mapping[str, str] = {
        WORK: work.model_dump_json(),
        GANG_NAME: name,
        NODES: str(nodes),
        DEVICES: str(settings.devices_per_node),
        MASTER: f"{name}-{TASK}-0.{name}",
        PORT: str(_MASTER_PORT),
        RENDEZVOUS_LIMIT: str(settings.rendezvous_limit),
        # Other images may not set these variables, and a pod with a different user has no home.
        **CONTAINER_VARIABLES,
        "HOME": "/tmp",
        IMAGE: image,
        RUN: name,
        # Pods read bundles by digests that their step has verified, and their own, which the step signs later.
        TRUSTED_KEYS: "",
        **(ascend.WORK_PATHS if is_ascend else {}),
        **({RANK_TABLE_FILE: f"{TABLE_FOLDER}/hccl.json"} if _has_table(work, settings) else {}),
    }
    environment = _variables(ours)
    for variable, path in (
        (ADDRESS, "status.podIP"),
        (ATTEMPT, "metadata.annotations['volcano.sh/job-version']"),
    ):
        environment.append({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    for variable, key in _SECRET_KEYS.items():
        reference: dict[str, Any] = {"name": settings.store_secret, "key": key}
        if variable == "MINIO_SESSION_TOKEN":
            reference["optional"] = True
        environment.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    # The settings can replace this variable: a pod sees all processors of its node, and would use a thread for each.
    threads = {"OMP_NUM_THREADS": str(max(1, int(settings.processors) // settings.devices_per_node))}
    theirs = threads | without_reserved("environment", settings.environment)
    # The settings cannot replace the other variables; they come last, since a variable can refer to those before it.
    names = {each["name"] for each in environment}
    return environment + _variables({name: value for name, value in theirs.items() if name not in names})


def _variables(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return environment variables with exactly these values: Kubernetes replaces ``$(NAME)``, and ``$$`` by ``$``."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in values.items()]
