"""promote: a bundle that is not worse than the current model is published, and becomes the current model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.limits import Check, check_drop, check_regression
from kubeyolo.evaluation.names import RuntimeName
from kubeyolo.pointers import ModelPointer, SeenPointer, no_current_model, read_model_version, write_model_pointer
from kubeyolo.steps.publish import publish
from kubeyolo.steps.record import Stopwatch, read_record, write_record
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import join_uri, read_document, split_uri

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle

STEP = "promote"


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """Reference of the published bundle, now the current model, its version, the record, and the report's URI."""

    bundle: str
    version: str
    record: str
    report: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A bundle that is to become the current model, and what it was made of.

    Attributes:
        bundle: Its URI, or a reference to it.
        evaluation: URI of the record of the trained network's evaluation.
        data: Where its data set lay.
        fingerprint: Fingerprint of what lay there.
        dataset_digest: Digest of the content.
    """

    bundle: str
    evaluation: str
    data: str
    fingerprint: str
    dataset_digest: str


def promote(
    candidate: Candidate,
    current: str,
    latest: str,
    store: str,
    output: str,
    config: Config,
) -> Promoted:
    """Publish a bundle and let the pointer name it, when it is not worse than the one that the pointer names.

    The pointer is written last: it never names a bundle that is not published as a whole. It is moved only from what
    it named when this began.

    Args:
        candidate: What is to be published.
        current: Reference of the record of the evaluation of the current model, on the same data and settings.
        latest: URI of the pointer to the current model.
        store: URI of the store of the models.
        output: URI of the folder that receives metrics.json.
        config: That which the candidate was exported and quantized with; ``retrain.max_regression`` is the most points
            of AP (AP × 100) that a network may lose against that of the current model.

    Raises:
        InputError: A document cannot be read.
        WorkError: The candidate is worse, or the pointer was moved in the meantime; the pointer stays as it is.
    """
    from kubeyolo.bundle import open_bundle

    watch = Stopwatch()
    check_regression(config.retrain.max_regression)
    opened, record = open_bundle(candidate.bundle), read_record(current)
    before = split_reference(record.outputs.get("bundle", ""))[0]
    own = join_uri(store, "models", opened.manifest.model, opened.manifest.content_version)
    seen = read_model_version(latest)
    _check_unmoved(latest, seen, {before, own})
    checks = compare(opened, record.metrics, candidate.dataset_digest, config)
    if not before:
        print(no_current_model(latest), flush=True)
    for runtime, check in checks.items():
        print(f"{runtime}: {check.message}", flush=True)
    if not all(check.passed for check in checks.values()):
        raise WorkError(_worse(checks, candidate.bundle, before, latest, store, config.retrain.max_regression))
    published = publish(candidate.bundle, store, "", candidate.evaluation)
    make_current(latest, published.bundle, candidate.data, candidate.fingerprint, seen)
    metrics: dict[str, Any] = {"version": published.version, **_numbers(published.record, record.metrics)}
    outputs = {"bundle": published.bundle, "latest": latest, "before": before}
    written = write_record(output, STEP, watch.seconds, outputs, metrics, published.report)
    return Promoted(bundle=published.bundle, version=published.version, record=written, report=published.report)


def make_current(
    latest: str, bundle: str, data: str | None = None, fingerprint: str | None = None, seen: SeenPointer | None = None
) -> None:
    """Let a pointer name a published bundle as the current model.

    Without data and fingerprint those of the pointer stay: who goes back to an older model does not want to have the
    newer one again, before there is other data.

    Args:
        latest: URI of the pointer.
        bundle: URI of the bundle, or a reference to it.
        data: Where its data set lay.
        fingerprint: Fingerprint of what lay there.
        seen: The pointer as it was read when the decision was made; it is read now where this is not given.

    Raises:
        InputError: There is no bundle, or the pointer cannot be read.
        WorkError: The pointer was moved since it was read.
    """
    from kubeyolo.bundle import MANIFEST_NAME, read_manifest

    bundle = split_reference(bundle)[0]
    seen = seen or read_model_version(latest)
    before = seen.pointer or ModelPointer(bundle="")
    place = join_uri(bundle, MANIFEST_NAME)
    trained_on = read_manifest(read_document(place), place).dataset
    pointer = ModelPointer(
        bundle=bundle,
        version=split_uri(bundle)[1],
        data=before.data if data is None else data,
        fingerprint=before.fingerprint if fingerprint is None else fingerprint,
        dataset_digest=trained_on.digest if trained_on else "",
    )
    write_model_pointer(latest, pointer, seen.etag)
    instead = f" instead of {before.bundle}" if before.bundle not in ("", bundle) else ""
    print(f"current is {bundle}{instead} ({latest})", flush=True)


def compare(bundle: Bundle, current: Mapping[str, Any], dataset_digest: str, config: Config) -> dict[str, Check]:
    """Compare the networks of a bundle with those of the current model, ONNX with ONNX and int8 with int8.

    Args:
        bundle: The bundle, with the numbers that its export and quantization have left in it.
        current: COCO numbers of the current model, by runtime.
        dataset_digest: Digest of the data set of both.
        config: That of the bundle's export and quantization, with ``retrain.max_regression``.

    Raises:
        InputError: The numbers of the bundle are of other data or settings.
    """
    from kubeyolo.steps.detection import recalled_result, settings_digest

    digest = settings_digest(dataset_digest, config)
    checks: dict[str, Check] = {}
    runtimes: tuple[RuntimeName, ...] = ("onnx", "int8")
    for runtime in (name for name in runtimes if name in current):
        new = recalled_result(bundle.manifest.metrics, runtime, digest)
        if new is None:
            raise InputError(
                f"{bundle.uri}: its {runtime} network was not evaluated on this data with these settings; "
                "export and quantize it with them"
            )
        checks[runtime] = check_drop(new.numbers["AP"], current[runtime]["AP"], config.retrain.max_regression)
    return checks


def _check_unmoved(latest: str, seen: SeenPointer, expected: set[str]) -> None:
    """Refuse to replace a model that another run, or a person, has made current in the meantime."""
    now = split_reference(seen.bundle)[0]
    if now not in expected:
        raise WorkError(
            f"{latest}: the current model changed during this training, it is now {now or 'no model'}; "
            "run the retraining again"
        )


def _numbers(published: str, current: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the COCO numbers of what was published, by runtime, and the AP of the current model before."""
    from kubeyolo.steps.detection import numbers_of

    new = numbers_of(read_record(published).metrics, ("mindspore", "onnx", "int8"))
    return {**new, **{f"current_{name}": {"AP": numbers.get("AP")} for name, numbers in current.items()}}


def _worse(
    checks: Mapping[str, Check], bundle: str, current: str, latest: str, store: str, max_regression: float
) -> str:
    said = "; ".join(f"{runtime}: {check.message}" for runtime, check in checks.items() if not check.passed)
    return (
        f"the new model is worse than the current one: {said}, {max_regression:g} are allowed (max_regression). "
        f"New is {bundle}, current stays {current}. Look at the data and at both evaluations; to take the new one all "
        f"the same: kubeyolo publish {bundle} --store {store} --latest {latest}"
    )
