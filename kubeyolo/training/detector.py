"""Training of a detector: from a data set and a configuration to a published bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kubeyolo.bundle import BundleManifest, DatasetReference, Preprocessing
from kubeyolo.config.load import config_digest
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.loader import Loader
from kubeyolo.data.sampler import SizeSchedule
from kubeyolo.formats import counted
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import (
    check_batch_norm,
    check_image_size,
    check_precision,
    model_facts,
    training_sizes,
)
from kubeyolo.models.ranges import check_quantization
from kubeyolo.models.registry import build_model
from kubeyolo.output_streams import Show
from kubeyolo.provenance import made_now
from kubeyolo.runtime import check_device, configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.batch_pictures import pictured_epochs
from kubeyolo.training.best import BestWeights
from kubeyolo.training.distribution import Distribution, check_early_stop, check_world, join, threads_for
from kubeyolo.training.early_stop import EarlyStop
from kubeyolo.training.extension import PARTNER_WINDOW
from kubeyolo.training.finite import Guard, remedy_for, remembered
from kubeyolo.training.freeze import freeze
from kubeyolo.training.growth import growth_warnings, usual_sizes, weight_sizes
from kubeyolo.training.hints import Hints
from kubeyolo.training.learnable import Learnable, look_at_training, loss_warnings, show_warnings
from kubeyolo.training.loop import Hooks, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.memory_advice import detector_memory_warnings, worker_warnings
from kubeyolo.training.output import SHARES, is_complete, publish_weights, state_to_continue
from kubeyolo.training.pace import Gather
from kubeyolo.training.schedules import build_schedule
from kubeyolo.training.selection import Selection
from kubeyolo.training.small_sets import small_set_note
from kubeyolo.training.spec import TrainingSpec, training_identity
from kubeyolo.training.start import Start
from kubeyolo.training.validation import Validation, plan_validation, share_of

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
    _check(spec, distribution)
    facts = trained_facts(spec.config)
    dataset = open_dataset(Place.of(spec.dataset), spec.cache)
    start = Start.of(spec)
    identity = training_identity(spec, dataset.manifest.digest, world=distribution.world, **start.digests)
    place = Place.of(spec.output)
    if is_complete(place, identity, spec, show):
        return
    check_device(spec.config.train.device_target)
    state = state_to_continue(place.store, identity, spec, distribution.is_first, show)
    identity = identity if state is None else state.identity
    train = spec.config.train
    output = Output(place, identity, spec.code_digest, spec.writer, is_written=distribution.is_first)
    guard = Guard(remedy_for(spec.config, spec.task), dataset.split("train").index.file_name)
    manifest = _manifest(spec, facts, dataset, start)
    with remembered(place.store):
        with _loader(spec, dataset, distribution, identity) as loader:
            learnable = _first_look(spec, facts, dataset, loader, distribution, show) if output.is_written else None
            first_show = show if output.is_written else _silent
            plan = plan_validation(spec.config, dataset, loader.steps_per_epoch, first_show)
            configure_mindspore(train.device_target, threads_for(distribution.world))
            if distribution.world > 1:
                join(distribution)
            classes, steps = dataset.manifest.classes, loader.steps_per_epoch
            engine = _build_engine(spec, facts, classes, steps, start, identity, first_show)
            sizes = usual_sizes(engine.network)
            metadata = manifest.weights_metadata
            validates = plan is not None and output.is_written
            best = BestWeights(place.store, train.top_k, guard, metadata, spec.writer) if validates else None
            share = share_of(distribution, place / SHARES)
            validate = Validation(engine, dataset, manifest, spec.config, plan, best, show, share).row if plan else None
            settings = _loop_settings(spec, loader, dataset.classes)
            hints = _hints(spec, settings.total_steps, dataset, show) if output.is_written else None
            gather = gather_function(distribution.world) if distribution.world > 1 else None
            early = EarlyStop.of(train)
            hooks = Hooks(stop, show, validate, distribution.synchronize, guard, hints, best, early, gather)
            loop = TrainingLoop(engine, loader, settings, output, hooks)
            loop.run(state)
        if learnable is None or hints is None:
            return
        history = loop.journal.history
        last = [
            *start.warnings(facts.anchors),
            *loss_warnings(history.of("train")),
            *loader.warnings(),
            *growth_warnings(sizes, weight_sizes(engine.network), train),
        ]
        show_warnings(last, show)
        uri = publish_weights(
            output,
            engine,
            loop.journal.sessions,
            manifest,
            guard,
            warnings=(*learnable.warnings, *last, *hints.show_new(history)),
            anchor_recall=learnable.recall,
            selection=Selection(best, train.keep, train.val_split, history, show) if best else None,
        )
    show(f"published {uri}")


def _check(spec: TrainingSpec, distribution: Distribution) -> None:
    """Refuse a training whose settings do not fit each other or its processes."""
    check_world("train.processes", spec.processes, distribution)
    check_early_stop("train.patience", spec.config.train.patience, distribution)
    check_image_size(spec.config)
    check_precision(spec.config)
    check_batch_norm(spec.config, "train")
    check_quantization(spec.config, has_weights=spec.weights is not None)


def _loader(spec: TrainingSpec, dataset: Dataset, distribution: Distribution, identity: dict[str, Any]) -> Loader:
    train = spec.config.train
    # A training of an earlier version continues with partners from all images.
    augment = spec.config.augment.model_copy(update={"partner_window": identity.get(PARTNER_WINDOW, 0)})
    return Loader(
        dataset.split("train"),
        spec.config.data,
        augment,
        train.image_size,
        train.per_batch_size,
        train.seed,
        distribution.rank,
        distribution.world,
        max_epoch=train.max_epoch,
        sizes=_sizes(spec),
    )


def _sizes(spec: TrainingSpec) -> SizeSchedule:
    train = spec.config.train
    return SizeSchedule(training_sizes(model_facts(spec.config.model), train), train.resize_rate, train.seed)


def _loop_settings(spec: TrainingSpec, loader: Loader, classes: tuple[str, ...]) -> LoopSettings:
    train = spec.config.train
    return LoopSettings(
        total_steps=train.max_epoch * loader.steps_per_epoch,
        images_per_step=train.per_batch_size * spec.processes,
        log_interval=train.log_interval,
        checkpoint_interval=train.ckpt_interval,
        keep_checkpoints=train.keep_checkpoints,
        is_scaled=train.scaling != "none",
        world=spec.processes,
        tensorboard=train.tensorboard,
        need_profiler=train.need_profiler,
        pictured=pictured_epochs(train.max_epoch, spec.config.augment.close_mosaic),
        classes=classes,
        sizes=_sizes(spec) if train.multi_scale else None,
    )


def _hints(spec: TrainingSpec, total_steps: int, dataset: Dataset, show: Show) -> Hints:
    index = dataset.split("train").index
    counts = np.bincount(index.box_class[~index.box_crowd], minlength=len(dataset.classes))
    boxes = dict(zip(dataset.classes, counts.tolist(), strict=True))
    return Hints(spec.config.train, total_steps, boxes, show, has_learned=spec.weights is not None)


def _first_look(
    spec: TrainingSpec, facts: ModelFacts, dataset: Dataset, loader: Loader, distribution: Distribution, show: Show
) -> Learnable:
    """Report whether the data suits the training and the training fits this machine; return the findings."""
    config, world, index = spec.config, distribution.world, dataset.split("train").index
    learnable = look_at_training(index, facts, config, loader.steps_per_epoch, spec.dataset)
    learnable.show(show)
    classes = len(np.unique(index.box_class))
    if spec.weights is None and (note := small_set_note(facts, config, len(index.width), classes)):
        show(note)
    show_warnings(detector_memory_warnings(facts, config, len(index.width), len(dataset.classes), world), show)
    show_warnings(worker_warnings(config, world), show)
    if loader.note:
        show(loader.note)
    return learnable


def _build_engine(
    spec: TrainingSpec,
    facts: ModelFacts,
    classes: tuple[str, ...],
    steps_per_epoch: int,
    start: Start,
    identity: dict[str, Any],
    show: Show,
) -> Engine:
    # Only here: MindSpore must be configured before it is imported.
    from kubeyolo.losses.build import build_loss
    from kubeyolo.models.fake_quantization import fake_quantize
    from kubeyolo.models.precision import Cast, use_half_precision
    from kubeyolo.training.compile_cache import graph_store
    from kubeyolo.training.engine import Engine
    from kubeyolo.training.optimizers import group_parameters
    from kubeyolo.training.recompute import recompute
    from kubeyolo.training.step import GradientSum
    from kubeyolo.training.sync_bn import synchronize

    train, num_classes = spec.config.train, len(classes)
    network = build_model(spec.config.model, num_classes, facts.anchors, seed=train.seed)
    start.load(network, classes)
    if (rows := start.classes(classes)) is not None:
        show(f"starting from the detector {start.uri}: {rows.words()}")
    if train.freeze:
        show(freeze(network, train.freeze).words())
    if train.fake_quantize:
        show(fake_quantize(network).words())
    if train.sync_bn:
        show(synchronize(network, spec.processes))
    if train.compute_type != "float32":
        show(use_half_precision(network, Cast(train.compute_type)).words(train.compute_type))
    if train.recompute:
        show(f"recomputing the activations of {counted(recompute(network), 'block')} in the backward pass")
    loss = build_loss(
        facts,
        num_classes,
        train.image_size,
        box_gain=train.box_gain,
        obj_gain=train.obj_gain,
        cls_gain=train.cls_gain,
        anchor_t=train.anchor_t,
        label_smooth_factor=train.smoothing,
        loss_scale=train.loss_scale,
        processes=spec.processes,
        synchronized=train.sync_bn,
    )
    shapes = [parameter.shape for parameter in group_parameters(network).all]
    reduce = GradientSum(shapes) if spec.processes > 1 else None
    accumulation = build_accumulation(train, train.per_batch_size * spec.processes, steps_per_epoch)
    schedule = build_schedule(train, steps_per_epoch)
    store = graph_store(spec, identity, show)
    return Engine(network, loss, train, schedule, reduce, accumulation=accumulation, store=store)


def gather_function(world: int) -> Gather:
    """Return a function that gathers a vector of each of ``world`` processes, which must have joined."""
    # Only here: MindSpore must be configured before it is imported.
    from mindspore import Tensor

    from kubeyolo.training.step import VectorGather

    cell = VectorGather(world)
    return lambda vector: np.asarray(cell(Tensor(vector)).asnumpy())


def _silent(line: str) -> None:
    """Show nothing: only the first process reports what all of them do."""


def _inputs(spec: TrainingSpec, dataset: str, start: Start) -> dict[str, str]:
    """Return the digests of what a detector is made from, by name."""
    started = {"weights": start.weights, "backbone": start.backbone}
    bundles = {name: bundle.digest for name, bundle in started.items() if bundle is not None}
    return {"dataset": dataset, "configuration": config_digest(spec.config), **bundles}


def _manifest(spec: TrainingSpec, facts: ModelFacts, dataset: Dataset, start: Start) -> BundleManifest:
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
        config={**spec.config.model_dump(mode="json"), **start.record(manifest.classes)},
        preprocessing=Preprocessing(levels=manifest.levels),
        dataset=DatasetReference(
            name=manifest.name,
            digest=manifest.digest,
            uri=dataset.uri,
            findings=tuple(finding.brief() for finding in manifest.findings),
        ),
        parent=start.uri,
        metrics=start.metrics,
        code_digest=spec.code_digest,
        provenance=(*start.provenance, made_now("train", _inputs(spec, dataset.digest, start), spec.code_digest)),
    )
