"""What holds for every store, whatever lies behind it."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.base import PART_SUFFIX, NotFound, Store
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place
from tests.minio_server import MinioServer

AWKWARD_KEYS = [
    "plain",
    "a b/c+d.txt",
    "100%/%41/é.jpg",
    "x#y?z=1&t",
    "日本/ü~",
    "quote'\"<>&",
    "back\\slash",
    "..dots../...",
    " lead and trail ",
    "n" * 255 + "/deep/" + "d/" * 20 + "end",
]
REFUSED_KEYS = ["", "/etc/passwd", "../up", "a/../../up", "a/./b", "a//b", "a/", "line\nbreak", "nul\0", "n" * 256]


def test_bytes_come_back_as_they_were_written(store: Store) -> None:
    for data in (b"", b"hello", os.urandom(300_000)):
        store.write_bytes("folder/name.bin", data)
        assert store.read_bytes("folder/name.bin") == data


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_awkward_keys_are_kept_apart_and_listed(store: Store, key: str) -> None:
    store.write_bytes(key, b"first")
    assert not store.create_bytes(key, b"created")
    assert store.replace_bytes(key, key.encode(), store.read_version(key)[1])
    assert store.create_bytes("other", b"other")
    assert store.read_bytes(key) == key.encode()
    assert sorted([key, "other"]) == [stored.key for stored in store.list()]
    assert Place.of(store.uri_of(key)).read() == key.encode()


@pytest.mark.parametrize("key", REFUSED_KEYS)
def test_keys_that_leave_the_root_or_cannot_be_stored_are_refused(store: Store, tmp_path: Path, key: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for work in (
        lambda: store.write_bytes(key, b"x"),
        lambda: store.create_bytes(key, b"x"),
        lambda: store.replace_bytes(key, b"x", "etag"),
        lambda: store.read_bytes(key),
        lambda: store.read_version(key),
        lambda: store.put_file(file, key),
        lambda: store.get_file(key, tmp_path / "out"),
        lambda: store.exists(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(InputError, match="is not a key of a store"):
            work()
    if key:
        with pytest.raises(InputError, match="is not a key of a store"):
            store.child(key)
    assert store.list() == []


def test_a_missing_object_is_not_found_and_named(store: Store, tmp_path: Path) -> None:
    store.write_bytes("a", b"1")
    for key in ("nothing/here", "a/below-a-file"):
        assert not store.exists(key)
        with pytest.raises(NotFound, match=key):
            store.read_bytes(key)
        with pytest.raises(NotFound, match=key):
            store.read_version(key)
        assert not store.replace_bytes(key, b"x", sha256_bytes(b"1"))
        with pytest.raises(NotFound, match=key):
            store.get_file(key, tmp_path / "out")
    with pytest.raises(NotFound, match=re.escape(store.uri_of("nothing"))):
        store.get_tree("nothing", tmp_path / "out")
    with pytest.raises(NotFound, match=f"^{tmp_path}/absent: "):
        store.put_file(tmp_path / "absent", "a")
    assert not (tmp_path / "out").exists()
    assert store.read_bytes("a") == b"1"


def test_listing_is_sorted_deep_and_by_folder(store: Store) -> None:
    for key in ("b/2", "b/10", "a", "bb/1", "b/c/d", "Z"):
        store.write_bytes(key, key.encode())
    assert [stored.key for stored in store.list()] == ["Z", "a", "b/10", "b/2", "b/c/d", "bb/1"]
    assert [stored.key for stored in store.list("b")] == ["b/10", "b/2", "b/c/d"]
    assert [stored.size for stored in store.list("b")] == [4, 3, 5]
    assert store.list("nothing") == store.list("a") == []
    assert store.exists("b/2") and not store.exists("b")


def test_an_etag_changes_with_the_content(store: Store) -> None:
    store.write_bytes("a", b"one")
    (first,) = store.list()
    (again,) = store.list()
    store.write_bytes("a", b"three")
    (second,) = store.list()
    assert first.etag == again.etag != second.etag


def test_a_child_is_a_folder_of_its_parent(store: Store) -> None:
    child = store.child("runs/one")
    child.write_bytes("x/y", b"data")
    assert store.read_bytes("runs/one/x/y") == b"data"
    assert child.uri == store.uri_of("runs/one") == f"{store.uri}/runs/one"
    assert [stored.key for stored in child.list()] == ["x/y"]
    assert [stored.key for stored in child.list("x")] == ["x/y"]
    assert Place.of(child.uri).store.read_bytes("x/y") == b"data"


def test_a_store_can_be_sent_to_another_process(store: Store) -> None:
    store.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("a") == b"1"


def test_files_round_trip_with_their_sha256(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    counted: list[int] = []
    for size in (0, 1, 2_500_000):
        source.write_bytes(os.urandom(size))
        counted.clear()
        assert store.put_file(source, "k/file", counted.append) == sha256_bytes(source.read_bytes())
        assert sum(counted) == size
        counted.clear()
        store.get_file("k/file", tmp_path / "new" / "folder" / "copy", counted.append)
        assert (tmp_path / "new/folder/copy").read_bytes() == source.read_bytes()
        assert sum(counted) == size


def test_a_tree_round_trips(store: Store, tmp_path: Path) -> None:
    files = {f"d{i % 3}/é {i}.bin": os.urandom(1000 * i) for i in range(40)}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / f".half{PART_SUFFIX}").write_bytes(b"a writer was killed here")
    store.put_tree(tmp_path / "in", "tree")
    assert [stored.key for stored in store.list("tree")] == sorted(f"tree/{name}" for name in files)
    store.get_tree("tree", tmp_path / "out")
    assert {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in _files(tmp_path / "out")} == files


def test_deleting_is_complete_and_may_be_repeated(store: Store) -> None:
    for key in ("t/a", "t/b/c", "tt", "m"):
        store.write_bytes(key, b"1")
    store.delete("m")
    store.delete("m")
    store.delete("t/a/below-a-file")
    store.delete_tree("t", first="a")
    store.delete_tree("t")
    assert [stored.key for stored in store.list()] == ["tt"]


@pytest.mark.parametrize("is_changed", [True, False])
def test_the_last_file_is_written_after_all_others_and_an_old_one_is_removed_before_others_change(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_changed: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("bundle.json", *(f"f{i}" for i in range(6))):
        (source / name).write_bytes(b"new")
    store.write_bytes("out/bundle.json", b"old")
    store.write_bytes("out/f0", b"old" if is_changed else b"new")
    put_file = type(store).put_file
    visible: list[tuple[str, bool]] = []
    lock = threading.Lock()

    def watched(self: Store, path: Path, key: str, on_bytes: object = None) -> str:
        with lock:
            visible.append((key, store.exists("out/bundle.json")))
        return put_file(self, path, key)

    monkeypatch.setattr(type(store), "put_file", watched)
    store.put_tree(source, "out", last="bundle.json")
    assert [seen for _, seen in visible] == [not is_changed] * 7
    assert visible[-1][0] == "out/bundle.json" and len(store.list("out")) == 7
    assert store.read_bytes("out/bundle.json") == b"new"


def test_an_object_is_created_once_and_replaced_by_its_etag(store: Store) -> None:
    assert store.create_bytes("deep/k", b"one")
    assert not store.create_bytes("deep/k", b"one")
    assert not store.create_bytes("deep/k", b"other")
    content, etag = store.read_version("deep/k")
    assert (content, store.read_bytes("deep/k")) == (b"one", b"one")
    assert store.replace_bytes("deep/k", b"two", etag)
    assert not store.replace_bytes("deep/k", b"three", etag)
    assert store.read_version("deep/k")[0] == b"two"
    assert store.read_version("deep/k")[1] != etag
    store.delete("deep/k")
    assert not store.replace_bytes("deep/k", b"four", etag)
    assert not store.exists("deep/k")
    assert store.create_bytes("deep/k", b"")
    assert store.read_version("deep/k")[0] == b""
    assert [stored.key for stored in store.list()] == ["deep/k"]


def test_of_eight_threads_that_create_an_object_one_does(store: Store) -> None:
    for turn in range(10):
        barrier = threading.Barrier(8)

        def create(number: int, key: str = f"k{turn}", barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.create_bytes(key, b"content of %d" % number)

        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(create, range(8)))
        assert sum(created) == 1
        assert store.read_bytes(f"k{turn}") == b"content of %d" % created.index(True)


def test_of_eight_threads_that_replace_the_same_content_one_does(store: Store) -> None:
    store.write_bytes("k", b"before")
    for _ in range(10):
        barrier = threading.Barrier(8)
        etag = store.read_version("k")[1]

        def replace(number: int, etag: str = etag, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.replace_bytes("k", b"content of %d, %s" % (number, os.urandom(4)), etag)

        with ThreadPoolExecutor(8) as pool:
            replaced = list(pool.map(replace, range(8)))
        assert sum(replaced) == 1
        assert store.read_bytes("k").startswith(b"content of %d," % replaced.index(True))


COUNTER = """
import sys
from kubeyolo.storage.place import Place
store = Place.of(sys.argv[1]).store
print("ready", flush=True)
sys.stdin.readline()
created = store.create_bytes("first", sys.argv[2].encode())
print(f"created {created}", flush=True)
for _ in range(10):
    done = False
    while not done:
        content, etag = store.read_version("count")
        done = store.replace_bytes("count", str(int(content) + 1).encode(), etag)
"""


def test_processes_that_count_with_compare_and_swap_lose_no_count(store_uri: str, store: Store) -> None:
    store.write_bytes("count", b"0")
    commands = [[sys.executable, "-c", COUNTER, store_uri, str(number)] for number in range(8)]
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [stack.enter_context(subprocess.Popen(command, **pipes)) for command in commands]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.stdout.read() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert store.read_bytes("count") == b"80"
    (creator,) = (number for number, output in enumerate(outputs) if output == "created True\n")
    assert store.read_bytes("first") == str(creator).encode()


def test_a_tree_without_its_last_file_is_refused_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(InputError, match=r"there is no bundle\.json"):
        store.put_tree(tmp_path, "out", last="bundle.json")
    with pytest.raises(InputError, match="there is no such folder"):
        store.put_tree(tmp_path / "absent", "out")
    assert store.list() == []


def test_a_reader_sees_old_or_new_content_while_it_is_replaced(store: Store, tmp_path: Path) -> None:
    contents = [bytes([value]) * 400_000 for value in (1, 2)]
    store.write_bytes("k", contents[0])
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            store.write_bytes("k", contents[turn % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {store.read_bytes("k") for _ in range(30)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(contents)


WRITER = """
import sys, threading, time
from pathlib import Path
from kubeyolo.storage.place import Place
uri, folder, seconds = sys.argv[1:]
store = Place.of(uri).store
store._part_size = 5 << 20
moved, said = 0, threading.Event()
def pause(count):
    global moved
    moved += count
    if moved > 6 << 20 and not said.is_set():
        said.set()
        print("half", flush=True)
        time.sleep(float(seconds))
store.put_tree(Path(folder), "step", last="manifest.json", on_bytes=pause)
"""


def _interrupted_put_tree(uri: str, folder: Path, signal: str) -> None:
    """Store a folder in another process and end it when some 6 MiB of a file have been moved."""
    (folder / "big").write_bytes(os.urandom(16 << 20))
    (folder / "manifest.json").write_bytes(b"{}")
    command = [sys.executable, "-c", WRITER, uri, str(folder), "60" if signal == "KILL" else "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        process.kill() if signal == "KILL" else process.send_signal(2)
        process.wait(30)
        assert process.returncode != 0


@pytest.mark.parametrize("signal", ["KILL", "INT"])
def test_a_writer_that_is_killed_leaves_the_old_object_and_no_half_one(
    store_uri: str, store: Store, tmp_path: Path, signal: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    store.write_bytes("step/big", b"old")
    _interrupted_put_tree(store_uri, source, signal)
    assert [stored.key for stored in store.list()] == ["step/big"]
    assert store.read_bytes("step/big") == b"old"
    store.put_tree(source, "step", last="manifest.json")
    assert store.read_bytes("step/big") == (source / "big").read_bytes()
    assert store.exists("step/manifest.json")


def test_an_interrupted_upload_gives_up_its_parts(minio_bucket: str, minio_server: MinioServer, tmp_path: Path) -> None:
    _interrupted_put_tree(f"minio://{minio_bucket}/p", tmp_path, "INT")
    assert minio_server.client._list_multipart_uploads(minio_bucket, prefix="p/step/big").uploads == []


def test_documents_are_addressed_by_uri(store_uri: str) -> None:
    Place.of(f"{store_uri}/runs/summary.json").write(b"{}")
    assert Place.of(f"{store_uri}/runs/summary.json").read() == b"{}"
    with pytest.raises(NotFound):
        Place.of(f"{store_uri}/runs/other.json").read()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
