"""The steps called with texts, and what they have stored as texts: for tests that look at nothing but results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.config.schema import Config
from kubeyolo.evaluation.results import EvaluationResult, RuntimeName
from kubeyolo.launch.launcher import find_launcher
from kubeyolo.source import results_source
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.evaluate import RESULT_NAME
from kubeyolo.steps.outcome import StepOutcome, StoredOutcome, store_outcome, store_report
from kubeyolo.storage.place import Place


@dataclass(frozen=True)
class Called:
    """What a step has stored.

    Attributes:
        outputs: References by name.
        record: Reference of the record.
        report: URI of the report.
        metrics: Figures of the record.
    """

    outputs: Mapping[str, str]
    record: str
    report: str
    metrics: Mapping[str, Any]

    def __getattr__(self, name: str) -> str:
        try:
            return self.outputs[name]
        except KeyError as error:
            raise AttributeError(name) from error

    @property
    def version(self) -> str:
        return str(self.metrics["version"])

    @property
    def result(self) -> EvaluationResult:
        """The result of an evaluation."""
        folder = Place.of(self.record).parent
        return EvaluationResult.from_json((folder / RESULT_NAME).read())


def validate_dataset(
    data: str, store: str, output: str = "", fingerprint: str = "", config: Config | None = None
) -> Called:
    return _called(facade.validate_dataset(_call(config or Config(), output, store=store), data, fingerprint))


def pretrain_backbone(dataset: str, output: str, config: Config, **options: Any) -> Called:
    call = _call(config, output)
    return _called(facade.pretrain_backbone(call, call.dataset(dataset), find_launcher(), **options))


def train(dataset: str, output: str, config: Config, backbone: str = "", **options: Any) -> Called:
    call = _call(config, output)
    return _called(facade.train(call, call.dataset(dataset), find_launcher(), backbone, **options))


def evaluate(bundle: str, dataset: str, output: str, config: Config, runtime: RuntimeName = "mindspore") -> Called:
    call = _call(config, output)
    return _called(facade.evaluate(call, call.bundle(bundle), call.dataset(dataset), runtime))


def export_model(bundle: str, dataset: str, output: str, config: Config) -> Called:
    call = _call(config, output)
    return _called(facade.export_model(call, call.bundle(bundle), call.dataset(dataset)))


def quantize(bundle: str, dataset: str, output: str, config: Config) -> Called:
    call = _call(config, output)
    return _called(facade.quantize(call, call.bundle(bundle), call.dataset(dataset)))


def publish(bundle: str, store: str, version: str = "", evaluation: str = "") -> Called:
    call = _call(Config(), "", store=store)
    return _called(facade.publish(call, call.bundle(bundle), version, evaluation))


def evaluate_current(bundle: str, dataset: str, output: str, config: Config, store: str = "", code: str = "") -> Called:
    call = _call(config, output, store, code)
    return _called(facade.evaluate_current(call, call.bundle(bundle) if bundle else None, call.dataset(dataset)))


def promote(
    bundle: str,
    evaluation: str,
    current: str,
    latest: str,
    store: str,
    output: str,
    config: Config,
    dataset: str,
    data: str = "",
    fingerprint: str = "",
) -> Called:
    call = _call(config, output, store)
    return _called(facade.promote(call, call.bundle(bundle), evaluation, current, latest, dataset, data, fingerprint))


def write_record(
    output: str,
    step: str,
    seconds: float,
    outputs: Mapping[str, str],
    metrics: Mapping[str, Any],
    html: str = "",
    conditions: Mapping[str, Any] | None = None,
) -> str:
    """Store an outcome and return the reference of its record."""
    outcome = StepOutcome(
        step=step, seconds=seconds, outputs=outputs, metrics=metrics, html=html, conditions=conditions or {}
    )
    return store_outcome(outcome, Place.of(output)).reference


def write_report(output: str, html: str) -> str:
    """Store a report and return its URI."""
    return store_report(html, Place.of(output))


def _call(config: Config, output: str, store: str = "", code: str = "") -> StepCall:
    place = Place.of(store or output)
    target = place.at(output) if output else None
    return StepCall(store=place, config=config, code=code or results_source(), output=target)


def _called(stored: StoredOutcome) -> Called:
    record = stored.record
    return Called(record.outputs, stored.reference, record.report, record.metrics)
