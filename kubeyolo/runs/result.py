"""What a run on the cluster has made, read from the store: the numbers of its networks, and its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kubeyolo.bundle import MANIFEST_NAME, read_manifest
from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.events import RECORD_NAME, StepRecord
from kubeyolo.pointers import latest_model, pointed_bundle
from kubeyolo.runs.arguments import parameters_of
from kubeyolo.runs.bind import DETECTOR_RETRAINING, DETECTOR_TRAINING, pipeline_text
from kubeyolo.runs.folder import RunState, StepState
from kubeyolo.runs.remote import RemoteRun
from kubeyolo.storage.uri import join_uri, open_store, read_document

_MEASURED = ("evaluate", "export_model", "quantize")
_BUNDLE = f"bundle/{MANIFEST_NAME}"


@dataclass(frozen=True)
class RemoteResult:
    """What a run has made.

    Attributes:
        bundle: URI of the published bundle.
        in_use: Of a retraining: URI of the bundle that is in use now.
        numbers: COCO numbers by network, where the run has measured them under its own name.
        note: What else is to be said.
    """

    bundle: str = ""
    in_use: str = ""
    numbers: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    note: str = ""


def remote_result(run: RemoteRun) -> RemoteResult | None:
    """Return what a run has made, or None when it has not succeeded, or its pipeline publishes nothing."""
    if run.state != "SUCCEEDED":
        return None
    ended = {step.name for step in run.steps if step.state == "SUCCEEDED"}
    try:
        if "publish" in ended:
            return _trained(_arguments(run, DETECTOR_TRAINING), run.ended)
        if "read_pointer" in ended:
            return _retrained(_arguments(run, DETECTOR_RETRAINING), "promote" in ended)
    # A record that is none is a ValueError.
    except (KubeyoloError, ValueError) as error:
        return RemoteResult(note=f"what it has made cannot be read from here: {one_line(error, 300)}")
    return None


def _arguments(run: RemoteRun, pipeline: str) -> dict[str, str]:
    """Return the values of the parameters of a run, those that it was not given too."""
    known = parameters_of(pipeline_text(pipeline))
    return {name: str(run.arguments.get(name, facts.get("defaultValue", ""))) for name, facts in known.items()}


def _trained(arguments: Mapping[str, str], ended: datetime | None) -> RemoteResult:
    store, name, model = (arguments[key] for key in ("store", "run_name", "model"))
    folder = join_uri(store, "runs", name)
    # All of them are looked at: of a later run that is under way, some have been replaced, and others not yet.
    written = [
        one.modified
        for step in _MEASURED
        for one in open_store(join_uri(folder, step)).list()
        if one.key in (RECORD_NAME, _BUNDLE)
    ]
    if ended and any(moment and moment > ended for moment in written):
        return RemoteResult(note=f"a later run has written its results in place of these: {folder}")
    state = RunState(name, model, arguments["data"])
    for step in _MEASURED:
        document = read_document(join_uri(folder, step, RECORD_NAME))
        state.steps[step] = StepState("succeeded", StepRecord.model_validate_json(document))
    # A version that is not given is made of the content: the last bundle has the networks of the published one.
    uri = join_uri(folder, "quantize", _BUNDLE)
    version = arguments["version"] or read_manifest(read_document(uri), uri).content_version
    return RemoteResult(bundle=join_uri(store, "models", model, version), numbers=state.numbers())


def _retrained(arguments: Mapping[str, str], has_promoted: bool) -> RemoteResult:
    pointer = arguments["latest"] or latest_model(arguments["store"], arguments["model"])
    note = "a new model was put in use" if has_promoted else "unchanged: the data is that of the model in use"
    return RemoteResult(in_use=pointed_bundle(pointer), note=note)
