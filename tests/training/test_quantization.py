"""Quantization-aware training: calibration, continuing, what is refused, and the files of its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.bundle import RANGES, WEIGHTS
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.models.ranges import check_quantization, is_range, read_ranges
from kubeyolo.training.checkpoints import Arrays, TrainingState
from kubeyolo.training.output import weights_files
from kubeyolo.training.schedules import build_schedule
from kubeyolo.training.spec import training_identity
from tests.models.few_blocks import CLASSES, few_blocks
from tests.models.few_blocks import RANGES as RANGE_COUNT
from tests.training.small_training import spec_for

SIZE, BATCH = 64, 2


def small_engine(calibration: int) -> Any:
    """Return an engine with a detector of a few blocks, whose rate is 0 in the first steps."""
    from kubeyolo.losses.build import build_loss
    from kubeyolo.models.fake_quantization import fake_quantize
    from kubeyolo.training.engine import Engine

    network = few_blocks()
    fake_quantize(network)
    config = TrainConfig(
        lr=0.05, max_epoch=10, warmup="zero", warmup_epochs=float(calibration), warmup_steps=0, fake_quantize=True
    )
    return Engine(network, build_loss(network.facts, CLASSES, SIZE), config, build_schedule(config, steps_per_epoch=1))


def train(engine: Any, steps: range) -> None:
    for step in steps:
        rng = np.random.default_rng(step)
        images = rng.integers(0, 256, (BATCH, 3, SIZE, SIZE), dtype=np.uint8)
        # Rows of image, class, centre, width and height; -1 marks an unused row.
        labels = np.full((BATCH + 1, 6), -1, np.float32)
        labels[:BATCH] = [(image, rng.integers(CLASSES), 0.5, 0.5, 0.3, 0.4) for image in range(BATCH)]
        engine.train(images, labels)


@pytest.fixture(scope="module")
def states(mindspore_ready: None) -> list[TrainingState]:
    """The states after two steps of calibration, after four steps, and after four steps with a new start after two."""
    engine = small_engine(calibration=2)
    train(engine, range(2))
    calibrated = engine.capture({})
    train(engine, range(2, 4))
    continued = small_engine(calibration=2)
    continued.restore(calibrated)
    train(continued, range(2, 4))
    return [calibrated, engine.capture({}), continued.capture({})]


def test_calibration_changes_ranges_and_no_weights(states: list[TrainingState]) -> None:
    fresh = small_engine(calibration=2).capture({}).weights
    for name, array in states[0].weights.items():
        assert (array == fresh[name]).all() != is_range(name), name
        assert not is_range(name) or array[0] <= 0 < array[1]
    later = states[1].weights
    trained = [name for name in fresh if not is_range(name) and "moving" not in name]
    assert all((later[name] != fresh[name]).any() for name in trained)


def test_a_training_continues_with_its_ranges_bit_for_bit(states: list[TrainingState]) -> None:
    whole, continued = states[1], states[2]
    for kind in ("weights", "ema", "moments"):
        one, other = (getattr(state, kind) for state in (whole, continued))
        assert one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)
    ranges = [name for name in whole.weights if is_range(name)]
    # Averages follow them.
    assert len(ranges) == RANGE_COUNT and set(ranges) <= whole.ema.keys()
    assert any((whole.weights[name] != states[0].weights[name]).any() for name in ranges)


def test_a_bundle_has_ordinary_weights_and_a_file_of_ranges(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    arrays: Arrays = {
        "a.conv.weight": np.ones((1, 1, 1, 1), np.float32),
        "a.after.range": np.array([-0.1, 2.7], np.float32),
    }
    files = weights_files(tmp_path / "of", arrays)
    assert set(files) == {WEIGHTS, RANGES} and set(load_file(files[WEIGHTS])) == {"a.conv.weight"}
    (low, high) = read_ranges(files[RANGES])["a.after.range"]
    assert np.float32(low) == np.float32(-0.1) and np.float32(high) == np.float32(2.7)
    assert set(weights_files(tmp_path / "float", {"a": arrays["a.conv.weight"]})) == {WEIGHTS}


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (
            "yolov3-quant",
            {},
            r"starts from trained float weights; set train\.weights, or .* train\.fake_quantize=false",
        ),
        ("yolov4", {"weights": "a"}, r"yolov4 cannot be trained with quantization; yolov5n-r7, .*yolov3-quant can"),
        ("yolov3-quant", {"weights": "a", "precision": "float16"}, r"train\.precision=float32"),
        ("yolov5s", {"weights": "a", "recompute": True}, r"train\.recompute = true"),
    ],
)
def test_what_cannot_be_trained_with_quantization_is_refused(model: str, values: dict[str, Any], message: str) -> None:
    config = Config.model_validate({"model": model, "train": {"fake_quantize": True, **values}})
    with pytest.raises(InputError, match=message):
        check_quantization(config, has_weights=bool(config.train.weights))


def test_the_preset_of_yolov3_quant_trains_with_quantization_and_keeps_its_rate(tmp_path: Path) -> None:
    config = load_config("yolov3-quant")
    assert config.train.fake_quantize and config.quantize.method == "qat" and config.train.lr == 0.012
    assert not load_config("yolov3").train.fake_quantize


def test_only_a_quantization_aware_training_has_it_in_its_identity(tmp_path: Path) -> None:
    for is_quantized in (False, True):
        spec = spec_for("data", tmp_path, fake_quantize=is_quantized)
        assert ("train.fake_quantize" in training_identity(spec, "", "", 1)) == is_quantized
