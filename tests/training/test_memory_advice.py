"""A training that does not fit into the memory of its container is warned of, and the values that are named fit."""

from __future__ import annotations

import re

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.estimate.memory import backbone_memory, detector_memory
from kubeyolo.models.named_facts import model_facts
from kubeyolo.training import memory_advice
from kubeyolo.training.memory_advice import backbone_memory_warnings, detector_memory_warnings, worker_warnings
from kubeyolo.work import DEVICES

FACTS = model_facts("yolov5n-r7")
IMAGES, CLASSES, GB = 4000, 3, 10**9


def config(*sets: str) -> Config:
    return load_config("yolov5n-r7", sets=["train.image_size=320", "train.per_batch_size=16", *sets])


def needed(*sets: str) -> int:
    return detector_memory(FACTS, config(*sets), IMAGES, CLASSES)


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv(DEVICES, raising=False)
    return monkeypatch


def warnings(container: pytest.MonkeyPatch, size: float | None, *sets: str, world: int = 1) -> list[str]:
    container.setattr(memory_advice, "usable_memory", lambda: size if size is None else int(size))
    return detector_memory_warnings(FACTS, config(*sets), IMAGES, CLASSES, world)


def named(line: str) -> list[str]:
    return re.findall(r"--set (\S+=\d+)", line)


def test_what_fits_or_is_not_known_is_no_warning(container: pytest.MonkeyPatch) -> None:
    assert warnings(container, needed()) == []
    assert warnings(container, None) == []


def test_the_size_of_the_cache_that_is_named_fits_and_is_the_largest(container: pytest.MonkeyPatch) -> None:
    size = needed() - 500_000_000
    (line,) = warnings(container, size)
    assert "takes about 3.8 GB of memory, and may use 3.3 GB" in line and "same weights" in line
    (setting,) = named(line)
    assert setting.startswith("data.cache_limit_mb=")
    assert size - 2**20 < needed(setting) <= size
    assert warnings(container, size, setting) == []


def test_the_number_of_data_workers_that_is_named_fits_and_is_the_largest(container: pytest.MonkeyPatch) -> None:
    size = needed("data.cache_limit_mb=0", "data.workers=5")
    (line,) = warnings(container, size, "data.workers=9")
    assert named(line) == ["data.workers=5", "data.cache_limit_mb=0"] and "same weights" in line
    assert warnings(container, size, *named(line)) == []


def test_activations_are_computed_again_before_the_batch_is_made_smaller(container: pytest.MonkeyPatch) -> None:
    settings = ("train.recompute=true", "data.cache_limit_mb=0")
    size = needed(*settings)
    (line,) = warnings(container, size)
    assert f"with {' '.join(f'--set {each}' for each in settings)} it fits, with the same weights" in line
    assert warnings(container, size, *settings) == []


def test_the_batch_that_is_named_fits(container: pytest.MonkeyPatch) -> None:
    size = needed("train.per_batch_size=8", "data.cache_limit_mb=0")
    (line,) = warnings(container, size)
    assert named(line) == ["train.per_batch_size=8", "data.cache_limit_mb=0"]
    assert warnings(container, size, *named(line)) == []


def test_where_nothing_fits_the_keys_are_named(container: pytest.MonkeyPatch) -> None:
    (line,) = warnings(container, 0.5 * GB)
    assert named(line) == [] and "train.image_size (320)" in line and "smaller model" in line


def test_all_processes_of_a_machine_count_and_those_of_a_pod_alone(container: pytest.MonkeyPatch) -> None:
    size = 2.5 * needed()
    assert warnings(container, size, "train.processes=2", world=2) == []
    (line,) = warnings(container, size, "train.processes=4", world=4)
    assert "for its 4 processes on this machine" in line
    assert warnings(container, size, "train.processes=4", *named(line), world=4) == []
    container.setenv(DEVICES, "2")
    assert warnings(container, size, "train.processes=4", world=4) == []


def test_the_memory_of_a_card_does_not_count(container: pytest.MonkeyPatch) -> None:
    sets = ("train.per_batch_size=512", "data.cache=false", "data.workers=0")
    assert warnings(container, 2 * GB, *sets)
    assert warnings(container, 2 * GB, *sets, "train.device_target=Ascend") == []


def test_a_pretraining_counts_its_crops(container: pytest.MonkeyPatch) -> None:
    alone = backbone_memory(FACTS, config())
    container.setattr(memory_advice, "usable_memory", lambda: alone + 100)
    assert backbone_memory_warnings(FACTS, config(), 100) == []
    (line,) = backbone_memory_warnings(FACTS, config(), 500_000_000)
    assert "pretrain.per_batch_size (32)" in line


@pytest.mark.parametrize(
    ("processors", "workers", "world", "named_workers"),
    [(2, 2, 1, 0), (1, 2, 4, 0), (2, 4, 1, 0), (2, 12, 1, 2), (8, 12, 1, 0), (8, 12, 2, 4), (1, 3, 1, 2)],
)
def test_many_more_data_workers_than_processors_are_named(
    container: pytest.MonkeyPatch, processors: int, workers: int, world: int, named_workers: int
) -> None:
    container.setattr(memory_advice, "usable_processors", lambda: processors)
    lines = worker_warnings(config(f"data.workers={workers}"), world)
    assert [setting for line in lines for setting in named(line)] == [f"data.workers={named_workers}"][: len(lines)]
    assert bool(lines) is bool(named_workers)
    for line in lines:
        assert f"starts {workers * world} processes" in line and worker_warnings(config(*named(line)), world) == []
