"""Finds notes and results of a run in a store by the run's name or its id on a cluster; the id of a store."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord, parse_record
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place

RESULT = "result.json"
"""Name of the index of a run's results: a copy of the record of its last step."""

RUN_ID = "KUBEYOLO_RUN_ID"
"""Environment variable of a pod: the id of the run on Kubeflow."""

STORE = "KUBEYOLO_STORE"
"""Environment variable with the store that is used if the field ``store`` is empty; in pods it comes from a
ConfigMap."""

STORE_NAME = "store.json"
"""Name of the document with the id of a store."""


def store_id(store: Place, create: bool = False) -> str:
    """Return the id of a store, or an empty text if it has none. A store that is emptied or recreated gets a new id.

    It is part of the settings of every step, so that results that were deleted with their store are never taken from a
    cache.

    Args:
        store: The store.
        create: Whether to create the id if there is none.
    """
    opened = store.store
    if create and not opened.exists(STORE_NAME):
        opened.create_bytes(STORE_NAME, json.dumps({"id": uuid.uuid4().hex}).encode())
    try:
        return str(read_json(opened.read_bytes(STORE_NAME), STORE_NAME)["id"])
    except NotFound:
        return ""
    except (NotJson, KeyError, TypeError) as error:
        raise InputError(f"{opened.uri_of(STORE_NAME)}: this document has no valid id of a store; remove it") from error


def run_output(store: Place, run: str, name: str) -> Place:
    """Return the place of a file or folder of a run, such as its plan or the index of its results."""
    return store / "runs" / run / name


def write_note(store: Place, run_id: str, note: Mapping[str, str]) -> None:
    """Store a note about the run with this id on Kubeflow: its name, and the URI of the index of its results."""
    _note(store, run_id).write((json.dumps(dict(note), indent=1) + "\n").encode())


def read_note(store: Place, run_id: str) -> dict[str, str]:
    """Return the note of a run.

    Raises:
        NotFound: There is no note: the first step of the run has not written it yet.
        InputError: The document is not a note.
    """
    place = _note(store, run_id)
    try:
        return {str(key): str(value) for key, value in read_json(place.read(), place.uri).items()}
    except AttributeError as error:
        raise InputError(f"{place}: not the note of a run ({error})") from error


def read_index(place: Place) -> StepRecord:
    """Return the record in an index.

    Raises:
        NotFound: There is no index.
        InputError: The document is not a record.
    """
    return parse_record(place.read(), place.uri)


def _note(store: Place, run_id: str) -> Place:
    return run_output(store, "ids", f"{run_id}.json")
