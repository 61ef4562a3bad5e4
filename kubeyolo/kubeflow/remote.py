"""Runs, steps and schedules on Kubeflow, as its REST interface tells of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kubeyolo.errors import one_line
from kubeyolo.kubeflow.schedules import Recurring

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
_TEMPLATES = ("system-container-impl", "retry-system-container-impl")
"""Kubeflow's templates of the pods of steps: without and with tries of their own."""

MARK = "kubeyolo schedule "
"""Begins the line of a description that says which schedule has made a recurring run."""

LONGEST = 300
"""Characters of what Kubeflow says that are shown."""

TERMINATED = "TERMINATED"
"""A run whose end was asked for. Kubeflow calls it FAILED in the end."""

_TERMINATING = "CANCELING"
_POD_TIME = timedelta(seconds=2)
_MOST_TRIES = 100
_FNV_PRIME = 16777619
# A task that is tried again has its tries beside it: train, train(0), train(1).
_MACHINERY = re.compile(
    r".*-driver|root|executor|(condition|condition-branches|exit-handler|for-loop)-\d+(\.onExit)?|.*\(\d+\)"
)


@dataclass(frozen=True)
class RemoteStep:
    """A step of a run on the cluster.

    Attributes:
        name: Its name in the pipeline, such as ``validate_dataset``.
        state: Kubeflow's word, such as RUNNING; TERMINATED for what ended with a run that was terminated, SKIPPED for
            what a run that has ended did not come to.
        node: Argo's node of its pod, that of the newest try; empty when there is none yet.
        is_cached: Whether its results were in Kubeflow's cache.
        started: When, or None.
        ended: When, or None.
        message: What Kubeflow says of its failure.
    """

    name: str
    state: str
    node: str = ""
    is_cached: bool = False
    started: datetime | None = None
    ended: datetime | None = None
    message: str = ""

    @property
    def workflow(self) -> str:
        """Argo's workflow that it is of."""
        return self.node.rpartition("-")[0]

    @property
    def pods(self) -> tuple[str, ...]:
        """Names that its pod may have: a template stands between the workflow and the number."""
        number = self.node.rpartition("-")[2]
        return tuple(f"{self.workflow}-{template}-{number}" for template in _TEMPLATES) if self.node else ()


@dataclass(frozen=True)
class RemoteRun:
    """A run on the cluster.

    Attributes:
        id: Kubeflow's id.
        name: Its name.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or TERMINATED.
        experiment: Id of its experiment.
        created: When it was submitted.
        ended: When it ended, or None.
        steps: Its steps in the order of their start.
        arguments: Values of its parameters.
        message: What Kubeflow says of its failure.
        workflow: Argo's workflow of it, empty as long as there is none.
    """

    id: str
    name: str
    state: str
    experiment: str
    created: datetime | None
    ended: datetime | None
    steps: tuple[RemoteStep, ...]
    arguments: Mapping[str, Any]
    message: str = ""
    workflow: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however that may be."""
        return self.state in ENDED or (self.state == TERMINATED and self.ended is not None)

    def step(self, name: str) -> RemoteStep | None:
        """Return the step of a name."""
        return next((step for step in self.steps if step.name == name), None)


def recurring_of(found: Any) -> Recurring | None:
    """Return a recurring run of ours; None for those of others."""
    for line in (found.description or "").splitlines():
        if line.startswith(MARK):
            try:
                name, owner, digest = map(str, json.loads(line.removeprefix(MARK)))
            except ValueError:
                return None
            cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else ""
            enabled = (found.status or "ENABLED") == "ENABLED"
            return Recurring(str(found.recurring_run_id), name, owner, digest, enabled, cron)
    return None


def run_of(found: Any) -> RemoteRun:
    """Return a run in our words."""
    config, state, ended = found.runtime_config, _state(found), _moment(found.finished_at)
    return RemoteRun(
        id=found.run_id,
        name=found.display_name,
        state=state,
        experiment=found.experiment_id,
        created=found.created_at,
        ended=ended,
        steps=_steps(found, over=ended is not None),
        arguments=(config.parameters or {}) if config else {},
        message=one_line(found.error.message, LONGEST) if found.error and found.error.message else "",
        workflow=next((node.rpartition("-")[0] for task in _tasks(found) for node in _nodes(task)), ""),
    )


def _tasks(found: Any) -> list[Any]:
    return list((found.run_details.task_details if found.run_details else None) or ())


def _nodes(task: Any) -> list[str]:
    return [child.pod_name for child in task.child_tasks or () if child.pod_name]


def _pod_node(node: str, known: Collection[str]) -> str:
    """Return the node of the pod of a step's newest try, below a node of the step.

    A node's number is the FNV-1a digest of its name, so that the numbers of nodes whose names begin like its own follow
    from it: those of its tries, ``(0)`` and so on, and that of the executor in a try.

    Args:
        node: Node below that of the step.
        known: Every node of the run.
    """
    below = [_longer(node, ".executor"), *(_longer(node, f"({number})") for number in range(_MOST_TRIES))]
    newest = next((one for one in reversed(below) if one in known), "")
    return _pod_node(newest, known) if newest else node


def _longer(node: str, more: str) -> str:
    """Return the node whose name is that of another one and more."""
    workflow, _, number = node.rpartition("-")
    digest = int(number) if number.isdigit() else 0
    for byte in more.encode():
        digest = (digest ^ byte) * _FNV_PRIME % 2**32
    return f"{workflow}-{digest}"


def _state(found: Any) -> str:
    states = [entry.state for entry in found.state_history or ()]
    state = found.state or "PENDING"
    asked = _TERMINATING in (*states, state) or state == "CANCELED"
    return TERMINATED if asked and state != "SUCCEEDED" else state


def _steps(found: Any, over: bool) -> tuple[RemoteStep, ...]:
    asked = next((entry.update_time for entry in found.state_history or () if entry.state == _TERMINATING), None)
    steps = []
    known = {node for task in _tasks(found) for node in _nodes(task)}
    for task in _tasks(found):
        nodes = _nodes(task)
        name, node = task.display_name or "", _pod_node(nodes[-1], known) if nodes else ""
        # Beside the steps there are their drivers, the graphs they lie in, and the workflow itself.
        if not name or _MACHINERY.fullmatch(name) or (node and name == node.rpartition("-")[0]):
            continue
        # What a run that is over has not come to has no state, but the time of the run's end.
        state = task.state or ("SKIPPED" if over else "PENDING")
        if state == "FAILED" and _is_after(_moment(task.end_time), asked):
            state = TERMINATED
        begun = state != "SKIPPED"
        started, ended = (_moment(task.start_time), _moment(task.end_time)) if begun else (None, None)
        steps.append(
            RemoteStep(
                name=name.replace("-", "_"),
                state=state,
                node=node,
                is_cached=task.state == "SUCCEEDED" and started is not None and _is_at_once(started, ended),
                started=started,
                ended=ended,
                message=one_line(task.error.message, LONGEST) if task.error and task.error.message else "",
            )
        )
    return tuple(sorted(steps, key=lambda step: (step.started is None, str(step.started))))


def _is_after(moment: datetime | None, asked: datetime | None) -> bool:
    return asked is not None and (moment is None or moment >= asked)


def _is_at_once(started: datetime, ended: datetime | None) -> bool:
    """Tell whether nothing has run: a step from the cache has ended when it starts, and a pod takes longer."""
    return ended is not None and ended - started < _POD_TIME


def _moment(moment: datetime | None) -> datetime | None:
    # What has not happened yet happened in 1970.
    return moment if moment and moment.year > 1970 else None
