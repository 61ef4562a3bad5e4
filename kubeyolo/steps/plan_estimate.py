"""The estimate of a training; refuses a run that takes more memory than a pod may use."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kubeyolo.compiled.resources import quantity
from kubeyolo.config.schema import Config
from kubeyolo.data.digest import SourceFacts
from kubeyolo.data.folder import count_classes
from kubeyolo.errors import InputError
from kubeyolo.estimate.devices import DEVICES
from kubeyolo.estimate.memory import backbone_memory, detector_memory
from kubeyolo.estimate.run import UNKNOWN_IMAGES, RunEstimate, estimate_run
from kubeyolo.formats import about_size, size_text
from kubeyolo.memory import lower
from kubeyolo.models.named_facts import model_facts
from kubeyolo.steps.checked_form import CheckedForm
from kubeyolo.storage.file_errors import available_bytes
from kubeyolo.storage.place import Place
from kubeyolo.training.small_sets import MOST_IMAGES, small_set_note

_CLASSES = 80
"""Assumed number of classes: it is not known before the data set is validated."""


def estimate_training(
    checked: CheckedForm, source: SourceFacts, has_work: bool = True
) -> tuple[RunEstimate, tuple[str, ...]]:
    """Return what a training will take, and notes if that is more than its store or this machine has.

    Args:
        checked: The form of the run.
        source: Images and size of its data set.
        has_work: Whether anything will be trained.

    Raises:
        InputError: A step takes more memory than its pod may use.
    """
    config = checked.resolved.config
    machines = checked.launcher.machines("train", config.train.processes, checked.is_remote)
    estimate = estimate_run(
        model_facts(config.model),
        config,
        source.images,
        data_bytes=source.size,
        cores=machines.cores,
        nodes=machines.nodes,
        device=DEVICES[machines.device] if machines.device else None,
    )
    counts = {"pretrain_backbone": config.pretrain.processes, "train": config.train.processes}
    in_pod = {
        step: count // checked.launcher.machines(step, count, checked.is_remote).nodes for step, count in counts.items()
    }
    needed = _needed_memory(config, source, in_pod)
    if has_work:
        _check_pods(checked, needed)
    notes = _space_notes(checked.at(checked.store), estimate) + _memory_notes(config, machines.memory, needed)
    return estimate, notes


def small_set_notes(data: str, source: SourceFacts, config: Config) -> tuple[str, ...]:
    """Return a note if a data set is small and may have classes that look alike.

    Its annotations are read only if it has few images, and is in a folder.

    Args:
        data: URI of the data set.
        source: Its images.
        config: The configuration.
    """
    images = source.images.get("train", 0)
    if not 0 < images < MOST_IMAGES:
        return ()
    note = small_set_note(model_facts(config.model), config, images, count_classes(data, config.data))
    return (note,) if note else ()


def _space_notes(store: Place, estimate: RunEstimate) -> tuple[str, ...]:
    """Return a note if the store is a folder and its disk has less space than the estimate of the run."""
    path = store.store.local_path()
    available = None if path is None else available_bytes(path)
    if available is None or available >= estimate.disk:
        return ()
    return (
        f"{store} has {size_text(available)} of space left, less than the estimate: free some space, or choose a "
        "different store",
    )


def _needed_memory(config: Config, source: SourceFacts, processes: Mapping[str, int]) -> dict[str, int]:
    """Return the memory that each step which trains takes on one machine or in one pod, in bytes.

    The memory of an accelerator is not counted.

    Args:
        config: The configuration.
        source: Images of the data set.
        processes: Number of processes on one machine or in one pod, by step.
    """
    facts, images = model_facts(config.model), source.images.get("train", UNKNOWN_IMAGES)
    needed = {"train": processes["train"] * detector_memory(facts, config, images, _CLASSES)}
    if config.pretrain.enabled:
        needed["pretrain_backbone"] = processes["pretrain_backbone"] * backbone_memory(facts, config)
    return needed


def _check_pods(checked: CheckedForm, needed: Mapping[str, int]) -> None:
    """Refuse a run with a step that takes more memory than its pod may use.

    Raises:
        InputError: Names the option or the setting that allows more.
    """
    for step, count in needed.items():
        in_job = checked.launcher.job_memory(step)
        limit = in_job or checked.memory_limits.get(step, "")
        if not limit or count <= quantity(limit):
            continue
        sufficient = f"{math.ceil(count / 2**30)}Gi"
        if in_job:
            remedy = f"raise the cluster setting memory to {sufficient}"
        else:
            remedy = f"allow more with --resources {step}.memory={sufficient} of 'kubeyolo pipeline'"
        raise InputError(
            f"{step} takes about {about_size(count)} of memory, and its pod may use {limit}: {remedy}, or "
            f"{lower(_lowered(checked.resolved.config, step))}"
        )


def _memory_notes(config: Config, memory: float | None, needed: Mapping[str, int]) -> tuple[str, ...]:
    """Return a note for each step that takes more memory than this machine has; none if the memory is not known."""
    return tuple(
        f"this machine, or its container, allows {about_size(memory)} of memory, less than the {about_size(count)} "
        f"that {step} takes: {lower(_lowered(config, step))}, or allow more memory"
        for step, count in needed.items()
        if memory is not None and count > memory
    )


def _lowered(config: Config, step: str) -> dict[str, int | None]:
    """Return the settings to lower so that a step takes less memory, with their values."""
    if step == "pretrain_backbone":
        return {
            "pretrain.per_batch_size": config.pretrain.per_batch_size,
            "pretrain.image_size": config.pretrain.image_size,
        }
    return {
        "train.per_batch_size": config.train.per_batch_size,
        "data.cache_limit_mb": config.data.cache_limit_mb,
        "data.workers": config.data.workers,
    }
