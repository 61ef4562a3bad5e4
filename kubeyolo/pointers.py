"""Pointers: small documents in a store that say which data set, or which model, is the present one.

A pointer is moved by writing it anew, which a store does whole or not at all. What it names is complete by then. The
pointer to a model moves only from what its mover has seen: of several who move it at once, one does.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.bundle import LATEST
from kubeyolo.config.text_file import decode_text
from kubeyolo.errors import InputError, WorkError, problem_of, suggest
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.location import parse
from kubeyolo.storage.uri import join_uri, open_store, read_document, split_uri

ENDING = ".json"


class DataPointer(BaseModel):
    """The data set to train on; other keys are notes of whoever moves the pointer.

    Attributes:
        data: Its URI, or a path relative to the folder of the pointer.
    """

    model_config = ConfigDict(frozen=True)

    data: str = Field(min_length=1)


class ModelPointer(BaseModel):
    """The current model; only ``bundle`` is needed.

    Attributes:
        bundle: URI of the published bundle.
        version: Its version.
        data: Where the data set lay that the last retraining has used.
        fingerprint: Fingerprint of it: while the data has this one, there is nothing to train.
        dataset_digest: Digest of the content of the data set that the bundle was trained on.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str
    version: str = ""
    data: str = ""
    fingerprint: str = ""
    dataset_digest: str = ""


class SeenPointer(NamedTuple):
    """A pointer to a model as it was read, and the etag of that content; both None where there was no pointer."""

    pointer: ModelPointer | None
    etag: str | None

    @property
    def bundle(self) -> str:
        """URI of the bundle that the pointer names; empty where there is no pointer."""
        return self.pointer.bundle if self.pointer else ""


_Pointer = TypeVar("_Pointer", bound=BaseModel)
_MODEL_EXAMPLE = '{"bundle": "minio://kubeyolo/models/yolov5n-r7/1.0.0"}'


def latest_model(store: str, model: str) -> str:
    """Return the URI of the pointer to the current model, where no other is named."""
    return join_uri(store, "models", model, LATEST)


def check_pointer_name(uri: str) -> None:
    """Refuse a pointer whose name does not tell it from a folder.

    Raises:
        InputError: Its name does not end in .json.
    """
    if uri and not uri.endswith(ENDING):
        raise InputError(f"{uri}: the name of a pointer ends in {ENDING}, as in models/yolov5n-r7/{LATEST}")


def read_data_pointer(uri: str) -> str:
    """Return the URI of the data set that a pointer names.

    Raises:
        InputError: There is no pointer, or it names none.
    """
    example = '{"data": "minio://kubeyolo/data/bccd-2026-11-20"}'
    try:
        pointed = _parse(read_document(uri), uri, DataPointer, example).data
    except NotFound as error:
        raise InputError(f"{uri}: there is no such pointer to a data set; write {example} there") from error
    if "://" in pointed or pointed.startswith(("/", "~")):
        return pointed
    try:
        return join_uri(split_uri(uri)[0], pointed)
    except InputError as error:
        raise InputError(f"{uri}: data = {pointed!r}: {error}; expected {example}") from error


def read_model_pointer(uri: str) -> ModelPointer | None:
    """Return what a pointer to the current model says, or None when there is none yet.

    Raises:
        InputError: It is not a pointer to a model.
    """
    return read_model_version(uri).pointer


def read_model_version(uri: str) -> SeenPointer:
    """Return what a pointer to the current model says, with the etag that ``write_model_pointer`` needs to move it.

    Raises:
        InputError: It is not a pointer to a model.
    """
    parent, name = split_uri(uri)
    try:
        document, etag = open_store(parent).read_version(name)
    except NotFound:
        return SeenPointer(None, None)
    pointer = _parse(document, uri, ModelPointer, _MODEL_EXAMPLE)
    if not pointer.bundle:
        raise InputError(f"{uri}: bundle is empty; expected {_MODEL_EXAMPLE}")
    # People write paths, and slashes at the end.
    bundle = parse(pointer.bundle).uri
    return SeenPointer(pointer.model_copy(update={"bundle": bundle}), etag)


def no_current_model(latest: str) -> str:
    """Return what is said of a new model where there is no pointer to a current one yet."""
    return f"no current model at {latest} to compare with: the new model becomes current"


def write_model_pointer(uri: str, pointer: ModelPointer, etag: str | None = None) -> None:
    """Move a pointer to a bundle, which is published by then, unless it was moved since it was read.

    Args:
        uri: Of the pointer.
        pointer: What it says from now on.
        etag: Of the content that is replaced, from ``read_model_version``; None where there was no pointer.

    Raises:
        WorkError: The pointer was moved, made or removed since it was read, and says something else.
    """
    parent, name = split_uri(uri)
    store = open_store(parent)
    document = orjson.dumps(pointer.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    moved = store.create_bytes(name, document) if etag is None else store.replace_bytes(name, document, etag)
    if moved:
        return
    now = read_model_version(uri)
    if now.pointer != pointer:
        raise WorkError(
            f"{uri} names {now.bundle or 'no model any more'}, moved while it was to name {pointer.bundle}; "
            "look at what it names, and run it again"
        )


def pointed_bundle(uri: str) -> str:
    """Return the URI of the bundle that a pointer (its name ends in .json) names, or that of a bundle as it is.

    A reference to a bundle is returned as it is, too.

    Raises:
        InputError: The pointer is not there, or names none.
    """
    if not uri.endswith(ENDING):
        return uri
    pointer = read_model_pointer(uri)
    if pointer is None:
        raise InputError(
            f"{uri}: there is no such pointer to a model; give the URI of a bundle, or make one current: "
            f"kubeyolo publish BUNDLE --store URI --latest {uri}"
        )
    return pointer.bundle


def _parse(document: bytes, uri: str, kind: type[_Pointer], example: str) -> _Pointer:
    try:
        content = orjson.loads(decode_text(document, uri))
    except ValueError as error:
        raise InputError(f"{uri}: this pointer is not JSON ({error}); expected {example}") from error
    if not isinstance(content, dict):
        raise InputError(f"{uri}: this pointer is not a JSON object; expected {example}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = problem_of(error)
        key = wrong.key.partition(".")[0]
        if key in content:
            raise InputError(f"{uri}: {key} = {content[key]!r}: {wrong.reason}; expected {example}") from error
        raise InputError(
            f"{uri}: this pointer has no {key!r}{suggest(key, content) if content else ''}; expected {example}"
        ) from error
