"""The loader: batches of a split in order, made ahead by worker processes."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import numpy as np

from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.batches import Batch, BatchMaker, BatchSpec, ImageSource, decoding_note, plan_batches
from kubeyolo.data.sampler import Sampler, SizeSchedule
from kubeyolo.data.shared_memory import SharedMemory
from kubeyolo.data.worker import SlotLayout, WorkerSetup, slot_arrays
from kubeyolo.errors import InputError, KubeyoloError, WorkError, one_line
from kubeyolo.memory import death_cause, lower, memory_kills
from kubeyolo.processes import INSTALLED_CODE, UTF8_OUTPUT, ending

logger = logging.getLogger(__name__)

# Batches that are ready besides the batches being made, and batches that a consumer may keep without a copy.
AHEAD = 2
LEASES = 2
LOST_SHARE = 0.01
"""Share of the boxes that may be left out of the batches without a warning."""
STOP_SECONDS = 2.0
_LONGEST_LINE = 300


class _ErrorLines:
    """Forwards the standard error of a worker line by line, and stores the last line."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._last = b""
        self._thread = threading.Thread(target=self._pass_on, args=(stream,), daemon=True, name="loader-errors")
        self._thread.start()

    def last(self) -> str:
        """Return the last line that the worker wrote before it ended; empty if it wrote nothing."""
        self.end()
        return one_line(self._last.decode(errors="backslashreplace"), _LONGEST_LINE)

    def end(self) -> None:
        """Wait until all output of the ended worker is forwarded."""
        self._thread.join(STOP_SECONDS)

    def _pass_on(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._last = line if line.strip() else self._last
                with contextlib.suppress(OSError):
                    os.write(2, line)


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    errors: _ErrorLines


@dataclass(frozen=True)
class _Task:
    epoch: int
    step: int
    slot: int
    worker: _Worker


class Loader:
    """Batches of a split.

    The batches depend only on the split, the configuration, the number of ranks and (seed, epoch, step). They do not
    depend on the number of workers, the cache, or the first step that is requested in an epoch.

    Use it as a context manager, or call :meth:`close`.
    """

    def __init__(
        self,
        split: ImageSource,
        config: DataConfig,
        augment: AugmentConfig,
        image_size: int,
        per_batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        max_epoch: int | None = None,
        sizes: SizeSchedule | None = None,
    ) -> None:
        """Prepare the batches and start the workers.

        Args:
            split: The images; pickled once for each worker.
            config: Workers, cache and label capacity.
            augment: The settings of the augmentation.
            image_size: Side in pixels of the samples that are planned, and of cached images.
            per_batch_size: Number of images in a batch of this rank.
            seed: Seed of all random numbers.
            rank: Number of this training process, 0..world - 1.
            world: Number of training processes.
            max_epoch: Number of epochs of the training; needed if ``augment.close_mosaic`` is set.
            sizes: Sides of the images in the batches of each step; if None, ``image_size`` in every step.

        Raises:
            InputError: The split has no images.
        """
        if len(split.index.width) == 0:
            raise InputError("the split has no images, so no batches can be made")
        mosaic_epochs = None
        if augment.close_mosaic:
            if max_epoch is None:
                raise ValueError("close_mosaic counts back from the last epoch, so max_epoch is needed")
            mosaic_epochs = max(max_epoch - augment.close_mosaic, 0)
        sampler = Sampler(len(split.index.width), per_batch_size, seed, rank, world)
        sizes = sizes or SizeSchedule((image_size,))
        self._spec = plan_batches(split, config, augment, image_size, sizes, sampler, mosaic_epochs)
        self.truncated_boxes = 0
        self._batches = self._truncated_batches = 0
        self._capacity_needed = 0
        self._is_capacity_given = bool(config.label_capacity)
        self._closed = False
        self._pending: deque[_Task] = deque()
        self._pool: _Pool | None = None
        self._maker: BatchMaker | None = None
        cache = SharedMemory(self._spec.cache.size) if self._spec.cache.size else None
        if config.workers:
            self._pool = _Pool(self._spec, config.workers, cache)
        else:
            self._maker = BatchMaker(self._spec, cache)
        self._cache = cache

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self._spec.sampler.steps_per_epoch

    @property
    def label_capacity(self) -> int:
        """Number of label rows in each batch."""
        return self._spec.label_capacity

    @property
    def note(self) -> str:
        """How many images are decoded for a sample if the cache does not hold all images; empty if it does."""
        return decoding_note(self._spec)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``start_step`` on.

        With workers the arrays of a batch are in memory shared with the workers, which is reused after the arrays are
        deleted. A caller may keep any number of batches; from the third kept batch on, batches are copies.

        Raises:
            WorkError: A worker failed or ended unexpectedly; the loader is then closed.
        """
        for step in range(start_step, self.steps_per_epoch):
            if self._closed:
                raise WorkError("the loader is closed")
            batch = self._make_here(epoch, step) if self._pool is None else self._make_by(self._pool, epoch, step)
            self._count_truncated(batch.truncated)
            yield batch
            del batch

    def warnings(self) -> list[str]:
        """Return a warning if more than 1 % of the boxes were left out of the batches so far."""
        # An upper bound, because not every batch was full.
        boxes = self.truncated_boxes + self.label_capacity * self._batches
        if self.truncated_boxes <= LOST_SHARE * boxes:
            return []
        remedy = "0, which derives it," if self._is_capacity_given else str(self._capacity_needed)
        return [
            f"{self.truncated_boxes} boxes were left out of {self._truncated_batches} of {self._batches} batches, "
            f"whose labels have {self.label_capacity} rows (data.label_capacity): the network learns these boxes as "
            f"background; set data.label_capacity to {remedy} and train again."
        ]

    def close(self) -> None:
        """Stop the workers and release the memory; batches that a caller keeps remain readable."""
        if self._closed:
            return
        self._closed = True
        self._pending.clear()
        self._maker = None
        if self._pool is not None:
            self._pool.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _make_here(self, epoch: int, step: int) -> Batch:
        assert self._maker is not None
        spec = self._spec
        batch = Batch(
            np.empty(spec.image_shape(spec.size_at(epoch, step)), np.uint8),
            np.empty(spec.label_shape, np.float32),
            np.empty(spec.sampler.per_batch_size, np.int64),
        )
        return replace(batch, truncated=self._maker.make(epoch, step, batch))

    def _make_by(self, pool: _Pool, epoch: int, step: int) -> Batch:
        try:
            self._drop_others(pool, epoch, step)
            self._begin_ahead(pool, epoch, step)
            return pool.receive(self._pending.popleft())
        except KubeyoloError:
            self.close()
            raise

    def _drop_others(self, pool: _Pool, epoch: int, step: int) -> None:
        """Drop the batches that were started ahead but are not requested."""
        while self._pending and (self._pending[0].epoch, self._pending[0].step) != (epoch, step):
            pool.discard(self._pending.popleft())

    def _begin_ahead(self, pool: _Pool, epoch: int, step: int) -> None:
        """Start batches from (epoch, step) on, into the next epoch if needed, so that all workers are busy."""
        if self._pending:
            epoch, step = self._pending[-1].epoch, self._pending[-1].step + 1
        while len(self._pending) < pool.depth:
            if step == self.steps_per_epoch:
                epoch, step = epoch + 1, 0
            self._pending.append(pool.begin(epoch, step))
            step += 1

    def _count_truncated(self, boxes: int) -> None:
        if boxes and not self.truncated_boxes:
            logger.warning(
                "a batch has %d boxes more than the %d rows of its labels: the smallest boxes are left out; "
                "raise data.label_capacity",
                boxes,
                self.label_capacity,
            )
        self._batches += 1
        if boxes:
            self.truncated_boxes += boxes
            self._truncated_batches += 1
            self._capacity_needed = max(self._capacity_needed, self.label_capacity + boxes)


class _Pool:
    """Worker processes and the ring of slots into which they write batches.

    Tasks are assigned to the workers in turn, and each worker processes them in order, so it is known which worker
    sends the next batch.
    """

    def __init__(self, spec: BatchSpec, workers: int, cache: SharedMemory | None) -> None:
        self.depth = workers + AHEAD
        self._spec = spec
        self._layout = SlotLayout.of(spec)
        self._ring = SharedMemory(self._layout.stride * (self.depth + LEASES))
        self._free: deque[int] = deque(range(self.depth + LEASES))
        self._leased: set[int] = set()
        self._begun = 0
        self._memory_kills = memory_kills()
        setup = WorkerSetup(os.getpid(), spec, self._ring.fd, self._ring.size, cache.fd if cache else None)
        self._workers: list[_Worker] = []
        # Stops the workers also if the loader is deleted without a call of close, or when the interpreter ends.
        self._stop = weakref.finalize(self, _stop_workers, self._workers)
        pickled = pickle.dumps(setup, pickle.HIGHEST_PROTOCOL)
        memory = SharedMemory(len(pickled))
        memory.map[:] = pickled
        passed = [self._ring.fd] + ([cache.fd] if cache else [])
        for _ in range(workers):
            self._workers.append(_start_worker(memory, passed))
        memory.close()

    def begin(self, epoch: int, step: int) -> _Task:
        """Send the task for a batch to the next worker."""
        worker = self._workers[self._begun % len(self._workers)]
        task = _Task(epoch, step, self._free.popleft(), worker)
        self._begun += 1
        try:
            worker.connection.send((epoch, step, task.slot))
        except OSError:
            raise self._failure(worker) from None
        return task

    def receive(self, task: _Task) -> Batch:
        """Wait for a batch and return it in its slot, or as a copy if the caller keeps too many slots."""
        truncated = self._wait(task)
        start, size = task.slot * self._layout.stride, self._spec.size_at(task.epoch, task.step)
        if len(self._leased) >= LEASES:
            shared = slot_arrays(self._ring.map, self._spec, self._layout, size, start)
            self._free.append(task.slot)
            return Batch(shared.images.copy(), shared.labels.copy(), shared.indices.copy(), truncated)
        # The arrays keep the lease alive: it is deleted with the last array.
        lease = (ctypes.c_ubyte * self._layout.stride).from_buffer(self._ring.map, start)
        self._leased.add(task.slot)
        weakref.finalize(lease, self._give_back, self._leased, self._free, task.slot).atexit = False
        return slot_arrays(memoryview(lease), self._spec, self._layout, size, truncated=truncated)

    def discard(self, task: _Task) -> None:
        """Wait for a batch and drop it."""
        self._wait(task)
        self._free.append(task.slot)

    def close(self) -> None:
        """Stop the workers."""
        self._stop()
        self._ring.close()

    @staticmethod
    def _give_back(leased: set[int], free: deque[int], slot: int) -> None:
        leased.discard(slot)
        free.append(slot)

    def _wait(self, task: _Task) -> int:
        try:
            answer = task.worker.connection.recv()
        except (EOFError, OSError):
            raise self._failure(task.worker) from None
        if answer[0] == "failed":
            logger.debug("traceback of the loader's worker:\n%s", answer[2])
            raise WorkError(f"a worker of the loader failed: {answer[1]}")
        return int(answer[1])

    def _failure(self, worker: _Worker) -> WorkError:
        """Return the error for a worker that does not answer, with the message that it sent before it ended, if any."""
        try:
            while worker.connection.poll(0):
                answer = worker.connection.recv()
                if answer[0] == "failed":
                    return WorkError(f"a worker of the loader failed: {answer[1]}")
        except (EOFError, OSError):
            pass
        try:
            code = worker.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkError(f"a worker of the loader (process {worker.process.pid}) closed its connection")
        memory = death_cause(code, self._memory_kills)
        if memory:
            memory += f": {lower({'data.cache_limit_mb': None, 'data.workers': len(self._workers)})}"
        last = worker.errors.last()
        printed = f"; the last line of its standard error: {last}" if last else ""
        return WorkError(f"a worker of the loader ended ({ending(code)}){memory}{printed}")


def _start_worker(setup: SharedMemory, passed: Sequence[int]) -> _Worker:
    ours, theirs = socket.socketpair()
    with theirs:
        # A worker has one thread: thread pools in numpy's libraries would only take memory.
        environment = os.environ | UTF8_OUTPUT | INSTALLED_CODE | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(_import_path())
        arguments = [str(theirs.fileno()), str(setup.fd), str(setup.size)]
        process = subprocess.Popen(
            [sys.executable, "-m", "kubeyolo.data.worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=[theirs.fileno(), setup.fd, *passed],
        )
    assert process.stderr is not None
    return _Worker(process, Connection(ours.detach()), _ErrorLines(process.stderr))


def _import_path() -> list[str]:
    """Return this process's import path for a worker, with the current folder last unless it is in PYTHONPATH."""
    named = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    current = ""
    with contextlib.suppress(FileNotFoundError):  # The folder may have been removed.
        current = os.getcwd()
    paths = [path for path in sys.path if path and (path != current or path in named)]
    # This process may import the library through an import hook, which is tried after all folders of sys.path.
    paths.append(str(Path(__file__).parents[2]))
    if current and not {"", current}.isdisjoint(sys.path):
        paths.append(current)
    return paths


def _stop_workers(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
        # The batch that the worker is making is not needed.
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.errors.end()
