"""Pointers: small documents in a store that say which data set, or which model, is the present one.

A pointer is moved by writing it anew, which a store does whole or not at all. What it names is complete by then.
"""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.bundle import LATEST
from kubeyolo.errors import InputError, suggest
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.uri import join_uri, read_document, split_uri, write_document

ENDING = ".json"


class DataPointer(BaseModel):
    """The data set to train on; other keys are notes of whoever moves the pointer.

    Attributes:
        data: Its URI, or a path relative to the folder of the pointer.
    """

    model_config = ConfigDict(frozen=True)

    data: str = Field(min_length=1)


class ModelPointer(BaseModel):
    """The model in use; only ``bundle`` is needed.

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


_Pointer = TypeVar("_Pointer", bound=BaseModel)


def latest_model(store: str, model: str) -> str:
    """Return the URI of the pointer to the model in use, where no other is named."""
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
        pointed = _read(uri, DataPointer, example).data
    except NotFound as error:
        raise InputError(f"{uri}: there is no such pointer to a data set; write {example} there") from error
    if "://" in pointed or pointed.startswith(("/", "~")):
        return pointed
    try:
        return join_uri(split_uri(uri)[0], pointed)
    except InputError as error:
        raise InputError(f"{uri}: data = {pointed!r}: {error}; expected {example}") from error


def read_model_pointer(uri: str) -> ModelPointer | None:
    """Return what a pointer to the model in use says, or None when there is none yet.

    Raises:
        InputError: It is no pointer to a model.
    """
    try:
        return _read(uri, ModelPointer, '{"bundle": "minio://kubeyolo/models/yolov5n-r7/1.0.0"}')
    except NotFound:
        return None


def nothing_in_use(latest: str) -> str:
    """Return what is said of a new model where the pointer to the one in use is not there yet."""
    return f"no model is in use at {latest}: there is nothing to compare with, and the new model goes in use"


def write_model_pointer(uri: str, pointer: ModelPointer) -> None:
    """Move a pointer to a bundle, which is published by then."""
    write_document(uri, orjson.dumps(pointer.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def pointed_bundle(uri: str) -> str:
    """Return the URI of the bundle that a pointer (its name ends in .json) names, or that of a bundle as it is.

    Raises:
        InputError: The pointer is not there, or names none.
    """
    if not uri.endswith(ENDING):
        return uri
    pointer = read_model_pointer(uri)
    if pointer is None:
        raise InputError(
            f"{uri}: there is no such pointer to a model; give the URI of a bundle, or put a model in use: "
            f"kubeyolo publish BUNDLE --store URI --latest {uri}"
        )
    return pointer.bundle


def _read(uri: str, kind: type[_Pointer], example: str) -> _Pointer:
    document = read_document(uri)
    try:
        content = orjson.loads(document)
    except ValueError as error:
        raise InputError(f"{uri}: this pointer is not JSON ({error}); expected {example}") from error
    if not isinstance(content, dict):
        raise InputError(f"{uri}: this pointer is not a JSON object; expected {example}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = str(wrong["loc"][0])
        if key in content:
            raise InputError(f"{uri}: {key} = {content[key]!r}: {wrong['msg']}; expected {example}") from error
        raise InputError(
            f"{uri}: this pointer has no {key!r}{suggest(key, content) if content else ''}; expected {example}"
        ) from error
