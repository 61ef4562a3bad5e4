"""Pairs of writers of the same place at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kubeyolo.bundle import MANIFEST_NAME, WEIGHTS, BundleManifest, open_bundle
from kubeyolo.pointers import ModelPointer, PointerMoved, read_model_version, write_model_pointer
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.copy import copy_tree
from kubeyolo.storage.place import Place

PAIRS = 10


@pytest.fixture(autouse=True)
def cache(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a cache of the test's own, after the server was found in the usual one."""
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))


def at_once(*works: Callable[[], object]) -> list[object]:
    """Run works in threads that start together, and return their results or errors."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return work()
        except PointerMoved as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_of_two_that_move_a_pointer_one_moves_it_and_the_other_is_told(store_uri: str) -> None:
    latest = f"{store_uri}/latest.json"
    for number in range(PAIRS):
        etag = read_model_version(Place.of(latest)).etag
        pointers = [ModelPointer(bundle=Place.of(f"{store_uri}/{number}-{name}").uri) for name in "ab"]

        def mover(pointer: ModelPointer, etag: str | None = etag) -> Callable[[], None]:
            return lambda: write_model_pointer(Place.of(latest), pointer, etag)

        results = at_once(*map(mover, pointers))
        assert results.count(None) == 1
        winner, loser = pointers if results[0] is None else pointers[::-1]
        assert read_model_version(Place.of(latest)).pointer == winner
        assert f"it names {winner.bundle}, not {loser.bundle}" in str(results[1 - results.index(None)])
    keys = [stored.key for stored in Place.of(store_uri).store.list()]
    assert keys == ["latest.json"]


def test_of_two_copies_to_one_place_the_bundle_of_one_is_whole(store_uri: str, tmp_path: Path) -> None:
    sources = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / WEIGHTS).write_text(name * 100_000)
        manifest = BundleManifest(
            model="yolov5n-r7",
            classes=("cat",),
            image_size=(64, 64),
            strides=(8, 16, 32),
            anchors=(((1.0, 2.0),),) * 3,
        )
        sources.append(str(tmp_path / f"bundle-{name}"))
        publish_bundle(Place.of(sources[-1]), manifest, {WEIGHTS: tmp_path / name / WEIGHTS})

    def copier(source: str, target: str) -> Callable[[], object]:
        return lambda: copy_tree(source, target, (MANIFEST_NAME,))

    for number in range(PAIRS // 3):
        target = f"{store_uri}/{number}"
        at_once(*(copier(source, target) for source in sources))
        copied = open_bundle(Place.of(target))
        assert copied.path(WEIGHTS).read_text() in ("a" * 100_000, "b" * 100_000)
        names = {stored.key.rpartition("/")[2] for stored in Place.of(target).store.list()}
        assert names == {MANIFEST_NAME, WEIGHTS}
