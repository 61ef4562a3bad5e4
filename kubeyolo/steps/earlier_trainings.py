"""Trainings of a store that a new one could go on with: of another version of the library, or shorter ones.

The place of a training is named after its settings, the code and the packages, so that an update of the library or
another length leads to a new place. What lies in the old one is named, with the command that goes on with it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError, KubeyoloError
from kubeyolo.steps.outputs import is_named_after_training
from kubeyolo.steps.same_training import identity_of
from kubeyolo.steps.settings import sections_of
from kubeyolo.storage.base import Store, StoredObject
from kubeyolo.storage.claim import present_owner
from kubeyolo.storage.uri import open_store, split_uri
from kubeyolo.training import checkpoints
from kubeyolo.training.extension import changed_keys, is_longer, lengths, pair_option
from kubeyolo.training.result import RESULT_NAME, parse_result
from kubeyolo.training.spec import TrainingSpec

Command = Callable[[str], str]
"""From the URI of an output to the command line that works there."""

_MOST_READ = 32
_CHECKPOINT = re.compile(rf"([^/]+)/{checkpoints.FOLDER}/step-(\d{{8}})/{re.escape(checkpoints.MANIFEST_NAME)}")


@dataclass(frozen=True)
class EarlierTraining:
    """A training that a new one could go on with.

    Attributes:
        uri: Its output.
        identity: What its weights depend on.
        step: Steps that are done.
        is_finished: Whether its bundle is published.
    """

    uri: str
    identity: Mapping[str, Any]
    step: int
    is_finished: bool

    @property
    def copy(self) -> str:
        """URI of a copy that may be extended: the place itself has the name of its length."""
        return f"{self.uri}-from-step-{self.step}"


def name_earlier_trainings(spec: TrainingSpec, step: str, dataset: str, command: Command | None = None) -> None:
    """Print a line for a training that a new one, in a place named after it, could go on with; it never fails.

    Args:
        spec: The new training.
        step: ``train`` or ``pretrain_backbone``.
        dataset: The stored data set as the command takes it.
        command: Gives the command line for another output; by default it is made of the specification.
    """
    with suppress(KubeyoloError, OSError, ValueError, LookupError):
        typed = command or (lambda output: command_of(spec, step, dataset, output))
        found = earlier_trainings(spec)
        if not found:
            return
        identity = identity_of(spec)
        same = [each for each in found if not changed_keys(each.identity, identity) and not each.is_finished]
        shorter = [each for each in found if is_longer(each.identity, identity)]
        for each in _furthest(same):
            print(
                f"{step}: another version of the library or of its packages has left a training with the same settings "
                f"unfinished at step {each.step}{_of_total(spec)}{_unless_running(each)}; this training starts from "
                f"step 0. To continue the earlier one: {typed(each.uri)}",
                flush=True,
            )
        for each in _furthest(shorter):
            state = "finished" if each.is_finished else "unfinished"
            print(
                f"{step}: a shorter training with otherwise the same settings is {state} at step {each.step}"
                f"{_unless_running(each)}; this training starts from step 0. To extend a copy of the shorter one "
                f"{lengths(each.identity, identity)}: {copy_command(each)} && {typed(each.copy)}",
                flush=True,
            )


def earlier_trainings(spec: TrainingSpec) -> list[EarlierTraining]:
    """Return the trainings of the model next to the place of a new one, the newest first.

    The store is listed once. None are returned where the place is not one that is named after the training, or holds
    something already. What cannot be read is left out.
    """
    model = spec.config.model
    if not is_named_after_training(spec.output, model):
        return []
    parent, name = split_uri(spec.output)
    room = open_store(parent)
    newest: dict[str, int] = {}
    finished: set[str] = set()
    written: dict[str, float] = {}
    for stored in room.list():
        folder = stored.key.partition("/")[0]
        match, is_result = _CHECKPOINT.fullmatch(stored.key), stored.key == f"{folder}/{RESULT_NAME}"
        if not (match or is_result) or not is_named_after_training(room.uri_of(folder), model):
            continue
        if match:
            newest[folder] = max(newest.get(folder, 0), int(match[2]))
        else:
            finished.add(folder)
        written[folder] = max(written.get(folder, 0.0), _seconds(stored))
    if name in written:
        return []
    latest = sorted(written, key=lambda folder: written[folder], reverse=True)[:_MOST_READ]
    return [each for folder in latest for each in _read(room.child(folder), newest.get(folder), folder in finished)]


def command_of(spec: TrainingSpec, step: str, dataset: str, output: str) -> str:
    """Return the command line that does a training at another output: with each setting that is not the default."""
    config = spec.config
    reads = STEPS[step].reads
    usual = sections_of(load_config(config.model), reads)
    parts = ["kubeyolo", "train" if spec.task == "detector" else "pretrain", dataset, "--model", config.model]
    parts += ["--backbone", spec.backbone] if spec.backbone else []
    pairs = [
        pair_option(f"{section}.{key}", value)
        for section, values in sections_of(config, reads).items()
        for key, value in values.items()
        if value != usual[section][key]
    ]
    return " ".join([shlex.join(parts), *pairs, shlex.join(["--output", output])])


def refuse_extension(spec: TrainingSpec) -> None:
    """Refuse to extend a training whose place has the name of its settings: whatever asks for those finds it there.

    Raises:
        InputError: The output is such a place, and holds a shorter training of otherwise the same settings.
    """
    if not is_named_after_training(spec.output, spec.config.model):
        return
    store = open_store(spec.output)
    newest = checkpoints.newest_manifest(store)
    if newest is None:
        return
    found = EarlierTraining(store.uri, newest.identity, newest.step, False)
    identity = identity_of(spec)
    if is_longer(found.identity, identity):
        raise InputError(
            f"{store.uri}: its name stands for the present length, and pipelines look it up by this name; to extend "
            f"it {lengths(found.identity, identity)}, copy it first: {copy_command(found)}; then run the same command "
            f"with {shlex.join(['--output', found.copy])}"
        )


def copy_command(found: EarlierTraining) -> str:
    """Return the command line that copies a training to where it may be extended."""
    return shlex.join(["kubeyolo", "copy", found.uri, found.copy])


def _read(store: Store, newest: int | None, is_finished: bool) -> Iterable[EarlierTraining]:
    with suppress(KubeyoloError, OSError, ValueError):
        result = parse_result(store.read_bytes(RESULT_NAME), store.uri_of(RESULT_NAME)) if is_finished else None
        if newest is not None:
            manifest = checkpoints.read_manifest(store, checkpoints.checkpoint_key(newest))
            # The newest checkpoint of a finished training may be that of its extension.
            done = result is not None and not changed_keys(result.identity, manifest.identity)
            yield EarlierTraining(store.uri, manifest.identity, manifest.step, done)


def _furthest(found: Iterable[EarlierTraining]) -> list[EarlierTraining]:
    return sorted(found, key=lambda each: each.step)[-1:]


def _unless_running(training: EarlierTraining) -> str:
    owner = "" if training.is_finished else present_owner(open_store(training.uri))
    return f", unless {owner} is still training it" if owner else ""


def _of_total(spec: TrainingSpec) -> str:
    if spec.task == "backbone":
        return f" of at most {spec.config.pretrain.max_steps}"
    train = spec.config.train
    images = open_dataset(spec.dataset, spec.cache).manifest.splits["train"].images
    return f" of {train.max_epoch * -(-images // (train.per_batch_size * spec.processes))}"


def _seconds(stored: StoredObject) -> float:
    return stored.modified.timestamp() if stored.modified else 0.0
