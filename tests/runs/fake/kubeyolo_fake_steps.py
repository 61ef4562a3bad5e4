"""Steps that do nothing but leave records, in place of kubeyolo.steps.component, for tests of runs.

The environment says what goes wrong: FAKE_STEP names the step, FAKE_END how it ends. Every call is a line of calls.log.
What a step leaves lies at a place made of its settings and inputs, as that of a real step does.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubeyolo.bundle import BundleManifest
from kubeyolo.catalogue import STEPS
from kubeyolo.config.form import resolve_form
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.errors import InputError, WorkError
from kubeyolo.steps.outcome import StepOutcome, store_outcome, store_report
from kubeyolo.steps.reporting import StepReporter, reported
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.storage.place import Place

NUMBERS = {key: 0.5 for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")}
DATASET_DIGEST = "d" * 64
_INPUTS = ("settings", "dataset", "backbone", "bundle", "evaluation", "training", "current")


def _step(step: str, given: Mapping[str, Any], outputs: dict[str, str], metrics: dict[str, Any]) -> str:
    """Leave a report, a record and the artifacts of a step; return the reference of the record."""
    settings = StepSettings.parse(given["settings"], step)
    assert {*given} == {"settings", *STEPS[step].inputs, *(each.name for each in STEPS[step].artifacts)}
    with reported(step) as reporter:
        _begin(reporter, settings.store, _place(step, given))
        return _end(reporter, given, outputs, metrics)


def _begin(reporter: StepReporter, store: str, place: str) -> None:
    reporter.write_to(Place.of(store) / "fake" / place)
    if "://" not in store:
        with (Path(store) / "calls.log").open("a") as calls:
            calls.write(f"{reporter.step}\n")
    print(f"{reporter.step} says hello", flush=True)


def _end(
    reporter: StepReporter,
    given: Mapping[str, Any],
    outputs: dict[str, str],
    metrics: dict[str, Any],
    seconds: float = 1.5,
) -> str:
    step, output = reporter.step, reporter.output
    assert output is not None
    html = f"<h1>{step}</h1>"
    store_report(html, output)
    if os.environ.get("FAKE_STEP") == step:
        _fail(os.environ["FAKE_END"], step)
    stored = store_outcome(StepOutcome(step=step, seconds=seconds, outputs=outputs, metrics=metrics, html=html), output)
    reporter.keep(stored)
    for artifact in STEPS[step].artifacts:
        handle = given[artifact.name]
        if artifact.kind == "HTML":
            reporter.publish(stored, handle)
        elif artifact.kind == "Markdown":
            reporter.publish_text(f"# {step}", handle)
        elif artifact.kind == "Metrics":
            reporter.publish_summary({"AP": 0.5}, handle)
        elif artifact.kind == "ClassificationMetrics":
            matrix = {"categories": ["cat", "background"], "matrix": [[1, 2], [3, 0]]}
            reporter.publish_confusion(json.dumps(matrix).encode(), handle)
        else:
            made = output.at(outputs.get("bundle") or outputs["dataset"])
            reporter.publish_handle(made, handle, model="yolov5n-r7")
    return stored.reference


def _fail(how: str, step: str) -> None:
    if how == "input":
        raise InputError(f"{step}: the input is bad")
    if how == "work":
        raise WorkError(f"{step}: the work failed")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os.write(2, b"caf\xe9: the last words\n")
        os._exit(3)
    if how == "sleep":
        time.sleep(60)
    if how == "finish":
        # Done before it hears that it is told to end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(2)
        return
    if how == "compile":
        # As MindSpore's compiler: no handler of a signal runs until it returns.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        ctypes.PyDLL(None).usleep(60_000_000)


def _place(step: str, given: Mapping[str, Any]) -> str:
    identity = {name: given[name] for name in _INPUTS if name in given}
    return f"{step}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"


def _bundle(step: str, given: Mapping[str, Any]) -> str:
    place = Place.of(given["settings"]["store"]) / "fake" / _place(step, given) / "bundle"
    manifest = BundleManifest(
        model="fake",
        classes=("cat",),
        image_size=(64, 64),
        strides=(8,),
        anchors=(((1.0, 1.0),),),
        config={"made by": place.uri},
    )
    written = (place / "bundle.json").write(manifest.model_dump_json().encode())
    return place.pinned(written.digest).reference


def _configure(steps: tuple[str, ...], given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Hand to each step the sections that it reads; the data lies nowhere, its name is its fingerprint."""
    form = {name: text for name, text in given.items() if name != "plan"}
    config, store = resolve_form(form).config, form["store"]
    structs = []
    for step in steps:
        settings = StepSettings(model=config.model, store=store, code="c", config=read_sections(config, step))
        if step == "validate_dataset":
            settings = StepSettings(store=store, code="c", fingerprint=form.get("data") or form["pointer"])
        structs.append(settings.struct())
    with reported("configure") as reporter:
        _begin(reporter, store, "configure")
        record = _end(reporter, {"plan": given["plan"]}, {"data": form.get("data", "")}, {"name": "fake"}, seconds=0.5)
    return ({"name": "fake-run", "store": store}, *structs, record)


def configure_training(**given: Any) -> tuple[Any, ...]:
    steps = ("validate_dataset", "pretrain_backbone", "train", "evaluate", "export_model", "quantize", "publish")
    return _configure(steps, given)


def configure_retraining(**given: Any) -> tuple[Any, ...]:
    steps = (
        "validate_dataset",
        "evaluate_current",
        "pretrain_backbone",
        "train",
        "evaluate",
        "export_model",
        "quantize",
    )
    *structs, record = _configure((*steps, "promote"), given)
    return (*structs, os.environ["FAKE_DATA"], record)


def validate_dataset(**given: Any) -> tuple[str, str]:
    place = Place.of(given["settings"]["store"]) / "fake" / "dataset"
    manifest = DatasetManifest(
        name="fake", source="nowhere", digest=DATASET_DIGEST, classes=("cat",), category_ids=(1,), splits={}
    )
    (place / "dataset.json").write(manifest.model_dump_json().encode())
    dataset = place.pinned(DATASET_DIGEST).reference
    outputs = {"dataset": dataset, "digest": DATASET_DIGEST}
    return dataset, _step("validate_dataset", given, outputs, {"name": "fake", "train_images": 3})


def evaluate_current(**given: Any) -> tuple[str]:
    return (_step("evaluate_current", given, {"bundle": ""}, {}),)


def pretrain_backbone(**given: Any) -> tuple[str, str]:
    return "", _step("pretrain_backbone", given, {}, {"enabled": False})


def train(**given: Any) -> tuple[str, str]:
    bundle = _bundle("train", given)
    return bundle, _step("train", given, {"bundle": bundle}, {"steps": 10})


def evaluate(**given: Any) -> tuple[str]:
    return (_step("evaluate", given, {}, NUMBERS),)


def export_model(**given: Any) -> tuple[str, str]:
    bundle = _bundle("export_model", given)
    return bundle, _step("export_model", given, {"bundle": bundle}, {"onnx": NUMBERS})


def quantize(**given: Any) -> tuple[str, str]:
    bundle = _bundle("quantize", given)
    return bundle, _step("quantize", given, {"bundle": bundle}, {"int8": {**NUMBERS, "AP": 0.49}})


def publish(**given: Any) -> tuple[str, str]:
    bundle = _bundle("publish", given)
    return bundle, _step("publish", given, {"bundle": bundle}, {"version": "v"})


def promote(**given: Any) -> tuple[str, str]:
    bundle = _bundle("promote", given)
    return bundle, _step("promote", given, {"bundle": bundle}, {"version": "v"})
