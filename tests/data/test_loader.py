from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.loader import Loader
from kubeyolo.errors import InputError, WorkError
from tests.data.rendered_split import FailingSplit, RenderedSplit

ROOT = Path(__file__).resolve().parents[2]
AUGMENT = AugmentConfig(mixup=0.3, flipud=0.2)
WARPED = AugmentConfig(mixup=0.3, copy_paste=0.5, degrees=10.0, shear=3.0, perspective=0.0005)


def loader_of(split, workers=0, per_batch_size=4, augment=AUGMENT, cache=True, limit=64, **options):
    data = DataConfig(workers=workers, cache=cache, cache_limit_mb=limit)
    return Loader(split, data, augment, 96, per_batch_size, 7, **options)


def digests(batches):
    return [(b.images.tobytes(), b.labels.tobytes(), b.indices.tobytes(), b.truncated) for b in batches]


def worker_pids(parent):
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "kubeyolo.data.worker" in line]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("augment", [AUGMENT, WARPED])
def test_batches_are_the_same_with_any_number_of_workers_and_with_or_without_cache(augment):
    split = RenderedSplit(images=13)
    with loader_of(split, augment=augment) as inline:
        expected = [digests(inline.epoch(e)) for e in range(2)]
    assert len(expected[0]) == 4
    assert expected[0] != expected[1]
    for workers, cache in [(0, False), (3, True), (1, False)]:
        with loader_of(split, workers, cache=cache, augment=augment) as loader:
            assert [digests(loader.epoch(e)) for e in range(2)] == expected


def test_a_cache_of_some_images_changes_nothing(monkeypatch):
    monkeypatch.setattr("kubeyolo.data.batches.MEGABYTE", 100_000)
    split = RenderedSplit(images=13)
    with loader_of(split) as whole, loader_of(split, limit=1) as partly:
        assert 0 < partly._spec.cache.capacity < partly._spec.cache.needed == whole._spec.cache.capacity
        for epoch in range(2):
            assert digests(partly.epoch(epoch)) == digests(whole.epoch(epoch))


@pytest.mark.parametrize(("workers", "augment"), [(0, AUGMENT), (0, WARPED), (2, AUGMENT)])
def test_an_epoch_entered_in_the_middle_goes_on_as_the_whole_one(workers, augment):
    with loader_of(RenderedSplit(images=17), workers, augment=augment) as loader:
        whole = digests(loader.epoch(3))
        assert digests(loader.epoch(3, start_step=2)) == whole[2:]
        abandoned = loader.epoch(3)
        next(abandoned)
        assert digests(loader.epoch(3, start_step=1)) == whole[1:]
        assert list(loader.epoch(3, start_step=5)) == []


@pytest.mark.parametrize("augment", [AUGMENT, WARPED])
def test_ranks_together_make_the_batches_of_one_process(augment):
    split = RenderedSplit(images=11)
    with (
        loader_of(split, per_batch_size=4, augment=augment) as whole,
        loader_of(split, per_batch_size=2, augment=augment, rank=0, world=2) as first,
        loader_of(split, per_batch_size=2, augment=augment, rank=1, world=2) as second,
    ):
        assert whole.steps_per_epoch == first.steps_per_epoch == second.steps_per_epoch == 3
        assert first.label_capacity == second.label_capacity
        for batch, one, two in zip(whole.epoch(1), first.epoch(1), second.epoch(1), strict=True):
            np.testing.assert_array_equal(batch.images, np.concatenate([one.images, two.images]))
            np.testing.assert_array_equal(batch.indices, np.concatenate([one.indices, two.indices]))


def test_a_batch_has_the_agreed_arrays():
    with loader_of(RenderedSplit(images=3, seed=1, most_boxes=9), workers=1, per_batch_size=8) as loader:
        (batch,) = loader.epoch(0)
        assert loader.steps_per_epoch == 1
        assert batch.images.shape == (8, 3, 96, 96) and batch.images.dtype == np.uint8
        assert batch.labels.shape == (loader.label_capacity, 6) and batch.labels.dtype == np.float32
        assert loader.label_capacity % 64 == 0
        used = batch.labels[batch.labels[:, 0] >= 0]
        assert len(used) > 8
        assert (np.diff(used[:, 0]) >= 0).all() and used[:, 0].max() <= 7
        corners = np.concatenate([used[:, 2:4] - used[:, 4:] / 2, used[:, 2:4] + used[:, 4:] / 2])
        assert corners.min() >= -1e-6 and corners.max() <= 1 + 1e-6
        assert (batch.labels[len(used) :, 0] == -1).all()
        # The same image twice in a batch is drawn anew.
        first, again = np.flatnonzero(batch.indices == batch.indices[0])[:2]
        assert (batch.images[first] != batch.images[again]).any()


def test_boxes_beyond_the_capacity_are_counted_and_reported_once(caplog):
    split = RenderedSplit(images=8, most_boxes=20)
    with Loader(split, DataConfig(workers=1, label_capacity=8), AUGMENT, 96, 4, 0) as loader:
        batches = [batch for epoch in range(2) for batch in loader.epoch(epoch)]
        assert all((batch.labels[:, 0] >= 0).all() for batch in batches)
        assert loader.truncated_boxes == sum(batch.truncated for batch in batches) > 0
    assert len([record for record in caplog.records if "label_capacity" in record.message]) == 1
    (line,) = loader.warnings()
    assert line.startswith(f"{loader.truncated_boxes} boxes were left out of 4 of 4 batches, whose labels have 8 rows")
    assert "set data.label_capacity to 0" in line


def test_a_few_boxes_beyond_a_derived_capacity_are_no_warning_and_more_of_them_name_a_number():
    with loader_of(RenderedSplit(images=8), workers=0) as loader:
        list(loader.epoch(0))
        capacity = loader.label_capacity
        assert loader.warnings() == []
        # More than a hundredth of all rows.
        for boxes, warns in ((1, False), (capacity, True)):
            loader._count_truncated(boxes)
            assert bool(loader.warnings()) is warns
        assert f"set data.label_capacity to {2 * capacity} and" in loader.warnings()[0]


def test_the_derived_capacity_is_not_exceeded():
    split = RenderedSplit(images=40, most_boxes=30)
    with loader_of(split, per_batch_size=8) as loader:
        fullest = max((batch.labels[:, 0] >= 0).sum() for epoch in range(6) for batch in loader.epoch(epoch))
        assert loader.truncated_boxes == 0 and loader.warnings() == []
        assert fullest < loader.label_capacity < 4 * fullest + 64


def test_close_mosaic_ends_it_in_the_last_epochs():
    split = RenderedSplit(images=8)
    still = AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, close_mosaic=1)
    plain = still.model_copy(update={"mosaic": 0.0, "close_mosaic": 0})
    with loader_of(split, augment=still, max_epoch=3) as loader, loader_of(split, augment=plain) as letterboxed:
        expected = {int(i): b.images[slot].copy() for b in letterboxed.epoch(0) for slot, i in enumerate(b.indices)}
        equal = [
            [
                np.array_equal(b.images[slot], expected[int(i)])
                for b in loader.epoch(e)
                for slot, i in enumerate(b.indices)
            ]
            for e in (1, 2)
        ]
    assert not any(equal[0]) and all(equal[1])
    with pytest.raises(ValueError, match="^close_mosaic counts back from the last epoch, so max_epoch is needed$"):
        loader_of(split, augment=still)


def test_batches_may_be_kept():
    with loader_of(RenderedSplit(images=40), workers=2) as loader:
        expected = [digests([batch])[0] for batch in loader.epoch(0)]
        kept = list(loader.epoch(0))
        assert digests(kept) == expected
        list(loader.epoch(1))
        assert digests(kept) == expected
    assert digests(kept) == expected
    del kept
    gc.collect()


def test_slots_come_back_when_batches_are_dropped():
    with loader_of(RenderedSplit(images=40), workers=1) as loader:
        shared = [batch.images.base is not None for batch in loader.epoch(0)]
        assert all(shared)
        gc.collect()
        assert not loader._pool._leased


def test_an_error_in_a_worker_reaches_the_parent():
    with loader_of(FailingSplit("raise"), workers=2) as loader:
        with pytest.raises(WorkError, match="ValueError: image 2 cannot be read"):
            list(loader.epoch(0))
        assert worker_pids(os.getpid()) == []
        with pytest.raises(WorkError, match="^the loader is closed$"):
            next(loader.epoch(1))


def test_a_killed_worker_reaches_the_parent():
    with (
        loader_of(FailingSplit("kill"), workers=2) as loader,
        pytest.raises(
            WorkError,
            match=r"\(killed by SIGKILL\), most likely .* memory: lower data\.cache_limit_mb or data\.workers \(2\)$",
        ),
    ):
        list(loader.epoch(0))


def test_the_last_line_of_a_worker_that_ended_reaches_the_parent(capfd):
    with (
        loader_of(FailingSplit("exit"), workers=2) as loader,
        pytest.raises(WorkError, match=r"ended \(exit code 3\); .*standard error: caf\\xe9: the last words$"),
    ):
        list(loader.epoch(0))
    assert "the last words" in capfd.readouterr().err


def test_a_worker_killed_between_batches_reaches_the_parent():
    with loader_of(RenderedSplit(images=40), workers=1) as loader:
        batches = loader.epoch(0)
        next(batches)
        os.kill(loader._pool._workers[0].process.pid, signal.SIGTERM)
        with pytest.raises(WorkError, match=r"^a worker of the loader ended \(.*SIGTERM.*\)"):
            list(batches)


def test_close_ends_the_workers_and_may_be_repeated():
    before = len(os.listdir("/proc/self/fd"))
    loader = loader_of(FailingSplit("slow"), workers=2)
    next(loader.epoch(0))
    pids = [worker.process.pid for worker in loader._pool._workers]
    loader.close()
    loader.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    del loader
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


PARENT = """
import sys, time
from tests.data.rendered_split import RenderedSplit
from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.loader import Loader
loader = Loader(RenderedSplit(), DataConfig(workers=2), AugmentConfig(), 96, 4, 0)
next(loader.epoch(0))
assert "mindspore" not in sys.modules
print("ready", *(worker.process.pid for worker in loader._pool._workers), flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("ending", ["wait", "exit"])
def test_workers_end_with_their_parent(ending):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, ending], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    ready, *pids = parent.stdout.readline().split()
    assert ready == "ready"
    if ending == "wait":
        parent.send_signal(signal.SIGKILL)
    assert parent.wait(20) == (-signal.SIGKILL if ending == "wait" else 0)
    parent.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_split_without_images_is_refused():
    with pytest.raises(InputError, match="^the split has no images, so no batches can be made$"):
        loader_of(RenderedSplit(images=0))
