"""The whole compiled pipeline on this machine, on a few small images: once, again, with other settings or data."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.catalogue import STEPS as CATALOGUE
from kubeyolo.compiled.read import pipeline_text, task_names
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.index import RESULT, read_index, run_output
from kubeyolo.storage.reference import split_reference
from tests.browser import OpenPage

pytestmark = pytest.mark.e2e

STEPS = task_names(pipeline_text())
CACHED = sorted({*STEPS} - {"configure"})
"""The steps whose results may come from the cache."""

SETTINGS = """
model: yolov5n-r7
train:
  image_size: 64
  per_batch_size: 4
  max_epoch: 2
  warmup_steps: 2
  log_interval: 2
data.workers: 0
pretrain:
  max_steps: 3
  per_batch_size: 4
export.parity_images: 2
quantize:
  calibration_images: 4
  max_drop: 100
"""


class Place:
    """A folder with a data set, a configuration, a store and runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = generate_sample_dataset(folder / "shapes", train=12, val=6)
        (folder / "tiny.yaml").write_text(SETTINGS)

    def kubeyolo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call the command line in a process of its own, with its caches in this folder."""
        environment = {**os.environ, "KUBEYOLO_CACHE": str(self.folder / "cache")}
        command = [sys.executable, "-m", "kubeyolo.cli.app", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=800)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.kubeyolo("run", "--config", "tiny.yaml", "--data", "shapes", *arguments)

    @property
    def latest(self) -> Path:
        return self.folder / "runs" / "latest"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("e2e"))
    done = place.run()
    assert done.returncode == 0, done.stdout + done.stderr
    for step in STEPS:
        assert f"✓ {step}" in done.stdout
    assert str(place.latest.resolve() / "index.html") in done.stdout.replace("\n", "")
    return place


def test_the_summary_has_what_it_promises(place: Place) -> None:
    summary = json.loads((place.latest / "summary.json").read_text())
    assert list(summary) == ["model", "dataset", "warnings", "evaluate", "export", "quantize", "bundle", "seconds"]
    assert summary["model"] == "yolov5n-r7"
    assert re.fullmatch("[0-9a-f]{64}", summary["dataset"]["digest"])
    assert tuple(summary["evaluate"]) == COCO_KEYS
    assert all(value is None or 0 <= value <= 1 for value in summary["evaluate"].values())
    assert abs(summary["export"]["onnx"]["AP"] - summary["evaluate"]["AP"]) <= 0.001
    assert 0 <= summary["quantize"]["int8"]["AP"] <= 1
    assert sorted(summary["seconds"]) == sorted(STEPS)
    assert summary["seconds"]["train"] > 0


def test_every_step_has_a_report_and_the_index_links_them(place: Place) -> None:
    index = (place.latest / "index.html").read_text()
    for step in STEPS:
        assert f'href="reports/{step}.html"' in index
        assert "<html" in (place.latest / "reports" / f"{step}.html").read_text()
    assert "Average Precision" in (place.latest / "reports" / "evaluate.html").read_text()


def test_the_cards_of_the_index_have_all_values_that_the_catalogue_names(place: Place) -> None:
    index = (place.latest / "index.html").read_text()
    for step in STEPS:
        card = index.split(f'<li class="panel card" data-step="{step}">')[1].split("</li>")[0]
        assert re.findall(r"<dt>(.*?)</dt>", card) == list(CATALOGUE[step].cards), step


def test_the_reports_of_the_run_open_in_a_browser(place: Place, open_page: OpenPage) -> None:
    with open_page(place.latest / "index.html") as page:
        links = page.eval_on_selector_all("a[href^='reports/']", "(all) => all.map((a) => a.getAttribute('href'))")
        text = page.inner_text("body")
        for number in json.loads((place.latest / "summary.json").read_text())["evaluate"].values():
            assert number is None or f"{number:.3f}" in text
    assert {f"reports/{step}.html" for step in STEPS} <= set(links)
    seen = {}
    for step in STEPS:
        with open_page(place.latest / "reports" / f"{step}.html") as page:
            seen[step] = {
                "text": page.inner_text("body"),
                "boxes": page.locator(".frame .box .edge").count(),
                "images": page.locator(".frame img").evaluate_all("(all) => all.every((i) => i.naturalWidth > 0)"),
                "curves": page.locator("svg path, svg polyline").count(),
            }
    assert all(one["images"] for one in seen.values())
    assert seen["validate_dataset"]["boxes"] > 0 and seen["evaluate"]["boxes"] > 0
    assert seen["train"]["curves"] > 0 and seen["evaluate"]["curves"] > 0
    for words in ("Average Precision", "Average Recall"):
        assert words in seen["evaluate"]["text"]


def test_the_published_bundle_is_whole_and_finds_objects(place: Place) -> None:
    summary = json.loads((place.latest / "summary.json").read_text())
    bundle = open_bundle(summary["bundle"])
    assert {WEIGHTS, ONNX, ONNX_INT8, "model.mindir", "MODEL_CARD.md"} <= set(bundle.manifest.files)
    assert bundle.manifest.dataset is not None
    assert bundle.manifest.dataset.digest == summary["dataset"]["digest"]
    images = [str(path) for path in sorted((place.data / "val").iterdir())]
    done = place.kubeyolo("predict", *images, "--conf", "0.001", "--json", "-o", "drawn")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["image"] for one in found] == images
    assert sum(len(one["boxes"]) for one in found) > 0
    assert all(box["class"] in bundle.manifest.classes for one in found for box in one["boxes"])
    assert len(list((place.folder / "drawn").iterdir())) == len(images)


def from_the_cache(said: str) -> list[str]:
    return sorted(re.findall(r"• (\w+) from the cache", said))


def started(said: str) -> list[str]:
    return re.findall(r"▶ (\w+)", said)


def test_the_same_command_again_configures_and_runs_nothing_else(place: Place) -> None:
    before = (place.latest / "summary.json").read_bytes()
    done = place.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert from_the_cache(done.stdout) == CACHED
    assert started(done.stdout) == ["configure"]
    assert (place.latest / "summary.json").read_bytes() == before


def test_the_index_of_a_run_is_found_by_its_name(place: Place) -> None:
    summary = json.loads((place.latest / "summary.json").read_text())
    index = read_index(run_output(str(place.folder / "store"), place.latest.resolve().name, RESULT))
    assert (index.step, split_reference(index.outputs["bundle"])[0]) == ("publish", summary["bundle"])


def test_steps_called_alone_leave_a_run_as_it_is_and_print_json(place: Place) -> None:
    before = (place.latest / "summary.json").read_bytes()
    summary = json.loads(before)
    dataset = next((place.folder / "store" / "datasets").iterdir())
    done = place.kubeyolo(
        "evaluate",
        summary["bundle"],
        str(dataset),
        "--runtime",
        "onnx",
        "--set",
        "evaluate.conf_threshold=0.9",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"]["result"].startswith(f"file://{place.folder}/store/results/evaluate/")
    backbone = next((place.folder / "store" / "backbones").iterdir()) / "bundle"
    other = ["--backbone", backbone.as_uri(), "--set", "train.log_interval=1", "--json"]
    done = place.kubeyolo("train", str(dataset), "--config", "tiny.yaml", *other)
    assert done.returncode == 0, done.stderr
    assert "train: the result of the same work is at" in done.stderr
    assert json.loads(done.stdout)["seconds"] == summary["seconds"]["train"]
    done = place.run()
    assert started(done.stdout) == ["configure"]
    assert (place.latest / "summary.json").read_bytes() == before


@dataclass(frozen=True)
class OtherRun:
    """A run of other settings in the same store, whose training was killed, and the same command again.

    Attributes:
        killed: The command whose training was killed.
        again: The same command again.
        first: Summary of the first run.
        published: Every file that was published before, with its content.
        run: Folder of the first run.
        other: Folder of this run.
    """

    killed: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    first: dict[str, Any]
    published: dict[Path, bytes]
    run: Path
    other: Path


@pytest.fixture(scope="module")
def longer(place: Place) -> OtherRun:
    settings = ["--set", "train.max_epoch=6", "--set", "train.ckpt_interval=2", "--set", "pretrain.enabled=false"]
    done = place.run()
    assert done.returncode == 0, done.stdout + done.stderr
    run, first = place.latest.resolve(), json.loads((place.latest / "summary.json").read_text())
    published = files_of(place.folder / "store" / "models")
    before = set(place.folder.rglob("checkpoint.json"))
    killer = threading.Thread(target=kill_worker, args=(place.folder, before))
    killer.start()
    killed = place.run(*settings)
    killer.join()
    again = place.run(*settings)
    return OtherRun(killed, again, first, published, run, place.latest.resolve())


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_whose_training_is_killed_goes_on_at_its_checkpoint(longer: OtherRun) -> None:
    assert longer.killed.returncode == 1
    (line,) = longer.killed.stderr.strip().splitlines()
    assert "train" in line and "SIGKILL" in line
    assert longer.again.returncode == 0, longer.again.stdout + longer.again.stderr
    assert "• validate_dataset from the cache" in longer.again.stdout
    (step,) = re.findall(r"resuming at step (\d+) of 18", longer.again.stdout)
    assert 2 <= int(step) < 18


def test_runs_of_other_settings_in_one_store_leave_each_other_alone(place: Place, longer: OtherRun) -> None:
    """Each publishes a network of its own, and an equal run later finds all of the first one, untouched."""
    first, second = longer.first, json.loads((longer.other / "summary.json").read_text())
    assert longer.other != longer.run
    assert second["bundle"] != first["bundle"] and second["dataset"] == first["dataset"]
    one, other = (open_bundle(summary["bundle"]).manifest for summary in (first, second))
    assert (one.config["train"]["max_epoch"], other.config["train"]["max_epoch"]) == (2, 6)
    for file in (WEIGHTS, ONNX, ONNX_INT8):
        assert one.files[file].sha256 != other.files[file].sha256, file

    begun = time.monotonic()
    done = place.run()
    print(f"a run from the cache: {time.monotonic() - begun:.1f} s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert from_the_cache(done.stdout) == CACHED
    assert started(done.stdout) == ["configure"]
    assert place.latest.resolve() == longer.run
    # The same bundle again, and not a byte of it is another one.
    assert json.loads((place.latest / "summary.json").read_text()) == first
    assert longer.published.items() <= files_of(place.folder / "store" / "models").items()


def kill_worker(folder: Path, before: set[Path]) -> None:
    """Kill the training process of a run in this folder once it has written a checkpoint."""
    while not set(folder.rglob("checkpoint.json")) - before:
        time.sleep(0.01)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = f"KUBEYOLO_CACHE={folder}".encode() in (process / "environ").read_bytes()
            if ours and b"kubeyolo.training.worker" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def test_changed_data_is_validated_again_and_a_closed_gate_ends_the_run(place: Place) -> None:
    path = place.data / "annotations" / "val.json"
    path.write_text(path.read_text() + " \n")
    done = place.run("--set", "evaluate.min_ap=0.99")
    assert done.returncode == 1
    assert "✓ validate_dataset" in done.stdout
    # Another file with the same content: the stored data set is the same, and so is what was trained on it.
    assert "• train from the cache" in done.stdout
    assert "✗ evaluate" in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert "below the gate evaluate.min_ap = 0.99" in line
    index = (place.latest / "index.html").read_text()
    assert "below the gate" in index
    assert "Average Precision" in (place.latest / "reports" / "evaluate.html").read_text()
    assert not (place.latest / "summary.json").exists()
