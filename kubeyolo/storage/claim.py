"""A claim on an output: only one process at a time writes it, on any machine and by any path.

The claim is an object in the output. It names its owner and has a heartbeat, a number that the owner increases every
few seconds. A process that finds a claim waits until the owner has marked the claim as ended; the object stays. The
process takes the claim over at once if the owner was a process on the same machine and has ended, else after the
heartbeat has not changed for :data:`GONE_SECONDS`. The waiting process measures this time: clocks of machines are
never compared.

An owner that paused for that long, such as a laptop that slept, may continue after its claim was taken over. So the
owner checks its claim before each write that could replace the work of another process (:func:`check_claim`).

The claim on an output of steps stays when the work has ended. A claim that only orders the writers of one moment, such
as two copies to the same folder, is removed.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.errors import InputError, KubeyoloError, WorkError
from kubeyolo.processes import is_running
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.file_errors import removed_if_empty
from kubeyolo.storage.place import Place

CLAIM_NAME = "claim.json"
"""Name of the object in a claimed output."""

HEARTBEAT_SECONDS = 10.0
"""Time between two heartbeats of an owner."""

GONE_SECONDS = 60.0
"""An owner whose heartbeat has not changed for this time is treated as gone."""

_SAY_SECONDS = 30.0
_POLL_SECONDS = 0.5
_PROCESSES = Path("/proc")
_START_FIELD = 19
"""Index of the start of a process in the fields of ``/proc/PID/stat`` after its name."""


class Claim(BaseModel):
    """``claim.json``.

    Attributes:
        owner: Unique name of this claim.
        writer: Name of the job or process that may write in the output. A job outlives the process that started it,
            and another process may adopt the job; without a job the writer is ``owner``.
        process: Process id of the owner.
        host: Name of its machine.
        machine: Identifies the machine or container whose process ids include ``process``; empty if unknown.
        started: When the process started, in ticks since the start of its machine: a later process with the same id
            has a different value.
        heartbeat: Number that the owner increases while it works.
        ended: Whether the owner has ended its work.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    owner: str
    writer: str
    process: int
    host: str
    machine: str = ""
    started: str = ""
    heartbeat: int = 0
    ended: bool = False

    @property
    def words(self) -> str:
        """A text that names the owner."""
        return f"process {self.process} on {self.host}" if self.owner else "an unknown process"

    def document(self) -> bytes:
        """Return the content of the object."""
        return self.model_dump_json(indent=1).encode()


@contextmanager
def claimed(place: Place, writer: str = "", key: str = CLAIM_NAME, stays: bool = True) -> Iterator[Claim]:
    """Claim an output for the block, after waiting until no other process has a claim on it.

    If the block raises and has stored nothing, the claim and the new folder of the output are removed.

    Args:
        place: The output.
        writer: Name of the job that may write there; by default only the owner of this claim may write.
        key: Key of the claim in the output.
        stays: Whether the claim stays, marked as ended, after the block; otherwise it is removed.

    Raises:
        InputError: The store cannot be used or written.
        WorkError: The store fails.
    """
    store, claim = place.store, own_claim(writer)
    folder = store.local_path()
    with removed_if_empty(folder) if folder is not None else nullcontext():
        _acquire(store, claim, key)
        failed = True
        try:
            with beating(place, claim, key):
                yield claim
            failed = False
        finally:
            # If this fails, the next process takes the claim over later.
            with suppress(KubeyoloError):
                _end(place.impatient().store, claim, key, stays, failed)


@contextmanager
def beating(place: Place, claim: Claim, key: str = CLAIM_NAME) -> Iterator[None]:
    """Increase the heartbeat of a claim during the block."""
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(place, claim, key, ended), daemon=True, name="claim")
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()


def check_claim(store: Store, writer: str) -> None:
    """Check that the claim on a store's root still belongs to a writer; an empty name means work without a claim.

    A missing claim is allowed: the whole output was removed, and the next write creates it again.

    Raises:
        WorkError: Another process has taken over the output.
    """
    if not writer:
        return
    try:
        claim = read_claim(store)[0]
    except NotFound:
        return
    # An unreadable claim names no new owner; the current owner writes it again.
    if claim.owner and claim.writer != writer:
        raise WorkError(
            f"{store.uri}: {claim.words} took over this output because no heartbeat arrived for {GONE_SECONDS:.0f} s; "
            "nothing more is written here; run the same command again to wait for that process"
        )


def own_claim(writer: str = "") -> Claim:
    """Return a new claim of this process; an empty ``writer`` means that only its owner may write."""
    owner, process = uuid.uuid4().hex, os.getpid()
    return Claim(
        owner=owner,
        writer=writer or owner,
        process=process,
        host=platform.node() or "this machine",
        machine=_machine(),
        started=_start_of(process) or "",
    )


def _end(store: Store, claim: Claim, key: str, stays: bool, failed: bool) -> None:
    """Mark a claim as ended, or remove it if it is not needed any more."""
    present, _, etag = read_claim(store, key)
    if present.owner not in ("", claim.owner):
        return
    if stays and not (failed and [stored.key for stored in store.list()] == [key]):
        store.replace_bytes(key, claim.model_copy(update={"ended": True}).document(), etag)
    else:
        store.delete(key)


def _acquire(store: Store, claim: Claim, key: str) -> None:
    seen, since = b"", time.monotonic()
    say_at = since
    while not store.create_bytes(key, claim.document()):
        asked = time.monotonic()
        try:
            holder, data, etag = read_claim(store, key)
        except NotFound:
            if asked - since > GONE_SECONDS:
                raise InputError(f"{store.uri_of(key)}: can neither be read nor written; remove it") from None
            time.sleep(_POLL_SECONDS)
            continue
        now = time.monotonic()
        # While the store was unreachable, the owner could not increase its heartbeat either.
        if data != seen or now - asked > HEARTBEAT_SECONDS:
            seen, since = data, now
        lives = owner_lives(holder)
        if holder.ended or lives is False or (lives is None and now - since > GONE_SECONDS):
            if not store.replace_bytes(key, claim.document(), etag):
                continue
            if not holder.ended:
                print(f"taking over {store.uri}: {holder.words} ended without releasing its claim", flush=True)
            return
        if now >= say_at:
            print(f"waiting for {holder.words}, which is working in {store.uri}", flush=True)
            say_at = now + _SAY_SECONDS
        time.sleep(_POLL_SECONDS)


def read_claim(store: Store, key: str = CLAIM_NAME) -> tuple[Claim, bytes, str]:
    """Return the current claim, the content of its object, and the etag of this content.

    Raises:
        NotFound: There is no claim.
    """
    data, etag = store.read_version(key)
    try:
        return Claim.model_validate_json(data), data, etag
    except ValidationError:
        # Damaged, or written by a different version: the owner is unknown, and there is no heartbeat.
        return Claim(owner="", writer="", process=0, host=""), data, etag


def _beat(place: Place, claim: Claim, key: str, ended: threading.Event) -> None:
    """Increase the heartbeat until the work has ended, or another process has the claim."""
    beat = claim.heartbeat
    while not ended.wait(HEARTBEAT_SECONDS):
        # A store that does not answer now is tried again with the next heartbeat.
        with suppress(KubeyoloError):
            store = place.impatient().store
            beat += 1
            document = claim.model_copy(update={"heartbeat": beat}).document()
            try:
                present, _, etag = read_claim(store, key)
            except NotFound:
                store.create_bytes(key, document)
                continue
            if present.owner not in ("", claim.owner):
                return
            store.replace_bytes(key, document, etag)


def present_owner(store: Store) -> str:
    """Return the owner of the claim on a store's root in words; empty if there is no claim or it has ended."""
    try:
        holder = read_claim(store)[0]
    except NotFound:
        return ""
    return "" if holder.ended or owner_lives(holder) is False else holder.words


def is_claimed(store: Store, is_beating: bool) -> bool:
    """Tell whether a process works in a store's root.

    Args:
        store: The output.
        is_beating: Whether the claim was written recently: it decides if this machine cannot see the owner.
    """
    try:
        holder = read_claim(store)[0]
    except NotFound:
        return False
    lives = owner_lives(holder)
    return not holder.ended and (is_beating if lives is None else lives)


def owner_lives(holder: Claim) -> bool | None:
    """Tell whether the owner of a claim is still running; None if this machine cannot find out."""
    if not holder.machine or holder.machine != _machine():
        return None
    if not is_running(holder.process):
        return False
    started = _start_of(holder.process)
    # The processes of other users may be hidden.
    return None if started is None else started == holder.started


def _machine() -> str:
    """Return a text that is the same in all processes that see the same process ids; a reboot changes it."""
    with suppress(OSError):
        boot = (_PROCESSES / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(_PROCESSES / 'self' / 'ns' / 'pid')}"
    return ""


def _start_of(process: int) -> str | None:
    """Return when a process started; an empty string if it has ended and was not waited for, None if unknown."""
    with suppress(OSError, IndexError):
        state = (_PROCESSES / str(process) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        fields = state.split()
        return "" if fields[0] in ("Z", "X") else fields[_START_FIELD]
    return None
