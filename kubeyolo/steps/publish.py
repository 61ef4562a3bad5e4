"""publish: publishes a bundle under its version, with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kubeyolo.bundle import (
    LEFT_OUT,
    MANIFEST_NAME,
    MODEL_CARD,
    Bundle,
    BundleManifest,
    check_version,
    open_bundle,
    read_bundle,
)
from kubeyolo.config.load import config_digest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.intervals import Interval, Resamples, resamples_in
from kubeyolo.evaluation.operating_points import BEST_THRESHOLDS, kept_thresholds
from kubeyolo.evaluation.results import COCO_KEYS, MEASURED
from kubeyolo.formats import size_text
from kubeyolo.publishing import VersionTaken, derive_bundle, repair_bundle
from kubeyolo.report.model_card import model_card, publish_report
from kubeyolo.steps.detection import numbers_of
from kubeyolo.steps.outcome import StepOutcome, Stopwatch, read_record
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training.extension import EXTENDED

STEP = "publish"
_DIGITS = 12


def publish(bundle: Bundle, store: Place, version: str = "", evaluation: Place | None = None) -> StepOutcome:
    """Publish a bundle under ``models/<model>/<version>/`` with a model card.

    The content of a version never changes. If the same networks are published already, that bundle is returned, and
    repaired if it is damaged. Different networks are refused, even if another process published them a moment earlier,
    and nothing is written into the version.

    Args:
        bundle: The bundle.
        store: The store that receives it.
        version: Version to publish under; if empty, it is derived from the content.
        evaluation: The record of the trained network's evaluation, for the model card.

    Raises:
        InputError: The version is not a valid name.
        VersionTaken: Different networks are published under this version.
    """
    watch, manifest = Stopwatch(), bundle.manifest
    version = version or manifest.content_version
    check_version(version)
    evaluated = _evaluated(evaluation)
    numbers, best = _numbers(manifest, evaluated), _best_thresholds(manifest, evaluated)
    card = model_card(manifest.model_dump(mode="json"), numbers, best, _intervals(manifest, evaluated))
    # The warnings of the training stay with the bundle.
    kept = {
        name: value for name, value in manifest.metrics.items() if name in ("pretrain", "train", EXTENDED, LEFT_OUT)
    }
    place = published_place(store, manifest.model, version)
    published = _put(bundle, place, version, card, {**kept, **numbers, **({BEST_THRESHOLDS: best} if best else {})})
    size = sum(file.size for file in manifest.model_files.values())
    facts = {
        "bundle": published.uri,
        "size": size_text(size),
        "files": len({*manifest.files, MODEL_CARD}),
        "source": bundle.reference,
    }
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"bundle": published},
        metrics={"version": version, "model": manifest.model, "bytes": size, **numbers, **_left_out(manifest)},
        html=publish_report(manifest.model, version, card, facts),
    )


def published_place(store: Place, model: str, version: str) -> Place:
    """Return the folder in which a version of a model is published."""
    return store / "models" / model / version


def publish_output(store: Place, bundle: Bundle, version: str, evaluation: Place | None) -> Place:
    """Return the folder for the record of the step publish.

    It is not in the folder of the version: other runs may publish the same networks there, with their own metrics.
    """
    made_from = {
        "bundle": bundle.digest,
        "version": version or bundle.manifest.content_version,
        "evaluation": evaluation.reference if evaluation else "",
    }
    return store / "results" / STEP / f"{bundle.manifest.model}-{config_digest(made_from)[:_DIGITS]}"


def _put(bundle: Bundle, place: Place, version: str, card: str, metrics: dict[str, Any]) -> Bundle:
    """Publish a bundle with its card, unless its networks are published already, and return the published bundle."""
    if place.store.uri == bundle.uri:
        return bundle
    with temporary_folder("publish") as folder:
        path = folder / MODEL_CARD
        path.write_text(card, encoding="utf-8")
        if not _has_networks(place, bundle, version):
            try:
                return derive_bundle(bundle, place, {MODEL_CARD: path}, step=STEP, replace=False, metrics=metrics)
            except VersionTaken:
                # Another process has published in the meantime.
                if not _has_networks(place, bundle, version):
                    raise
        files = {name: bundle.path(name) for name in bundle.manifest.files} | {MODEL_CARD: path}
        published = _whole(place, files, bundle.manifest)
        return published or derive_bundle(bundle, place, {MODEL_CARD: path}, step=STEP, metrics=metrics)


def _has_networks(place: Place, bundle: Bundle, version: str) -> bool:
    """Tell whether the networks of a bundle are published already, even if damaged; refuse different networks."""
    if not place.store.exists(MANIFEST_NAME):
        return False
    if read_bundle(place).manifest.networks != bundle.manifest.networks:
        raise VersionTaken(f"{place}: version {version} has different content already; choose a different version")
    return True


def _whole(place: Place, files: Mapping[str, Path], manifest: BundleManifest) -> Bundle | None:
    """Return a published bundle that has all files of a bundle with the same networks; repair it if it is damaged."""
    published = None
    with suppress(InputError):
        published = open_bundle(place)
    if published is None:
        with suppress(InputError):
            published = repair_bundle(place, files)
    has_all = published is not None and published.manifest.files.keys() >= manifest.model_files.keys()
    return published if has_all else None


def _evaluated(evaluation: Place | None) -> dict[str, Any]:
    """Return the metrics of the evaluation of the trained network; empty if there is no record."""
    if evaluation is None:
        return {}
    record = read_record(evaluation)
    if record.step != "evaluate":
        raise InputError(f"{evaluation}: this is the record of {record.step}; give the record of an evaluation")
    return dict(record.metrics)


def _intervals(manifest: BundleManifest, evaluated: Mapping[str, Any]) -> dict[str, Interval]:
    """Return the interval of AP of every runtime for which it is known."""
    found: dict[str, Resamples | None] = {
        name: resamples_in(manifest.metrics[name]) for name in MEASURED if name in manifest.metrics
    }
    if evaluated:
        found = {_runtime(evaluated): resamples_in(evaluated), **found}
    intervals = {name: each.interval("AP") for name, each in found.items() if each}
    return {name: each for name, each in intervals.items() if each}


def _numbers(manifest: BundleManifest, evaluated: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the COCO metrics of every runtime that has been evaluated."""
    numbers = numbers_of(manifest.metrics, MEASURED)
    if evaluated:
        numbers = {_runtime(evaluated): {key: evaluated.get(key) for key in COCO_KEYS}, **numbers}
    return {name: numbers[name] for name in MEASURED if name in numbers}


def _best_thresholds(manifest: BundleManifest, evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the best thresholds of every runtime that has been evaluated, if a box was found."""
    metrics = {**({_runtime(evaluated): evaluated} if evaluated else {}), **manifest.metrics}
    best = {name: kept_thresholds(metrics, name) for name in MEASURED}
    return {name: thresholds.model_dump() for name, thresholds in best.items() if thresholds is not None}


def _left_out(manifest: BundleManifest) -> dict[str, Any]:
    """Return why a network was left out of the bundle, by runtime; empty if none was."""
    return {LEFT_OUT: manifest.metrics[LEFT_OUT]} if LEFT_OUT in manifest.metrics else {}


def _runtime(evaluated: Mapping[str, Any]) -> str:
    return str(evaluated.get("runtime", "mindspore"))
