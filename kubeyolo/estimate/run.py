"""Estimate of a run before it starts: seconds of each step, memory of a training process, bytes in the store.

Every value is a simple formula of the model's facts and the configuration, with constants from short runs on one
machine. A table in ``docs/training.md`` compares estimates with measured values; ``benchmarks/estimate.py`` repeats
this comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kubeyolo.catalogue import STEPS
from kubeyolo.config.schema import Config
from kubeyolo.config.section import DeviceTarget
from kubeyolo.config.validation_interval import validation_interval
from kubeyolo.estimate.devices import DEVICES, DeviceFacts
from kubeyolo.estimate.memory import BACKBONE_SHARE, backbone_peak, detector_peak, loader_memory
from kubeyolo.estimate.speed import (
    IMAGE_SECONDS,
    STEP_SECONDS,
    Placement,
    StepTime,
    Workload,
    forward_seconds,
    step_time,
    training_step,
)
from kubeyolo.formats import about_duration, about_size, counted
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import training_sizes

UNKNOWN_IMAGES = 1000
"""Assumed number of images of a split of unknown size."""

# Set in November 2026 with steps on 2 cores of a shared x86-64 machine (Xeon with AVX-512, 2.6 GHz), MindSpore 2.7.0
# and onnxruntime 1.31, generated images: yolov5n-r7, yolov5s-r7, yolov4-tiny and yolov3 at 128 to 512 pixels. The load
# was 6 to 12, so the constants are times of an idle machine: between half of the measured processor seconds and all of
# them; the estimate for examples/demo.yaml on two cores is about the 7.5 minutes of README.md.
DETECT_SECONDS = 0.015
"""Seconds of an evaluated image outside the network: decoding, NMS, its share of the COCO metrics."""
START_SECONDS = {"pretrain_backbone": 8.0, "train": 16.0, "evaluate": 4.0, "export_model": 9.0, "quantize": 2.0}
"""Seconds of a step before its first image (Python, MindSpore, compiling) for the parameters of yolov5n-r7."""
START_PARAMETERS, START_POWER = 1.87e6, 0.1
"""Parameters of yolov5n-r7, and the exponent by which these seconds grow with the parameters. It is small: the time to
compile depends on the number of layers, and larger models mainly have wider layers."""
CALIBRATION_FORWARDS = 2
"""Cost of a calibration image in onnxruntime, in forward passes of MindSpore."""

# Not measured: no accelerator was available.
COMPILE_SECONDS = {"Ascend": 600.0}
"""Seconds to compile a training graph: mindyolo published 275 to 1050 on Ascend. Forward graph: a quarter, assumed."""
STORE_SPEED = 200e6
"""Bytes of a checkpoint that are hashed and stored per second: assumed."""

OBJECTS, HELD_OUT_CROPS = 7, 1024
"""Objects per image (COCO train2017: 860,001 in 118,287), and the most crops in a validation of the pretraining."""
FACTOR = {"CPU": 2.0, "Ascend": 4.0}
"""On machines with no other load, the time lies between the estimate divided by this factor and the estimate times
it."""


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """Time, memory and disk that a run takes.

    Attributes:
        seconds: Seconds by name of the step; 0 if the step is off.
        step: Time of a training step.
        memory: Peak bytes of one training process.
        loader_memory: Additional bytes of each training process: its data workers, their batches and cached images.
        disk: Bytes in the store: data set, checkpoints, bundles.
        factor: The time lies between ``total / factor`` and ``total * factor``.
        hardware: The hardware of the training, such as "2 cores".
        caveats: Unknown or unmeasured facts, one sentence each.
    """

    seconds: Mapping[str, float]
    step: StepTime
    memory: int
    loader_memory: int
    disk: int
    factor: float
    hardware: str
    caveats: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds of all steps, one after the other."""
        return sum(self.seconds.values())

    @property
    def span(self) -> str:
        """The range of the total time, in words."""
        return f"{about_duration(self.total / self.factor)} to {about_duration(self.total * self.factor)}"

    def words(self) -> tuple[str, ...]:
        """Return the estimate as lines of text, with as many digits as are meaningful."""
        steps = ", ".join(f"{name} {about_duration(seconds)}" for name, seconds in self.seconds.items() if seconds)
        memory, loader = about_size(self.memory), about_size(self.loader_memory)
        return (
            f"about {self.span} on {self.hardware} with no other load: {steps}",
            f"about {memory} of memory per training process, and {loader} for its data workers",
            f"about {about_size(self.disk)} in the store",
            *self.caveats,
        )


def estimate_run(
    facts: ModelFacts,
    config: Config,
    images: Mapping[str, int] | None = None,
    *,
    data_bytes: int | None = None,
    classes: int = 80,
    cores: int | None = None,
    nodes: int = 1,
    device: DeviceFacts | None = None,
) -> RunEstimate:
    """Estimate a run of all steps before anything is started.

    Args:
        facts: Facts of the model; its multiply-adds are scaled with the area of the images.
        config: The configuration.
        images: Number of images by split; a missing split counts as :data:`UNKNOWN_IMAGES` images.
        data_bytes: Size of the stored data set; None if unknown.
        classes: Number of classes.
        cores: Cores of one machine, shared by its training processes; if None, one core for each process is assumed.
        nodes: Machines that the training processes are spread over.
        device: Kind of the accelerators; if None, the first of :data:`~kubeyolo.estimate.devices.DEVICES` is assumed.
    """
    counts = images or {}
    names = dict.fromkeys(("train", "val", config.evaluate.split, config.train.val_split))
    processes, target = config.train.processes, config.train.device_target
    accelerator = device or next(iter(DEVICES.values()))
    own_cores = max(1, processes // nodes) if target == "CPU" else accelerator.host_cores
    run = _Run(
        facts=facts,
        config=config,
        images={name: counts.get(name, UNKNOWN_IMAGES) for name in names},
        placement=Placement(
            processes=processes,
            machines=nodes,
            device=None if target == "CPU" else accelerator,
            cores=cores or own_cores,
        ),
        accelerator=accelerator,
    )
    assumed_cores = "one core for each training process" if target == "CPU" else accelerator.host_cores
    caveats = {
        f"number of images unknown ({', '.join(name for name in names if name not in counts)}): "
        f"times assume {UNKNOWN_IMAGES} images in each": not counts.keys() >= names.keys(),
        "size of the data set unknown: the store needs its size in addition": data_bytes is None,
        f"number of cores unknown: {assumed_cores} is assumed": cores is None,
        f"not measured on {target}: speeds are from publications and data sheets, and most of the memory is on the "
        "card": target != "CPU",
    }
    backbone = backbone_peak(facts, config) if config.pretrain.enabled else 0
    all_cores = run.placement.cores * nodes
    return RunEstimate(
        seconds=run.seconds(),
        step=run.step,
        memory=max(detector_peak(facts, config, classes), backbone),
        loader_memory=loader_memory(facts, config, run.images["train"]),
        disk=(data_bytes or 0) + run.store_bytes(),
        factor=FACTOR[target],
        hardware=counted(all_cores, "core") if target == "CPU" else counted(processes, f"{target} card"),
        caveats=tuple(line for line, applies in caveats.items() if applies),
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run with assumptions for unknown facts: training on all machines, every other step on one machine.

    Attributes:
        facts: Facts of the model.
        config: The configuration.
        images: Number of images by split.
        placement: The training processes.
        accelerator: Kind of the accelerators of steps that run on one.
    """

    facts: ModelFacts
    config: Config
    images: Mapping[str, int]
    placement: Placement
    accelerator: DeviceFacts

    @property
    def step(self) -> StepTime:
        return training_step(self.facts, self.config, self.images["train"], self.placement)

    def seconds(self) -> dict[str, float]:
        config, images = self.config, self.images[self.config.evaluate.split]
        size = config.train.image_size
        # onnxruntime runs on the processor, whatever the device is.
        exported = config.export.side or size
        onnx_image = self._detect_seconds(exported, "CPU")
        trained_image = self._detect_seconds(exported, config.export.device_target)
        trained_images = config.export.parity_images + (images if config.export.parity_ap else 0)
        calibrated = min(config.quantize.calibration_images, self.images["train"])
        calibration = calibrated * CALIBRATION_FORWARDS * self._forward(exported, "CPU")
        evaluated = images * self._detect_seconds(config.evaluate.side or size, config.evaluate.device_target)
        return {
            "pretrain_backbone": self._pretrain_seconds() if config.pretrain.enabled else 0.0,
            "train": self._train_seconds(),
            "evaluate": self._start("evaluate") + evaluated,
            "export_model": self._start("export_model")
            + (images + config.export.parity_images) * onnx_image
            + trained_images * trained_image,
            "quantize": self._start("quantize") + calibration + images * onnx_image,
        }

    def _on(self, device: DeviceTarget) -> Placement:
        """Return a process that has an accelerator, or the cores of a machine, for itself."""
        return Placement(processes=1, cores=self.placement.cores, device=None if device == "CPU" else self.accelerator)

    def _forward(self, size: int, device: DeviceTarget) -> float:
        """Return the seconds of the forward pass of an image."""
        return forward_seconds(Workload.of(self.facts, size, 1), self._on(device))

    def _start(self, step: str) -> float:
        start = START_SECONDS[step] * math.pow(max(1.0, self.facts.parameters / START_PARAMETERS), START_POWER)
        device = self._device_of(step)
        if device == "CPU":
            return start
        return start + COMPILE_SECONDS[device] * (1 if step in ("pretrain_backbone", "train") else 0.25)

    def _device_of(self, step: str) -> DeviceTarget:
        key = STEPS[step].device_key
        device: DeviceTarget = self.config.value(key) if key else "CPU"
        return device

    def _detect_seconds(self, size: int, device: DeviceTarget) -> float:
        return self._forward(size, device) + DETECT_SECONDS

    def _pretrain_seconds(self) -> float:
        """Return the seconds of pretraining on crops.

        Processes on processors share those of one machine; the number of machines of a pretraining is not known here.
        """
        pretrain = self.config.pretrain
        crops = OBJECTS * (1 + pretrain.background)
        per_step = pretrain.per_batch_size * pretrain.processes
        per_epoch = math.ceil(self.images["train"] * crops / per_step)
        steps = min(pretrain.max_epoch * per_epoch, pretrain.max_steps)
        validations = math.ceil(steps / per_epoch)
        measured = validations * min(self.images["val"] * crops, HELD_OUT_CROPS)
        is_on_cpu, processes = pretrain.device_target == "CPU", pretrain.processes
        placement = Placement(
            processes=processes,
            machines=1 if is_on_cpu else math.ceil(processes / self.accelerator.per_machine),
            device=None if is_on_cpu else self.accelerator,
            cores=self.placement.cores,
        )
        work = Workload.of(self.facts, pretrain.image_size, pretrain.per_batch_size).share(BACKBONE_SHARE)
        rest = per_step * IMAGE_SECONDS + (STEP_SECONDS if is_on_cpu else 0.0)
        learned = steps * (step_time(work, placement).total + rest / self.placement.cores)
        forward = BACKBONE_SHARE * self._forward(pretrain.image_size, pretrain.device_target)
        return self._start("pretrain_backbone") + learned + measured * forward

    def _steps_per_epoch(self) -> int:
        return math.ceil(self.images["train"] / (self.config.train.per_batch_size * self.placement.processes))

    def _train_seconds(self) -> float:
        """Return the seconds of start, steps, checkpoints and validations."""
        train, cores = self.config.train, self.placement.cores * self.placement.machines
        trained = train.max_epoch * self._steps_per_epoch() * self.step.total
        size = self.config.evaluate.side or train.image_size
        validated = self._validations() * self.images[train.val_split] * self._validate_seconds(size)
        stored = self._checkpoints() * self._checkpoint_bytes() / STORE_SPEED
        # Each process compiles a graph for each size of images, and several processes also have a scheduler: with few
        # cores they wait for each other.
        starting = self.placement.processes + (self.placement.processes > 1)
        start = self._start("train") * max(1.0, starting / cores) * len(training_sizes(self.facts, train))
        return start + trained + stored + validated

    def _validate_seconds(self, size: int) -> float:
        """Return the seconds of a validated image: the processes share the images, and the cores of their machines."""
        device = self.config.train.device_target
        shares = self.placement.processes if device != "CPU" else min(self.placement.machines, self.placement.processes)
        return self._detect_seconds(size, device) / shares

    def _validations(self) -> int:
        """Return the number of validations while training; the last epoch is always validated."""
        train = self.config.train
        interval = validation_interval(self.config, self._steps_per_epoch(), self.images[train.val_split])
        return math.ceil(train.max_epoch / interval) if interval else 0

    def _checkpoints(self) -> int:
        train = self.config.train
        steps = train.max_epoch * self._steps_per_epoch()
        return math.ceil(steps / train.ckpt_interval) if train.ckpt_interval else train.max_epoch

    def _checkpoint_bytes(self) -> int:
        """Return the bytes of weights, their average, and one moment (sgd) or two (adamw) in float32."""
        return 4 * self.facts.parameters * (4 if self.config.train.optimizer == "adamw" else 3)

    def store_bytes(self) -> int:
        """Return the bytes of the checkpoints that are kept and of the bundle of each step."""
        config, weights = self.config, 4 * self.facts.parameters
        # A checkpoint with two moments and no average, and the backbone.
        pretrained = 4 * BACKBONE_SHARE * weights if config.pretrain.enabled else 0
        trained = min(config.train.keep_checkpoints, self._checkpoints()) * self._checkpoint_bytes() + weights
        # The weights of the best validations, and of the last epoch next to the best.
        validations = self._validations()
        trained += (min(config.train.top_k, validations) + (validations > 1 and config.train.keep == "best")) * weights
        exported = (1 + len(config.export.formats)) * weights
        # One additional byte per parameter for int8; publishing stores the bundle again.
        return round(pretrained + trained + exported + 2 * (exported + weights / 4))
