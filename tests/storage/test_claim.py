"""One process at a time works in a claimed output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage import claim as module
from kubeyolo.storage.base import Store
from kubeyolo.storage.claim import CLAIM_NAME, check_claim, claimed
from kubeyolo.storage.copy import copy_tree
from kubeyolo.storage.place import Place

HOLDER = """
import sys, time
from kubeyolo.storage.claim import claimed
from kubeyolo.storage.place import Place
with claimed(Place.of(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

FAR = {"owner": "a", "writer": "a", "process": 7, "host": "far", "machine": "another", "started": "1"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(module, "GONE_SECONDS", 1.0)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)


@pytest.fixture
def holder(store_uri: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, store_uri], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def held_by(store: Store, **changes: Any) -> None:
    store.write_bytes(CLAIM_NAME, json.dumps({**FAR, **changes}).encode())


def test_a_held_place_is_waited_for_and_taken_over_as_soon_as_its_holder_has_died(
    holder: subprocess.Popen[str],
    store: Store,
    store_uri: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SAY_SECONDS", 0.3)
    # Of a process of this machine it is known that it lives, however long it takes.
    threading.Timer(2.0, holder.kill).start()
    begun = time.monotonic()
    with claimed(Place.of(store_uri)):
        assert 1.9 < time.monotonic() - begun < 10
        assert holder.wait(10) < 0
    first, *others, last = capsys.readouterr().out.splitlines()
    who = f"process {holder.pid} on {os.uname().nodename}"
    assert {first, *others} == {f"waiting for {who}, which is working in {store.uri}"} and 2 <= len(others) <= 7
    assert last == f"taking over {store.uri}: {who} ended without releasing its claim"
    with claimed(Place.of(store_uri)):
        pass
    assert capsys.readouterr().out == ""


def test_nothing_of_a_step_is_touched_before_the_place_is_free(holder: subprocess.Popen[str], store_uri: str) -> None:
    from kubeyolo.data.dataset import Dataset
    from kubeyolo.data.manifest import DatasetManifest
    from kubeyolo.launch.launcher import find_launcher
    from kubeyolo.steps import facade
    from kubeyolo.steps.call import StepCall

    def refuse(output: Place) -> None:
        raise InputError("begun")

    output = Place.of(store_uri)
    manifest = DatasetManifest(name="a", source="a", digest="0" * 64, classes=("a",), category_ids=(1,), splits={})
    absent = Dataset(manifest, (output / "absent").pinned(manifest.digest), Path("absent"))
    how = StepCall(store=output, config=load_config(), code="1", output=output, begin=refuse)
    for step in (facade.pretrain_backbone, facade.train):
        done: list[str] = []

        def call(step: Any = step, done: list[str] = done) -> None:
            try:
                step(how, absent, find_launcher())
            except InputError as error:
                done.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(1.0)
        if step is facade.pretrain_backbone:
            assert done == []
            holder.kill()
        thread.join(20)
        assert done == ["begun"]


def test_other_places_and_later_ones_are_free(store: Store, store_uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    def present(place: str) -> tuple[str, bool]:
        claim = json.loads(store.read_bytes(place))
        return claim["owner"], claim["ended"]

    below = f"b/{CLAIM_NAME}"
    with claimed(Place.of(store_uri)) as one, claimed(Place.of(f"{store_uri}/b")) as other:
        assert one.owner != other.owner
        assert (present(CLAIM_NAME), present(below)) == ((one.owner, False), (other.owner, False))
    assert (present(CLAIM_NAME), present(below)) == ((one.owner, True), (other.owner, True))
    with claimed(Place.of(store_uri)) as later:
        assert present(CLAIM_NAME) == (later.owner, False) and later.owner != one.owner
    assert capsys.readouterr().out == ""


def test_a_place_is_the_same_by_every_name_of_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    order: list[str] = []

    def wait() -> None:
        with claimed(Place.of(tmp_path / "link" / "o")):
            order.append("second")

    with claimed(Place.of(tmp_path / "real" / "o")):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_an_owner_on_another_machine_is_waited_for_while_it_beats(store: Store, store_uri: str) -> None:
    held_by(store)
    last: list[float] = []

    def beat() -> None:
        for number in range(1, 9):
            time.sleep(0.3)
            held_by(store, heartbeat=number)
            last.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    with claimed(Place.of(store_uri)):
        taken = time.monotonic()
    thread.join()
    assert len(last) == 8
    assert 0.9 < taken - last[-1] < 5


def test_a_later_process_with_the_id_of_the_owner_is_not_the_owner(
    store: Store, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 60.0)
    held_by(store, process=os.getpid(), machine=module._machine(), started="1")
    begun = time.monotonic()
    with claimed(Place.of(store_uri)):
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("document", [b"", b"no claim", b'{"owner": 3}'])
def test_a_damaged_claim_is_one_without_a_beat(
    store: Store, store_uri: str, document: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write_bytes(CLAIM_NAME, document)
    with claimed(Place.of(store_uri)) as claim:
        assert json.loads(store.read_bytes(CLAIM_NAME))["owner"] == claim.owner
    who = "an unknown process"
    assert capsys.readouterr().out.splitlines() == [
        f"waiting for {who}, which is working in {store.uri}",
        f"taking over {store.uri}: {who} ended without releasing its claim",
    ]


def test_of_many_that_want_a_place_one_works_there_at_a_time(store_uri: str, store: Store) -> None:
    at_work, most, worked = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal at_work, most, worked
        with claimed(Place.of(store_uri)):
            with lock:
                at_work += 1
                most, worked = max(most, at_work), worked + 1
            time.sleep(0.02)
            with lock:
                at_work -= 1

    held_by(store)  # All of them want to take this one over at the same time.
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, worked) == (1, 6)


def test_an_owner_that_lost_its_claim_is_told_and_leaves_it_to_the_other(store: Store, store_uri: str) -> None:
    with claimed(Place.of(store_uri)) as claim:
        before = store.read_bytes(CLAIM_NAME)
        time.sleep(0.5)
        assert json.loads(store.read_bytes(CLAIM_NAME))["heartbeat"] > json.loads(before)["heartbeat"]
        check_claim(store, claim.writer)
        held_by(store)
        time.sleep(0.3)
        with pytest.raises(WorkError, match="process 7 on far took over this output.*nothing more is written"):
            check_claim(store, claim.writer)
    assert json.loads(store.read_bytes(CLAIM_NAME)) == FAR
    held_by(store, ended=True)
    with pytest.raises(WorkError, match="took over this output"):
        check_claim(store, claim.writer)


def test_a_place_that_is_removed_stays_with_its_owner(store: Store, store_uri: str) -> None:
    with claimed(Place.of(store_uri)) as claim:
        store.delete(CLAIM_NAME)
        check_claim(store, claim.writer)
        time.sleep(0.5)
        assert json.loads(store.read_bytes(CLAIM_NAME))["owner"] == claim.owner


def test_a_job_that_outlives_its_owner_may_write_for_the_next_one(store: Store, store_uri: str) -> None:
    held_by(store, writer="volcano run-1")
    with claimed(Place.of(store_uri), "volcano run-1"):
        check_claim(store, "volcano run-1")
        with pytest.raises(WorkError, match=rf"process {os.getpid()} on .* took over this output"):
            check_claim(store, "volcano run-2")
    check_claim(store, "")


def test_of_a_process_that_is_hidden_the_heartbeat_decides(
    store: Store, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with /proc mounted with hidepid, for the processes of other users.
    held_by(store, process=os.getpid(), machine=module._machine(), started=module._start_of(os.getpid()))
    monkeypatch.setattr(module, "_start_of", lambda process: None)
    begun = time.monotonic()
    with claimed(Place.of(store_uri)):
        assert 0.9 < time.monotonic() - begun < 10


def test_time_in_which_the_store_was_away_does_not_count(
    store: Store, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by(store)
    times = []

    def slow(*given: Any) -> Any:
        times.append(time.monotonic())
        if len(times) == 2:
            time.sleep(1.5)
        return read_claim(*given)

    read_claim = module.read_claim
    monkeypatch.setattr(module, "read_claim", slow)
    with claimed(Place.of(store_uri)):
        assert time.monotonic() - times[1] > 2.4


def test_a_copy_has_no_claim(store: Store, store_uri: str, tmp_path: Path) -> None:
    store.write_bytes("a", b"1")
    held_by(store)
    copy_tree(store_uri, str(tmp_path / "copy"))
    copy_tree(str(tmp_path / "copy"), f"{store_uri}/b")
    assert [stored.key for stored in Place.of(tmp_path / "copy").store.list()] == ["a"]
    assert store.exists(CLAIM_NAME) and not store.exists(f"b/{CLAIM_NAME}")


def test_a_claim_that_is_damaged_stays_with_its_owner(store: Store, store_uri: str) -> None:
    with claimed(Place.of(store_uri)) as claim:
        store.write_bytes(CLAIM_NAME, b'{"x')
        check_claim(store, claim.writer)
        time.sleep(0.5)
        assert json.loads(store.read_bytes(CLAIM_NAME))["owner"] == claim.owner


def test_a_claim_that_can_neither_be_read_nor_written_is_named(tmp_path: Path) -> None:
    (tmp_path / CLAIM_NAME).symlink_to("nowhere")
    with (
        pytest.raises(InputError, match=f"{CLAIM_NAME}: can neither be read nor written; remove it"),
        claimed(Place.of(tmp_path)),
    ):
        pass


def test_work_that_is_refused_before_it_has_stored_anything_leaves_no_claim(store: Store, store_uri: str) -> None:
    output = Place.of(f"{store_uri}/trainings/one")
    with pytest.raises(ZeroDivisionError), claimed(output):
        raise ZeroDivisionError
    assert store.list() == []
    here = store.local_path()
    assert here is None or not here.exists()
    with pytest.raises(ZeroDivisionError), claimed(output):
        output.store.write_bytes("checkpoint", b"1")
        raise ZeroDivisionError
    assert [stored.key for stored in output.store.list()] == ["checkpoint", CLAIM_NAME]
    assert json.loads(output.store.read_bytes(CLAIM_NAME))["ended"]


def test_a_claim_that_does_not_stay_is_removed(store: Store, store_uri: str) -> None:
    with claimed(Place.of(store_uri), key="writing.owner", stays=False):
        store.write_bytes("a", b"1")
        assert [stored.key for stored in store.list()] == ["a", "writing.owner"]
    assert [stored.key for stored in store.list()] == ["a"]
