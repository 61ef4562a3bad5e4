"""The parameters of a registered network: names, shapes, and which of them depend on the number of classes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_model
from kubeyolo.runtime import configure_mindspore
from kubeyolo.weights.darknet import DarknetConvolution
from kubeyolo.weights.fit import Shape
from kubeyolo.weights.names import layers_of, to_layout

_BACKBONE = "backbone."


@dataclass(frozen=True)
class NetworkParameters:
    """Names and shapes of the parameters of a detector.

    Attributes:
        facts: Facts of the model.
        num_classes: Number of classes that the shapes belong to.
        shapes: Shapes by name, in the order of the network.
    """

    facts: ModelFacts
    num_classes: int
    shapes: Mapping[str, Shape]

    @property
    def output_biases(self) -> tuple[str, ...]:
        """Names of the biases of the output convolutions; no other convolution has a bias."""
        return tuple(name for name, shape in self.shapes.items() if name.endswith(".bias") and shape == self._outputs)

    @property
    def size(self) -> int:
        """Number of values of all parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def _outputs(self) -> Shape:
        return (self.facts.anchors_per_level * (5 + self.num_classes),)

    def with_classes(self, num_classes: int) -> NetworkParameters:
        """Return the parameters for a different number of classes."""
        cells = {bias.removesuffix(".bias") for bias in self.output_biases}
        outputs = self.facts.anchors_per_level * (5 + num_classes)
        shapes = {
            name: (outputs, *shape[1:]) if name.rpartition(".")[0] in cells else shape
            for name, shape in self.shapes.items()
        }
        return NetworkParameters(self.facts, num_classes, shapes)

    def backbone(self) -> NetworkParameters:
        """Return the parameters of the backbone alone."""
        shapes = {name: shape for name, shape in self.shapes.items() if name.startswith(_BACKBONE)}
        return NetworkParameters(self.facts, self.num_classes, shapes)

    def classes_of_outputs(self, outputs: int) -> int | None:
        """Return the number of classes of a convolution with this many outputs, or None if none fits."""
        per_anchor, rest = divmod(outputs, self.facts.anchors_per_level)
        return per_anchor - 5 if rest == 0 and per_anchor > 5 else None

    def darknet_convolutions(self) -> list[DarknetConvolution]:
        """Return the convolutions in the order of the cfg file of the model.

        Raises:
            InputError: The model has no cfg file.
        """
        biases, found = set(self.output_biases), []
        for _, place in sorted(layers_of(self.facts, "darknet").items()):
            output = f"{place}.bias" in biases
            weight = f"{place}.weight" if output else f"{place}.conv.weight"
            if weight in self.shapes:
                name = to_layout(weight, self.facts, "darknet").removesuffix(".conv.weight")
                a, b, height, width = self.shapes[weight]
                anchors = self.facts.anchors_per_level if output else 0
                found.append(DarknetConvolution(name, (a, b, height, width), not output, anchors))
        return found


def network_parameters(model: str, num_classes: int = 80) -> NetworkParameters:
    """Return names and shapes of a detector's parameters, by building it with MindSpore.

    Raises:
        InputError: No detector has this name, or MindSpore is not installed.
    """
    facts = model_facts(model)
    if "mindspore" not in sys.modules:
        # Shapes are the same on every device and in every mode, so an existing setup is kept.
        configure_mindspore()
    network = build_model(model, num_classes)
    shapes = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}
    return NetworkParameters(facts, num_classes, shapes)
