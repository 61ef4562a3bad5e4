"""The whole pipeline with its store on a real MinIO server, and the bundle read back from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.storage.place import Place
from tests.connections import can_trace, connections, traced

pytestmark = pytest.mark.e2e

SETTINGS = {
    "train.image_size": 64,
    "train.per_batch_size": 4,
    "train.max_epoch": 1,
    "train.warmup_steps": 1,
    "data.workers": 0,
    "pretrain.enabled": "false",
    "export.parity_images": 1,
    "quantize.calibration_images": 2,
    "quantize.max_drop": 100,
}


def kubeyolo(folder: Path, *arguments: str, trace: Path | None = None) -> str:
    """Call the command line in a process of its own, may list its connections, and return what it printed."""
    environment = {**os.environ, "KUBEYOLO_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "kubeyolo.cli.app", *arguments]
    command = traced(command, trace) if trace else command
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_on_minio_ends_in_a_bundle_that_predicts_the_same_when_read_back(
    tmp_path: Path, minio_bucket: str
) -> None:
    data = generate_sample_dataset(tmp_path / "shapes", train=6, val=3, image_size=(160, 160))
    store = f"minio://{minio_bucket}/team/models"
    sets = [argument for key, value in SETTINGS.items() for argument in ("--set", f"{key}={value}")]
    said = kubeyolo(tmp_path, "run", "--data", "shapes", "--store", store, *sets, trace=tmp_path / "trace")
    for step in CompiledPipeline.named().tasks:
        assert f"✓ {step}" in said
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert summary["bundle"].startswith(f"{store}/models/yolov5n-r7/")
    assert abs(summary["export"]["onnx"]["AP"] - summary["evaluate"]["AP"]) <= 0.001

    if can_trace():
        assert connections(tmp_path / "trace") == {os.environ["MINIO_ENDPOINT"]}

    images = [str(path) for path in sorted((data / "val").iterdir())]
    local = tmp_path / "copy"
    Place.of(summary["bundle"]).store.get_tree("", local)
    for runtime in ("onnx", "int8"):
        options = ["--runtime", runtime, "--conf", "0.001", "--json"]
        remote, here = (
            [json.loads(line) for line in kubeyolo(tmp_path, "predict", *images, "-b", uri, *options).splitlines()]
            for uri in (summary["bundle"], str(local))
        )
        assert remote == here
        assert sum(len(one["boxes"]) for one in remote) > 0
