"""What a store contains, in units that are kept or removed as a whole: a data set, a training, a result, a run.

A unit is a folder whose name kubeyolo makes from a digest. Folders that people have named, such as the ``--output`` of
a command, are not units: they are never removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.bundle import WEIGHTS, BundleManifest, read_manifest
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.documents import read_json
from kubeyolo.errors import InputError
from kubeyolo.events import RECORD_NAME, StepRecord, parse_record
from kubeyolo.storage.base import Listing, StoredObject
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import FOLDER as CHECKPOINTS
from kubeyolo.training.checkpoints import MANIFEST_NAME as CHECKPOINT_NAME
from kubeyolo.training.extension import is_longer
from kubeyolo.training.result import RESULT_NAME
from kubeyolo.training.start import backbone_digest, weights_digest

KINDS = {
    "datasets": "data set",
    "backbones": "pretraining",
    "trainings": "training",
    "weights": "imported bundle",
    "results": "result",
    "runs": "run",
}
"""Names of units in messages, by the first part of their keys."""

TRAINED = frozenset({"backbones", "trainings"})
"""Rooms of the outputs that training processes claim."""

_NAMED = r"[^/@]+-[0-9a-f]{12}"
_UNIT = re.compile(rf"(?:^|/)((?:datasets|backbones|trainings|weights)/{_NAMED}|results/[^/@]+/{_NAMED})(?:[/@]|$)")
_RUN = re.compile(r"(runs/(?!ids/)[^/]+)/(?:configure/.+|[^/]+\.json)")
_SUBJECTS = ("bundle", "backbone", "dataset")


@dataclass(frozen=True)
class Unit:
    """A folder of a store that is kept or removed as a whole.

    Attributes:
        key: Its folder, relative to the root of the store.
        objects: Its objects.
    """

    key: str
    objects: tuple[StoredObject, ...]

    @property
    def room(self) -> str:
        """The first part of the key."""
        return self.key.partition("/")[0]

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return KINDS[self.room]

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(stored.size for stored in self.objects)

    @property
    def modified(self) -> datetime:
        """When the newest object was written, by the clock of the store."""
        return max((stored.modified for stored in self.objects if stored.modified), default=datetime.now(UTC))

    def has(self, name: str) -> bool:
        """Tell whether there is an object with this name, relative to the folder."""
        return any(stored.key == f"{self.key}/{name}" for stored in self.objects)


@dataclass
class Facts:
    """What the documents of a unit, or of a published bundle, say.

    Attributes:
        provides: Digests by which other documents name the content; ``source:URI`` for the source of a data set.
        needs: Digests, and keys of units, of the content that it was made from.
        subjects: The same, of the bundle or data set that a result without a bundle of its own is about.
        has_bundle: Whether it contains a bundle.
        is_unfinished: Whether it is a training that can be continued.
        has_inputs: Whether a training says what it was started from.
    """

    provides: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    has_bundle: bool = False
    is_unfinished: bool = False
    has_inputs: bool = False


def units_of(listing: Listing) -> dict[str, Unit]:
    """Return the units of a store by key.

    A folder below ``runs/`` is a unit only if all of its objects are those of a run.
    """
    objects: dict[str, list[StoredObject]] = {}
    others: set[str] = set()
    for stored in listing:
        if stored.key.startswith("runs/"):
            match = _RUN.fullmatch(stored.key)
            if match is None:
                others.add("/".join(stored.key.split("/")[:2]))
        else:
            match = _UNIT.match(stored.key)
        if match is not None:
            objects.setdefault(match[1], []).append(stored)
    return {key: Unit(key, tuple(stored)) for key, stored in objects.items() if key not in others}


def unit_key(text: str) -> str:
    """Return the key of the unit that a URI, reference or key is in, in any store; empty if it is in none.

    A store may have been copied, and has URIs of several forms; the digest in the name of a unit is the same.
    """
    match = _UNIT.search(unquote(text))
    return match[1] if match else ""


def names_of(reference: str) -> set[str]:
    """Return the names by which content is found from a reference: its digest, its unit's key, its version's key."""
    uri, _, digest = reference.partition("@sha256:")
    version = re.search(r"(?:^|/)(models/[^/]+/[^/]+)$", unquote(uri))
    return {name for name in (digest, unit_key(uri), version[1] if version else "") if name}


def bundle_facts(document: bytes, uri: str) -> Facts:
    """Return what a ``bundle.json`` says.

    Raises:
        InputError: It cannot be read.
    """
    manifest = read_manifest(document, uri)
    facts = Facts({sha256_bytes(document), *_weights_digests(manifest)}, has_bundle=True)
    if manifest.dataset is not None:
        facts.needs |= {manifest.dataset.digest, unit_key(manifest.dataset.uri)}
    facts.needs |= {unit_key(manifest.parent or "")}
    return facts


def facts_of(store: Place, unit: Unit) -> Facts:
    """Read the documents of a unit.

    Raises:
        InputError: A document cannot be read.
    """
    facts = Facts()
    for stored in unit.objects:
        name = stored.key.rpartition("/")[2]
        if name == BUNDLE_NAME:
            _merge(facts, bundle_facts(store.store.read_bytes(stored.key), store.store.uri_of(stored.key)))
        elif stored.key == f"{unit.key}/{DATASET_NAME}":
            manifest = _parsed(store, stored.key)
            facts.provides |= {str(manifest.get("digest", "")), source_name(store, str(manifest.get("source", "")))}
        elif name == RECORD_NAME or (unit.room == "runs" and name.endswith(".json")):
            _add_record(facts, parse_record(store.store.read_bytes(stored.key), stored.key), store)
    if unit.room in TRAINED:
        _add_training(facts, store, unit)
    facts.provides -= {""}
    facts.needs -= {"", unit.key}
    return facts


def source_name(store: Place, source: str) -> str:
    """Return the name of a data set by its source, so that a run in progress keeps the stored copy of its data."""
    try:
        return f"source:{store.at(source).uri}" if source else ""
    except InputError:
        return f"source:{source}"


def _add_record(facts: Facts, record: StepRecord, store: Place) -> None:
    made = {name for key in _SUBJECTS for name in names_of(record.outputs.get(key, ""))}
    inputs = {str(record.conditions[key]) for key in ("bundle", "dataset") if record.conditions.get(key)}
    facts.needs |= made | inputs | {source_name(store, record.outputs.get("data", ""))}
    facts.subjects |= made or {str(record.conditions.get("bundle", ""))} - {""}


def _add_training(facts: Facts, store: Place, unit: Unit) -> None:
    """Add what a training was started from, and whether it can be continued."""
    pattern = re.compile(rf"{re.escape(unit.key)}/{CHECKPOINTS}/step-\d{{8}}/{re.escape(CHECKPOINT_NAME)}")
    newest = max((stored.key for stored in unit.objects if pattern.fullmatch(stored.key)), default="")
    saved = _identity(store, newest) if newest else None
    result = _identity(store, f"{unit.key}/{RESULT_NAME}") if unit.has(RESULT_NAME) else None
    for identity in (saved, result):
        if identity is not None:
            facts.has_inputs = True
            facts.needs |= _inputs(identity)
    facts.is_unfinished = saved is not None and (result is None or is_longer(result, saved))


def training_needs(store: Place, key: str) -> set[str]:
    """Return the digests of what a training was started from, by the manifest of a checkpoint.

    Raises:
        InputError: The manifest cannot be read.
    """
    return _inputs(_identity(store, key)) - {""}


def _inputs(identity: Mapping[str, Any]) -> set[str]:
    return {str(identity.get(key) or "") for key in ("dataset", "backbone", "weights")}


def _identity(store: Place, key: str) -> Mapping[str, Any]:
    identity = _parsed(store, key).get("identity")
    if not isinstance(identity, dict):
        raise InputError(f"{store.store.uri_of(key)}: this document has no identity of a training; remove its folder")
    return identity


def _parsed(store: Place, key: str) -> dict[str, Any]:
    value = read_json(store.store.read_bytes(key), store.store.uri_of(key), "remove its folder")
    if not isinstance(value, dict):
        raise InputError(f"{store.store.uri_of(key)}: not a JSON object; remove its folder")
    return value


def _weights_digests(manifest: BundleManifest) -> set[str]:
    if WEIGHTS not in manifest.files:
        return set()
    return {weights_digest(manifest), backbone_digest(manifest)}


def _merge(facts: Facts, other: Facts) -> None:
    facts.provides |= other.provides
    facts.needs |= other.needs
    facts.has_bundle |= other.has_bundle


def total_size(units: Iterable[Unit]) -> int:
    """Return the bytes of several units."""
    return sum(unit.size for unit in units)
