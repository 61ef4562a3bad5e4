"""A launch in a thread of its own, as the tests of the launcher watch it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from kubeyolo.config.load import load_config
from kubeyolo.launch.cluster import Cluster
from kubeyolo.launch.job_progress import Timing
from kubeyolo.launch.settings import ClusterSettings, cluster_settings
from kubeyolo.launch.volcano import launch_on_volcano
from kubeyolo.training.spec import TrainingSpec
from tests.kubernetes_server import RESTRICTED, KubernetesServer, wait_for
from tests.launch.volcano_double import Volcano

TIMING = Timing(poll=0.05, report=0.3, outage=30.0, stuck=0.5, settle=2.0, deletion=20.0)
SPEC = TrainingSpec(
    dataset="minio://data/sets/cells-1",
    output="minio://data/trainings/one",
    config=load_config("yolov5n-r7", sets=("train.processes=2",)),
)


def settings(**values: Any) -> ClusterSettings:
    return cluster_settings({"image": "registry/kubeyolo-train:1", **values})[1]["train"]


class Launch:
    """A launch in a thread of its own: what it says, and how it ends."""

    def __init__(self, cluster: Cluster, spec: TrainingSpec = SPEC, timing: Timing = TIMING, **values: Any) -> None:
        self._timing = timing
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(cluster, spec, settings(**values)), daemon=True)
        self._thread.start()

    def _run(self, cluster: Cluster, spec: TrainingSpec, chosen: ClusterSettings) -> None:
        try:
            launch_on_volcano(spec.work(), chosen, self.lines.append, cluster=cluster, timing=self._timing)
        except (Exception, SystemExit) as error:  # Each of them is for the test to see.
            self.error = error

    def heard(self, words: str) -> None:
        wait_for(lambda: any(words in line for line in list(self.lines)) or self.ended())
        assert any(words in line for line in self.lines), (words, self.lines, self.error)

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> BaseException | None:
        self._thread.join(60)
        assert self.ended(), self.lines
        return self.error


def nothing_left(volcano: Volcano) -> bool:
    wait_for(lambda: not volcano.jobs() and not volcano.pods())
    return True


def make_step_pod(kubernetes: KubernetesServer, namespace: str, **metadata: Any) -> str:
    """Make the pod of a step of the run detector-training-x7k2p, and return its path."""
    labels = {"workflows.argoproj.io/workflow": "detector-training-x7k2p"}
    containers = [
        {"name": "wait", "image": "argoexec", "securityContext": RESTRICTED},
        {"name": "main", "image": "registry/of-the-step:2", "securityContext": RESTRICTED},
    ]
    step = {"metadata": {"name": "step", "labels": labels, **metadata}, "spec": {"containers": containers}}
    kubernetes.do("POST", f"/api/v1/namespaces/{namespace}/pods", step)
    return f"/api/v1/namespaces/{namespace}/pods/step"


PROGRAM = """
import contextlib, json, os
from kubeyolo.config.load import load_config
from kubeyolo.launch.settings import cluster_settings
from kubeyolo.launch.volcano import launch_on_volcano
from kubeyolo.steps.guard import stops_with_its_run
from kubeyolo.training.spec import TrainingSpec

config = load_config("yolov5n-r7", sets=("train.processes=2",))
spec = TrainingSpec(dataset="minio://data/sets/cells-1", output="minio://data/trainings/one", config=config)
with CONTEXT:
    more = json.loads(os.environ.get("MORE_SETTINGS", "{}"))
    settings = cluster_settings({"image": "registry/kubeyolo-train:1", **more})[1]
    launch_on_volcano(spec.work(), settings["train"])
"""


def start_step(account: Path, context: str, **environment: str) -> subprocess.Popen[str]:
    """Start PROGRAM in a process of its own."""
    command = [sys.executable, "-c", PROGRAM.replace("CONTEXT", context)]
    variables = {**os.environ, "KUBECONFIG": str(account), **environment}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def hear(step: subprocess.Popen[str], words: str) -> None:
    assert step.stdout is not None
    assert any(words in line for line in step.stdout)
