"""promote: a bundle that is not worse than the current model is published, and becomes the current model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.bundle import Bundle, read_bundle
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.intervals import resamples_in
from kubeyolo.evaluation.limits import Verdict, check_drop, interval_of_loss
from kubeyolo.evaluation.results import MEASURED, RuntimeName
from kubeyolo.pointers import (
    ModelPointer,
    PointerMoved,
    SeenPointer,
    no_current_model,
    read_model_version,
    write_model_pointer,
)
from kubeyolo.report.page import with_verdict
from kubeyolo.steps.detection import at_exported_size, numbers_of, recalled_result, settings_digest
from kubeyolo.steps.outcome import StepOutcome, Stopwatch, StoredOutcome, read_record
from kubeyolo.steps.publish import published_place
from kubeyolo.storage.place import Place

STEP = "promote"
_MOST_MOVES = 100


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A bundle that is to become the current model, and its data.

    Attributes:
        bundle: The bundle.
        data: URI of its data set.
        fingerprint: Fingerprint of that data set.
        dataset_digest: Digest of its content.
    """

    bundle: Bundle
    data: str
    fingerprint: str
    dataset_digest: str


def promote(
    candidate: Candidate,
    current: Place,
    latest: Place,
    store: Place,
    config: Config,
    publish: Callable[[], StoredOutcome],
) -> StepOutcome:
    """Publish a bundle and move the pointer to it, if it is not worse than the current model.

    The pointer is written last: it never names an incomplete bundle. It moves only if it has not been moved
    since this function was called.

    Args:
        candidate: The bundle to publish.
        current: The record of the evaluation of the current model, on the same data and settings.
        latest: The pointer to the current model.
        store: The store of the models.
        config: The configuration of the export and the quantization; ``retrain.max_regression`` is the largest
            loss of AP, in points (AP × 100), that a network may have against the current model; ``evaluate.judge``
            says how the loss is judged.
        publish: Publishes the candidate.

    Raises:
        InputError: A document cannot be read.
        WorkError: The candidate is worse, or the pointer was moved in the meantime; the pointer is not changed.
    """
    watch, manifest = Stopwatch(), candidate.bundle.manifest
    record = read_record(current)
    replaced = record.outputs.get("bundle", "")
    before = current.at(replaced).uri if replaced else ""
    own = published_place(store, manifest.model, manifest.content_version).uri
    seen = read_model_version(latest)
    _check_unmoved(latest, seen, {before, own})
    verdict = compare(candidate.bundle, record.metrics, candidate.dataset_digest, config)
    if not before:
        print(no_current_model(latest), flush=True)
    for check in verdict.checks:
        print(check.message, flush=True)
    if not verdict.passed:
        raise WorkError(_worse(verdict, candidate.bundle.reference, before, latest, store))
    published = publish()
    bundle = published.bundle()
    make_current(latest, bundle, candidate.data, candidate.fingerprint, seen)
    numbers = numbers_of(published.record.metrics, MEASURED)
    compared = {f"current_{name}": {"AP": each.get("AP")} for name, each in record.metrics.items()}
    version = published.record.metrics["version"]
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"bundle": bundle, "latest": latest.uri, "before": before},
        metrics={"version": version, **numbers, **compared, "checks": verdict.rows},
        html=with_verdict(published.report().decode(), verdict),
    )


def make_current(
    latest: Place,
    bundle: Bundle,
    data: str | None = None,
    fingerprint: str | None = None,
    seen: SeenPointer | None = None,
) -> None:
    """Move a pointer to a published bundle, which becomes the current model.

    Without data and fingerprint, the pointer keeps its data and fingerprint: after a return to an older model,
    retraining waits for new data.

    Args:
        latest: The pointer.
        bundle: The bundle.
        data: URI of its data set.
        fingerprint: Fingerprint of that data set.
        seen: The pointer as it was read when the decision was made; if None, the pointer is read now, and read again
            if other processes move it in the meantime.

    Raises:
        InputError: The pointer cannot be read.
        PointerMoved: The pointer was moved since the decision, or other processes keep moving it.
    """
    for is_last in (False,) * (_MOST_MOVES - 1) + (True,):
        before = seen or read_model_version(latest)
        try:
            _move(latest, bundle, data, fingerprint, before)
        except PointerMoved:
            if seen is not None or is_last:
                raise
            continue
        instead = f" instead of {before.bundle}" if before.bundle not in ("", bundle.uri) else ""
        print(f"the current model is now {bundle.uri}{instead} ({latest})", flush=True)
        return


def _move(latest: Place, bundle: Bundle, data: str | None, fingerprint: str | None, seen: SeenPointer) -> None:
    before = seen.pointer or ModelPointer(bundle="")
    trained_on = bundle.manifest.dataset
    pointer = ModelPointer(
        bundle=bundle.uri,
        version=bundle.place.name,
        data=before.data if data is None else data,
        fingerprint=before.fingerprint if fingerprint is None else fingerprint,
        dataset_digest=trained_on.digest if trained_on else "",
    )
    write_model_pointer(latest, before.replaced_by(pointer), seen.etag)


def roll_back(latest: Place) -> ModelPointer:
    """Move a pointer back to the model that was current before, and return its new content.

    Data and fingerprint of the pointer stay: retraining waits for new data. The model that was current until now is
    removed from the pointer, so that the next call goes back one model further; its bundle stays.

    Args:
        latest: The pointer.

    Raises:
        InputError: There is no pointer, it has no history, or the former model cannot be read.
        WorkError: The pointer was moved since it was read.
    """
    seen = read_model_version(latest)
    if seen.pointer is None:
        raise InputError(f"{latest}: there is no such pointer to a model; correct the URI, or give another --store")
    if not seen.pointer.history:
        raise InputError(
            f"{latest}: this pointer has no former model to return to; make another bundle current: "
            f"kubeyolo publish BUNDLE --latest {latest}"
        )
    former, *older = seen.pointer.history
    bundle = read_bundle(latest.at(former.bundle))
    pointer = seen.pointer.model_copy(
        update={
            "bundle": bundle.uri,
            "version": former.version,
            "dataset_digest": former.dataset_digest,
            "history": tuple(older),
        }
    )
    write_model_pointer(latest, pointer, seen.etag)
    return pointer


def compare(bundle: Bundle, current: Mapping[str, Any], dataset_digest: str, config: Config) -> Verdict:
    """Compare the networks of a bundle with those of the current model, ONNX with ONNX and int8 with int8.

    Args:
        bundle: The bundle, which has the metrics of its export and its quantization.
        current: COCO metrics and resamples of the current model, by runtime.
        dataset_digest: Digest of the data set of both.
        config: The configuration of its export and quantization, with ``retrain.max_regression``.

    Raises:
        InputError: The metrics of the bundle are for different data or settings.
    """
    digest = settings_digest(dataset_digest, at_exported_size(config))
    checks = []
    runtimes: tuple[RuntimeName, ...] = ("onnx", "int8")
    for runtime in (name for name in runtimes if name in current):
        new = recalled_result(bundle.manifest.metrics, runtime, digest)
        if new is None:
            raise InputError(
                f"{bundle.uri}: its {runtime} network was not evaluated on this data with these settings; "
                "export and quantize it with this data and these settings"
            )
        limit = config.retrain.max_regression
        evidence = interval_of_loss(new.resamples, resamples_in(current[runtime]), config.evaluate.judge)
        ap = (new.numbers["AP"], current[runtime]["AP"])
        checks.append(check_drop(*ap, limit, "retrain.max_regression", network=runtime, evidence=evidence))
    return Verdict(tuple(checks))


def _check_unmoved(latest: Place, seen: SeenPointer, expected: set[str]) -> None:
    """Refuse to replace a model that another run, or a person, has made current in the meantime."""
    if seen.bundle not in expected:
        raise WorkError(
            f"{latest}: the current model changed during this training; it is now {seen.bundle or 'no model'}; "
            "run the retraining again"
        )


def _worse(verdict: Verdict, bundle: str, current: str, latest: Place, store: Place) -> str:
    return (
        f"the new model is worse than the current one: {verdict.failures}. "
        f"The new model is {bundle}, the current model stays {current}. Compare the data and both evaluations; to "
        f"publish the new model anyway: kubeyolo publish {bundle} --store {store} --latest {latest}"
    )
