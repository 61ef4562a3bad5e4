"""The cluster that these tests run on, as its users reach it: by the command line, kubectl and the store."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeyolo.bundle import read_bundle
from kubeyolo.catalogue import DETECTOR_TRAINING
from kubeyolo.compiled.images import bind_image_file
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.events import StepRecord
from kubeyolo.index import read_index, read_note
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.connection import NoSuchThing
from kubeyolo.kubeflow.remote import RemoteRun
from kubeyolo.storage.place import Place
from kubeyolo.training.result import RESULT_NAME

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = (
    "KUBEYOLO_KFP_HOST",
    "KUBECONFIG",
    "KUBEYOLO_STORE",
    "MINIO_ENDPOINT",
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
)

# A minute of training in two pods, with a checkpoint every few seconds.
SETTINGS = """
model: yolov5n-r7
train:
  image_size: 128
  per_batch_size: 4
  max_epoch: 26
  processes: 2
  optimizer: adamw
  lr: 0.002
  warmup_bias_lr: 0.0
  warmup_epochs: 1
  ema_tau: 100
  log_interval: 5
  ckpt_interval: 20
augment:
  close_mosaic: 0
pretrain:
  image_size: 64
  max_steps: 60
quantize:
  max_drop: 100
"""
CHECKPOINT_STEPS = 20
TRAIN_NODE = re.compile(r"\.train(\(\d+\))?\.executor")
LEFT_SECONDS = 120
"""In this time the training job of a run that has ended is gone, however the run has ended."""

CLUSTER = {"preset": "cpu", "queue": "kubeyolo"}

CARDS = "huawei.com/Ascend910"
CARDS_LABEL = "kubeyolo.test/cards"
"""Label of nodes with the number of their cards, while tests run."""


def wait_for(condition: Callable[[], Any], seconds: float, what: str, poll: float = 1.0) -> Any:
    """Wait until a condition holds and return what it gave."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(poll)


class Command:
    """A command line of kubeyolo under way: its lines as they come, its exit code."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        command = [sys.executable, "-m", "kubeyolo.cli.app", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def heard(self, pattern: str, seconds: float = 300) -> re.Match[str]:
        """Wait for a line and return what of it matches."""

        def find() -> re.Match[str] | None:
            found = re.search(pattern, self.text)
            assert found or self._process.poll() is None or self._reader.is_alive(), self.text
            return found

        match: re.Match[str] = wait_for(find, seconds, f"{pattern!r} in:\n{self.text}")
        return match

    def end(self, seconds: float = 900) -> int:
        code = self._process.wait(seconds)
        self._reader.join(10)
        return code

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Kill the command if it is still there."""
        if not self.is_over:
            self._process.kill()
            self._process.wait()


@dataclass
class Posted:
    """A run that was started by a request, without the command line.

    Attributes:
        store: URI of its store.
        id: Kubeflow's id of it.
    """

    store: str
    id: str

    @property
    def run(self) -> RemoteRun:
        return Kubeflow().run(self.id)

    def wait(self, seconds: float = 1200) -> RemoteRun:
        """Wait for its end and return it."""
        wait_for(lambda: self.run.is_over, seconds, f"the end of run {self.id}")
        return self.run

    def log(self, step: str = "train") -> str:
        found = self.run.step(step)
        return Kubeflow().log(self.id, found) if found else ""

    @property
    def note(self) -> dict[str, str]:
        """What its first step has noted: the name of the work, and where its results are."""
        return read_note(Place.of(self.store), self.id)

    @property
    def index(self) -> StepRecord:
        """The record of its last step, found by the id of the run alone."""
        return read_index(Place.of(self.note["index"]))

    @property
    def bundle(self) -> str:
        """URI of what it has published."""
        return Place.of(self.index.outputs["bundle"]).uri

    @property
    def trained(self) -> str:
        """URI of the bundle of its training, from which what it has published was derived."""
        return next(uri for uri in ancestors(self.bundle) if "/trainings/" in uri)

    @property
    def dataset(self) -> str:
        """URI of the stored data set that it was trained on."""
        reference = read_bundle(Place.of(self.trained)).manifest.dataset
        assert reference is not None
        return reference.uri

    @property
    def output(self) -> str:
        """URI of its training."""
        return Place.of(self.trained).parent.uri

    def stop(self) -> None:
        """Terminate the run if it is still there and under way."""
        with contextlib.suppress(NoSuchThing):
            if not self.run.is_over:
                Kubeflow().terminate(self.id)

    def delete(self) -> None:
        """Delete the run from Kubeflow, as its pages do, whatever it is doing."""
        kubeflow = Kubeflow()
        kubeflow._call(f"run {self.id}", kubeflow._runs.run_service_delete_run, self.id)


@dataclass(kw_only=True)
class Submission(Posted):
    """A run that trains in pods and was submitted with --wait."""

    command: Command

    def end(self, seconds: float = 1200) -> int:
        return self.command.end(seconds)

    @property
    def job(self) -> str:
        """Name of its Volcano job."""
        return f"{self.run.workflow}-train"

    def checkpoint(self) -> int:
        """Return the step of the newest complete checkpoint, 0 when there is none."""
        pattern = re.compile(r"trainings/[^/]+/checkpoints/step-(\d+)/checkpoint\.json")
        found = [pattern.fullmatch(one.key) for one in Place.of(self.store).store.list("trainings")]
        return max((int(match[1]) for match in found if match), default=0)

    def trained_to(self, step: int, seconds: float = 400) -> int:
        """Wait until a step is in a checkpoint and return that of the newest."""

        def reached() -> int:
            assert not self.run.is_over, self.command.text
            newest = self.checkpoint()
            return newest if newest >= step else 0

        found: int = wait_for(reached, seconds, f"a checkpoint at step {step}")
        return found

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((Place.of(self.output) / RESULT_NAME).read())
        return found

    def abandon(self) -> None:
        """Terminate the run if it is still under way, and stop the command."""
        self.stop()
        self.command.stop()

    def ap(self) -> float:
        """Return the AP of the trained network."""
        return float(self.index.metrics["mindspore"]["AP"])

    def losses(self) -> dict[int, float]:
        """Return the losses of the steps that were logged."""
        rows = map(json.loads, (Place.of(self.output) / "history.jsonl").read().splitlines())
        return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def ancestors(bundle: str) -> Iterator[str]:
    """Yield the URI of a bundle, and those of the bundles it was derived from."""
    uri: str | None = bundle
    while uri:
        yield uri
        uri = read_bundle(Place.of(uri)).manifest.parent


class Site:
    """The cluster and its store.

    Args:
        folder: For files of the tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace = os.environ.get("KUBEYOLO_KFP_NAMESPACE") or "kubeflow"
        self.images = os.environ.get("KUBEYOLO_IMAGES") or str(ROOT / "build" / "images.yaml")
        self.place = (Place.of(os.environ["KUBEYOLO_STORE"]) / "tests" / uuid.uuid4().hex[:8]).uri
        self._commands: list[Command] = []
        self._submissions: list[Submission] = []
        self._posted: list[Posted] = []
        (folder / "settings.yaml").write_text(SETTINGS)

    def new_store(self) -> str:
        """Return the URI of a store in which nothing was ever trained."""
        return (Place.of(self.place) / uuid.uuid4().hex[:8]).uri

    def kubeyolo(self, *arguments: str, **environment: str) -> Command:
        command = Command(*arguments, folder=self.folder, **environment)
        self._commands.append(command)
        return command

    def call(self, *arguments: str, seconds: float = 900) -> tuple[int, str]:
        """Call the command line; return its exit code and what it printed."""
        command = self.kubeyolo(*arguments)
        return command.end(seconds), command.text

    def submit(self, data: str, store: str, *arguments: str, cluster: Mapping[str, Any] | None = None) -> Submission:
        """Submit a run that trains in pods, and wait until Kubeflow knows it."""
        settings = json.dumps({**CLUSTER, **(cluster or {})})
        pairs = ("--param", "launcher=volcano", "--param", f"cluster={settings}")
        places = ("--data", data, "--store", store, "--images", self.images, "--config", "settings.yaml")
        command = self.kubeyolo("pipeline", "submit", *places, *pairs, "--wait", *arguments)
        submission = Submission(store=store, id=command.heard(r"(?m)^id (\S+)$", 60)[1], command=command)
        self._submissions.append(submission)
        return submission

    def post(self, store: str, **form: str) -> Posted:
        """Start a run as Kubeflow's pages do: by the texts of its form, and nothing else."""
        kubeflow = Kubeflow()
        compiled = bind_image_file(CompiledPipeline.named(DETECTOR_TRAINING), Path(self.images))
        version = kubeflow.pipeline_version(DETECTOR_TRAINING, compiled)
        experiment = kubeflow.make_experiment("kubeyolo-tests")
        fields = {"store": store, **form}
        assert all(isinstance(value, str) for value in fields.values())
        posted = Posted(store, kubeflow.submit(f"posted-{uuid.uuid4().hex[:6]}", experiment, version, fields).id)
        self._posted.append(posted)
        return posted

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        result = subprocess.run([_kubectl(), "-n", self.namespace, *arguments], capture_output=True, text=True)
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        options = ("-l", selector) if selector else ()
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *options, "-o", "json"))["items"]
        return found

    def uid_of(self, job: str) -> str:
        """Return the uid of a Volcano job, empty when there is none of the name."""
        jobs = {one["metadata"]["name"]: one["metadata"]["uid"] for one in self.objects("jobs.batch.volcano.sh")}
        return str(jobs.get(job, ""))

    def trainers(self, job: str) -> list[dict[str, Any]]:
        """Return the pods of a job that are not being deleted."""
        pods = self.objects("pods", f"volcano.sh/job-name={job}")
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def nothing_left(self, job: str, seconds: float = LEFT_SECONDS) -> None:
        """Wait until neither the job nor a pod of it is there."""

        def gone() -> bool:
            return not self.uid_of(job) and not self.objects("pods", f"volcano.sh/job-name={job}")

        wait_for(gone, seconds, f"the end of job {job}")

    def step_pod(self, submission: Submission) -> str:
        """Return the name of the running pod of the step train, empty when there is none."""
        annotation = "workflows.argoproj.io/node-name"
        for pod in self.objects("pods", f"workflows.argoproj.io/workflow={submission.run.workflow}"):
            # Every part of the name has the number of its try where Argo tries everything again.
            is_step = TRAIN_NODE.search(pod["metadata"]["annotations"].get(annotation, ""))
            if is_step and pod["status"]["phase"] == "Running":
                return str(pod["metadata"]["name"])
        return ""

    def kill_step(self, pod: str) -> None:
        """Kill the processes of a step by SIGKILL, as the kernel does when memory runs out."""
        program = (
            "import os, pathlib\n"
            "for path in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    words = (path / 'cmdline').read_bytes().split(b'\\0')\n"
            "    if b'kfp.dsl.executor_main' in words and int(path.name) != os.getpid():\n"
            "        os.kill(int(path.name), 9)\n"
        )
        self.kubectl("exec", pod, "-c", "main", "--", "python3", "-c", program, check=False)

    def kill_training(self, pod: str) -> None:
        """Kill the training process of a pod by SIGKILL."""
        program = (
            "import os, pathlib\n"
            "for path in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    words = (path / 'cmdline').read_bytes().split(b'\\0')\n"
            "    if b'kubeyolo.training.worker' in words and b'mindspore.parallel.cluster.run' not in words:\n"
            "        os.kill(int(path.name), 9)\n"
        )
        self.kubectl("exec", pod, "--", "python3", "-c", program)

    def clean(self) -> None:
        """End what is still under way, and remove from the store what the tests have left."""
        for submission in self._submissions:
            submission.abandon()
        for posted in self._posted:
            posted.stop()
        for command in self._commands:
            command.stop()
        Place.of(self.place).store.delete_tree("")


@functools.cache
def _kubectl() -> str:
    cache = Path(os.environ.get("KUBEYOLO_CACHE", Path.home() / ".cache" / "kubeyolo"))
    folders = os.pathsep.join((os.environ.get("KUBEYOLO_KUBERNETES_BIN", ""), os.environ["PATH"], str(cache / "bin")))
    found = shutil.which("kubectl", path=folders)
    assert found, "no kubectl: make tools"
    return found
