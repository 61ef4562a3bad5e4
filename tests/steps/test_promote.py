"""Promotion: of several that promote at once, one moves the pointer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo.bundle import open_bundle, read_bundle
from kubeyolo.errors import WorkError
from kubeyolo.pointers import ModelPointer, latest_model, read_model_pointer, read_model_version, write_model_pointer
from kubeyolo.steps import promote
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
