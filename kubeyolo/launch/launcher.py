"""The launchers by name: on this machine, or on a cluster under Volcano."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubeyolo.errors import InputError, suggest
from kubeyolo.launch.settings import ClusterSettings, cluster_settings
from kubeyolo.training.spec import TrainingSpec

LOCAL, VOLCANO = "local", "volcano"
LAUNCHERS = (LOCAL, VOLCANO)


def checked_settings(
    name: str, values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = ()
) -> ClusterSettings:
    """Return the settings of a launcher.

    Args:
        name: ``local`` for this machine, ``volcano`` for a cluster.
        values: Settings of the cluster by key, over those of their preset.
        file: YAML file of such settings.
        sets: ``key=value`` pairs over those of the file.

    Raises:
        InputError: Unknown launcher, or settings that are not allowed.
    """
    _check(name)
    settings = cluster_settings(values, file, sets)
    if name == LOCAL and (values or file is not None or sets):
        raise InputError("cluster is set, but launcher is local; set launcher to volcano, or leave cluster empty")
    return settings


def training_launcher(name: str, settings: ClusterSettings) -> Callable[[TrainingSpec], None]:
    """Return what starts training processes and waits for them.

    Args:
        name: Of the launcher.
        settings: Of the cluster, as :func:`checked_settings` returns them.

    Raises:
        InputError: Unknown launcher, or the package kubernetes is not installed.
    """
    _check(name)
    if name == LOCAL:
        from kubeyolo.launch.local import launch_training

        return launch_training
    return _on_volcano(settings)


def training_writer(name: str, run: str = "", namespace: str = "") -> str:
    """Return who writes where a training goes, by the claim there; empty for the process that starts it alone.

    A job on a cluster goes on when the process that started it is gone, and the next try takes it up.

    Args:
        name: Of the launcher.
        run: Id of the run that the training is a step of; empty outside of a pipeline.
        namespace: Of the job, where the command names one.
    """
    return "" if name == LOCAL else " ".join(part for part in (name, run, namespace) if part)


def _check(name: str) -> None:
    if name not in LAUNCHERS:
        raise InputError(f"unknown launcher {name!r}{suggest(name, LAUNCHERS)}")


def _on_volcano(settings: ClusterSettings) -> Callable[[TrainingSpec], None]:
    try:
        from kubeyolo.launch.volcano import launch_on_volcano
    except ImportError as error:
        raise InputError(
            f"the launcher volcano needs the package {error.name}: pip install 'kubeyolo[launch]'"
        ) from error
    return lambda spec: launch_on_volcano(spec, settings)
