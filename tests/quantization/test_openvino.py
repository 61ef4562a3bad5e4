"""ONNX files in OpenVINO, float and int8."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from kubeyolo.errors import InputError
from kubeyolo.evaluation.openvino_runtime import OpenvinoRuntime
from kubeyolo.evaluation.paired_speed import FASTER, paired_speed
from kubeyolo.evaluation.runtimes import OnnxRuntime
from tests.export.tiny_detector import images, manifest
from tests.quantization.lamp_detector import batches, lamp_detector
from tests.steps.fixed_detector import SIDE, fixed_manifest


@pytest.fixture(scope="module")
def lamp(tmp_path_factory):
    path = tmp_path_factory.mktemp("lamp") / "model.onnx"
    onnx.save(lamp_detector(), path)
    return path


def test_float_outputs_are_those_of_onnxruntime_for_any_batch_size(detector):
    first, second = OnnxRuntime(detector.onnx, manifest()), OpenvinoRuntime(detector.onnx, manifest())
    assert (second.batch_size, second.image_size) == (None, (96, 128))
    for count in (1, 3):
        batch = images(count)
        outputs = [*zip(first.raw(batch), second.raw(batch), strict=True)]
        for expected, found in [*outputs, (first.predictions(batch), second.predictions(batch))]:
            assert found.shape == expected.shape and found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_network_without_decoding_has_no_predictions(lamp):
    runtime = OpenvinoRuntime(lamp, fixed_manifest())
    assert runtime.predictions(batches(1)[0]) is None
    assert runtime.raw(batches(1)[0])[0][0, 2, 4, 4, 4] > 0


def test_files_that_openvino_cannot_read_or_of_other_programs_are_refused(lamp, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InputError, match=r"text\.onnx: OpenVINO cannot load it .*export the model again"):
        OpenvinoRuntime(tmp_path / "text.onnx", manifest())
    with pytest.raises(InputError, match=r"outputs .*expected \['images'\].*'raw_64'"):
        OpenvinoRuntime(lamp, fixed_manifest().model_copy(update={"strides": (8, 16, 64)}))


def test_openvino_sends_nothing_about_its_use(lamp, tmp_path):
    code = (
        "import sys; from pathlib import Path; from kubeyolo.evaluation.openvino_runtime import OpenvinoRuntime; "
        "from tests.steps.fixed_detector import fixed_manifest; "
        f"OpenvinoRuntime(Path({str(lamp)!r}), fixed_manifest()); "
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and not (tmp_path / "intel").exists()


def test_the_speed_of_two_networks_is_measured_by_turns(lamp):
    network = OnnxRuntime(lamp, fixed_manifest())
    speed = paired_speed(network, network, (SIDE, SIDE), "onnxruntime")
    assert 0.2 < speed.ratio < 5 and speed.threads >= 1
    assert bool(speed.warning) == (speed.ratio < FASTER) and f"{speed.float_ms:.1f} ms in float" in speed.words
