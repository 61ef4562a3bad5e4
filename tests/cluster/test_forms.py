"""Runs that are started as Kubeflow's pages start them: the texts of a form, sent by a plain request."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, read_bundle
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.kubeflow.remote import RemoteRun
from kubeyolo.storage.place import Place
from tests.cluster.site import CLUSTER, Posted, Site

TASKS = CompiledPipeline.named().tasks
SETTINGS = {
    "train": {"warmup_epochs": 0, "optimizer": "adamw", "lr": 0.002, "warmup_bias_lr": 0.0},
    "pretrain": {"enabled": False},
    "export": {"parity_images": 2},
    "quantize": {"max_drop": 100, "calibration_images": 4},
}
FORM = {"model": "yolov5n-r7", "image_size": "96", "per_batch_size": "8", "settings": json.dumps(SETTINGS)}
CACHED_SECONDS = 120
"""Longest time that a run takes all of whose work is known."""


def ended(posted: Posted) -> RemoteRun:
    """Return a run that has succeeded with every step of the pipeline."""
    run = posted.wait()
    assert run.state == "SUCCEEDED", run
    assert {step.name for step in run.steps} == set(TASKS)
    return run


def worked(run: RemoteRun) -> set[str]:
    """Return the steps of a run that were not taken from the cache."""
    return {step.name for step in run.steps if not step.is_cached}


def networks(posted: Posted) -> dict[str, str]:
    """Return the checksums of the networks that a run has published."""
    files = read_bundle(Place.of(posted.bundle)).manifest.files
    return {name: files[name].sha256 for name in (WEIGHTS, ONNX, ONNX_INT8)}


def error_line(posted: Posted) -> str:
    """Return what a run says that has failed in its first step, which is one line."""
    run = posted.wait(300)
    assert run.state == "FAILED"
    assert [step.name for step in run.steps if step.state == "FAILED"] == ["configure"]
    assert not [step.name for step in run.steps if step.name != "configure" and step.state != "SKIPPED"]
    (line,) = (line for line in posted.log("configure").splitlines() if line.startswith("error: "))
    assert "Traceback" not in line
    return line


def test_forms_that_differ_publish_their_own_networks_and_an_equal_one_is_cached(site: Site, data: str) -> None:
    store = site.new_store()
    runs = []
    for epochs in (1, 2):
        posted = site.post(store, data=data, **FORM, max_epoch=f"{epochs}")
        ended(posted)
        manifest = read_bundle(Place.of(posted.bundle)).manifest
        assert (manifest.config["train"]["max_epoch"], manifest.config["train"]["image_size"]) == (epochs, 96)
        runs.append(posted)
    first, second = runs
    assert first.note["name"] != second.note["name"] and first.bundle != second.bundle
    assert all(networks(first)[name] != networks(second)[name] for name in (WEIGHTS, ONNX, ONNX_INT8))

    before, networks_before = first.index, networks(first)
    start = time.monotonic()
    third = site.post(store, data=data, **FORM, max_epoch="1")
    run = ended(third)
    assert time.monotonic() - start < CACHED_SECONDS
    assert worked(run) == {"configure"}
    assert (third.note["name"], third.note["index"]) == (first.note["name"], first.note["index"])
    assert third.index == before and networks(third) == networks_before


def test_a_form_may_ask_for_pods_and_another_setting_of_a_later_step_trains_nothing_again(
    site: Site, data: str
) -> None:
    store = site.new_store()
    settings = SETTINGS | {"train": SETTINGS["train"] | {"processes": 2}}
    form = FORM | {"max_epoch": "1", "launcher": "volcano", "cluster": json.dumps(CLUSTER)}
    first = site.post(store, data=data, **form | {"settings": json.dumps(settings)})
    ended(first)
    assert "submitted job" in first.log("train")
    site.nothing_left(f"{first.run.workflow}-train")
    gated = settings | {"quantize": {"max_drop": 50, "calibration_images": 8}}
    second = site.post(store, data=data, **form | {"settings": json.dumps(gated)})
    assert worked(ended(second)) == {"configure", "quantize", "publish"}
    assert networks(second)[WEIGHTS] == networks(first)[WEIGHTS]
    assert networks(second)[ONNX] == networks(first)[ONNX]


def test_changed_data_at_the_same_uri_trains_anew(site: Site, tmp_path: Path) -> None:
    store, uri = site.new_store(), (Place.of(site.place) / "changing" / "shapes").uri
    posted = []
    for seed in (0, 1):
        folder = generate_sample_dataset(tmp_path / f"{seed}" / "shapes", train=24, val=8, seed=seed)
        Place.of(uri).store.delete_tree("")
        Place.of(uri).store.put_tree(folder, "")
        posted.append(site.post(store, data=uri, **FORM, max_epoch="1"))
        # A backbone is not trained here: that there is none may be known.
        assert worked(ended(posted[-1])) | {"pretrain_backbone"} == set(TASKS)
    first, second = posted
    assert first.note["name"] != second.note["name"]
    assert networks(first)[WEIGHTS] != networks(second)[WEIGHTS]
    datasets = [read_bundle(Place.of(each.bundle)).manifest.dataset for each in posted]
    assert datasets[0] and datasets[1] and datasets[0].digest != datasets[1].digest


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"settings": "{train: {warmup_epoch: 1}}"}, "did you mean 'train.warmup_epochs'"),
        ({"settings": "{trian: {seed: 1}}"}, "trian"),
        ({"max_epoch": "many"}, "train.max_epoch = 'many'"),
        ({"max_epoch": "2", "settings": "{train: {max_epoch: 3}}"}, "train.max_epoch is given twice"),
        ({"model": "yolov5nn-r7"}, "did you mean 'yolov5n-r7'"),
        ({"launcher": "vulcano"}, "did you mean 'volcano'"),
        ({"launcher": "volcano", "cluster": '{"que": "x"}'}, "did you mean 'queue'"),
        ({"data": "/home/me/data"}, "pods cannot read folders of this machine"),
    ],
)
def test_a_form_that_cannot_be_used_fails_in_configure(site: Site, data: str, form: dict[str, str], words: str) -> None:
    posted = site.post(site.new_store(), **{"data": data, **form})
    assert words in error_line(posted)


def test_missing_data_fails_in_configure(site: Site) -> None:
    uri = (Place.of(site.place) / "is-not-here").uri
    line = error_line(site.post(site.new_store(), data=uri))
    assert uri in line and "there are no files" in line
