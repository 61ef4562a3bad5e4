"""Freezing: parameters that a training leaves as they are, chosen by patterns of their names.

A frozen parameter has no gradient, so neither the optimizer nor weight decay changes it, and its average stays. A batch
normalization whose weights are both frozen uses its running statistics, as in evaluation, and leaves them unchanged.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from kubeyolo.config.training_schema import BACKBONE
from kubeyolo.errors import InputError


@dataclass(frozen=True)
class Frozen:
    """What a training leaves unchanged.

    Attributes:
        parameters: Number of frozen parameters.
        trainable: Number of parameters of the network that a training changes if nothing is frozen.
        norms: Number of batch normalizations that use their running statistics.
    """

    parameters: int
    trainable: int
    norms: int

    def words(self) -> str:
        """Return what is frozen, as a line for the log."""
        return (
            f"frozen: {self.parameters} of {self.trainable} parameters, and the running statistics of {self.norms} "
            "batch normalizations"
        )


def frozen_names(names: Sequence[str], patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the parameters that patterns freeze.

    Args:
        names: Names of the trainable parameters of a network.
        patterns: Patterns with ``*``, ``?`` and ``[...]``; the word ``backbone`` stands for ``backbone.*``.

    Raises:
        InputError: A pattern matches no name, or all parameters are frozen.
    """
    frozen: set[str] = set()
    for pattern in patterns:
        full = f"{BACKBONE}.*" if pattern == BACKBONE else pattern
        matched = [name for name in names if fnmatchcase(name, full)]
        if not matched:
            raise InputError(f"train.freeze: {pattern!r} matches no parameter of the network{_near(pattern, names)}")
        frozen.update(matched)
    if frozen and len(frozen) == len(names):
        raise InputError(
            f"train.freeze = {list(patterns)}: all {len(names)} parameters would be frozen, and nothing trained; leave "
            "out a part, such as head.*"
        )
    return frozenset(frozen)


def freeze(network: Any, patterns: Sequence[str]) -> Frozen:
    """Freeze the parameters of a network whose names match, and return how many there are.

    Args:
        network: A MindSpore cell, before its optimizer is made.
        patterns: See :func:`frozen_names`.

    Raises:
        InputError: As :func:`frozen_names`.
    """
    from mindspore import nn

    parameters = {parameter.name: parameter for parameter in network.trainable_params()}
    frozen = frozen_names(list(parameters), patterns)
    for name in frozen:
        parameters[name].requires_grad = False
    norms = 0
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and {cell.gamma.name, cell.beta.name} <= frozen:
            # An attribute of the cell: set_train changes the mode of all cells, and leaves this attribute unchanged.
            cell.use_batch_statistics = False
            norms += 1
    return Frozen(len(frozen), len(parameters), norms)


def _near(pattern: str, names: Sequence[str]) -> str:
    """Return a suggestion: patterns that match, similar to a pattern that matches nothing."""
    parts = [name.split(".") for name in names]
    cells = sorted({".".join(each[:count]) for each in parts for count in range(1, len(each))})
    near = difflib.get_close_matches(pattern.rstrip("*").rstrip("."), cells, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(repr(f'{cell}.*') for cell in near)}?"
    first = sorted({each[0] for each in parts})
    return f"; names start with {', '.join(f'{each}.' for each in first)}, such as {names[0]!r}"
