"""The time of a training step: a roofline of the network, the exchange of gradients, and the loader.

A step takes as long as the slowest of three things that happen at the same time, except that the gradients are
exchanged after the network has computed them:

    step = max(network + all-reduce, loader)
    network = max(multiply-adds / rate, bytes of activations / bandwidth)        on Ascend
    network = multiply-adds / rate + bytes of activations / bandwidth            on a processor, where nothing overlaps

A backward pass has twice the multiply-adds of a forward pass. The roofline is that of Williams et al. (2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from kubeyolo.config.schema import Config
from kubeyolo.estimate.devices import DeviceFacts, Link
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import training_sizes

Limit = Literal["compute", "memory bandwidth", "all-reduce", "loader"]

TRANSFERS, RECOMPUTED_TRANSFERS, FORWARD_TRANSFERS = 19, 4, 7
"""How often an element that a convolution writes crosses the memory: in a training step, in addition if activations are
computed again (all but normalizations), and in a forward pass alone.

Forward 7: written; read for the statistics; read and written by the normalization; read and written by the activation;
read by the next convolution. Backward 12: activation 3, normalization 5, gradients of the input 2 and of the weights 2.
"""

HALF, FLOAT = 2, 4
"""Bytes of an element of half precision, and of float32: of activations on Ascend, and of gradients."""

# Measured in November 2026 on 2 cores of a shared x86-64 machine (Xeon with AVX-512, 2.6 GHz) with MindSpore 2.7.0:
# docs/training.md has the measurements.
CORE_SPEED, CORE_POWER = 41e9, 0.9
"""Multiply-adds per second of one core, and the exponent by which speed grows with cores (above 2 cores: assumed)."""
CORE_BANDWIDTH = 6.6e9
"""Bytes of activations per second of one core."""
IMAGE_SECONDS, STEP_SECONDS = 0.003, 0.08
"""Processor seconds outside the network on a processor: of an image (loader, loss), and of a step, whatever its batch
(starting the operators, optimizer, average of the weights)."""
PROCESS_LINK = Link(bandwidth=0.15e9, latency=1e-3)
"""Exchange of gradients between processes of one machine, with joining and dividing them."""
MACHINE_LINK = Link(bandwidth=0.1e9, latency=2e-3)
"""Exchange of gradients between machines without accelerators, over Ethernet of 1 Gb/s: assumed."""
DECODE_SECONDS, PAINT_SECONDS = 0.0031, 0.0066
"""Processor seconds of the loader: to decode a JPEG of 640 x 480, and to make a training image of 640 x 640 from
decoded images."""
_PAINTED = 640**2


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one process computes in a step.

    Attributes:
        images: Images.
        multiply_adds: Of an image, forward.
        elements: Elements that the convolutions write for an image, forward.
        parameters: Parameters of the network.
        recomputed: Share of the forward pass that the backward pass computes again.
    """

    images: int
    multiply_adds: float
    elements: float
    parameters: int
    recomputed: float = 0.0

    @classmethod
    def of(cls, facts: ModelFacts, size: float, images: int, recomputed: float = 0.0) -> Workload:
        """Return the work of a model with square images of ``size`` pixels a side."""
        area = (size / facts.image_size) ** 2
        return cls(
            images=images,
            multiply_adds=facts.multiply_adds * area,
            elements=facts.activations * area,
            parameters=facts.parameters,
            recomputed=recomputed,
        )

    def share(self, share: float) -> Workload:
        """Return the work of a part of the network."""
        return replace(
            self,
            multiply_adds=share * self.multiply_adds,
            elements=share * self.elements,
            parameters=round(share * self.parameters),
        )


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The processes of a training, and what they run on.

    Attributes:
        processes: Number of processes.
        machines: Number of machines, which have equal numbers of processes.
        device: The device of each process; None if the processes share the cores of their machine.
        cores: Cores of each machine.
    """

    processes: int
    machines: int = 1
    device: DeviceFacts | None = None
    cores: int = 1

    @property
    def per_machine(self) -> int:
        """Processes of a machine."""
        return math.ceil(self.processes / self.machines)


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a training step of all processes.

    Attributes:
        compute: Multiply-adds.
        memory: Transfers of activations.
        reduce: Exchange of the gradients.
        overlaps: Whether compute and memory overlap.
        loader: Making the batches.
    """

    compute: float
    memory: float
    reduce: float
    overlaps: bool
    loader: float = 0.0

    @property
    def network(self) -> float:
        """Forward and backward pass."""
        return max(self.compute, self.memory) if self.overlaps else self.compute + self.memory

    @property
    def total(self) -> float:
        """The whole step."""
        return max(self.network + self.reduce, self.loader)

    @property
    def limit(self) -> Limit:
        """What takes the longest time."""
        if self.loader > self.network + self.reduce:
            return "loader"
        names: tuple[Limit, ...] = ("compute", "memory bandwidth", "all-reduce")
        return max(zip((self.compute, self.memory, self.reduce), names, strict=True))[1]


def step_time(work: Workload, placement: Placement) -> StepTime:
    """Return the time of a training step without the loader.

    Args:
        work: What each process computes.
        placement: The processes, and what they run on.
    """
    multiply_adds = work.images * work.multiply_adds * (3 + work.recomputed)
    transfers = work.images * work.elements * (TRANSFERS + work.recomputed * RECOMPUTED_TRANSFERS)
    rate, transfer_rate = _rates(placement)
    return StepTime(
        compute=multiply_adds / rate,
        memory=transfers / transfer_rate,
        reduce=reduce_seconds(FLOAT * work.parameters, placement),
        overlaps=placement.device is not None,
    )


def forward_seconds(work: Workload, placement: Placement) -> float:
    """Return the seconds of a forward pass alone."""
    rate, transfer_rate = _rates(placement)
    seconds = (work.images * work.multiply_adds / rate, work.images * work.elements * FORWARD_TRANSFERS / transfer_rate)
    return sum(seconds) if placement.device is None else max(seconds)


def _rates(placement: Placement) -> tuple[float, float]:
    """Return multiply-adds per second, and transferred elements per second, of each process."""
    device = placement.device
    if device is not None:
        bandwidth = device.bandwidth * device.bandwidth_share
        return device.multiply_adds * device.compute_share, bandwidth / HALF
    cores = _cores_of_process(placement)
    return CORE_SPEED * cores, CORE_BANDWIDTH * cores / FLOAT


def _cores_of_process(placement: Placement) -> float:
    """Return how many times as fast as on one core a process is, which shares the cores of its machine."""
    return math.pow(placement.cores, CORE_POWER) / placement.per_machine


def reduce_seconds(size: float, placement: Placement) -> float:
    """Return the seconds of an all-reduce of ``size`` bytes, in rings within the machines and then between them.

    A ring of n sends 2 (n - 1) messages of 1/n of the bytes (Patarasuk and Yuan, 2009). Each device of a machine
    exchanges its share of the bytes with the same device of the other machines. Nothing of it overlaps the backward
    pass: a training exchanges all gradients at once.
    """
    if placement.device is not None:
        inside, outside, share = placement.device.inside, placement.device.outside, 1.0
    else:
        # The exchange is work of processors, which more processes than processors share.
        inside, outside, share = PROCESS_LINK, MACHINE_LINK, max(1.0, placement.per_machine / placement.cores)
    within = _ring(size, placement.per_machine, inside) * share
    return within + _ring(size / placement.per_machine, placement.machines, outside)


def _ring(size: float, members: int, link: Link) -> float:
    return 2 * (members - 1) * (size / members / link.bandwidth + link.latency)


def loader_seconds(config: Config, images: int, placement: Placement) -> float:
    """Return the seconds in which the loaders of all processes make the batches of a step.

    Args:
        config: The configuration.
        images: Number of training images.
        placement: The processes, and what they run on.
    """
    data, augment, train = config.data, config.augment, config.train
    each = (1 + augment.mixup) * (1 + 3 * augment.mosaic)
    if data.cache:
        # A decoded image has about three quarters of the area of a training image.
        held = min(1.0, (data.cache_limit_mb << 20) / (images * 3 * 0.75 * train.image_size**2))
        # Partners from a window of the last images are in the cache.
        each = float(held < 1) if augment.partner_window else each * (1 - held)
    seconds = each * DECODE_SECONDS + (1 + augment.mixup) * PAINT_SECONDS * train.image_size**2 / _PAINTED
    workers = min(max(1, data.workers) * placement.per_machine, placement.cores)
    return placement.per_machine * train.per_batch_size * seconds / workers


def training_step(facts: ModelFacts, config: Config, images: int, placement: Placement) -> StepTime:
    """Return the time of a step of a configured training.

    Args:
        facts: Facts of the model.
        config: The configuration.
        images: Number of training images.
        placement: The processes, and what they run on.
    """
    train = config.train
    size = math.sqrt(fmean(side**2 for side in training_sizes(facts, train)))
    work = Workload.of(facts, size, train.per_batch_size, recomputed=float(train.recompute))
    step = step_time(work, placement)
    if placement.device is None:
        # On a processor, all of this shares the cores with the network.
        rest = train.per_batch_size * IMAGE_SECONDS + STEP_SECONDS
        return replace(step, compute=step.compute + rest / _cores_of_process(placement))
    return replace(step, loader=loader_seconds(config, images, placement))
