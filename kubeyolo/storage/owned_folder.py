"""Folders of a store that one process at a time may fill or remove.

A document names the folder that is used. Only the owner of a folder may write a document that names it, and only the
owner removes it, after checking that the document does not name it: a folder that is used is never removed.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kubeyolo.errors import KubeyoloError
from kubeyolo.storage.base import NotFound, Store

OWNER_SUFFIX = ".owner"
"""Ending of the object that marks the folder next to it as owned. A process that is killed leaves the object."""

_ENDING_DIGITS = 8


@contextmanager
def owned_folder(store: Store, name: str, is_used: Callable[[str], bool]) -> Iterator[str]:
    """Own a folder for the block and yield its name; after the block, remove the folder unless it is used.

    Args:
        store: The store of the folder.
        name: Name of the folder. If another process owns it, or a killed process has left it, a suffix is added.
        is_used: Tells whether a document names a folder.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    folder = name
    while not _own(store, folder):
        folder = f"{name}-{uuid.uuid4().hex[:_ENDING_DIGITS]}"
    try:
        yield folder
    except BaseException:
        # The error of the block is reported, even if the store fails too.
        with suppress(KubeyoloError):
            _release(store, folder, is_used)
        raise
    _release(store, folder, is_used)


def remove_unused(store: Store, folder: str, is_used: Callable[[str], bool]) -> None:
    """Remove a folder that no document names any more, unless another process owns it.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    if not is_used(folder) and _own(store, folder):
        _release(store, folder, is_used)


def remove_abandoned(store: Store, folder: str, is_used: Callable[[str], bool]) -> bool:
    """Remove a folder that no document names and that a killed process may own, and return whether it was removed.

    The caller has found that nothing was written there for so long that its owner cannot be running.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    owner = f"{folder}{OWNER_SUFFIX}"
    if is_used(folder):
        store.delete(owner)
        return False
    try:
        _, etag = store.read_version(owner)
        is_own = store.replace_bytes(owner, _owner(), etag)
    except NotFound:
        is_own = _own(store, folder)
    if is_own:
        _release(store, folder, is_used)
    return is_own


def _own(store: Store, folder: str) -> bool:
    return store.create_bytes(f"{folder}{OWNER_SUFFIX}", _owner())


def _owner() -> bytes:
    return f"{socket.gethostname()} {os.getpid()}\n".encode()


def _release(store: Store, folder: str, is_used: Callable[[str], bool]) -> None:
    """Remove an owned folder unless it is used, and release it."""
    while is_used(folder):
        store.delete(f"{folder}{OWNER_SUFFIX}")
        # A process that replaced the document before this deletion has left the folder to its owner.
        if is_used(folder) or not _own(store, folder):
            return
    store.delete_tree(folder)
    store.delete(f"{folder}{OWNER_SUFFIX}")
