"""The step quantize on a detector whose activations lose what matters when a tensor has a single scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from kubeyolo.bundle import LEFT_OUT, MODEL_CARD, ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import QuantizeConfig
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.paired_speed import FASTER
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps import quantize
from kubeyolo.steps.quantize import float_layer_counts
from kubeyolo.storage.place import Place
from tests.quantization.lamp_detector import lamp_detector, write_scenes
from tests.steps import called
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import MODEL, fixed_manifest
from tests.steps.fixed_work import checks_of


class Inputs:
    """A bundle with the detector, and a data set."""

    def __init__(self, folder: Path, level: int = 230) -> None:
        self.folder = folder
        self.dataset = validate_dataset(str(write_scenes(folder / "scenes", level)), str(folder / "store")).dataset
        (folder / WEIGHTS).write_text("weights")
        onnx.save(lamp_detector(), folder / ONNX)
        files = {WEIGHTS: folder / WEIGHTS, ONNX: folder / ONNX}
        self.bundle = publish_bundle(Place.of(folder / "exported"), fixed_manifest(), files).reference

    def quantize(self, name: str, *sets: str) -> called.Called:
        few = ("min_quantized_convs=0.25", "max_size_ratio=1", "calibration_images=3")
        config = load_config(MODEL, sets=[f"quantize.{pair}" for pair in (*few, *sets)])
        return called.quantize(self.bundle, self.dataset, str(self.folder / name), config)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    folder = tmp_path_factory.mktemp("lamp")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KUBEYOLO_CACHE", str(folder / "cache"))
        yield Inputs(folder)


def test_a_network_that_fails_passes_with_its_worst_layers_in_float(
    inputs: Inputs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkError, match=r"AP is 0\.0000, AP of the float network is 1\.0000: it loses 100\.00 points"):
        inputs.quantize("int8", "float_layers=none")
    stored = inputs.quantize("auto")
    assert stored.metrics["int8"]["AP"] == pytest.approx(1.0) and stored.metrics["drop"] == 0
    assert sorted(stored.metrics["float_layers"]) == ["head_8", "stem"]
    assert "it loses 100.00 points" in (said := capsys.readouterr().out) and "2 layers stay float: " in said
    page = Place.of(stored.report).read().decode()
    assert page.count("<td>float</td>") == 2 and page.count("<td>int8</td>") == 2
    named = inputs.quantize("named", "float_layers=stem,head_8")
    assert named.metrics["int8"]["AP"] == pytest.approx(1.0)
    with pytest.raises(InputError, match="convolution in quantize.float_layers 'head_9'.*head_8"):
        inputs.quantize("unknown", "float_layers=head_9")


def test_no_more_layers_stay_float_than_the_least_share_of_int8_allows() -> None:
    assert float_layer_counts(60, QuantizeConfig()) == [1, 2, 3]
    assert float_layer_counts(60, QuantizeConfig(min_quantized_convs=0.8)) == [1, 2, 4, 8, 12]
    assert float_layer_counts(60, QuantizeConfig(min_quantized_convs=0.99)) == []


def test_a_network_that_misses_is_left_out_and_the_float_network_is_published(inputs: Inputs) -> None:
    stored = inputs.quantize("left out", "float_layers=none", "on_miss=leave_out")
    bundle = open_bundle(Place.of(stored.bundle))
    reason = bundle.manifest.metrics[LEFT_OUT]["int8"]
    assert ONNX in bundle.manifest.files and ONNX_INT8 not in bundle.manifest.files
    assert "it loses 100.00 points, the limit is 1 (quantize.max_drop)" in reason
    assert stored.metrics["warnings"][0] == f"the int8 network is left out: {reason}" and "int8" not in stored.metrics
    assert [verdict for _, verdict, _ in checks_of(stored.report)] == ["failed", "passed", "passed"]
    # The same call again finds the result.
    assert inputs.quantize("left out", "float_layers=none", "on_miss=leave_out").record == stored.record
    published = called.publish(stored.bundle, str(inputs.folder / "store"))
    assert published.metrics[LEFT_OUT] == {"int8": reason}
    card = open_bundle(Place.of(published.bundle)).path(MODEL_CARD).read_text()
    assert "The int8 network is left out: " in card and "Trained, evaluated and exported" in card


def test_a_step_alone_fails_and_stores_its_report_only(inputs: Inputs) -> None:
    with pytest.raises(WorkError, match="int8: AP is 0.0000"):
        inputs.quantize("failed", "float_layers=none")
    assert [item.key for item in Place.of(inputs.folder / "failed").store.list()] == ["report.html"]


def test_nothing_is_judged_where_float_finds_nothing_and_images_are_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    dark = Inputs(tmp_path, level=0)
    with pytest.raises(
        WorkError, match="AP of the float network is 0, so nothing can be measured.*; all 3 calib"
    ) as got:
        dark.quantize("dark")
    assert "are flat (of a single colour)" in str(got.value)
    page = (Place.of(tmp_path / "dark") / "report.html").read().decode()
    assert "Nothing can be measured" in page and "3 of 3 calibration images are flat" in page
    left_out = dark.quantize("left out", "on_miss=leave_out")
    assert ONNX_INT8 not in open_bundle(Place.of(left_out.bundle)).manifest.files


def test_an_interrupted_quantization_leaves_no_result_and_is_done_again(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    before = open_bundle(Place.of(inputs.bundle)).digest
    with monkeypatch.context() as patched:
        patched.setattr(quantize, "_speed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            inputs.quantize("interrupted", "float_layers=stem,head_8")
    assert Place.of(inputs.folder / "interrupted").store.list() == []
    stored = inputs.quantize("interrupted", "float_layers=stem,head_8")
    assert ONNX_INT8 in open_bundle(Place.of(stored.bundle)).manifest.files
    assert open_bundle(Place.of(inputs.bundle)).digest == before


def test_few_calibration_images_and_a_slower_network_are_warned_about(inputs: Inputs) -> None:
    stored = inputs.quantize("warned")
    assert any(line.startswith("only 3 calibration images: ") for line in stored.metrics["warnings"])
    speed = stored.metrics["speed"]
    assert speed["ratio"] == pytest.approx(speed["float_ms"] / speed["int8_ms"], rel=0.05)
    slower = [line for line in stored.metrics["warnings"] if line.startswith("int8 is not faster")]
    assert bool(slower) == (speed["ratio"] < FASTER)
