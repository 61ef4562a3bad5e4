"""promote: a bundle that is not worse than the one in use is published, and put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.limits import Check, check_drop, check_regression
from kubeyolo.evaluation.names import RuntimeName
from kubeyolo.pointers import ModelPointer, nothing_in_use, read_model_pointer, write_model_pointer
from kubeyolo.steps.publish import publish
from kubeyolo.steps.record import Stopwatch, read_record, write_record
from kubeyolo.storage.uri import join_uri, read_document, split_uri

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle

STEP = "promote"


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """URI of the published bundle, which is the one in use, its version, and the URIs of record and report."""

    bundle: str
    version: str
    record: str
    report: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A bundle that wants to be the one in use, and what it was made of.

    Attributes:
        bundle: Its URI.
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
    candidate: Candidate, in_use: str, latest: str, store: str, output: str, config: Config, max_regression: float = 0.0
) -> Promoted:
    """Publish a bundle and let the pointer name it, when it is not worse than the one that the pointer names.

    The pointer is written last: it never names a bundle that is not published as a whole.

    Args:
        candidate: What is to be published.
        in_use: URI of the record of the evaluation of the model in use, on the same data with the same settings.
        latest: URI of the pointer to the model in use.
        store: URI of the store of the models.
        output: URI of the folder that receives metrics.json.
        config: That which the candidate was exported and quantized with.
        max_regression: Most points of AP (AP × 100) that a network may lose against that of the model in use.

    Raises:
        InputError: A document cannot be read.
        WorkError: The candidate is worse, or the pointer was moved in the meantime; nothing is published.
    """
    from kubeyolo.bundle import open_bundle

    watch = Stopwatch()
    check_regression(max_regression)
    opened, record = open_bundle(candidate.bundle), read_record(in_use)
    before = record.outputs.get("bundle", "")
    expected = {before, join_uri(store, "models", opened.manifest.model, opened.manifest.content_version)}
    _check_unmoved(latest, expected)
    checks = compare(opened, record.metrics, candidate.dataset_digest, config, max_regression)
    if not before:
        print(nothing_in_use(latest), flush=True)
    for runtime, check in checks.items():
        print(f"{runtime}: {check.message}", flush=True)
    if not all(check.passed for check in checks.values()):
        raise WorkError(_worse(checks, candidate.bundle, before, latest, store, max_regression))
    published = publish(candidate.bundle, store, "", candidate.evaluation)
    # Again: to compare and to copy has taken its time.
    _check_unmoved(latest, expected)
    put_in_use(latest, published.bundle, candidate.data, candidate.fingerprint)
    metrics: dict[str, Any] = {"version": published.version, **_numbers(opened, record.metrics)}
    outputs = {"bundle": published.bundle, "latest": latest, "before": before}
    seconds = watch.seconds
    written = write_record(output, STEP, seconds, outputs, metrics, published.report)
    return Promoted(
        bundle=published.bundle, version=published.version, record=written, report=published.report, seconds=seconds
    )


def put_in_use(latest: str, bundle: str, data: str | None = None, fingerprint: str | None = None) -> None:
    """Let a pointer name a published bundle as the one in use.

    Without data and fingerprint those of the pointer stay: who goes back to an older model does not want to have the
    newer one again, before there is other data.
    """
    from kubeyolo.bundle import MANIFEST_NAME, read_manifest

    before = read_model_pointer(latest) or ModelPointer(bundle="")
    place = join_uri(bundle, MANIFEST_NAME)
    trained_on = read_manifest(read_document(place), place).dataset
    pointer = ModelPointer(
        bundle=bundle,
        version=split_uri(bundle)[1],
        data=before.data if data is None else data,
        fingerprint=before.fingerprint if fingerprint is None else fingerprint,
        dataset_digest=trained_on.digest if trained_on else "",
    )
    write_model_pointer(latest, pointer)
    instead = f" instead of {before.bundle}" if before.bundle not in ("", bundle) else ""
    print(f"in use is {bundle}{instead} ({latest})", flush=True)


def compare(
    bundle: Bundle, in_use: Mapping[str, Any], dataset_digest: str, config: Config, max_regression: float
) -> dict[str, Check]:
    """Compare the networks of a bundle with those of the model in use, each with its like.

    Args:
        bundle: The bundle, with the numbers that its export and quantization have left in it.
        in_use: COCO numbers of the model in use, by runtime.
        dataset_digest: Digest of the data set of both.
        config: That of the bundle's export and quantization.
        max_regression: Most points of AP that may be lost.

    Raises:
        InputError: The numbers of the bundle are of other data or settings.
    """
    from kubeyolo.steps.detection import recalled_result, settings_digest

    digest = settings_digest(dataset_digest, config)
    checks: dict[str, Check] = {}
    runtimes: tuple[RuntimeName, ...] = ("onnx", "int8")
    for runtime in (name for name in runtimes if name in in_use):
        new = recalled_result(bundle.manifest.metrics, runtime, digest)
        if new is None:
            raise InputError(
                f"{bundle.uri}: its {runtime} network was not evaluated on this data with these settings; "
                "export and quantize it with them"
            )
        checks[runtime] = check_drop(new.numbers["AP"], in_use[runtime]["AP"], max_regression)
    return checks


def _check_unmoved(latest: str, expected: set[str]) -> None:
    """Refuse to replace a model that another run, or a person, has put in use in the meantime."""
    pointer = read_model_pointer(latest)
    now = pointer.bundle if pointer else ""
    if now not in expected:
        raise WorkError(f"{latest} names {now or 'no model any more'}, moved while this one was trained; run it again")


def _numbers(bundle: Bundle, in_use: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    from kubeyolo.steps.detection import numbers_of

    new = {
        name: {"AP": numbers.get("AP")}
        for name, numbers in numbers_of(bundle.manifest.metrics, ("onnx", "int8")).items()
    }
    return {**new, **{f"in_use_{name}": {"AP": numbers.get("AP")} for name, numbers in in_use.items()}}


def _worse(
    checks: Mapping[str, Check], bundle: str, in_use: str, latest: str, store: str, max_regression: float
) -> str:
    said = "; ".join(f"{runtime}: {check.message}" for runtime, check in checks.items() if not check.passed)
    return (
        f"the new model is worse than the one in use: {said}, {max_regression:g} are allowed (max_regression). "
        f"New is {bundle}, in use stays {in_use}. Look at the data and at both evaluations; to take the new one all "
        f"the same: kubeyolo publish {bundle} --store {store} --latest {latest}"
    )
