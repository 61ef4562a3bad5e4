"""What the command line submits: the form as texts, after every check that can be made from here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING
from kubeyolo.cli.app import main
from kubeyolo.compiled.images import IMAGE_NAMES
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.index import run_output
from kubeyolo.steps.configure import configure
from kubeyolo.storage.place import Place
from tests.kubeflow.kubeflow_double import WORKFLOW, KubeflowDouble, task

COMMIT = "0a1b2c3d"


@pytest.fixture
def bucket(minio_bucket: str, tmp_path: Path) -> str:
    """A data set in a bucket."""
    data = generate_sample_dataset(tmp_path / "shapes", train=2, val=1, image_size=(64, 64))
    Place.of(f"minio://{minio_bucket}/data/shapes").store.put_tree(data, "")
    return minio_bucket


@pytest.fixture
def pipeline(
    double: KubeflowDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """``kubeyolo pipeline``, which returns its exit code and what it has printed."""
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBEYOLO_COMMIT", f"{COMMIT}4e5f")
    monkeypatch.delenv("KUBEYOLO_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    images = "".join(f"{name}: registry/{name}@sha256:{'0' * 64}\n" for name in IMAGE_NAMES)
    (tmp_path / "build" / "images.yaml").write_text(images)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["pipeline", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def submitted(double: KubeflowDouble) -> tuple[str, dict[str, Any]]:
    """Return the name and the form of the one run that was submitted."""
    (run,) = double.runs.values()
    return run.body["display_name"], run.body["runtime_config"]["parameters"]


def test_a_run_is_submitted_as_the_texts_of_its_form(
    pipeline: Callable[..., tuple[int, str, str]], double: KubeflowDouble, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text("model: yolov5s\ntrain: {max_epoch: 7, seed: 3}\n")
    places = ("--data", f"minio://{bucket}/data/shapes", "--store", f"minio://{bucket}/store/")
    cluster = '{"preset": "cpu", "memory": "8Gi"}'
    fields = ("-p", "launcher=volcano", "-p", f"cluster={cluster}")
    code, out, err = pipeline("submit", *places, "--config", "my.yaml", *fields, "--set", "quantize.max_drop=0")
    assert code == 0, err
    name, form = submitted(double)
    assert form == {
        "data": f"minio://{bucket}/data/shapes",
        "store": f"minio://{bucket}/store",
        "model": "yolov5s",
        "max_epoch": "7",
        "max_drop": "0",
        "launcher": "volcano",
        "cluster": cluster,
        "settings": '{"train": {"seed": 3}}',
    }
    # On the cluster the first step makes the same run of it.
    configured = configure(DETECTOR_TRAINING, form, is_remote=True)
    assert name == f"{configured.name}-{COMMIT}" and name.startswith("yolov5s-shapes-")
    assert out.splitlines()[0] == f"run {name}" and "page " in out
    assert list(double.experiments) == ["yolov5s-shapes"]


def test_the_pods_of_a_run_get_the_resources_that_the_command_line_names(
    pipeline: Callable[..., tuple[int, str, str]], double: KubeflowDouble, bucket: str
) -> None:
    places = ("--data", f"minio://{bucket}/data/shapes", "--store", f"minio://{bucket}/store")
    code, _, err = pipeline("submit", *places, "--resources", "train.memory=4Gi")
    assert code == 2 and not double.uploads
    assert (
        "train takes about 4.3 GB of memory, and its pod may use 4Gi: allow more with --resources train.memory=" in err
    )
    # What the message offers is enough.
    (offered,) = re.findall(r"--resources \S+", err)
    assert pipeline("submit", *places, *offered.split(), "--resources", "evaluate.cpu=2")[0] == 0
    (upload,) = double.uploads
    assert b"resourceMemoryLimit: 5Gi" in upload and b"resourceCpuRequest: '2'" in upload
    assert '"train": "5Gi"' in " ".join(upload.decode().split())
    # The same run without it is a version of its own.
    assert pipeline("submit", *places)[0] == 0 and b"resourceMemoryLimit: 5Gi" not in double.uploads[1]


def test_without_a_store_the_cluster_has_one(
    pipeline: Callable[..., tuple[int, str, str]], double: KubeflowDouble
) -> None:
    assert pipeline("submit", "--data", "minio://data/cells", "-p", "max_epoch=3")[0] == 0
    name, form = submitted(double)
    assert form == {"data": "minio://data/cells", "model": "yolov5n-r7", "max_epoch": "3"}
    assert name == f"yolov5n-r7-cells-{COMMIT}"
    # What the form itself says is checked all the same.
    code, _, err = pipeline("submit", "--data", "minio://data/cells", "-p", "min_ap=7")
    assert code == 2 and "evaluate.min_ap = '7'" in err and len(double.runs) == 1


def test_what_cannot_be_used_is_not_submitted(
    pipeline: Callable[..., tuple[int, str, str]],
    double: KubeflowDouble,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, store = ("--data", f"minio://{bucket}/data/shapes"), ("--store", f"minio://{bucket}/store")
    for arguments, words in (
        (("--data", f"minio://{bucket}/absent", *store), "absent"),
        ((*data, "--store", "minio://no-such-bucket-here"), "no-such-bucket-here"),
        ((*data, *store, "--set", "evaluate.split=test"), "has no split 'test'"),
    ):
        code, _, err = pipeline("submit", *arguments)
        assert code == 2 and words in err, err
    monkeypatch.setenv("MINIO_ENDPOINT", "127.0.0.1:9")
    code, _, err = pipeline("submit", *data, *store)
    assert code == 2 and "127.0.0.1:9" in err
    assert not double.runs and not double.pipelines


def test_the_result_of_a_run_is_found_by_its_id(
    pipeline: Callable[..., tuple[int, str, str]], double: KubeflowDouble, bucket: str
) -> None:
    from kubeyolo.events import StepRecord
    from kubeyolo.index import write_note

    double.next_states = [("SUCCEEDED", [*task("configure", "SUCCEEDED", 1), *task("publish", "SUCCEEDED", 2)])]
    store = f"minio://{bucket}/store"
    code, out, err = pipeline("submit", "--data", f"minio://{bucket}/data/shapes", "--store", store, "--wait")
    assert code == 0, err
    assert "cannot read its results on this machine" in out
    (run_id,) = double.runs
    index = run_output(Place.of(store), "one", "result.json")
    write_note(Place.of(store), run_id, {"name": "one", "index": index.uri})
    record = StepRecord(
        step="publish",
        seconds=1.0,
        outputs={"bundle": "minio://models/1@sha256:" + "0" * 64},
        metrics={"onnx": {"AP": 0.25}},
    )
    index.write(record.model_dump_json().encode())
    # It was written after the end that the double gives its runs.
    code, out, err = pipeline("status", run_id)
    assert code == 0 and "a later run with the same name has replaced the results" in out
    double.end = "2999-01-01T00:00:00Z"
    code, out, err = pipeline("status", run_id, "--json")
    result = json.loads(out)["result"]
    assert code == 0 and (result["bundle"], result["numbers"]["ONNX"]["AP"]) == ("minio://models/1", 0.25)
    assert "minio://models/1" in pipeline("status")[1]


@pytest.mark.parametrize("log_page", [0, 200])
def test_logs_are_printed_at_the_address_of_the_web_pages_too(
    pipeline: Callable[..., tuple[int, str, str]], double: KubeflowDouble, log_page: int
) -> None:
    double.next_states = [("RUNNING", [*task("configure", "SUCCEEDED", 1), *task("train", "RUNNING", 2)])]
    double.log_page = log_page
    assert pipeline("submit", "--data", "minio://data/cells")[0] == 0
    double.logs[f"{WORKFLOW}-system-container-impl-1"] = "run yolov5n-r7-cells-0a1b2c3d\n"
    double.logs[f"{WORKFLOW}-retry-system-container-impl-2"] = "epoch[0]\n"
    code, out, _ = pipeline("logs")
    assert code == 0
    assert out.splitlines() == [
        "=== configure succeeded",
        "run yolov5n-r7-cells-0a1b2c3d",
        "=== train running",
        "epoch[0]",
    ]


def test_a_schedule_sends_what_submit_sends(
    pipeline: Callable[..., tuple[int, str, str]], double: KubeflowDouble, tmp_path: Path
) -> None:
    (tmp_path / "schedules").mkdir()
    file = tmp_path / "schedules" / "nightly.yaml"
    file.write_text(
        f"name: nightly\ncron: '@daily'\npipeline: {DETECTOR_RETRAINING}\nparameters:\n"
        "  pointer: minio://data/latest.json\n  max_regression: 0.5\n  settings: {train: {seed: 3}}\n"
    )
    assert pipeline("schedule", "run", "nightly")[0] == 0
    name, form = submitted(double)
    assert name == f"nightly-{COMMIT}"
    assert form == {
        "pointer": "minio://data/latest.json",
        "max_regression": "0.5",
        "settings": '{"train": {"seed": 3}}',
    }
    assert set(form) <= set(CompiledPipeline.named(DETECTOR_RETRAINING).fields)
