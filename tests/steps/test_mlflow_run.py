"""Trainings as runs of MLflow, on a real server: settings, curves, report and model; away servers; later attempts."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeyolo import NO_TELEMETRY
from kubeyolo.config.schema import Config
from kubeyolo.errors import WorkError
from kubeyolo.steps import mlflow_run as module
from kubeyolo.steps.mlflow_run import RUN_NAME, mlflow_run, points_of
from kubeyolo.steps.outcome import StepOutcome, StoredOutcome, store_outcome
from kubeyolo.storage.place import Place
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.spec import TrainingSpec
from tests.mlflow_server import MlflowServer, free_port


@pytest.fixture
def server(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    """The server, named by the environment."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and name not in NO_TELEMETRY:
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    return mlflow_server


@pytest.fixture(autouse=True)
def environment_is_kept() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def client_of(server: MlflowServer) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(server.uri)


def spec_for(output: Path, **train: object) -> TrainingSpec:
    config = Config.model_validate({"model": "yolov5n-r7", "train": {"lr": 0.0125, **train}})
    return TrainingSpec(dataset="file:///data", output=str(output), config=config)


def write_history(output: Path, steps: int) -> None:
    """Write the history of a training with a row every 2 steps and a validation every 4 steps."""
    rows = TrainingHistory()
    for step in range(2, steps + 1, 2):
        epoch = (step - 1) // 4
        rows.append(HistoryRow(step=step, epoch=epoch, loss=1 / step, box=0.5, lr=0.01, images_per_second=8.0))
        if step % 4 == 0:
            rows.append(HistoryRow(kind="val", step=step, epoch=epoch, ap=step / 64, ap_by_class={"disc (α)/1": 0.25}))
    output.mkdir(exist_ok=True)
    (output / "history.jsonl").write_bytes(rows.to_bytes())


def finished(output: Path) -> StoredOutcome:
    outcome = StepOutcome(step="train", seconds=1.0, outputs={"bundle": "file:///bundle@sha256:12"}, html="<p>AP ü</p>")
    return store_outcome(outcome, Place.of(output))


def test_settings_curves_report_and_model_are_in_a_new_run(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, lines = tmp_path / "yolov5n-r7-0a1b", []
    write_history(output, 8)
    with mlflow_run(spec_for(output), Place.of(output), lines.append) as run:
        assert run is not None
        run.finish(finished(output))
    client = client_of(server)
    (found,) = client.search_runs([client.get_experiment_by_name("kubeyolo").experiment_id])
    assert lines == [f"MLflow: run {found.info.run_id}"] and capsys.readouterr().out == ""
    assert (found.info.run_name, found.info.status) == ("yolov5n-r7-0a1b", "FINISHED")
    assert found.data.params["train.lr"] == "0.0125" and found.data.params["model"] == "yolov5n-r7"
    assert found.data.params["augment.mosaic"] == "1.0" and len(found.data.params) > 60
    tags = {key: value for key, value in found.data.tags.items() if key.startswith("kubeyolo.")}
    assert tags == {"kubeyolo.bundle": "file:///bundle@sha256:12", "kubeyolo.output": output.as_uri()}

    def curve(name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, name)]

    assert curve("loss/total") == [(2, 0.5), (4, 0.25), (6, pytest.approx(1 / 6)), (8, 0.125)]
    assert curve("epoch") == [(2, 1), (4, 1), (6, 2), (8, 2)]
    assert curve("validation/AP") == [(4, 0.0625), (8, 0.125)] and curve("by_epoch/AP") == [(1, 0.0625), (2, 0.125)]
    assert curve("AP_by_class/disc _α__1") == [(4, 0.25), (8, 0.25)]
    assert curve("learning_rate") == [(step, 0.01) for step in (2, 4, 6, 8)]
    (report,) = client.list_artifacts(found.info.run_id, "reports")
    assert report.path == "reports/train.html"
    folder = client.download_artifacts(found.info.run_id, "reports", str(tmp_path))
    assert (Path(folder) / "train.html").read_text() == "<p>AP ü</p>"


def test_a_later_attempt_continues_the_run_without_double_points(server: MlflowServer, tmp_path: Path) -> None:
    output = tmp_path / "output"
    write_history(output, 6)
    with pytest.raises(WorkError), mlflow_run(spec_for(output), Place.of(output), print):
        raise WorkError("killed")
    client = client_of(server)
    run_id = (output / RUN_NAME).read_text().split('"')[3]
    assert client.get_run(run_id).info.status == "FAILED"
    write_history(output, 12)
    # The settings may change if no weights depend on them; MLflow would refuse to change a parameter.
    with mlflow_run(spec_for(output, log_interval=3), Place.of(output), print) as run:
        assert run is not None
        run.finish(finished(output))
    assert client.get_run(run_id).info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run_id, "loss/total")]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert [point.step for point in client.get_metric_history(run_id, "by_epoch/AP")] == [1, 2, 3]


def test_the_run_that_the_environment_names_is_used_and_not_ended(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(server)
    named = client.create_run("0").info.run_id
    client.log_param(named, "train.lr", "of the pipeline")
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    write_history(tmp_path / "output", 4)
    with mlflow_run(spec_for(tmp_path / "output"), Place.of(tmp_path / "output"), print) as run:
        assert run is not None
        run.finish(finished(tmp_path / "output"))
    found = client.get_run(named)
    assert found.info.status == "RUNNING" and found.data.params["train.lr"] == "of the pipeline"
    assert found.data.params["train.max_epoch"] == "300" and found.data.metrics["loss/total"] == 0.25
    assert not (tmp_path / "output" / RUN_NAME).exists()


def test_a_server_that_is_away_is_reported_once_and_gets_all_points_when_it_is_back(
    server: MlflowServer, tmp_path: Path
) -> None:
    output, lines = tmp_path / "output", []
    write_history(output, 4)
    server.stop()
    with mlflow_run(spec_for(output), Place.of(output), lines.append) as run:
        assert run is not None
        run.send()
        run.send()
        (warning,) = lines
        assert warning.startswith(f"warning: MLflow at {server.uri} cannot be used (")
        assert "the training continues, and the missing rows are sent again every 30 s until it ends" in warning
        server.start()
        write_history(output, 8)
        run.finish(finished(output))
    assert len(lines) == 2 and lines[1].startswith("MLflow: run ")
    points = client_of(server).get_metric_history(lines[1].split()[-1], "loss/total")
    assert [point.step for point in points] == [2, 4, 6, 8]


def test_what_a_server_never_got_is_counted_and_no_password_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    output, lines = tmp_path / "output", []
    write_history(output, 8)
    with mlflow_run(spec_for(output), Place.of(output), lines.append) as run:
        assert run is not None
        run.finish(finished(output))
    first, last = lines
    assert caplog.records == []
    assert "cannot be used" in first and "secret" not in first
    assert last == (
        f"warning: MLflow did not receive 6 rows of the history; {output.as_uri()}/history.jsonl has all rows, "
        "and the same command sends the missing rows"
    )


def test_without_the_package_one_warning_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lines: list[str] = []
    with mlflow_run(spec_for(tmp_path), Place.of(tmp_path), lines.append) as run:
        assert run is None
    (line,) = lines
    assert "mlflow-skinny is not installed" in line and "pip install 'kubeyolo[mlflow]'" in line


def test_without_the_variable_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with mlflow_run(spec_for(tmp_path), Place.of(tmp_path), pytest.fail) as run:
        assert run is None


def test_requests_have_at_most_as_many_points_as_mlflow_accepts() -> None:
    rows = [
        HistoryRow(kind="val", step=step, epoch=step, ap=0.5, ap_by_class={str(name): 0.5 for name in range(80)})
        for step in range(40)
    ]
    parts = list(module._batches(rows))
    assert [row for part in parts for row in part] == rows
    assert max(sum(len(list(points_of(row))) for row in part) for part in parts) <= 1000 and len(parts) == 4
