"""Steps that do nothing but leave records, in place of kubeyolo.steps.component, for tests of runs.

The environment says what goes wrong: FAKE_STEP names the step, FAKE_END how it ends. Every call is a line of calls.log.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from kubeyolo.errors import InputError, WorkError
from kubeyolo.steps.record import write_record, write_report
from kubeyolo.steps.reporting import reported
from kubeyolo.storage.uri import join_uri, open_store, write_document

NUMBERS = {key: 0.5 for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")}


def _step(step: str, given: dict[str, Any], outputs: dict[str, str], metrics: dict[str, Any]) -> str:
    store = str(given["store"])
    with reported(step) as reporter:
        reporter.write_to(join_uri(store, "fake", step))
        if "://" not in store:
            with (Path(store) / "calls.log").open("a") as calls:
                calls.write(f"{step}\n")
        print(f"{step} says hello", flush=True)
        html = write_report(reporter.output, f"<h1>{step}</h1>")
        if os.environ.get("FAKE_STEP") == step:
            _end(os.environ["FAKE_END"], step)
        record = write_record(reporter.output, step, 1.5, outputs, metrics, html)
        reporter.publish(record, given["metrics"], given["report"])
        if "confusion" in given:
            matrix = {"categories": ["cat", "background"], "matrix": [[1, 2], [3, 0]]}
            write_document(join_uri(reporter.output, "confusion.json"), json.dumps(matrix).encode())
            reporter.publish_confusion(join_uri(reporter.output, "confusion.json"), given["confusion"])
    return record


def _end(how: str, step: str) -> None:
    if how == "input":
        raise InputError(f"{step}: the input is bad")
    if how == "work":
        raise WorkError(f"{step}: the work failed")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(60)


def _bundle(given: dict[str, Any], name: str) -> str:
    uri = join_uri(str(given["store"]), "fake", name)
    open_store(uri).write_bytes("bundle.json", b"{}")
    return uri


def validate_dataset(**given: Any) -> tuple[str, str, str]:
    uri = join_uri(str(given["store"]), "fake", "dataset")
    write_document(join_uri(uri, "dataset.json"), b"{}")
    outputs = {"dataset": uri, "digest": "d" * 64}
    return uri, "d" * 64, _step("validate_dataset", given, outputs, {"name": "fake", "train_images": 3})


def pretrain_backbone(**given: Any) -> tuple[str, str]:
    return "", _step("pretrain_backbone", given, {}, {"enabled": False})


def train(**given: Any) -> tuple[str, str]:
    uri = _bundle(given, "trained")
    return uri, _step("train", given, {"bundle": uri}, {"steps": 10, "max_epoch": given["train_overrides"]})


def evaluate(**given: Any) -> tuple[str]:
    return (_step("evaluate", given, {}, NUMBERS),)


def export_model(**given: Any) -> tuple[str, str]:
    uri = _bundle(given, "exported")
    return uri, _step("export_model", given, {"bundle": uri}, {"onnx": NUMBERS})


def quantize(**given: Any) -> tuple[str, str]:
    uri = _bundle(given, "quantized")
    return uri, _step("quantize", given, {"bundle": uri}, {"int8": {**NUMBERS, "AP": 0.49}})


def publish(**given: Any) -> tuple[str, str]:
    uri = _bundle(given, "published")
    return uri, _step("publish", given, {"bundle": uri}, {"version": "v"})


def read_pointer(**given: Any) -> tuple[str, str, str, str, str]:
    assert "{{" not in given["run_id"]
    with (Path(given["store"]) / "calls.log").open("a") as calls:
        calls.write("read_pointer\n")
    return os.environ["FAKE_DATA"], "f", "", f"{given['store']}/latest.json", "fake-run"


def evaluate_in_use(**given: Any) -> tuple[str]:
    assert (given["bundle"], given["run_name"]) == ("", "fake-run")
    return (_step("evaluate_in_use", given, {"bundle": ""}, {}),)


def promote(**given: Any) -> tuple[str, str]:
    assert (given["data"], given["fingerprint"], given["dataset_digest"]) == (os.environ["FAKE_DATA"], "f", "d" * 64)
    uri = _bundle(given, "published")
    return uri, _step("promote", given, {"bundle": uri}, {"version": "v"})


def stop_training(*, launcher: str, cluster: dict[str, Any]) -> None:
    assert (launcher, cluster) == ("local", {})
