"""Where in a store the notes and results of a run are found by its name, or its id on a cluster; the id of a store."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord, parse_record
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.uri import join_uri, open_store, read_document, write_document

RESULT = "result.json"
"""Name of the index of a run's results: a copy of the record of its last step."""

RUN_ID = "KUBEYOLO_RUN_ID"
"""Environment variable of a pod with the id that Kubeflow has given to the run."""

STORE = "KUBEYOLO_STORE"
"""Environment variable with the store that an empty field stands for; in pods it is from a ConfigMap."""

STORE_NAME = "store.json"
"""Name of the document with the id of a store."""


def store_id(store: str, create: bool = False) -> str:
    """Return the id of a store, or an empty text if it has none. A store that is emptied or recreated gets a new id.

    It is part of the settings of every step, so that results that were deleted with their store are never taken from a
    cache.

    Args:
        store: URI of the store.
        create: Whether to create the id where there is none.
    """
    opened = open_store(store)
    if create and not opened.exists(STORE_NAME):
        opened.create_bytes(STORE_NAME, json.dumps({"id": uuid.uuid4().hex}).encode())
    try:
        return str(json.loads(opened.read_bytes(STORE_NAME))["id"])
    except NotFound:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{opened.uri_of(STORE_NAME)}: not the id of a store; remove it") from error


def run_output(store: str, run: str, *names: str) -> str:
    """Return the URI of something that belongs to a run: its plan, or the index of its results."""
    return join_uri(store, "runs", run, *names)


def write_note(store: str, run_id: str, note: Mapping[str, str]) -> None:
    """Note what the run with this id of Kubeflow's is: its name, and where the index of its results will be."""
    write_document(_note(store, run_id), (json.dumps(dict(note), indent=1) + "\n").encode())


def read_note(store: str, run_id: str) -> dict[str, str]:
    """Return the note of a run.

    Raises:
        NotFound: There is none: its first step has not come that far.
        InputError: It is not a note.
    """
    uri = _note(store, run_id)
    try:
        return {str(key): str(value) for key, value in json.loads(read_document(uri)).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{uri}: not the note of a run ({error})") from error


def read_index(uri: str) -> StepRecord:
    """Return the record that an index holds.

    Raises:
        NotFound: There is none.
        InputError: It is not a record.
    """
    return parse_record(read_document(uri), uri)


def _note(store: str, run_id: str) -> str:
    return run_output(store, "ids", f"{run_id}.json")
