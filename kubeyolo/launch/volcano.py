"""Trains as a Volcano job: from this machine, or from the step of a pipeline on the cluster."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError
from kubeyolo.launch.cluster import POD_NAME, Cluster, Document, Outage
from kubeyolo.launch.job_lifecycle import JobLifecycle, Timing
from kubeyolo.launch.manifest import Run, digest_of, job_manifest, job_name
from kubeyolo.launch.settings import ClusterSettings, check_reachable
from kubeyolo.output_streams import Show, print_line
from kubeyolo.stop_signals import RaisingHandler, StopSignal, handling
from kubeyolo.training.spec import TrainingSpec

_TASKS = {"detector": "train", "backbone": "pretrain"}
"""Suffix of the name of a job, by the task of its training: a run may have a job for each task."""

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_STEP_CONTAINER = "main"
_LAST_LOOK_SECONDS = 0.4


@dataclass(frozen=True)
class Step:
    """The step of a pipeline that this process runs: its run, and its image."""

    run: Run
    image: str


def launch_on_volcano(
    spec: TrainingSpec,
    settings: ClusterSettings,
    show: Show | None = None,
    *,
    cluster: Cluster | None = None,
    timing: Timing | None = None,
) -> None:
    """Train as a gang of pods and wait for them.

    The job is named after the run and the task, or outside of a pipeline after the output: the same command
    adopts the job while it is running.

    Args:
        spec: The training run; its data and its output are in an object store.
        settings: Cluster settings. A backbone is pretrained by one process, in one pod with its share of the resources.
        show: Shows a line; prints it by default.
        cluster: Cluster of the job; by default the cluster of this pod or of the kubeconfig.
        timing: How often to poll the job.

    Raises:
        InputError: The settings, the cluster, or the trainer's input cannot be used.
        WorkError: Training failed, or a limit has passed.
        InterruptedWork: This process received a stop signal.
    """
    for what, uri in (("data set", spec.dataset), ("output", spec.output), ("backbone", spec.backbone or "")):
        check_reachable(what, uri)
    if spec.task == "backbone":
        settings = settings.for_one_process()
    settings.check_processes(spec.config.train, spec.processes)
    cluster, show, timing = cluster or Cluster.connect(settings.namespace), show or print_line, timing or Timing()
    step = Outage(timing.outage, show).retry(partial(this_step, cluster), timing.poll)
    image = settings.image or (step.image if step else "")
    if not image:
        raise InputError("the image of the trainer is not set; give it with --cluster-set image=REFERENCE")
    run = step.run.name if step else f"kubeyolo-{digest_of(spec.output, 10)}"
    manifest = job_manifest(
        spec,
        settings,
        name=job_name(run, _TASKS[spec.task]),
        namespace=cluster.namespace,
        image=image,
        run=step.run if step else None,
    )
    # If there is no next attempt, the job is deleted with its owner, or in a different namespace by the watch.
    replaced = partial(_is_deleted, cluster) if step is not None else lambda: False
    with _ending_at_signals():
        waits = step is not None
        JobLifecycle(cluster, manifest, settings, show, timing, is_replaced=replaced, waits_from_start=waits).run()


@contextlib.contextmanager
def _ending_at_signals() -> Iterator[None]:
    """Let signals end the wait, so that the job is deleted; a step keeps its own handler."""
    present = signal.getsignal(signal.SIGTERM)
    is_command = isinstance(present, RaisingHandler) and present.raises is StopSignal
    if not is_command and present != signal.SIG_DFL:
        yield
        return

    def interrupted(number: int) -> InterruptedWork:
        return InterruptedWork(
            "interrupted: stopped by a signal; run the same command again to continue from the newest checkpoint"
        )

    with handling(RaisingHandler(interrupted)):
        yield


def this_step(cluster: Cluster) -> Step | None:
    """Return the step that this process runs; None outside of a pipeline on a cluster."""
    name = os.environ.get(POD_NAME, "")
    pod = cluster.own_pod(name) if name else None
    if pod is None:
        return None
    meta = pod["metadata"]
    owner = next(iter(meta.get("ownerReferences", ())), None)
    run = (meta.get("labels") or {}).get(_WORKFLOW_LABEL) or (owner or {}).get("name") or name
    workflow = {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")} if owner else None
    return Step(Run(run, cluster.home, workflow), _image(pod))


def _is_deleted(cluster: Cluster) -> bool:
    """Tell whether the pod of this step is being deleted, such as when its node is drained: the step is then retried.

    When a run is terminated, its containers end but its pods are not deleted.
    """
    try:
        pod = cluster.own_pod(os.environ.get(POD_NAME, ""), _LAST_LOOK_SECONDS)
    except InterruptedWork:
        raise
    except KubeyoloError:
        return False
    return pod is not None and bool(pod["metadata"].get("deletionTimestamp"))


def _image(pod: Document) -> str:
    containers = pod["spec"]["containers"]
    step = next((each for each in containers if each["name"] == _STEP_CONTAINER), containers[0])
    return str(step["image"])
