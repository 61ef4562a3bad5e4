"""The launchers by name: they start the processes of steps, after checking the configuration and their packages.

A new launcher is a class with the methods of :class:`Launcher`, and an entry in :data:`LAUNCHERS`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import ResolvedConfig, with_values
from kubeyolo.config.schema import Config
from kubeyolo.config.section import MOST_PROCESSES
from kubeyolo.errors import InputError, check_known
from kubeyolo.estimate.devices import DeviceKind
from kubeyolo.formats import counted
from kubeyolo.index import RUN_ID
from kubeyolo.launch import ascend, local
from kubeyolo.launch.policy import mounted_policy
from kubeyolo.launch.settings import (
    DEFAULT_PRESET,
    ClusterSettings,
    check_reachable,
    cluster_settings,
)
from kubeyolo.resources import usable_memory, usable_processors
from kubeyolo.work import Work


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines or pods on which the processes of a step run.

    Attributes:
        nodes: Number of machines or pods.
        cores: Processors of each machine or pod; None if unknown.
        memory: Memory of this machine in bytes; None if unknown, and for pods, whose limits are settings.
        device: Kind of the accelerators; None if unknown.
    """

    nodes: int
    cores: int | None
    memory: float | None
    device: DeviceKind | None = None


class Launcher(Protocol):
    """Starts the processes of steps and waits for them."""

    name: ClassVar[str]

    @classmethod
    def configured(
        cls, values: Mapping[str, Any] | None, file: Path | None, sets: Sequence[str], job: str = ""
    ) -> Self:
        """Return the launcher with these cluster settings: see :func:`find_launcher`."""

    @property
    def writer(self) -> str:
        """Name under which a training claims its output; empty if only the process that starts it claims the output."""

    def has_job(self, step: str) -> bool:
        """Tell whether the processes of a step run elsewhere, in a job of their own."""

    def processes(self, step: str) -> int:
        """Return the number of processes of a step whose configuration does not set it."""

    def placed(self, resolved: ResolvedConfig) -> ResolvedConfig:
        """Return a configuration with the device and the number of processes of each step, unless they are set."""

    def check(self, config: Config, steps: Collection[str], is_remote: bool) -> None:
        """Refuse a configuration that this launcher cannot run.

        Args:
            config: The configuration, with devices; see :meth:`placed`.
            steps: Names of the steps that run.
            is_remote: Whether steps without a job run in pods, which have no devices.

        Raises:
            InputError: Names the setting that does not fit the settings of the cluster.
        """

    def placement(self, config: Config, steps: Collection[str]) -> tuple[str, ...]:
        """Return a line that tells which of these steps have a job, and in which pods; nothing if none can have one."""

    def check_installed(self) -> None:
        """Check that the packages that this launcher needs are installed.

        Raises:
            InputError: A package is not installed.
        """

    def machines(self, step: str, processes: int, is_remote: bool) -> Machines:
        """Return the machines for the processes of a step; ``is_remote`` if the steps are pods on a cluster."""

    def job_memory(self, step: str) -> str:
        """Return the memory of each pod in the job of a step, as Kubernetes writes it; empty without a job."""

    def launch(self, work: Work) -> None:
        """Start the processes of some work and wait for them.

        Raises:
            InputError: The input of the work cannot be used.
            InterruptedWork: This process received a stop signal.
            WorkError: A process failed.
        """


class LocalLauncher:
    """Works on this machine: in a pipeline, in the pod or process of the step."""

    name: ClassVar[str] = "local"
    writer = ""

    @classmethod
    def configured(
        cls, values: Mapping[str, Any] | None, file: Path | None, sets: Sequence[str], job: str = ""
    ) -> Self:
        """Return the launcher; refuse cluster settings."""
        if values or file is not None or sets:
            raise InputError("cluster is set, but launcher is local; set launcher to volcano, or leave cluster empty")
        return cls()

    def has_job(self, step: str) -> bool:
        """Return False: every step runs here."""
        return False

    def processes(self, step: str) -> int:
        """Return 1."""
        return 1

    def placed(self, resolved: ResolvedConfig) -> ResolvedConfig:
        """Return the configuration as it is: each step runs on processors unless its configuration names a device."""
        return resolved

    def check(self, config: Config, steps: Collection[str], is_remote: bool) -> None:
        """Refuse devices in pods; accept every other configuration."""
        for step in steps if is_remote else ():
            _refuse_device(config, step, "set launcher to volcano, and cluster to a preset with this device")

    def placement(self, config: Config, steps: Collection[str]) -> tuple[str, ...]:
        """Return nothing: no step has a job."""
        return ()

    def check_installed(self) -> None:
        """Check nothing: a worker process itself reports a missing package."""

    def machines(self, step: str, processes: int, is_remote: bool) -> Machines:
        """Return this machine; cores and memory are unknown if the steps run in pods that do not exist yet."""
        in_pod = bool(os.environ.get(RUN_ID))
        return Machines(
            nodes=1,
            cores=None if is_remote and not in_pod else usable_processors(),
            memory=None if is_remote or in_pod else usable_memory(),
        )

    def job_memory(self, step: str) -> str:
        """Return nothing: no step has a job."""
        return ""

    def launch(self, work: Work) -> None:
        """Start processes on this machine."""
        local.launch_work(work)


@dataclass(frozen=True)
class VolcanoLauncher:
    """Runs each step that has a job in the pods of a Volcano job, and all other steps on this machine.

    If the process that submits a job is replaced, the next process adopts the job.

    Attributes:
        settings: Cluster settings by the name of the step.
        preset: Name of their preset.
    """

    name: ClassVar[str] = "volcano"

    settings: Mapping[str, ClusterSettings]
    preset: str = DEFAULT_PRESET

    @classmethod
    def configured(
        cls, values: Mapping[str, Any] | None, file: Path | None, sets: Sequence[str], job: str = ""
    ) -> Self:
        """Return the launcher with the settings of a preset, overridden by these settings."""
        preset, settings = cluster_settings(values, file, sets, job)
        return cls(settings, preset)

    @property
    def writer(self) -> str:
        """Name of the launcher with the id of the run, or outside of a run with the namespace of the job, if set."""
        return f"{self.name} {os.environ.get(RUN_ID) or self.settings['train'].namespace}".strip()

    def has_job(self, step: str) -> bool:
        """Tell whether the settings of a step give it a job."""
        return step in self.settings and self.settings[step].job

    def processes(self, step: str) -> int:
        """Return the number of processes in all pods of the step's job."""
        return self.settings[step].processes if self.has_job(step) else 1

    def placed(self, resolved: ResolvedConfig) -> ResolvedConfig:
        """Return a configuration in which each step with a job uses the devices of its nodes, unless they are set.

        The values of a model's preset count as not set.

        Raises:
            InputError: The nodes have more devices than there may be processes.
        """
        values: dict[str, Any] = {}
        for step, settings in self.settings.items():
            if not settings.job:
                continue
            _check_processes(step, settings)
            entry = STEPS[step]
            values[entry.device_key] = settings.device_target
            if entry.processes_key and (settings.nodes or settings.devices_per_node > 1):
                values[entry.processes_key] = settings.processes
        unset = {key: value for key, value in values.items() if not resolved.is_set(key)}
        return with_values(resolved, unset, f"the cluster preset {self.preset}")

    def check(self, config: Config, steps: Collection[str], is_remote: bool) -> None:
        """Refuse what the policy of the cluster or the pods do not allow, and images that the pods cannot read."""
        policy = mounted_policy()
        for step in steps:
            if self.has_job(step):
                if policy is not None:
                    policy.check(self.settings[step])
                key = STEPS[step].device_key
                self.settings[step].check_device(key, config.value(key))
            elif is_remote:
                _refuse_device(config, step, f"set steps.{step}.job = true in the cluster settings")
        for step in steps:
            if self.has_job(step):
                self._nodes(step, config)
        if "pretrain_backbone" in steps and config.pretrain.enabled and self.has_job("pretrain_backbone"):
            check_reachable("pretrain.data", config.pretrain.data)

    def placement(self, config: Config, steps: Collection[str]) -> tuple[str, ...]:
        """Return the line with the pods of each job."""
        jobs = [f"{step} in {self._pods(step, config)}" for step in steps if self.has_job(step)]
        return (f"jobs: {', '.join(jobs)}; all other steps run without a job" if jobs else "no step has a job",)

    def _pods(self, step: str, config: Config) -> str:
        settings, nodes = self.settings[step], self._nodes(step, config)
        each = " each" if nodes > 1 else ""
        unit = "worker" if settings.device_target == "CPU" else f"{settings.device_target} card"
        return f"{counted(nodes, 'pod')} with {counted(settings.devices_per_node, unit)}{each}"

    def _nodes(self, step: str, config: Config) -> int:
        """Return the number of pods of a step's job, for the processes that the configuration or the settings name."""
        settings, key = self.settings[step], STEPS[step].processes_key
        return settings.nodes_for(config.value(key) if key else settings.processes, key)

    def check_installed(self) -> None:
        """Check that the package kubernetes is installed."""
        try:
            from kubeyolo.launch import volcano  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"the launcher volcano needs the package {error.name}: pip install 'kubeyolo[launch]'"
            ) from error

    def machines(self, step: str, processes: int, is_remote: bool) -> Machines:
        """Return the pods of the step's job, or without a job the machine of the step."""
        if not self.has_job(step):
            return LocalLauncher().machines(step, processes, is_remote)
        settings = self.settings[step]
        return Machines(
            nodes=settings.nodes_for(processes, STEPS[step].processes_key),
            cores=max(1, round(settings.processors)),
            memory=None,
            device=ascend.device_kind(ascend.schedule_policy(settings.annotations, settings.node_selector)),
        )

    def job_memory(self, step: str) -> str:
        """Return the memory of each pod in the job of a step, as Kubernetes writes it; empty without a job."""
        return self.settings[step].pod_memory if self.has_job(step) else ""

    def launch(self, work: Work) -> None:
        """Submit the job of a step, or adopt it if it is running, and follow it to its end."""
        if not self.has_job(work.step):
            local.launch_work(work)
            return
        from kubeyolo.launch.volcano import launch_on_volcano

        launch_on_volcano(work, self.settings[work.step])


def _check_processes(step: str, settings: ClusterSettings) -> None:
    if settings.processes > MOST_PROCESSES:
        raise InputError(
            f"nodes = {settings.nodes} and devices_per_node = {settings.devices_per_node} of the step {step} are "
            f"{settings.processes} processes; a job may have at most {MOST_PROCESSES}; lower nodes or devices_per_node "
            "in the cluster settings"
        )


def _refuse_device(config: Config, step: str, remedy: str) -> None:
    """Refuse a device for a step that runs in the plain pod of a pipeline, which has no devices."""
    key = STEPS[step].device_key
    if key and config.value(key) != "CPU":
        raise InputError(
            f"{key} is {config.value(key)}, but the step {step} runs in a pod without devices; {remedy}, or leave "
            "the key out"
        )


LAUNCHERS: Mapping[str, type[Launcher]] = {each.name: each for each in (LocalLauncher, VolcanoLauncher)}
"""Every launcher by its name, the default first."""


def find_launcher(
    name: str = "",
    values: Mapping[str, Any] | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    job: str = "",
    *,
    must_run: bool = False,
) -> Launcher:
    """Return the launcher with this name.

    Args:
        name: ``local`` for this machine, which is the default, or ``volcano`` for a cluster.
        values: Cluster settings by key; they override the preset.
        file: YAML file with cluster settings.
        sets: ``key=value`` pairs that override the file.
        job: Name of a step that has a job unless a setting says otherwise.
        must_run: Whether the packages that the launcher needs must be installed here.

    Raises:
        InputError: Unknown launcher, settings that are not allowed, or a package that is not installed.
    """
    name = name or next(iter(LAUNCHERS))
    check_known("launcher", name, LAUNCHERS)
    launcher = LAUNCHERS[name].configured(values, file, sets, job)
    if must_run:
        launcher.check_installed()
    return launcher
