"""Recomputation changes neither loss nor gradients nor running statistics."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import C3, Conv, StagedBackbone
from kubeyolo.training.recompute import recompute


class Network(nn.Cell):
    """A backbone of one stage, and a neck."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = StagedBackbone(Conv(3, 8, 3))
        self.backbone.add_stage(Conv(8, 8, 3, 2), C3(8, 8, 1), 8)
        self.backbone.add_stage(Conv(8, 8, 3, 2), C3(8, 8, 1), 8)
        self.backbone.add_stage(Conv(8, 8, 3, 2), C3(8, 8, 1), 8)
        self.neck = nn.SequentialCell([Conv(8, 8)])

    def construct(self, x: Tensor) -> Tensor:
        y = self.neck(self.backbone(x)[0])
        return (y * y).mean()


class Gradients(nn.Cell):
    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.gradients = ops.value_and_grad(network, None, ms.ParameterTuple(network.trainable_params()))

    def construct(self, x: Tensor) -> tuple[Tensor, Any]:
        return self.gradients(x)


def trained(is_recomputed: bool) -> tuple[Network, np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    rng, network = np.random.default_rng(0), Network()
    network.backbone.update_parameters_name("backbone.")
    for parameter in network.trainable_params():
        if parameter.name.endswith("conv.weight"):
            parameter.set_data(Tensor(rng.normal(0, 0.2, parameter.shape).astype(np.float32)))
    if is_recomputed:
        # Stem, three convolutions and three stages of the backbone, one convolution of the neck.
        assert recompute(network) == 8  # type: ignore[arg-type]
    step = Gradients(network)
    step.set_train(True)
    for _ in range(2):
        loss, gradients = step(Tensor(rng.normal(0, 1, (2, 3, 16, 16)).astype(np.float32)))
    return network, loss.asnumpy(), [gradient.asnumpy() for gradient in gradients]


@pytest.mark.usefixtures("mindspore_ready")
def test_loss_gradients_and_statistics_are_the_same_to_the_last_bit() -> None:
    (kept, loss, gradients), (again, loss_again, gradients_again) = trained(False), trained(True)
    np.testing.assert_array_equal(loss, loss_again)
    assert len(gradients) > 20
    for one, other in zip(gradients, gradients_again, strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_array_equal(one, other)
    pairs = list(zip(kept.get_parameters(), again.get_parameters(), strict=True))
    moving = [(a.asnumpy(), b.asnumpy()) for a, b in pairs if "moving" in a.name]
    assert len(moving) > 20
    for before, after in moving:
        np.testing.assert_array_equal(before, after)


@pytest.mark.usefixtures("mindspore_ready")
def test_blocks_are_computed_again_and_their_normalizations_are_not() -> None:
    network = Network()
    recompute(network)  # type: ignore[arg-type]
    for block in (network.backbone.stage[0], network.backbone.down[1], network.neck[0]):
        assert block.get_flags()["output_no_recompute"]
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    assert len(norms) > 10
    assert {norm.bn_train.attrs["recompute"] for norm in norms} == {False}
