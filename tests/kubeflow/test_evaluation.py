"""What the gate sends to the evaluation pipeline, and the numbers that it finds in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import ONNX, WEIGHTS, BundleManifest, read_bundle
from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.cli.app import main
from kubeyolo.compiled.images import IMAGE_NAMES
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord
from kubeyolo.kubeflow.result import evaluation_records
from kubeyolo.models.named_facts import model_facts
from kubeyolo.pointers import ModelPointer, write_model_pointer
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps.configure import configure
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place
from tests.kubeflow.kubeflow_double import KubeflowDouble, task

MODEL = "yolov5n-r7"


def write_numbers(uri: str, ap: float) -> None:
    """Write a record as the step evaluate does: with more in it than the COCO numbers."""
    record = StepRecord(step="evaluate", seconds=1.0, metrics={"AP": ap, "AP50": ap, "classes": {}})
    Place.of(uri).write(record.model_dump_json().encode())


def test_numbers_are_read_by_the_place_that_configure_gave(tmp_path: Path) -> None:
    indexes = {task: (tmp_path / f"{task}.json").as_uri() for task in ("evaluate", "evaluate_baseline")}
    with pytest.raises(NotFound):
        evaluation_records(indexes)
    write_numbers(indexes["evaluate"], 0.5)
    write_numbers(indexes["evaluate_baseline"], 0.4)
    records = evaluation_records(indexes)
    assert {task: found.metrics["AP"] for task, found in records.items()} == {"evaluate": 0.5, "evaluate_baseline": 0.4}
    (tmp_path / "evaluate.json").write_text("{}")
    with pytest.raises(InputError, match="evaluate.json: not the record of a step"):
        evaluation_records(indexes)


@pytest.fixture
def bucket(minio_bucket: str, tmp_path: Path) -> str:
    """A data set, two bundles, and a pointer to one of them, in a bucket."""
    data = generate_sample_dataset(tmp_path / "shapes", train=2, val=1, image_size=(64, 64))
    Place.of(f"minio://{minio_bucket}/data/shapes").store.put_tree(data, "")
    facts = model_facts(MODEL)
    for name in ("new", "old"):
        files = {network: tmp_path / network for network in (WEIGHTS, ONNX)}
        for path in files.values():
            path.write_text(name)
        manifest = BundleManifest(
            model=MODEL, classes=("a",), image_size=(64, 64), strides=facts.strides, anchors=facts.anchors
        )
        publish_bundle(Place.of(f"minio://{minio_bucket}/models/{name}"), manifest, files)
    latest = f"minio://{minio_bucket}/models/latest.json"
    write_model_pointer(Place.of(latest), ModelPointer(bundle=f"minio://{minio_bucket}/models/old"))
    return minio_bucket


@pytest.fixture
def gate(bucket: str, double: KubeflowDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the gate's command on a Kubeflow whose runs end at once; return its exit code and what it printed as JSON."""
    images = tmp_path / "images.yaml"
    images.write_text("".join(f"{name}: registry/{name}@sha256:{'0' * 64}\n" for name in IMAGE_NAMES))
    double.next_states = [("SUCCEEDED", task("evaluate", "SUCCEEDED", 1))]

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        places = ("--bundle", f"minio://{bucket}/models/new", "--data", f"minio://{bucket}/data/shapes")
        options = ("--store", f"minio://{bucket}/store", "--images", str(images), "--json")
        with pytest.raises(SystemExit) as ended:
            main(["pipeline", "gate", *places, *options, *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(said.out) if said.out else {"error": said.err}

    return call


def configured(form: dict[str, str]) -> ConfiguredRun:
    return configure(MODEL_EVALUATION, form, is_remote=True)


def test_the_gate_finds_the_numbers_of_the_run_that_it_has_submitted(
    gate: Callable[..., Any], bucket: str, double: KubeflowDouble, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: yolov5s\ntrain: {max_epoch: 3, seed: 1}\nevaluate: {max_det: 7, min_ap: 0.9}\n")
    baseline = f"minio://{bucket}/models/latest.json"
    options = ("--config", str(file), "--baseline", baseline, "--runtime", "onnx", "--max-drop", "10")
    code, said = gate(*options)
    assert code == 2 and "runs/evaluation-new-shapes-" in said["error"], said
    (run,) = double.runs.values()
    form = run.body["runtime_config"]["parameters"]
    # Kubeflow refuses parameters that the pipeline does not have.
    assert set(form) <= set(CompiledPipeline.named(MODEL_EVALUATION).fields)
    assert {type(value) for value in form.values()} == {str}
    there = configured(form)
    assert run.body["display_name"].startswith(f"{there.name}-")
    evaluate = there.settings["evaluate"].config["evaluate"]
    assert (evaluate["max_det"], evaluate["min_ap"]) == (7, 0.0)
    write_numbers(there.settings["evaluate"].index, 0.45)
    write_numbers(there.settings["evaluate_baseline"].index, 0.5)
    code, said = gate(*options)
    assert (code, said["passed"], said["evaluate"]["AP"], said["evaluate_baseline"]["AP"]) == (0, True, 0.45, 0.5)
    assert len(said["evaluate"]) == 12 and said["evaluate"]["AP75"] is None
    assert gate(*options, "--min-ap", "0.5")[0] == 1


def test_a_pointer_that_moves_on_is_compared_as_it_was(
    gate: Callable[..., Any], bucket: str, double: KubeflowDouble
) -> None:
    gate("--baseline", f"minio://{bucket}/models/latest.json")
    (run,) = double.runs.values()
    form = run.body["runtime_config"]["parameters"]
    assert form["baseline"] == read_bundle(Place.of(f"minio://{bucket}/models/old")).reference
    assert form["bundle"] == read_bundle(Place.of(f"minio://{bucket}/models/new")).reference


def test_a_pointer_that_is_not_there_is_named_with_the_remedy(gate: Callable[..., Any], bucket: str) -> None:
    latest = f"minio://{bucket}/models/absent.json"
    code, said = gate("--baseline", latest)
    assert code == 2 and f"{latest}: there is no such pointer to a model" in said["error"]
    assert f"kubeyolo publish BUNDLE --store URI --latest {latest}" in said["error"]


def test_without_a_baseline_there_is_none_in_the_form(
    gate: Callable[..., Any], bucket: str, double: KubeflowDouble
) -> None:
    gate("--min-ap", "0.5")
    (run,) = double.runs.values()
    form = run.body["runtime_config"]["parameters"]
    assert "baseline" not in form and "min_ap" not in form
    write_numbers(configured(form).settings["evaluate"].index, 0.5)
    assert gate("--min-ap", "0.5")[0] == 0


@pytest.mark.parametrize("place", ["bundle", "baseline", "data", "store"])
def test_pods_reach_every_place_that_the_gate_names(
    bucket: str, double: KubeflowDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    places = {name: f"minio://{bucket}/{name}" for name in ("bundle", "baseline", "data", "store")}
    places[place] = str(tmp_path / "here")
    options = [word for name, uri in places.items() for word in (f"--{name}", uri)]
    with pytest.raises(SystemExit) as ended:
        main(["pipeline", "gate", *options])
    assert ended.value.code == 2
    assert f"the field {place} = {tmp_path / 'here'}: pods cannot read folders" in capsys.readouterr().err
    assert not double.runs
