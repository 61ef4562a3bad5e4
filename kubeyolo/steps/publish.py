"""publish: a bundle under its version, with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeyolo.bundle import (
    MANIFEST_NAME,
    MODEL_CARD,
    Bundle,
    BundleManifest,
    VersionTaken,
    bundle_reference,
    check_version,
    read_manifest,
    repair_bundle,
)
from kubeyolo.config.load import config_digest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.names import MEASURED
from kubeyolo.evaluation.results import COCO_NUMBERS
from kubeyolo.steps.record import Stopwatch, read_record, write_record, write_report
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.uri import join_uri, open_store
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training.extension import EXTENDED

STEP = "publish"
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """Reference of the published bundle, its version, the reference of the record, and the URI of the report."""

    bundle: str
    version: str
    record: str
    report: str


def publish(bundle: str, store: str, version: str = "", evaluation: str = "") -> PublishedModel:
    """Publish a bundle under ``models/<model>/<version>/`` with a model card.

    A version has one content. Where the same networks are published already, that bundle is returned as it is, or
    repaired where it is damaged. Other networks are refused, also where another process published a moment earlier, and
    nothing is written into the version.

    Args:
        bundle: URI of the bundle, or a reference to it.
        store: URI of the store that receives it.
        version: Version to publish under; empty makes one from the content.
        evaluation: URI of the record of the trained network's evaluation, for the model card.

    Raises:
        InputError: The version is not a valid name.
        VersionTaken: The version is taken by other networks.
    """
    from kubeyolo.bundle import open_bundle
    from kubeyolo.report.formats import size_text
    from kubeyolo.report.model_card import publish_report

    watch = Stopwatch()
    opened = open_bundle(bundle)
    manifest = opened.manifest
    version = version or manifest.content_version
    check_version(version)
    output = join_uri(store, "models", manifest.model, version)
    numbers = _numbers(opened, evaluation)
    card = _model_card(opened, numbers)
    # What the training warned of stays with the bundle.
    kept = {name: value for name, value in manifest.metrics.items() if name == "train"}
    published = _put(opened, output, version, card, {**kept, **numbers})
    size = sum(file.size for file in manifest.model_files.values())
    files = {*manifest.files, MODEL_CARD}
    facts = {"bundle": published, "size": size_text(size), "files": len(files), "source": bundle}
    reference = bundle_reference(published)
    # Not in the folder of the version: other runs may publish the same networks there, with numbers of their own.
    made_from = config_digest({"bundle": opened.digest, "version": version, "evaluation": evaluation})[:_DIGITS]
    output = join_uri(store, "results", STEP, f"{manifest.model}-{made_from}")
    report = write_report(output, publish_report(manifest.model, version, card, facts))
    metrics: dict[str, Any] = {"version": version, "model": manifest.model, "bytes": size, **numbers}
    record = write_record(output, STEP, watch.seconds, {"bundle": reference}, metrics, report)
    return PublishedModel(bundle=reference, version=version, record=record, report=report)


def _put(bundle: Bundle, output: str, version: str, card: str, numbers: dict[str, Any]) -> str:
    """Publish a bundle with its card, unless its networks are published there, and return the URI."""
    if open_store(output).uri == bundle.uri:
        return bundle.uri
    metrics = {name: value for name, value in bundle.manifest.metrics.items() if name == EXTENDED} | numbers
    with temporary_folder("publish") as folder:
        path = folder / MODEL_CARD
        path.write_text(card, encoding="utf-8")
        if not _has_networks(output, bundle, version):
            try:
                return bundle.derive(output, {MODEL_CARD: path}, replace=False, metrics=metrics)
            except VersionTaken:
                # Another process has published in the meantime.
                if not _has_networks(output, bundle, version):
                    raise
        files = {name: bundle.path(name) for name in bundle.manifest.files} | {MODEL_CARD: path}
        if not _is_whole(output, files, bundle.manifest):
            return bundle.derive(output, {MODEL_CARD: path}, metrics=metrics)
    return open_store(output).uri


def _has_networks(output: str, bundle: Bundle, version: str) -> bool:
    """Tell whether the networks of a bundle are published, whole or damaged; other ones are refused."""
    store = open_store(output)
    try:
        document = store.read_bytes(MANIFEST_NAME)
    except NotFound:
        return False
    if read_manifest(document, store.uri_of(MANIFEST_NAME)).networks != bundle.manifest.networks:
        raise VersionTaken(f"{output}: version {version} is taken by other content; choose another version")
    return True


def _is_whole(output: str, files: Mapping[str, Path], manifest: BundleManifest) -> bool:
    """Tell whether a published bundle has all files of another one with the same networks, repaired if need be."""
    from kubeyolo.bundle import open_bundle

    with suppress(InputError):
        return open_bundle(output).manifest.files.keys() >= manifest.model_files.keys()
    with suppress(InputError):
        return repair_bundle(output, files).manifest.files.keys() >= manifest.model_files.keys()
    return False


def _numbers(bundle: Bundle, evaluation: str) -> dict[str, dict[str, float | None]]:
    """Return the COCO numbers of every runtime that has been evaluated."""
    from kubeyolo.steps.detection import numbers_of

    numbers = numbers_of(bundle.manifest.metrics, MEASURED)
    if evaluation:
        record = read_record(evaluation)
        if record.step != "evaluate":
            raise InputError(f"{evaluation}: this is the record of {record.step}; give that of an evaluation")
        measured = record.metrics
        found = {number.key: measured.get(number.key) for number in COCO_NUMBERS}
        numbers = {str(measured.get("runtime", "mindspore")): found, **numbers}
    return {name: numbers[name] for name in MEASURED if name in numbers}


def _model_card(bundle: Bundle, numbers: dict[str, dict[str, float | None]]) -> str:
    from kubeyolo.report.model_card import model_card

    return model_card(bundle.manifest.model_dump(mode="json"), numbers)
