"""Earlier trainings that a new training could continue, because only their length or the version of kubeyolo differs.

The output of a training is named after its settings, the code and the packages, so that an update of the library or
a different length leads to a new output. An earlier training is reported with the command that continues it.
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
from kubeyolo.storage.base import StoredObject
from kubeyolo.storage.claim import present_owner
from kubeyolo.storage.place import Place
from kubeyolo.training import checkpoints
from kubeyolo.training.extension import (
    as_pairs,
    changed_keys,
    distribution_words,
    is_longer,
    is_redistributed,
    lengths,
    missing_values,
    pair_option,
)
from kubeyolo.training.result import RESULT_NAME, read_result
from kubeyolo.training.spec import TrainingSpec

Command = Callable[[str], str]
"""Returns the command line that trains with the output at a URI."""

_MOST_READ = 32
_CHECKPOINT = re.compile(rf"([^/]+)/{checkpoints.FOLDER}/step-(\d{{8}})/{re.escape(checkpoints.MANIFEST_NAME)}")


@dataclass(frozen=True)
class EarlierTraining:
    """A training that a new training could continue.

    Attributes:
        output: Its output.
        identity: Everything that its weights depend on.
        step: Number of completed steps.
        is_finished: Whether its bundle is published.
    """

    output: Place
    identity: Mapping[str, Any]
    step: int
    is_finished: bool

    @property
    def copy(self) -> str:
        """URI of a copy that may be extended: the name of the output itself depends on the length."""
        return f"{self.output}-from-step-{self.step}"


def name_earlier_trainings(
    spec: TrainingSpec, output: Place, step: str, dataset: str, command: Command | None = None
) -> None:
    """Print a line for an earlier training that a new training could continue; never raise an error.

    Args:
        spec: The new training.
        output: Its output.
        step: ``train`` or ``pretrain_backbone``.
        dataset: The stored data set, as an argument of the command.
        command: Returns the command line for a different output; by default it is made from the specification.
    """
    with suppress(KubeyoloError, OSError, ValueError, LookupError):
        typed = command or (lambda other: command_of(spec, step, dataset, other))
        trainings = earlier_trainings(spec, output)
        if not trainings:
            return
        identity = identity_of(spec, output)
        same = [each for each in trainings if not changed_keys(each.identity, identity) and not each.is_finished]
        others = [each for each in same if is_redistributed(each.identity, identity)]
        older = [each for each in trainings if _is_older(each, identity)]
        shorter = [each for each in trainings if is_longer(each.identity, identity)]
        for each in _furthest(others):
            print(
                f"{step}: a training with {distribution_words(each.identity)} and otherwise the same settings is "
                f"unfinished at step {each.step}{_of_total(spec, output)}{_unless_running(each)}; this training starts "
                f"from step 0. To continue the earlier training with {distribution_words(identity)}: "
                f"{typed(each.output.uri)}",
                flush=True,
            )
        for each in _furthest(each for each in same if each not in others):
            print(
                f"{step}: a different version of the library or of its packages left a training with the same settings "
                f"unfinished at step {each.step}{_of_total(spec, output)}{_unless_running(each)}; this training starts "
                f"from step 0. To continue the earlier training: {typed(each.output.uri)}",
                flush=True,
            )
        for each in _furthest(older):
            missing = missing_values(each.identity, identity)
            print(
                f"{step}: an earlier version of the library, which did not have {' and '.join(missing)}, left a "
                f"training with otherwise the same settings unfinished at step {each.step}{_of_total(spec, output)}"
                f"{_unless_running(each)}; this training starts from step 0. To continue the earlier training as it "
                f"was: {typed(each.output.uri)} {as_pairs(missing, list(missing))}",
                flush=True,
            )
        for each in _furthest(shorter):
            state = "finished" if each.is_finished else "unfinished"
            print(
                f"{step}: a shorter training with otherwise the same settings is {state} at step {each.step}"
                f"{_unless_running(each)}; this training starts from step 0. To extend a copy of the shorter training "
                f"{lengths(each.identity, identity)}: {copy_command(each)} && {typed(each.copy)}",
                flush=True,
            )


def earlier_trainings(spec: TrainingSpec, output: Place) -> list[EarlierTraining]:
    """Return the earlier trainings of the model in the folder that the new output is in, the newest first.

    The store is listed once. The list is empty if the output is not named after the training, or has content.
    Trainings that cannot be read are left out.
    """
    model = spec.config.model
    if not is_named_after_training(output, model):
        return []
    name, room = output.name, output.parent
    newest: dict[str, int] = {}
    finished: set[str] = set()
    written: dict[str, float] = {}
    for stored in room.store.list():
        folder = stored.key.partition("/")[0]
        match, is_result = _CHECKPOINT.fullmatch(stored.key), stored.key == f"{folder}/{RESULT_NAME}"
        if not (match or is_result) or not is_named_after_training(room / folder, model):
            continue
        if match:
            newest[folder] = max(newest.get(folder, 0), int(match[2]))
        else:
            finished.add(folder)
        written[folder] = max(written.get(folder, 0.0), _seconds(stored))
    if name in written:
        return []
    latest = sorted(written, key=lambda folder: written[folder], reverse=True)[:_MOST_READ]
    return [each for folder in latest for each in _read(room / folder, newest.get(folder), folder in finished)]


def command_of(spec: TrainingSpec, step: str, dataset: str, output: str) -> str:
    """Return the command line that runs a training with a different output and all settings that are not defaults."""
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


def refuse_extension(spec: TrainingSpec, output: Place) -> None:
    """Refuse to extend a training in an output that is named after its settings: other runs look up this name.

    Raises:
        InputError: The output has such a name, and holds a shorter training with otherwise the same settings.
    """
    if not is_named_after_training(output, spec.config.model):
        return
    newest = checkpoints.newest_manifest(output.store)
    if newest is None:
        return
    training = EarlierTraining(output, newest.identity, newest.step, False)
    identity = identity_of(spec, output)
    if is_longer(training.identity, identity):
        raise InputError(
            f"{output}: its name stands for the current length, and pipelines look up this name; to extend "
            f"it {lengths(training.identity, identity)}, copy it first: {copy_command(training)}; then run the same "
            f"command with {shlex.join(['--output', training.copy])}"
        )


def copy_command(training: EarlierTraining) -> str:
    """Return the command line that copies a training to a URI at which it may be extended."""
    return shlex.join(["kubeyolo", "copy", training.output.uri, training.copy])


def _read(output: Place, newest: int | None, is_finished: bool) -> Iterable[EarlierTraining]:
    store = output.store
    with suppress(KubeyoloError, OSError, ValueError):
        result = read_result(output.store) if is_finished else None
        if newest is not None:
            manifest = checkpoints.read_manifest(store, checkpoints.checkpoint_key(newest))
            # The newest checkpoint of a finished training may be from its extension.
            done = result is not None and not changed_keys(result.identity, manifest.identity)
            yield EarlierTraining(output, manifest.identity, manifest.step, done)


def _is_older(training: EarlierTraining, identity: Mapping[str, Any]) -> bool:
    """Tell whether an unfinished training differs only in settings that its version of the library did not have."""
    missing = missing_values(training.identity, identity)
    same = {**identity, **missing}
    return bool(missing) and not training.is_finished and not changed_keys(training.identity, same)


def _furthest(trainings: Iterable[EarlierTraining]) -> list[EarlierTraining]:
    return sorted(trainings, key=lambda each: each.step)[-1:]


def _unless_running(training: EarlierTraining) -> str:
    owner = "" if training.is_finished else present_owner(training.output.store)
    return f", unless {owner} is still training it" if owner else ""


def _of_total(spec: TrainingSpec, output: Place) -> str:
    if spec.task == "backbone":
        return f" of at most {spec.config.pretrain.max_steps}"
    train = spec.config.train
    images = open_dataset(output.at(spec.dataset), spec.cache).manifest.splits["train"].images
    return f" of {train.max_epoch * -(-images // (train.per_batch_size * spec.processes))}"


def _seconds(stored: StoredObject) -> float:
    return stored.modified.timestamp() if stored.modified else 0.0
