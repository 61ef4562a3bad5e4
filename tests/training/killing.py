"""Training processes that are killed with SIGKILL at a chosen moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from kubeyolo.bundle import open_bundle
from kubeyolo.errors import WorkError
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec

Condition = Callable[[Path, list[str]], bool]


def launch_until(spec: TrainingSpec, condition: Condition | None = None) -> list[str]:
    """Train, and kill the process as soon as the condition holds; return what it printed.

    The process is stopped before it is killed, and killed only if the condition still holds then: so it is certain
    in which state the files were left.
    """
    lines: list[str] = []
    over = threading.Event()
    errors: list[BaseException] = []
    main = threading.get_native_id()

    def watch() -> None:
        try:
            while condition is not None and not over.is_set():
                if condition(Path(spec.output) / "checkpoints", lines) and _kill_if(condition, spec, lines, main):
                    return
                time.sleep(0.001)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        launch_work(spec.work(), lines.append)
        assert condition is None, f"training ended before it was killed {errors}"
    except WorkError as error:
        assert "SIGKILL" in str(error)
    finally:
        over.set()
        thread.join()
    assert not errors, errors
    return lines


def _kill_if(condition: Condition, spec: TrainingSpec, lines: list[str], parent: int) -> bool:
    for child in Path(f"/proc/{os.getpid()}/task/{parent}/children").read_text().split():
        if b"kubeyolo.training.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGSTOP)
            while Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] not in "TZ":
                time.sleep(0.001)
            still = condition(Path(spec.output) / "checkpoints", lines)
            os.kill(int(child), signal.SIGKILL if still else signal.SIGCONT)
            return still
    return False


def has_checkpoint(step: int) -> Condition:
    """Whether the checkpoint of a step is complete."""
    return lambda folder, lines: (folder / f"step-{step:08d}" / "checkpoint.json").exists()


def half_written(folder: Path) -> list[int]:
    """Return the steps of the checkpoints that have files but no manifest."""
    return [
        int(path.name.removeprefix("step-"))
        for path in sorted(folder.glob("step-*"))
        if any(path.iterdir()) and not (path / "checkpoint.json").exists()
    ]


def writes_checkpoint(after: int) -> Condition:
    """Whether a checkpoint of a step past ``after`` is being written."""
    return lambda folder, lines: any(step > after for step in half_written(folder))


def printed(text: str) -> Condition:
    """Whether a line with this text was printed."""
    return lambda folder, lines: any(text in line for line in lines)


def weights_of(output: Path) -> bytes:
    """Return the file of the published weights."""
    return open_bundle(Place.of(output / "bundle")).path("weights.safetensors").read_bytes()


def history_of(output: Path) -> list[dict[str, object]]:
    """Return the history without what depends on the clock."""
    rows = [orjson.loads(line) for line in (output / "history.jsonl").read_bytes().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]
