"""A run from the data set to the bundle: all steps, what Kubeflow shows of them, and what is taken from its cache."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, open_bundle, read_bundle
from kubeyolo.catalogue import STEPS
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.index import run_output
from kubeyolo.kubeflow.result import remote_result
from kubeyolo.storage.place import Place
from tests.cluster.site import Site, Submission

TASKS = CompiledPipeline.named().tasks

KUBEFLOW_STORE = "KUBEYOLO_TEST_KUBEFLOW_STORE"
ARTIFACTS = "minio://mlpipeline/v2/artifacts/detector-training"


def test_every_step_succeeds_and_nothing_is_left(site: Site, undisturbed: Submission) -> None:
    run = undisturbed.run
    assert run.state == "SUCCEEDED"
    assert {step.name: step.state for step in run.steps} == dict.fromkeys(TASKS, "SUCCEEDED")
    assert run.steps[0].name == "configure"
    site.nothing_left(undisturbed.job)
    assert undisturbed.result()["resumed_at"] == []
    assert f"bundle  {undisturbed.bundle}" in undisturbed.command.text
    assert re.search(r"(?m)^ *AP +0\.\d+ +0\.\d+ +0\.\d+ *$", undisturbed.command.text)


def test_the_results_are_found_by_the_id_and_by_the_name_of_the_run(undisturbed: Submission) -> None:
    note, index = undisturbed.note, undisturbed.index
    assert note["pipeline"] == "detector-training"
    assert note["index"] == run_output(Place.of(undisturbed.store), note["name"], "result.json").uri
    assert undisturbed.run.name.startswith(f"{note['name']}-")
    assert index.step == "publish" and {"mindspore", "onnx", "int8"} <= index.metrics.keys()
    plan = (run_output(Place.of(undisturbed.store), note["name"], "configure") / "report.html").read()
    assert plan.lstrip().lower().startswith(b"<!doctype html")
    made = remote_result(undisturbed.run)
    assert made is not None and made.bundle == undisturbed.bundle
    assert made.numbers["ONNX"]["AP"] == index.metrics["onnx"]["AP"]


def test_the_bundle_is_complete_and_predicts(site: Site, undisturbed: Submission, data: str, tmp_path: Path) -> None:
    bundle = open_bundle(Place.of(undisturbed.bundle))
    for name in (WEIGHTS, ONNX, ONNX_INT8):
        assert bundle.path(name).stat().st_size > 0
    store = Place.of(data).store
    key = next(one.key for one in store.list("val"))
    image = tmp_path / Path(key).name
    store.get_file(key, image)
    options = ("--runtime", "onnx", "--set", "predict.conf_threshold=0.01", "--json")
    code, text = site.call("predict", str(image), "--bundle", undisturbed.bundle, *options)
    assert code == 0, text
    (found,) = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert found["boxes"], text


@pytest.mark.skipif(not os.environ.get(KUBEFLOW_STORE), reason=f"{KUBEFLOW_STORE} is not set")
def test_reports_and_handles_are_artifacts_of_kubeflow(
    undisturbed: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_ENDPOINT", os.environ[KUBEFLOW_STORE])
    store = (Place.of(ARTIFACTS) / undisturbed.id).store
    found: dict[str, dict[str, str]] = {}
    for one in store.list():
        step, _, name = one.key.split("/")
        found.setdefault(step.replace("-", "_"), {})[name] = one.key
    for name in TASKS:
        kinds = {artifact.name: artifact.kind for artifact in STEPS[name].artifacts}
        assert kinds.keys() <= found[name].keys(), name
        for artifact, kind in kinds.items():
            content = store.read_bytes(found[name][artifact])
            if kind == "HTML":
                assert content.lstrip().lower().startswith(b"<!doctype html"), artifact
            if kind in ("Dataset", "Model"):
                facts = json.loads(content)
                assert facts["store_uri"].startswith(undisturbed.store) and len(facts["digest"]) == 64, artifact
    assert store.read_bytes(found["configure"]["plan"]).startswith(b"# ")


def test_every_pod_keeps_to_the_restricted_level(site: Site, undisturbed: Submission) -> None:
    labels = json.loads(site.kubectl("get", "namespace", site.namespace, "-o", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = site.objects("pods", f"workflows.argoproj.io/workflow={undisturbed.run.workflow}")
    assert len(pods) > 2 * len(TASKS)
    for pod in pods:
        whole = pod["spec"].get("securityContext", {})
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"]["drop"] == ["ALL"]
            assert {**whole, **own}["runAsNonRoot"] is True


def test_pods_train_as_processes_of_one_machine_do(
    site: Site, undisturbed: Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The threads of a pod: the order of sums depends on their number.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trained = read_bundle(Place.of(undisturbed.trained)).manifest
    assert trained.dataset is not None and trained.parent is not None
    dataset = trained.dataset.uri
    places = (dataset, "--store", str(tmp_path), "--backbone", trained.parent)
    code, text = site.call("train", *places, "--config", "settings.yaml", seconds=1200)
    assert code == 0, text
    lines = next(tmp_path.rglob("history.jsonl")).read_text().splitlines()
    here = {row["step"]: row["loss"] for row in map(json.loads, lines) if row["kind"] == "train"}
    there = undisturbed.losses()
    steps = [step for step in sorted(here) if step <= 50]
    assert len(steps) >= 10
    for step in steps:
        assert there[step] == pytest.approx(here[step], rel=1e-4), step
    bundle = next(tmp_path.glob("trainings/*/bundle"))
    code, text = site.call("evaluate", str(bundle), dataset, "--store", str(tmp_path), "--json")
    assert code == 0, text
    ap = json.loads(next(tmp_path.glob("results/evaluate/*/metrics.json")).read_text())["metrics"]["AP"]
    # The AP of so short a training is small.
    assert undisturbed.ap() == pytest.approx(ap, rel=0.01)


def test_the_same_run_is_cached_and_changed_data_is_trained_on_anew(
    site: Site, undisturbed: Submission, data: str, other_data: str
) -> None:
    again = site.submit(data, undisturbed.store)
    assert again.end() == 0, again.command.text
    # The first step looks at the data each time.
    assert {step.name for step in again.run.steps if not step.is_cached} == {"configure"}
    assert again.bundle == undisturbed.bundle
    changed = site.submit(other_data, undisturbed.store)
    try:
        changed.command.heard("✓ pretrain_backbone", 400)
    finally:
        site.call("pipeline", "cancel", changed.id)
        assert changed.end() == 3
    assert not any(step.is_cached for step in changed.run.steps)
    assert changed.note["name"] != undisturbed.note["name"]
    site.nothing_left(changed.job)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (("--min-ap", "0.0001"), 0),
        (("--min-ap", "0.99"), 1),
        (("--min-ap", "0.5", "--set", "evaluate.split=nowhere"), 2),
    ],
)
def test_the_gate_passes_fails_and_cannot_tell(
    site: Site, undisturbed: Submission, data: str, tmp_path: Path, limits: tuple[str, ...], code: int
) -> None:
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    places = ("--bundle", undisturbed.bundle, "--data", data, "--store", undisturbed.store)
    files = ("--junit", str(junit), "--summary", str(summary), "--images", site.images)
    found, text = site.call("pipeline", "gate", *places, "--runtime", "onnx", *files, *limits)
    assert found == code, text
    if code == 2:
        assert text.count("error:") == 1 and "nowhere" in text
        return
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", str(code))
    assert "AP50" in summary.read_text()
