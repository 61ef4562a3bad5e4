"""Runs, steps and schedules on Kubeflow, as its REST interface describes them."""

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
"""Names of Kubeflow's templates for the pods of steps: without and with retries."""

MARK = "kubeyolo schedule "
"""Prefix of the line of a description that names the schedule of a recurring run."""

LONGEST = 300
"""Longest message from Kubeflow that is shown, in characters."""

TERMINATED = "TERMINATED"
"""State of a run whose termination was requested. Kubeflow finally reports it as FAILED."""

_TERMINATING = "CANCELING"
_POD_TIME = timedelta(seconds=2)
_MOST_TRIES = 100
_FNV_PRIME = 16777619
# A retried task has its attempts next to it: train, train(0), train(1).
_MACHINERY = re.compile(
    r".*-driver|root|executor|(condition|condition-branches|exit-handler|for-loop)-\d+(\.onExit)?|.*\(\d+\)"
)


@dataclass(frozen=True)
class RemoteStep:
    """A step of a run on the cluster.

    Attributes:
        name: Its name in the pipeline, such as ``validate_dataset``.
        state: Kubeflow's state, such as RUNNING; TERMINATED for a step that ended because its run was terminated,
            SKIPPED for a step that did not start before the end of its run.
        node: Argo's node of the pod of its newest attempt; empty before there is a pod.
        is_cached: Whether its results were in Kubeflow's cache.
        started: Time of its start, or None.
        ended: Time of its end, or None.
        message: Kubeflow's reason for its failure.
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
        """Name of its Argo workflow."""
        return self.node.rpartition("-")[0]

    @property
    def pods(self) -> tuple[str, ...]:
        """Possible names of its pod: the name of a template is between the workflow and the number."""
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
        created: Time of its submission.
        ended: Time of its end, or None.
        steps: Its steps in the order of their start.
        arguments: Values of its parameters.
        message: Kubeflow's reason for its failure.
        workflow: Name of its Argo workflow; empty before the workflow exists.
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
        """Whether it has ended, in any state."""
        return self.state in ENDED or (self.state == TERMINATED and self.ended is not None)

    def step(self, name: str) -> RemoteStep | None:
        """Return the step with this name, or None."""
        return next((step for step in self.steps if step.name == name), None)


def recurring_of(raw: Any) -> Recurring | None:
    """Return a recurring run that was created from a schedule file; None for any other recurring run."""
    for line in (raw.description or "").splitlines():
        if line.startswith(MARK):
            try:
                name, owner, digest = map(str, json.loads(line.removeprefix(MARK)))
            except ValueError:
                return None
            cron = raw.trigger.cron_schedule.cron if raw.trigger and raw.trigger.cron_schedule else ""
            enabled = (raw.status or "ENABLED") == "ENABLED"
            return Recurring(str(raw.recurring_run_id), name, owner, digest, enabled, cron)
    return None


def run_of(raw: Any) -> RemoteRun:
    """Return a run from Kubeflow's description."""
    config, state, ended = raw.runtime_config, _state(raw), _moment(raw.finished_at)
    return RemoteRun(
        id=raw.run_id,
        name=raw.display_name,
        state=state,
        experiment=raw.experiment_id,
        created=raw.created_at,
        ended=ended,
        steps=_steps(raw, over=ended is not None),
        arguments=(config.parameters or {}) if config else {},
        message=one_line(raw.error.message, LONGEST) if raw.error and raw.error.message else "",
        workflow=next((node.rpartition("-")[0] for task in _tasks(raw) for node in _nodes(task)), ""),
    )


def _tasks(raw: Any) -> list[Any]:
    return list((raw.run_details.task_details if raw.run_details else None) or ())


def _nodes(task: Any) -> list[str]:
    return [child.pod_name for child in task.child_tasks or () if child.pod_name]


def _pod_node(node: str, nodes_of_run: Collection[str]) -> str:
    """Return the node of the pod of a step's newest attempt; it is below ``node``, or ``node`` itself.

    A node's number is the FNV-1a digest of its name. An attempt has the name of the step's node with a suffix such as
    ``(0)``, and the executor has the suffix ``.executor``. So the numbers of these nodes can be computed.

    Args:
        node: Node below the node of the step.
        nodes_of_run: Every node of the run.
    """
    below = [_longer(node, ".executor"), *(_longer(node, f"({number})") for number in range(_MOST_TRIES))]
    newest = next((one for one in reversed(below) if one in nodes_of_run), "")
    return _pod_node(newest, nodes_of_run) if newest else node


def _longer(node: str, more: str) -> str:
    """Return the node whose name is the name of a given node and a suffix."""
    workflow, _, number = node.rpartition("-")
    digest = int(number) if number.isdigit() else 0
    for byte in more.encode():
        digest = (digest ^ byte) * _FNV_PRIME % 2**32
    return f"{workflow}-{digest}"


def _state(raw: Any) -> str:
    states = [entry.state for entry in raw.state_history or ()]
    state = raw.state or "PENDING"
    asked = _TERMINATING in (*states, state) or state == "CANCELED"
    return TERMINATED if asked and state != "SUCCEEDED" else state


def _steps(raw: Any, over: bool) -> tuple[RemoteStep, ...]:
    asked = next((entry.update_time for entry in raw.state_history or () if entry.state == _TERMINATING), None)
    steps = []
    nodes_of_run = {node for task in _tasks(raw) for node in _nodes(task)}
    for task in _tasks(raw):
        nodes = _nodes(task)
        name, node = task.display_name or "", _pod_node(nodes[-1], nodes_of_run) if nodes else ""
        # Besides the steps, Kubeflow lists their drivers, their graphs, and the workflow itself.
        if not name or _MACHINERY.fullmatch(name) or (node and name == node.rpartition("-")[0]):
            continue
        # A step that did not start before the end of its run has no state, but has the end time of the run.
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
    """Tell whether no pod has run: a step from the cache ends at the moment when it starts."""
    return ended is not None and ended - started < _POD_TIME


def _moment(moment: datetime | None) -> datetime | None:
    # Kubeflow writes 1970 for a time that is not set yet.
    return moment if moment and moment.year > 1970 else None
