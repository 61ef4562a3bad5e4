"""What a training of a detector starts from: the weights of a detector, a pretrained backbone, or fresh weights.

The head has one convolution for each level, with ``anchors x (5 + classes)`` outputs: for each anchor four rows for the
box, one for objectness, and one for each class. If the classes differ, the rows of boxes, objectness and classes of the
same name are taken over, and the rows of the other classes stay fresh.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from kubeyolo.arrays import check_finite
from kubeyolo.bundle import WEIGHTS, Bundle, BundleManifest, open_bundle
from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.class_names import clean_names
from kubeyolo.errors import InputError
from kubeyolo.models.facts import Anchors
from kubeyolo.models.named_facts import model_facts
from kubeyolo.provenance import ProvenanceEntry
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec

STARTED_FROM = "started_from"
"""Key of the configuration in a bundle: where the weights came from that its training started from."""

IMPORTED = "imported"
"""Key of the configuration in a bundle, and of :data:`STARTED_FROM` in it: the file of weights that was imported."""

_BOX_ROWS = 5
_MOST_NAMES = 6
_HEAD = "head.m."
_NUMBERED = re.compile(r"class_\d+")

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ClassRows:
    """Which classes of a new detector have a row in the head of the detector that it starts from.

    Attributes:
        rows: For each new class the number of its row among the old classes; None for a class without a row.
        names: The new classes.
        old: The old classes.
    """

    rows: tuple[int | None, ...]
    names: tuple[str, ...]
    old: tuple[str, ...]

    @classmethod
    def between(cls, old: tuple[str, ...], new: tuple[str, ...]) -> ClassRows:
        """Return the rows by the cleaned names of the classes."""
        cleaned = clean_names(old)
        row_of = {name: row for row, name in reversed(list(enumerate(cleaned)))}
        names = clean_names(new)
        return cls(tuple(row_of.get(name) for name in names), names, cleaned)

    @property
    def taken(self) -> tuple[str, ...]:
        """The classes that keep their rows."""
        return tuple(name for name, row in zip(self.names, self.rows, strict=True) if row is not None)

    @property
    def new(self) -> tuple[str, ...]:
        """The classes whose rows are fresh."""
        return tuple(name for name, row in zip(self.names, self.rows, strict=True) if row is None)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The old classes whose rows are not used."""
        return tuple(name for name in self.old if name not in self.names)

    @property
    def is_identity(self) -> bool:
        """Whether the classes are the same, in the same order."""
        return self.names == self.old

    @property
    def is_reordered(self) -> bool:
        """Whether the classes that keep their rows are in another order than before."""
        rows = [row for row in self.rows if row is not None]
        return rows != sorted(rows)

    def words(self) -> str:
        """Return how many classes are taken over, as a sentence without a full stop."""
        if self.is_identity:
            return f"took over all {_classes(len(self.names))}: {_listed(self.names)}"
        text = f"took over {len(self.taken)} of {_classes(len(self.names))}"
        text += f": {_listed(self.taken)}" if self.taken else ""
        if self.new:
            text += f"; {len(self.new)} new: {_listed(self.new)}"
        elif self.is_reordered:
            text += ", in another order"
        if self.left_out:
            text += f"; {len(self.left_out)} of the weights not used: {_listed(self.left_out)}"
        if self.old and not self.taken and all(_NUMBERED.fullmatch(name) for name in self.old):
            text += (
                " (the weights have no names of classes: give them with --classes of 'kubeyolo weights import', and "
                "start from that bundle)"
            )
        return text


@dataclass(frozen=True)
class Start:
    """What a training starts from; fresh weights if there is neither a detector nor a backbone.

    Attributes:
        weights: Bundle of a detector of the same model.
        backbone: Bundle of a pretrained backbone of the same model; None if there is a detector.
    """

    weights: Bundle | None = None
    backbone: Bundle | None = None

    @classmethod
    def of(cls, spec: TrainingSpec) -> Start:
        """Open what the training starts from.

        Raises:
            InputError: The bundle cannot be read, is damaged, or has a different kind or model.
        """
        model = spec.config.model
        if spec.weights is not None:
            weights = open_bundle(Place.of(spec.weights), spec.cache)
            check_detector(weights, model)
            return cls(weights=weights)
        if spec.backbone is None:
            return cls()
        bundle = open_bundle(Place.of(spec.backbone), spec.cache)
        if bundle.manifest.kind != "backbone" or bundle.manifest.model != model:
            raise InputError(
                f"{spec.backbone}: is a {bundle.manifest.kind} of {bundle.manifest.model}, "
                f"not a backbone of {model}; pretrain one for this model"
            )
        return cls(backbone=bundle)

    @property
    def digests(self) -> dict[str, str]:
        """The digests that the identity of the training has, as arguments of ``training_identity``."""
        return {
            "backbone_digest": "" if self.backbone is None else backbone_digest(self.backbone.manifest),
            "weights_digest": "" if self.weights is None else weights_digest(self.weights.manifest),
        }

    @property
    def uri(self) -> str | None:
        """URI of the bundle that the training starts from."""
        bundle = self.weights or self.backbone
        return None if bundle is None else bundle.uri

    @property
    def metrics(self) -> dict[str, Any]:
        """The accuracy of the pretraining, which the bundle of the new detector keeps."""
        bundle = self.weights or self.backbone
        pretraining = bundle.manifest.metrics.get("pretrain") if bundle is not None else None
        return {"pretrain": pretraining} if pretraining else {}

    @property
    def provenance(self) -> tuple[ProvenanceEntry, ...]:
        """The steps that made the bundle that the training starts from."""
        bundle = self.weights or self.backbone
        return () if bundle is None else bundle.manifest.provenance

    def classes(self, new: tuple[str, ...]) -> ClassRows | None:
        """Return which classes keep their rows; None if the training does not start from a detector."""
        return None if self.weights is None else ClassRows.between(self.weights.manifest.classes, new)

    def record(self, new: tuple[str, ...]) -> dict[str, Any]:
        """Return the part of the configuration that a bundle keeps: the detector, its origin, and the classes.

        The record of the detector's own start is included. For a backbone only the origin of imported weights is kept;
        for fresh weights the record is empty.
        """
        if self.backbone is not None:
            return {key: value for key, value in self.backbone.manifest.config.items() if key == IMPORTED}
        rows = self.classes(new)
        if self.weights is None or rows is None:
            return {}
        manifest = self.weights.manifest
        about: dict[str, Any] = {"bundle": self.weights.uri, "digest": self.weights.digest, "model": manifest.model}
        about |= {"classes": {"taken": list(rows.taken), "new": list(rows.new), "left_out": list(rows.left_out)}}
        about |= {"dataset": manifest.dataset.name} if manifest.dataset else {}
        about |= {key: manifest.config[key] for key in (IMPORTED, STARTED_FROM) if key in manifest.config}
        return {STARTED_FROM: about}

    def warnings(self, anchors: Anchors) -> list[str]:
        """Warn if the detector was trained with other anchors than the training has."""
        own = None if self.weights is None else self.weights.manifest.anchors
        return [] if own is None or own == anchors else [anchors_differ(own, anchors)]

    def load(self, network: Any, classes: tuple[str, ...]) -> None:
        """Set the weights of a fresh detector to the weights that the training starts from.

        Args:
            network: A detector with these classes, whose weights are fresh.
            classes: Names of its classes.

        Raises:
            InputError: A name or a shape does not fit, or a value is not finite.
        """
        from kubeyolo.training.engine import load_parameters

        bundle = self.weights or self.backbone
        if bundle is None:
            return
        arrays: Arrays = load_file(bundle.path(WEIGHTS))
        check_finite(bundle.uri, arrays.items())
        parameters = {parameter.name: parameter for parameter in network.get_parameters()}
        if self.weights is None:
            parameters = {name: each for name, each in parameters.items() if name.startswith("backbone.")}
        else:
            fresh = {name: each.asnumpy() for name, each in parameters.items()}
            arrays = starting_arrays(fresh, arrays, self.weights.manifest, classes)
        load_parameters(parameters, dict(arrays), f"weights of {bundle.uri}")


def check_detector(bundle: Bundle, model: str) -> None:
    """Refuse a bundle that a training of this model cannot start from.

    Raises:
        InputError: The bundle has a backbone, a different model, or no trained weights; the message has the remedy.
    """
    manifest = bundle.manifest
    if manifest.kind != "detector":
        raise InputError(
            f"{bundle.uri}: is a {manifest.kind} of {manifest.model}, not a detector; start from it with --backbone "
            "of 'kubeyolo train', or give the bundle of a detector"
        )
    if manifest.model != model:
        raise InputError(
            f"{bundle.uri}: is a detector of model {manifest.model}, but {model} is trained; choose the model "
            f"{manifest.model}, or give weights of {model}"
        )
    if WEIGHTS not in manifest.files:
        raise InputError(
            f"{bundle.uri}: has no file {WEIGHTS}, so no training can start from it; give the bundle of its training"
        )


def anchors_differ(of_weights: Anchors, anchors: Anchors) -> str:
    """Return a warning that names the anchors of the weights and of the training."""
    return (
        f"the weights were trained with the anchors {anchors_text(of_weights)}, and this training has "
        f"{anchors_text(anchors)}: the rows of boxes that it starts from fit the former; leave train.anchors out to "
        "train with the anchors of the weights"
    )


def starting_arrays(fresh: Arrays, arrays: Arrays, manifest: BundleManifest, classes: tuple[str, ...]) -> Arrays:
    """Return the arrays that a training starts from.

    Args:
        fresh: Arrays of the fresh network by name.
        arrays: Arrays of the detector that it starts from, by name.
        manifest: Manifest of this detector.
        classes: Names of the classes of the fresh network.

    Returns:
        The detector's arrays; in the head, rows of classes that it does not have are fresh.
    """
    facts = model_facts(manifest.model)
    started = dict(arrays)
    if manifest.bn_eps is not None and manifest.bn_eps != facts.bn_eps:
        # A training uses the constant of its model: the sum of variance and constant stays.
        moved = np.float32(manifest.bn_eps - facts.bn_eps)
        started |= {name: each + moved for name, each in arrays.items() if name.endswith(".moving_variance")}
    rows = ClassRows.between(manifest.classes, classes)
    if rows.is_identity:
        return started
    for name in (each for each in fresh if each.startswith(_HEAD) and each in arrays):
        started[name] = _joined_rows(fresh[name], arrays[name], rows, facts.anchors_per_level)
    return started


def _joined_rows(fresh: NDArray[Any], old: NDArray[Any], rows: ClassRows, anchors: int) -> NDArray[Any]:
    """Return weights or biases of an output convolution: (anchors x (5 + classes), ...)."""
    if old.shape[1:] != fresh.shape[1:] or old.shape[0] != anchors * (_BOX_ROWS + len(rows.old)):
        return old  # The shapes are refused when the arrays are loaded.
    joined = fresh.reshape(anchors, _BOX_ROWS + len(rows.names), *fresh.shape[1:]).copy()
    source = old.reshape(anchors, _BOX_ROWS + len(rows.old), *old.shape[1:])
    joined[:, :_BOX_ROWS] = source[:, :_BOX_ROWS]
    for number, row in enumerate(rows.rows):
        if row is not None:
            joined[:, _BOX_ROWS + number] = source[:, _BOX_ROWS + row]
    return joined.reshape(fresh.shape)


def backbone_digest(manifest: BundleManifest) -> str:
    """Return the digest of a backbone in the identity of a training."""
    return sha256_bytes(manifest.files[WEIGHTS].sha256.encode())


def weights_digest(manifest: BundleManifest) -> str:
    """Return the digest of a detector in the identity of a training: weights, names of classes, and ``bn_eps``."""
    values = [manifest.files[WEIGHTS].sha256, list(clean_names(manifest.classes)), manifest.bn_eps]
    return sha256_bytes(json.dumps(values).encode())


def _classes(number: int) -> str:
    return f"{number} class" if number == 1 else f"{number} classes"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
