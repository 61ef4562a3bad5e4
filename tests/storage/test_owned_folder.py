"""Folders that one process at a time may fill or remove."""

from __future__ import annotations

import pytest

from kubeyolo.errors import WorkError
from kubeyolo.storage.base import Store
from kubeyolo.storage.owned_folder import OWNER_SUFFIX, owned_folder, remove_unused


def keys(store: Store) -> list[str]:
    return [stored.key for stored in store.list()]


def used(_: str) -> bool:
    return True


def unused(_: str) -> bool:
    return False


def test_a_folder_stays_when_it_is_used_and_is_removed_when_not(store: Store) -> None:
    with owned_folder(store, "one", used) as folder:
        store.write_bytes(f"{folder}/k", b"1")
        assert keys(store) == [f"one{OWNER_SUFFIX}", "one/k"]
    assert keys(store) == ["one/k"]
    with owned_folder(store, "two", unused) as folder:
        store.write_bytes(f"{folder}/k", b"1")
    assert keys(store) == ["one/k"]
    remove_unused(store, "one", used)
    assert keys(store) == ["one/k"]
    remove_unused(store, "one", unused)
    assert keys(store) == []


def test_a_folder_of_another_owner_is_neither_taken_nor_removed(store: Store) -> None:
    with owned_folder(store, "one", used) as first, owned_folder(store, "one", used) as second:
        assert first == "one" != second and second.startswith("one-")
        for folder in (first, second):
            store.write_bytes(f"{folder}/k", b"1")
        remove_unused(store, first, unused)
    assert keys(store) == [f"{second}/k", "one/k"]
    # A process that was killed leaves its folder owned.
    store.create_bytes(f"one{OWNER_SUFFIX}", b"")
    with owned_folder(store, "one", used) as third:
        assert third not in (first, second)


def test_a_folder_of_work_that_fails_is_removed_and_the_failure_is_reported(store: Store) -> None:
    with pytest.raises(WorkError, match="the disk is full"), owned_folder(store, "one", unused) as folder:
        store.write_bytes(f"{folder}/k", b"1")
        raise WorkError("the disk is full")
    assert keys(store) == []

    def broken(_: str) -> bool:
        raise WorkError("the store does not answer")

    with pytest.raises(WorkError, match="the disk is full"), owned_folder(store, "one", broken):
        raise WorkError("the disk is full")


def test_a_folder_that_is_replaced_while_its_owner_ends_is_removed(store: Store) -> None:
    answers = [True, False, False]

    def is_used(folder: str) -> bool:
        answer = answers.pop(0)
        if answer:
            # Another process replaces the document now, and finds the folder owned.
            remove_unused(store, folder, unused)
        return answer

    with owned_folder(store, "one", is_used) as folder:
        store.write_bytes(f"{folder}/k", b"1")
    assert keys(store) == [] and answers == []
