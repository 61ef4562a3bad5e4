"""Pretraining of a detector's backbone as a classifier of crops."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kubeyolo.bundle import BundleManifest, DatasetReference
from kubeyolo.config.schema import Config, TrainConfig
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.errors import InputError
from kubeyolo.models.registry import check_batch_norm, model_facts
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import open_store, split_uri
from kubeyolo.training.class_images import class_images
from kubeyolo.training.crops import (
    VALIDATION_CROPS,
    ClassFolder,
    CropBatches,
    Crops,
    crop_bytes,
    object_crops,
    validation_batches,
)
from kubeyolo.training.extension import EXTENDED, pair_option
from kubeyolo.training.finite import Guard, remedy_for, remembered
from kubeyolo.training.growth import growth_warnings, usual_sizes, weight_sizes
from kubeyolo.training.history import HistoryRow
from kubeyolo.training.learnable import show_warnings
from kubeyolo.training.loop import Hooks, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output, Print
from kubeyolo.training.memory import backbone_memory_warnings
from kubeyolo.training.output import is_complete, publish_weights, state_to_continue
from kubeyolo.training.schedules import Schedule, cosine_factor
from kubeyolo.training.spec import TrainingSpec, training_identity

if TYPE_CHECKING:
    from kubeyolo.training.classifier import Classifier

FINAL_LR = 0.01
"""Last learning rate as a fraction of the peak."""

CROP_MEMORY = 1 << 30
"""Bytes of crops that are kept in memory; of more objects a random choice is taken."""


class _Source:
    """Where crops come from: a validated detection set or a folder of classes."""

    def __init__(self, spec: TrainingSpec) -> None:
        self._spec = spec
        folder = _class_folder(spec.dataset, spec.cache)
        self._folder = ClassFolder.open(folder) if folder else None
        if self._folder and folder:
            self.classes = self._folder.classes
            self.outputs = len(self.classes)
            name = split_uri(spec.dataset)[1]
            self.reference = DatasetReference(name=name, digest=self._folder.digest, uri=open_store(spec.dataset).uri)
        else:
            self._dataset = open_dataset(spec.dataset, spec.cache)
            manifest = self._dataset.manifest
            self.classes = manifest.classes
            # One more: places without objects.
            self.outputs = len(self.classes) + 1
            self.reference = DatasetReference(name=manifest.name, digest=manifest.digest, uri=self._dataset.uri)

    def crops(self) -> tuple[Crops, Crops]:
        """Return the crops to train on and the ones held out: those of val, or one file in eight."""
        config, seed = self._spec.config.pretrain, self._spec.config.train.seed
        limit = max(config.per_batch_size, CROP_MEMORY // crop_bytes(config.image_size))
        if self._folder:
            crops = self._folder.crops(config, False, limit), self._folder.crops(config, True, VALIDATION_CROPS)
        else:
            crops = (
                object_crops(self._dataset.split("train"), len(self.classes), config, limit, seed),
                object_crops(self._dataset.split("val"), len(self.classes), config, VALIDATION_CROPS, seed),
            )
        if min(len(part) for part in crops) == 0:
            raise InputError(
                f"{self._spec.dataset}: no object is at least {config.min_object_size} pixels large; "
                "lower pretrain.min_object_size or set pretrain.enabled to false"
            )
        return crops


def pretrain_backbone(spec: TrainingSpec, stop: StopRequest, show: Print = print) -> None:
    """Train the backbone of ``spec.config.model`` as a classifier and publish it at ``<output>/bundle``.

    Raises:
        InputError: The data set or the configuration cannot be used, or the output holds another run.
        WorkError: The loss is not finite.
        Interrupted: Stopped on request, after a checkpoint.
    """
    check_batch_norm(spec.config, "pretrain")
    source = _Source(spec)
    identity = training_identity(spec, source.reference.digest, "", 1)
    store = open_store(spec.output)
    if is_complete(store, identity, spec, show):
        return
    state = state_to_continue(store, identity, spec, True, show)
    identity = identity if state is None else state.identity
    crops, held_out = source.crops()
    show(f"pretraining on {len(crops)} crops of {len(source.classes)} classes, {len(held_out)} held out")
    config = spec.config
    crops_size = (len(crops) + len(held_out)) * crop_bytes(config.pretrain.image_size)
    show_warnings(backbone_memory_warnings(model_facts(config.model), config, crops_size), show)
    configure_mindspore(config.train.device_target)
    # Only here: MindSpore must be configured before it is imported.
    from kubeyolo.training.classifier import Classifier
    from kubeyolo.training.engine import Engine

    batches = CropBatches(crops, config.pretrain, config.augment, config.train.seed)
    network = Classifier(config.model, source.outputs, config.train.seed)
    steps = _total_steps(config, batches.steps_per_epoch)
    _say_if_no_longer(identity, config, steps, batches.steps_per_epoch, show)
    engine = _build_engine(Engine, network, source.outputs, config, steps)
    sizes = usual_sizes(network)
    accuracy = _Accuracy(network, held_out, config, show)
    settings = LoopSettings(
        total_steps=steps,
        images_per_step=config.pretrain.per_batch_size,
        log_interval=config.train.log_interval,
        keep_checkpoints=1,
        kind="pretrain",
        parts=("",),
    )
    guard = Guard(remedy_for(config, spec.task))
    with remembered(store):
        output = Output(store, identity, spec.code_digest, spec.writer)
        loop = TrainingLoop(engine, batches, settings, output, Hooks(stop, show, accuracy.row, guard=guard))
        loop.run(state)
        manifest = _manifest(spec, source, accuracy.last if accuracy.last is not None else accuracy.measure())
        warnings = growth_warnings(sizes, weight_sizes(network), config.pretrain)
        show_warnings(warnings, show)
        uri = publish_weights(output, engine, loop.sessions, manifest, guard, prefix="backbone.", warnings=warnings)
    show(f"published {uri}")


class _Accuracy:
    """Measures the share of held-out crops that are classified rightly."""

    def __init__(self, network: Classifier, crops: Crops, config: Config, show: Print) -> None:
        from kubeyolo.training.classifier import Scorer

        self.last: float | None = None
        self._network, self._crops, self._config, self._show = network, crops, config.pretrain, show
        self._scorer = Scorer(network)

    def row(self, epoch: int, step: int) -> HistoryRow:
        accuracy = self.measure()
        self._show(f"epoch[{epoch}], held-out accuracy:{accuracy:.4f}")
        return HistoryRow(kind="pretrain", step=step, epoch=epoch, accuracy=accuracy)

    def measure(self) -> float:
        from mindspore import Tensor

        self._scorer.set_train(False)
        right = 0
        for batch in validation_batches(self._crops, self._config):
            logits = self._scorer(Tensor(batch.images)).asnumpy()
            right += int(np.count_nonzero(logits.argmax(1) == batch.labels))
        self._network.set_train(True)
        self.last = right / len(self._crops)
        return self.last


def _build_engine(engine: type, network: Classifier, num_classes: int, config: Config, steps: int) -> Any:
    """Return the engine: AdamW with a cosine over the steps, a tenth of them warm-up."""
    from kubeyolo.training.classifier import ClassificationLoss

    pretrain = config.pretrain
    train = TrainConfig(
        optimizer="adamw",
        lr=pretrain.lr,
        momentum=0.9,
        weight_decay=pretrain.weight_decay,
        grad_clip=config.train.grad_clip,
    )
    schedule = Schedule(
        # The factor falls with every step: there are too few epochs for one step down at each.
        steps_per_epoch=1,
        lr=pretrain.lr,
        factor=functools.partial(cosine_factor, epochs=steps, final=FINAL_LR),
        warmup=steps // 10,
        momentum=train.momentum,
        warmup_momentum=train.momentum,
        lag=0,
    )
    return engine(network, ClassificationLoss(num_classes), train, schedule, average=False)


def _total_steps(config: Config, steps_per_epoch: int) -> int:
    return min(config.pretrain.max_epoch * steps_per_epoch, config.pretrain.max_steps)


def _say_if_no_longer(identity: dict[str, Any], config: Config, steps: int, steps_per_epoch: int, show: Print) -> None:
    """Say what to raise where an extension adds no step because the other length ends the training."""
    last = identity.get(EXTENDED, [{"step": -1}])[-1]
    if last["step"] == steps:
        epochs, longest = config.pretrain.max_epoch, config.pretrain.max_steps
        other = (
            pair_option("pretrain.max_steps", epochs * steps_per_epoch)
            if longest == steps
            else pair_option("pretrain.max_epoch", -(-longest // steps_per_epoch))
        )
        show(
            f"warning: no step is added: of pretrain.max_epoch = {epochs} ({steps_per_epoch} steps each) and "
            f"pretrain.max_steps = {longest} the shorter one counts; add {other}"
        )


def _manifest(spec: TrainingSpec, source: _Source, accuracy: float) -> BundleManifest:
    facts, size = model_facts(spec.config.model), spec.config.pretrain.image_size
    return BundleManifest(
        kind="backbone",
        model=spec.config.model,
        classes=source.classes,
        image_size=(size, size),
        strides=facts.strides,
        anchors=facts.anchors,
        config=spec.config.model_dump(mode="json"),
        dataset=source.reference,
        code_digest=spec.code_digest,
        metrics={"pretrain": {"accuracy": accuracy}},
    )


def _class_folder(uri: str, cache: Path | None) -> Path | None:
    """Return a folder with the images by class, or None when a validated data set lies there, or nothing.

    A reference is one of a validated data set: images by class have no digest of their own.
    """
    if split_reference(uri)[1]:
        return None
    store = open_store(uri)
    folder = store.local_path()
    if store.exists(MANIFEST_NAME) or (folder is not None and not folder.is_dir()):
        return None
    return class_images(uri, cache)
