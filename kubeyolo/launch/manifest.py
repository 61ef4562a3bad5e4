"""The Volcano Job of a training, from settings to a manifest: a pure function."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.launch.rendezvous import ADDRESS, ATTEMPT, GANG_NAME, MASTER, NODES, PORT, RENDEZVOUS_LIMIT
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.processes import INSTALLED_CODE
from kubeyolo.training.spec import DEVICES, SPEC, TrainingSpec

GROUP, VERSION, PLURAL = "batch.volcano.sh", "v1alpha1", "jobs"
TASK = "worker"
CONTAINER = "trainer"

RUN_LABEL = "kubeyolo.io/run"
OUTPUT_LABEL = "kubeyolo.io/output"
SPEC_ANNOTATION = "kubeyolo.io/spec"
RUN_NAMESPACE_ANNOTATION = "kubeyolo.io/run-namespace"
WORKFLOW_ANNOTATION = "kubeyolo.io/workflow-uid"
POD_LABELS = {"app.kubernetes.io/part-of": "kubeyolo", "app.kubernetes.io/component": "trainer"}

BAD_INPUT = 2
"""Exit code of a pod that refuses its input; a restart would not help."""

_MASTER_PORT = 8118
_SECRET_KEYS = {"MINIO_ACCESS_KEY": "accesskey", "MINIO_SECRET_KEY": "secretkey"}
_NAME_LENGTH = 40


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
    spec: TrainingSpec,
    settings: ClusterSettings,
    *,
    name: str,
    namespace: str,
    image: str,
    run: Run | None = None,
) -> dict[str, Any]:
    """Return the ``batch.volcano.sh/v1alpha1`` Job that trains as a gang of pods.

    Every pod runs under the restricted PodSecurity level, except for a driver mount; it has a read-only root and no
    token of a service account. Secrets are referred to by name.

    Args:
        spec: The training run; its number of processes is the number of devices of all pods.
        settings: Cluster settings.
        name: Name of the job.
        namespace: Namespace of the job.
        image: Image of the trainer.
        run: The run that the job belongs to. Its workflow owns the job when both are in the same namespace.

    Raises:
        InputError: The number of processes does not fit the pods.
    """
    # The settings cannot replace these labels: the network policy and the watch select jobs and pods by them.
    labels = {
        **settings.labels,
        **POD_LABELS,
        OUTPUT_LABEL: digest_of(spec.output),
        **({RUN_LABEL: run.name} if run else {}),
    }
    nodes = settings.nodes_for(spec.processes)
    pod = _pod(spec.model_dump_json(), settings, name, nodes, image)
    job = _job(settings, nodes, {"metadata": {"labels": labels}, "spec": pod})
    annotations = {SPEC_ANNOTATION: digest_of(json.dumps(job, sort_keys=True))}
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    if run and run.workflow:
        annotations |= {RUN_NAMESPACE_ANNOTATION: run.namespace, WORKFLOW_ANNOTATION: run.workflow["uid"]}
        # Kubernetes removes an object at once if its owner is in another namespace.
        if run.namespace == namespace:
            metadata["ownerReferences"] = [dict(run.workflow)]
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Job", "metadata": metadata, "spec": job}


def _job(settings: ClusterSettings, nodes: int, template: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = {
        "schedulerName": "volcano",
        "queue": settings.queue,
        "minAvailable": nodes,
        # Volcano counts a restart before it compares the count with the limit.
        "maxRetry": settings.max_retry + 1,
        "ttlSecondsAfterFinished": settings.ttl,
        "plugins": {"svc": ["--publish-not-ready-addresses=true"], "env": []},
        "policies": [{"events": ["PodFailed", "PodEvicted"], "action": "RestartJob"}],
        "tasks": [
            {
                "name": TASK,
                "replicas": nodes,
                # The policies of a task take precedence: with bad input a restart does not help.
                "policies": [
                    {"exitCode": BAD_INPUT, "action": "TerminateJob"},
                    {"event": "TaskCompleted", "action": "CompleteJob"},
                ],
                "template": template,
            }
        ],
    }
    if settings.priority_class:
        job["priorityClassName"] = settings.priority_class
    return job


def _pod(document: str, settings: ClusterSettings, name: str, nodes: int, image: str) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if settings.driver_mount:
        volumes.append({"name": "driver", "hostPath": {"path": settings.driver_mount, "type": "Directory"}})
        mounts.append({"name": "driver", "mountPath": settings.driver_mount, "readOnly": True})
    limits = {"memory": settings.memory}
    if settings.device_resource:
        limits[settings.device_resource] = str(settings.devices_per_node)
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "kubeyolo.launch.pod"],
        "env": _environment(document, settings, name, nodes),
        "envFrom": [{"configMapRef": {"name": settings.store_config}}],
        # There is no CPU limit: it would slow down a training while processors are idle.
        "resources": {"requests": {"cpu": settings.cpu, **limits}, "limits": limits},
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


def _environment(document: str, settings: ClusterSettings, name: str, nodes: int) -> list[dict[str, Any]]:
    values: Mapping[str, str] = {
        SPEC: document,
        GANG_NAME: name,
        NODES: str(nodes),
        DEVICES: str(settings.devices_per_node),
        MASTER: f"{name}-{TASK}-0.{name}",
        PORT: str(_MASTER_PORT),
        RENDEZVOUS_LIMIT: str(settings.rendezvous_limit),
        # A pod sees all processors of its node, and would use a thread for each.
        "OMP_NUM_THREADS": str(max(1, int(settings.processors) // settings.devices_per_node)),
        # Other images do not set it, and a pod starts in the working folder of its image.
        **INSTALLED_CODE,
        **settings.environment,
    }
    environment: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in values.items()]
    for variable, path in (
        (ADDRESS, "status.podIP"),
        (ATTEMPT, "metadata.annotations['volcano.sh/job-version']"),
    ):
        environment.append({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    for variable, key in _SECRET_KEYS.items():
        reference = {"name": settings.store_secret, "key": key}
        environment.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    return environment
