"""Pointers: small documents in a store that name the current data set or the current model.

A pointer is moved by overwriting it, which is atomic in every store. It never names an incomplete bundle. The pointer
to a model moves only if it has not changed since it was read: if several processes move it at once, one succeeds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.bundle import LATEST
from kubeyolo.config.text_file import decode_text
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError, WorkError, problem_of, suggest
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place

ENDING = ".json"

MOST_FORMER = 20
"""Models in the history of a pointer; older ones are forgotten."""


class DataPointer(BaseModel):
    """The data set to train on; other keys are notes for people.

    Attributes:
        data: Its URI, or a path relative to the folder of the pointer.
    """

    model_config = ConfigDict(frozen=True)

    data: str = Field(min_length=1)


class FormerModel(BaseModel):
    """A model that was current.

    Attributes:
        bundle: URI of the published bundle.
        version: Its version.
        dataset_digest: Digest of the content of the data set that the bundle was trained on.
        replaced: When another model became current, in UTC as ISO 8601; empty if unknown.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str = Field(min_length=1)
    version: str = ""
    dataset_digest: str = ""
    replaced: str = ""


class ModelPointer(BaseModel):
    """The current model; only ``bundle`` is needed.

    Attributes:
        bundle: URI of the published bundle.
        version: Its version.
        data: URI of the data set of the last retraining.
        fingerprint: Fingerprint of this data: no retraining is needed until it changes.
        dataset_digest: Digest of the content of the data set that the bundle was trained on.
        history: The models that were current before, the latest first; pointers of earlier versions have none.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str
    version: str = ""
    data: str = ""
    fingerprint: str = ""
    dataset_digest: str = ""
    history: tuple[FormerModel, ...] = ()

    def replaced_by(self, pointer: ModelPointer) -> ModelPointer:
        """Return the pointer to the next model, with this model at the start of its history."""
        if self.bundle in ("", pointer.bundle):
            return pointer.model_copy(update={"history": self.history})
        former = FormerModel(
            bundle=self.bundle,
            version=self.version,
            dataset_digest=self.dataset_digest,
            replaced=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return pointer.model_copy(update={"history": (former, *self.history)[:MOST_FORMER]})


class PointerMoved(WorkError):
    """A pointer was moved by another process since it was read."""


class SeenPointer(NamedTuple):
    """A pointer to a model as it was read, and the etag of that content; both None if there was no pointer."""

    pointer: ModelPointer | None
    etag: str | None

    @property
    def bundle(self) -> str:
        """URI of the bundle that the pointer names; empty if there is no pointer."""
        return self.pointer.bundle if self.pointer else ""


_Pointer = TypeVar("_Pointer", bound=BaseModel)
_MODEL_EXAMPLE = '{"bundle": "minio://kubeyolo/models/yolov5n-r7/1.0.0"}'


def latest_model(store: Place, model: str) -> Place:
    """Return the pointer to the current model that is used if the configuration names none."""
    return store / "models" / model / LATEST


def check_pointer_name(uri: str) -> None:
    """Refuse a pointer whose name could be the name of a folder.

    Raises:
        InputError: The name does not end in .json.
    """
    if uri and not uri.endswith(ENDING):
        raise InputError(f"{uri}: the name of a pointer ends in {ENDING}, as in models/yolov5n-r7/{LATEST}")


def read_data_pointer(place: Place) -> str:
    """Return the URI of the data set that a pointer names.

    Raises:
        InputError: There is no pointer, or it names no data set.
    """
    example = '{"data": "minio://kubeyolo/data/bccd-2026-11-20"}'
    try:
        pointed = _parse(place.read(), place, DataPointer, example).data
    except NotFound as error:
        raise InputError(f"{place}: there is no such pointer to a data set; write {example} there") from error
    if "://" in pointed or pointed.startswith(("/", "~")):
        return pointed
    try:
        return (place.parent / pointed).uri
    except InputError as error:
        raise InputError(f"{place}: data = {pointed!r}: {error}; expected {example}") from error


def read_model_pointer(place: Place) -> ModelPointer | None:
    """Return the content of a pointer to the current model, or None if there is no pointer yet.

    Raises:
        InputError: The document is not a pointer to a model.
    """
    return read_model_version(place).pointer


def read_model_version(place: Place) -> SeenPointer:
    """Return the content of a pointer to the current model, with the etag that ``write_model_pointer`` takes.

    Raises:
        InputError: The document is not a pointer to a model.
    """
    try:
        document, etag = place.parent.store.read_version(place.name)
    except NotFound:
        return SeenPointer(None, None)
    pointer = _parse(document, place, ModelPointer, _MODEL_EXAMPLE)
    if not pointer.bundle:
        raise InputError(f"{place}: bundle is empty; expected {_MODEL_EXAMPLE}")
    # People write paths, and slashes at the end.
    bundle = place.at(pointer.bundle).uri
    return SeenPointer(pointer.model_copy(update={"bundle": bundle}), etag)


def pointed_uris(place: Place) -> set[str]:
    """Return the URIs that a pointer of either kind names, with those in the history of a pointer to a model.

    Raises:
        InputError: There is no pointer, or it cannot be read.
    """
    try:
        content = read_json(place.read(), str(place), "correct or remove it")
    except NotFound as error:
        raise InputError(f"{place}: there is no such pointer; correct the URI") from error
    if isinstance(content, dict) and "data" in content and "bundle" not in content:
        return {read_data_pointer(place)}
    pointer = read_model_pointer(place)
    if pointer is None:
        return set()
    return {pointer.bundle, pointer.data, *(former.bundle for former in pointer.history)} - {""}


def no_current_model(latest: Place | str) -> str:
    """Return the message for a new model if there is no pointer to a current model yet."""
    return f"no current model at {latest} to compare with: the new model becomes current"


def write_model_pointer(place: Place, pointer: ModelPointer, etag: str | None = None) -> None:
    """Move a pointer to a published bundle, unless the pointer was moved since it was read.

    Args:
        place: The pointer.
        pointer: Its new content.
        etag: Etag of the content that is replaced, from ``read_model_version``; None if there was no pointer.

    Raises:
        PointerMoved: The pointer was moved, created or removed since it was read, and has different content.
    """
    store, name = place.parent.store, place.name
    document = orjson.dumps(pointer.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    moved = store.create_bytes(name, document) if etag is None else store.replace_bytes(name, document, etag)
    if moved:
        return
    now = read_model_version(place)
    if now.pointer != pointer:
        raise PointerMoved(
            f"{place} was moved meanwhile: it names {now.bundle or 'no model'}, not {pointer.bundle}; check this "
            "model, and run the command again"
        )


def pointed_bundle(place: Place) -> Place:
    """Return the bundle that a pointer (its name ends in .json) names; any other place is returned unchanged.

    Raises:
        InputError: The pointer does not exist, or names no bundle.
    """
    if not place.uri.endswith(ENDING):
        return place
    pointer = read_model_pointer(place)
    if pointer is None:
        raise InputError(
            f"{place}: there is no such pointer to a model; give the URI of a bundle, or make one current: "
            f"kubeyolo publish BUNDLE --store URI --latest {place}"
        )
    return place.at(pointer.bundle)


def _parse(document: bytes, place: Place, kind: type[_Pointer], example: str) -> _Pointer:
    try:
        content = read_json(decode_text(document, place.uri), place.uri)
    except NotJson as error:
        raise InputError(f"{place}: this pointer is {error.reason}; expected {example}") from error
    if not isinstance(content, dict):
        raise InputError(f"{place}: this pointer is not a JSON object; expected {example}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = problem_of(error)
        key = wrong.key.partition(".")[0]
        if key in content:
            raise InputError(f"{place}: {key} = {content[key]!r}: {wrong.reason}; expected {example}") from error
        raise InputError(
            f"{place}: this pointer has no {key!r}{suggest(key, content) if content else ''}; expected {example}"
        ) from error
