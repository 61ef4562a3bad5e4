"""The memory of training processes, of their loaders, and the bytes that a run stores."""

from __future__ import annotations

import math

from kubeyolo.config.schema import Config
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import training_sizes

# Measured in November 2026 with steps of yolov5n-r7, yolov5s-r7, yolov4-tiny and yolov3 at 128 to 512 pixels.
PROCESS_BYTES, PARAMETER_BYTES, ACTIVATION_BYTES, WORKER_BYTES = 1.1e9, 45, 9.3, 80e6
"""Bytes of memory: of a training process with its compiled graph; per parameter (weight, gradient, average, moments,
layouts of oneDNN, copies for a checkpoint); per pixel, times the root of its multiply-adds; of a data worker."""

SIZE_BYTES = 80e6
"""Bytes of memory of the compiled graph of each further size in a multi-scale training, measured with yolov5n-r7."""

HALF_SHARE = 0.5
"""Share of the bytes of activations in half precision, whose values have 2 bytes; not measured."""

RECOMPUTED_SHARE = 0.7
"""Share of the bytes of activations with ``train.recompute``: measured with 12 residual blocks of 32 channels, batch 4,
192 pixels, where the process took 3.86 GB without it, 2.77 GB with it, and 0.39 GB before the first step."""

BACKBONE_SHARE = 0.6
"""Share of parameters and multiply-adds in the backbone, about, for all models."""


def detector_memory(facts: ModelFacts, config: Config, images: int, classes: int) -> int:
    """Return the peak bytes that a process which trains a detector takes, with its data workers and cached images.

    The memory of an accelerator's card is not counted.

    Args:
        facts: Facts of the model.
        config: The configuration.
        images: Number of training images.
        classes: Number of classes.
    """
    is_here = config.train.device_target == "CPU"
    return round(detector_peak(facts, config, classes) if is_here else PROCESS_BYTES) + loader_memory(
        facts, config, images
    )


def backbone_memory(facts: ModelFacts, config: Config) -> int:
    """Return the peak bytes that a process which pretrains a backbone takes, without its crops."""
    return round(backbone_peak(facts, config) if config.pretrain.device_target == "CPU" else PROCESS_BYTES)


def detector_peak(facts: ModelFacts, config: Config, classes: int) -> int:
    """Return the peak bytes of a process that trains a detector, wherever its arrays are.

    Activations grow with width, multiply-adds with its square.
    """
    train = config.train
    # About ten float32 values of the loss for each value of the head.
    head = sum(40 * facts.anchors_per_level * (5 + classes) / stride**2 for stride in facts.strides)
    sizes = training_sizes(facts, train)
    pixels = train.per_batch_size * sizes[-1] ** 2
    activations = _activations(facts) * (RECOMPUTED_SHARE if train.recompute else 1)
    activations *= 1 if train.compute_type == "float32" else HALF_SHARE
    graphs = PROCESS_BYTES + SIZE_BYTES * (len(sizes) - 1)
    return round(graphs + PARAMETER_BYTES * facts.parameters + (activations + head) * pixels)


def backbone_peak(facts: ModelFacts, config: Config) -> int:
    """Return the peak bytes of a process that pretrains a backbone, wherever its arrays are."""
    pretrain = config.pretrain
    parameters = BACKBONE_SHARE * PARAMETER_BYTES * facts.parameters
    pixels = pretrain.per_batch_size * pretrain.image_size**2
    return round(PROCESS_BYTES + parameters + _activations(facts) * pixels)


def _activations(facts: ModelFacts) -> float:
    """Return the bytes of activations per pixel."""
    return ACTIVATION_BYTES * math.sqrt(facts.multiply_adds) / facts.image_size


def loader_memory(facts: ModelFacts, config: Config, images: int) -> int:
    """Return the bytes of the data workers of a process, their batches and cached images."""
    data, image = config.data, 3 * config.train.image_size**2
    cache = min(data.cache_limit_mb << 20, images * image) if data.cache else 0
    # The loader has a ring of workers + 4 batches.
    batch = 3 * config.train.per_batch_size * training_sizes(facts, config.train)[-1] ** 2
    batches = (data.workers + 4) * batch if data.workers else 0
    return round(data.workers * WORKER_BYTES + batches + cache)
