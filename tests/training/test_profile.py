"""Where the time of a training goes: the parts of the loop, and the operators that MindSpore's profiler measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeyolo.report.training import training_report
from kubeyolo.storage.place import Place
from kubeyolo.training import profile
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.loop import Hooks, Interrupted, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Moment, Output
from kubeyolo.training.profile import (
    COMPILING,
    STEPS,
    VALIDATIONS,
    WAITING,
    ProfileSummary,
    Profiling,
    TimeShares,
    operators_of,
    read_summary,
)
from tests.training.test_loop import CountingEngine, Numbered

SETTINGS = LoopSettings(total_steps=10, images_per_step=4, log_interval=4, need_profiler=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that is measured, in a list of one element."""
    now = [100.0]
    monkeypatch.setattr(profile.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def no_profiler(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Replace MindSpore's profiler; the list has the first and the last profiled step."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(Profiling, "_start", lambda self: None)
    monkeypatch.setattr(Profiling, "_stop", lambda self, first, last: calls.append((first, last)))
    return calls


def test_times_are_counted_for_the_part_that_takes_them_and_add_up_over_sessions(
    tmp_path: Path, no_profiler: list[tuple[int, int]], clock: list[float]
) -> None:
    place, stop = Place.of(tmp_path), StopRequest()

    class SlowEngine(CountingEngine):
        def train(self, images: Any, labels: Any) -> Any:
            self.compilations.seconds = 0.0 if self.seen else 3.0
            clock[0] += self.compilations.seconds or 0.25
            stop.requested = self.step == 5 and len(self.seen) == 5
            return super().train(images, labels)

    class SlowBatches(Numbered):
        def epoch(self, epoch: int, start_step: int = 0) -> Any:
            for batch in super().epoch(epoch, start_step):
                clock[0] += 0.5
                yield batch

    def validate(epoch: int, step: int) -> HistoryRow:
        clock[0] += 2.0
        return HistoryRow(kind="val", step=step, epoch=epoch, ap=0.5)

    def train(lines: list[str]) -> dict[str, float]:
        hooks = Hooks(stop=stop, show=lines.append, after_epoch=validate)
        loop = TrainingLoop(SlowEngine(), SlowBatches(), SETTINGS, Output(place, {}), hooks)
        try:
            loop.run(newest_checkpoint(place.store, print))
        finally:
            summary = read_summary(place.store)
        assert summary is not None
        return {part: seconds for part, seconds in summary.seconds.items() if seconds}

    with pytest.raises(Interrupted):
        train([])
    first = read_summary(place.store)
    assert first is not None and first.seconds[STEPS] == 5 * 0.25
    stop.requested = False
    lines: list[str] = []
    # Six steps in the first session, four in the second; each has a first step.
    assert train(lines) == {COMPILING: 6.0, STEPS: 8 * 0.25, WAITING: 10 * 0.5, VALIDATIONS: 2 * 2.0}
    assert lines[lines.index("time of this training:") :] == [
        "time of this training:",
        "  compiling and first step    35.3 %  6.0 s",
        "  waiting for batches         29.4 %  5.0 s",
        "  validations                 23.5 %  4.0 s",
        "  training steps              11.8 %  2.0 s",
    ]


def test_the_profiled_steps_are_after_the_first_and_in_one_epoch(no_profiler: list[tuple[int, int]]) -> None:
    def steps_of(steps_per_epoch: int, total: int = 40, start: int = 0) -> tuple[list[int], list[tuple[int, int]]]:
        no_profiler.clear()
        part = Profiling(Place.of("/nowhere").store, TimeShares(), True, print)
        waits = []
        for step in range(start + 1, total + 1):
            ends = step % steps_per_epoch == 0 or step == total
            moment = Moment(step, 0, ends, step == total)
            part.after_step(moment)
            waits += [step] if part.ends_after(moment) else []
        return waits, list(no_profiler)

    assert steps_of(100) == ([7], [(3, 7)])
    assert steps_of(4) == ([4], [(3, 4)])
    assert steps_of(100, start=10) == ([17], [(13, 17)])
    assert steps_of(2) == ([4], [(4, 4)])
    assert steps_of(1) == ([], []) and steps_of(100, total=2) == ([], [])


def test_all_processes_wait_for_the_analysis(tmp_path: Path, no_profiler: list[tuple[int, int]]) -> None:
    waited: dict[bool, list[int]] = {True: [], False: []}
    for is_first, steps in waited.items():

        def synchronize(step: int, is_last: bool, steps: list[int] = steps) -> bool:
            steps.append(step)
            return is_last

        engine = CountingEngine()
        engine.common = dict  # type: ignore[attr-defined]
        output = Output(Place.of(tmp_path), {}, is_written=is_first)
        hooks = Hooks(show=lambda line: None, synchronize=synchronize)
        TrainingLoop(engine, Wide(), SETTINGS, output, hooks).run()
    assert waited[True] == waited[False] == [7, 8, 10]


class Wide(Numbered):
    steps_per_epoch = 8


def test_a_profiler_that_fails_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Profiling) -> None:
        raise RuntimeError("no device\nwith this name")

    monkeypatch.setattr(Profiling, "_start", fail)
    lines: list[str] = []
    engine = CountingEngine()
    TrainingLoop(engine, Numbered(), SETTINGS, Output(Place.of(tmp_path), {}), Hooks(show=lines.append)).run()
    assert engine.step == 10
    assert [line for line in lines if "profiler" in line and line.startswith("warning")] == [
        "warning: MindSpore's profiler failed, the training continues: no device with this name"
    ]


def test_operators_are_read_from_the_files_for_processors_and_for_ascend(tmp_path: Path) -> None:
    assert operators_of(tmp_path) == ()
    ascend = tmp_path / "a" / "ASCEND_PROFILER_OUTPUT" / "op_statistic_1.csv"
    ascend.parent.mkdir(parents=True)
    ascend.write_text("Device_id,OP Type,Core Type,Count,Total Time(us)\n0,Conv2D,AI_CORE,20,1500.5\n")
    (found,) = operators_of(tmp_path)
    assert (found.kind, found.count, found.seconds) == ("Conv2D", 20, pytest.approx(0.0015005))
    cpu = tmp_path / "a" / "FRAMEWORK" / "cpu_op_type_info_0.csv"
    cpu.parent.mkdir(parents=True)
    cpu.write_text(
        "op_type,type_occurrences,execution_frequency(per-step),total_compute_time,avg_time(ms),percent\n"
        "ReluGrad,3,1,0.5,0.1,0.1\nConv2D,6,2,10.0,3.3,0.2\n"
    )
    assert [each.kind for each in operators_of(tmp_path)] == ["Conv2D", "ReluGrad"]
    summary = ProfileSummary(seconds={STEPS: 3.0, WAITING: 1.0}, steps=(3, 4), operators=operators_of(tmp_path))
    assert summary.lines() == [
        "time of this training:",
        "  training steps              75.0 %  3.0 s",
        "  waiting for batches         25.0 %  1.0 s",
        "operators of the steps 3 to 4, times of a step:",
        "  Conv2D                      95.2 %  5.00 ms, 3 x",
        "  ReluGrad                     4.8 %  0.25 ms, 1.5 x",
    ]
    html = training_report(TrainingHistory(), {}, {}, profile=summary)
    assert '<th scope="row">waiting for batches</th><td class="n">25.0 %</td><td class="n">1.0 s</td>' in html
    assert '<th scope="row">Conv2D</th><td class="n">95.2 %</td><td class="n">5.00 ms</td>' in html
    assert "Where the time goes" not in training_report(TrainingHistory(), {}, {})


def test_a_damaged_summary_counts_as_none(tmp_path: Path) -> None:
    store = Place.of(tmp_path).store
    assert read_summary(store) is None
    store.write_bytes(profile.SUMMARY, b"{")
    assert read_summary(store) is None
