"""The launchers by name: each checks the configuration and its own packages, and starts training processes.

A new launcher is a class with the methods of :class:`Launcher`, and an entry in :data:`LAUNCHERS`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, check_known
from kubeyolo.index import RUN_ID
from kubeyolo.launch import local
from kubeyolo.launch.settings import ClusterSettings, check_reachable, cluster_settings
from kubeyolo.resources import usable_memory, usable_processors
from kubeyolo.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines or pods on which the processes of a training run.

    Attributes:
        nodes: Number of machines or pods.
        cores: Processors of each machine or pod; None if unknown.
        memory: Memory of each machine or pod in bytes; None if unknown.
        allowance: Start of a sentence about the memory limit; the sentence ends with the size.
    """

    nodes: int
    cores: int | None
    memory: float | None
    allowance: str


class Launcher(Protocol):
    """Starts training processes and waits for them."""

    name: ClassVar[str]

    @classmethod
    def configured(cls, values: Mapping[str, Any] | None, file: Path | None, sets: Sequence[str]) -> Self:
        """Return the launcher with these cluster settings: see :func:`find_launcher`."""

    @property
    def writer(self) -> str:
        """Name under which a training claims its output; empty if only the process that starts it claims the output."""

    def check(self, config: Config) -> None:
        """Refuse a configuration that this launcher cannot train.

        Raises:
            InputError: Names the setting that does not fit the settings of the cluster.
        """

    def check_installed(self) -> None:
        """Check that the packages that this launcher needs are installed.

        Raises:
            InputError: A package is not installed.
        """

    def machines(self, processes: int, is_remote: bool) -> Machines:
        """Return the machines for a number of training processes; ``is_remote`` if the steps are pods on a cluster."""

    def launch(self, spec: TrainingSpec) -> None:
        """Start the processes of a training and wait for them.

        Raises:
            InputError: The input of the training cannot be used.
            InterruptedWork: This process received a stop signal.
            WorkError: A process failed.
        """


class LocalLauncher:
    """Trains on this machine; in a pipeline, in the pod or the process of the step."""

    name: ClassVar[str] = "local"
    writer = ""

    @classmethod
    def configured(cls, values: Mapping[str, Any] | None, file: Path | None, sets: Sequence[str]) -> Self:
        """Return the launcher; refuse cluster settings."""
        if values or file is not None or sets:
            raise InputError("cluster is set, but launcher is local; set launcher to volcano, or leave cluster empty")
        return cls()

    def check(self, config: Config) -> None:
        """Accept every configuration."""

    def check_installed(self) -> None:
        """Check nothing: a training process itself reports a missing package."""

    def machines(self, processes: int, is_remote: bool) -> Machines:
        """Return this machine; cores and memory are unknown if the steps run in pods that do not exist yet."""
        in_pod = bool(os.environ.get(RUN_ID))
        return Machines(
            nodes=1,
            cores=None if is_remote and not in_pod else usable_processors(),
            memory=None if is_remote or in_pod else usable_memory(),
            allowance="this machine, or its container, allows",
        )

    def launch(self, spec: TrainingSpec) -> None:
        """Train in processes on this machine."""
        local.launch_training(spec)


@dataclass(frozen=True)
class VolcanoLauncher:
    """Trains in pods of a Volcano job; if the process that submits it is replaced, the next process adopts the job."""

    name: ClassVar[str] = "volcano"

    settings: ClusterSettings

    @classmethod
    def configured(cls, values: Mapping[str, Any] | None, file: Path | None, sets: Sequence[str]) -> Self:
        """Return the launcher with the settings of a preset, overridden by these settings."""
        return cls(cluster_settings(values, file, sets))

    @property
    def writer(self) -> str:
        """Name of the launcher, then the id of the run or, outside of a run, the namespace of the job (if set)."""
        return f"{self.name} {os.environ.get(RUN_ID) or self.settings.namespace}".strip()

    def check(self, config: Config) -> None:
        """Refuse a training that does not fit the pods, and pretraining images that the pods cannot read."""
        self.settings.check_processes(config.train, config.train.processes)
        if config.pretrain.enabled:
            check_reachable("pretrain.data", config.pretrain.data)

    def check_installed(self) -> None:
        """Check that the package kubernetes is installed."""
        try:
            from kubeyolo.launch import volcano  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"the launcher volcano needs the package {error.name}: pip install 'kubeyolo[launch]'"
            ) from error

    def machines(self, processes: int, is_remote: bool) -> Machines:
        """Return the pods of the job."""
        return Machines(
            nodes=self.settings.nodes_for(processes),
            cores=max(1, round(self.settings.processors)),
            memory=self.settings.memory_bytes,
            allowance=f"a pod has (cluster setting memory = {self.settings.memory})",
        )

    def launch(self, spec: TrainingSpec) -> None:
        """Submit the job, or adopt it if it is running, and follow it to its end."""
        from kubeyolo.launch.volcano import launch_on_volcano

        launch_on_volcano(spec, self.settings)


LAUNCHERS: Mapping[str, type[Launcher]] = {each.name: each for each in (LocalLauncher, VolcanoLauncher)}
"""Every launcher by its name, the default first."""


def find_launcher(
    name: str = "", values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = ()
) -> Launcher:
    """Return the launcher with this name.

    Args:
        name: ``local`` for this machine, which is the default, or ``volcano`` for a cluster.
        values: Cluster settings by key; they override the preset.
        file: YAML file with cluster settings.
        sets: ``key=value`` pairs that override the file.

    Raises:
        InputError: Unknown launcher, or settings that are not allowed.
    """
    name = name or next(iter(LAUNCHERS))
    check_known("launcher", name, LAUNCHERS)
    return LAUNCHERS[name].configured(values, file, sets)


def ready_launcher(
    name: str = "", values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = ()
) -> Launcher:
    """Return the launcher with this name if its packages are installed; see :func:`find_launcher`.

    Raises:
        InputError: As :func:`find_launcher`, and if a package that the launcher needs is not installed.
    """
    launcher = find_launcher(name, values, file, sets)
    launcher.check_installed()
    return launcher
