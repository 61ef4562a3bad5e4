"""What a store no longer needs: found from pointers, bundles and trainings, listed by default, removed when asked."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.bundle import MANIFEST_NAME, Bundle, BundleManifest, DatasetReference, open_bundle
from kubeyolo.cli.app import main
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.index import run_output, write_note
from kubeyolo.pointers import FormerModel, ModelPointer, latest_model, write_model_pointer
from kubeyolo.publishing import derive_bundle, publish_bundle
from kubeyolo.retention.reach import Rules, Survey, survey
from kubeyolo.retention.removal import remove_unit, remove_unreached
from kubeyolo.steps.outcome import StepOutcome, store_outcome
from kubeyolo.storage.base import PART_SUFFIX, Store
from kubeyolo.storage.claim import claimed
from kubeyolo.storage.minio_store import MinioStore
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import TrainingState, write_checkpoint
from kubeyolo.training.result import RESULT_NAME, TrainingResult
from kubeyolo.whole import is_whole

MODEL = "yolov5n-r7"
NOW = Rules(grace=timedelta(0))
WEEK = Rules(grace=timedelta(days=7))


@pytest.fixture(params=["file", "minio"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    is_file = request.param == "file"
    uri = (tmp_path / "store").as_uri() if is_file else f"minio://{request.getfixturevalue('minio_bucket')}/store"
    # After the server has been found, which may lie in the cache folder.
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    return Place.of(uri)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    return Place.of(tmp_path / "store")


def name(room: str, digit: str) -> str:
    return f"{room}/{MODEL}-{digit * 12}"


def publish(place: Place, folder: Path, content: bytes, dataset: Dataset | None) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "weights.safetensors"
    path.write_bytes(content)
    trained_on = dataset and DatasetReference(name="shapes", digest=dataset.digest, uri=dataset.uri)
    manifest = BundleManifest(
        model=MODEL,
        classes=("cat", "dog"),
        image_size=(64, 64),
        strides=(8, 16, 32),
        anchors=(((1.0, 2.0),),) * 3,
        dataset=trained_on,
    )
    return publish_bundle(place, manifest, {path.name: path})


def finish(store: Place, key: str, bundle: Bundle, dataset: Dataset) -> None:
    result = TrainingResult(
        identity={"dataset": dataset.digest}, code_digest="c", steps=1, bundle=bundle.uri, seconds=1.0, resumed_at=[]
    )
    (store / key / RESULT_NAME).write(result.model_dump_json().encode())


def begin(store: Place, key: str, dataset: Dataset, step: int = 5) -> None:
    arrays = {"w": np.ones(3, np.float32)}
    state = TrainingState(step=step, identity={"dataset": dataset.digest}, weights=arrays, ema=arrays, moments=arrays)
    write_checkpoint((store / key).store, state)


def record(output: Place, step: str, outputs: dict[str, Any], conditions: dict[str, Any] | None = None) -> None:
    done = StepOutcome(step=step, seconds=1.0, outputs=outputs, html="<p>", conditions=conditions or {})
    store_outcome(done, output)


@dataclass
class Shop:
    """A store with a published model, its ancestors, and a training of which nothing was published."""

    store: Place
    data: list[Dataset]
    published: Bundle


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a store; its copies in other stores still name it."""
    folder = tmp_path_factory.mktemp("template")
    store = Place.of(folder / "store")
    pictures = [
        generate_sample_dataset(folder / f"set{seed}", seed=seed, train=2, val=1, image_size=(64, 64))
        for seed in range(3)
    ]
    data = [write_dataset(each, store) for each in pictures]
    trained = publish(store / name("trainings", "a") / "bundle", folder / "a", b"good", data[0])
    finish(store, name("trainings", "a"), trained, data[0])
    quantized = derive_bundle(trained, store / name("results/quantize", "a") / "bundle", {})
    published = derive_bundle(quantized, store / "models" / MODEL / "1.0.0", {})
    write_model_pointer(latest_model(store, MODEL), ModelPointer(bundle=published.uri))
    other = publish(store / name("trainings", "b") / "bundle", folder / "b", b"bad", data[1])
    finish(store, name("trainings", "b"), other, data[1])
    begin(store, name("trainings", "c"), data[2])
    for digit, bundle in (("d", published), ("e", other)):
        conditions = {"bundle": bundle.digest, "dataset": data[0].digest}
        record(store / name("results/evaluate", digit), "evaluate", {}, conditions)
    for run, bundle in (("good-run", published), ("bad-run", other)):
        record(run_output(store, run, "configure"), "configure", {"data": str(pictures[1])})
        run_output(store, run, "result.json").write(
            json.dumps({"step": "publish", "seconds": 1.0, "outputs": {"bundle": bundle.reference}}).encode()
        )
        write_note(store, f"id-of-{run}", {"name": run, "pipeline": "p", "index": "i"})
    return folder / "store"


def fill(store: Place, template: Path) -> Shop:
    store.store.put_tree(template, "")
    data = {
        json.loads((folder / "dataset.json").read_bytes())["name"]: folder.name
        for folder in (template / "datasets").iterdir()
    }
    opened = [open_dataset(store / "datasets" / data[f"set{seed}"]) for seed in range(3)]
    return Shop(store, opened, open_bundle(store / "models" / MODEL / "1.0.0"))


@pytest.fixture
def shop(place: Place, template: Path) -> Shop:
    return fill(place, template)


@pytest.fixture
def local(folder: Place, template: Path) -> Shop:
    return fill(folder, template)


UNNEEDED = {name("trainings", "b"), name("results/evaluate", "e"), "runs/bad-run"}


def keys(store: Place) -> set[str]:
    return {stored.key for stored in store.store.list()}


def key_of(dataset: Dataset) -> str:
    return f"datasets/{dataset.uri.rpartition('/')[2]}"


def test_what_pointers_versions_and_unfinished_trainings_need_stays(shop: Shop) -> None:
    found = survey(shop.store, NOW)
    assert set(found.unreached) == UNNEEDED | {key_of(shop.data[1])}
    assert found.kept == {
        name("trainings", "a"): "reached",
        name("results/quantize", "a"): "reached",
        key_of(shop.data[0]): "reached",
        name("trainings", "c"): "unfinished",
        key_of(shop.data[2]): "reached",
        name("results/evaluate", "d"): "about",
        "runs/good-run": "about",
    }
    assert found.published == 1 and len(found.pointers) == 1 and not found.remains and not found.unreadable


def test_removal_takes_what_is_listed_and_nothing_else(shop: Shop) -> None:
    before, found = keys(shop.store), survey(shop.store, NOW)
    removed, count, size = remove_unreached(shop.store, found, lambda line: pytest.fail(line))
    assert {unit.key for unit in removed} == set(found.unreached) and (count, size) == (0, 0)
    gone = {key for key in before if any(key.startswith(f"{unit}/") for unit in found.unreached)}
    assert keys(shop.store) == before - gone - {"runs/ids/id-of-bad-run.json"}
    assert open_bundle(Place.of(shop.published.uri)).digest == shop.published.digest
    assert open_dataset(Place.of(shop.data[0].uri)).digest == shop.data[0].digest
    again = survey(shop.store, NOW)
    assert not again.unreached and again.kept == found.kept


def test_what_changed_since_the_listing_stays(shop: Shop) -> None:
    found = survey(shop.store, NOW)
    (shop.store / name("results/evaluate", "e") / "analysis.json").write(b"{}")
    said: list[str] = []
    removed, _, _ = remove_unreached(shop.store, found, said.append)
    assert {unit.key for unit in removed} == set(found.unreached) - {name("results/evaluate", "e")}
    uri = shop.store.store.uri_of(name("results/evaluate", "e"))
    assert said == [f"{uri} stays: it changed since it was listed"]
    assert f"{name('results/evaluate', 'e')}/metrics.json" in keys(shop.store)


def test_a_training_in_progress_stays_with_everything_it_may_have_started_from(shop: Shop) -> None:
    key = name("trainings", "f")
    with claimed(shop.store / key):
        found = survey(shop.store, NOW)
        assert found.kept[key] == "running" and found.kept[key_of(shop.data[1])] == "starting"
        assert set(found.unreached) == UNNEEDED
    with claimed(shop.store / name("trainings", "b")):
        assert remove_unit(shop.store, found.unreached[name("trainings", "b")]) == "a process works in it"
        now = survey(shop.store, NOW)
        # It says what it was trained on.
        assert now.kept[name("trainings", "b")] == "running" and now.kept[key_of(shop.data[1])] == "reached"
    assert set(survey(shop.store, NOW).unreached) == UNNEEDED | {key_of(shop.data[1]), key}


@pytest.mark.parametrize("steps", [1, 3])
def test_an_interrupted_removal_leaves_nothing_half_visible(
    shop: Shop, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder disappears by one rename; in a bucket the deletions stop after some objects."""
    found = survey(shop.store, NOW)
    deleted: list[str] = []
    delete = MinioStore.delete

    def failing(store: Store, key: str) -> None:
        if len(deleted) >= steps:
            raise WorkError("the power is off")
        deleted.append(key)
        delete(store, key)

    monkeypatch.setattr(MinioStore, "delete", failing)
    is_bucket = shop.store.store.local_path() is None
    for unit in found.unreached.values():
        if is_bucket:
            with pytest.raises(WorkError, match="the power is off"):
                remove_unit(shop.store, unit)
        else:
            assert remove_unit(shop.store, unit) == ""
    monkeypatch.undo()
    for key in keys(shop.store):
        parent, _, last = key.rpartition("/")
        if last == MANIFEST_NAME:
            assert is_whole("bundle", shop.store.at(open_bundle(shop.store / parent).reference))
        elif last == "dataset.json":
            dataset = open_dataset(shop.store / parent)
            assert is_whole("dataset", dataset.place)
    # The rest is found again.
    remove_unreached(shop.store, survey(shop.store, NOW), lambda line: pytest.fail(line))
    assert not survey(shop.store, NOW).unreached


def test_a_pointer_keeps_its_former_models_and_one_outside_is_named(shop: Shop, tmp_path: Path) -> None:
    other = f"{shop.store.store.uri_of(name('trainings', 'b'))}/bundle"
    pointer = tmp_path / "site.json"
    history = (FormerModel(bundle=other),)
    pointer.write_text(ModelPointer(bundle=shop.published.uri, history=history).model_dump_json())
    found = survey(shop.store, Rules(grace=timedelta(0), pointers=(str(pointer),)))
    assert found.kept[name("trainings", "b")] == found.kept[key_of(shop.data[1])] == "reached"
    assert found.kept[name("results/evaluate", "e")] == found.kept["runs/bad-run"] == "about"
    assert not found.unreached
    with pytest.raises(InputError, match=r"absent\.json: there is no such pointer; correct the URI"):
        survey(shop.store, Rules(grace=timedelta(0), pointers=(str(tmp_path / "absent.json"),)))


def age(store: Place, *below: str, days: float = 30) -> None:
    """Let the files below some folders of a store have been written days ago."""
    root = store.store.local_path()
    assert root is not None
    then = time.time() - days * 86400
    for key in below:
        for path in [root / key, *(root / key).rglob("*")]:
            os.utime(path, (then, then))


def test_a_young_unit_stays_with_what_it_was_made_from(local: Shop) -> None:
    shop, folder = local, local.store
    assert not survey(folder, WEEK).unreached
    age(folder, "datasets", "trainings", "results", "runs")
    assert set(survey(folder, WEEK).unreached) == UNNEEDED | {key_of(shop.data[1])}
    # An evaluation of yesterday needs its bundle, and that its data set.
    age(folder, name("results/evaluate", "e"), days=1)
    young = survey(folder, WEEK)
    assert young.kept[name("results/evaluate", "e")] == "young"
    assert young.kept[name("trainings", "b")] == young.kept[key_of(shop.data[1])] == "reached"
    assert young.kept["runs/bad-run"] == "about"
    # A run of yesterday may take its data set from a cache: the data set of the same source stays.
    age(folder, name("results/evaluate", "e"))
    age(folder, "runs/bad-run", days=1)
    assert survey(folder, WEEK).kept[key_of(shop.data[1])] == "reached"


def test_unfinished_trainings_go_when_they_are_as_old_as_said(local: Shop) -> None:
    shop, folder = local, local.store
    age(folder, name("trainings", "c"), key_of(shop.data[2]), days=30)
    for days, stays in ((60, True), (20, False)):
        found = survey(folder, Rules(grace=timedelta(days=7), unfinished=timedelta(days=days)))
        assert (name("trainings", "c") not in found.unreached) is stays
        assert (key_of(shop.data[2]) not in found.unreached) is stays


def test_folders_with_names_of_their_own_stay_and_keep_what_they_need(local: Shop, tmp_path: Path) -> None:
    publish(local.store / "trainings" / "mine" / "bundle", tmp_path / "m", b"mine", local.data[1])
    assert key_of(local.data[1]) not in survey(local.store, NOW).unreached
    local.store.store.delete_tree("trainings/mine")
    begin(local.store, "trainings/yours", local.data[1])
    (local.store / "runs" / "bad-run" / "diary.txt").write(b"x")
    assert set(survey(local.store, NOW).unreached) == UNNEEDED - {"runs/bad-run"}


def test_what_killed_commands_left_is_removed_unless_it_is_locked_or_named(shop: Shop) -> None:
    store, version = shop.store.store, f"models/{MODEL}/1.0.0"
    left = f"{version}/{'0' * 16}"
    store.write_bytes(f"{left}/model.onnx", b"12345")
    store.write_bytes(f"{left}.owner", b"killed 1")
    root = store.local_path()
    parts = []
    if root is not None:
        parts = [root / "datasets" / f".{'a' * 32}{PART_SUFFIX}", root / "models" / f".{'b' * 32}{PART_SUFFIX}"]
        parts[0].mkdir()
        (parts[0] / "train-00000.tar").write_bytes(b"123")
        parts[1].write_bytes(b"12")
    found = survey(shop.store, NOW)
    sizes = {each.uri.rpartition("/")[2]: each.size for each in found.remains}
    assert sizes == {"0" * 16: 13} | {path.name: size for path, size in zip(parts, (3, 2), strict=False)}
    only = Survey(kept={}, unreached={}, remains=found.remains)
    _, count, size = remove_unreached(shop.store, only, lambda line: pytest.fail(line))
    assert (count, size) == (1 + len(parts), 13 + 5 * bool(parts))
    assert not [path for path in parts if path.exists()]
    assert not {key for key in keys(shop.store) if key.startswith(left)}
    assert open_bundle(Place.of(shop.published.uri)).digest == shop.published.digest


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        (f"models/{MODEL}/latest.json", b"{", "not JSON .*correct or remove it"),
        (f"models/{MODEL}/1.0.0/{MANIFEST_NAME}", b"{", "not JSON .*publish the bundle again"),
    ],
)
def test_nothing_is_removed_while_a_pointer_or_a_version_cannot_be_read(
    local: Shop, key: str, content: bytes, message: str
) -> None:
    local.store.store.write_bytes(key, content)
    with pytest.raises(InputError, match=message):
        survey(local.store, NOW)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


def test_the_command_lists_by_default_and_removes_with_delete(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    before = keys(shop.store)
    assert command("gc", shop.store.uri, "--grace", "0s") == 0
    said = capsys.readouterr().out
    assert keys(shop.store) == before
    assert all(key in said for key in (*UNNEEDED, key_of(shop.data[1])))
    assert "not needed: 1 data set (" in said and "1 training (" in said and "together " in said
    assert said.splitlines()[-1] == "nothing was removed; to remove what is listed, run the same command with --delete"
    assert command("gc", shop.store.uri, "--grace", "0s", "--delete", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["removed"]) == UNNEEDED | {key_of(shop.data[1])}
    assert command("gc", shop.store.uri, "--grace", "0s") == 0
    assert "everything in this store is needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grace", "7"), "--grace '7': expected a time with its unit (d, h, min, s), such as --grace 7d"),
        (("--pointer", "latest"), "the name of a pointer ends in .json"),
        ((), "there is nothing of kubeyolo in this store; correct the URI"),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    assert command("gc", str(tmp_path / "other"), *arguments) == 2
    assert message in capsys.readouterr().err
