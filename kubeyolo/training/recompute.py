"""Recomputation: the backward pass computes activations again instead of keeping them from the forward pass.

Of each block of backbone and neck, only the inputs and the outputs of its batch normalizations are kept, so that a
training takes less memory and one more forward pass of the other operators. Weights and statistics are the same to the
last bit: the operators are the same, on the same values. Batch normalizations are not computed again, because each
computation also moves their running statistics.
"""

from __future__ import annotations

from collections.abc import Iterator

from mindspore import nn, ops

from kubeyolo.models.detector import Detector


def recompute(network: Detector) -> int:
    """Let the blocks of backbone and neck be computed again in the backward pass; return the number of blocks.

    Args:
        network: The network, before its training step is compiled.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            _keep(cell)
    blocks = [*_blocks(network.backbone), *_blocks(network.neck)]
    for block in blocks:
        block.recompute()
    return len(blocks)


def _blocks(cell: nn.Cell) -> Iterator[nn.Cell]:
    """Yield the cells with parameters that a cell consists of; a list of cells is not itself a block."""
    for child in cell.cells():
        if isinstance(child, nn.CellList):
            yield from _blocks(child)
        elif any(True for _ in child.get_parameters()):
            yield child


def _keep(norm: nn.Cell) -> None:
    """Exclude the operators of a batch normalization, and of the cells inside it, from recomputation."""
    for _, cell in norm.cells_and_names():
        for operator in vars(cell).get("_primitives", {}).values():
            if isinstance(operator, ops.Primitive):
                operator.recompute(False)
