"""The evaluation pipeline: its parameters, and the numbers that it leaves in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeyolo.config.load import load_config, sparse_values
from kubeyolo.errors import InputError
from kubeyolo.runs.arguments import remote_place
from kubeyolo.runs.folder import COCO_KEYS
from kubeyolo.runs.naming import run_name
from kubeyolo.source import source_digest
from kubeyolo.storage.uri import join_uri, read_document, split_uri

PLACES = ("evaluate", "evaluate-baseline")
"""Folders of a run in the store: of the bundle, and of the baseline."""


def evaluation_arguments(
    bundle: str,
    data: str,
    store: str,
    baseline: str = "",
    runtime: str = "mindspore",
    config_file: Path | None = None,
    sets: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the parameters of the evaluation pipeline, after a look at what they name.

    Args:
        bundle: URI of the bundle, or of a pointer to it.
        data: URI of the COCO data set.
        store: URI of the store of the results.
        baseline: URI of the bundle it is compared with, or of a pointer to it; empty for none.
        runtime: What runs the networks.
        config_file: YAML file; its section ``evaluate`` counts.
        sets: ``key=value`` pairs over those of the file.

    Raises:
        InputError: Something of it is not there, or is wrong.
    """
    from kubeyolo.bundle import open_bundle
    from kubeyolo.data.digest import fingerprint
    from kubeyolo.evaluation.names import check_runtime
    from kubeyolo.pointers import pointed_bundle

    load_config(None, config_file, sets)
    bundle, baseline = pointed_bundle(bundle), pointed_bundle(baseline)
    places = {"--bundle": bundle, "--data": data, "--store": store, "--baseline": baseline}
    given = {option: remote_place(option, place) if place else "" for option, place in places.items()}
    for option in ("--bundle", "--baseline"):
        if given[option]:
            open_bundle(given[option])
    overrides = dict(sparse_values(config_file, sets).get("evaluate", {}))
    # The gate is here: a bundle that was trained with one of its own must not fail before it is compared.
    overrides["min_ap"] = 0.0
    arguments = {
        "bundle": given["--bundle"],
        "data": given["--data"],
        "store": given["--store"],
        "baseline": given["--baseline"],
        "runtime": check_runtime(runtime),
        "evaluate_overrides": overrides,
        "fingerprint": fingerprint(given["--data"]),
        "code_digest": source_digest(),
    }
    return {**arguments, "run_name": run_name(f"evaluation-{split_uri(bundle)[1]}"[:40], data, arguments)}


def evaluation_numbers(store: str, name: str, with_baseline: bool) -> dict[str, dict[str, float | None]]:
    """Return the COCO numbers that a run of the evaluation pipeline has left, by place.

    Raises:
        InputError: They are not there, or are no record.
    """
    from kubeyolo.events import RECORD_NAME, StepRecord

    numbers = {}
    for place in PLACES if with_baseline else PLACES[:1]:
        uri = join_uri(store, "runs", name, place, RECORD_NAME)
        try:
            record = StepRecord.model_validate_json(read_document(uri))
        except ValueError as error:
            raise InputError(f"{uri}: not the record of an evaluation") from error
        numbers[place] = {key: record.metrics.get(key) for key in COCO_KEYS}
    return numbers
