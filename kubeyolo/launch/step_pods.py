"""Logs of the pods of pipeline steps, and why a pod cannot start or has failed, read from Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.pods import PodFacts, memory_kill

T = TypeVar("T")

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_RUN_LABEL = "pipeline/runid"
_NODE_NAME = "workflows.argoproj.io/node-name"
_EXECUTOR, _MAIN = ".executor", "main"
_LONGEST = 500
_TRY = re.compile(r"\(\d+\)")


class StepPods:
    """The pods of runs in a namespace; without access to Kubernetes all results are empty.

    Args:
        namespace: Namespace of the runs.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._cluster: Cluster | None = None

    def log(self, workflow: str, step: str) -> str:
        """Return the log of the newest pod of a step; empty if the pod is gone.

        Args:
            workflow: Argo's workflow of the run.
            step: Name of the step in the pipeline, such as ``train``.
        """
        newest = self._newest(workflow, step)
        if newest is None:
            return ""
        name = newest["metadata"]["name"]
        return self._answer(lambda cluster: cluster.log_text(name, _MAIN), "")

    def memory_kill(self, workflow: str, step: str) -> str | None:
        """Return the memory limit of the newest pod of a step if it was killed because it used more, else None.

        Args:
            workflow: Argo's workflow of the run.
            step: Name of the step in the pipeline.
        """
        newest = self._newest(workflow, step)
        return memory_kill(newest, _MAIN) if newest else None

    def stuck(self, workflow: str) -> tuple[str, str] | None:
        """Return the step whose pod cannot start, and the reason, or None; Kubeflow shows such a run as running.

        An image that cannot be pulled may be pulled at the next attempt: call twice before relying on the result.
        """
        for pod in self._pods(workflow):
            facts = PodFacts.of(pod)
            # A pod with a node is already scheduled; it waits for something else.
            if facts.phase == "Pending" and facts.node and facts.waiting:
                return (_step_of(pod["metadata"]) or facts.name).replace("-", "_"), facts.waiting
        return None

    def failure(self, run_id: str) -> str:
        """Return Argo's message about the last pod of a run that failed or could not be created, or an empty string.

        Earlier failures may have been retried. The pod of an exit handler, which runs last, is ignored.
        """
        workflows: list[Document] = self._answer(lambda cluster: cluster.workflows(f"{_RUN_LABEL}={run_id}"), [])
        failures = [
            node
            for workflow in workflows
            for node in workflow.get("status", {}).get("nodes", {}).values()
            if node.get("type") == "Pod"
            and node.get("phase") in ("Error", "Failed")
            and node.get("message")
            and ".onExit" not in str(node.get("name", ""))
        ]
        last = max(failures, key=lambda node: str(node.get("finishedAt") or ""), default=None)
        return one_line(last["message"], _LONGEST) if last else ""

    def _newest(self, workflow: str, step: str) -> Document | None:
        """Return the newest pod of a step; None if the pod is gone."""
        ours = [pod for pod in self._pods(workflow) if _step_of(pod["metadata"]) == step.replace("_", "-")]
        return max(ours, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)

    def _pods(self, workflow: str) -> list[Document]:
        return self._answer(lambda cluster: cluster.pods(f"{_WORKFLOW_LABEL}={workflow}")[0], [])

    def _answer(self, ask: Callable[[Cluster], T], default: T) -> T:
        """Return the answer of the cluster; ``default`` if the cluster is unreachable or refuses the request."""
        try:
            self._cluster = self._cluster or Cluster.connect(self._namespace)
            return ask(self._cluster)
        except KubeyoloError:
            return default


def _step_of(meta: Document) -> str:
    """Return ``train`` for the node ``workflow.root.exit-handler-1.train.executor(0)``; empty for a driver.

    If Argo retries the whole workflow, every part of the name has the number of its attempt.
    """
    name = _TRY.sub("", str((meta.get("annotations") or {}).get(_NODE_NAME, "")))
    path, found, _ = name.rpartition(_EXECUTOR)
    return path.rpartition(".")[2] if found else ""
