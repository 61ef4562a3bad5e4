"""Settings of a quantization-aware training that are refused before anything is trained."""

from __future__ import annotations

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.launch.launcher import LocalLauncher
from kubeyolo.steps.quantization_training import check_quantize


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["quantize.runtime=openvino"], r"quantize\.runtime = openvino.*leave quantize\.runtime out"),
        (["quantize.float_layers=stem"], r"quantize\.float_layers = stem.*leave quantize\.float_layers out"),
        (["quantize.calibration_epochs=4", "quantize.max_epoch=4"], r"calibration_epochs = 4.*none would train"),
        (["export.image_size=64x128"], r"export\.image_size = 64x128.*give one side"),
    ],
)
def test_settings_that_the_training_cannot_follow_are_refused(settings: list[str], message: str) -> None:
    config = load_config("yolov5n-r7", None, ["quantize.method=qat", *settings])
    with pytest.raises(InputError, match=message):
        check_quantize(config, LocalLauncher(), is_remote=False)


def test_other_settings_are_accepted() -> None:
    check_quantize(load_config("yolov5n-r7", None, ["quantize.method=qat"]), LocalLauncher(), is_remote=False)
    check_quantize(load_config("yolov5n-r7", None, ["quantize.runtime=openvino"]), LocalLauncher(), is_remote=False)


def test_a_pod_without_mindspore_does_not_train() -> None:
    config = load_config("yolov5n-r7", None, ["quantize.method=qat"])
    with pytest.raises(InputError, match="the image of quantize does not have MindSpore.*give the training a job"):
        check_quantize(config, LocalLauncher(), is_remote=True)
