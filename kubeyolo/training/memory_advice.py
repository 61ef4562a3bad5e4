"""Whether a training fits into the memory and onto the processors that it may use, and what to lower if not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import DataConfig
from kubeyolo.estimate.memory import backbone_memory, detector_memory
from kubeyolo.formats import about_size, counted
from kubeyolo.memory import lower
from kubeyolo.models.facts import ModelFacts
from kubeyolo.resources import usable_memory, usable_processors
from kubeyolo.work import BOUND, DEVICES

_END = "the kernel may kill it"


def detector_memory_warnings(facts: ModelFacts, config: Config, images: int, classes: int, world: int) -> list[str]:
    """Warn if the training of a detector takes more memory than its processes may use on this machine.

    Args:
        facts: Facts of the model.
        config: Configuration of the training.
        images: Number of training images.
        classes: Number of classes.
        world: Number of all training processes.
    """
    available, here = usable_memory(), _processes_here(world)

    def needed(changes: Mapping[str, Mapping[str, int]]) -> int:
        sections = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
        return here * detector_memory(facts, config.model_copy(update=sections), images, classes)

    now = needed({})
    if available is None or now <= available:
        return []
    of = f" for its {here} processes on this machine" if here > 1 else ""
    return [
        f"the training takes about {about_size(now)} of memory{of}, and may use {about_size(available)}: {_END}; "
        f"{_remedy(config, available, here, needed)}"
    ]


def backbone_memory_warnings(facts: ModelFacts, config: Config, crops: int) -> list[str]:
    """Warn if a pretraining takes more memory than its process may use; ``crops`` is the size of all crops in bytes."""
    available, needed = usable_memory(), backbone_memory(facts, config) + crops
    if available is None or needed <= available:
        return []
    return [
        f"the pretraining takes about {about_size(needed)} of memory, and may use {about_size(available)}: {_END}; "
        f"{_lower_pretraining(config)}, or allow it more memory"
    ]


def worker_warnings(config: Config, world: int) -> list[str]:
    """Warn if there are more than twice as many data workers as processors, and more than by default."""
    here = _processes_here(world)
    # A bound process may use only its own share of the processors.
    processors = usable_processors() * (here if os.environ.get(BOUND) else 1)
    workers, usual = config.data.workers, int(DataConfig.model_fields["workers"].default)
    fewer = max(usual, processors // here)
    if workers <= usual or workers * here <= 2 * processors or workers <= fewer:
        return []
    return [
        f"data.workers = {workers} starts {workers * here} processes besides the training, which share "
        f"{counted(processors, 'processor')}: each process takes memory, and they wait for each other; "
        f"use --set data.workers={fewer}, which gives the same batches"
    ]


def memory_remedy(config: Config, task: str) -> str:
    """Return the settings to lower after memory ran out; settings that do not change the weights come first.

    Args:
        config: Configuration of the training.
        task: ``detector`` or ``backbone``.
    """
    data, train = config.data, config.train
    if task == "backbone":
        return f"{_lower_pretraining(config)}, which starts a different pretraining"
    same = {"data.workers": data.workers, "data.cache_limit_mb": data.cache_limit_mb if data.cache else 0}
    same = {key: value for key, value in same.items() if value}
    other: dict[str, int | None] = {
        "train.per_batch_size": train.per_batch_size,
        "train.image_size": train.image_size,
    }
    if train.multi_scale:
        other["train.sizes"] = train.sizes[-1] if train.sizes else None
    if train.processes > 1:
        other["train.processes"] = train.processes
    first = f"{lower(same)} and run the same command again to continue from the newest checkpoint; or " if same else ""
    return f"{first}{lower(other)}, which starts a different training"


def _lower_pretraining(config: Config) -> str:
    pretrain = config.pretrain
    return lower({"pretrain.per_batch_size": pretrain.per_batch_size, "pretrain.image_size": pretrain.image_size})


def _remedy(config: Config, available: int, here: int, needed: Callable[[Mapping[str, Mapping[str, int]]], int]) -> str:
    """Return settings with which the training fits by the same estimate, first those that do not change the weights."""
    no_cache = {"cache_limit_mb": 0}
    room = available - needed({"data": no_cache})
    if room >= 0:
        return f"with --set data.cache_limit_mb={room // here >> 20} it fits, with the same weights"
    for workers in reversed(range(config.data.workers)):
        if needed({"data": {**no_cache, "workers": workers}}) <= available:
            return f"with --set data.workers={workers} --set data.cache_limit_mb=0 it fits, with the same weights"
    if needed({"data": no_cache, "train": {"recompute": True}}) <= available:
        return (
            "with --set train.recompute=true --set data.cache_limit_mb=0 it fits, with the same weights, in about a "
            "fifth more time"
        )
    per_batch_size = config.train.per_batch_size // 2
    while per_batch_size and needed({"data": no_cache, "train": {"per_batch_size": per_batch_size}}) > available:
        per_batch_size //= 2
    if per_batch_size:
        cache = " --set data.cache_limit_mb=0" if needed({}) != needed({"data": no_cache}) else ""
        return f"with --set train.per_batch_size={per_batch_size}{cache} it fits, or allow it more memory"
    fewer = "train fewer processes, " if here > 1 else ""
    sizes = {"train.image_size": config.train.image_size, "data.workers": config.data.workers}
    return f"allow it more memory, {fewer}{lower(sizes)}, or take a smaller model"


def _processes_here(world: int) -> int:
    """Return how many of the training processes run on this machine, or in this pod."""
    return int(os.environ.get(DEVICES, world))
