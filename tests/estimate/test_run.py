"""The estimate of a run: its directions, its distance from runs that were measured, and its words."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.estimate.run import UNKNOWN_IMAGES, RunEstimate, estimate_run
from kubeyolo.models.named_facts import model_facts, model_names

IMAGES = {"train": 240, "val": 60}


def estimate(
    *sets: str, model: str = "yolov5n-r7", images: dict[str, int] | None = IMAGES, **values: Any
) -> RunEstimate:
    settings: dict[str, Any] = {"data_bytes": 6_000_000, "classes": 3, "cores": 2, **values}
    return estimate_run(
        model_facts(model), load_config(model, sets=["train.image_size=256", *sets]), images, **settings
    )


def on_cards(count: int) -> tuple[str, ...]:
    sections = ("pretrain", "train", "evaluate", "export")
    return (*(f"{section}.device_target=Ascend" for section in sections), f"train.processes={count}")


def test_more_epochs_take_longer_in_proportion() -> None:
    one, two, three = (estimate(f"train.max_epoch={epochs}").seconds["train"] for epochs in (10, 20, 30))
    assert one < two < three
    assert three - two == pytest.approx(two - one)


def test_validations_while_training_are_part_of_the_estimate() -> None:
    never, often, auto = (estimate(f"train.val_interval={value}", "train.max_epoch=100") for value in (0, 1, "auto"))
    assert often.seconds["train"] - never.seconds["train"] > 2.9 * (auto.seconds["train"] - never.seconds["train"]) > 0
    assert auto.seconds["train"] < 1.1 * never.seconds["train"]
    # The weights of the best validation, and of the last epoch.
    weights = 4 * model_facts("yolov5n-r7").parameters
    assert auto.disk - never.disk == pytest.approx(2 * weights, abs=2)


def test_more_images_take_longer_in_every_step() -> None:
    few = estimate(images={"train": 40, "val": 10}).seconds
    many = estimate(images={"train": 4000, "val": 1000}).seconds
    assert all(many[step] > few[step] for step in few)


def test_larger_images_take_longer_and_more_memory() -> None:
    small, large = estimate("train.image_size=320"), estimate("train.image_size=640")
    assert large.total > small.total
    assert large.memory > small.memory
    assert large.loader_memory > small.loader_memory


def test_larger_models_take_longer_more_memory_and_more_of_the_store() -> None:
    models = [estimate(model=f"yolov5{letter}-r7") for letter in "nsmlx"]
    for smaller, larger in zip(models, models[1:], strict=False):
        assert smaller.total < larger.total
        assert smaller.memory < larger.memory
        assert smaller.disk < larger.disk


def test_more_cores_nodes_or_cards_take_less_time() -> None:
    assert estimate(cores=8).total < estimate(cores=2).total < estimate(cores=1).total
    four, two = (estimate(f"train.processes={count}", nodes=count).seconds["train"] for count in (4, 2))
    assert four < two
    cards = [estimate(*on_cards(count), cores=64).seconds["train"] for count in (1, 2, 4, 8)]
    assert cards == sorted(cards, reverse=True)


def test_more_processes_on_the_same_cores_are_not_faster() -> None:
    sets = "train.val_interval=10"  # the processes share the validated images
    seconds = [estimate(f"train.processes={count}", sets).seconds["train"] for count in (1, 2, 4, 8)]
    assert seconds == sorted(seconds)


def test_a_pretraining_takes_less_time_on_more_cards_and_not_in_more_processes_on_the_same_cores() -> None:
    def seconds(count: int, *sets: str) -> float:
        own = (f"pretrain.processes={count}", "pretrain.max_epoch=50", "pretrain.max_steps=10000000")
        images = {"train": 8000, "val": 60}
        return estimate(*own, *sets, model="yolov5x-r7", images=images).seconds["pretrain_backbone"]

    cards = [seconds(count, *on_cards(1)) for count in (1, 2, 4, 8)]
    assert cards == sorted(cards, reverse=True) and cards[0] > cards[-1]
    # They also exchange gradients, over the loopback interface.
    assert seconds(1) < seconds(4) < 1.6 * seconds(1)
    # A step has a batch of each process: if the steps are limited, more processes train on more crops.
    assert seconds(4, "pretrain.max_steps=40") > seconds(1, "pretrain.max_steps=40")


def test_cards_wait_for_slow_data_workers() -> None:
    few, many = (estimate(f"data.workers={workers}", *on_cards(1), model="yolov5n-r7", cores=64) for workers in (1, 16))
    assert few.seconds["train"] > many.seconds["train"]


def test_a_step_that_is_off_takes_no_time_and_is_not_mentioned() -> None:
    off = estimate("pretrain.enabled=false")
    assert off.seconds["pretrain_backbone"] == 0
    assert "pretrain" not in off.words()[0]
    assert off.disk < estimate().disk


def test_more_checkpoints_need_more_of_the_store() -> None:
    assert estimate("train.keep_checkpoints=9").disk > estimate("train.keep_checkpoints=3").disk
    assert estimate("train.max_epoch=1", "train.keep_checkpoints=9").disk < estimate().disk


def test_activations_that_are_computed_again_need_less_memory_and_more_time() -> None:
    kept, again = (
        estimate(f"train.recompute={value}", "train.image_size=1280", model="yolov4-p6") for value in ("false", "true")
    )
    assert 0.6 * kept.memory < again.memory < 0.9 * kept.memory
    assert kept.seconds["train"] < again.seconds["train"] < 1.35 * kept.seconds["train"]


def test_activations_in_half_precision_need_less_memory() -> None:
    single, half = (
        estimate(f"train.precision={name}", "train.image_size=640", model="yolov5l-r7")
        for name in ("float32", "float16")
    )
    # The weights, their moments and the process itself stay as large as they are.
    assert 0.5 * single.memory < half.memory < 0.7 * single.memory


def test_more_classes_need_more_memory() -> None:
    assert estimate(classes=80).memory > estimate(classes=3).memory


# README.md: whole runs of yolov5n-r7 at 256 pixels on two idle cores; the last one in two pods of one core each.
@pytest.mark.parametrize(
    ("images", "processes", "minutes"),
    [
        ({"train": 240, "val": 60}, 1, 7.5),
        ({"train": 292, "val": 72}, 1, 9.0),
        ({"train": 292, "val": 72}, 2, 13.5),
    ],
)
def test_time_of_a_whole_run_is_within_a_quarter_of_what_was_measured(
    images: dict[str, int], processes: int, minutes: float
) -> None:
    sets = ("train.max_epoch=40", "train.optimizer=adamw", "pretrain.image_size=64", "pretrain.max_steps=600")
    batch = (f"train.processes={processes}", f"train.per_batch_size={8 // processes}", "train.nominal_batch=0")
    run = estimate(*sets, *batch, images=images, cores=2 // processes, nodes=processes)
    assert run.total / 60 == pytest.approx(minutes, rel=0.25)


# Peak of the training process in bytes, 3 classes, MindSpore 2.7.0, 2 cores.
@pytest.mark.parametrize(
    ("model", "size", "batch", "measured"),
    [
        ("yolov5n-r7", 128, 8, 1275e6),
        ("yolov5n-r7", 512, 8, 2583e6),
        ("yolov5s-r7", 256, 8, 2029e6),
        ("yolov3", 128, 4, 5007e6),
    ],
)
def test_memory_is_within_a_third_of_what_was_measured(model: str, size: int, batch: int, measured: float) -> None:
    expected = estimate(f"train.image_size={size}", f"train.per_batch_size={batch}", model=model).memory
    assert measured / 1.33 < expected < measured * 1.33


# yolov5n-r7, 256 pixels, 64 + 16 images, 2 epochs of batches of 8; 2 cores that other programs used as well.
@pytest.mark.parametrize(("step", "measured"), [("train", 43.7), ("evaluate", 5.2), ("export_model", 14.5)])
def test_time_of_a_step_is_within_a_factor_of_three_of_what_was_measured(step: str, measured: float) -> None:
    expected = estimate("train.max_epoch=2", images={"train": 64, "val": 16}).seconds[step]
    assert measured / 3 < expected < measured * 3


def test_words_name_time_memory_and_store_with_few_digits() -> None:
    time, memory, store = estimate("train.max_epoch=40").words()
    assert re.fullmatch(
        r"about \d+ min to \d+ min on 2 cores with no other load: pretrain_backbone \d+ (s|min), train \d+ min, "
        r"evaluate \d+ s, export_model \d+ s, quantize \d+ s",
        time,
    )
    assert re.fullmatch(r"about \d\.\d GB of memory per training process, and \d+ MB for its data workers", memory)
    assert re.fullmatch(r"about \d+ MB in the store", store)


def test_words_use_days_for_long_runs_and_the_singular_for_one_core() -> None:
    expected = estimate(images={"train": 118_287, "val": 5000}, model="yolov5x-r7", cores=1)
    found = re.match(r"about (\d+) days to (\d+) days on 1 core with .* train (\d+) days,", expected.words()[0])
    assert found is not None
    whole, train = sum(expected.seconds.values()), expected.seconds["train"]
    wanted = [whole / expected.factor, whole * expected.factor, train]
    assert [86400 * int(days) for days in found.groups()] == pytest.approx(wanted, rel=0.1)


def test_unknown_images_are_counted_by_the_thousand_and_said_to_be_unknown() -> None:
    unknown, known = estimate(images=None), estimate(images={"train": UNKNOWN_IMAGES, "val": UNKNOWN_IMAGES})
    assert unknown.seconds == known.seconds
    assert "number of images unknown (train, val): times assume 1000 images in each" in unknown.words()
    assert not known.caveats


def test_only_the_splits_that_are_unknown_are_named() -> None:
    assert estimate(images={"train": 240}).caveats[0].startswith("number of images unknown (val):")
    assert "(test)" in estimate("evaluate.split=test").caveats[0]


def test_unknown_size_and_cores_are_said() -> None:
    assert estimate(data_bytes=None, cores=None).caveats == (
        "size of the data set unknown: the store needs its size in addition",
        "number of cores unknown: one core for each training process is assumed",
    )


def test_cards_are_said_not_to_be_measured() -> None:
    cards = estimate(*on_cards(8), cores=64)
    assert "on 8 Ascend cards" in cards.words()[0]
    assert any(line.startswith("not measured on Ascend") for line in cards.words())
    assert cards.factor > estimate().factor


@pytest.mark.parametrize("model", model_names())
def test_every_model_has_an_estimate(model: str) -> None:
    complete = estimate(model=model)
    assert all(seconds > 0 for seconds in complete.seconds.values())
    assert len(complete.words()) == 3


def test_importing_it_imports_no_framework() -> None:
    modules = "kubeyolo.estimate.scaling, kubeyolo.estimate.published"
    code = f"import sys, {modules}; print({{'mindspore', 'kfp', 'minio'}} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
