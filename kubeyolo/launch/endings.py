"""Reports how worker processes ended, as an error of one line."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeyolo.documents import read_json
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError
from kubeyolo.memory import death_cause, is_lack_of_memory, killed_for_memory
from kubeyolo.output_streams import Show
from kubeyolo.processes import ending, is_killed
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import newest_step
from kubeyolo.work import EXIT_INTERRUPTED, Work


@dataclass(frozen=True)
class Ended:
    """How the processes of a launch ended.

    Attributes:
        lines: The last lines that they printed; None if they print directly to the console.
        code: Exit code of the process, or of the first of several processes that failed.
        stop_requested: Whether they received a stop signal.
        killed: Whether they were killed at a second signal.
        lost: Whether a different pod of the gang was lost.
    """

    lines: list[str] | None
    code: int
    stop_requested: bool
    killed: bool = False
    lost: bool = False


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """Return the outcomes that the ranks have written into the folder of a launch."""
    return [read_json(read_regular(path, DOCUMENT_SIZE), str(path)) for path in sorted(folder.glob("rank-*.json"))]


def raise_failure(folder: Path, ended: Ended, work: Work, memory_kills: int) -> None:
    """Raise the error of processes that have not finished their work.

    Args:
        folder: Folder of the launch.
        ended: How the processes ended.
        work: The work of the processes.
        memory_kills: Count of the killed processes before the launch.

    Raises:
        InputError: A process refused its input; the message is that of the process.
        InterruptedWork: The processes stopped after a stop signal.
        WorkError: A process failed; the error has the message of the process or, if there is none, the cause and the
            last lines that the process printed.
    """
    failed = [outcome for outcome in outcomes(folder) if outcome["exit_code"] != 0]
    if ended.code == 0 and not failed:
        return
    # A process that was killed because another failed has no message.
    kinds: dict[int, type[KubeyoloError]] = {
        InputError.exit_code: InputError,
        WorkError.exit_code: WorkError,
        EXIT_INTERRUPTED: InterruptedWork,
    }
    if ended.stop_requested:
        # Rank 0 has stopped at its checkpoint, and the others fail without it.
        kinds = {EXIT_INTERRUPTED: InterruptedWork, **kinds}
    for kind, error in kinds.items():
        for outcome in failed:
            if outcome["exit_code"] == kind:
                raise error(outcome["message"])
    if ended.lost:
        raise WorkError("a different pod of the gang has ended before this pod was done")
    if ended.killed:
        raise InterruptedWork(f"interrupted: ended at once; {_where_it_continues(work)}")
    # It received the signal before it could handle signals, or msrun ended it with a process that received the signal.
    stopped = ended.code >= 0 or ended.code in (-signal.SIGTERM, -signal.SIGKILL)
    if ended.stop_requested and stopped and not killed_for_memory(memory_kills):
        where = _where_it_continues(work)
        since = ", no checkpoint written since" if work.has_checkpoints else ""
        raise InterruptedWork(f"interrupted: stopped by a signal{since}; {where}")
    raise WorkError(_crash(ended, work, memory_kills))


def warn_of_lost_lines(folder: Path, show: Show) -> None:
    """Warn about processes that could not print all of their lines, and continued without printing."""
    for outcome in outcomes(folder):
        if outcome.get("lost"):
            show(f"warning: lines of process {outcome['rank']} could not be printed: {outcome['lost']}")


def _crash(ended: Ended, work: Work, memory_kills: int) -> str:
    tail = " | ".join(line for line in ended.lines or () if line.strip())
    killed, lacked = is_killed(ended.code), is_lack_of_memory(tail)
    lack = ", for lack of memory" if lacked and not killed else ""
    what = "a training process" if work.has_checkpoints else f"a process of the step {work.step}"
    parts = [f"{what} failed ({ending(ended.code)}{lack}{death_cause(ended.code, memory_kills)})"]
    parts += [work.memory_remedy] if killed or lacked else []
    parts += [f"it printed last: {tail or 'nothing'}"] if ended.lines is not None else []
    return "; ".join(parts)


def _where_it_continues(work: Work) -> str:
    if not work.has_checkpoints:
        return "run the same command again to start anew"
    try:
        step = newest_step(Place.of(work.output).impatient().store)
    except KubeyoloError:
        return "run the same command again to continue from the newest checkpoint"
    if step is None:
        return "there is no checkpoint yet, so the same command starts from step 0"
    return f"run the same command again to continue from the checkpoint of step {step}"
