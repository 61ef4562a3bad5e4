"""The shares that several processes have in an evaluation: together they are the evaluation of one process."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.sharing import _POLL_SECONDS, WHOLE, Share
from kubeyolo.evaluation.split_evaluation import detect_split, evaluate_split
from kubeyolo.storage.place import Place
from tests.evaluation.rectangles import RectangleRuntime, RectangleSplit, dataset_manifest
from tests.export.tiny_detector import manifest

BATCH = 2


def batches(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@given(images=st.integers(0, 300), size=st.integers(1, 40), world=st.integers(1, 9))
def test_shares_have_each_batch_of_one_process_exactly_once(images: int, size: int, world: int) -> None:
    of_ranks = [batches(Share(rank, world).numbers(images, size), size) for rank in range(world)]
    assert sorted(batch for each in of_ranks for batch in each) == batches(list(range(images)), size)
    counts = [len(each) for each in of_ranks]
    assert max(counts) - min(counts) <= 1 and counts == sorted(counts, reverse=True)
    assert WHOLE.numbers(images, size) == list(range(images))


def test_the_images_of_another_rank_can_be_asked_for() -> None:
    assert Share(0, 3).numbers(8, 2, rank=2) == Share(2, 3).numbers(8, 2) == [4, 5]


class Ranks:
    """Processes that evaluate one split one after another, the first last: it waits for the others."""

    def __init__(self, folder: Path | str, world: int, images: int = 11, digest: str = "d") -> None:
        self.split = RectangleSplit(images)
        self.runtime = RectangleRuntime()
        self.shares = [Share(rank, world, Place.of(folder), digest) for rank in range(world)]
        self._predictor = Predictor(manifest(), self.runtime, batch_size=BATCH)

    def detect(self, rank: int) -> list[int]:
        """Detect as one process; return the images that were read."""
        self.split.read.clear()
        share = self.shares[rank]
        detect_split(self._predictor, self.split, dataset_manifest(), EvaluateConfig(), False, share)  # type: ignore[arg-type]
        return sorted(self.split.read)

    def evaluate(self, share: Share | None = None) -> tuple[object, list[Detection]]:
        """Evaluate as process 0, or with a share of its own."""
        share = share or self.shares[0]
        return evaluate_split(self._predictor, self.split, dataset_manifest(), EvaluateConfig(), False, share)  # type: ignore[arg-type]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_several_processes_give_the_result_and_the_order_of_one(tmp_path: Path, world: int) -> None:
    ranks = Ranks(tmp_path, world)
    for rank in range(1, world):
        ranks.detect(rank)
    shared, alone = ranks.evaluate(), ranks.evaluate(WHOLE)
    assert shared == alone and len(alone[1]) == 11
    assert len(list((tmp_path / "shares").iterdir())) == world
    ranks.shares[0].clear()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_process_alone_stores_no_share(tmp_path: Path) -> None:
    Ranks(tmp_path, 1).evaluate()
    assert list(tmp_path.iterdir()) == []


def test_a_stored_share_is_not_evaluated_again(tmp_path: Path) -> None:
    assert Ranks(tmp_path, 2).detect(1) == [2, 3, 6, 7, 10]
    assert Ranks(tmp_path, 2).detect(1) == []
    # Of other settings, or of another number of processes.
    assert Ranks(tmp_path, 2, digest="e").detect(1) == [2, 3, 6, 7, 10]
    assert Ranks(tmp_path, 3).detect(1) == [2, 3, 8, 9]


Change = Callable[[dict[str, Any]], Any]


def changed(key: str, value: Any) -> Change:
    """Change a key of the first detection."""
    return lambda document: {**document, "detections": [{**document["detections"][0], key: value}]}


UNUSABLE: dict[str, bytes | Change] = {
    "empty": b"",
    "cut": b'{"images":[3,4,7],"det',
    "a page": b"<html>Error</html>",
    "not text": b"\xff\xfe",
    "nested": b"[" * 100_000,
    "null": b"null",
    "a list": b"[]",
    "no images": lambda document: {"detections": document["detections"]},
    "no detections": lambda document: {"images": document["images"]},
    "detections null": lambda document: {**document, "detections": None},
    "detections a text": lambda document: {**document, "detections": "ab"},
    "fewer images": lambda document: {**document, "images": document["images"][:-1]},
    "a row null": lambda document: {**document, "detections": [None]},
    "a row without keys": lambda document: {**document, "detections": [{}]},
    "an image of process 0": changed("image_id", 1),
    "an unknown image": changed("image_id", 10**6),
    "an image as a text": changed("image_id", "3"),
    "an image as a list": changed("image_id", [3]),
    "a category as a list": changed("category_id", [1]),
    "three numbers": changed("bbox", [1.0, 2.0, 3.0]),
    "a box of texts": changed("bbox", ["1", "2", "3", "4"]),
    "no score": changed("score", None),
}


def spoil(folder: Path, how: bytes | Change) -> Path:
    """Replace the content of the only stored share."""
    (file,) = (folder / "shares").iterdir()
    file.write_bytes(how if isinstance(how, bytes) else orjson.dumps(how(orjson.loads(file.read_bytes()))))
    return file


@pytest.mark.parametrize("how", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_share_of_this_process_is_evaluated_again(
    tmp_path: Path, how: bytes | Change, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Ranks(tmp_path, 2).detect(1) == [2, 3, 6, 7, 10]
    (file,) = (tmp_path / "shares").iterdir()
    usable = file.read_bytes()
    spoil(tmp_path, how)
    assert Ranks(tmp_path, 2).detect(1) == [2, 3, 6, 7, 10]
    assert file.read_bytes() == usable
    assert f"{file.name}: " in (out := capsys.readouterr().out) and "evaluating this share again" in out
    assert Ranks(tmp_path, 2).detect(1) == []


@pytest.mark.parametrize("how", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_share_of_another_process_is_named(
    tmp_path: Path, how: bytes | Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeyolo.evaluation.sharing._REPLACE_SECONDS", 0.0)
    ranks = Ranks(tmp_path, 2)
    ranks.detect(1)
    file = spoil(tmp_path, how)
    with pytest.raises(WorkError, match=rf"{file.name}: .* of process 1; delete this file"):
        ranks.evaluate()


def test_process_0_waits_until_another_process_has_replaced_its_unusable_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = Ranks(tmp_path, 2)
    ranks.detect(1)
    spoil(tmp_path, b"")
    waits = []

    def sleep(seconds: float) -> None:
        if seconds == _POLL_SECONDS:  # Other threads sleep as well.
            waits.append(seconds)
            ranks.detect(1)

    monkeypatch.setattr("kubeyolo.evaluation.sharing.time.sleep", sleep)
    assert ranks.evaluate() == ranks.evaluate(WHOLE)
    assert len(waits) == 1


def test_a_share_whose_content_does_not_match_its_checksum_is_evaluated_again(minio_bucket: str) -> None:
    ranks = Ranks(f"minio://{minio_bucket}/out", 2)
    ranks.detect(1)
    name = ranks.shares[1].folder / "shares" / "d-1-of-2.json"
    client = name.parent.store._client  # type: ignore[attr-defined]
    key = name.uri.removeprefix(f"minio://{minio_bucket}/")
    client.put_object(minio_bucket, key, io.BytesIO(b"{}"), 2, metadata={"sha256": "0" * 64})
    with pytest.raises(InputError, match="does not match its checksum"):
        name.read()
    assert ranks.detect(1) == [2, 3, 6, 7, 10]
    assert ranks.detect(1) == []


def test_process_0_waits_for_a_share_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks, waits = Ranks(tmp_path, 2), []

    def sleep(seconds: float) -> None:
        if seconds != _POLL_SECONDS:  # Other threads sleep as well.
            return
        waits.append(seconds)
        if len(waits) == 2:
            ranks.detect(1)

    monkeypatch.setattr("kubeyolo.evaluation.sharing.time.sleep", sleep)
    monkeypatch.setattr("kubeyolo.evaluation.sharing._REPORT_SECONDS", 0.0)
    assert len(ranks.evaluate()[1]) == 11
    assert len(waits) == 2 and "waiting for the share of process 1 of 2" in capsys.readouterr().out
