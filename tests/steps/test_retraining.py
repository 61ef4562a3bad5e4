"""Retraining: nothing for the same data, a better or equal model in the place of the old one, never a worse one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import open_bundle, publish_bundle
from kubeyolo.errors import InputError, WorkError
from kubeyolo.pointers import ModelPointer, latest_model, read_model_pointer, write_model_pointer
from kubeyolo.steps import component
from kubeyolo.steps.component import bundle_configuration, configuration
from kubeyolo.steps.in_use import evaluate_in_use
from kubeyolo.steps.pointer import Retraining, read_pointer
from kubeyolo.steps.promote import Candidate, Promoted, promote
from kubeyolo.steps.publish import publish
from kubeyolo.steps.validate import validate_dataset
from kubeyolo.storage.uri import join_uri, open_store
from tests.steps.fixed_detector import AP_OF_SHIFT, CLASSES, MODEL, fixed_bundle, write_data


@dataclass
class Place:
    """A store, a pointer to data, and what the pipeline does between its first and its last task."""

    folder: Path

    @property
    def store(self) -> str:
        return (self.folder / "store").as_uri()

    @property
    def pointer(self) -> Path:
        return self.folder / "data" / "latest.json"

    @property
    def latest(self) -> str:
        return latest_model(self.store, MODEL)

    def in_use(self) -> ModelPointer:
        found = read_model_pointer(self.latest)
        assert found is not None
        return found

    def point_to(self, name: str, **kinds: object) -> None:
        if not (self.folder / "data" / name).exists():
            write_data(self.folder / "data" / name, **kinds)  # type: ignore[arg-type]
        self.pointer.write_text(json.dumps({"data": name}))

    def look(self, run: str = "one", **values: object) -> Retraining:
        return read_pointer(str(self.pointer), self.store, MODEL, f"{run}-0123456789", **values)  # type: ignore[arg-type]

    def retrain(
        self, run: str, shifts: Mapping[str, int], max_regression: float = 0.0, min_ap: float = 0.0
    ) -> Promoted | None:
        """Do what the tasks of the pipeline do; the training gives a network that is so far off."""
        found = self.look(run)
        if not found.data:
            return None
        validated = validate_dataset(found.data, self.store)
        overrides = {"min_ap": min_ap} if min_ap else {}
        place = join_uri(self.store, "runs", found.run_name)
        known = evaluate_in_use(
            found.in_use, validated.dataset, f"{place}/evaluate_in_use", configuration(MODEL, evaluate=overrides)
        )
        bundle = fixed_bundle(self.folder / "runs" / run, shifts, validated.dataset, overrides)
        candidate = Candidate(
            bundle=bundle,
            evaluation="",
            data=found.data,
            fingerprint=found.fingerprint,
            dataset_digest=validated.digest,
        )
        config = bundle_configuration(bundle, evaluate=overrides)
        return promote(candidate, known.record, found.latest, self.store, f"{place}/promote", config, max_regression)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.point_to("monday", seed=1)
    return place


def models(place: Place) -> list[str]:
    return sorted(path.name for path in (place.folder / "store" / "models" / MODEL).iterdir())


class RemotePlace(Place):
    """The same in a bucket."""

    bucket = ""

    @property
    def store(self) -> str:
        return f"minio://{self.bucket}/models"

    def point_to(self, name: str, **kinds: object) -> None:
        store = open_store(f"minio://{self.bucket}/data")
        store.put_tree(write_data(self.folder / "sources" / name, **kinds), name)  # type: ignore[arg-type]
        store.write_bytes("latest.json", json.dumps({"data": name}).encode())

    def look(self, run: str = "one", **values: object) -> Retraining:
        pointer = f"minio://{self.bucket}/data/latest.json"
        return read_pointer(pointer, self.store, MODEL, f"{run}-0123456789", **values)  # type: ignore[arg-type]


def test_pointers_in_a_bucket_move_as_those_in_folders(
    tmp_path: Path, minio_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    place = RemotePlace(tmp_path)
    place.bucket = minio_bucket
    place.point_to("monday", seed=1)
    assert place.look().data == f"minio://{minio_bucket}/data/monday"
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    assert first and place.in_use().bundle == first.bundle == f"{place.latest.rpartition('/')[0]}/{first.version}"
    assert place.retrain("two", {"onnx": 0, "int8": 0}) is None
    place.point_to("tuesday", seed=2)
    with pytest.raises(WorkError, match="worse than the one in use"):
        place.retrain("three", {"onnx": 6, "int8": 6})
    assert place.in_use().bundle == first.bundle
    second = place.retrain("four", {"onnx": 4, "int8": 0})
    assert second and place.in_use().bundle == second.bundle != first.bundle
    assert place.look().data == ""


def test_the_first_model_is_put_in_use(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    found = place.look()
    assert (found.in_use, found.data) == ("", (place.folder / "data" / "monday").as_uri())
    assert found.run_name == f"{MODEL}-monday-one-0123"
    said = f"no model is in use at {place.latest}: there is nothing to compare with"
    assert said in capsys.readouterr().out
    promoted = place.retrain("one", {"onnx": 4, "int8": 6})
    assert promoted is not None
    assert capsys.readouterr().out.count(said) == 2  # by read_pointer and promote
    pointer = place.in_use()
    assert (pointer.bundle, pointer.version) == (promoted.bundle, promoted.version)
    assert (pointer.data, pointer.fingerprint) == (found.data, found.fingerprint)
    assert models(place) == sorted(["latest.json", promoted.version])
    assert open_bundle(pointer.bundle).manifest.metrics["int8"]["AP"] == pytest.approx(AP_OF_SHIFT[6])


def test_the_same_data_gives_nothing_to_do(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    before = Path(place.folder / "store" / "models" / MODEL / "latest.json").read_bytes()
    assert place.retrain("two", {"onnx": 0, "int8": 0}) is None
    assert "unchanged: " in capsys.readouterr().out
    # The same content in another place is the same data.
    (place.folder / "data" / "monday").rename(place.folder / "data" / "moved")
    place.pointer.write_text('{"data": "moved", "note": "a bigger disk"}')
    assert place.look().data == ""
    assert place.look(force=True).data.endswith("/data/moved")
    assert Path(place.folder / "store" / "models" / MODEL / "latest.json").read_bytes() == before


@pytest.mark.parametrize("better", [4, 0])
def test_a_model_that_is_equal_or_better_takes_the_place(place: Place, better: int) -> None:
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    second = place.retrain("two", {"onnx": better, "int8": better})
    assert first and second
    assert place.in_use().bundle == second.bundle
    assert place.in_use().data.endswith("/tuesday")
    record = json.loads(
        (place.folder / "store" / "runs" / f"{MODEL}-tuesday-two-0123/promote/metrics.json").read_text()
    )
    assert record["outputs"]["before"] == first.bundle
    assert record["metrics"]["in_use_int8"]["AP"] == pytest.approx(0.6)
    assert record["metrics"]["int8"]["AP"] == pytest.approx(AP_OF_SHIFT[better])
    assert place.look().data == ""


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        (
            {"onnx": 6, "int8": 6},
            "onnx: AP is 0.4000, of the baseline 0.6000: it loses 20.00 points; int8: AP is 0.4000",
        ),
        # Each network is compared with its like: a better float network does not make up for a worse int8 one.
        (
            {"onnx": 0, "int8": 6},
            "one in use: int8: AP is 0.4000, of the baseline 0.6000: it loses 20.00 points, 0 are",
        ),
    ],
)
def test_a_worse_model_is_not_published_and_the_pointer_stays(place: Place, shifts: dict[str, int], words: str) -> None:
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    assert first
    place.point_to("tuesday", seed=2)
    before = (models(place), place.in_use())
    with pytest.raises(WorkError) as refused:
        place.retrain("two", shifts)
    message = str(refused.value)
    assert words in message
    new = (place.folder / "runs" / "two" / "bundle").as_uri()
    assert f"New is {new}, in use stays {first.bundle}." in message
    assert message.endswith(f"kubeyolo publish {new} --store {place.store} --latest {place.latest}")
    assert (models(place), place.in_use()) == before
    # It is refused each time until somebody acts, or the data is better.
    assert place.look().data.endswith("/tuesday")
    with pytest.raises(WorkError, match="19.5 are allowed"):
        place.retrain("three", shifts, max_regression=19.5)
    assert place.retrain("four", shifts, max_regression=20)
    assert place.in_use().data.endswith("/tuesday")


def test_the_model_in_use_is_measured_without_the_gate_of_the_new_one(place: Place) -> None:
    place.retrain("one", {"onnx": 6, "int8": 6})
    place.point_to("tuesday", seed=2)
    assert place.retrain("two", {"onnx": 0, "int8": 0}, min_ap=0.9)


def test_a_model_in_use_without_int8_is_compared_by_its_float_network(place: Place) -> None:
    old = publish(fixed_bundle(place.folder / "old", {"onnx": 4}), place.store, "0.9")
    write_model_pointer(place.latest, ModelPointer(bundle=old.bundle))
    with pytest.raises(WorkError, match="worse than the one in use: onnx: AP is 0.4000"):
        place.retrain("one", {"onnx": 6, "int8": 0})
    assert place.retrain("two", {"onnx": 4, "int8": 6})


def test_a_pointer_that_was_moved_in_the_meantime_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    found = place.look()
    validated = validate_dataset(found.data, place.store)
    config = configuration(MODEL)
    known = evaluate_in_use(found.in_use, validated.dataset, str(place.folder / "known"), config)
    other = publish(fixed_bundle(place.folder / "other", {"onnx": 0, "int8": 0}), place.store, "by-hand")
    write_model_pointer(place.latest, ModelPointer(bundle=other.bundle))
    bundle = fixed_bundle(place.folder / "new", {"onnx": 0, "int8": 4}, validated.dataset)
    candidate = Candidate(
        bundle=bundle, evaluation="", data=found.data, fingerprint=found.fingerprint, dataset_digest=validated.digest
    )
    arguments = (candidate, known.record, place.latest, place.store, str(place.folder / "promote"), config)
    with pytest.raises(WorkError, match=f"names {other.bundle}, moved while this one was trained; run it again"):
        promote(*arguments)
    assert place.in_use().bundle == other.bundle
    # Moved while the bundle is copied.
    write_model_pointer(place.latest, ModelPointer(bundle=found.in_use))

    def publish_slowly(*given: Any) -> Any:
        published = publish(*given)
        write_model_pointer(place.latest, ModelPointer(bundle=other.bundle))
        return published

    with monkeypatch.context() as patch:
        patch.setattr("kubeyolo.steps.promote.publish", publish_slowly)
        with pytest.raises(WorkError, match=f"names {other.bundle}, moved while"):
            promote(*arguments)
    assert place.in_use().bundle == other.bundle
    # When the task is tried again after its pod was lost, the model that it has put in use is no other one.
    write_model_pointer(place.latest, ModelPointer(bundle=found.in_use))
    first, again = promote(*arguments), promote(*arguments)
    assert first.bundle == again.bundle == place.in_use().bundle


def test_numbers_of_other_settings_are_not_compared(place: Place) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    found = place.look()
    validated = validate_dataset(found.data, place.store)
    known = evaluate_in_use(found.in_use, validated.dataset, str(place.folder / "known"), configuration(MODEL))
    bundle = fixed_bundle(place.folder / "new", {"onnx": 0, "int8": 0}, validated.dataset, {"iou_threshold": 0.3})
    candidate = Candidate(
        bundle=bundle, evaluation="", data=found.data, fingerprint="f", dataset_digest=validated.digest
    )
    with pytest.raises(InputError, match="its onnx network was not evaluated on this data with these settings"):
        promote(candidate, known.record, place.latest, place.store, str(place.folder / "p"), configuration(MODEL))


def test_what_cannot_be_compared_is_said_before_the_training(place: Place) -> None:
    old = publish(fixed_bundle(place.folder / "old", {"onnx": 4}), place.store, "0.9")
    place.point_to("more", classes=(*CLASSES, "cross"))
    dataset = validate_dataset(place.look().data, place.store).dataset
    with pytest.raises(InputError, match=r"knows other classes than .* has \(cross\).*remove its pointer to begin"):
        evaluate_in_use(old.bundle, dataset, str(place.folder / "known"), configuration(MODEL))
    opened = open_bundle(old.bundle)
    bare = publish_bundle(
        str(place.folder / "bare"), opened.manifest, {"weights.safetensors": opened.path("weights.safetensors")}
    )
    with pytest.raises(InputError, match="has no ONNX network to compare with"):
        evaluate_in_use(bare, dataset, str(place.folder / "known"), configuration(MODEL))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, 'there is no such pointer to a data set; write {"data": "minio://kubeyolo/data/bccd'),
        ("data: x", "this pointer is not JSON"),
        ("[]", "this pointer is not a JSON object"),
        ('{"dat": "x"}', "this pointer has no 'data'; did you mean 'dat'"),
        ("{}", "this pointer has no 'data'; expected"),
        ('{"data": 7}', "data = 7: "),
        ('{"data": "absent"}', "points at a data set that cannot be used: "),
        ('{"data": ""}', "data = ''"),
        ('{"data": "../else"}', "must not be empty, '.' or '..'"),
        ('{"data": "ftp://x/y"}', "stores of kind 'ftp' are not known"),
    ],
)
def test_a_bad_pointer_to_data_is_named(place: Place, document: str | None, words: str) -> None:
    place.pointer.unlink()
    if document is not None:
        place.pointer.write_text(document)
    with pytest.raises(InputError) as refused:
        place.look()
    assert words in str(refused.value) and place.pointer.name in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_bad_pointer_to_the_model_in_use_is_named(place: Place) -> None:
    absent = (place.folder / "absent").as_uri()
    write_model_pointer(place.latest, ModelPointer(bundle=absent))
    with pytest.raises(InputError, match=rf"latest.json points at {absent}, where there is no bundle; correct it"):
        place.look()
    other = place.folder / "in-use.json"
    other.write_text('{"bundel": "x"}')
    with pytest.raises(InputError, match="in-use.json: this pointer has no 'bundle'; did you mean 'bundel'"):
        place.look(latest=str(other))
    with pytest.raises(InputError, match="the name of a pointer ends in .json"):
        place.look(latest=str(place.folder / "models"))
    assert place.look(latest=str(place.folder / "mine.json")).in_use == ""


class Artifact:
    """What is needed of kfp's Metrics and HTML."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.logged: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


def test_the_tasks_hand_on_what_the_next_one_needs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    looked = {"pointer": str(place.pointer), "store": place.store, "model": MODEL, "latest": "", "force": False}
    with pytest.raises(SystemExit) as ended:
        component.read_pointer(**{**looked, "pointer": f"{place.pointer}.gone"}, run_id="0")
    assert ended.value.code == InputError.exit_code
    assert capsys.readouterr().err.startswith(f"error: {place.pointer}.gone: there is no such pointer")

    for run, shift in (("first", 4), ("worse", 6)):
        place.point_to(run, seed=shift)
        data, fingerprint, in_use, latest, run_name = component.read_pointer(**looked, run_id=f"{run}0000")
        dataset = validate_dataset(data, place.store)
        artifacts = {
            "metrics": Artifact(place.folder / run / "metrics"),
            "report": Artifact(place.folder / run / "html"),
        }
        common = {"store": place.store, "run_name": run_name, "evaluate_overrides": {}, **artifacts}
        (record,) = component.evaluate_in_use(bundle=in_use, dataset=dataset.dataset, model=MODEL, **common)
        made = {"data": data, "fingerprint": fingerprint, "dataset_digest": dataset.digest, "evaluation": ""}
        bundle = fixed_bundle(place.folder / "runs" / run, {"onnx": shift, "int8": shift}, dataset.dataset)
        capsys.readouterr()
        if run == "first":
            published, _ = component.promote(
                bundle=bundle, in_use=record, latest=latest, max_regression=0.0, **made, **common
            )
            assert artifacts["metrics"].logged["int8_AP"] == pytest.approx(0.6)
            continue
        with pytest.raises(SystemExit) as ended:
            component.promote(bundle=bundle, in_use=record, latest=latest, max_regression=0.0, **made, **common)
        assert ended.value.code == WorkError.exit_code
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert (place.folder / "store" / "runs" / run_name / "promote" / "failure.json").is_file()
        assert artifacts["metrics"].logged["onnx_AP"] == pytest.approx(0.6)
        assert place.in_use().bundle == published == in_use


def put_in_use(place: Place, bundle: str, *options: str) -> None:
    from kubeyolo.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main(["publish", bundle, "--store", place.store, "--latest", place.latest, *options])
    assert not ended.value.code


def test_a_person_takes_a_worse_model_all_the_same(place: Place) -> None:
    place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    with pytest.raises(WorkError, match="worse than the one in use"):
        place.retrain("two", {"onnx": 6, "int8": 6})
    put_in_use(place, str(place.folder / "runs" / "two" / "bundle"))
    taken = place.in_use().bundle
    # The next run finds the same model, which is not worse than itself, and from then on there is nothing to do.
    again = place.retrain("three", {"onnx": 6, "int8": 6})
    assert again and again.bundle == taken == place.in_use().bundle
    assert place.look().data == ""


def test_a_person_goes_back_to_an_older_model_and_it_stays_until_there_is_other_data(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    first = place.retrain("one", {"onnx": 4, "int8": 4})
    place.point_to("tuesday", seed=2)
    second = place.retrain("two", {"onnx": 0, "int8": 0})
    assert first and second
    capsys.readouterr()
    put_in_use(place, first.bundle)
    assert f"in use is {first.bundle} instead of {second.bundle} ({place.latest})" in capsys.readouterr().out
    assert place.in_use().version == first.version
    assert place.look().data == ""
    place.point_to("wednesday", seed=3)
    assert place.look().in_use == first.bundle
    assert place.look().data.endswith("/wednesday")


def test_a_model_is_put_in_use_before_there_was_any(place: Place) -> None:
    put_in_use(place, fixed_bundle(place.folder / "old", {"onnx": 6, "int8": 6}), "--version", "by-hand")
    uri = join_uri(place.store, "models", MODEL, "by-hand")
    assert place.in_use() == ModelPointer(bundle=uri, version="by-hand")
    assert place.look().data
