"""Training with images of several sizes: settings, compilations, times, and the same weights after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.idle_settings import idle_settings
from kubeyolo.config.load import load_config, load_resolved
from kubeyolo.config.training_schema import DataConfig, TrainConfig
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.sampler import SizeSchedule
from kubeyolo.errors import InputError
from kubeyolo.estimate.memory import SIZE_BYTES, detector_memory
from kubeyolo.models.named_facts import check_batch_norm, check_image_size, model_facts, model_names, training_sizes
from kubeyolo.storage.place import Place
from kubeyolo.training import detector
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.compilations import Compilations
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.extension import changed_keys, missing_values
from kubeyolo.training.loop import Hooks, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output, Speed
from kubeyolo.training.memory_advice import memory_remedy
from kubeyolo.training.outlook import RemainingTime
from kubeyolo.training.schedules import build_schedule
from kubeyolo.training.spec import TrainingSpec, refuse_changes, training_identity
from tests.training.mean_loss import mean_loss
from tests.training.small_training import spec_for
from tests.training.tiny_detector import STEPS_PER_EPOCH, rendered_loader, tiny_engine

BASE, SCHEDULE, STEPS = 64, SizeSchedule((64, 96, 128), rate=2, seed=7), 24


def identity(*sets: str, model: str = "yolov4") -> dict[str, Any]:
    config = load_config(model, sets=list(sets))
    return training_identity(TrainingSpec(dataset="d", output="o", config=config), "digest", "", 1)


def sizes_of(model: str, *sets: str) -> tuple[int, ...]:
    config = load_config(model, sets=["train.multi_scale=true", *sets])
    check_image_size(config)
    return training_sizes(model_facts(model), config.train)


def test_each_system_has_its_published_sizes() -> None:
    for model in ("yolov4", "yolov4-tiny"):
        assert sizes_of(model) == tuple(range(416, 737, 32)) and len(sizes_of(model)) == 11
    for model in ("yolov3", "yolov3-quant"):
        assert sizes_of(model) == tuple(range(320, 609, 32)) and len(sizes_of(model)) == 10
    for model in ("yolov5s", "yolov5m", "yolov5l", "yolov5x"):
        assert sizes_of(model) == tuple(range(320, 769, 32)) and len(sizes_of(model)) == 15
    # Half to one and a half of the image size, in steps of the coarsest stride.
    assert sizes_of("yolov5n-r7") == sizes_of("yolov4-csp") == tuple(range(320, 961, 32))
    assert sizes_of("yolov4-p6") == tuple(range(640, 1921, 64))
    assert sizes_of("yolov4-p7") == tuple(range(768, 2305, 128))
    assert sizes_of("yolov5n-r7", "train.image_size=416") == tuple(range(192, 641, 32))
    rates = {model: load_config(model).train.resize_rate for model in model_names()}
    assert {rates[model] for model in ("yolov4", "yolov4-tiny", "yolov3", "yolov5s", "yolov5x")} == {10}
    assert {rates[model] for model in ("yolov3-quant", "yolov5s-r7", "yolov4-csp", "yolov4-p5")} == {1}


def test_own_sizes_are_sorted_and_sizes_that_do_not_fit_are_refused() -> None:
    assert sizes_of("yolov4", "train.sizes=[608,416,608]") == (416, 608)
    assert training_sizes(model_facts("yolov4"), load_config("yolov4", sets=["train.sizes=320,416"]).train) == (416,)
    with pytest.raises(InputError, match=r"train\.sizes has 1184: yolov4-p6 needs multiples of 64, such as 1152"):
        sizes_of("yolov4-p6", "train.sizes=1184,1280")
    with pytest.raises(InputError, match=r"image_size = 320 is outside .*, 416 to 736: .*train\.sizes=288,320,352, or"):
        sizes_of("yolov4", "train.image_size=320")
    one = ["train.sizes=128,256", "train.image_size=256", "train.per_batch_size=1"]
    check_batch_norm(load_config("yolov4-p7", sets=one), "train")
    with pytest.raises(InputError, match=r"per_batch_size = 1 with 128 px in train\.sizes: .*or train\.sizes to 256"):
        check_batch_norm(load_config("yolov4-p7", sets=[*one, "train.multi_scale=true"]), "train")


def test_sizes_are_part_of_the_identity_only_if_they_change() -> None:
    usual = identity()
    assert not {"train.multi_scale", "train.sizes", "train.resize_rate"} & usual.keys()
    assert identity("train.sizes=320,416", "train.resize_rate=3") == usual
    several = identity("train.multi_scale=true")
    assert several["train.sizes"] == list(range(416, 737, 32)) and several["train.resize_rate"] == 10
    assert changed_keys(several, identity("train.multi_scale=1", "train.resize_rate=5")) == ["train.resize_rate"]
    # The sizes of the model, typed.
    typed = "train.sizes=" + ",".join(map(str, range(416, 737, 32)))
    assert changed_keys(several, identity("train.multi_scale=1", typed)) == []
    assert missing_values(usual, several) == {}
    for saved, now, value in ((usual, several, "false"), (several, usual, "true")):
        with pytest.raises(
            InputError, match=rf"started with train\.multi_scale = .*--set train\.multi_scale={value}\)"
        ):
            refuse_changes(saved, now, "place")


def test_sizes_and_rate_without_multi_scale_are_noted() -> None:
    resolved = load_resolved("yolov4", sets=["train.resize_rate=10"])
    assert idle_settings(resolved) == (
        "train.resize_rate = 10 has no effect, because train.multi_scale is false; set train.multi_scale=true",
    )
    assert idle_settings(load_resolved("yolov4", sets=["train.resize_rate=10", "train.multi_scale=1"])) == ()


def test_compilations_are_announced_with_an_estimate() -> None:
    compilations = Compilations()
    sizes = {320, 352, 384}
    assert compilations.seconds_for(sizes) == 0
    assert compilations.announcement(352, sizes) == "compiling the graph for images of 352 px, size 1 of 3"
    assert compilations.count(1, 0)
    compilations.add(352, 20.0)
    assert compilations.seconds == 20 and compilations.seconds_for(sizes) == 40
    assert not compilations.count(1, 0) and compilations.seconds == 0
    line = "compiling the graph for images of 320 px, size 2 of 3: about 20 s, and 20 s for the other sizes later"
    assert compilations.announcement(320, sizes) == line
    assert compilations.count(2, 0)
    compilations.add(320, 10.0)
    # An update of the weights, which is compiled in a step with images of a known size.
    assert compilations.count(2, 1)
    compilations.add(320, 3.0)
    assert compilations.announcement(384, {384}) == "compiling the graph for images of 384 px, size 3 of 3: about 15 s"
    assert compilations.result.words == "2 graphs for 2 sizes (320, 352 px) in 30 s"
    assert (compilations.result.graphs, compilations.result.other_graphs) == (2, 1)


def test_the_remaining_time_and_the_speed_leave_out_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    remaining, now = RemainingTime(100), 1000.0
    for step in range(1, 21):
        compiled = 50.0 if step in (1, 4, 15) else 0.0
        now += compiled or 2.0
        remaining.count(step, now, compiled)
        if step == 4:
            assert remaining.seconds(4, now) == pytest.approx(96 * 2.0)
    assert remaining.seconds(20, now) == pytest.approx(80 * 2.0)

    clock = [10.0]
    monkeypatch.setattr("kubeyolo.training.loop_parts.time.perf_counter", lambda: clock[0])
    speed = Speed()
    for step in range(1, 21):
        compiled = 50.0 if step in (1, 4, 15) else 0.0
        clock[0] += compiled or 2.0
        speed.count_step(compiled)
        if step in (10, 20):
            assert speed.take() == pytest.approx(0.5)


def test_each_size_is_compiled_once(tmp_path: Path, mindspore_ready: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore.common.api import _CellGraphExecutor

    compiled: list[tuple[int, str]] = []
    compile_cell = _CellGraphExecutor.compile

    def noted(self: Any, cell: Any, *args: Any, **options: Any) -> Any:
        phase, is_new = compile_cell(self, cell, *args, **options)
        if is_new:
            compiled.append((engine.step, type(cell).__name__))
        return phase, is_new

    monkeypatch.setattr(_CellGraphExecutor, "compile", noted)
    engine = tiny_engine(model_facts("yolov4-csp"), BASE, STEPS // STEPS_PER_EPOCH)
    lines: list[str] = []
    settings = LoopSettings(total_steps=STEPS, images_per_step=4, log_interval=4, sizes=SCHEDULE)
    with rendered_loader(BASE, SCHEDULE) as loader:
        loop = TrainingLoop(engine, loader, settings, Output(Place.of(tmp_path), {}), Hooks(show=lines.append))
        loop.run()

    drawn = [SCHEDULE.at(step) for step in range(STEPS)]
    first = sorted({size: drawn.index(size) for size in SCHEDULE.sizes}.items(), key=lambda each: each[1])
    assert [step for step, name in compiled if name == "TrainStep"] == [step for _, step in first]
    assert sorted(name for _, name in compiled) == ["TrainStep"] * 3 + ["WeightAverage"]
    result = engine.compilations.result
    assert (result.graphs, result.other_graphs) == (3, 1) and {*result.seconds} == {64, 96, 128}
    announced = [line for line in lines if line.startswith("compiling")]
    assert [line.split(":")[0] for line in announced] == [
        f"compiling the graph for images of {size} px, size {number} of 3" for number, (size, _) in enumerate(first, 1)
    ]
    assert " for the other sizes later" in announced[1] and " later" not in announced[2]
    assert lines[-1].startswith("compiled 3 graphs for 3 sizes (64, 96, 128 px) in ")
    losses = [row.loss for row in loop.journal.history.of("train")]
    assert losses[-1] is not None and losses[0] is not None and losses[-1] < 0.8 * losses[0], losses


def mean_engine() -> Any:
    """Return an engine that learns the means of images; an update is computed from three batches."""
    from mindspore import Tensor, nn

    from kubeyolo.training.engine import Engine

    network = nn.SequentialCell(
        nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4, momentum=0.97), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    config = TrainConfig(lr=0.05, max_epoch=4, warmup_epochs=0, nominal_batch=12, ema_tau=5.0)
    schedule, accumulation = build_schedule(config, STEPS_PER_EPOCH), build_accumulation(config, 4, STEPS_PER_EPOCH)
    return Engine(network, mean_loss(), config, schedule, accumulation=accumulation)


def train(engine: Any, steps: int) -> None:
    """Train an engine up to a number of steps."""
    with rendered_loader(BASE, SCHEDULE) as loader:
        while engine.step < steps:
            for batch in loader.epoch(*divmod(engine.step, STEPS_PER_EPOCH)):
                engine.train(batch.images, batch.indices.astype(np.float32))
                if engine.step == steps:
                    break


def test_an_interrupted_training_ends_with_the_same_bits(mindspore_ready: None) -> None:
    """Also between two updates, whose gradients are added from batches of different sizes."""
    whole, first, second = (mean_engine() for _ in range(3))
    train(whole, 10)
    train(first, 4)
    state = first.capture({})
    assert "gradients" in state.moments and SCHEDULE.at(3) != SCHEDULE.at(4)
    second.restore(state)
    train(second, 10)
    assert whole.compilations.result.graphs == len({SCHEDULE.at(step) for step in range(10)}) == 3
    a, b = whole.capture({}), second.capture({})
    assert a.step == b.step == 10 and "1.moving_mean" in a.weights
    for part in ("weights", "ema", "moments"):
        arrays, others = getattr(a, part), getattr(b, part)
        assert arrays.keys() == others.keys() and arrays
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name], err_msg=f"{part} {name}")


def test_the_estimated_memory_is_that_of_the_largest_size_with_a_graph_for_each_size() -> None:
    facts = model_facts("yolov5s")
    base = ["train.image_size=640", "data.cache=false", "data.workers=2"]
    several, largest = (
        load_config("yolov5s", sets=[*base, *sets])
        for sets in (["train.multi_scale=1", "train.sizes=320,640,736"], ["train.image_size=736"])
    )
    memory = detector_memory(facts, largest, 100, 80) + 2 * SIZE_BYTES
    assert detector_memory(facts, several, 100, 80) == pytest.approx(memory, abs=1)
    assert memory_remedy(several, "detector").endswith("or train.sizes (736), which starts a different training")


def test_a_training_takes_its_sizes_from_the_configuration(small_dataset: str, tmp_path: Path) -> None:
    values: dict[str, object] = {"multi_scale": True, "sizes": [64, 96], "resize_rate": 2, "seed": 5}
    several, usual = (spec_for(small_dataset, tmp_path, **each) for each in (values, {"sizes": [64, 96]}))
    alone = {"data": DataConfig(workers=0)}
    dataset = open_dataset(Place.of(small_dataset))
    schedule = SizeSchedule((64, 96), rate=2, seed=5)
    for each, sizes in ((several, schedule), (usual, None)):
        spec = each.model_copy(update={"config": each.config.model_copy(update=alone)})
        with detector._loader(spec, dataset, Distribution(0, 1), {}) as loader:
            shapes = [batch.images.shape[-1] for epoch in range(2) for batch in loader.epoch(epoch)]
            assert detector._loop_settings(spec, loader, dataset.classes).sizes == sizes
        assert shapes == [64 if sizes is None else schedule.at(step) for step in range(12)]
    assert {schedule.at(step) for step in range(12)} == {64, 96}
