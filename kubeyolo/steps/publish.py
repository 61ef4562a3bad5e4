"""publish: a bundle under its version, with a model card."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeyolo.bundle import MANIFEST_NAME, MODEL_CARD, Bundle, check_version
from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import COCO_NUMBERS
from kubeyolo.events import RECORD_NAME
from kubeyolo.steps.record import Stopwatch, read_record, write_record, write_report
from kubeyolo.storage.uri import join_uri, open_store

STEP = "publish"
_RUNTIMES = ("mindspore", "onnx", "int8")


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """URI of the published bundle, its version, and the URIs of record and report."""

    bundle: str
    version: str
    record: str
    report: str
    seconds: float


def publish(bundle: str, store: str, version: str = "", evaluation: str = "") -> PublishedModel:
    """Publish a bundle under ``models/<model>/<version>/`` with a model card.

    Publishing the same content under the same version again changes nothing, nor does publishing what was published.

    Args:
        bundle: URI of the bundle.
        store: URI of the store that receives it.
        version: Version to publish under; empty makes one from the content.
        evaluation: URI of the record of the trained network's evaluation, for the model card.

    Raises:
        InputError: The version is no name, or is taken by other content.
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
    _refuse_other_content(output, opened, version)
    card = _model_card(opened, numbers)
    published = _put(opened, output, card, numbers)
    size = sum(file.size for file in manifest.model_files.values())
    files = {*manifest.files, MODEL_CARD}
    facts = {"bundle": published, "size": size_text(size), "files": len(files), "source": bundle}
    report = write_report(output, publish_report(manifest.model, version, card, facts))
    metrics: dict[str, Any] = {"version": version, "model": manifest.model, "bytes": size, **numbers}
    seconds = watch.seconds
    record = write_record(output, STEP, seconds, {"bundle": published}, metrics, report)
    return PublishedModel(bundle=published, version=version, record=record, report=report, seconds=seconds)


def _put(bundle: Bundle, output: str, card: str, numbers: dict[str, dict[str, float | None]]) -> str:
    """Store the bundle with its card, unless it is there, whole, with all of its files."""
    from kubeyolo.bundle import open_bundle

    store = open_store(output)
    if store.uri == bundle.uri:
        return bundle.uri
    if store.exists(MANIFEST_NAME):
        with suppress(InputError):
            there = open_bundle(output)
            if there.manifest.files.keys() >= bundle.manifest.model_files.keys():
                return there.uri
    with tempfile.TemporaryDirectory(prefix="kubeyolo-publish-") as folder:
        path = Path(folder) / MODEL_CARD
        path.write_text(card, encoding="utf-8")
        return bundle.derive(output, {MODEL_CARD: path}, metrics=numbers)


def _numbers(bundle: Bundle, evaluation: str) -> dict[str, dict[str, float | None]]:
    """Return the COCO numbers of every runtime that has been evaluated."""
    from kubeyolo.steps.detection import numbers_of

    numbers = numbers_of(bundle.manifest.metrics, _RUNTIMES)
    if evaluation:
        record = read_record(evaluation)
        if record.step != "evaluate":
            raise InputError(f"{evaluation}: this is the record of {record.step}; give that of an evaluation")
        measured = record.metrics
        found = {number.key: measured.get(number.key) for number in COCO_NUMBERS}
        numbers = {str(measured.get("runtime", "mindspore")): found, **numbers}
    return {name: numbers[name] for name in _RUNTIMES if name in numbers}


def _refuse_other_content(output: str, bundle: Bundle, version: str) -> None:
    from kubeyolo.bundle import read_manifest

    store = open_store(output)
    if not store.exists(MANIFEST_NAME):
        store.delete(RECORD_NAME)
        return
    there = read_manifest(store.read_bytes(MANIFEST_NAME), store.uri_of(MANIFEST_NAME))
    if there.networks != bundle.manifest.networks:
        raise InputError(f"{output}: version {version} is taken by other content; choose another version")


def _model_card(bundle: Bundle, numbers: dict[str, dict[str, float | None]]) -> str:
    from kubeyolo.report.model_card import model_card

    return model_card(bundle.manifest.model_dump(mode="json"), numbers)
