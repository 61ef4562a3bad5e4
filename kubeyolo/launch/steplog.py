"""What the step of a pipeline on a cluster has printed, from its pod, as long as that is there."""

from __future__ import annotations

from kubeyolo.errors import KubeyoloError
from kubeyolo.launch.cluster import Cluster

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


def _step_of(meta: dict[str, object]) -> str:
    """Return ``train`` of the node ``workflow.root.exit-handler-1.train.executor(0)``; empty for a driver."""
    notes = meta.get("annotations")
    name = str(notes.get(_NODE_NAME, "")) if isinstance(notes, dict) else ""
    path, found, _ = name.rpartition(_EXECUTOR)
    return path.rpartition(".")[2] if found else ""
