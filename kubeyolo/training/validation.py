"""Validation during the training: the averaged weights on a split of the data set, in a separate network.

Several processes share the images as in the step ``evaluate``: each detects in its share of the batches, and rank 0
computes the metrics of all detections. The batches are the same as with one process, and so are the metrics.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kubeyolo.arrays import AnyArray
from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import Config
from kubeyolo.config.validation_interval import validation_interval, validation_share
from kubeyolo.data.dataset import Dataset
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.evaluation.runtimes import CellRuntime
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.evaluation.split_evaluation import detect_split, evaluate_split
from kubeyolo.formats import counted, share_text
from kubeyolo.models.registry import build_model
from kubeyolo.output_streams import Show
from kubeyolo.storage.place import Place
from kubeyolo.training.best import BestWeights
from kubeyolo.training.distribution import Distribution, arrays_of_first
from kubeyolo.training.finite import STATISTICS
from kubeyolo.training.history import HistoryRow

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine

MOST_CLASSES = 100
"""Largest number of classes with an AP of their own in the history; classes with fewer boxes are left out."""

_DECIMALS = 6
_DIGITS = 16

Arrays = dict[str, AnyArray]


@dataclass(frozen=True)
class ValidationPlan:
    """When a training validates, and on which split.

    Attributes:
        split: Name of the split.
        interval: Epochs between two validations.
        epochs: Epochs of the whole training; the last epoch is always validated.
    """

    split: str
    interval: int
    epochs: int

    def is_due(self, epoch: int) -> bool:
        """Tell whether the weights are validated after an epoch, counted from 0."""
        return (epoch + 1) % self.interval == 0 or epoch + 1 == self.epochs


def plan_validation(config: Config, dataset: Dataset, steps_per_epoch: int, show: Show) -> ValidationPlan | None:
    """Return when a training validates, and show it; None if it does not validate.

    Args:
        config: The configuration.
        dataset: The data set.
        steps_per_epoch: Training steps of an epoch.
        show: Shows a line.

    Raises:
        InputError: The data set does not have the split that ``train.val_split`` names.
    """
    train, splits = config.train, dataset.manifest.splits
    if not train.val_interval:
        return None
    name = train.val_split
    if name not in splits and name != "val":
        dataset.index(name)  # raises the error
    split = splits.get(name)
    if split is None or not split.boxes:
        lack = "the data set has no split val" if split is None else f"the split {name} has no annotated boxes"
        show(f"nothing is validated while training, and the weights after the last epoch are published: {lack}")
        return None
    interval = validation_interval(config, steps_per_epoch, split.images)
    share = share_text(validation_share(config, steps_per_epoch, split.images) / interval)
    cost = f" (train.val_interval = auto: about {share} of the time)" if train.val_interval == "auto" else ""
    often = "after each epoch" if interval == 1 else f"every {interval} epochs and after the last epoch"
    show(f"validating {often}, on the {counted(split.images, 'image')} of the split {name}{cost}")
    return ValidationPlan(name, interval, train.max_epoch)


def share_of(distribution: Distribution, folder: Place) -> Share:
    """Return the share of a process in the validations, with the folder for the detections of all processes."""
    return Share(distribution.rank, distribution.world, folder)


class Validation:
    """Evaluates the averaged weights of an engine: COCO metrics, with the thresholds of the section ``evaluate``.

    Every process of the training has one, and they validate after the same steps.

    The weights are copied into a second network, which is compiled once: the trained network keeps its graph, its mode
    and its values, so that a validation does not change the training.

    Args:
        engine: Engine of the training.
        dataset: Data set with the validated split.
        manifest: Model, classes and image size of the detector.
        config: The configuration; its batch size of the training is used.
        plan: When to validate, and which split.
        best: Keeps the weights of the best validations, if given.
        show: Shows a line.
        share: The share of this process, with the folder for the detections of all processes.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: Dataset,
        manifest: BundleManifest,
        config: Config,
        plan: ValidationPlan,
        best: BestWeights | None = None,
        show: Show = print,
        share: Share = WHOLE,
    ) -> None:
        self._engine = engine
        self._dataset = dataset
        self._manifest = manifest
        self._config = config
        self._plan = plan
        self._best = best
        self._show = show
        self._share = share
        self._network: Any = None

    def row(self, epoch: int, step: int) -> HistoryRow | None:
        """Return AP, AP50 and AP by class after an epoch, counted from 0.

        Returns None if no validation is due, and in all processes but the first.
        """
        if not self._plan.is_due(epoch):
            return None
        weights = self._engine.averaged()
        result = self._evaluate(weights)
        if result is None:
            return None
        ap, ap50 = result.numbers["AP"], result.numbers["AP50"]
        row = HistoryRow(kind="val", step=step, epoch=epoch, ap=ap, ap50=ap50, ap_by_class=ap_by_class(result))
        is_best = self._best is not None and self._best.offer(row, weights)
        self._show(
            f"epoch[{epoch}], {self._plan.split} AP:{ap or 0:.4f}, AP50:{ap50 or 0:.4f}"
            + (", best so far" if is_best else "")
        )
        return row

    def _evaluate(self, weights: Arrays) -> EvaluationResult | None:
        """Return the metrics of all shares; None in all processes but the first."""
        settings, share = self._config.evaluate, self._share
        if share.world > 1:
            weights = self._weights_of_first(weights)
            share = replace(share, digest=self._digest(weights))
        predictor = Predictor(
            self._manifest,
            CellRuntime(self._network_with(weights)),
            "mindspore",
            self._config.train.per_batch_size,
            settings.input_size,
        )
        # Squares only: each rectangle would be compiled.
        settings = settings.model_copy(update={"rect": False})
        split, manifest = self._dataset.split(self._plan.split), self._dataset.manifest
        if share.rank:
            detect_split(predictor, split, manifest, settings, progress=False, share=share)
            return None
        result = evaluate_split(predictor, split, manifest, settings, progress=False, share=share)[0]
        if share.world > 1:
            share.clear()
        return result

    def _weights_of_first(self, weights: Arrays) -> Arrays:
        """Return the weights that rank 0 publishes: the running statistics of the processes differ."""
        statistics = {name: each for name, each in weights.items() if name.endswith(STATISTICS)}
        return {**weights, **arrays_of_first(statistics, Distribution(self._share.rank, self._share.world))}

    def _digest(self, weights: Arrays) -> str:
        """Return the digest of what the detections depend on; a share of an earlier attempt must have this digest."""
        settings = self._config.evaluate.model_dump(mode="json")
        facts = [self._dataset.manifest.digest, self._plan.split, self._config.train.per_batch_size, settings]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name in sorted(weights):
            digest.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
        return digest.hexdigest()[:_DIGITS]

    def _network_with(self, weights: Arrays) -> Any:
        # Only here: MindSpore must be configured before it is imported.
        from kubeyolo.models.fake_quantization import fake_quantize
        from kubeyolo.training.engine import load_parameters

        if self._network is None:
            manifest = self._manifest
            self._network = build_model(manifest.model, len(manifest.classes), manifest.anchors)
            if self._config.train.fake_quantize:
                fake_quantize(self._network)
            self._network.set_train(False)
        parameters = {parameter.name: parameter for parameter in self._network.get_parameters()}
        load_parameters(parameters, weights, "averages")
        return self._network


def ap_by_class(result: EvaluationResult) -> dict[str, float]:
    """Return AP by name of the class in the order of the classes, without classes that have no boxes in the split."""
    rated = [(number, row.name, row.AP) for number, row in enumerate(result.per_class) if row.AP is not None]
    boxes = [row.boxes for row in result.per_class]
    kept = sorted(sorted(rated, key=lambda each: -boxes[each[0]])[:MOST_CLASSES])
    return {name: round(value, _DECIMALS) for _, name, value in kept}
