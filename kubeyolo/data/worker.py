"""The process that makes batches: ``python -m kubeyolo.data.worker CONNECTION_FD SETUP_FD SETUP_BYTES``.

It is a new interpreter and not a fork, because MindSpore has threads in the training process. It is not started by
multiprocessing either, which would import the main module of the training process, and MindSpore with it.

All workers read the same pickled :class:`WorkerSetup` from memory that they inherit. A worker receives tasks ``(epoch,
step, slot)`` on its connection, and answers each task with ``("batch", truncated boxes)``. At the first failure it
answers ``("failed", message, traceback)`` and ends. It also ends when its parent process ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cv2
import numpy as np

from kubeyolo.data.batches import Batch, BatchMaker, BatchSpec
from kubeyolo.data.shared_memory import Buffer, SharedMemory

# A lower priority than the training process: on a machine with few cores, a worker that takes the core of one thread of
# an operator delays all threads of the operator. A worker can wait, because batches are made ahead.
NICENESS = 15
ALIGNMENT = 64
PARENT_CHECK_SECONDS = 2.0


@dataclass(frozen=True)
class SlotLayout:
    """Byte offsets of a batch in its slot of the ring, and the size of a slot in bytes."""

    labels: int
    indices: int
    stride: int

    @classmethod
    def of(cls, spec: BatchSpec) -> SlotLayout:
        """Return the layout for the batches of ``spec``: images of the largest size, labels, indices."""
        labels = _aligned(int(np.prod(spec.image_shape(spec.sizes.largest))))
        indices = labels + _aligned(int(np.prod(spec.label_shape)) * np.dtype(np.float32).itemsize)
        stride = indices + _aligned(spec.sampler.per_batch_size * np.dtype(np.int64).itemsize)
        return cls(labels, indices, stride)


@dataclass(frozen=True)
class WorkerSetup:
    """The data with which a worker starts: the plan, and the file descriptors of the shared memory that it inherits."""

    parent: int
    spec: BatchSpec
    ring_fd: int
    ring_bytes: int
    cache_fd: int | None


def slot_arrays(
    buffer: Buffer, spec: BatchSpec, layout: SlotLayout, size: int, start: int = 0, truncated: int = 0
) -> Batch:
    """Return the arrays of a slot that starts at byte ``start`` of ``buffer``; ``size`` is the side of the images."""
    return Batch(
        np.ndarray(spec.image_shape(size), np.uint8, buffer, start),
        np.ndarray(spec.label_shape, np.float32, buffer, start + layout.labels),
        np.ndarray((spec.sampler.per_batch_size,), np.int64, buffer, start + layout.indices),
        truncated,
    )


def main(connection_fd: int, setup_fd: int, setup_bytes: int) -> None:
    """Make batches until the parent closes the connection or ends."""
    # Ctrl-C reaches the whole process group; the parent then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    cv2.setNumThreads(0)
    connection = Connection(connection_fd)
    try:
        memory = SharedMemory(setup_bytes, setup_fd)
        setup: WorkerSetup = pickle.loads(memory.map)
        memory.close()
        _serve(connection, setup)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        try:
            connection.send(("failed", message, traceback.format_exc()))
        except OSError:
            return
        sys.exit(1)


def _serve(connection: Connection, setup: WorkerSetup) -> None:
    ring = SharedMemory(setup.ring_bytes, setup.ring_fd)
    cache = SharedMemory(setup.spec.cache.size, setup.cache_fd) if setup.cache_fd is not None else None
    layout = SlotLayout.of(setup.spec)
    maker = BatchMaker(setup.spec, cache)
    while True:
        while not connection.poll(PARENT_CHECK_SECONDS):
            # The connection stays open after the parent has ended if another child of the parent has inherited it.
            if os.getppid() != setup.parent:
                return
        epoch, step, slot = connection.recv()
        size = setup.spec.size_at(epoch, step)
        truncated = maker.make(epoch, step, slot_arrays(ring.map, setup.spec, layout, size, slot * layout.stride))
        connection.send(("batch", truncated))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
