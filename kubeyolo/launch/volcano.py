"""Training as a Volcano Job: from this machine, or from the step of a pipeline on the cluster."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError
from kubeyolo.launch.cluster import POD_NAME, Cluster, Document
from kubeyolo.launch.manifest import Owner, Run, digest_of, job_manifest, job_name
from kubeyolo.launch.patience import Patience
from kubeyolo.launch.pods import Show
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.launch.shepherd import Pace, Shepherd
from kubeyolo.stop_signals import RaisingHandler, StopSignal, handling
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.training.spec import TrainingSpec

_TASK = "train"
_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_STEP_CONTAINER = "main"
_LAST_LOOK_SECONDS = 0.4


@dataclass(frozen=True)
class Step:
    """The step of a pipeline that this process is: its run, and its image."""

    run: Run
    image: str


def launch_on_volcano(
    spec: TrainingSpec,
    settings: ClusterSettings,
    show: Show | None = None,
    *,
    cluster: Cluster | None = None,
    pace: Pace | None = None,
) -> None:
    """Train as a gang of pods and wait for them.

    The job has the name of the run and the task, or outside of a pipeline that of the output: the same command adopts
    the job when it is under way.

    Args:
        spec: The training run; its data and its output are in an object store.
        settings: Of the cluster.
        show: Takes each line; prints it by default.
        cluster: Where; that of this pod or of the kubeconfig by default.
        pace: How often the job is looked at.

    Raises:
        InputError: The settings, the cluster, or the trainer's input cannot be used.
        WorkError: Training failed, or a limit has passed.
        InterruptedWork: A signal has told this process to end.
    """
    check_spec(spec, settings)
    cluster, show, pace = cluster or Cluster.connect(settings.namespace), show or _print_line, pace or Pace()
    step = Patience(pace.patience, show).repeat(partial(this_step, cluster), pace.poll)
    image = settings.image or (step.image if step else "")
    if not image:
        raise InputError("the image of the trainer is not set; give it with --cluster-set image=REFERENCE")
    run = step.run.name if step else f"kubeyolo-{digest_of(spec.output, 10)}"
    manifest = job_manifest(
        spec,
        settings,
        name=job_name(run, _TASK),
        namespace=cluster.namespace,
        image=image,
        run=step.run if step else None,
    )
    # Where the next try never comes, the owner of the job removes it, and in another namespace the watch.
    replaced = partial(_is_deleted, cluster) if step is not None else lambda: False
    with _ending_when_told():
        Shepherd(cluster, manifest, settings, show, pace, is_replaced=replaced, patient=step is not None).run()


@contextlib.contextmanager
def _ending_when_told() -> Iterator[None]:
    """Let signals end the wait, so that the job is deleted; a step, which has a handler of its own, keeps it."""
    present = signal.getsignal(signal.SIGTERM)
    is_command = isinstance(present, RaisingHandler) and present.raises is StopSignal
    if not is_command and present != signal.SIG_DFL:
        yield
        return

    def told(number: int) -> InterruptedWork:
        return InterruptedWork("interrupted: told to stop; the same command continues at the newest checkpoint")

    with handling(RaisingHandler(told)):
        yield


def check_spec(spec: TrainingSpec, settings: ClusterSettings) -> None:
    """Refuse a training that pods could not do.

    Raises:
        InputError: It needs a folder of this machine, another device, or another number of processes.
    """
    for what, uri in (("data set", spec.dataset), ("output", spec.output), ("backbone", spec.backbone or "")):
        if uri and isinstance(parse(uri), FileLocation):
            raise InputError(
                f"{what} {uri}: pods do not see folders of this machine; store it in minio://bucket/prefix, "
                "which --store names"
            )
    settings.check_train(spec.config.train)


def this_step(cluster: Cluster) -> Step | None:
    """Return the step that this process is, None outside of a pipeline on a cluster."""
    name = os.environ.get(POD_NAME, "")
    pod = cluster.own_pod(name) if name else None
    if pod is None:
        return None
    meta = pod["metadata"]
    owner = next(iter(meta.get("ownerReferences", ())), None)
    run = (meta.get("labels") or {}).get(_WORKFLOW_LABEL) or (owner or {}).get("name") or name
    return Step(Run(run, cluster.home, _owner(owner)), _image(pod))


def _is_deleted(cluster: Cluster) -> bool:
    """Tell whether somebody deletes the pod of this step, or drains its node: the step is then tried again.

    When a run is terminated its containers are ended, and the pods stay.
    """
    try:
        pod = cluster.own_pod(os.environ.get(POD_NAME, ""), _LAST_LOOK_SECONDS)
    except InterruptedWork:
        raise
    except KubeyoloError:
        return False
    return pod is not None and bool(pod["metadata"].get("deletionTimestamp"))


def _owner(reference: Document | None) -> Owner | None:
    if reference is None:
        return None
    return Owner(reference["apiVersion"], reference["kind"], reference["name"], reference["uid"])


def _image(pod: Document) -> str:
    containers = pod["spec"]["containers"]
    step = next((each for each in containers if each["name"] == _STEP_CONTAINER), containers[0])
    return str(step["image"])


def _print_line(line: str) -> None:
    print(line, flush=True)
