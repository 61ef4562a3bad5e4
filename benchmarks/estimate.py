"""Compare the estimate of a run with measurements: ``python -m benchmarks.estimate --model yolov5n-r7 --size 256``.

It runs the command of each step on a generated data set, and prints seconds and peak memory next to the estimates of
:mod:`kubeyolo.estimate`. The load of other programs makes the steps slower: the column "busy" is processor seconds over
(seconds x cores), and is low if other programs used the cores. ``--processes 2`` measures two training processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.shapes import CLASSES
from kubeyolo.estimate.run import estimate_run
from kubeyolo.models.named_facts import model_facts
from kubeyolo.resources import usable_processors

PROGRAM = "import sys; from kubeyolo.cli.app import main; sys.exit(main())"


@dataclass(frozen=True)
class Measured:
    """Measurements of a command: seconds, processor seconds, bytes of its largest process; and the printed record."""

    seconds: float
    busy_seconds: float
    peak_bytes: int
    record: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov5n-r7")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=80, help="training images; val has a quarter of them")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--pretrain-steps", type=int, default=20)
    parser.add_argument("--train-only", action="store_true", help="run only the step train")
    options = parser.parse_args()
    sets = [f"train.image_size={options.size}", f"train.per_batch_size={options.batch}"]
    sets += [f"train.max_epoch={options.epochs}", f"train.processes={options.processes}", "train.log_interval=2"]
    sets += [f"pretrain.max_steps={options.pretrain_steps}", "quantize.max_drop=100"]
    config = load_config(options.model, sets=sets)
    cores = usable_processors()
    print(f"{options.model}, {options.size} px, batch {options.batch}, {cores} cores, {' '.join(sets)}")
    images = {"train": options.images, "val": max(1, options.images // 4)}
    with tempfile.TemporaryDirectory(prefix="kubeyolo-bench-") as name:
        store = Path(name) / "store"
        dataset, data_bytes = stored_sample(Path(name) / "sample", store, images)
        measured = measure(dataset, store, options.model, sets, options.train_only)
        stored = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    compare(config, images, data_bytes, cores, measured, stored)
    return 0


def stored_sample(folder: Path, store: Path, images: dict[str, int]) -> tuple[str, int]:
    """Generate and store a data set; return its URI and its size in bytes."""
    run("sample", str(folder), "--train", str(images["train"]), "--val", str(images["val"]), as_json=False)
    dataset = run("validate", str(folder), "--store", str(store)).record["outputs"]["dataset"]
    return dataset, sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def measure(dataset: str, store: Path, model: str, sets: list[str], train_only: bool) -> dict[str, Measured]:
    """Run the steps one after another and return the measurements of each step."""
    settings = ["--store", str(store), *(word for value in sets for word in ("--set", value))]
    steps: dict[str, Measured] = {}
    backbone: list[str] = []
    if not train_only:
        steps["pretrain_backbone"] = run("pretrain", dataset, "--model", model, *settings)
        backbone = ["--backbone", bundle_of(steps["pretrain_backbone"], "backbone")]
    steps["train"] = run("train", dataset, "--model", model, *backbone, *settings)
    if train_only:
        return steps
    trained = bundle_of(steps["train"])
    steps["evaluate"] = run("evaluate", trained, dataset, *settings)
    steps["export_model"] = run("export", trained, dataset, *settings)
    steps["quantize"] = run("quantize", bundle_of(steps["export_model"]), dataset, *settings)
    return steps


def run(*words: str, as_json: bool = True) -> Measured:
    """Run a command and measure it; the memory is that of its largest process, such as a training process."""
    before = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, *words, *(["--json"] if as_json else [])]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        # Unlike wait() it returns the resources of the command and of the processes that it started.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"kubeyolo {' '.join(words)}: exit code {process.returncode}\n{errors.read()[-2000:]}")
    record = json.loads(output) if as_json else {}
    seconds = time.perf_counter() - before
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, record)


def bundle_of(step: Measured, name: str = "bundle") -> str:
    return str(step.record["outputs"][name])


def compare(
    config: Config,
    images: dict[str, int],
    data_bytes: int,
    cores: int,
    measured: dict[str, Measured],
    stored: int,
) -> None:
    """Print the measurements next to the estimates."""
    estimate = estimate_run(
        model_facts(config.model),
        config,
        images,
        data_bytes=data_bytes,
        classes=len(CLASSES),
        cores=cores,
    )
    print("\n".join(estimate.words()))
    print(f"{'step':18} {'seconds':>8} {'processor s':>11} {'estimate':>8} {'ratio':>6} {'busy':>6} {'peak MB':>8}")
    for name, step in measured.items():
        expected = estimate.seconds[name]
        busy = step.busy_seconds / step.seconds / cores
        print(
            f"{name:18} {step.seconds:8.1f} {step.busy_seconds:11.1f} {expected:8.1f} {expected / step.seconds:6.2f} "
            f"{busy:6.0%} {step.peak_bytes / 1e6:8.0f}"
        )
    print(f"images per second of train: {measured['train'].record['metrics'].get('images_per_second')}")
    peak = max(step.peak_bytes for name, step in measured.items() if name in ("pretrain_backbone", "train"))
    print(f"memory of a training process: {peak / 1e6:.0f} MB, estimate {estimate.memory / 1e6:.0f} MB")
    if len(measured) == len(estimate.seconds):
        print(f"store: {stored / 1e6:.0f} MB before publishing, {estimate.disk / 1e6:.0f} MB with it")


if __name__ == "__main__":
    sys.exit(main())
