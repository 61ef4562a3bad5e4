"""Fresh weights that depend only on the seed and the parameter's name, so all processes start with equal weights."""

from __future__ import annotations

import math
import zlib

import numpy as np
from mindspore import Parameter, Tensor, nn

from kubeyolo.arrays import Float32Array
from kubeyolo.models.detector import Detector


def initialise(network: nn.Cell, seed: int, prefix: str = "") -> None:
    """Draw the convolution weights and biases of a network from U(−b, b) with b = 1/√(inputs per output).

    This is Kaiming's uniform rule with a = √5. Batch normalization keeps its ones and zeros.

    Args:
        network: Network of :mod:`kubeyolo.models.blocks`.
        seed: Seed of all weights.
        prefix: Added before each name, so that a backbone gets the weights that it has in its detector.
    """
    for _, cell in network.cells_and_names():
        if not isinstance(cell, (nn.Conv2d, nn.Dense)):
            continue
        bound = 1.0 / math.sqrt(float(np.prod(cell.weight.shape[1:])))
        _set(cell.weight, _uniform(prefix + cell.weight.name, cell.weight.shape, bound, seed))
        if cell.bias is not None:
            _set(cell.bias, _uniform(prefix + cell.bias.name, cell.bias.shape, bound, seed))


def initialise_detector(detector: Detector, seed: int) -> None:
    """Initialise all weights, and add the logits of the prior probabilities to the biases of the head.

    The prior probabilities follow RetinaNet (https://arxiv.org/abs/1708.02002). Objectness starts at 8 objects in an
    image of 640 pixels, each class at 0.6 divided by the number of classes.
    """
    initialise(detector, seed)
    facts, classes = detector.facts, detector.num_classes
    for stride, convolution in zip(facts.strides, detector.head.m, strict=True):
        bias = convolution.bias.asnumpy().reshape(facts.anchors_per_level, 5 + classes).copy()
        bias[:, 4] += math.log(8 / (640 / stride) ** 2)
        bias[:, 5:] += math.log(0.6 / (classes - facts.class_prior_offset))
        _set(convolution.bias, bias.reshape(-1))


def _uniform(name: str, shape: tuple[int, ...], bound: float, seed: int) -> Float32Array:
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    return (generator.random(shape, dtype=np.float32) * np.float32(2 * bound) - np.float32(bound)).astype(np.float32)


def _set(parameter: Parameter, values: Float32Array) -> None:
    parameter.set_data(Tensor(values))
