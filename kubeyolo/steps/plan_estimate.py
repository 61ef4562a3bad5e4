"""The estimate of a training, with a note if its store has too little space or its machine too little memory."""

from __future__ import annotations

from kubeyolo.config.schema import Config
from kubeyolo.data.digest import SourceFacts
from kubeyolo.estimate import RunEstimate, estimate_run
from kubeyolo.formats import about_size, size_text
from kubeyolo.launch.launcher import Machines
from kubeyolo.memory import lower
from kubeyolo.models.named_facts import model_facts
from kubeyolo.steps.checked_form import CheckedForm
from kubeyolo.storage.file_errors import available_bytes
from kubeyolo.storage.place import Place


def estimate_training(checked: CheckedForm, source: SourceFacts) -> tuple[RunEstimate, tuple[str, ...]]:
    """Return the estimate of a training, and notes if its store or its machine has too little space or memory.

    Args:
        checked: The form of the run.
        source: Images and size of its data set.
    """
    config = checked.resolved.config
    machines = checked.launcher.machines(config.train.processes, checked.is_remote)
    estimate = estimate_run(
        model_facts(config.model),
        config,
        source.images,
        data_bytes=source.size,
        cores=machines.cores,
        nodes=machines.nodes,
    )
    notes = _space_notes(checked.at(checked.store), estimate) + _memory_notes(config, machines, estimate)
    return estimate, notes


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


def _memory_notes(config: Config, machines: Machines, estimate: RunEstimate) -> tuple[str, ...]:
    """Return a note if a training takes more memory than its machine or pod has.

    The memory of accelerators and of the pods of steps is unknown and is not compared.
    """
    processes = config.train.processes // machines.nodes
    needed = processes * ((estimate.memory if config.train.device_target == "CPU" else 0) + estimate.loader_memory)
    if machines.memory is None or needed <= machines.memory:
        return ()
    settings = {
        "train.per_batch_size": config.train.per_batch_size,
        "data.cache_limit_mb": config.data.cache_limit_mb,
        "data.workers": config.data.workers,
    }
    return (
        f"{machines.allowance} {about_size(machines.memory)} of memory, less than the {about_size(needed)} that the "
        f"training takes: {lower(settings)}, or allow more memory",
    )
