"""Promotion: of several that promote at once, one moves the pointer; it returns to the models before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from kubeyolo.bundle import Bundle, open_bundle, read_bundle
from kubeyolo.cli.app import main
from kubeyolo.errors import InputError, WorkError
from kubeyolo.pointers import (
    MOST_FORMER,
    ModelPointer,
    latest_model,
    read_model_pointer,
    read_model_version,
    write_model_pointer,
)
from kubeyolo.steps import promote
from kubeyolo.steps.promote import make_current, roll_back
from kubeyolo.storage.place import Place
from tests.steps.called import write_record
from tests.steps.test_publish import make_bundle

MODEL = "yolov5n-r7"

PROMOTER = """
import sys
from kubeyolo.config.load import load_config
from kubeyolo.errors import WorkError
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.storage.place import Place
bundle, current, latest, store, output = sys.argv[1:]
publish = facade.publish
def publish_together(*given):
    published = publish(*given)
    print("published", flush=True)
    sys.stdin.readline()
    return published
facade.publish = publish_together
place = Place.of(store)
call = StepCall(store=place, config=load_config("yolov5n-r7"), code="c", output=place.at(output))
dataset = place.pinned("d" * 64).reference
try:
    print(facade.promote(call, call.bundle(bundle), "", current, latest, dataset, "", "f").record.outputs["bundle"])
except WorkError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture(params=["file", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    is_file = request.param == "file"
    uri = (tmp_path / "store").as_uri() if is_file else f"minio://{request.getfixturevalue('minio_bucket')}/store"
    # After the server has been found, which may lie in the cache folder.
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    return uri


@pytest.mark.parametrize("has_current", [False, True])
def test_of_two_promotions_at_once_one_moves_the_pointer(tmp_path: Path, store: str, has_current: bool) -> None:
    latest, current = latest_model(Place.of(store), MODEL).uri, ""
    if has_current:
        current = read_bundle(Place.of(make_bundle(tmp_path / "current", b"current"))).reference
        write_model_pointer(Place.of(latest), ModelPointer(bundle=Place.of(current).uri))
    record = write_record(str(tmp_path / "e"), "evaluate_current", 1, {"bundle": current}, {})
    processes = []
    for name in ("one", "two"):
        bundle = make_bundle(tmp_path / name, name.encode())
        command = [sys.executable, "-c", PROMOTER, bundle, record, latest, store, str(tmp_path / name / "out")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, **pipes))
    for process in processes:
        while process.stdout.readline() not in ("published\n", ""):
            pass
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 1], results
    reference = Place.of(results[codes.index(0)][0].splitlines()[-1])
    winner, digest = reference.uri, reference.digest
    pointer = read_model_pointer(Place.of(latest))
    assert pointer and pointer.bundle == winner and pointer.fingerprint == "f"
    assert open_bundle(Place.of(winner)).digest == digest
    assert open_bundle(Place.of(winner)).path("weights.safetensors").read_bytes() == (b"one", b"two")[codes.index(0)]
    error = results[codes.index(1)][1]
    assert f"refused: {latest} was moved meanwhile: it names {winner}, not " in error
    assert error.endswith("; check this model, and run the command again\n")


def test_a_pointer_moves_only_from_what_was_seen(store: str) -> None:
    latest = latest_model(Place.of(store), MODEL).uri
    first, second = ModelPointer(bundle=f"{store}/1", version="1"), ModelPointer(bundle=f"{store}/2", version="2")
    assert read_model_version(Place.of(latest)) == (None, None)
    write_model_pointer(Place.of(latest), first)
    with pytest.raises(WorkError, match=f"{latest} was moved meanwhile: it names {store}/1, not {store}/2; check"):
        write_model_pointer(Place.of(latest), second)
    pointer, etag = read_model_version(Place.of(latest))
    assert pointer == first
    write_model_pointer(Place.of(latest), second, etag)
    # What it says already needs no move: the answer to the first attempt may have been lost.
    write_model_pointer(Place.of(latest), second, etag)
    write_model_pointer(Place.of(latest), second)
    with pytest.raises(WorkError, match=f"{latest} was moved meanwhile: it names {store}/2, not {store}/1; check"):
        write_model_pointer(Place.of(latest), first, etag)
    assert read_model_pointer(Place.of(latest)) == second


def published(tmp_path: Path, number: int) -> Bundle:
    return open_bundle(Place.of(make_bundle(tmp_path / f"model{number}", f"{number}".encode())))


def test_the_pointer_returns_to_its_former_models_one_by_one(tmp_path: Path, store: str) -> None:
    latest = latest_model(Place.of(store), MODEL)
    bundles = [published(tmp_path, number) for number in range(3)]
    for number, bundle in enumerate(bundles):
        make_current(latest, bundle, data="minio://data", fingerprint=f"f{number}")
    # To make the current model current again is not a change.
    make_current(latest, bundles[2])
    pointer = read_model_pointer(latest)
    assert pointer and pointer.bundle == bundles[2].uri
    assert [former.bundle for former in pointer.history] == [bundles[1].uri, bundles[0].uri]
    assert all(datetime.fromisoformat(former.replaced).tzinfo for former in pointer.history)
    for number in (1, 0):
        back = roll_back(latest)
        assert back == read_model_pointer(latest) and back.bundle == bundles[number].uri
        assert [former.bundle for former in back.history] == [bundle.uri for bundle in reversed(bundles[:number])]
        # Retraining waits for new data.
        assert (back.data, back.fingerprint) == ("minio://data", "f2")
    with pytest.raises(InputError, match=rf"{latest}: this pointer has no former model to return to; make another"):
        roll_back(latest)
    assert read_model_pointer(latest) == back


def test_the_history_is_bounded(tmp_path: Path) -> None:
    latest = latest_model(Place.of(tmp_path / "store"), MODEL)
    pair = [published(tmp_path, number) for number in range(2)]
    for number in range(MOST_FORMER + 5):
        make_current(latest, pair[number % 2])
    pointer = read_model_pointer(latest)
    assert pointer and len(pointer.history) == MOST_FORMER


def test_a_pointer_without_history_is_read_and_gets_one(tmp_path: Path) -> None:
    latest = latest_model(Place.of(tmp_path / "store"), MODEL)
    first, second = published(tmp_path, 1), published(tmp_path, 2)
    latest.write(f'{{"bundle": "{first.uri}", "version": "1.0.0", "dataset_digest": "d"}}'.encode())
    make_current(latest, second)
    pointer = read_model_pointer(latest)
    assert pointer and [former.model_dump(exclude={"replaced"}) for former in pointer.history] == [
        {"bundle": first.uri, "version": "1.0.0", "dataset_digest": "d"}
    ]
    assert roll_back(latest).version == "1.0.0"


def test_a_former_model_that_is_gone_is_not_made_current(tmp_path: Path) -> None:
    latest = latest_model(Place.of(tmp_path / "store"), MODEL)
    first, second = published(tmp_path, 1), published(tmp_path, 2)
    make_current(latest, first)
    make_current(latest, second)
    shutil.rmtree(tmp_path / "model1" / "bundle")
    with pytest.raises(InputError, match=r"model1/bundle: there is no bundle\.json"):
        roll_back(latest)
    assert read_model_version(latest).bundle == second.uri


def test_a_rollback_moves_only_the_pointer_that_it_has_read(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = latest_model(Place.of(store), MODEL)
    bundles = [published(tmp_path, number) for number in range(3)]
    make_current(latest, bundles[0])
    make_current(latest, bundles[1])
    read = promote.read_bundle

    def meanwhile(place: Place) -> Bundle:
        monkeypatch.setattr(promote, "read_bundle", read)
        make_current(Place.of(latest.uri), bundles[2])
        return read(place)

    monkeypatch.setattr(promote, "read_bundle", meanwhile)
    with pytest.raises(WorkError, match=rf"was moved meanwhile: it names {bundles[2].uri}, not {bundles[0].uri}"):
        roll_back(latest)
    assert read_model_version(latest).bundle == bundles[2].uri


def test_the_command_names_the_pointer_and_what_is_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    latest = latest_model(Place.of(store), MODEL)
    first, second = published(tmp_path, 1), published(tmp_path, 2)
    make_current(latest, first)
    make_current(latest, second)
    capsys.readouterr()

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["promote", *arguments])
        streams = capsys.readouterr()
        return int(ended.value.code or 0), streams.out + streams.err

    assert call("--rollback", "--model", MODEL, "--store", str(store)) == (
        0,
        f"the current model is again {first.uri} ({latest}); 0 former models in the history\n",
    )
    for arguments, message in (
        (("--model", MODEL), "add --rollback"),
        (("--rollback",), "name the pointer by --model NAME or by --latest URI"),
        (("--rollback", "--model", "yolov5n-r8"), "did you mean 'yolov5n-r7'?"),
        (("--rollback", "--latest", str(tmp_path / "none.json")), "there is no such pointer to a model"),
        (("--rollback", "--model", MODEL, "--store", str(store)), "this pointer has no former model to return to"),
    ):
        code, said = call(*arguments)
        assert code == 2 and message in said


def test_a_model_that_a_user_makes_current_is_current_even_if_the_pointer_is_moved_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = latest_model(Place.of(tmp_path / "store"), MODEL)
    bundle = open_bundle(Place.of(make_bundle(tmp_path / "one")))
    seen = read_model_version(latest)

    def read_too_early(place: Place) -> object:
        monkeypatch.undo()
        write_model_pointer(latest, ModelPointer(bundle=f"{tmp_path}/other", fingerprint="f"))
        return seen

    monkeypatch.setattr(promote, "read_model_version", read_too_early)
    promote.make_current(latest, bundle)
    pointer = read_model_pointer(latest)
    assert pointer and (pointer.bundle, pointer.fingerprint) == (bundle.uri, "f")


def test_a_pointer_that_cannot_be_read_is_refused_before_anything_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, store = make_bundle(tmp_path / "one"), tmp_path / "store"
    latest = tmp_path / "latest.json"
    latest.write_text('{"bundle": 3}')
    with pytest.raises(SystemExit) as ended:
        main(["publish", bundle, "--store", str(store), "--latest", str(latest)])
    assert ended.value.code == 2
    assert str(latest) in capsys.readouterr().err
    assert not (store / "models").exists() and latest.read_text() == '{"bundle": 3}'
