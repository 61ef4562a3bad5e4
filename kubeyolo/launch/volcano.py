"""Runs the processes of a step as a Volcano job: from this machine, or from the step of a pipeline on the cluster."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from kubeyolo.catalogue import STEPS
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError
from kubeyolo.launch.cluster import POD_NAME, Cluster, Document, Outage, Unreachable
from kubeyolo.launch.job_lifecycle import JobLifecycle
from kubeyolo.launch.job_progress import Timing
from kubeyolo.launch.manifest import Run, digest_of, job_manifest, job_name
from kubeyolo.launch.policy import CONFIG_MAP, Policy, mounted_policy, read_policy
from kubeyolo.launch.settings import ClusterSettings, check_reachable
from kubeyolo.launch.store_key import store_key
from kubeyolo.output_streams import Show, print_line
from kubeyolo.stop_signals import RaisingHandler, StopSignal, handling
from kubeyolo.work import Work

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_STEP_CONTAINER = "main"
_LAST_LOOK_SECONDS = 0.4


@dataclass(frozen=True)
class Step:
    """The step of a pipeline that this process runs: its run, and its image."""

    run: Run
    image: str


def launch_on_volcano(
    work: Work,
    settings: ClusterSettings,
    show: Show | None = None,
    *,
    cluster: Cluster | None = None,
    timing: Timing | None = None,
) -> None:
    """Run the processes of some work as a gang of pods and wait for them.

    The job is named after the run and the work, or outside of a pipeline after the output: the same command
    adopts the job while it is running.

    Args:
        work: The work; its data and its output are in an object store.
        settings: Cluster settings of the step.
        show: Shows a line; prints it by default.
        cluster: Cluster of the job; by default the cluster of this pod or of the kubeconfig.
        timing: How often to poll the job.

    Raises:
        InputError: The settings, the cluster, or the input of the work cannot be used.
        WorkError: The work failed, or a limit has passed.
        InterruptedWork: This process received a stop signal.
    """
    places = {**work.reads, "output": work.output}
    for what, uri in places.items():
        check_reachable(what, uri)
    settings.check_device("device_target", work.device_target)
    settings.nodes_for(work.processes, STEPS[work.step].processes_key)
    cluster, show, timing = cluster or Cluster.connect(settings.namespace), show or print_line, timing or Timing()
    outage = Outage(timing.outage, show)
    step = outage.retry(partial(this_step, cluster), timing.poll)
    policy = mounted_policy() or outage.retry(partial(_policy_of, cluster), timing.poll)
    for what, uri in places.items():
        policy.check_place(what, uri)
    image = settings.image or (step.image if step else "")
    if not image:
        raise InputError("the image of the trainer is not set; give it with --cluster-set image=REFERENCE")
    policy.check(settings.model_copy(update={"image": image}))
    run = step.run.name if step else f"kubeyolo-{digest_of(work.output, 10)}"
    name = job_name(run, work.name)
    key = outage.retry(partial(store_key, cluster, work, settings, name, show), timing.poll)
    manifest = job_manifest(
        work,
        settings,
        name=name,
        namespace=cluster.namespace,
        image=image,
        run=step.run if step else None,
        has_own_key=key is not None,
    )
    # If there is no next attempt, the job is deleted with its owner, or in a different namespace by the watch.
    replaced = partial(_is_deleted, cluster) if step is not None else lambda: False
    waits = step is not None
    lifecycle = JobLifecycle(
        cluster, manifest, settings, show, timing, is_replaced=replaced, waits_from_start=waits, key=key
    )
    with _ending_at_signals():
        lifecycle.run()


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


def _policy_of(cluster: Cluster) -> Policy:
    """Return the policy of a step's own namespace, or for a command of the namespace of the job.

    Without a ConfigMap, or the right to read it, the default is returned.
    """
    home = cluster.home if os.environ.get(POD_NAME) else cluster.namespace
    try:
        data = cluster.config_map(CONFIG_MAP, home)
    except Unreachable:
        raise
    except InputError:
        data = None
    return read_policy(data or {}, home)


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
