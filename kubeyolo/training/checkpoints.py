"""Checkpoints in a store: ``checkpoints/step-00001234/`` with the complete state that training continues from.

A folder is a checkpoint only if its ``checkpoint.json``, written last, exists and every file matches its checksum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from kubeyolo.arrays import Float32Array
from kubeyolo.documents import NotJson, read_model
from kubeyolo.output_streams import Show
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.integrity import sha256_bytes, sha256_file
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training.best import Candidate
from kubeyolo.training.finite import first_not_finite

FOLDER = "checkpoints"
MANIFEST_NAME = "checkpoint.json"
SCHEMA_VERSION = 1

Arrays = dict[str, Float32Array]

_PARTS = ("weights", "ema", "moments")
_HISTORY = "history.jsonl"
_IN_MANIFEST = (
    "step",
    "identity",
    "ema_updates",
    "optimizer_steps",
    "pending",
    "code_digest",
    "sessions",
    "best",
    "scaler",
)
"""Attributes of the state that are stored in the manifest of a checkpoint."""

_NAME = re.compile(r"step-(\d{8})")


@dataclass
class TrainingState:
    """The complete state that training continues from.

    Attributes:
        step: Optimizer steps done; the next step has this number.
        identity: What the final weights depend on, by key.
        weights: Raw weights and batch normalization statistics by parameter name.
        ema: Their exponential moving average.
        moments: Moments of the optimizer by ``<moment>.<parameter name>``.
        ema_updates: Updates of the average so far.
        optimizer_steps: Updates by the optimizer so far, for its bias correction, without those that were skipped.
        pending: Losses of the steps since the last row of the history.
        history: The history so far, as JSON lines.
        code_digest: Digest of the library that wrote the state.
        sessions: First step and duration in seconds of each session of the training, from the first start to the
            latest.
        best: The best validations so far, whose weights are files of their own in the output.
        scaler: Values of the scaler of the loss by name; empty if the loss is not scaled.
    """

    step: int
    identity: dict[str, Any]
    weights: Arrays
    ema: Arrays = field(default_factory=dict)
    moments: Arrays = field(default_factory=dict)
    ema_updates: int = 0
    optimizer_steps: int = 0
    pending: list[list[float]] = field(default_factory=list)
    history: bytes = b""
    code_digest: str = ""
    sessions: list[tuple[int, float]] = field(default_factory=list)
    best: list[Candidate] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)


class CheckpointFile(BaseModel):
    """Size and checksum of one file of a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class CheckpointManifest(BaseModel):
    """``checkpoint.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    step: int
    ema_updates: int
    optimizer_steps: int
    identity: dict[str, Any]
    pending: list[list[float]]
    code_digest: str
    sessions: list[tuple[int, float]]
    # Checkpoints of earlier versions do not have these fields.
    best: list[Candidate] = []
    scaler: dict[str, float] = {}
    files: dict[str, CheckpointFile]


class _Damaged(Exception):
    """The checkpoint cannot be used; the message has the reason."""


def checkpoint_key(step: int) -> str:
    """Return the folder of a step's checkpoint."""
    return f"{FOLDER}/step-{step:08d}"


def write_checkpoint(store: Store, state: TrainingState, keep: int = 3) -> str:
    """Store a checkpoint, remove all checkpoints but the newest ``keep``, and return the URI of the new checkpoint."""
    key = checkpoint_key(state.step)
    with temporary_folder("checkpoint") as folder:
        for part in _PARTS:
            # safetensors writes the buffer as it lies in memory, whatever the strides say.
            arrays = {name: np.ascontiguousarray(array) for name, array in getattr(state, part).items()}
            save_file(arrays, folder / f"{part}.safetensors")
        (folder / _HISTORY).write_bytes(state.history)
        files = {
            path.name: CheckpointFile(size=path.stat().st_size, sha256=sha256_file(path))
            for path in sorted(folder.iterdir())
        }
        manifest = CheckpointManifest(files=files, **{name: getattr(state, name) for name in _IN_MANIFEST})
        (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))
        # An interrupted training may have left unfinished uploads of this step; only this process writes in the output.
        store.remove_remains(key, [*files, MANIFEST_NAME])
        store.put_tree(folder, key, last=MANIFEST_NAME)
    _remove_old(store, state.step, keep)
    return store.uri_of(key)


def newest_checkpoint(store: Store, warn: Show) -> TrainingState | None:
    """Return the newest complete checkpoint, or None.

    Args:
        store: The output of the training run.
        warn: Called with one line for each checkpoint that is skipped because it is incomplete or damaged.
    """
    for step in sorted(_steps(store), reverse=True):
        try:
            return _read(store, checkpoint_key(step))
        except _Damaged as reason:
            warn(f"skipping checkpoint {store.uri_of(checkpoint_key(step))}: {reason}")
    return None


def newest_step(store: Store) -> int | None:
    """Return the step of the newest complete checkpoint, or None if there is none; the checkpoint is not read."""
    return max(_steps(store, MANIFEST_NAME), default=None)


def newest_manifest(store: Store) -> CheckpointManifest | None:
    """Return the manifest of the newest checkpoint, or None if there is no checkpoint; its files are not checked."""
    for step in sorted(_steps(store), reverse=True):
        with suppress(NotFound, ValidationError, NotJson):
            return read_manifest(store, checkpoint_key(step))
    return None


def read_manifest(store: Store, key: str) -> CheckpointManifest:
    """Return the manifest of the checkpoint in a folder of a store.

    Raises:
        NotFound: The manifest was not written.
        NotJson: The manifest is not JSON.
        ValidationError: The manifest is damaged.
    """
    name = f"{key}/{MANIFEST_NAME}"
    return read_model(store.read_bytes(name), CheckpointManifest, store.uri_of(name))


def best_files(store: Store) -> set[str]:
    """Return the keys of the files with weights of best validations that any checkpoint in a store names."""
    keys: set[str] = set()
    for step in _steps(store, MANIFEST_NAME):
        with suppress(NotFound, ValidationError, NotJson):
            keys |= {each.key for each in read_manifest(store, checkpoint_key(step)).best}
    return keys


def remove_checkpoints(store: Store) -> None:
    """Remove all checkpoints, so that training starts from step 0."""
    for step in sorted(_steps(store)):
        store.delete_tree(checkpoint_key(step), first=MANIFEST_NAME)


def _read(store: Store, key: str) -> TrainingState:
    try:
        manifest = read_manifest(store, key)
    except NotFound:
        raise _Damaged(f"it is incomplete, {MANIFEST_NAME} was not written") from None
    except (ValidationError, NotJson):
        raise _Damaged(f"{MANIFEST_NAME} is damaged") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise _Damaged(f"its schema version is {manifest.schema_version}, this program reads {SCHEMA_VERSION}")
    contents = {name: _checked(store, key, name, file) for name, file in manifest.files.items()}
    try:
        parts: Mapping[str, Arrays] = {part: load(contents[f"{part}.safetensors"]) for part in _PARTS}
        history = contents[_HISTORY]
    except (KeyError, SafetensorError) as error:
        raise _Damaged(f"its files cannot be read ({error})") from None
    for part, arrays in parts.items():
        if (bad := first_not_finite(arrays)) is not None:
            raise _Damaged(f"{part}.safetensors: {bad[1]} values of {bad[0]!r} are infinite or NaN")
    values: dict[str, Any] = {name: getattr(manifest, name) for name in _IN_MANIFEST}
    return TrainingState(history=history, **{**values, **parts})


def _checked(store: Store, key: str, name: str, file: CheckpointFile) -> bytes:
    try:
        data = store.read_bytes(f"{key}/{name}")
    except NotFound:
        raise _Damaged(f"{name} is missing") from None
    if len(data) != file.size or sha256_bytes(data) != file.sha256:
        raise _Damaged(f"{name} does not match its checksum")
    return data


def _steps(store: Store, name: str = "") -> set[int]:
    """Return the steps that have a folder in the store, or if ``name`` is set, a folder with a file of this name."""
    parts = (stored.key.split("/", 2) for stored in store.list(FOLDER) if stored.key.count("/") >= 2)
    matches = (_NAME.match(folder) for _, folder, rest in parts if not name or rest == name)
    return {int(match[1]) for match in matches if match}


def _remove_old(store: Store, newest: int, keep: int) -> None:
    """Remove all complete checkpoints but the newest ``keep``, and older folders of interrupted writes."""
    complete = sorted(step for step in _steps(store, MANIFEST_NAME) if step <= newest)
    kept = set(complete[-keep:])
    for step in _steps(store):
        if step < newest and step not in kept:
            store.delete_tree(checkpoint_key(step), first=MANIFEST_NAME)
