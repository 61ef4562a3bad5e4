"""Training of a detector: from a data set and a configuration to a published bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.numpy import load_file

from kubeyolo.arrays import check_finite
from kubeyolo.bundle import WEIGHTS, Bundle, BundleManifest, DatasetReference, Preprocessing, open_bundle
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.loader import Loader
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import check_batch_norm, check_image_size
from kubeyolo.models.registry import build_model
from kubeyolo.output_streams import Show
from kubeyolo.runtime import check_device, configure_mindspore
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place
from kubeyolo.training.batch_pictures import pictured_epochs
from kubeyolo.training.distribution import Distribution, check_world, join, threads_for
from kubeyolo.training.finite import Guard, remedy_for, remembered
from kubeyolo.training.growth import growth_warnings, usual_sizes, weight_sizes
from kubeyolo.training.learnable import Learnable, look_at_training, loss_warnings, show_warnings
from kubeyolo.training.loop import Hooks, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.memory_advice import detector_memory_warnings, worker_warnings
from kubeyolo.training.output import is_complete, publish_weights, state_to_continue
from kubeyolo.training.schedules import build_schedule
from kubeyolo.training.spec import TrainingSpec, training_identity
from kubeyolo.training.validation import Validation

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine


def train_detector(spec: TrainingSpec, distribution: Distribution, stop: StopRequest, show: Show = print) -> None:
    """Train, or continue to train, and publish the bundle at ``<output>/bundle``.

    Raises:
        InputError: The data set, the backbone, the configuration or the store cannot be used, or the output has a
            training with different settings.
        WorkError: The loss is not finite, or a worker failed.
        Interrupted: Stopped on request, after a checkpoint.
    """
    check_world("train.processes", spec.processes, distribution)
    check_image_size(spec.config)
    check_batch_norm(spec.config, "train")
    facts = trained_facts(spec.config)
    dataset = open_dataset(Place.of(spec.dataset), spec.cache)
    backbone = _open_backbone(spec)
    identity = training_identity(spec, dataset.manifest.digest, _digest(backbone), distribution.world)
    place = Place.of(spec.output)
    if is_complete(place, identity, spec, show):
        return
    check_device(spec.config.train.device_target)
    state = state_to_continue(place.store, identity, spec, distribution.is_first, show)
    identity = identity if state is None else state.identity
    train = spec.config.train
    output = Output(place, identity, spec.code_digest, spec.writer, is_written=distribution.is_first)
    guard = Guard(remedy_for(spec.config, spec.task), dataset.split("train").index.file_name)
    manifest = _manifest(spec, facts, dataset, backbone)
    with remembered(place.store):
        with _loader(spec, dataset, distribution) as loader:
            learnable = _first_look(spec, facts, dataset, loader, distribution, show) if output.is_written else None
            configure_mindspore(train.device_target, threads_for(distribution.world))
            if distribution.world > 1:
                join(distribution)
            engine = _build_engine(spec, facts, len(dataset.classes), loader.steps_per_epoch, distribution, backbone)
            sizes = usual_sizes(engine.network)
            validate = None
            if output.is_written and train.val_interval:
                validate = Validation(engine, dataset, manifest, spec.config.evaluate, train.val_interval, show).row
            hooks = Hooks(stop, show, validate, distribution.synchronize, guard)
            loop = TrainingLoop(engine, loader, _loop_settings(spec, loader, dataset.classes), output, hooks)
            loop.run(state)
        if learnable is None:
            return
        last = [
            *loss_warnings(loop.journal.history.of("train")),
            *loader.warnings(),
            *growth_warnings(sizes, weight_sizes(engine.network), train),
        ]
        show_warnings(last, show)
        warnings = (*learnable.warnings, *last)
        uri = publish_weights(
            output, engine, loop.journal.sessions, manifest, guard, warnings=warnings, anchor_recall=learnable.recall
        )
    show(f"published {uri}")


def _loader(spec: TrainingSpec, dataset: Dataset, distribution: Distribution) -> Loader:
    train = spec.config.train
    return Loader(
        dataset.split("train"),
        spec.config.data,
        spec.config.augment,
        train.image_size,
        train.per_batch_size,
        train.seed,
        distribution.rank,
        distribution.world,
        max_epoch=train.max_epoch,
    )


def _loop_settings(spec: TrainingSpec, loader: Loader, classes: tuple[str, ...]) -> LoopSettings:
    train = spec.config.train
    return LoopSettings(
        total_steps=train.max_epoch * loader.steps_per_epoch,
        images_per_step=train.per_batch_size * spec.processes,
        log_interval=train.log_interval,
        checkpoint_interval=train.ckpt_interval,
        keep_checkpoints=train.keep_checkpoints,
        world=spec.processes,
        tensorboard=train.tensorboard,
        need_profiler=train.need_profiler,
        pictured=pictured_epochs(train.max_epoch, spec.config.augment.close_mosaic),
        classes=classes,
    )


def _first_look(
    spec: TrainingSpec, facts: ModelFacts, dataset: Dataset, loader: Loader, distribution: Distribution, show: Show
) -> Learnable:
    """Report whether the data suits the training and the training fits this machine; return the findings."""
    config, world, index = spec.config, distribution.world, dataset.split("train").index
    learnable = look_at_training(index, facts, config, loader.steps_per_epoch, spec.dataset)
    learnable.show(show)
    show_warnings(detector_memory_warnings(facts, config, len(index.width), len(dataset.classes), world), show)
    show_warnings(worker_warnings(config, world), show)
    return learnable


def _build_engine(
    spec: TrainingSpec,
    facts: ModelFacts,
    num_classes: int,
    steps_per_epoch: int,
    distribution: Distribution,
    backbone: Bundle | None,
) -> Engine:
    # Only here: MindSpore must be configured before it is imported.
    from kubeyolo.losses.build import build_loss
    from kubeyolo.training.engine import Engine, load_parameters
    from kubeyolo.training.optimizers import group_parameters
    from kubeyolo.training.step import GradientSum

    train = spec.config.train
    network = build_model(spec.config.model, num_classes, facts.anchors, seed=train.seed)
    if backbone is not None:
        own = {p.name: p for p in network.get_parameters() if p.name.startswith("backbone.")}
        arrays = load_file(backbone.path(WEIGHTS))
        check_finite(backbone.uri, arrays.items())
        load_parameters(own, arrays, f"weights of {backbone.uri}")
    loss = build_loss(
        facts,
        num_classes,
        train.image_size,
        box_gain=train.box_gain,
        obj_gain=train.obj_gain,
        cls_gain=train.cls_gain,
        anchor_t=train.anchor_t,
        label_smooth_factor=train.label_smooth_factor,
    )
    shapes = [parameter.shape for parameter in group_parameters(network).all]
    reduce = GradientSum(shapes) if distribution.world > 1 else None
    return Engine(network, loss, train, build_schedule(train, steps_per_epoch), reduce)


def _open_backbone(spec: TrainingSpec) -> Bundle | None:
    if spec.backbone is None:
        return None
    bundle = open_bundle(Place.of(spec.backbone), spec.cache)
    if bundle.manifest.kind != "backbone" or bundle.manifest.model != spec.config.model:
        raise InputError(
            f"{spec.backbone}: is a {bundle.manifest.kind} of {bundle.manifest.model}, "
            f"not a backbone of {spec.config.model}; pretrain one for this model"
        )
    return bundle


def _digest(backbone: Bundle | None) -> str:
    return "" if backbone is None else sha256_bytes(backbone.manifest.files[WEIGHTS].sha256.encode())


def _manifest(spec: TrainingSpec, facts: ModelFacts, dataset: Dataset, backbone: Bundle | None) -> BundleManifest:
    size = spec.config.train.image_size
    manifest = dataset.manifest
    return BundleManifest(
        kind="detector",
        model=spec.config.model,
        classes=manifest.classes,
        category_ids=manifest.category_ids,
        image_size=(size, size),
        strides=facts.strides,
        anchors=facts.anchors,
        config=spec.config.model_dump(mode="json"),
        preprocessing=Preprocessing(levels=manifest.levels),
        dataset=DatasetReference(
            name=manifest.name,
            digest=manifest.digest,
            uri=dataset.uri,
            findings=tuple(finding.brief() for finding in manifest.findings),
        ),
        parent=None if backbone is None else backbone.uri,
        code_digest=spec.code_digest,
    )
