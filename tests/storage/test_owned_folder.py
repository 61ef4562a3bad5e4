"""Folders that one process at a time may fill or remove."""

from __future__ import annotations

import time

import pytest

from kubeyolo.errors import WorkError
from kubeyolo.storage.base import Store
from kubeyolo.storage.claim import own_claim
from kubeyolo.storage.owned_folder import (
    OWNER_SUFFIX,
    check_owned,
    owned_folder,
    remove_abandoned,
    remove_unused,
    removed_when_unused,
)
from kubeyolo.storage.place import Place


def keys(store: Store) -> list[str]:
    return [stored.key for stored in store.list()]


@pytest.fixture
def place(store_uri: str) -> Place:
    return Place.of(store_uri)


def used(_: str) -> bool:
    return True


def unused(_: str) -> bool:
    return False


def test_a_folder_stays_when_it_is_used_and_is_removed_when_not(store: Store, place: Place) -> None:
    with owned_folder(place, "one", used) as folder:
        store.write_bytes(f"{folder}/k", b"1")
        assert keys(store) == [f"one{OWNER_SUFFIX}", "one/k"]
    assert keys(store) == ["one/k"]
    with owned_folder(place, "two", unused) as folder:
        store.write_bytes(f"{folder}/k", b"1")
    assert keys(store) == ["one/k"]
    remove_unused(store, "one", used)
    assert keys(store) == ["one/k"]
    remove_unused(store, "one", unused)
    assert keys(store) == []


def test_a_folder_of_another_owner_is_neither_taken_nor_removed(store: Store, place: Place) -> None:
    with owned_folder(place, "one", used) as first, owned_folder(place, "one", used) as second:
        assert first == "one" != second and second.startswith("one-")
        for folder in (first, second):
            store.write_bytes(f"{folder}/k", b"1")
        remove_unused(store, first, unused)
    assert keys(store) == [f"{second}/k", "one/k"]
    # A process that was killed leaves its folder owned.
    store.create_bytes(f"one{OWNER_SUFFIX}", b"")
    with owned_folder(place, "one", used) as third:
        assert third not in (first, second)


def test_a_folder_of_work_that_fails_is_removed_and_the_failure_is_reported(store: Store, place: Place) -> None:
    with pytest.raises(WorkError, match="the disk is full"), owned_folder(place, "one", unused) as folder:
        store.write_bytes(f"{folder}/k", b"1")
        raise WorkError("the disk is full")
    assert keys(store) == []

    def broken(_: str) -> bool:
        raise WorkError("the store does not answer")

    with pytest.raises(WorkError, match="the disk is full"), owned_folder(place, "one", broken):
        raise WorkError("the disk is full")


def test_a_folder_that_is_replaced_while_its_owner_ends_is_removed(store: Store, place: Place) -> None:
    answers = [True, False, False]

    def is_used(folder: str) -> bool:
        answer = answers.pop(0)
        if answer:
            # Another process replaces the document now, and finds the folder owned.
            remove_unused(store, folder, unused)
        return answer

    with owned_folder(place, "one", is_used) as folder:
        store.write_bytes(f"{folder}/k", b"1")
    assert keys(store) == [] and answers == []


def test_a_folder_of_a_killed_owner_is_removed_unless_it_is_used(store: Store) -> None:
    ended = own_claim().model_copy(update={"started": "0"})
    documents = {
        "killed": ended.document(),
        "published": ended.document(),
        "living": own_claim().document(),
        "far": ended.model_copy(update={"machine": "far"}).document(),
        "earlier-version": b"machine 123\n",
    }
    for name, document in documents.items():
        store.write_bytes(f"{name}/k", b"1")
        store.write_bytes(f"{name}{OWNER_SUFFIX}", document)
    remove_abandoned(store, lambda name: name == "published")
    kept = ("earlier-version", "far", "living")
    assert keys(store) == sorted(["published/k", *(f"{name}/k" for name in kept), *(f"{name}.owner" for name in kept)])


def test_an_owner_without_heartbeat_has_ended_by_the_clock_of_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeyolo.storage.owned_folder.GONE_SECONDS", 1.0)
    store.write_bytes("far/k", b"1")
    store.write_bytes(f"far{OWNER_SUFFIX}", own_claim().model_copy(update={"machine": "far"}).document())
    remove_abandoned(store, unused)
    assert keys(store) == ["far.owner", "far/k"]
    time.sleep(2.1)
    remove_abandoned(store, unused)
    assert keys(store) == []


def test_a_folder_that_lost_its_document_is_removed_with_the_claim_on_it(store: Store) -> None:
    document = ["old"]
    store.write_bytes("old/k", b"1")
    with removed_when_unused(store, "old", document.__contains__):
        # A process that is killed here leaves the claim, so that the next process removes the folder.
        assert keys(store) == ["old.owner", "old/k"]
    assert keys(store) == ["old/k"]
    with removed_when_unused(store, "old", document.__contains__):
        document.clear()
    assert keys(store) == []


def test_an_owner_that_lost_its_folder_while_it_slept_is_told(store: Store, place: Place) -> None:
    with owned_folder(place, "one", unused) as folder:
        check_owned(store, folder)
        store.delete(f"{folder}{OWNER_SUFFIX}")
        with pytest.raises(WorkError, match="one: another process removed this folder .* run the same command again"):
            check_owned(store, folder)
        other = own_claim().model_copy(update={"process": 1}).document()
        store.write_bytes(f"{folder}{OWNER_SUFFIX}", other)
        with pytest.raises(WorkError, match="another process removed this folder"):
            check_owned(store, folder)
    assert store.read_bytes(f"one{OWNER_SUFFIX}") == other
