"""A run from the data set to the bundle: all steps, what Kubeflow shows of them, and what is taken from its cache."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.runs.folder import STEPS
from kubeyolo.storage.uri import join_uri, open_store
from tests.cluster.site import Site, Submission

KUBEFLOW_STORE = "KUBEYOLO_TEST_KUBEFLOW_STORE"
ARTIFACTS = "minio://mlpipeline/v2/artifacts/detector-training"


def test_every_step_succeeds_and_nothing_is_left(site: Site, undisturbed: Submission) -> None:
    run = undisturbed.run
    assert run.state == "SUCCEEDED"
    assert {step.name: step.state for step in run.steps} == {
        **dict.fromkeys(STEPS, "SUCCEEDED"),
        "stop_training": "SUCCEEDED",
    }
    site.nothing_left(undisturbed.job)
    assert undisturbed.result()["resumed_at"] == []
    assert f"bundle  {undisturbed.bundle}" in undisturbed.command.text
    assert re.search(r"(?m)^ *AP +0\.\d+ +0\.\d+ +0\.\d+ *$", undisturbed.command.text)


def test_the_bundle_is_complete_and_predicts(site: Site, undisturbed: Submission, data: str, tmp_path: Path) -> None:
    bundle = open_bundle(undisturbed.bundle)
    for name in (WEIGHTS, ONNX, ONNX_INT8):
        assert bundle.path(name).stat().st_size > 0
    store = open_store(data)
    key = next(one.key for one in store.list("val"))
    image = tmp_path / Path(key).name
    store.get_file(key, image)
    options = ("--runtime", "onnx", "--set", "predict.conf_threshold=0.01", "--json")
    code, text = site.call("predict", str(image), "--bundle", undisturbed.bundle, *options)
    assert code == 0, text
    (found,) = json.loads(text[text.index("[") :])
    assert found["boxes"], text


@pytest.mark.skipif(not os.environ.get(KUBEFLOW_STORE), reason=f"{KUBEFLOW_STORE} is not set")
def test_metrics_and_reports_are_artifacts_of_kubeflow(
    undisturbed: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_ENDPOINT", os.environ[KUBEFLOW_STORE])
    store = open_store(join_uri(ARTIFACTS, undisturbed.id))
    found: dict[str, dict[str, str]] = {}
    for one in store.list():
        step, _, name = one.key.split("/")
        found.setdefault(step.replace("-", "_"), {})[name] = one.key
    for name in STEPS:
        assert {"metrics", "report"} <= found[name].keys(), name
        assert store.read_bytes(found[name]["report"]).lstrip().lower().startswith(b"<!doctype html"), name
    assert "confusion" in found["evaluate"]


def test_every_pod_keeps_to_the_restricted_level(site: Site, undisturbed: Submission) -> None:
    labels = json.loads(site.kubectl("get", "namespace", site.namespace, "-o", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = site.objects("pods", f"workflows.argoproj.io/workflow={undisturbed.run.workflow}")
    assert len(pods) > 2 * len(STEPS)
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
    dataset, backbone = found_in(undisturbed.store, "datasets"), found_in(undisturbed.store, "backbones")
    places = (dataset, "--store", str(tmp_path), "--backbone", f"{backbone}/bundle")
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
    ap = json.loads(next(tmp_path.rglob("evaluate/metrics.json")).read_text())["metrics"]["AP"]
    # The AP of so short a training is small.
    assert undisturbed.ap() == pytest.approx(ap, rel=0.01)


def found_in(store: str, folder: str) -> str:
    """Return the URI of the only thing in a folder of a store."""
    names = {one.key.split("/")[1] for one in open_store(store).list(folder)}
    assert len(names) == 1, names
    return f"{store}/{folder}/{names.pop()}"


def test_the_same_data_is_validated_once_and_changed_data_again(
    site: Site, undisturbed: Submission, data: str, other_data: str
) -> None:
    again = site.submit(data, undisturbed.store)
    assert again.end() == 0, again.command.text
    states = {step.name: step.is_cached for step in again.run.steps}
    assert states["validate_dataset"] and states["pretrain_backbone"] and states["train"]
    changed = site.submit(other_data, undisturbed.store)
    try:
        changed.command.heard("✓ pretrain_backbone", 400)
    finally:
        site.call("pipeline", "cancel", changed.id)
        assert changed.end() == 3
    assert not any(step.is_cached for step in changed.run.steps)
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
