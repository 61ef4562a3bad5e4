"""The speed and the memory of the networks of a bundle on this machine.

Each network runs in a process of its own, so that its memory is its own and its threads are limited. Networks with the
same batch size and threads take turns: on a shared machine a slow moment then slows all of them, and ratios stay true.
``python -m kubeyolo.evaluation.speed`` is such a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby, product
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np

from kubeyolo.bundle import Bundle, open_bundle
from kubeyolo.errors import InputError, KubeyoloError, WorkError, one_line
from kubeyolo.evaluation.network_files import check_network
from kubeyolo.evaluation.predictor import load_predictor
from kubeyolo.evaluation.results import RuntimeName, check_runtime
from kubeyolo.processes import INSTALLED_CODE, UTF8_OUTPUT, ending, guarded
from kubeyolo.resources import text_of, usable_processors
from kubeyolo.storage.place import Place

PERCENTILES = (50, 90, 95, 99)
WARM_UP = 3
"""Runs before the first measured run: the first run of MindSpore compiles the network."""

_LONGEST_LINE = 300


@dataclass(frozen=True)
class SpeedCase:
    """A network to measure: its runtime, the images of a batch, and the processor cores that it may use."""

    runtime: RuntimeName
    batch: int
    threads: int


@dataclass(frozen=True)
class Speed:
    """The measured speed and memory of a network.

    Attributes:
        runtime: Runtime of the network.
        batch: Images of a batch.
        threads: Processor cores that the process could use.
        image_size: Height and width of the images.
        latency_ms: Percentiles of the time of a batch in milliseconds, by name: p50, p90, p95, p99.
        images_per_second: Median of the rounds.
        memory: Largest resident memory of the process in bytes; 0 if unknown.
        load_seconds: Seconds to load the network, and to compile it.
        runs: Measured batches.
    """

    runtime: str
    batch: int
    threads: int
    image_size: tuple[int, int]
    latency_ms: Mapping[str, float]
    images_per_second: float
    memory: int
    load_seconds: float
    runs: int


def speed_cases(
    bundle: Bundle, runtimes: Sequence[str], batches: Sequence[int], threads: Sequence[int]
) -> list[SpeedCase]:
    """Return a case for each runtime, batch size and number of threads, those that take turns next to each other.

    Raises:
        InputError: A runtime is unknown or has no file in the bundle, a batch size is not positive, or there are fewer
            cores than threads.
    """
    names = [check_runtime(name) for name in dict.fromkeys(runtimes)]
    for name in names:
        check_network(bundle, name)
    for batch in batches:
        if batch < 1:
            raise InputError(f"--batch {batch}: expected a positive number of images")
    cores = usable_processors()
    for count in threads:
        if not 1 <= count <= cores:
            raise InputError(f"--threads {count}: expected 1 to {cores}, the cores that this process may use")
    combined = product(dict.fromkeys(batches), dict.fromkeys(threads), names)
    return [SpeedCase(name, batch, count) for batch, count, name in combined]


def measure_speed(
    bundle: Bundle, cases: Sequence[SpeedCase], seconds: float, rounds: int, advance: Callable[[], None]
) -> tuple[list[Speed], list[str]]:
    """Measure the cases.

    Args:
        bundle: The bundle.
        cases: What to measure, in the order of :func:`speed_cases`.
        seconds: Seconds of a round of a case.
        rounds: Rounds of each case.
        advance: Called after each round of a case.

    Returns:
        The results in the order of the cases, and a note for each case that could not be measured because the file of
        the network has a fixed batch size.

    Raises:
        InputError: A network cannot be loaded.
        WorkError: A process ended unexpectedly.
    """
    speeds: dict[SpeedCase, Speed] = {}
    notes: list[str] = []
    # Cases that take turns are next to each other.
    for _, group in groupby(cases, key=attrgetter("batch", "threads")):
        with ExitStack() as stack:
            workers = {case: _Worker(bundle, case, stack) for case in group}
            for case, worker in workers.items():
                if worker.batch != case.batch:
                    notes.append(
                        f"{case.runtime}: its file has the batch size {worker.batch}, so batches of {case.batch} were "
                        "not measured"
                    )
            measured = {case: worker for case, worker in workers.items() if worker.batch == case.batch}
            for _ in range(rounds):
                for case, worker in workers.items():
                    if case in measured:
                        worker.run(seconds)
                    advance()
            speeds |= {case: worker.speed() for case, worker in measured.items()}
    return [speeds[case] for case in cases if case in speeds], list(dict.fromkeys(notes))


class _Worker:
    """A process with a loaded network.

    Args:
        bundle: The bundle.
        case: The network.
        stack: Ends the process.

    Raises:
        InputError: The network cannot be loaded.
        WorkError: The process ended.
    """

    def __init__(self, bundle: Bundle, case: SpeedCase, stack: ExitStack) -> None:
        self._case, self._memory = case, 0
        self._times: list[float] = []
        self._rates: list[float] = []
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
        self._errors: IO[bytes] = stack.enter_context(errors)
        environment = os.environ | UTF8_OUTPUT | INSTALLED_CODE | {"OMP_NUM_THREADS": str(case.threads)}
        self._process = stack.enter_context(
            subprocess.Popen(
                guarded([sys.executable, "-m", "kubeyolo.evaluation.speed"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                text=True,
            )
        )
        stack.callback(self._process.kill)
        loaded = self._ask({"bundle": bundle.reference, **asdict(case)})
        self.batch: int = loaded["batch"]
        self._size: tuple[int, int] = tuple(loaded["image_size"])
        self._seconds: float = loaded["seconds"]

    def run(self, seconds: float) -> None:
        """Measure a round."""
        answer = self._ask({"seconds": seconds})
        times: list[float] = answer["times"]
        self._times += times
        self._rates.append(self.batch * len(times) / sum(times))
        self._memory = answer["memory"]

    def speed(self) -> Speed:
        """Return the result of all rounds."""
        latencies = np.percentile(np.array(self._times) * 1000, PERCENTILES).tolist()
        return Speed(
            runtime=self._case.runtime,
            batch=self.batch,
            threads=self._case.threads,
            image_size=self._size,
            latency_ms={f"p{each}": round(value, 3) for each, value in zip(PERCENTILES, latencies, strict=True)},
            images_per_second=round(median(self._rates), 3),
            memory=self._memory,
            load_seconds=round(self._seconds, 3),
            runs=len(self._times),
        )

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        line = ""
        try:
            print(json.dumps(question), file=stdin, flush=True)
            line = stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            why = f": {last[0][:_LONGEST_LINE]}" if last else ""
            raise WorkError(f"the process that runs {self._case.runtime} ended ({ending(code)}){why}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InputError(answer["error"])
        return answer


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer the questions of :class:`_Worker`: the first one loads the network, each other one measures a round."""
    task = json.loads(questions.readline())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["threads"]])
    started = time.perf_counter()
    try:
        bundle = open_bundle(Place.of(task["bundle"]))
        predictor = load_predictor(bundle, task["runtime"], task["batch"])
        shape = (predictor.batch_size, 3, *predictor.image_size)
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        predictor.outputs(images)
    except KubeyoloError as error:
        print(json.dumps({"error": one_line(error)}), file=answers, flush=True)
        return
    except MemoryError:
        text = f"--batch {task['batch']}: images of this batch do not fit into memory; give a smaller batch"
        print(json.dumps({"error": text}), file=answers, flush=True)
        return
    loaded = {"batch": predictor.batch_size, "image_size": list(predictor.image_size)}
    print(json.dumps(loaded | {"seconds": time.perf_counter() - started}), file=answers, flush=True)
    for _ in range(WARM_UP - 1):
        predictor.outputs(images)
    for line in questions:
        times: list[float] = []
        end = time.perf_counter() + json.loads(line)["seconds"]
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            predictor.outputs(images)
            times.append(time.perf_counter() - begin)
        print(json.dumps({"times": times, "memory": _largest_memory()}), file=answers, flush=True)


def _largest_memory() -> int:
    """Return the largest resident memory of this process so far in bytes; 0 if unknown."""
    lines = text_of(Path("/proc/self/status")).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def main() -> None:
    """Run as a process of :func:`measure_speed`; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
