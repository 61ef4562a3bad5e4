"""Imports a file of weights as a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kubeyolo.bundle import WEIGHTS, BundleManifest
from kubeyolo.config.class_names import clean_names
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import given_anchors
from kubeyolo.models.named_facts import model_facts
from kubeyolo.provenance import made_now
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.weights.class_file import ClassFile
from kubeyolo.weights.darknet import darknet_classes, read_darknet
from kubeyolo.weights.file_check import anchors_of, check_darknet
from kubeyolo.weights.fit import Mismatch, NamedArray, WeightsMismatch, check_fit, move_eps
from kubeyolo.weights.layout_of_names import NameScheme, find_scheme, translate_arrays
from kubeyolo.weights.model_zoo import ZOO, take_in_normalization
from kubeyolo.weights.names import layouts_of, to_layout
from kubeyolo.weights.network_parameters import NetworkParameters, network_parameters
from kubeyolo.weights.other_networks import other_weights
from kubeyolo.weights.safetensors_file import write_safetensors
from kubeyolo.weights.stored_array import WeightArray, as_float32
from kubeyolo.weights.weights_file import WeightsFile, read_weights

# PyTorch programs that read cfg files add this to the variance; darknet adds 1e-5.
_CFG_READERS_EPS = 1e-4

MOST_CLASSES = 100_000
"""Largest number of classes of a file of weights."""

LICENCES = {
    "yolov5": "AGPL-3.0 for weights that the authors of YOLOv5 publish (before May 2023: GPL-3.0); the owner of a file "
    "that was trained by others decides",
    "scaledyolov4": "GPL-3.0 for weights that the authors of Scaled-YOLOv4 publish; the owner of a file that was "
    "trained by others decides",
    "darknet": "in the public domain for weights that the authors of darknet publish; the owner of a file that was "
    "trained by others decides",
    ZOO: "Apache-2.0 for weights that the MindSpore model zoo publishes; the owner of a file that was trained by "
    "others decides",
}
"""Licences of published weights, by the program that names the arrays of a file; a file has no licence in it."""


@dataclass(frozen=True, kw_only=True)
class ImportedWeights:
    """The result of an import.

    Attributes:
        bundle: URI of the bundle.
        kind: "detector" or "backbone".
        format: Format of the file.
        layout: Layout of the names in the file.
        part: Which part of a training checkpoint was used, such as "ema".
        classes: Names of the classes; empty for a backbone.
        arrays: Number of imported arrays.
        values: Number of values in them.
        unused: Number of weights in the file that do not belong to the backbone.
        notes: Remarks on the names of classes, for the user.
    """

    bundle: str
    kind: str
    format: str
    layout: str
    part: str
    classes: tuple[str, ...]
    arrays: int
    values: int
    unused: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fitted:
    """Arrays that fit a network, with their file."""

    file: WeightsFile
    network: NetworkParameters
    arrays: Mapping[str, NamedArray]
    layout: str
    unused: int


def import_weights(
    file: Path,
    model: str,
    output: str,
    num_classes: int | None = None,
    classes: Sequence[str] | ClassFile | None = None,
    backbone: bool = False,
    anchors: Sequence[Sequence[float]] = (),
) -> ImportedWeights:
    """Make a bundle from a darknet ``.weights``, PyTorch, MindSpore or safetensors file.

    No pickled code in the file is run, and nothing is written before all arrays fit.

    Args:
        file: The file.
        model: Name of the model.
        output: URI of the bundle.
        num_classes: Number of classes; by default the number of ``classes``, or the number in the file.
        classes: Names of the classes, or a file of class names; by default the names in the file of weights, else
            ``class_0`` and so on.
        backbone: Import only the backbone, to start a training from; the file may contain nothing else.
        anchors: Widths and heights in pixels that the weights were trained with, a list for each level or one list;
            by default the anchors in the file, else the published anchors.

    Raises:
        InputError: The file is refused, damaged or from a different model, the numbers of classes differ, or the
            anchors do not fit the model.
        WeightsMismatch: Names or shapes do not match the model.
    """
    if anchors and backbone:
        raise InputError(
            f"{file}: --anchors needs a whole detector, --backbone imports only a part; leave out one option"
        )
    given = given_anchors(model_facts(model), anchors, "--anchors") if anchors else None
    weights = read_weights(file)
    requested = _GivenClasses(num_classes, classes)
    fitted, bn_eps = _fit(weights, network_parameters(model), requested, backbone)
    facts = fitted.network.facts
    names, notes = ((), ()) if backbone else _class_names(fitted, requested)
    levels = facts.anchors if backbone else given or anchors_of(weights, facts)
    origin = _origin(file, fitted.layout)
    manifest = BundleManifest(
        kind="backbone" if backbone else "detector",
        model=model,
        classes=names,
        image_size=(facts.image_size, facts.image_size),
        strides=facts.strides,
        anchors=levels,
        bn_eps=bn_eps,
        config={"imported": origin},
        provenance=(made_now("weights import", {"weights": origin["sha256"]}),),
    )
    with temporary_folder("weights") as folder:
        path = folder / WEIGHTS
        write_safetensors(path, _finite(fitted), {})
        bundle = publish_bundle(Place.of(output), manifest, {WEIGHTS: path}).uri
    return ImportedWeights(
        bundle=bundle,
        kind=manifest.kind,
        format=weights.format,
        layout=fitted.layout,
        part=weights.part,
        classes=names,
        arrays=len(fitted.arrays),
        values=fitted.network.size,
        unused=fitted.unused,
        notes=notes,
    )


def _origin(file: Path, layout: str) -> dict[str, str]:
    """Return the origin that a bundle, and every bundle that is trained from it, records."""
    about = {"file": file.name, "sha256": sha256_file(file), "layout": layout}
    return about | ({"licence": LICENCES[layout]} if layout in LICENCES else {})


class _GivenClasses:
    """The classes that the caller gives.

    Attributes:
        names: Their names, cleaned; None if not given.
        number: Their number; None if not given.
        notes: Remarks on a file of names.
    """

    def __init__(self, number: int | None, classes: Sequence[str] | ClassFile | None) -> None:
        """Accept a number of classes, their names, or both.

        Raises:
            InputError: There are no names, a name is given twice, or their number differs from ``number``.
        """
        self._file = classes if isinstance(classes, ClassFile) else None
        self.notes = self._file.notes if self._file else ()
        given = classes.classes if isinstance(classes, ClassFile) else classes
        self.names = None if given is None else clean_names(given)
        self.number = number if self.names is None else len(self.names)
        if self.names is not None:
            self._check_names(self.names, number)

    def check(self, found: int, file: Path) -> None:
        """Refuse a file of weights with a different number of classes.

        Raises:
            InputError: The numbers differ, or there are too many classes.
        """
        if found > MOST_CLASSES:
            raise InputError(f"{file}: has {found} classes, at most {MOST_CLASSES} are supported; get the file again")
        if self._file is not None:
            self._file.check_number(found, str(file))
        if self.number not in (None, found):
            raise InputError(
                f"{file}: has {found} classes, but {self.number} are requested; "
                "import it with its own classes, then start a training with your classes from it"
            )

    def _check_names(self, names: tuple[str, ...], number: int | None) -> None:
        if not names or "" in names:
            raise InputError("there are no class names; give one name for each class")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"class {twice!r} is given twice; give each class its own name")
        if number is None:
            return
        if self._file is not None:
            self._file.check_number(number, "--num-classes")
        if number != len(names):
            raise InputError(f"num_classes is {number}, but {len(names)} class names are given; give only one of them")


def _fit(
    weights: WeightsFile, network: NetworkParameters, requested: _GivenClasses, backbone: bool
) -> tuple[_Fitted, float | None]:
    """Return the arrays of a file that fit a network, and the file's ``bn_eps`` if it differs from the model's."""
    fit_file = _fit_darknet if weights.format == "darknet" else _fit_named
    fitted = fit_file(weights, network, requested, backbone)
    bn_eps = _bn_eps(fitted)
    if backbone and bn_eps is not None:
        # A training uses the constant of its model, wherever the backbone comes from.
        return _with_eps_of_model(fitted, bn_eps), None
    return fitted, bn_eps


def _fit_darknet(weights: WeightsFile, network: NetworkParameters, requested: _GivenClasses, backbone: bool) -> _Fitted:
    check_darknet(weights.path, network.facts, backbone)
    if backbone:
        network = network.backbone()
    else:
        found = darknet_classes(weights.path, network.darknet_convolutions())
        requested.check(found, weights.path)
        network = network.with_classes(found)
    arrays = read_darknet(weights.path, network.darknet_convolutions(), more=backbone)
    named = translate_arrays(arrays, NameScheme("darknet"), network)
    check_fit(named, network.shapes, _misfit(weights, network))
    return _Fitted(weights, network, named, "darknet", 0)


def _fit_named(weights: WeightsFile, network: NetworkParameters, requested: _GivenClasses, backbone: bool) -> _Fitted:
    try:
        scheme = find_scheme(weights.arrays, network, str(weights.path))
        named = translate_arrays(weights.arrays, scheme, network)
    except InputError as error:
        raise _named(weights, network, {}, backbone) or error from None
    if scheme.layout == ZOO:
        if not backbone:
            raise InputError(
                f"{weights.path}: is from the MindSpore model zoo, whose {network.facts.name} differs from ours "
                "(padding, normalized images, decoding); import its backbone with --backbone and train from it"
            )
        named = take_in_normalization(named)
    every, unused = named, 0
    if backbone:
        network = network.backbone()
        named = {name: array for name, array in named.items() if name.startswith("backbone.")}
        unused = len(every) - len(named)
    else:
        found = _classes_found(named, network)
        # If this is the file of a different network, its number of outputs has a different meaning.
        other = None if requested.number in (None, found) else _named(weights, network, every, backbone)
        if other is not None:
            raise other
        if found is not None:
            requested.check(found, weights.path)
        network = network.with_classes(requested.number or found or network.num_classes)
    try:
        check_fit(named, network.shapes, _misfit(weights, network))
    except WeightsMismatch as error:
        raise _named(weights, network, every, backbone) or WeightsMismatch(
            str(error), [_with_file_name(row, scheme, network) for row in error.rows]
        ) from None
    return _Fitted(weights, network, named, scheme.layout, unused)


def _named(
    weights: WeightsFile, network: NetworkParameters, named: Mapping[str, NamedArray], backbone: bool
) -> InputError | None:
    """Return an error that names the network in a file, or None if its arrays do not identify a different network."""
    shapes = {name: tuple(array.shape) for name, array in weights.arrays.items()}
    expected = network.backbone().shapes
    has_backbone = all(name in named and tuple(named[name].array.shape) == shape for name, shape in expected.items())
    fault = other_weights(shapes, network.facts.name, weights.model, has_backbone and not backbone)
    return None if fault is None else InputError(f"{weights.path}: {fault}")


def _misfit(weights: WeightsFile, network: NetworkParameters) -> str:
    return f"{weights.path}: these are not the weights of model {network.facts.name!r}"


def _with_file_name(row: Mismatch, scheme: NameScheme, network: NetworkParameters) -> Mismatch:
    """Return a mismatch with the name that a missing array would have in the file."""
    if row.in_file or scheme.layout not in layouts_of(network.facts):
        return row
    name = scheme.prefix + to_layout(row.name, network.facts, scheme.layout)
    return Mismatch(row.name, row.expected, row.found, name)


def _classes_found(arrays: Mapping[str, NamedArray], network: NetworkParameters) -> int | None:
    """Return the number of classes of the output convolutions in the file, or None if they differ."""
    shapes = [tuple(arrays[name].array.shape) for name in network.output_biases if name in arrays]
    found = {network.classes_of_outputs(shape[0]) if len(shape) == 1 else None for shape in shapes}
    return found.pop() if len(found) == 1 else None


def _class_names(fitted: _Fitted, requested: _GivenClasses) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the classes, and notes about them."""
    count, found = fitted.network.num_classes, fitted.file.classes
    if requested.names is not None:
        return requested.names, requested.notes
    numbered = tuple(f"class_{number}" for number in range(count))
    if found is None:
        return numbered, ()
    names = clean_names(found)
    if len(names) == count == len(set(names)) and "" not in names:
        return names, ()
    fault = f"{len(names)} names for {count} classes" if len(names) != count else "empty or duplicate names"
    return numbered, (f"class names in the file are not used: {fault}; give names with --classes",)


def _bn_eps(fitted: _Fitted) -> float | None:
    """Return the constant that the program of a file adds to the variance, if it is not the constant of the model."""
    if fitted.file.format != "darknet" and any(".BatchNorm2d." in found.name for found in fitted.arrays.values()):
        return _CFG_READERS_EPS
    eps = fitted.file.bn_eps
    return None if eps == fitted.network.facts.bn_eps else eps


def _with_eps_of_model(fitted: _Fitted, bn_eps: float) -> _Fitted:
    found = {name: one for name, one in fitted.arrays.items() if name.endswith(".moving_variance")}
    moved = move_eps({name: one.array for name, one in found.items()}, bn_eps, fitted.network.facts.bn_eps)
    arrays = {name: NamedArray(found[name].name, array) for name, array in moved.items()}
    return replace(fitted, arrays={**fitted.arrays, **arrays})


def _finite(fitted: _Fitted) -> list[tuple[str, WeightArray]]:
    for found in fitted.arrays.values():
        if not np.isfinite(as_float32(found.array)).all():
            raise InputError(
                f"{fitted.file.path}: {found.name!r} holds values that are infinite or NaN; give an earlier checkpoint"
            )
    return [(name, found.array) for name, found in fitted.arrays.items()]
