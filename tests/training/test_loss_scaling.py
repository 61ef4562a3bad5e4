"""A scaled loss: what is skipped after an overflow, what is counted, and what a checkpoint continues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.models.anchors import trained_facts
from kubeyolo.storage.place import Place
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.finite import MOST_SKIPPED, Guard, NotFiniteError
from kubeyolo.training.history import HistoryRow
from kubeyolo.training.loop import Hooks, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.loss_record import LossRecord
from kubeyolo.training.schedules import Rates, build_schedule, ema_decay
from kubeyolo.training.start import Start
from tests.training.mean_loss import mean_loss
from tests.training.small_training import spec_for
from tests.training.test_engine import IMAGES, batch

SETTINGS: dict[str, Any] = {"lr": 0.05, "max_epoch": 4, "warmup_steps": 3, "warmup_epochs": 1, "ema_tau": 5.0}


def half_engine(cast: Any = None, reduce: Any = None, **values: Any) -> Any:
    """Two convolutions with batch normalization and one without; ``cast`` rounds to half precision."""
    from mindspore import Tensor, nn

    from kubeyolo.models.blocks import Conv
    from kubeyolo.models.precision import use_half_precision
    from kubeyolo.training.engine import Engine

    network = nn.SequentialCell(
        Conv(3, 4, 3), Conv(4, 4, 3, act="mish"), nn.Conv2d(4, 1, 1, has_bias=True, weight_init="zeros")
    )
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(0.5 * rng.standard_normal(parameter.shape).astype(np.float32)))
    if cast is not None:
        use_half_precision(network, cast)
    config = TrainConfig(**{**SETTINGS, **values})
    accumulation = build_accumulation(config, IMAGES, steps_per_epoch=5)
    return Engine(network, mean_loss(), config, build_schedule(config, 5), reduce, accumulation=accumulation)


def float16() -> Any:
    from kubeyolo.models.precision import Cast

    return Cast("float16")


def trained(engine: Any, steps: int) -> list[np.ndarray]:
    losses = []
    while engine.step < steps:
        losses.append(engine.train(*batch(engine.step)).asnumpy())
    return losses


def assert_equal(a: Any, b: Any, parts: tuple[str, ...] = ("weights", "ema", "moments")) -> None:
    for part in parts:
        arrays, others = getattr(a, part), getattr(b, part)
        assert arrays.keys() == others.keys() and arrays
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name], err_msg=f"{part} {name}")


@pytest.mark.usefixtures("mindspore_ready")
def test_a_power_of_two_as_scale_changes_no_bit_of_float32_training() -> None:
    plain, scaled = half_engine(), half_engine(grad_scaler="static", grad_scaler_value=1024)
    losses = np.asarray(trained(plain, 8)), np.asarray(trained(scaled, 8))
    np.testing.assert_allclose(losses[1][:, :5], losses[0], rtol=1e-6)
    np.testing.assert_array_equal(losses[1][:, 5:], [[0, 1024, 0, 0]] * 8)
    assert_equal(plain.capture({}), scaled.capture({}), ("weights", "moments"))
    for name, array in plain.averaged().items():
        np.testing.assert_allclose(scaled.averaged()[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def other_process() -> Any:
    """A cell that adds the gradients of a second process: zeros, or what its parameter ``value`` has."""
    from mindspore import Parameter, Tensor, nn

    class OtherProcess(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.value = Parameter(Tensor(np.float32(0)), name="value", requires_grad=False)

        def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (gradients[0] + self.value, *gradients[1:])

    return OtherProcess()


@pytest.mark.usefixtures("mindspore_ready")
@pytest.mark.parametrize("nominal", [0, 6])
def test_an_overflow_changes_the_scale_alone_and_float16_resumes_bit_for_bit(nominal: int) -> None:
    """With three batches an update, updates follow steps 1, 2, 4, 7, 10, 13 and 16."""
    from mindspore import Tensor

    other = other_process()
    values = {"precision": "float16", "optimizer": "adamw", "lr": 0.01, "nominal_batch": nominal}
    engine = half_engine(float16(), other, grad_scaler_value=1024, **values)
    trained(engine, 4)
    before = engine.capture({})
    assert before.optimizer_steps == before.ema_updates == (3 if nominal else 4)
    # The forward pass overflows: these weights are infinite in float16.
    first = engine._weights["0.conv.weight"]
    kept = first.asnumpy().copy()
    first.set_data(Tensor(np.full_like(kept, 1e6)))
    losses = trained(engine, 7 if nominal else 5)
    assert not np.isfinite(losses[0][0]) and [row[5] for row in losses] == [1] * len(losses)
    first.set_data(Tensor(kept))
    after = engine.capture({})
    assert_equal(before, after)
    assert (after.optimizer_steps, after.ema_updates) == (before.optimizer_steps, before.ema_updates)
    assert after.scaler == {**before.scaler, "scale": 512, "skipped": 1, "good": 0, "overflows": 3 if nominal else 0}
    # The gradients of another process overflow, in one of the batches of an update.
    other.value.set_data(Tensor(np.float32(np.inf)))
    rows = trained(engine, engine.step + 1)
    other.value.set_data(Tensor(np.float32(0)))
    middle = engine.capture({})
    assert ("gradients" in middle.moments) is (nominal > 0) and np.isfinite(rows[0][:4]).all()
    rows += trained(engine, 16)
    end = engine.capture({})
    assert [row[5] for row in rows] == [1] + [0] * (len(rows) - 1)
    assert (end.scaler["scale"], end.scaler["skipped"]) == (256, 2)
    assert end.optimizer_steps == end.ema_updates == (5 if nominal else 14)
    assert np.abs(end.weights["0.conv.weight"] - middle.weights["0.conv.weight"]).max() > 1e-3
    # A new engine, as after an interruption: this one has run, and MindSpore keeps the moments of its branch in memory.
    resumed = half_engine(float16(), other_process(), grad_scaler_value=1024, **values)
    resumed.restore(middle)
    trained(resumed, 16)
    again = resumed.capture({})
    assert_equal(end, again)
    assert (again.scaler, again.optimizer_steps) == (end.scaler, end.optimizer_steps)


class Batches:
    """Twelve epochs of five batches."""

    steps_per_epoch = 5

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        for step in range(start_step, 5):
            images, labels = batch(5 * epoch + step)
            yield SimpleNamespace(images=images, labels=labels, indices=np.zeros(1, np.int64))


@pytest.mark.usefixtures("mindspore_ready")
def test_half_precision_learns_as_float32_does(tmp_path: Path) -> None:
    """The first scale of float16 is so large that gradients overflow; log, history and checkpoint count them."""
    from tests.training.rounding import Rounding

    lines: list[str] = []
    settings = LoopSettings(total_steps=60, images_per_step=IMAGES, log_interval=20)

    def rows(engine: Any, place: Place) -> list[HistoryRow]:
        scaled = replace(settings, is_scaled=engine._scaling is not None)
        loop = TrainingLoop(engine, Batches(), scaled, Output(place, {}), Hooks(show=lines.append))
        loop.run()
        return loop.journal.history.rows

    first, *_, full = rows(half_engine(max_epoch=12), Place.of(tmp_path / "float32"))
    assert full.loss < first.loss / 2 and full.scale is None
    rounded = rows(half_engine(Rounding(), precision="bfloat16", max_epoch=12), Place.of(tmp_path / "bfloat16"))[-1]
    place = Place.of(tmp_path / "float16")
    half = rows(half_engine(float16(), precision="float16", max_epoch=12, grad_scaler_value=2**24), place)[-1]
    for row in (rounded, half):
        assert row.loss == pytest.approx(full.loss, rel=0.05) and row.loss != full.loss
    assert half.skipped and half.scale == 2**24 / 2**half.skipped
    assert f", scale:{half.scale:g}, skipped updates:{half.skipped}" in "".join(lines)
    state = newest_checkpoint(place.store, lines.append)
    assert state is not None and state.optimizer_steps == state.ema_updates == 60 - half.skipped
    assert (state.scaler["scale"], state.scaler["skipped"]) == (half.scale, half.skipped)


@pytest.mark.usefixtures("mindspore_ready")
def test_a_dynamic_scale_grows_after_updates_without_overflow_and_has_bounds() -> None:
    from mindspore import Tensor

    from kubeyolo.training.loss_scaling import HIGHEST, INTERVAL, Scaler

    scaler = Scaler(HIGHEST / 2, is_dynamic=True)
    finite, overflow = Tensor(True), Tensor(False)

    def after(outcome: Any, good: int = 0) -> list[float]:
        if good:
            scaler.good.set_data(Tensor(np.float32(good)))
        return [float(value) for value in scaler(outcome).asnumpy()]

    assert after(finite) == [HIGHEST / 2, 0, 0]
    assert after(finite, INTERVAL - 1) == [HIGHEST, 0, 0]
    assert float(scaler.good.asnumpy()) == 0
    assert after(finite, INTERVAL - 1) == [HIGHEST, 0, 0]
    assert after(overflow, 7) == [HIGHEST / 2, 1, 0]
    assert float(scaler.good.asnumpy()) == 0
    scaler.scale.set_data(Tensor(np.float32(2)))
    assert [after(overflow) for _ in range(3)] == [[1, 2, 0], [1, 3, 1], [1, 4, 2]]
    assert after(finite) == [1, 4, 0]


@pytest.mark.usefixtures("mindspore_ready")
def test_the_device_corrects_by_the_updates_that_were_not_skipped() -> None:
    from mindspore import Tensor

    from kubeyolo.training.loss_scaling import AdamScalars, AverageShare, Scaler
    from kubeyolo.training.optimizers import AdamW, ParameterGroups

    config = TrainConfig(optimizer="adamw", weight_decay=0.02, momentum=0.9)
    scaler, optimizer = Scaler(1024, is_dynamic=True), AdamW(ParameterGroups((), (), ()), config)
    scalars, share = AdamScalars(scaler, config), AverageShare(scaler, 0.9999, 2000.0)
    rates = Rates(bias=0.1, weight=0.01, norm=0.02, momentum=0.9)
    for count, skipped in ((1, 0), (1, 5), (2, 1), (300, 17), (100_000, 40)):
        scaler.skipped.set_data(Tensor(np.float32(skipped)))
        given = [Tensor(np.float32(value)) for value in (rates.bias, rates.weight, rates.norm, count + skipped)]
        values = [float(value.asnumpy()) for value in scalars(*given)]
        assert values == pytest.approx(optimizer.scalars(rates, count), rel=1e-5)
        kept = float(share(Tensor(np.float32(count + skipped))).asnumpy())
        assert kept == pytest.approx(1 - ema_decay(count, 0.9999, 2000.0), rel=1e-5)
    scaler.is_applied.set_data(Tensor(np.float32(0)))
    assert float(share(Tensor(np.float32(9))).asnumpy()) == 0


class Row:
    """Losses of a step on a device."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def asnumpy(self) -> np.ndarray:
        return np.asarray(self.values, np.float32)


NAN = float("nan")


def record(*rows: Row) -> LossRecord:
    losses = LossRecord(Guard("lower it", ["a.jpg"]), is_scaled=True)
    for number, row in enumerate(rows, 1):
        losses.add(number, row, [0])
    return losses


def test_steps_with_an_overflow_are_left_out_of_the_mean() -> None:
    losses = record(Row(8, 1, 2, 1, 9, 0, 1024, 0, 0), Row(NAN, NAN, 2, 1, NAN, 1, 512, 1, 0))
    losses.add(3, Row(16, 2, 4, 2, 9, 0, 512, 1, 0), [0])
    assert losses.rows()[1] == [0, 0, 0, 0, 0, 1, 512, 1, 0]
    assert losses.mean()[:4] == [12, 1.5, 3, 1.5]
    assert losses.scaling() == {"scale": 512, "skipped": 1}
    overflow = record(Row(NAN, 1, 1, 1, NAN, 1, 512, 1, 0))
    assert overflow.rows() and overflow.mean() is None


def test_a_loss_that_is_not_finite_without_an_overflow_is_refused() -> None:
    with pytest.raises(NotFiniteError, match="training step 1: the loss is not finite"):
        record(Row(NAN, 1, 2, 1, 9, 0, 1024, 0, 0)).rows()


def test_updates_skipped_again_and_again_at_the_lowest_scale_end_the_training() -> None:
    assert record(Row(NAN, 1, 1, 1, NAN, 1, 1, 40, MOST_SKIPPED - 1)).rows()
    with pytest.raises(NotFiniteError) as caught:
        record(Row(NAN, 1, 1, 1, NAN, 1, 1, 40, MOST_SKIPPED)).rows()
    assert str(caught.value) == (
        "training step 1: gradients are infinite or NaN, and the last 20 updates in a row were skipped at the scale 1 "
        "of the loss, which is not lowered any more; images of its batch: a.jpg; compute in float32 with --set "
        "train.precision=float32, or: lower it"
    )


@pytest.mark.usefixtures("mindspore_ready")
def test_the_training_copy_alone_computes_in_half_precision() -> None:
    from kubeyolo.models.precision import HalfConvolution
    from kubeyolo.models.registry import build_model
    from kubeyolo.training.detector import _build_engine

    spec = spec_for("d", Path("o"), precision="float16")
    lines: list[str] = []
    engine = _build_engine(spec, trained_facts(spec.config), ("a", "b"), 5, Start(), {}, lines.append)
    assert lines == [
        "computing in float16: 57 BatchNorm2d, 11 Bottleneck, 60 Conv2d, 1 MaxPool2d, 57 SiLU, 1 Upsample; statistics, "
        "loss and weights are float32"
    ]
    assert isinstance(engine.network.head.m[0], HalfConvolution)
    plain = build_model(spec.config.model, 2)
    kinds = {type(cell).__name__ for _, cell in plain.cells_and_names()}
    assert "HalfConvolution" not in kinds and "Conv2d" in kinds
    averaged = engine.averaged()
    assert {parameter.name: parameter.shape for parameter in plain.get_parameters()} == {
        name: array.shape for name, array in averaged.items()
    }
    assert {array.dtype.name for array in averaged.values()} == {"float32"}
    assert engine.capture({}).scaler["scale"] == 65536
