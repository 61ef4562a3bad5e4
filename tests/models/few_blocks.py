"""A detector of five blocks with the names and the head of yolov5n-r7, which is compiled in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from kubeyolo.models.named_facts import model_facts

MODEL = "yolov5n-r7"
CLASSES = 3
RANGES = 11
"""Number of its ranges: two of each block, and one of the sum."""


def few_blocks() -> Any:
    """Return the detector with random weights, the same in every call."""
    from mindspore import Tensor, nn

    from kubeyolo.models.blocks import Bottleneck, Conv
    from kubeyolo.models.detector import Detector

    class Backbone(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.stem = Conv(3, 8, 8, 8, padding=0)
            self.residual = Bottleneck(8, True)
            self.down4 = Conv(8, 8, 3, 2)
            self.down5 = Conv(8, 8, 3, 2, act="leaky")

        def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = self.residual(self.stem(x))
            y = self.down4(x)
            return x, y, self.down5(y)

    class Neck(nn.Cell):
        def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return p3, p4, p5

    network, rng = Detector(model_facts(MODEL), CLASSES, Backbone(), Neck(), (8, 8, 8)), np.random.default_rng(0)
    for parameter in network.trainable_params():
        if len(parameter.shape) == 4:
            values = rng.standard_normal(parameter.shape) / np.sqrt(np.prod(parameter.shape[1:]))
            parameter.set_data(Tensor(values.astype(np.float32)))
    return network
