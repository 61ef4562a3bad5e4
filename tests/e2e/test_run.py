"""The whole compiled pipeline on this machine, on a few small images: once, again, and with other data."""

from __future__ import annotations

import json
import re

import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.catalogue import STEPS as CATALOGUE
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.index import RESULT, read_index, run_output
from kubeyolo.storage.place import Place
from tests.browser import OpenPage
from tests.connections import MACHINE_ID, NO_STRACE, can_trace, connections
from tests.e2e.work_folder import CACHED, STEPS, WorkFolder, from_the_cache, started

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    work = WorkFolder(tmp_path_factory.mktemp("e2e"), "yolov5n-r7")
    done = work.run(trace=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in STEPS:
        assert f"✓ {step}" in done.stdout
    assert str(work.latest.resolve() / "index.html") in done.stdout.replace("\n", "")
    return work


def test_the_summary_has_what_it_promises(work: WorkFolder) -> None:
    summary = json.loads((work.latest / "summary.json").read_text())
    assert list(summary) == ["model", "dataset", "warnings", "evaluate", "export", "quantize", "bundle", "seconds"]
    assert summary["model"] == "yolov5n-r7"
    assert re.fullmatch("[0-9a-f]{64}", summary["dataset"]["digest"])
    assert tuple(summary["evaluate"]) == COCO_KEYS
    assert all(value is None or 0 <= value <= 1 for value in summary["evaluate"].values())
    assert abs(summary["export"]["onnx"]["AP"] - summary["evaluate"]["AP"]) <= 0.001
    assert 0 <= summary["quantize"]["int8"]["AP"] <= 1
    assert sorted(summary["seconds"]) == sorted(STEPS)
    assert summary["seconds"]["train"] > 0


def test_a_run_connects_to_nothing_and_leaves_no_id_of_the_machine(work: WorkFolder) -> None:
    assert not (work.home / MACHINE_ID).exists()
    if not can_trace():
        pytest.skip(NO_STRACE)
    assert connections(work.trace) == set()


def test_every_step_has_a_report_and_the_index_links_them(work: WorkFolder) -> None:
    links = re.findall(r'href="reports/(\w+)\.html"', (work.latest / "index.html").read_text())
    assert set(links) == set(STEPS) == {path.stem for path in (work.latest / "reports").glob("*.html")}
    assert "Average Precision" in (work.latest / "reports" / "evaluate.html").read_text()


def test_the_cards_of_the_index_have_all_values_that_the_catalogue_names(work: WorkFolder) -> None:
    index = (work.latest / "index.html").read_text()
    for step in STEPS:
        card = index.split(f'<li class="panel card" data-step="{step}">')[1].split("</li>")[0]
        # Top-5 accuracy exists for more than five classes alone.
        named = [title for title, path in CATALOGUE[step].cards.items() if path != "top5"]
        assert re.findall(r"<dt>(.*?)</dt>", card) == named, step


def test_the_reports_of_the_run_open_in_a_browser(work: WorkFolder, open_page: OpenPage) -> None:
    with open_page(work.latest / "index.html") as page:
        links = page.eval_on_selector_all("a[href^='reports/']", "(all) => all.map((a) => a.getAttribute('href'))")
        text = page.inner_text("body")
        for number in json.loads((work.latest / "summary.json").read_text())["evaluate"].values():
            assert number is None or f"{number:.3f}" in text
    assert {f"reports/{step}.html" for step in STEPS} <= set(links)
    seen = {}
    for step in STEPS:
        with open_page(work.latest / "reports" / f"{step}.html") as page:
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


def test_the_published_bundle_is_whole_and_finds_objects(work: WorkFolder) -> None:
    summary = json.loads((work.latest / "summary.json").read_text())
    bundle = open_bundle(Place.of(summary["bundle"]))
    assert {WEIGHTS, ONNX, ONNX_INT8, "model.mindir", "MODEL_CARD.md"} <= set(bundle.manifest.files)
    assert bundle.manifest.dataset is not None
    assert bundle.manifest.dataset.digest == summary["dataset"]["digest"]
    images = [str(path) for path in sorted((work.data / "val").iterdir())]
    done = work.kubeyolo("predict", *images, "--conf", "0.001", "--json", "-o", "drawn")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["image"] for one in found] == images
    assert sum(len(one["boxes"]) for one in found) > 0
    assert all(box["class"] in bundle.manifest.classes for one in found for box in one["boxes"])
    assert len(list((work.folder / "drawn").iterdir())) == len(images)


def test_the_same_command_again_configures_and_runs_nothing_else(work: WorkFolder) -> None:
    before = (work.latest / "summary.json").read_bytes()
    done = work.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert from_the_cache(done.stdout) == CACHED
    assert started(done.stdout) == ["configure"]
    assert (work.latest / "summary.json").read_bytes() == before


def test_the_index_of_a_run_is_found_by_its_name(work: WorkFolder) -> None:
    summary = json.loads((work.latest / "summary.json").read_text())
    index = read_index(run_output(Place.of(work.folder / "store"), work.latest.resolve().name, RESULT))
    assert (index.step, Place.of(index.outputs["bundle"]).uri) == ("publish", summary["bundle"])


def test_steps_called_alone_leave_a_run_as_it_is_and_print_json(work: WorkFolder) -> None:
    before = (work.latest / "summary.json").read_bytes()
    summary = json.loads(before)
    dataset = next((work.folder / "store" / "datasets").iterdir())
    done = work.kubeyolo(
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
    assert json.loads(done.stdout)["outputs"]["result"].startswith(f"file://{work.folder}/store/results/evaluate/")
    backbone = next((work.folder / "store" / "backbones").iterdir()) / "bundle"
    other = ["--backbone", backbone.as_uri(), "--set", "train.log_interval=1", "--json"]
    done = work.kubeyolo("train", str(dataset), "--config", "tiny.yaml", *other)
    assert done.returncode == 0, done.stderr
    assert "train: the result of the same work is at" in done.stderr
    assert json.loads(done.stdout)["seconds"] == summary["seconds"]["train"]
    done = work.run()
    assert started(done.stdout) == ["configure"]
    assert (work.latest / "summary.json").read_bytes() == before


def test_changed_data_is_validated_again_and_a_closed_gate_ends_the_run(work: WorkFolder) -> None:
    path = work.data / "annotations" / "val.json"
    path.write_text(path.read_text() + " \n")
    done = work.run("--set", "evaluate.min_ap=0.99")
    assert done.returncode == 1
    assert "✓ validate_dataset" in done.stdout
    # Another file with the same content: the stored data set is the same, and so is what was trained on it.
    assert "• train from the cache" in done.stdout
    assert "✗ evaluate" in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert "below the gate evaluate.min_ap = 0.99" in line
    index = (work.latest / "index.html").read_text()
    assert "below the gate" in index
    assert "Average Precision" in (work.latest / "reports" / "evaluate.html").read_text()
    assert not (work.latest / "summary.json").exists()
