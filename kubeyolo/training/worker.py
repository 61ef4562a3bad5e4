"""One training process: ``python -m kubeyolo.training.worker SPEC.json``."""

from __future__ import annotations

import sys

from kubeyolo.errors import InterruptedWork
from kubeyolo.output_streams import patient_streams
from kubeyolo.training.detector import train_detector
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.loop import Interrupted, StopRequest
from kubeyolo.training.pretrain import pretrain_backbone
from kubeyolo.training.process import run_process
from kubeyolo.training.spec import TrainingSpec


def main(arguments: list[str] | None = None) -> int:
    """Run the process and return its exit code; see :func:`kubeyolo.training.process.run_process`."""
    return run_process(sys.argv[1:] if arguments is None else arguments, "training", TrainingSpec, _train)


def run_training(spec: TrainingSpec, distribution: Distribution, stop: StopRequest) -> None:
    """Do the task of a spec in this process."""

    def show(line: str) -> None:
        if distribution.is_first:
            print(line, flush=True)

    if spec.task == "backbone":
        pretrain_backbone(spec, distribution, stop, show)
    else:
        train_detector(spec, distribution, stop, show)


def _train(spec: TrainingSpec, distribution: Distribution) -> None:
    stop = StopRequest()
    stop.install(listen=distribution.is_first)
    try:
        run_training(spec, distribution, stop)
    except Interrupted as interrupted:
        raise InterruptedWork(f"interrupted: {interrupted}; run the same command again to continue") from interrupted


if __name__ == "__main__":
    with patient_streams():
        exit_code = main()
    sys.exit(exit_code)
