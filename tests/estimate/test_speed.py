"""The time of a step: what limits it, and how it changes with network, devices, links and loader."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.estimate.devices import DEVICES, Link
from kubeyolo.estimate.published import PUBLISHED_RUNS
from kubeyolo.estimate.speed import FLOAT, Placement, Workload, loader_seconds, reduce_seconds, step_time, training_step
from kubeyolo.models.named_facts import model_facts

A910 = DEVICES["Ascend910"]


def on(count: int, **changes: object) -> Placement:
    device = replace(A910, **changes)  # type: ignore[arg-type]
    return Placement(processes=count, machines=-(-count // 8), device=device, cores=192)


def test_the_published_runs_of_the_original_programs_are_within_a_quarter() -> None:
    zoo = {(run.model, run.devices, run.image_size): run for run in PUBLISHED_RUNS if "YOLOv" in run.source}
    wanted = {("yolov4", 1, 416): 53, ("yolov4", 8, 416): 390, ("yolov5s", 8, 640): 450}
    for key, speed in wanted.items():
        assert zoo[key].images_per_second == speed
        assert zoo[key].estimate == pytest.approx(speed, rel=0.25)


def test_every_published_run_is_within_a_quarter_and_most_were_not_fitted() -> None:
    assert max(abs(run.error) for run in PUBLISHED_RUNS) < 0.25
    assert sum(not run.is_fitted for run in PUBLISHED_RUNS) >= len(PUBLISHED_RUNS) / 2


def test_few_operations_for_each_element_are_limited_by_the_memory_and_many_by_the_computation() -> None:
    few = Workload(images=8, multiply_adds=1e9, elements=1e7, parameters=1000)
    step = step_time(few, on(1))
    assert step.limit == "memory bandwidth"
    assert step.network == step.memory > step.compute
    # A device with ten times the bandwidth is faster until the computation takes longer.
    wide = step_time(replace(few, multiply_adds=1e12), on(1, bandwidth=10 * A910.bandwidth))
    assert wide.limit == "compute"
    assert wide.network == wide.compute


def test_a_ring_sends_twice_the_bytes_however_many_devices_there_are() -> None:
    link = Link(bandwidth=1e9, latency=0.0)
    times = [reduce_seconds(1e9, on(count, inside=link)) for count in (1, 2, 4, 8)]
    assert times == pytest.approx([0, 1, 1.5, 1.75])


def test_devices_of_a_machine_share_the_bytes_that_go_to_other_machines() -> None:
    fast, slow = Link(bandwidth=1e18, latency=0.0), Link(bandwidth=1e9, latency=0.0)
    times = [reduce_seconds(8e9, on(count, inside=fast, outside=slow)) for count in (8, 16, 64, 512)]
    assert times == pytest.approx([0, 1, 1.75, 63 / 32], abs=1e-6)
    late = reduce_seconds(0, on(512, inside=fast, outside=Link(bandwidth=1e9, latency=1e-3)))
    assert late == pytest.approx(2 * 63 * 1e-3)


def test_large_networks_with_small_batches_are_limited_by_the_exchange_over_a_slow_network() -> None:
    facts, slow = model_facts("yolov4-p7"), Link(bandwidth=1e6, latency=0.0)
    step = step_time(Workload.of(facts, 64, 1), on(16, outside=slow))
    assert step.limit == "all-reduce"
    assert step.reduce > FLOAT * facts.parameters / 8 / 1e6


def test_a_step_waits_for_the_loader_if_it_has_few_workers() -> None:
    facts = model_facts("yolov5n-r7")

    def step(workers: int) -> float:
        config = load_config("yolov5n-r7", sets=[f"data.workers={workers}"])
        found = training_step(facts, config, 118_287, on(8))
        assert (found.limit == "loader") == (workers == 1)
        return found.total

    assert step(1) > step(24) == step(64)


def test_the_loader_has_less_to_do_without_mosaic_and_with_a_cache_that_holds_the_images() -> None:
    def seconds(images: int, *sets: str) -> float:
        return loader_seconds(load_config("yolov5n-r7", sets=list(sets)), images, on(1))

    everywhere = "augment.partner_window=0"
    assert seconds(100, everywhere) < seconds(5000, everywhere) < seconds(100_000, everywhere)
    assert seconds(100) == pytest.approx(seconds(100, "augment.mosaic=0"))
    # Partners of the last images are in the cache: each sample decodes its first image.
    assert seconds(100) < seconds(5000) == seconds(100_000) < 0.6 * seconds(100_000, everywhere)
    assert seconds(100_000, "augment.mosaic=0") == pytest.approx(seconds(100_000))
    assert seconds(100, "data.cache=false") > seconds(100_000)
    assert seconds(100_000, "data.workers=8") == pytest.approx(seconds(100_000, "data.workers=4") / 2)


def test_processes_of_a_machine_without_devices_share_its_cores() -> None:
    facts = model_facts("yolov5n-r7")
    work = Workload.of(facts, 256, 8)
    one, two = (step_time(work, Placement(processes=count, cores=2)) for count in (1, 2))
    assert two.network == pytest.approx(2 * one.network)
    assert one.reduce == 0 < two.reduce


def test_activations_that_are_computed_again_take_time() -> None:
    facts = model_facts("yolov4-p6")
    once, twice = (
        training_step(facts, load_config("yolov4-p6", sets=[f"train.recompute={value}"]), 1000, on(1))
        for value in ("false", "true")
    )
    assert twice.compute == pytest.approx(4 / 3 * once.compute)
    assert twice.memory == pytest.approx(23 / 19 * once.memory)
