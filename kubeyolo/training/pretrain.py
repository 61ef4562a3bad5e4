"""Pretraining of a detector's backbone as a classifier of crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.bundle import BundleManifest, DatasetReference
from kubeyolo.config.load import config_digest
from kubeyolo.config.schema import Config
from kubeyolo.data.class_crops import ClassCrops
from kubeyolo.data.class_images import ClassFolder, check_folder, class_images
from kubeyolo.data.crops import CropBatches, Crops, crop_bytes, object_crops
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import check_batch_norm, model_facts
from kubeyolo.output_streams import Show
from kubeyolo.provenance import made_now
from kubeyolo.runtime import check_device, configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.distribution import Distribution, check_world, join, threads_for
from kubeyolo.training.extension import EXTENDED, pair_option
from kubeyolo.training.finite import Guard, remedy_for, remembered
from kubeyolo.training.growth import growth_warnings, usual_sizes, weight_sizes
from kubeyolo.training.learnable import show_warnings
from kubeyolo.training.loop import Hooks, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.memory_advice import backbone_memory_warnings
from kubeyolo.training.output import is_complete, publish_weights, state_to_continue
from kubeyolo.training.spec import TrainingSpec, training_identity

VALIDATION_CROPS = 1024
"""Largest number of crops that accuracy is measured on."""

CROP_MEMORY = 1 << 30
"""Largest size of all crops in memory, in bytes; if there are more objects, a random selection is used."""


class _Source:
    """The source of crops: a validated data set of a detector, or a folder with one folder per class.

    Attributes:
        classes: Names of the classes.
        outputs: Number of outputs of the classifier.
        reference: The data, for the bundle.
        images: What the crops are, in the plural.
    """

    def __init__(self, spec: TrainingSpec) -> None:
        self._spec = spec
        self._files: list[tuple[ClassCrops, str]] = []
        data = Place.of(spec.dataset)
        folder = _class_folder(data, spec.cache, needs_images=bool(spec.config.pretrain.data))
        self._folder = ClassFolder.open(folder) if folder else None
        self.images = "images" if folder else "crops"
        if self._folder and folder:
            self.classes = self._folder.layout.classes
            self.outputs = len(self.classes)
            self.reference = DatasetReference(name=data.name, digest=self._folder.digest, uri=data.uri)
        else:
            self._dataset = open_dataset(data, spec.cache)
            manifest = self._dataset.manifest
            self.classes = manifest.classes
            # An additional class: crops without objects.
            self.outputs = len(self.classes) + 1
            self.reference = DatasetReference(name=manifest.name, digest=manifest.digest, uri=self._dataset.uri)

    def crops(self, show: Show) -> tuple[Crops | ClassCrops, Crops]:
        """Return the crops to train on and the held-out crops: the crops of val, or one file in eight.

        Raises:
            InputError: There are no crops, or too many images cannot be decoded.
        """
        config, seed = self._spec.config.pretrain, self._spec.config.train.seed
        if self._folder:
            return self._class_crops(self._folder, show)
        limit = max(config.per_batch_size, CROP_MEMORY // crop_bytes(config.image_size))
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

    def _class_crops(self, folder: ClassFolder, show: Show) -> tuple[ClassCrops, Crops]:
        """Return the images of a classification set, the training images as files; warn about damaged images."""
        size, layout = self._spec.config.pretrain.image_size, folder.layout
        train, held = layout.parts()
        limit = VALIDATION_CROPS if layout.val is None else CROP_MEMORY // crop_bytes(size)
        if len(held) > limit:
            held = [held[i] for i in np.linspace(0, len(held) - 1, limit).astype(int)]
        crops = ClassCrops(folder.root, train, size, CROP_MEMORY)
        crops.read_ahead()
        held_out = ClassCrops(folder.root, held, size, 0, "held-out images")
        readable = held_out.readable()
        self._files = [(crops, "the next image is used in place of each"), (held_out, "are left out")]
        show_warnings(self.warnings(), show)
        return crops, readable

    def warnings(self) -> list[str]:
        """Return warnings about the layout, and about the images found until now that cannot be decoded."""
        of_layout = self._folder.layout.warnings if self._folder else ()
        return [*of_layout, *(line for files, consequence in self._files for line in files.warnings(consequence))]


def pretrain_backbone(spec: TrainingSpec, distribution: Distribution, stop: StopRequest, show: Show = print) -> None:
    """Train the backbone of ``spec.config.model`` as a classifier and publish it at ``<output>/bundle``.

    Args:
        spec: The pretraining.
        distribution: This process among all processes.
        stop: Request to stop after the current step.
        show: Shows a line.

    Raises:
        InputError: The data set or the configuration cannot be used, or the output has a different training.
        WorkError: The loss is not finite.
        Interrupted: Stopped on request, after a checkpoint.
    """
    check_world("pretrain.processes", spec.processes, distribution)
    check_batch_norm(spec.config, "pretrain")
    source = _Source(spec)
    identity = training_identity(spec, source.reference.digest, "", distribution.world)
    place = Place.of(spec.output)
    if is_complete(place, identity, spec, show):
        return
    check_device(spec.config.pretrain.device_target)
    state = state_to_continue(place.store, identity, spec, distribution.is_first, show)
    identity = identity if state is None else state.identity
    crops, held_out = source.crops(show)
    shown, config = source.warnings(), spec.config
    show(f"pretraining on {len(crops)} {source.images} of {len(source.classes)} classes, {len(held_out)} held out")
    memory = crops.nbytes + held_out.nbytes
    show_warnings(backbone_memory_warnings(model_facts(config.model), config, memory), show)
    world = distribution.world
    configure_mindspore(config.pretrain.device_target, threads_for(world) if world > 1 else None)
    if world > 1:
        join(distribution)
    # Only here: MindSpore must be configured before it is imported.
    from kubeyolo.training.classifier import Accuracy, Classifier, build_engine

    batches = CropBatches(crops, config.pretrain, config.augment, config.train.seed, distribution.rank, world)
    network = Classifier(config.model, source.outputs, config.train.seed)
    steps = min(config.pretrain.max_epoch * batches.steps_per_epoch, config.pretrain.max_steps)
    _warn_if_no_longer(identity, config, steps, batches.steps_per_epoch, show)
    engine = build_engine(network, source.outputs, config, steps, world)
    sizes = usual_sizes(network)
    accuracy = Accuracy(network, held_out, config.pretrain, show)
    settings = _loop_settings(config, steps, world)
    guard = Guard(remedy_for(config, spec.task))
    with remembered(place.store):
        output = Output(place, identity, spec.code_digest, spec.writer, is_written=distribution.is_first)
        after_epoch = accuracy.row if distribution.is_first else None
        hooks = Hooks(stop, show, after_epoch, distribution.synchronize, guard)
        loop = TrainingLoop(engine, batches, settings, output, hooks)
        loop.run(state)
        if not distribution.is_first:
            return
        manifest = _manifest(spec, source, accuracy.last or accuracy.measure())
        warnings = source.warnings() + growth_warnings(sizes, weight_sizes(network), config.pretrain)
        show_warnings([line for line in warnings if line not in shown], show)
        uri = publish_weights(output, engine, loop.journal.sessions, manifest, guard, warnings=warnings)
    show(f"published {uri}")


def _loop_settings(config: Config, steps: int, world: int) -> LoopSettings:
    return LoopSettings(
        total_steps=steps,
        images_per_step=config.pretrain.per_batch_size * world,
        log_interval=config.train.log_interval,
        keep_checkpoints=1,
        kind="pretrain",
        parts=("",),
        world=world,
        tensorboard=config.train.tensorboard,
        need_profiler=config.train.need_profiler,
    )


def _warn_if_no_longer(identity: dict[str, Any], config: Config, steps: int, steps_per_epoch: int, show: Show) -> None:
    """Warn if an extension adds no step because the other length setting ends the training, and name this setting."""
    last = identity.get(EXTENDED, [{"step": -1}])[-1]
    if last["step"] == steps:
        epochs, longest = config.pretrain.max_epoch, config.pretrain.max_steps
        other = (
            pair_option("pretrain.max_steps", epochs * steps_per_epoch)
            if longest == steps
            else pair_option("pretrain.max_epoch", -(-longest // steps_per_epoch))
        )
        show(
            f"warning: no step is added, because the shorter of pretrain.max_epoch = {epochs} ({steps_per_epoch} steps "
            f"each) and pretrain.max_steps = {longest} ends the training; add {other}"
        )


def _inputs(spec: TrainingSpec, source: _Source) -> dict[str, str]:
    """Return the digests of what a backbone is made from, by name."""
    return {"dataset": source.reference.digest, "configuration": config_digest(spec.config)}


def _manifest(spec: TrainingSpec, source: _Source, metrics: dict[str, float]) -> BundleManifest:
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
        provenance=(made_now("pretrain_backbone", _inputs(spec, source), spec.code_digest),),
        metrics={"pretrain": metrics},
    )


def _class_folder(place: Place, cache: Path | None, needs_images: bool) -> Path | None:
    """Return a folder with the images by class; None for a validated data set, or if nothing exists at the URI.

    A reference always names a validated data set: a folder of images by class has no digest.

    Raises:
        InputError: The place is that of ``pretrain.data`` (``needs_images``), and nothing exists there.
    """
    if place.digest:
        return None
    store = place.store
    if store.exists(MANIFEST_NAME):
        return None
    folder = store.local_path()
    if folder is not None and needs_images:
        check_folder(folder)
    if folder is not None and not folder.is_dir():
        return None
    return class_images(place, cache)
