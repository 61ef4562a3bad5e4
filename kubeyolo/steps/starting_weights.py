"""The weights that a training starts from: found, checked and pinned once, before anything is trained.

``train.weights`` names a bundle, a pointer to a bundle, or a file of weights. In the configuration that the later
steps receive it is a reference with the digest of the content, pretraining is off, and the recipe is applied.
A file is imported when the training starts, into a bundle of the store that is named after the content of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kubeyolo.bundle import MANIFEST_NAME, Bundle, read_bundle
from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.load import RECIPE_ORIGIN, ResolvedConfig, with_values
from kubeyolo.config.recipes import with_recipe
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.facts import Anchors
from kubeyolo.pointers import ENDING, pointed_bundle
from kubeyolo.steps.checked_form import checked_place
from kubeyolo.steps.given_bundle import other_bundle
from kubeyolo.steps.start import StartingPoint
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import check_sha256, sha256_bytes, sha256_file
from kubeyolo.storage.location import FileLocation
from kubeyolo.storage.place import Place
from kubeyolo.training.start import anchors_differ, check_detector, weights_digest
from kubeyolo.weights.file_check import check_file
from kubeyolo.weights.importing import import_weights
from kubeyolo.whole import is_whole_bundle

IMPORTED = "weights"
"""Folder of a store with the bundles that were imported from files of weights."""

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """The weights that ``train.weights`` names.

    Attributes:
        place: The bundle, or the file, with its digest.
        digest: Digest of the content that a training depends on.
        anchors: The anchors that they were trained with.
        path: Path on this machine of a file, which must be imported; None for a bundle.
    """

    place: Place
    digest: str
    anchors: Anchors
    path: Path | None = None


def resolve_start(resolved: ResolvedConfig, root: Place, is_remote: bool = False) -> StartingPoint:
    """Find the weights that a training starts from, and return the configuration that belongs to them.

    Args:
        resolved: The configuration, as checked by :func:`check_start`.
        root: Any place, whose open stores are used.
        is_remote: Whether pods have to reach the weights.

    Raises:
        InputError: The weights cannot be read, or do not belong to a detector of this model.
    """
    train, model = resolved.config.train, resolved.config.model
    notes: tuple[str, ...] = ()
    if not train.weights:
        started = with_recipe(resolved, from_detector=False)
        return StartingPoint(resolved=started, notes=_freeze_notes(started))
    weights = _find(root, train.weights, model, is_remote)
    values: dict[str, object] = {"train.weights": weights.place.reference}
    started = with_values(resolved, values, resolved.origins.get("train.weights", ""))
    if weights.anchors != trained_facts(resolved.config).anchors:
        if train.anchors:
            notes += (f"warning: {anchors_differ(weights.anchors, trained_facts(resolved.config).anchors)}",)
        else:
            # The rows of boxes in the head belong to these anchors.
            lists = tuple(tuple(side for pair in level for side in pair) for level in weights.anchors)
            started = with_values(started, {"train.anchors": lists}, "the weights")
            trained_facts(started.config)
            notes += (f"train.anchors is that of the weights: {anchors_text(weights.anchors)}",)
    if started.config.pretrain.enabled:
        started = with_values(started, {"pretrain.enabled": False}, "train.weights")
    started = with_recipe(started, from_detector=True)
    return StartingPoint(resolved=started, digest=weights.digest, notes=(_start_note(weights, started), *notes))


def _start_note(weights: _Weights, started: ResolvedConfig) -> str:
    recipes = {origin for origin in started.origins.values() if origin.startswith(RECIPE_ORIGIN)}
    recipe = f" with the {recipes.pop()}" if recipes else ""
    kind = "detector" if weights.path is None else "file of weights"
    return f"the training starts from the {kind} {weights.place.uri}{recipe}; no backbone is pretrained"


def _freeze_notes(started: ResolvedConfig) -> tuple[str, ...]:
    config = started.config
    if not config.train.freeze or config.pretrain.enabled:
        return ()
    return (
        f"warning: train.freeze = {list(config.train.freeze)} keeps fresh, untrained weights unless the training "
        "starts from a backbone; set train.weights, or leave train.freeze out",
    )


def starting_bundle(store: Place, text: str, model: str) -> Bundle:
    """Return the bundle of the detector that a training starts from; a file is imported into the store first.

    Args:
        store: The store.
        text: ``train.weights``.
        model: Name of the model that is trained.

    Raises:
        InputError: The weights cannot be read, or do not belong to a detector of this model.
    """
    weights = _find(store, text, model, is_remote=False)
    return read_bundle(weights.place) if weights.path is None else _imported(store, weights, weights.path, model)


def _find(root: Place, text: str, model: str, is_remote: bool) -> _Weights:
    place = root.at(text)
    if place.uri.endswith(ENDING) and not place.exists():
        raise InputError(f"train.weights = {text}: this file does not exist")
    pointed = pointed_bundle(place)
    if pointed is not place:
        checked_place(f"the bundle that {text} names", pointed.uri, is_remote)
    if _is_file(pointed):
        path, sha256 = _fetched(pointed)
        return _Weights(place=pointed.pinned(sha256), digest=sha256, anchors=check_file(path, model), path=path)
    if not (pointed / MANIFEST_NAME).exists():
        if other := other_bundle(pointed):
            raise InputError(f"train.weights = {text}: {other}")
        raise InputError(
            f"train.weights = {text}: there is no bundle, no pointer to a bundle and no file of weights; kubeyolo "
            "downloads no weights: give the path or URI of a file that you have downloaded"
        )
    bundle = read_bundle(pointed)
    check_detector(bundle, model)
    digest = weights_digest(bundle.manifest)
    return _Weights(place=bundle.place, digest=digest, anchors=bundle.manifest.anchors)


def _is_file(place: Place) -> bool:
    """Tell whether there is a file or an object here, not a folder."""
    if isinstance(place.location, FileLocation):
        return place.location.path.is_file()
    return bool(place.location.prefix) and place.exists()


def _imported(store: Place, weights: _Weights, path: Path, model: str) -> Bundle:
    """Return the bundle of a file; it is imported unless the store has it already."""
    target = store / IMPORTED / f"{model}-{weights.digest[:_DIGITS]}"
    if (target / MANIFEST_NAME).exists():
        bundle = read_bundle(target)
        if bundle.manifest.config.get("imported", {}).get("sha256") == weights.digest and is_whole_bundle(bundle.place):
            return bundle
    imported = import_weights(path, model, target.uri)
    bundle = read_bundle(target)
    for line in (f"imported {weights.place.uri} ({imported.format}) to {bundle.uri}", *imported.notes):
        print(line, flush=True)
    check_detector(bundle, model)
    return bundle


def _fetched(place: Place) -> tuple[Path, str]:
    """Return the path of a file on this machine, and its sha256; an object of a bucket is copied into the cache."""
    if isinstance(place.location, FileLocation):
        path, sha256 = place.location.path, sha256_file(place.location.path)
    else:
        path = cache_folder("weights") / sha256_bytes(place.uri.encode())[:_DIGITS] / place.name
        known = sha256_file(path) if place.digest and path.is_file() else ""
        if not known or known != place.digest:
            path.parent.mkdir(parents=True, exist_ok=True)
            place.parent.store.get_file(place.name, path)
            known = sha256_file(path)
        sha256 = known
    if place.digest:
        check_sha256(place.uri, place.digest, sha256)
    return path, sha256
