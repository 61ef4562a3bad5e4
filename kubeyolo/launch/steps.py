"""What only the pods of a pipeline's steps tell: what they have printed, and why one of them cannot start."""

from __future__ import annotations

from kubeyolo.errors import KubeyoloError
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.pods import PodFacts

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_NODE_NAME = "workflows.argoproj.io/node-name"
_EXECUTOR, _MAIN = ".executor", "main"


def step_log(workflow: str, step: str, namespace: str) -> str:
    """Return what the newest pod of a step has printed; empty when it is gone, or the cluster cannot be asked.

    Args:
        workflow: Argo's workflow of the run.
        step: Name of the step in the pipeline, such as ``train``.
        namespace: Of the run.
    """
    try:
        cluster = Cluster.connect(namespace)
        pods, _ = cluster.pods(f"{_WORKFLOW_LABEL}={workflow}")
        ours = [pod["metadata"] for pod in pods if _step_of(pod["metadata"]) == step.replace("_", "-")]
        if not ours:
            return ""
        newest = max(ours, key=lambda meta: str(meta["creationTimestamp"]))
        return cluster.log_text(newest["name"], _MAIN)
    except KubeyoloError:
        return ""


def stuck_step(workflow: str, namespace: str) -> tuple[str, str] | None:
    """Return the step whose pod cannot start and why, or None; Kubeflow says of such a run that it is under way.

    An image that cannot be pulled may be pulled at the next try: ask again before you believe it.
    """
    try:
        pods, _ = Cluster.connect(namespace).pods(f"{_WORKFLOW_LABEL}={workflow}")
    except KubeyoloError:
        return None
    for pod in pods:
        facts = PodFacts.of(pod)
        # A pod that has a node has its room: what it waits for is of its own.
        if facts.phase == "Pending" and facts.node and facts.waiting:
            return (_step_of(pod["metadata"]) or facts.name).replace("-", "_"), facts.waiting
    return None


def _step_of(meta: Document) -> str:
    """Return ``train`` of the node ``workflow.root.exit-handler-1.train.executor(0)``; empty for a driver."""
    name = str((meta.get("annotations") or {}).get(_NODE_NAME, ""))
    path, found, _ = name.rpartition(_EXECUTOR)
    return path.rpartition(".")[2] if found else ""
