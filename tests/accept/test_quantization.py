"""Networks that are trained with quantization on photographs are as good in int8 as in float.

The AP of the int8 file in onnxruntime is also that of the last validation of its training, which rounds in MindSpore.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from kubeyolo.bundle import RANGES, Bundle, open_bundle
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.models import named_facts
from kubeyolo.models.named_facts import model_facts
from kubeyolo.runtime import configure_mindspore
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.storage.place import Place
from kubeyolo.training.detector import train_detector
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.loop import StopRequest
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from tests.training.detectors import detector_bundle
from tests.training.killing import has_checkpoint, history_of, launch_until, weights_of
from tests.training.small_training import spec_for

POINT = 0.01
SHORT = (
    "train.image_size=256",
    "train.per_batch_size=16",
    "train.nominal_batch=16",
    "train.optimizer=adamw",
    "train.lr=0.002",
    "train.max_epoch=60",
    "train.ema_tau=100",
    "train.val_interval=5",
    "export.formats=onnx",
    "quantize.max_epoch=10",
    "quantize.calibration_epochs=1",
    "quantize.max_drop=100",
)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let yolov3-quant have an eighth of its channels, in this process."""
    facts = model_facts("yolov3-quant")
    shape = MappingProxyType({**facts.shape, "channels": 4})
    monkeypatch.setitem(named_facts._FACTS, "yolov3-quant", replace(facts, shape=shape))


def trained(spec: TrainingSpec) -> Bundle:
    """Train in this process, so that the network may be narrow."""
    train_detector(spec, Distribution(), StopRequest())
    return open_bundle(Place.of(f"{spec.output}/bundle"))


def quantized(bundle: Bundle, dataset: str, folder: Path, config: Config, method: str) -> dict[str, float]:
    """Return AP of float and of int8 in onnxruntime."""
    config = config.model_copy(update={"quantize": config.quantize.model_copy(update={"method": method})})
    store = Place.of(folder / "store")
    call = StepCall(store=store, config=config, code="", output=store / method)
    metrics = facade.quantize(call, bundle, open_dataset(Place.of(dataset))).record.metrics
    return {name: metrics[name]["AP"] for name in ("float", "int8")}


def exported(bundle: Bundle, dataset: str, folder: Path, config: Config, name: str) -> Bundle:
    store = Place.of(folder / "store")
    call = StepCall(store=store, config=config, code="", output=store / name)
    return facade.export_model(call, bundle, open_dataset(Place.of(dataset))).bundle()


def bccd(shared: Path, folder: Path) -> str:
    return write_dataset(shared / "data" / "bccd", Place.of(folder / "store")).uri


@pytest.mark.timeout(4 * 3600)
def test_yolov5n_loses_less_than_half_a_point(shared: Path, tmp_path: Path) -> None:
    dataset, config = bccd(shared, tmp_path), load_config("yolov5n-r7", None, SHORT)
    configure_mindspore("CPU")
    bundle = trained(TrainingSpec(dataset=dataset, output=str(tmp_path / "float"), config=config))
    bundle = exported(bundle, dataset, tmp_path, config, "exported")
    after, by_training = (quantized(bundle, dataset, tmp_path, config, method) for method in ("ptq", "qat"))
    (training,) = (tmp_path / "store" / "trainings").iterdir()
    choice = read_result(Place.of(training).store).choice
    assert choice is not None and choice.ap is not None
    print(f"float {after['float']:.4f}, ptq {after['int8']:.4f}, qat {by_training['int8']:.4f}, fake {choice.ap:.4f}")
    assert after["float"] - after["int8"] <= POINT
    assert by_training["float"] - by_training["int8"] <= POINT / 2
    assert abs(by_training["int8"] - choice.ap) <= 0.002


@pytest.mark.timeout(8 * 3600)
def test_a_narrow_yolov3_quant_loses_less_than_half_a_point(shared: Path, tmp_path: Path, narrow: None) -> None:
    dataset = bccd(shared, tmp_path)
    pairs = ["train.lr=0.001", "train.warmup=linear", "train.warmup_epochs=3", "augment.scale=0.3"]
    config = load_config("yolov3-quant", None, [*SHORT, *pairs, "train.fake_quantize=false"])
    spec = TrainingSpec(dataset=dataset, output=str(tmp_path / "float"), config=config)
    start = trained(spec)
    before = read_result(Place.of(tmp_path / "float").store).choice
    tuned = {"fake_quantize": True, "max_epoch": 20, "lr": 0.0002, "warmup": "zero", "warmup_epochs": 1.0}
    config = config.model_copy(update={"train": config.train.model_copy(update=tuned)})
    second = TrainingSpec(dataset=dataset, output=str(tmp_path / "qat"), config=config, weights=start.uri)
    bundle = trained(second)
    assert RANGES in bundle.manifest.files
    choice = read_result(Place.of(tmp_path / "qat").store).choice
    found = quantized(exported(bundle, dataset, tmp_path, config, "exported"), dataset, tmp_path, config, "qat")
    assert before is not None and before.ap and choice is not None and choice.ap
    print(f"float {before.ap:.4f}, qat {found['int8']:.4f}, fake {choice.ap:.4f}")
    assert before.ap - found["int8"] <= POINT / 2
    assert abs(found["int8"] - choice.ap) <= 0.002


@pytest.mark.timeout(3600)
def test_a_killed_training_continues_with_the_same_ranges_bit_for_bit(small_dataset: str, tmp_path: Path) -> None:
    start = detector_bundle(tmp_path / "old", "yolov5n-r7", open_dataset(Place.of(small_dataset)).manifest.classes)

    def spec(name: str) -> TrainingSpec:
        options = {"fake_quantize": True, "warmup": "zero", "warmup_epochs": 1.0, "warmup_steps": 0, "lr": 1e-4}
        return spec_for(small_dataset, tmp_path / name, **options).model_copy(update={"weights": start})

    launch_until(spec("whole"))
    launch_until(spec("killed"), has_checkpoint(9))
    launch_until(spec("killed"))
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert history_of(tmp_path / "killed") == history_of(tmp_path / "whole")
    found = [open_bundle(Place.of(tmp_path / name / "bundle")).path(RANGES) for name in ("killed", "whole")]
    assert found[0].read_bytes() == found[1].read_bytes()
    assert read_result(Place.of(tmp_path / "killed").store).resumed_at == [9]
