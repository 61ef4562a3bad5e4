"""Removes units of a store, except units that changed since they were listed; a reader never finds half of a unit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.documents import NotJson, read_json
from kubeyolo.events import RECORD_NAME
from kubeyolo.index import run_output
from kubeyolo.progress import Progress
from kubeyolo.retention.reach import Survey, is_running
from kubeyolo.retention.remains import remove_remains
from kubeyolo.retention.units import TRAINED, Unit
from kubeyolo.storage.base import NotFound, Store, for_each
from kubeyolo.storage.claim import CLAIM_NAME, Claim, claimed
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import MANIFEST_NAME as CHECKPOINT_NAME
from kubeyolo.training.result import RESULT_NAME

_MARKS = (RECORD_NAME, RESULT_NAME, BUNDLE_NAME, DATASET_NAME, CHECKPOINT_NAME)
"""Names of the documents that show readers that other files are complete, in the order of their removal."""

Show = Callable[[str], None]


def remove_unreached(store: Place, found: Survey, show: Show) -> tuple[list[Unit], int, int]:
    """Remove the units that are not needed, and what interrupted commands have left.

    Args:
        store: The store.
        found: The survey that lists the units.
        show: Shows a line about something that is kept after all.

    Returns:
        The units that were removed, and the number and the bytes of the remains that were removed.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails; units that are removed already stay removed, all others are complete.
    """
    removed: list[Unit] = []
    count, size = 0, 0
    with Progress(f"removing from {store}", len(found.unreached) + len(found.remains)) as progress:
        for key, unit in found.unreached.items():
            if reason := remove_unit(store, unit):
                show(f"{store.store.uri_of(key)} stays: {reason}")
            else:
                removed.append(unit)
            progress.advance()
        _remove_notes(store, {unit.key.rpartition("/")[2] for unit in removed if unit.room == "runs"})
        for remains in found.remains:
            if remove_remains(remains):
                count, size = count + 1, size + remains.size
            else:
                show(f"{remains.uri} stays: a command uses it")
            progress.advance()
    return removed, count, size


def remove_unit(store: Place, unit: Unit) -> str:
    """Remove a unit, and return why it stays; empty if it was removed.

    Outputs of trainings are claimed first, so that a training that starts now waits.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    opened = store.store
    present = Unit(unit.key, tuple(opened.list(unit.key)))
    if unit.room in TRAINED and is_running(store, present):
        return "a process works in it"
    if _has_changed(present, unit):
        return "it changed since it was listed"
    place = store / unit.key
    claim: AbstractContextManager[Claim | None] = claimed(place) if unit.room in TRAINED else nullcontext()
    with claim:
        if _has_changed(Unit(unit.key, tuple(opened.list(unit.key))), unit):
            return "it changed since it was listed"
        _remove_objects(opened, unit)
    # What stays of a claimed output is its claim.
    rest = opened.list(unit.key)
    if all(stored.key == f"{unit.key}/{CLAIM_NAME}" for stored in rest):
        opened.delete_tree(unit.key)
    return ""


def _has_changed(present: Unit, listed: Unit) -> bool:
    """Tell whether an object of a unit was written, added or removed since it was listed, except its claim."""

    def facts(unit: Unit) -> dict[str, tuple[int, str]]:
        claim = f"{unit.key}/{CLAIM_NAME}"
        return {stored.key: (stored.size, stored.etag) for stored in unit.objects if stored.key != claim}

    return facts(present) != facts(listed)


def _remove_objects(store: Store, unit: Unit) -> None:
    """Remove the objects of a unit; a folder disappears at once, in a bucket the documents that readers need go first.

    Only listed objects are removed one by one: a command that writes the same output again keeps its own.
    """
    if store.local_path() is not None:
        store.delete_tree(unit.key)
        return
    names = {stored.key: stored.key.rpartition("/")[2] for stored in unit.objects}
    for mark in _MARKS:
        for_each(store.delete, [key for key, name in names.items() if name == mark], store.threads)
    others = [key for key, name in names.items() if name not in (*_MARKS, CLAIM_NAME)]
    for_each(store.delete, others, store.threads)


def _remove_notes(store: Place, names: set[str]) -> None:
    """Remove the notes that name removed runs."""
    notes = run_output(store, "ids", "notes").parent.store
    for stored in notes.list() if names else ():
        # A note that cannot be read stays.
        with suppress(NotFound, NotJson, AttributeError):
            if read_json(notes.read_bytes(stored.key), stored.key).get("name") in names:
                notes.delete(stored.key)
