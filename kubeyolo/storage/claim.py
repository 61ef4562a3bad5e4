"""A claim on a place in a store: one process at a time works there, whatever the machine, the user or the path.

The claim is an object of the store with the name of its owner and a number that the owner raises every few seconds, the
heartbeat. A process that finds a claim waits until the owner has marked it as ended; the object stays. It takes the
claim over when the owner is known to be gone, being a process of the same machine, or when the heartbeat has stood
still for :data:`GONE_SECONDS` on the clock of the process that waits: the clocks of machines are never compared.

An owner that was away for so long, such as a computer that slept, may wake after its claim was taken over. So what it
started looks at the claim before each write that could replace the work of another process (:func:`check_claim`).
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.errors import InputError, KubeyoloError, WorkError
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.uri import open_store

CLAIM_NAME = "claim.json"
"""Name of the object at the place that is claimed."""

HEARTBEAT_SECONDS = 10.0
"""Time between two heartbeats of an owner."""

GONE_SECONDS = 60.0
"""An owner whose heartbeat stands still for so long is taken for gone."""

SAY_SECONDS = 30.0
"""Time between two lines that say for whom this process waits."""

_POLL_SECONDS = 0.5
_PROCESSES = Path("/proc")
_START_FIELD = 19
"""Where the start of a process is among the fields of ``/proc/PID/stat`` that follow its name."""


class Claim(BaseModel):
    """``claim.json``.

    Attributes:
        owner: Name of this claim: that of no other one.
        writer: Name of those who may write at the place. It is that of a job that outlives the process which started
            it, and is taken up again by another one; else it is ``owner``.
        process: Process id of the owner.
        host: Name of its machine.
        machine: What tells its process ids from those of other machines and containers; empty if that is not known.
        started: When the process was started, in ticks since its machine was; tells it from a later one of this id.
        heartbeat: Raised as long as the owner works.
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
        """The owner, in words."""
        return f"process {self.process} on {self.host}" if self.owner else "a process that is not known"

    def document(self) -> bytes:
        """Return the content of the object."""
        return self.model_dump_json(indent=1).encode()


@contextmanager
def claimed(place: str, writer: str = "", say_seconds: float = SAY_SECONDS) -> Iterator[Claim]:
    """Hold a place of a store for the block, once those that hold it are done or gone.

    Args:
        place: URI of the place.
        writer: Name of those who may write there; by default of this claim alone.
        say_seconds: Time between two lines that say for whom this process waits.

    Raises:
        InputError: The store cannot be used or written.
        WorkError: The store fails.
    """
    store = open_store(place)
    claim = _own_claim(writer)
    _acquire(store, claim, say_seconds)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(place, claim, ended), daemon=True, name="claim")
    beats.start()
    try:
        yield claim
    finally:
        ended.set()
        beats.join()
        # Whoever comes next takes it over in any case.
        with suppress(KubeyoloError):
            store = open_store(place, hasty=True)
            held, _, etag = _held(store)
            if held.owner in ("", claim.owner):
                store.replace_bytes(CLAIM_NAME, claim.model_copy(update={"ended": True}).document(), etag)


def check_claim(store: Store, writer: str) -> None:
    """Look whether the claim on a store's root still is that of a writer; an empty name stands for work without one.

    Where the claim was removed, so was the whole place: what is written makes it anew.

    Raises:
        WorkError: Another process has taken the place over.
    """
    if not writer:
        return
    try:
        claim = _held(store)[0]
    except NotFound:
        return
    # A claim that cannot be read names no new owner; the present one writes it anew.
    if claim.owner and claim.writer != writer:
        raise WorkError(
            f"{store.uri}: {claim.words} took over this output because no heartbeat arrived for {GONE_SECONDS:.0f} s; "
            "nothing more is written here; the same command waits for that process"
        )


def _own_claim(writer: str) -> Claim:
    owner, process = uuid.uuid4().hex, os.getpid()
    return Claim(
        owner=owner,
        writer=writer or owner,
        process=process,
        host=platform.node() or "this machine",
        machine=_machine(),
        started=_start_of(process) or "",
    )


def _acquire(store: Store, claim: Claim, say_seconds: float) -> None:
    seen, since = b"", time.monotonic()
    say_at = since
    while not store.create_bytes(CLAIM_NAME, claim.document()):
        asked = time.monotonic()
        try:
            holder, data, etag = _held(store)
        except NotFound:
            if asked - since > GONE_SECONDS:
                raise InputError(
                    f"{store.uri_of(CLAIM_NAME)}: can neither be read nor made; remove it, whatever it is"
                ) from None
            time.sleep(_POLL_SECONDS)
            continue
        now = time.monotonic()
        # A store that was away was so for the owner too, who could not raise the heartbeat.
        if data != seen or now - asked > HEARTBEAT_SECONDS:
            seen, since = data, now
        lives = _lives(holder)
        if holder.ended or lives is False or (lives is None and now - since > GONE_SECONDS):
            if not store.replace_bytes(CLAIM_NAME, claim.document(), etag):
                continue
            if not holder.ended:
                print(f"taking over {store.uri}: {holder.words} ended without releasing its claim", flush=True)
            return
        if now >= say_at:
            print(f"waiting for {holder.words}, which works at {store.uri}", flush=True)
            say_at = now + say_seconds
        time.sleep(_POLL_SECONDS)


def _held(store: Store) -> tuple[Claim, bytes, str]:
    """Return the present claim, the content of its object, and the etag of that."""
    data, etag = store.read_version(CLAIM_NAME)
    try:
        return Claim.model_validate_json(data), data, etag
    except ValidationError:
        # Of another version, or damaged: it has an owner that is not known, and no heartbeat.
        return Claim(owner="", writer="", process=0, host=""), data, etag


def _beat(place: str, claim: Claim, ended: threading.Event) -> None:
    """Raise the heartbeat until the work has ended, or another process has the claim."""
    beat = claim.heartbeat
    while not ended.wait(HEARTBEAT_SECONDS):
        # A store that does not answer now is tried again with the next heartbeat.
        with suppress(KubeyoloError):
            store = open_store(place, hasty=True)
            beat += 1
            document = claim.model_copy(update={"heartbeat": beat}).document()
            try:
                held, _, etag = _held(store)
            except NotFound:
                store.create_bytes(CLAIM_NAME, document)
                continue
            if held.owner not in ("", claim.owner):
                return
            store.replace_bytes(CLAIM_NAME, document, etag)


def present_owner(store: Store) -> str:
    """Return the owner of a store's root in words, unless it has ended or is known to be gone; else an empty text."""
    try:
        holder = _held(store)[0]
    except NotFound:
        return ""
    return "" if holder.ended or _lives(holder) is False else holder.words


def _lives(holder: Claim) -> bool | None:
    """Tell whether the owner of a claim is still there; None where that cannot be seen from here."""
    if not holder.machine or holder.machine != _machine():
        return None
    try:
        os.kill(holder.process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # It is another user's.
    started = _start_of(holder.process)
    # The processes of other users may be hidden.
    return None if started is None else started == holder.started


def _machine() -> str:
    """Return what all processes share that see the same process ids, until the machine starts again."""
    with suppress(OSError):
        boot = (_PROCESSES / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(_PROCESSES / 'self' / 'ns' / 'pid')}"
    return ""


def _start_of(process: int) -> str | None:
    """Return when a process was started; empty when nothing but its exit code is left, None where that is hidden."""
    with suppress(OSError, IndexError):
        state = (_PROCESSES / str(process) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        fields = state.split()
        return "" if fields[0] in ("Z", "X") else fields[_START_FIELD]
    return None
