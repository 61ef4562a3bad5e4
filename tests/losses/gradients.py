"""A loss with its gradients as one cell, so that tests can compile it."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn
from numpy.typing import NDArray

from kubeyolo.losses.yolov5 import YoloV5Loss


class _Targets(nn.Cell):
    def __init__(self, loss: YoloV5Loss) -> None:
        super().__init__()
        self.loss = loss

    def construct(self, *arguments: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        return self.loss.loss_and_target(arguments[:-1], arguments[-1])


class LossAndGradients(nn.Cell):
    """Maps (raws..., labels) to ((total, parts, objectness target), gradients)."""

    def __init__(self, loss: YoloV5Loss, levels: int) -> None:
        super().__init__()
        self.forward = _Targets(loss)
        self.gradient = ms.value_and_grad(self.forward, tuple(range(levels)), has_aux=True)

    def construct(self, *arguments: ms.Tensor) -> tuple[tuple[ms.Tensor, ...], tuple[ms.Tensor, ...]]:
        return self.gradient(*arguments)


def padded(labels: NDArray[np.float32], capacity: int) -> NDArray[np.float32]:
    """Fill labels (n, 6) up to (capacity, 6) with unused rows."""
    rows = np.full((capacity, 6), -1, np.float32)
    rows[: len(labels)] = labels
    return rows


def run(
    cell: LossAndGradients, raws: list[NDArray[np.float32]], labels: NDArray[np.float32]
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    outputs, gradients = cell(*(ms.Tensor(raw) for raw in raws), ms.Tensor(labels))
    return [output.asnumpy() for output in outputs], [gradient.asnumpy() for gradient in gradients]
