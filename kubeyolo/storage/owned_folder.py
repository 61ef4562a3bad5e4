"""Folders of a store that one process at a time may fill or remove.

A document names the folder that is used. Only the owner of a folder may write a document that names it, and only the
owner removes it, after checking that the document does not name it: a folder that is used is never removed.

The owner is named by a claim next to the folder (:mod:`kubeyolo.storage.claim`). If the owner was killed, the next
process that writes there takes its claim over, and removes the folder unless it is used.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from kubeyolo.errors import KubeyoloError, WorkError
from kubeyolo.storage.base import NotFound, Store, StoredObject, join_key
from kubeyolo.storage.claim import GONE_SECONDS, Claim, beating, own_claim, owner_lives, read_claim
from kubeyolo.storage.place import Place

OWNER_SUFFIX = ".owner"
"""Ending of the object that marks the folder next to it as owned. A process that is killed leaves the object."""

_ENDING_DIGITS = 8
_WITHOUT_HEARTBEAT_SECONDS = 86_400.0
"""An owner that earlier versions have written has no heartbeat; after this time it is treated as gone."""

IsUsed = Callable[[str], bool]
"""Tells whether a document names a folder."""


class _Owner(Claim):
    """The content of the object with :data:`OWNER_SUFFIX`.

    Attributes:
        files: Names of the files that the owner writes into its folder; their unfinished uploads are removed with it.
    """

    files: tuple[str, ...] = ()


@contextmanager
def owned_folder(place: Place, name: str, is_used: IsUsed, files: Sequence[str] = ()) -> Iterator[str]:
    """Own a folder for the block and yield its name; after the block, remove the folder unless it is used.

    Args:
        place: The store of the folder.
        name: Name of the folder. If another process owns it, a suffix is added.
        is_used: Tells whether a document names a folder.
        files: Names of the files that the block writes into the folder.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    store, owner = place.store, _new_owner(files)
    folder = name
    while not store.create_bytes(_key(folder), owner.document()):
        folder = f"{name}-{uuid.uuid4().hex[:_ENDING_DIGITS]}"
    try:
        with beating(place, owner, _key(folder)):
            yield folder
    except BaseException:
        # The error of the block is reported, even if the store fails too.
        with suppress(KubeyoloError):
            _release(store, folder, owner, is_used)
        raise
    _release(store, folder, owner, is_used)


@contextmanager
def removed_when_unused(store: Store, folder: str, is_used: IsUsed) -> Iterator[None]:
    """Remove a folder after the block if the block has replaced the document that named it.

    The folder is owned during the block, unless another process owns it: if this process is killed after the
    replacement, the next process removes the folder. An empty name means no folder.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    owner = _new_owner()
    is_owned = bool(folder) and store.create_bytes(_key(folder), owner.document())
    try:
        yield
    finally:
        if is_owned:
            _release(store, folder, owner, is_used)


def check_owned(store: Store, folder: str) -> None:
    """Check that this process still owns a folder: a process that was suspended for long may have lost it.

    Raises:
        WorkError: Another process has removed the folder.
    """
    own, present = own_claim(), None
    with suppress(NotFound):
        present = read_claim(store, _key(folder))[0]
    if present is None or (present.machine, present.process) != (own.machine, own.process):
        raise WorkError(
            f"{store.uri_of(folder)}: another process removed this folder because no heartbeat arrived for "
            f"{GONE_SECONDS:.0f} s; run the same command again"
        )


def remove_unused(store: Store, folder: str, is_used: IsUsed) -> None:
    """Remove a folder that no document names any more, unless another process owns it.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    owner = _new_owner()
    if not is_used(folder) and store.create_bytes(_key(folder), owner.document()):
        _release(store, folder, owner, is_used)


def remove_abandoned(store: Store, is_used: IsUsed) -> None:
    """Remove the folders of owners that were killed, unless they are used, and the claims of these owners.

    An owner on this machine has ended when its process has ended; any other owner when its heartbeat has not changed
    for :data:`GONE_SECONDS`, by the clock of the store.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    for stored in store.list_folder():
        if not stored.key.endswith(OWNER_SUFFIX):
            continue
        folder = stored.key.removesuffix(OWNER_SUFFIX)
        # The owner may end now, or another process may remove the folder.
        with suppress(NotFound):
            former, document, etag = read_claim(store, stored.key)
            if not _has_ended(store, former, stored):
                continue
            owner = _new_owner()
            if store.replace_bytes(stored.key, owner.document(), etag):
                store.remove_remains(folder, _files_of(document))
                _release(store, folder, owner, is_used)


def remove_old(store: Store, folder: str, is_used: IsUsed) -> bool:
    """Remove a folder that no document names and that a killed process may own, and return whether it was removed.

    The caller has found that nothing was written there for so long that its owner cannot be running.

    Raises:
        InputError: The store cannot be used.
        WorkError: The store fails.
    """
    if is_used(folder):
        store.delete(_key(folder))
        return False
    owner = _new_owner()
    try:
        _, _, etag = read_claim(store, _key(folder))
        is_owned = store.replace_bytes(_key(folder), owner.document(), etag)
    except NotFound:
        is_owned = store.create_bytes(_key(folder), owner.document())
    if is_owned:
        _release(store, folder, owner, is_used)
    return is_owned


def _key(folder: str) -> str:
    return f"{folder}{OWNER_SUFFIX}"


def _new_owner(files: Sequence[str] = ()) -> _Owner:
    return _Owner(**own_claim().model_dump(), files=tuple(files))


def _files_of(document: bytes) -> tuple[str, ...]:
    with suppress(ValueError):
        return _Owner.model_validate_json(document).files
    return ()


def _has_ended(store: Store, owner: Claim, stored: StoredObject) -> bool:
    lives = owner_lives(owner)
    if lives is not None or stored.modified is None:
        return lives is False
    limit = GONE_SECONDS if owner.owner else _WITHOUT_HEARTBEAT_SECONDS
    now = _now(store)
    return now is not None and (now - stored.modified).total_seconds() > limit


def _now(store: Store) -> datetime | None:
    """Return the time of the store's clock, as the time of a new object: clocks of machines are never compared."""
    folder = uuid.uuid4().hex
    store.write_bytes(join_key(folder, "now"), b"")
    try:
        return next((stored.modified for stored in store.list(folder)), None)
    finally:
        store.delete_tree(folder)


def _release(store: Store, folder: str, owner: Claim, is_used: IsUsed) -> None:
    """Remove an owned folder unless it is used, and release it."""
    while True:
        with suppress(NotFound):
            # An owner that was suspended for long has lost its folder.
            if read_claim(store, _key(folder))[0].owner not in ("", owner.owner):
                return
        if not is_used(folder):
            break
        store.delete(_key(folder))
        # A process that replaced the document before this deletion has left the folder to its owner.
        if is_used(folder) or not store.create_bytes(_key(folder), owner.document()):
            return
    store.delete_tree(folder)
    store.delete(_key(folder))
