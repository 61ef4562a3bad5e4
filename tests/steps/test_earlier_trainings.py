"""What a store has of other trainings: found by one listing, in folders and in buckets, damaged ones left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.config.schema import Config
from kubeyolo.steps.earlier_trainings import earlier_trainings
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import TrainingState, write_checkpoint
from kubeyolo.training.result import RESULT_NAME, TrainingResult
from kubeyolo.training.spec import TrainingSpec

MODEL = "yolov5n-r7"
TEN, TWENTY = {"train.max_epoch": 10}, {"train.max_epoch": 20}


def leave(store: str, digits: str, identity: dict[str, Any], steps: tuple[int, ...], result: Any = None) -> None:
    place = Place.of(f"{store}/trainings/{MODEL}-{digits:0>12}").store
    for step in steps:
        write_checkpoint(place, TrainingState(step=step, identity=identity, weights={"w": np.ones(1, np.float32)}))
    if result is not None:
        document = TrainingResult(identity=result, code_digest="", steps=1, bundle="", seconds=1.0, resumed_at=[])
        place.write_bytes(RESULT_NAME, document.model_dump_json().encode())


def found(store: str, digits: str) -> set[tuple[str, int, bool]]:
    output = f"{store}/trainings/{MODEL}-{digits:0>12}"
    spec = TrainingSpec(dataset="d", output=output, config=Config(model=MODEL))
    return {
        (each.output.uri[-1], each.step, each.is_finished) for each in earlier_trainings(spec, Place.of(spec.output))
    }


def check(store: str) -> None:
    assert found(store, "f") == set()
    leave(store, "1", TEN, (3, 6))
    leave(store, "2", TEN, (9,), TEN)
    # Finished, and an extension of it is not.
    leave(store, "3", TWENTY, (12,), TEN)
    room = Place.of(f"{store}/trainings").store
    room.write_bytes(f"{MODEL}-00000000000d/checkpoints/step-00000009/checkpoint.json", b"{")
    room.write_bytes(f"{MODEL}-00000000000e/{RESULT_NAME}", b"[]")
    room.write_bytes("other-000000000001/checkpoints/step-00000009/checkpoint.json", b"{}")
    room.write_bytes(f"{MODEL}-mine/checkpoints/step-00000009/checkpoint.json", b"{}")
    assert found(store, "f") == {("1", 6, False), ("2", 9, True), ("3", 12, False)}
    # A place that holds something goes on with that.
    assert found(store, "1") == set()


def test_trainings_in_a_folder(tmp_path: Path) -> None:
    check(str(tmp_path / "a store"))


def test_trainings_in_a_bucket(minio_bucket: str) -> None:
    check(f"{minio_bucket}/store" if "://" in minio_bucket else f"minio://{minio_bucket}/store")


def test_an_output_of_ones_own_is_looked_at_by_nobody(tmp_path: Path) -> None:
    leave(str(tmp_path), "1", TEN, (3,))
    for output in (tmp_path / "mine", tmp_path / "trainings" / "mine"):
        spec = TrainingSpec(dataset="d", output=str(output), config=Config(model=MODEL))
        assert earlier_trainings(spec, Place.of(spec.output)) == []
