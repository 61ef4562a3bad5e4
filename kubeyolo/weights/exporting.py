"""Exports the weights of a bundle to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kubeyolo.arrays import check_finite
from kubeyolo.bundle import WEIGHTS, BundleManifest, open_bundle
from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.storage.integrity import appearing
from kubeyolo.storage.place import Place
from kubeyolo.weights.darknet import write_darknet
from kubeyolo.weights.fit import NamedArray, check_fit, move_eps
from kubeyolo.weights.layout_of_names import OWN
from kubeyolo.weights.names import LAYOUTS, layouts_of, to_layout
from kubeyolo.weights.network_parameters import network_parameters
from kubeyolo.weights.safetensors_file import read_safetensors, write_safetensors
from kubeyolo.weights.stored_array import StoredArray, WeightArray, as_float32


@dataclass(frozen=True, kw_only=True)
class ExportedWeights:
    """The file, its format, the layout of its names, the number of arrays, and notes on values that are not stored."""

    file: Path
    format: str
    layout: str
    arrays: int
    notes: tuple[str, ...] = ()


def export_weights(bundle: str, file: Path, layout: str = OWN) -> ExportedWeights:
    """Write the weights of a bundle as safetensors or, if the model has a cfg file, as darknet ``.weights``.

    Args:
        bundle: URI of the bundle.
        file: The file; its suffix selects the format.
        layout: Layout of the names in a safetensors file: :data:`OWN`, or a layout of the model.

    Raises:
        InputError: The suffix is unknown, the model cannot be exported in that format, or the bundle cannot be used,
            for example because a weight is not finite.
    """
    write = _WRITERS.get(file.suffix.lower())
    if write is None:
        raise InputError(f"{file}: unknown format; give a name that ends in {' or '.join(_WRITERS)}")
    if not file.parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent}; create it first")
    opened = open_bundle(Place.of(bundle))
    arrays, _ = read_safetensors(opened.path(WEIGHTS))
    check_finite(opened.uri, ((name, as_float32(array)) for name, array in arrays.items()))
    return write(file, opened.manifest, arrays, layout)


def _safetensors(
    file: Path, manifest: BundleManifest, arrays: Mapping[str, StoredArray], layout: str
) -> ExportedWeights:
    facts = model_facts(manifest.model)
    if layout != OWN and layout not in layouts_of(facts):
        known = ", ".join((OWN, *(known for known in LAYOUTS if known in layouts_of(facts))))
        raise InputError(f"model {facts.name!r} has no names in layout {layout!r}; known: {known}")
    named = {name if layout == OWN else to_layout(name, facts, layout): array for name, array in arrays.items()}
    with appearing(file) as path:
        write_safetensors(path, named.items(), manifest.weights_metadata)
    return ExportedWeights(file=file, format="safetensors", layout=layout, arrays=len(named))


def _darknet(file: Path, manifest: BundleManifest, arrays: Mapping[str, StoredArray], layout: str) -> ExportedWeights:
    facts = model_facts(manifest.model)
    if "darknet" not in layouts_of(facts):
        raise InputError(
            f"{file}: model {facts.name!r} cannot be exported in darknet format; give a name that ends in .safetensors"
        )
    if layout not in (OWN, "darknet"):
        raise InputError(f"{file}: a darknet file has no names in layout {layout!r}; leave out the layout")
    network = network_parameters(manifest.model, max(len(manifest.classes), 1))
    network = network.backbone() if manifest.kind == "backbone" else network
    named = {name: NamedArray(name, array) for name, array in arrays.items()}
    check_fit(named, network.shapes, f"{file}: the bundle does not contain a complete {facts.name!r}")
    theirs: dict[str, WeightArray] = {to_layout(name, facts, "darknet"): array for name, array in arrays.items()}
    if manifest.bn_eps is not None:
        # The format cannot store it: darknet always adds the same constant.
        variances = {name: array for name, array in theirs.items() if name.endswith(".bn.running_var")}
        theirs |= move_eps(variances, manifest.bn_eps, facts.bn_eps)
    with appearing(file) as path:
        write_darknet(path, network.darknet_convolutions(), theirs.__getitem__)
    notes: tuple[str, ...] = ()
    if manifest.kind == "detector" and manifest.anchors != facts.anchors:
        notes = (f"the format cannot store anchors: the cfg file needs {anchors_text(manifest.anchors)}",)
    return ExportedWeights(file=file, format="darknet", layout="darknet", arrays=len(arrays), notes=notes)


_Writer = Callable[[Path, BundleManifest, Mapping[str, StoredArray], str], ExportedWeights]
_WRITERS: Mapping[str, _Writer] = {".safetensors": _safetensors, ".weights": _darknet}
