"""Retraining: nothing for the same data, a better or equal model becomes current, a worse one never does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import open_bundle, read_bundle
from kubeyolo.catalogue import DETECTOR_RETRAINING, STEPS
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.index import read_index
from kubeyolo.pointers import ModelPointer, latest_model, read_model_pointer, read_model_version, write_model_pointer
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps import component, facade
from kubeyolo.steps.configure import configure
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.steps.called import Called, evaluate_current, promote, publish, validate_dataset
from tests.steps.fixed_detector import AP_OF_SHIFT, CLASSES, MODEL, fixed_bundle, write_data


@dataclass
class Site:
    """A store, a pointer to data, and what the pipeline does between its first and its last task."""

    folder: Path

    @property
    def store(self) -> str:
        return (self.folder / "store").as_uri()

    @property
    def pointer(self) -> str:
        return str(self.folder / "data" / "latest.json")

    @property
    def latest(self) -> str:
        return latest_model(Place.of(self.store), MODEL).uri

    def current(self) -> ModelPointer:
        found = read_model_pointer(Place.of(self.latest))
        assert found is not None
        return found

    def point_to(self, name: str, **kinds: object) -> None:
        if not (self.folder / "data" / name).exists():
            write_data(self.folder / "data" / name, **kinds)  # type: ignore[arg-type]
        Path(self.pointer).write_text(json.dumps({"data": name}))

    def look(self, **settings: Mapping[str, Any]) -> ConfiguredRun:
        form = {"pointer": self.pointer, "store": self.store, "model": MODEL, "settings": json.dumps(settings)}
        return configure(DETECTOR_RETRAINING, form)

    def validate(self, run: ConfiguredRun) -> Called:
        return validate_dataset(run.data, self.store)

    def measure(self, run: ConfiguredRun, dataset: str, output: str) -> Called:
        """Evaluate the current model as the step of the pipeline does."""
        given = run.settings["evaluate_current"]
        return evaluate_current(given.current, dataset, output, given.configuration(), given.store, given.code)

    def promote(
        self, run: ConfiguredRun, bundle: str, dataset: Called, current: str, output: str, config: Config | None = None
    ) -> Called:
        """Promote a bundle as the step of the pipeline does."""
        given = run.settings["promote"]
        data = {"dataset": dataset.dataset, "data": given.data, "fingerprint": given.fingerprint}
        return promote(bundle, "", current, given.latest, self.store, output, config or given.configuration(), **data)

    def retrain(
        self, name: str, shifts: Mapping[str, int], max_regression: float = 0.0, min_ap: float = 0.0
    ) -> Called | None:
        """Do what the tasks of the pipeline do; the training gives a network that is so far off."""
        run = self.look(evaluate={"min_ap": min_ap}, retrain={"max_regression": max_regression})
        if not run.has_work:
            return None
        validated = self.validate(run)
        known = self.measure(run, validated.dataset, (Place.of(self.store) / "runs" / name / "current").uri)
        bundle = fixed_bundle(self.folder / "runs" / name, shifts, validated.dataset)
        output = (Place.of(self.store) / "runs" / name / "promote").uri
        return self.promote(run, bundle, validated, known.record, output)


def uri_of(promoted: Called | None) -> str:
    """Return the URI of the bundle of a promotion, which has made one."""
    assert promoted is not None
    bundle = Place.of(promoted.bundle)
    assert bundle.digest
    return bundle.uri


@pytest.fixture
def place(tmp_path: Path) -> Site:
    place = Site(tmp_path)
    place.point_to("monday", seed=1)
    return place


def models(place: Site) -> list[str]:
    folder = Place.of(place.store) / "models" / MODEL
    return sorted({stored.key.split("/")[0] for stored in folder.store.list()})


def move(place: Site, bundle: str) -> None:
    """Let the pointer name another bundle, as a person does."""
    latest = Place.of(place.latest)
    write_model_pointer(latest, ModelPointer(bundle=bundle), read_model_version(latest).etag)


class RemoteSite(Site):
    """The same in a bucket."""

    bucket = ""

    @property
    def store(self) -> str:
        return f"minio://{self.bucket}/models"

    @property
    def pointer(self) -> str:
        return f"minio://{self.bucket}/data/latest.json"

    def point_to(self, name: str, **kinds: object) -> None:
        store = Place.of(f"minio://{self.bucket}/data").store
        store.put_tree(write_data(self.folder / "sources" / name, **kinds), name)  # type: ignore[arg-type]
        store.write_bytes("latest.json", json.dumps({"data": name}).encode())


def test_pointers_in_a_bucket_move_as_those_in_folders(
    tmp_path: Path, minio_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    place = RemoteSite(tmp_path)
    place.bucket = minio_bucket
    place.point_to("monday", seed=1)
    assert place.look().data == f"minio://{minio_bucket}/data/monday"
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    assert first and place.current().bundle == uri_of(first) == f"{place.latest.rpartition('/')[0]}/{first.version}"
    assert place.retrain("two", {"onnx": 0, "int8": 0}) is None
    place.point_to("tuesday", seed=2)
    with pytest.raises(WorkError, match="worse than the current one"):
        place.retrain("three", {"onnx": 6, "int8": 6})
    assert place.current().bundle == uri_of(first)
    second = place.retrain("four", {"onnx": 4, "int8": 0})
    assert place.current().bundle == uri_of(second) != uri_of(first)
    assert not place.look().has_work


def test_the_first_model_becomes_current(place: Site, capsys: pytest.CaptureFixture[str]) -> None:
    found = place.look()
    assert found.has_work and found.settings["promote"].current == ""
    words = f"no current model at {place.latest} to compare with: the new model becomes current"
    assert any(words in note for note in found.notes)
    promoted = place.retrain("one", {"onnx": 4, "int8": 6})
    assert promoted is not None
    out = capsys.readouterr().out
    assert words in out and "no current model to compare with" in out
    pointer, given = place.current(), found.settings["promote"]
    assert (pointer.bundle, pointer.version) == (uri_of(promoted), promoted.version)
    assert (pointer.data, pointer.fingerprint) == (given.data, given.fingerprint)
    assert models(place) == sorted(["latest.json", promoted.version])
    assert open_bundle(Place.of(promoted.bundle)).manifest.metrics["int8"]["AP"] == pytest.approx(AP_OF_SHIFT[6])


def test_the_same_data_gives_nothing_to_do(place: Site) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    before = Path(place.folder / "store" / "models" / MODEL / "latest.json").read_bytes()
    assert place.retrain("two", {"onnx": 0, "int8": 0}) is None
    assert any("unchanged: " in note for note in place.look().notes)
    # The same content in another place is the same data.
    (place.folder / "data" / "monday").rename(place.folder / "data" / "moved")
    Path(place.pointer).write_text('{"data": "moved", "note": "a bigger disk"}')
    assert not place.look().has_work
    forced = place.look(retrain={"force": True})
    assert forced.has_work and forced.data.endswith("/data/moved")
    assert Path(place.folder / "store" / "models" / MODEL / "latest.json").read_bytes() == before


@pytest.mark.parametrize("better", [4, 0])
def test_a_model_that_is_equal_or_better_takes_the_place(place: Site, better: int) -> None:
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    second = place.retrain("two", {"onnx": better, "int8": better})
    assert second and place.current().bundle == uri_of(second)
    assert place.current().data.endswith("/tuesday")
    record = read_record(Place.of(second.record))
    assert record.outputs == {"bundle": second.bundle, "latest": place.latest, "before": uri_of(first)}
    assert record.metrics["current_int8"]["AP"] == pytest.approx(0.6)
    assert record.metrics["int8"]["AP"] == pytest.approx(AP_OF_SHIFT[better])
    assert {"AP50", "AR100"} <= record.metrics["int8"].keys()
    assert not place.look().has_work


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        (
            {"onnx": 6, "int8": 6},
            "onnx: AP is 0.4000, AP of the baseline is 0.6000: it loses 20.00 points, the limit is 0 "
            "(retrain.max_regression); 95 % interval of the loss 20.00 to 20.00: 3 images with objects are too few to "
            "tell (30 are required); int8: AP is 0.4000",
        ),
        # Each network is compared with the same network of the baseline: a better float network does not make up for a
        # worse int8 network.
        (
            {"onnx": 0, "int8": 6},
            "current one: int8: AP is 0.4000, AP of the baseline is 0.6000: it loses 20.00 points, the limit",
        ),
    ],
)
def test_a_worse_model_is_not_published_and_the_pointer_stays(place: Site, shifts: dict[str, int], words: str) -> None:
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    before = (models(place), place.current())
    with pytest.raises(WorkError) as refused:
        place.retrain("two", shifts)
    message = str(refused.value)
    assert words in message
    new = read_bundle(Place.of(place.folder / "runs" / "two" / "bundle")).reference
    assert f"The new model is {new}, the current model stays {uri_of(first)}." in message
    assert message.endswith(f"kubeyolo publish {new} --store {place.store} --latest {place.latest}")
    assert (models(place), place.current()) == before
    # It is refused each time until somebody acts, or the data is better.
    assert place.look().has_work and place.look().data.endswith("/tuesday")
    with pytest.raises(WorkError, match="the limit is 19.5"):
        place.retrain("three", shifts, max_regression=19.5)
    assert place.retrain("four", shifts, max_regression=20)
    assert place.current().data.endswith("/tuesday")


def test_the_current_model_is_measured_without_the_gate_of_the_new_one(place: Site) -> None:
    first = uri_of(place.retrain("one", {"onnx": 6, "int8": 6}))
    place.point_to("tuesday", seed=2)
    second = uri_of(place.retrain("two", {"onnx": 0, "int8": 0}, min_ap=0.9))
    assert place.current().bundle == second != first


def test_a_current_model_without_int8_is_compared_by_its_float_network(place: Site) -> None:
    old = publish(fixed_bundle(place.folder / "old", {"onnx": 4}), place.store, "0.9")
    write_model_pointer(Place.of(place.latest), ModelPointer(bundle=Place.of(old.bundle).uri))
    with pytest.raises(WorkError, match="worse than the current one: onnx: AP is 0.4000"):
        place.retrain("one", {"onnx": 6, "int8": 0})
    assert place.retrain("two", {"onnx": 4, "int8": 6})


def test_a_gate_on_other_numbers_does_not_stop_the_comparison(place: Site) -> None:
    """The bundle was exported and quantized by a run with another gate."""
    place.retrain("one", {"onnx": 4, "int8": 4}, min_ap=0.1)
    place.point_to("tuesday", seed=2)
    promoted = place.retrain("two", {"onnx": 4, "int8": 4}, min_ap=0.2)
    assert place.current().bundle == uri_of(promoted) and place.current().data.endswith("/tuesday")


def test_a_pointer_that_was_moved_in_the_meantime_stays(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = uri_of(place.retrain("one", {"onnx": 4, "int8": 4}))
    place.point_to("tuesday", seed=2)
    found = place.look()
    validated = place.validate(found)
    known = place.measure(found, validated.dataset, str(place.folder / "known"))
    by_hand = publish(fixed_bundle(place.folder / "other", {"onnx": 0, "int8": 0}), place.store, "by-hand")
    other = Place.of(by_hand.bundle).uri
    move(place, other)
    bundle = fixed_bundle(place.folder / "new", {"onnx": 0, "int8": 4}, validated.dataset)
    arguments = (found, bundle, validated, known.record, str(place.folder / "promote"))
    with pytest.raises(WorkError, match=f"changed during this training; it is now {other}; run the retraining again"):
        place.promote(*arguments)
    assert place.current().bundle == other
    # Moved while the bundle is copied.
    move(place, first)

    publish_now = facade.publish

    def publish_slowly(*given: Any) -> Any:
        published = publish_now(*given)
        move(place, other)
        return published

    with monkeypatch.context() as patch:
        patch.setattr("kubeyolo.steps.facade.publish", publish_slowly)
        with pytest.raises(WorkError, match=f"was moved meanwhile: it names {other}, not"):
            place.promote(*arguments)
    assert place.current().bundle == other
    # When the task is tried again after its pod was lost, the model that it has made current is no other one.
    move(place, first)
    once, again = place.promote(*arguments), place.promote(*arguments)
    assert once.bundle == again.bundle == read_bundle(Place.of(place.current().bundle)).reference


def test_numbers_of_other_settings_are_not_compared(place: Site) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    found = place.look()
    validated = place.validate(found)
    known = place.measure(found, validated.dataset, str(place.folder / "known"))
    bundle = fixed_bundle(place.folder / "new", {"onnx": 0, "int8": 0}, validated.dataset, {"iou_threshold": 0.3})
    with pytest.raises(InputError, match="its onnx network was not evaluated on this data with these settings"):
        place.promote(found, bundle, validated, known.record, str(place.folder / "p"))


def test_what_cannot_be_compared_is_said_before_the_training(place: Site) -> None:
    old = publish(fixed_bundle(place.folder / "old", {"onnx": 4}), place.store, "0.9")
    place.point_to("more", classes=(*CLASSES, "cross"))
    dataset = place.validate(place.look()).dataset

    def measure(bundle: str) -> None:
        evaluate_current(bundle, dataset, str(place.folder / "known"), load_config(MODEL))

    with pytest.raises(
        InputError,
        match=r"has different classes from .* class 'cross' is not in the model\), .*remove its pointer to start",
    ):
        measure(old.bundle)
    opened = open_bundle(Place.of(old.bundle))
    bare = publish_bundle(
        Place.of(place.folder / "bare"), opened.manifest, {"weights.safetensors": opened.path("weights.safetensors")}
    ).uri
    with pytest.raises(InputError, match="the current model has no ONNX network to compare with"):
        measure(bare)


class Artifact:
    """What is needed of each kind of kfp's artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.metadata: dict[str, Any] = {}
        self.logged: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


@pytest.fixture
def call(place: Site) -> Callable[..., tuple[Any, ...]]:
    """Calls a step as its component does, with artifacts in files of their own."""

    def called(step: str, function: str = "", **given: Any) -> tuple[Any, ...]:
        shutil.rmtree(place.folder / "artifacts" / step, ignore_errors=True)
        made = {each.name: Artifact(place.folder / "artifacts" / step / each.name) for each in STEPS[step].artifacts}
        return (*getattr(component, function or step)(**given, **made), made)

    return called


def test_the_tasks_hand_on_what_the_next_one_needs(
    place: Site, call: Callable[..., tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    form = {"pointer": place.pointer, "store": place.store, "model": MODEL}
    with pytest.raises(SystemExit) as ended:
        call("configure", "configure_retraining", **form | {"pointer": f"{place.pointer}.gone"})
    assert ended.value.code == InputError.exit_code
    assert f"{place.pointer}.gone: there is no such pointer" in capsys.readouterr().err

    published = ""
    for run, shift in (("first", 4), ("worse", 6)):
        place.point_to(run, seed=shift)
        facts, validation, current, *_, promotion, data, _, _ = call("configure", "configure_retraining", **form)
        assert data == facts["data"] == str(place.folder / "data" / run)
        dataset, _, _ = call("validate_dataset", settings=validation)
        record, measured = call("evaluate_current", settings=current, dataset=dataset)
        assert Path(measured["current_model_report"].path).read_text().startswith("<!") is bool(published)
        bundle = read_bundle(
            Place.of(fixed_bundle(place.folder / "runs" / run, {"onnx": shift, "int8": shift}, dataset))
        ).reference
        inputs = {"bundle": bundle, "evaluation": "", "training": "", "current": record, "dataset": dataset}
        capsys.readouterr()
        if run == "first":
            published, record, made = call("promote", settings=promotion, **inputs)
            assert made["summary"].logged["AP_int8"] == pytest.approx(0.6)
            assert made["published_detector"].metadata["digest"] == Place.of(published).digest
            assert read_index(Place.of(promotion["index"])) == read_record(Place.of(record))
            # On the same data there is nothing more to do.
            *_, nothing, _, _ = call("configure", "configure_retraining", **form)
            assert nothing == ""
            continue
        assert current["current"] == published
        with pytest.raises(SystemExit) as ended:
            call("promote", settings=promotion, **inputs)
        assert ended.value.code == WorkError.exit_code
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        (failure,) = (place.folder / "store" / "results" / "promote").rglob("failure.json")
        assert "worse than the current one" in json.loads(failure.read_text())["message"]
        assert read_bundle(Place.of(place.current().bundle)).reference == published


def make_current(place: Site, bundle: str, *options: str) -> None:
    from kubeyolo.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main(["publish", bundle, "--store", place.store, "--latest", place.latest, *options])
    assert not ended.value.code


def test_a_person_takes_a_worse_model_all_the_same(place: Site) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    with pytest.raises(WorkError, match="worse than the current one"):
        place.retrain("two", {"onnx": 6, "int8": 6})
    make_current(place, str(place.folder / "runs" / "two" / "bundle"))
    taken = place.current().bundle
    # The next run finds the same model, which is not worse than itself, and from then on there is nothing to do.
    again = place.retrain("three", {"onnx": 6, "int8": 6})
    assert uri_of(again) == taken == place.current().bundle
    assert not place.look().has_work


def test_a_person_goes_back_to_an_older_model_and_it_stays_until_there_is_other_data(
    place: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    second = place.retrain("two", {"onnx": 0, "int8": 0})
    assert first and second
    capsys.readouterr()
    make_current(place, first.bundle)
    line = f"the current model is now {uri_of(first)} instead of {uri_of(second)} ({place.latest})"
    assert line in capsys.readouterr().out
    assert place.current().version == first.version
    assert not place.look().has_work
    place.point_to("wednesday", seed=3)
    found = place.look()
    assert found.has_work and found.data.endswith("/wednesday")
    assert found.settings["promote"].current == first.bundle


def test_a_model_is_made_current_before_there_was_any(place: Site) -> None:
    make_current(place, fixed_bundle(place.folder / "old", {"onnx": 6, "int8": 6}), "--version", "by-hand")
    uri = (Place.of(place.store) / "models" / MODEL / "by-hand").uri
    assert place.current() == ModelPointer(bundle=uri, version="by-hand")
    assert place.look().has_work
