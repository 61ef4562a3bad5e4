"""What Kubernetes alone tells of a pipeline's steps: what they have printed, and why one cannot start or has failed."""

from __future__ import annotations

import re
from functools import cached_property

from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.pods import PodFacts

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_RUN_LABEL = "pipeline/runid"
_NODE_NAME = "workflows.argoproj.io/node-name"
_EXECUTOR, _MAIN = ".executor", "main"
_LONGEST = 500
_TRY = re.compile(r"\(\d+\)")


class StepPods:
    """The pods of runs in a namespace, where this machine may ask Kubernetes; elsewhere nothing is known of them.

    Args:
        namespace: Of the runs.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def log(self, workflow: str, step: str) -> str:
        """Return what the newest pod of a step has printed; empty when it is gone.

        Args:
            workflow: Argo's workflow of the run.
            step: Name of the step in the pipeline, such as ``train``.
        """
        ours = [pod["metadata"] for pod in self._of(workflow) if _step_of(pod["metadata"]) == step.replace("_", "-")]
        if not ours or self._cluster is None:
            return ""
        newest = max(ours, key=lambda meta: str(meta["creationTimestamp"]))
        try:
            return self._cluster.log_text(newest["name"], _MAIN)
        except KubeyoloError:
            return ""

    def stuck(self, workflow: str) -> tuple[str, str] | None:
        """Return the step whose pod cannot start and why, or None; Kubeflow says of such a run that it is under way.

        An image that cannot be pulled may be pulled at the next try: ask again before you believe it.
        """
        for pod in self._of(workflow):
            facts = PodFacts.of(pod)
            # A pod that has a node has its room: what it waits for is of its own.
            if facts.phase == "Pending" and facts.node and facts.waiting:
                return (_step_of(pod["metadata"]) or facts.name).replace("-", "_"), facts.waiting
        return None

    def failure(self, run_id: str) -> str:
        """Return what Argo says of the last pod of a run that has failed or could not be made; empty for none.

        The last one: what failed before it may have been tried again. That of an exit handler comes after all of them.
        """
        nodes: list[Document] = []
        for workflow in self._workflows(run_id):
            nodes += workflow.get("status", {}).get("nodes", {}).values()
        said = [
            node
            for node in nodes
            if node.get("type") == "Pod"
            and node.get("phase") in ("Error", "Failed")
            and node.get("message")
            and ".onExit" not in str(node.get("name", ""))
        ]
        last = max(said, key=lambda node: str(node.get("finishedAt") or ""), default=None)
        return one_line(last["message"], _LONGEST) if last else ""

    def _workflows(self, run_id: str) -> list[Document]:
        try:
            return self._cluster.workflows(f"{_RUN_LABEL}={run_id}") if self._cluster else []
        except KubeyoloError:
            return []

    def _of(self, workflow: str) -> list[Document]:
        try:
            return self._cluster.pods(f"{_WORKFLOW_LABEL}={workflow}")[0] if self._cluster else []
        except KubeyoloError:
            return []

    @cached_property
    def _cluster(self) -> Cluster | None:
        try:
            return Cluster.connect(self._namespace)
        except KubeyoloError:
            return None


def _step_of(meta: Document) -> str:
    """Return ``train`` of the node ``workflow.root.exit-handler-1.train.executor(0)``; empty for a driver.

    Where Argo tries everything again, every part of the name has the number of its try.
    """
    name = _TRY.sub("", str((meta.get("annotations") or {}).get(_NODE_NAME, "")))
    path, found, _ = name.rpartition(_EXECUTOR)
    return path.rpartition(".")[2] if found else ""
