"""How a training scales: its speed, time and memory with different numbers of devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubeyolo.config.schema import Config
from kubeyolo.estimate.devices import DeviceFacts
from kubeyolo.estimate.memory import PROCESS_BYTES
from kubeyolo.estimate.run import RunEstimate, estimate_run
from kubeyolo.estimate.speed import Limit, StepTime
from kubeyolo.models.facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """A training on a number of devices.

    Attributes:
        device: Kind of the devices; "CPU" for processors.
        devices: Number of devices, each with one process.
        machines: Number of machines.
        images_per_step: Images of a step in all processes.
        images_per_second: Of all processes, without validations and checkpoints.
        epoch_seconds: Time of an epoch.
        training_seconds: Time of the whole training, with compiling, validations and checkpoints.
        efficiency: Images per second divided by those of as many single devices.
        limit: What takes most of a step.
        memory: Bytes of a process on its device.
        host_memory: Bytes of a process and its loader on the machine.
        step: The parts of a step.
    """

    device: str
    devices: int
    machines: int
    images_per_step: int
    images_per_second: float
    epoch_seconds: float
    training_seconds: float
    efficiency: float
    limit: Limit
    memory: int
    host_memory: int
    step: StepTime


def scaling(
    facts: ModelFacts,
    config: Config,
    images: Mapping[str, int],
    counts: Sequence[int],
    device: DeviceFacts | None,
    cores: int | None = None,
) -> list[ScalingRow]:
    """Return a training on each number of devices; each device has ``train.per_batch_size`` images of a step.

    Args:
        facts: Facts of the model.
        config: The configuration; its device and number of processes are ignored.
        images: Number of images by split.
        counts: Numbers of devices.
        device: Kind of the devices; None for processors, where each count is a number of processes on one machine.
        cores: Cores of a machine; None for those of the machine that the devices are part of.
    """
    one = _estimate(facts, config, images, 1, device, cores)
    batch = config.train.per_batch_size
    rows = []
    for count in counts:
        estimate, machines = _estimate(facts, config, images, count, device, cores), _machines(count, device)
        speed, single = count * batch / estimate.step.total, batch / one.step.total
        steps = math.ceil(images["train"] / (count * batch))
        on_host = estimate.memory if device is None else round(PROCESS_BYTES)
        rows.append(
            ScalingRow(
                device="CPU" if device is None else device.kind,
                devices=count,
                machines=machines,
                images_per_step=count * batch,
                images_per_second=speed,
                epoch_seconds=steps * estimate.step.total,
                training_seconds=estimate.seconds["train"],
                efficiency=speed / (count * single),
                limit=estimate.step.limit,
                memory=estimate.memory - (0 if device is None else round(PROCESS_BYTES)),
                host_memory=on_host + estimate.loader_memory,
                step=estimate.step,
            )
        )
    return rows


def _machines(count: int, device: DeviceFacts | None) -> int:
    return 1 if device is None else math.ceil(count / device.per_machine)


def _estimate(
    facts: ModelFacts,
    config: Config,
    images: Mapping[str, int],
    count: int,
    device: DeviceFacts | None,
    cores: int | None,
) -> RunEstimate:
    """Estimate the run with a number of training processes."""
    changes = {"processes": count, "device_target": "CPU" if device is None else "Ascend"}
    changed = config.model_copy(update={"train": config.train.model_copy(update=changes)})
    return estimate_run(facts, changed, images, nodes=_machines(count, device), device=device, cores=cores)
