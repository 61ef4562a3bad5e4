"""One process of a step that runs in a job: ``python -m kubeyolo.steps.worker DOCUMENT.json``."""

from __future__ import annotations

import signal
import sys

from kubeyolo.errors import InterruptedWork
from kubeyolo.evaluation.sharing import Share
from kubeyolo.output_streams import patient_streams
from kubeyolo.runtime import configure_mindspore
from kubeyolo.steps import detection, facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.job import StepSpec
from kubeyolo.stop_signals import RaisingHandler, install
from kubeyolo.storage.place import Place
from kubeyolo.training.distribution import Distribution, join, threads_for
from kubeyolo.training.process import run_process


def main(arguments: list[str] | None = None) -> int:
    """Run the process and return its exit code; see :func:`kubeyolo.training.process.run_process`."""
    return run_process(sys.argv[1:] if arguments is None else arguments, "the step", StepSpec, _run)


def run_step(spec: StepSpec, distribution: Distribution) -> None:
    """Do the part of one process in a step; every other process waits until process 0 has stored the result."""
    store = Place.of(spec.store)
    output = store.at(spec.output)
    call = StepCall(store=store, config=spec.config, code=spec.code, output=output)
    bundle, dataset = call.bundle(spec.bundle), call.dataset(spec.dataset)
    if spec.step == "export_model":
        facade.export_model(call, bundle, dataset)
        return
    share = Share(distribution.rank, distribution.world, output, spec.digest)
    if distribution.is_first:
        facade.evaluate(call, bundle, dataset, spec.runtime, share=share)
    else:
        detection.detect_share(bundle, dataset, spec.config, spec.runtime, share)
    distribution.synchronize(0)


def _run(spec: StepSpec, distribution: Distribution) -> None:
    # Rank 0 decides: the launcher ends the other processes once it has stopped.
    install(RaisingHandler(_interrupted) if distribution.is_first else signal.SIG_IGN)
    if distribution.world > 1:
        configure_mindspore(spec.config.evaluate.device_target, threads_for(distribution.world))
        join(distribution)
    run_step(spec, distribution)


def _interrupted(number: int) -> InterruptedWork:
    return InterruptedWork("interrupted: stopped by a signal; run the same command again")


if __name__ == "__main__":
    with patient_streams():
        exit_code = main()
    sys.exit(exit_code)
