from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, open_bundle
from kubeyolo.cli.app import main
from kubeyolo.publishing import publish_bundle
from kubeyolo.resources import usable_processors
from kubeyolo.steps.publish import publish
from kubeyolo.storage.place import Place
from tests.steps.fixed_detector import fixed_bundle

SHORT = ("--seconds", "0.1", "--rounds", "2")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fixed_bundle(tmp_path_factory.mktemp("fixed") / "bundle", {"onnx": 0, "int8": 4})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["benchmark", *arguments])
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_each_network_is_measured_and_the_model_card_has_the_figures(run: Any, bundle: str, tmp_path: Path) -> None:
    target = tmp_path / "measured"
    options = ("--runtime", "onnx,int8", "--batch", "1,3", "--threads", "1", "--json")
    code, out, _ = run(bundle, *options, *SHORT, "--report", str(tmp_path / "speed.html"), "--output", str(target))
    assert code == 0
    document = json.loads(out)
    speeds = document["speeds"]
    assert [(each["runtime"], each["batch"]) for each in speeds] == [("onnx", 1), ("int8", 1), ("onnx", 3), ("int8", 3)]
    for each in speeds:
        latency, rate = each["latency_ms"], each["images_per_second"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
        # The rate is that of the batches: the batch size per time of a batch, which varies on a busy machine.
        assert 0.1 < rate * latency["p50"] / (1000 * each["batch"]) < 10
        assert each["threads"] == 1 and each["image_size"] == [64, 64] and each["runs"] >= 2
        assert each["memory"] > 20e6 and each["load_seconds"] > 0
    assert "Speed of yolov5n-r7" in (tmp_path / "speed.html").read_text()
    measured = open_bundle(Place.of(str(target)))
    assert measured.manifest.metrics["benchmark"]["speeds"][0]["latency_ms"] == speeds[0]["latency_ms"]
    outcome = publish(measured, Place.of(tmp_path / "store"), "1.0.0", None)
    published = outcome.outputs["bundle"]
    card = published.path("MODEL_CARD.md").read_text()
    assert f"| int8 | 3 | 1 | {speeds[3]['latency_ms']['p50']:.2f} |" in card


def test_all_networks_of_the_bundle_are_measured_by_default(run: Any, bundle: str, tmp_path: Path) -> None:
    # The weights of this bundle are not those of a network: without them the two files remain.
    opened = open_bundle(Place.of(bundle))
    files = {name: opened.path(name) for name in (ONNX, ONNX_INT8)}
    exported = publish_bundle(Place.of(tmp_path / "exported"), opened.manifest, files).uri
    code, out, _ = run(exported, *SHORT)
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["onnx"], ["int8"])]
    assert [row[:3] for row in rows] == [[name, "1", str(usable_processors())] for name in ("onnx", "int8")]


def test_a_file_with_a_fixed_batch_size_is_measured_at_this_size_alone(run: Any, bundle: str, tmp_path: Path) -> None:
    opened = open_bundle(Place.of(bundle))
    network = onnx.load(str(opened.path(ONNX)))
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, str(tmp_path / "fixed.onnx"))
    fixed = publish_bundle(Place.of(tmp_path / "fixed"), opened.manifest, {ONNX: tmp_path / "fixed.onnx"}).uri
    code, out, _ = run(fixed, "--runtime", "onnx", "--batch", "1,2", *SHORT)
    assert code == 0 and len([line for line in out.splitlines() if line.split()[:1] == ["onnx"]]) == 1
    assert "note: onnx: its file has the batch size 1, so batches of 2 were not measured" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--runtime", "onx"), "did you mean 'onnx'"),
        (("--runtime", "mindir"), "needs the file model.mindir"),
        (("--threads", "0"), "--threads 0: expected 1 to"),
        (("--threads", "4096"), "--threads 4096: expected 1 to"),
        (("--batch", "1,a"), "--batch 1,a: expected numbers with commas"),
        (("--batch", "0", "--runtime", "onnx"), "--batch 0: expected a positive number"),
        (("--runtime", "mindspore"), "weights.safetensors: not a readable safetensors file"),
    ],
)
def test_what_cannot_be_measured_is_refused(run: Any, bundle: str, options: tuple[str, ...], words: str) -> None:
    code, _, error = run(bundle, *options, *SHORT)
    assert code == 2 and words in error, error


def test_outputs_that_cannot_be_written_are_refused_before_measuring(run: Any, bundle: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options, words in (
        (("--report", str(tmp_path)), "is a folder; give a file, such as"),
        (("--report", str(tmp_path / "file" / "speed.html")), "the folder cannot be created"),
        (("--output", bundle), "a bundle cannot be derived into its own folder"),
    ):
        code, out, error = run(bundle, "--runtime", "onnx", *options, *SHORT)
        assert code == 2 and words in error and not out, error
        assert "measuring" not in error
