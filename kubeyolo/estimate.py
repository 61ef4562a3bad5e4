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
from kubeyolo.formats import about_duration, about_size, counted
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import training_sizes

UNKNOWN_IMAGES = 1000
"""Assumed number of images of a split of unknown size."""

# Set in November 2026 with steps on 2 cores of a shared x86-64 machine (Xeon with AVX-512, 2.6 GHz), MindSpore 2.7.0
# and onnxruntime 1.31, generated images: yolov5n-r7, yolov5s-r7, yolov4-tiny and yolov3 at 128 to 512 pixels. The load
# was 6 to 12, so the constants are times of an idle machine: between half of the measured processor seconds and all of
# them; the estimate for examples/demo.yaml on two cores is about the 7.5 minutes of README.md. Memory was measured.
CORE_SPEED, CORE_POWER = 20e9, 0.9
"""Multiply-adds per second of one core, and the exponent by which speed grows with cores (above 2 cores: assumed)."""
IMAGE_SECONDS = 0.005
"""Processor seconds of a training image outside the network: loader, loss, average of the weights."""
DETECT_SECONDS = 0.015
"""Seconds of an evaluated image outside the network: decoding, NMS, its share of the COCO metrics."""
START_SECONDS = {"pretrain_backbone": 8.0, "train": 16.0, "evaluate": 4.0, "export_model": 9.0, "quantize": 2.0}
"""Seconds of a step before its first image (Python, MindSpore, compiling) for the parameters of yolov5n-r7."""
START_PARAMETERS, START_POWER = 1.87e6, 0.1
"""Parameters of yolov5n-r7, and the exponent by which these seconds grow with the parameters. It is small: the time to
compile depends on the number of layers, and larger models mainly have wider layers."""
CALIBRATION_FORWARDS = 2
"""Cost of a calibration image in onnxruntime, in forward passes of MindSpore."""
PROCESS_BYTES, PARAMETER_BYTES, ACTIVATION_BYTES, WORKER_BYTES = 1.1e9, 45, 9.3, 80e6
"""Bytes of memory: of a training process with its compiled graph; per parameter (weight, gradient, average, moments,
layouts of oneDNN, copies for a checkpoint); per pixel, times the root of its multiply-adds; of a data worker."""
SIZE_BYTES = 80e6
"""Bytes of memory of the compiled graph of each further size in a multi-scale training, measured with yolov5n-r7."""

# Not measured: no accelerator was available.
CARD_SPEED, CARD_POWER = {"Ascend": 2.6e12}, 0.96
"""Multiply-adds per second of one card, and the exponent by which speed grows with cards. Ascend: between what
MindSpore's zoo published for the 910, 1.4e12 (yolov5s, 640 pixels: 450 images/s on 8 cards) and 4.8e12 (yolov4, 416
pixels: 53 images/s on 1 card, 390 on 8); 2 % of the data sheet (256 TFLOPS, half precision)."""
COMPILE_SECONDS = {"Ascend": 600.0}
"""Seconds to compile a training graph: mindyolo published 275 to 1050 on Ascend. Forward graph: a quarter, assumed."""
LOADER_SECONDS = 0.010
"""Processor seconds to make a training image from four uncached images (640 x 480), measured on the machine above."""
STORE_SPEED = 200e6
"""Bytes of a checkpoint that are hashed and stored per second: assumed."""

OBJECTS, HELD_OUT_CROPS, BACKBONE_SHARE = 7, 1024, 0.6
"""Objects per image (COCO train2017: 860,001 in 118,287), most crops in a validation of the pretraining, and the
share of parameters and multiply-adds in the backbone (about, for all models)."""
FACTOR = {"CPU": 2.0, "Ascend": 4.0}
"""On machines with no other load, the time lies between the estimate divided by this factor and the estimate times
it."""


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """Time, memory and disk that a run takes.

    Attributes:
        seconds: Seconds by name of the step; 0 if the step is off.
        memory: Peak bytes of one training process.
        loader_memory: Additional bytes of each training process: its data workers, their batches and cached images.
        disk: Bytes in the store: data set, checkpoints, bundles.
        factor: The time lies between ``total / factor`` and ``total * factor``.
        hardware: The hardware of the training, such as "2 cores".
        caveats: Unknown or unmeasured facts, one sentence each.
    """

    seconds: Mapping[str, float]
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
    """
    known = images or {}
    names = dict.fromkeys(("train", "val", config.evaluate.split, config.train.val_split))
    processes, device = config.train.processes, config.train.device_target
    run = _Run(
        facts=facts,
        config=config,
        images={name: known.get(name, UNKNOWN_IMAGES) for name in names},
        processes=processes,
        device=device,
        cores=cores or max(1, processes // nodes),
        nodes=nodes,
    )
    caveats = {
        f"number of images unknown ({', '.join(name for name in names if name not in known)}): "
        f"times assume {UNKNOWN_IMAGES} images in each": not known.keys() >= names.keys(),
        "size of the data set unknown: the store needs its size in addition": data_bytes is None,
        "number of cores unknown: one core for each training process is assumed": cores is None,
        f"not measured on {device}: speeds are from publications and data sheets, and most of the memory is on the "
        "card": device != "CPU",
    }
    return RunEstimate(
        seconds=run.seconds(),
        memory=run.memory(classes),
        loader_memory=run.loader_memory(),
        disk=(data_bytes or 0) + run.store_bytes(),
        factor=FACTOR[device],
        hardware=counted(run.cores * nodes, "core") if device == "CPU" else counted(processes, f"{device} card"),
        caveats=tuple(line for line, applies in caveats.items() if applies),
    )


def detector_memory(facts: ModelFacts, config: Config, images: int, classes: int) -> int:
    """Return the peak bytes that a process which trains a detector takes, with its data workers and cached images.

    The memory of an accelerator's card is not counted.

    Args:
        facts: Facts of the model.
        config: The configuration.
        images: Number of training images.
        classes: Number of classes.
    """
    run = _one_process(facts, config, config.train.device_target, images)
    return round(run.detector_peak(classes) if run.device == "CPU" else PROCESS_BYTES) + run.loader_memory()


def backbone_memory(facts: ModelFacts, config: Config) -> int:
    """Return the peak bytes that a process which pretrains a backbone takes, without its crops."""
    run = _one_process(facts, config, config.pretrain.device_target)
    return round(run.backbone_peak() if run.device == "CPU" else PROCESS_BYTES)


def _one_process(facts: ModelFacts, config: Config, device: DeviceTarget, images: int = 0) -> _Run:
    return _Run(facts=facts, config=config, images={"train": images}, processes=1, device=device, cores=1, nodes=1)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run with assumptions for unknown facts: training on all ``nodes``, every other step on one machine."""

    facts: ModelFacts
    config: Config
    images: Mapping[str, int]
    processes: int
    device: DeviceTarget
    cores: int
    nodes: int

    def seconds(self) -> dict[str, float]:
        config, images = self.config, self.images[self.config.evaluate.split]
        size = config.train.image_size
        # onnxruntime runs on the processor, whatever the device is.
        onnx_image = self._detect_seconds(size, "CPU")
        calibrated = min(config.quantize.calibration_images, self.images["train"])
        calibration = calibrated * CALIBRATION_FORWARDS * self._multiply_adds(size) / self._speed("CPU")
        evaluated = images * self._detect_seconds(config.evaluate.side or size, config.evaluate.device_target)
        return {
            "pretrain_backbone": self._pretrain_seconds() if config.pretrain.enabled else 0.0,
            "train": self._train_seconds(),
            "evaluate": self._start("evaluate") + evaluated,
            "export_model": self._start("export_model") + (images + config.export.parity_images) * onnx_image,
            "quantize": self._start("quantize") + calibration + images * onnx_image,
        }

    def _multiply_adds(self, size: int) -> float:
        return self.facts.multiply_adds * (size / self.facts.image_size) ** 2

    def _speed(self, device: DeviceTarget) -> float:
        """Return multiply-adds per second of one machine's cores, or of one card."""
        return CORE_SPEED * math.pow(self.cores, CORE_POWER) if device == "CPU" else CARD_SPEED[device]

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
        return self._multiply_adds(size) / self._speed(device) + DETECT_SECONDS

    def _pretrain_seconds(self) -> float:
        """Return the seconds of pretraining on crops; a backward pass costs two forward passes.

        Processes on processors share those of one machine; the number of machines of a pretraining is not known here.
        """
        pretrain = self.config.pretrain
        crops = OBJECTS * (1 + pretrain.background)
        per_step = pretrain.per_batch_size * pretrain.processes
        per_epoch = math.ceil(self.images["train"] * crops / per_step)
        steps = min(pretrain.max_epoch * per_epoch, pretrain.max_steps)
        measured = math.ceil(steps / per_epoch) * min(self.images["val"] * crops, HELD_OUT_CROPS)
        forward = BACKBONE_SHARE * self._multiply_adds(pretrain.image_size) / self._speed(pretrain.device_target)
        cards = 1 if pretrain.device_target == "CPU" else pretrain.processes
        learned = steps * per_step * (3 * forward / math.pow(cards, CARD_POWER) + IMAGE_SECONDS / self.cores)
        return self._start("pretrain_backbone") + learned + measured * forward

    def _steps_per_epoch(self) -> int:
        return math.ceil(self.images["train"] / (self.config.train.per_batch_size * self.processes))

    def _train_seconds(self) -> float:
        """Return the seconds of start, images, checkpoints and validations."""
        train, cores = self.config.train, self.cores * self.nodes
        trained = train.max_epoch * self._steps_per_epoch() * train.per_batch_size * self.processes
        units = self.nodes if self.device == "CPU" else self.processes
        image = 3 * self._multiply_adds(train.image_size) / (self._speed(self.device) * math.pow(units, CARD_POWER))
        if self.device == "CPU":
            image += IMAGE_SECONDS / cores
        else:
            # Cards wait for batches if the data workers are slower.
            image = max(image, LOADER_SECONDS / min(max(1, self.config.data.workers) * self.processes, cores))
        size = self.config.evaluate.side or train.image_size
        validated = self._validations() * self.images[train.val_split] * self._validate_seconds(size)
        stored = self._checkpoints() * self._checkpoint_bytes() / STORE_SPEED
        # Each process compiles, and several processes also have a scheduler: with few cores they wait for each other.
        starting = self.processes + (self.processes > 1)
        start = self._start("train") * max(1.0, starting / cores)
        return start + trained * image + stored + validated

    def _validate_seconds(self, size: int) -> float:
        """Return the seconds of a validated image: the first of the processes validates, with its own threads."""
        if self.device != "CPU":
            return self._detect_seconds(size, self.device)
        threads = max(1.0, self.cores * self.nodes / self.processes)
        return self._multiply_adds(size) / (CORE_SPEED * math.pow(threads, CORE_POWER)) + DETECT_SECONDS

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

    def memory(self, classes: int) -> int:
        """Return the peak of a process that trains the detector or its backbone, whichever is higher.

        Activations grow with width, multiply-adds with its square.
        """
        detector, backbone = self.detector_peak(classes), self.backbone_peak()
        return max(detector, backbone) if self.config.pretrain.enabled else detector

    def detector_peak(self, classes: int) -> int:
        facts, train = self.facts, self.config.train
        # About ten float32 values of the loss for each value of the head.
        head = sum(40 * facts.anchors_per_level * (5 + classes) / stride**2 for stride in facts.strides)
        sizes = training_sizes(facts, train)
        pixels, graphs = train.per_batch_size * sizes[-1] ** 2, PROCESS_BYTES + SIZE_BYTES * (len(sizes) - 1)
        return round(graphs + PARAMETER_BYTES * facts.parameters + (self._activations() + head) * pixels)

    def backbone_peak(self) -> int:
        pretrain = self.config.pretrain
        parameters = BACKBONE_SHARE * PARAMETER_BYTES * self.facts.parameters
        pixels = pretrain.per_batch_size * pretrain.image_size**2
        return round(PROCESS_BYTES + parameters + self._activations() * pixels)

    def _activations(self) -> float:
        """Return the bytes of activations per pixel."""
        return ACTIVATION_BYTES * math.sqrt(self.facts.multiply_adds) / self.facts.image_size

    def loader_memory(self) -> int:
        data, train, image = self.config.data, self.config.train, 3 * self.config.train.image_size**2
        cache = min(data.cache_limit_mb << 20, self.images["train"] * image) if data.cache else 0
        # The loader has a ring of workers + 4 batches.
        batch = 3 * train.per_batch_size * training_sizes(self.facts, train)[-1] ** 2
        batches = (data.workers + 4) * batch if data.workers else 0
        return round(data.workers * WORKER_BYTES + batches + cache)

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
