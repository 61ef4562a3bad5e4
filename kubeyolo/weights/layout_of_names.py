"""Finds the layout of the names in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubeyolo.errors import InputError
from kubeyolo.weights.fit import NamedArray, name_arrays
from kubeyolo.weights.model_zoo import ZOO, from_zoo, is_in_zoo
from kubeyolo.weights.names import from_layout, is_weight, layouts_of
from kubeyolo.weights.network_parameters import NetworkParameters
from kubeyolo.weights.stored_array import WeightArray

OWN = "kubeyolo"
"""The layout with the names of our networks."""

# Prefixes that other programs add to all names, and a prefix that is missing if a backbone is saved alone.
_PREFIXES = ("", "module.", "model.", "module.model.", "ema.", "network.")
_MISSING_PREFIXES = ("", "backbone.")


@dataclass(frozen=True)
class NameScheme:
    """How names in a file are translated to names of the network.

    Attributes:
        layout: :data:`OWN`, a layout of :mod:`kubeyolo.weights.names`, or
            :data:`~kubeyolo.weights.model_zoo.ZOO`.
        prefix: Prefix that is removed from the names that have it.
        added: Prefix that is added to each name.
    """

    layout: str
    prefix: str = ""
    added: str = ""

    def translate(self, name: str, network: NetworkParameters) -> str | None:
        """Return the name in the network; None for an array that is not a weight."""
        name = self.added + name.removeprefix(self.prefix)
        if not is_weight(name):
            return None
        if self.layout == OWN:
            return name
        if self.layout == ZOO:
            return from_zoo(name, network.facts)
        return from_layout(name, network.facts, self.layout)


def find_scheme(names: Iterable[str], network: NetworkParameters, what: str) -> NameScheme:
    """Return the scheme that translates the most names to names of the network.

    Args:
        names: Names in the file.
        network: The network.
        what: The file, for errors.

    Raises:
        InputError: No scheme translates any of the names to a name of the network.
    """
    known = list(names)
    best, most = None, 0
    zoo = (ZOO,) if is_in_zoo(network.facts) else ()
    for layout in (OWN, *layouts_of(network.facts), *zoo):
        for prefix in _PREFIXES:
            for added in _MISSING_PREFIXES:
                scheme = NameScheme(layout, prefix, added)
                hits = sum(scheme.translate(name, network) in network.shapes for name in known)
                if hits > most:
                    best, most = scheme, hits
    if best is None:
        shown = ", ".join(repr(name) for name in known[:3])
        raise InputError(
            f"{what}: none of its {len(known)} arrays ({shown}{', ...' if len(known) > 3 else ''}) has the name "
            f"of a parameter of model {network.facts.name!r}; give the model that the file belongs to"
        )
    return best


def translate_arrays(
    arrays: Mapping[str, WeightArray], scheme: NameScheme, network: NetworkParameters
) -> dict[str, NamedArray]:
    """Return arrays by their names in the network, without arrays that are not weights.

    Raises:
        InputError: Two arrays have the same name in the network.
    """
    pairs = [(scheme.translate(name, network), NamedArray(name, array)) for name, array in arrays.items()]
    return name_arrays([(ours, found) for ours, found in pairs if ours is not None])
