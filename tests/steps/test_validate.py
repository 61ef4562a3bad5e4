"""validate_dataset: what is stored, and what is said of a data set that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.steps.record import read_record
from kubeyolo.steps.validate import validate_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return generate_sample_dataset(tmp_path / "shapes", train=4, val=2, image_size=(96, 96))


def test_a_data_set_is_stored_with_record_and_report(data: Path, tmp_path: Path) -> None:
    outcome = validate_dataset(str(data), str(tmp_path / "store"))
    assert outcome.images == {"train": 4, "val": 2}
    assert outcome.dataset.endswith(f"/datasets/shapes-{outcome.digest[:12]}")
    record = read_record(outcome.record)
    assert record.outputs == {"dataset": outcome.dataset, "digest": outcome.digest}
    assert record.metrics["train_images"] == 4
    assert record.metrics["train_boxes"] == outcome.boxes["train"] > 0
    report = (tmp_path / "store" / "datasets" / f"shapes-{outcome.digest[:12]}" / "report.html").read_text()
    assert "data:image/jpeg;base64," in report
    assert all(name in report for name in outcome.classes)


def test_the_same_content_is_the_same_data_set_and_changed_content_another(data: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first = validate_dataset(str(data), store)
    assert validate_dataset(str(data), store).dataset == first.dataset
    path = data / "annotations" / "train.json"
    document = json.loads(path.read_text())
    document["annotations"].pop()
    path.write_text(json.dumps(document))
    assert validate_dataset(str(data), store).digest != first.digest


def test_nothing_is_stored_of_a_bad_data_set(data: Path, tmp_path: Path) -> None:
    image = next((data / "val").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(InputError, match=image.name):
        validate_dataset(str(data), str(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("dataset.json"))
