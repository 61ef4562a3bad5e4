"""Parts of several commands on bundles: their data, keys without effect, and the printed metrics."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kubeyolo.catalogue import STEPS
from kubeyolo.cli.late_import import import_late
from kubeyolo.cli.options import sets_of
from kubeyolo.cli.tables import print_record
from kubeyolo.config.idle_settings import COMMAND_STEPS, idle_in_command
from kubeyolo.config.load import flatten, parse_sets, sparse_values
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle
    from kubeyolo.data.dataset import Dataset
    from kubeyolo.steps import facade
    from kubeyolo.steps.call import StepCall
    from kubeyolo.steps.outcome import StoredOutcome
else:
    # Help does not need the steps.
    facade = import_late("kubeyolo.steps.facade")


def given_keys(file: Path | None, sets: list[str] | None) -> tuple[str, ...]:
    """Return the keys that a command line gives: those that are typed, and those of a file."""
    in_file = flatten(sparse_values(file), str(file)) if file is not None else {}
    return tuple(dict.fromkeys((*parse_sets(sets_of(sets)), *in_file)))


def refuse_idle_keys(
    command: str, config: Config, file: Path | None, sets: list[str] | None, runtime: str = ""
) -> None:
    """Refuse typed keys that have no effect in a command on a bundle.

    A file may be shared by several commands: for its keys in the sections that this command reads there is only a note.

    Raises:
        InputError: A typed key has no effect.
    """
    typed = given_keys(None, sets)
    if idle := idle_in_command(command, config, typed, runtime):
        raise InputError(f"{'; '.join(idle)}; leave it out")
    reads = STEPS[COMMAND_STEPS[command]].reads
    shown = [key for key in given_keys(file, None) if key.partition(".")[0] in reads and key not in typed]
    for line in idle_in_command(command, config, shown, runtime):
        print(f"note: {line}", file=sys.stderr)


def refuse_idle_arguments(second: str, options: list[str], sets: tuple[str, ...]) -> None:
    """Refuse arguments and settings that decide how a network detects, where detections are given.

    Args:
        second: The second argument of the command, which is the data set if a bundle is given.
        options: The options that do not go with ``--detections``.
        sets: Pairs of ``--set``.

    Raises:
        InputError: The command line has such an argument or setting.
    """
    if second:
        raise InputError(
            f"{second}: --detections takes a single argument, the data set, and no bundle; "
            "run kubeyolo evaluate --detections FILE DATA"
        )
    used = {f"evaluate.{name}" for name in ("split", "classes", "engine", "dets_per_class", "min_ap", "judge")}
    idle = [*options, *(key for key in parse_sets(sets) if key not in used and not key.startswith("data."))]
    if idle:
        raise InputError(
            f"{', '.join(idle)}: no effect with --detections, whose boxes are evaluated as they are; leave it out"
        )


def given_data(call: StepCall, text: str, as_json: bool, bundle: Bundle | None = None) -> Dataset:
    """Return the data set of an argument; if the data are validated first, print where they are stored."""
    stream = sys.stderr if as_json else sys.stdout
    return facade.given_dataset(call, text, bundle, lambda line: print(line, flush=True, file=stream))


def print_evaluation(stored: StoredOutcome, as_json: bool) -> None:
    """Print the metrics as pycocotools does, and the record; without AP only the record."""
    from kubeyolo.evaluation.results import EvaluationResult
    from kubeyolo.steps.evaluate import RESULT_NAME, TEST_DEV

    if not as_json and "AP" in stored.record.metrics:
        print(EvaluationResult.from_json(stored.document(RESULT_NAME)).words())
    print_record(stored.record, as_json)
    archive = next((uri for name, uri in stored.record.outputs.items() if name.startswith(TEST_DEV)), "")
    if archive and not as_json:
        print(f"upload {stored.place.at(archive).uri} to COCO's server")
