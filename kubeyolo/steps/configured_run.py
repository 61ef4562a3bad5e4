"""A configured run: its settings, and how it is shown before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeyolo.bundle import Bundle
from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.config.load import ResolvedConfig, resolve_layers
from kubeyolo.config.schema import Config
from kubeyolo.estimate.run import RunEstimate
from kubeyolo.index import RESULT, run_output
from kubeyolo.report.configuration import PlanView, SettingRow
from kubeyolo.steps.settings import StepSettings
from kubeyolo.storage.place import Place


@dataclass(frozen=True, kw_only=True)
class ConfiguredRun:
    """A run whose settings are all resolved and checked.

    Attributes:
        pipeline: Name of the pipeline.
        name: Name of the run: the same for the same settings and the same data.
        store: URI of its store.
        resolved: The configuration, with the origin of each value.
        settings: Settings of each later step, by the name of its task.
        facts: Texts by name, such as data, fingerprint and bundle.
        images: Number of images by split.
        estimate: Time, memory and disk that it will take; None if nothing is trained.
        notes: Remarks for the person who starts the run.
        has_work: Whether anything must be done; false for a retraining on unchanged data.
        bundle: The bundle of an evaluation; None for other pipelines.
        baseline: The bundle that an evaluation compares with; None if there is no baseline.
        data: URI of the data set.
    """

    pipeline: str
    name: str
    store: str
    resolved: ResolvedConfig
    settings: Mapping[str, StepSettings]
    facts: Mapping[str, str]
    images: Mapping[str, int] = field(default_factory=dict)
    estimate: RunEstimate | None = None
    notes: tuple[str, ...] = ()
    has_work: bool = True
    bundle: Bundle | None = None
    baseline: Bundle | None = None
    data: str = ""

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.resolved.config

    @property
    def index(self) -> str:
        """URI of the index of the results of the run."""
        if self.pipeline == MODEL_EVALUATION:
            return self.settings["evaluate"].index
        return run_output(Place.of(self.store), self.name, RESULT).uri

    def view(self) -> PlanView:
        """Return the plan of the run."""
        preset = _flat(resolve_layers(self.config.model, []).config)
        rows = [
            SettingRow(key, value, preset[key], self.resolved.origins.get(key, "the schema's default"))
            for key, value in _flat(self.config).items()
        ]
        facts = {"pipeline": self.pipeline, "model": self.config.model, **self.facts, "store": self.store}
        return PlanView(
            name=self.name,
            lead=self.lead,
            facts=facts,
            images=self.images,
            settings=rows,
            estimate=self.estimate.words() if self.estimate and self.has_work else (),
            notes=self.notes,
        )

    @property
    def lead(self) -> str:
        """What the run does, in a sentence."""
        if self.bundle is not None:
            against = f" and {self.baseline.uri}" if self.baseline else ""
            return f"{self.bundle.uri}{against} evaluated on {self.data}."
        if not self.has_work:
            return f"Nothing to train: {self.data} has not changed."
        train = self.config.train
        return (
            f"{self.config.model} is trained on {self.data}: {train.max_epoch} epochs at {train.image_size} px, "
            f"{train.processes} x {train.per_batch_size} images a step."
        )

    def lines(self) -> list[str]:
        """Return the plan in a few lines, for a log."""
        view = self.view()
        changed = [f"{row.key} = {row.value} ({row.origin})" for row in view.changed]
        return [f"run {self.name}", view.lead, *view.estimate, *view.notes, *changed]

    def struct(self) -> dict[str, str]:
        """Return facts of the run as a struct for a pipeline: texts by name, without empty texts."""
        values = {"name": self.name, "model": self.config.model, "store": self.store, **self.facts}
        return {key: value for key, value in values.items() if value}


def _flat(config: Config) -> dict[str, Any]:
    """Return the values of a configuration by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat
