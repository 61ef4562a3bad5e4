"""Validation during the training: the averaged weights on the validation split, in a separate network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.dataset import Dataset
from kubeyolo.evaluation.predictor import Predictor, evaluate_split
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.evaluation.runtimes import CellRuntime
from kubeyolo.models.registry import build_model
from kubeyolo.output_streams import Show
from kubeyolo.training.history import HistoryRow

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine

SPLIT = "val"

MOST_CLASSES = 100
"""Largest number of classes with an AP of their own in the history; classes with fewer boxes are left out."""

_DECIMALS = 6


class Validation:
    """Evaluates the averaged weights of an engine every ``interval`` epochs: COCO metrics.

    The weights are copied into a second network, which is compiled once: the trained network keeps its graph, its mode
    and its values, so that a validation does not change the training.

    Args:
        engine: Engine of the training.
        dataset: Data set with the split ``val``.
        manifest: Model, classes and image size of the detector.
        config: Thresholds and batch size.
        interval: Epochs between two validations.
        show: Shows a line.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: Dataset,
        manifest: BundleManifest,
        config: EvaluateConfig,
        interval: int,
        show: Show = print,
    ) -> None:
        self._engine = engine
        self._dataset = dataset
        self._manifest = manifest
        self._config = config
        self._interval = interval
        self._show = show
        self._network: Any = None

    def row(self, epoch: int, step: int) -> HistoryRow | None:
        """Return AP and AP50 after an epoch, counted from 0; None if no validation is due."""
        if (epoch + 1) % self._interval:
            return None
        runtime = CellRuntime(self._averaged_network())
        predictor = Predictor(self._manifest, runtime, "mindspore", self._config.per_batch_size)
        split = self._dataset.split(SPLIT)
        result, _ = evaluate_split(predictor, split, self._dataset.manifest, self._config, progress=False)
        ap, ap50 = result.numbers["AP"], result.numbers["AP50"]
        self._show(f"epoch[{epoch}], val AP:{ap or 0:.4f}, AP50:{ap50 or 0:.4f}")
        return HistoryRow(kind="val", step=step, epoch=epoch, ap=ap, ap50=ap50, ap_by_class=ap_by_class(result))

    def _averaged_network(self) -> Any:
        # Only here: MindSpore must be configured before it is imported.
        from kubeyolo.training.engine import load_parameters

        if self._network is None:
            manifest = self._manifest
            self._network = build_model(manifest.model, len(manifest.classes), manifest.anchors)
            self._network.set_train(False)
        parameters = {parameter.name: parameter for parameter in self._network.get_parameters()}
        load_parameters(parameters, self._engine.averaged(), "averages")
        return self._network


def ap_by_class(result: EvaluationResult) -> dict[str, float]:
    """Return AP by name of the class in the order of the classes, without classes that have no boxes in the split."""
    rated = [(number, row.name, row.AP) for number, row in enumerate(result.per_class) if row.AP is not None]
    boxes = [row.boxes for row in result.per_class]
    kept = sorted(sorted(rated, key=lambda each: -boxes[each[0]])[:MOST_CLASSES])
    return {name: round(value, _DECIMALS) for _, name, value in kept}
