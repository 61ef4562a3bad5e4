"""One training process: ``python -m kubeyolo.training.worker SPEC.json``."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path

from kubeyolo.errors import KubeyoloError, WorkError
from kubeyolo.memory import is_lack_of_memory
from kubeyolo.output_streams import patient_streams, raw_stream, why_lost
from kubeyolo.processes import die_with_parent
from kubeyolo.runtime import configure_mindspore
from kubeyolo.stop_signals import install
from kubeyolo.storage.file_errors import machine_error, system_error
from kubeyolo.training.detector import train_detector
from kubeyolo.training.distribution import Distribution, distribution_from_environment, is_scheduler, join
from kubeyolo.training.loop import Interrupted, StopRequest
from kubeyolo.training.memory_advice import memory_remedy
from kubeyolo.training.pretrain import pretrain_backbone
from kubeyolo.training.spec import EXIT_INTERRUPTED, OUTCOME_FOLDER, TrainingSpec

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the process and return its exit code: 0 done, 1 failed, 2 bad input, 143 stopped at a checkpoint."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print("usage: python -m kubeyolo.training.worker SPEC.json", file=sys.stderr)
        return 2
    die_with_parent()
    distribution = distribution_from_environment()
    if is_scheduler():
        # The scheduler stays until the workers have ended: without it they fail in the step that they must finish.
        install(signal.SIG_IGN)
        configure_mindspore("CPU", 1)
        join(distribution)
        return 0
    stop = StopRequest()
    stop.install(listen=distribution.is_first)
    code, message = _run(Path(arguments[0]), distribution, stop)
    if not _leave_outcome(distribution, code, message) and message:
        print(message, flush=True)
    return code


def run_training(spec: TrainingSpec, distribution: Distribution, stop: StopRequest) -> None:
    """Do the task of a spec in this process."""

    def show(line: str) -> None:
        if distribution.is_first:
            print(line, flush=True)

    if spec.task == "backbone":
        pretrain_backbone(spec, stop, show)
    else:
        train_detector(spec, distribution, stop, show)


def _run(path: Path, distribution: Distribution, stop: StopRequest) -> tuple[int, str]:
    """Train, and return the exit code and a line with the reason if the training is not complete."""
    spec = None
    try:
        spec = TrainingSpec.read(path)
        run_training(spec, distribution, stop)
    except Interrupted as interrupted:
        return EXIT_INTERRUPTED, f"interrupted: {interrupted}; run the same command again to continue"
    except KubeyoloError as error:
        logger.debug("training failed", exc_info=True)
        if spec is not None and error.exit_code == WorkError.exit_code and is_lack_of_memory(str(error)):
            return error.exit_code, f"{error}; {memory_remedy(spec.config, spec.task)}"
        return error.exit_code, str(error)
    except Exception as error:  # noqa: BLE001 - the last resort: one line for the user, the stack for the log
        name, lacks_memory = type(error).__name__, is_lack_of_memory(f"{type(error).__name__}: {error}")
        system = system_error(error)
        known = machine_error(system) if system and not lacks_memory else None
        if known is not None:
            logger.debug("training failed", exc_info=True)
            return known.exit_code, str(known)
        traceback.print_exc()
        what = f"{name}: {_telling_line(str(error), lacks_memory)}".removesuffix(": ")
        if spec is not None and lacks_memory:
            return 1, f"out of memory ({what}); {memory_remedy(spec.config, spec.task)}"
        return 1, f"training failed: {what}"
    return 0, ""


def _telling_line(text: str, of_memory: bool) -> str:
    """Return the most informative line of an error: MindSpore's errors start with separators and headings."""
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    telling = [line for line in lines if of_memory and is_lack_of_memory(line)]
    return next(iter([*telling, *lines]), "")


def _leave_outcome(distribution: Distribution, code: int, message: str) -> bool:
    """Write the outcome for the launcher, if there is one: msrun does not pass exit codes on."""
    folder = os.environ.get(OUTCOME_FOLDER)
    if folder:
        raw = raw_stream(sys.stdout)
        lost = why_lost(raw.lost) if raw is not None and raw.lost is not None else ""
        document = {"rank": distribution.rank, "exit_code": code, "message": message, "lost": lost}
        path = Path(folder) / f"rank-{distribution.rank}.json"
        part = path.with_suffix(".part")
        try:
            part.write_text(json.dumps(document))
            part.rename(path)
        except OSError:
            return False  # The disk may be full even if the training itself is done.
    return bool(folder)


if __name__ == "__main__":
    with patient_streams():
        exit_code = main()
    sys.exit(exit_code)
