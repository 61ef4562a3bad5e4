"""validate_dataset: what is stored, and what is said of a data set that cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest

from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.digest import source_facts
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.steps.record import read_record
from kubeyolo.steps.validate import validate_dataset
from kubeyolo.storage.reference import split_reference


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return generate_sample_dataset(tmp_path / "shapes", train=4, val=2, image_size=(96, 96))


def test_a_data_set_is_stored_with_record_and_report(data: Path, tmp_path: Path) -> None:
    outcome = validate_dataset(str(data), str(tmp_path / "store"))
    folder = tmp_path / "store" / "datasets" / f"shapes-{outcome.digest[:12]}"
    assert split_reference(outcome.dataset) == (folder.as_uri(), outcome.digest)
    record = read_record(outcome.record)
    assert record.outputs == {"dataset": outcome.dataset, "digest": outcome.digest}
    manifest = open_dataset(outcome.dataset).manifest
    assert (record.metrics["train_images"], record.metrics["val_images"]) == (4, 2)
    assert record.metrics["train_boxes"] == manifest.splits["train"].boxes > 0
    assert record.metrics["classes"] == len(manifest.classes)
    report = (folder / "report.html").read_text()
    assert "data:image/jpeg;base64," in report
    assert all(name in report for name in manifest.classes)


def test_record_and_report_may_be_elsewhere_and_the_data_is_then_read_once(data: Path, tmp_path: Path) -> None:
    store, output = str(tmp_path / "store"), (tmp_path / "results").as_uri()
    first = validate_dataset(str(data), store, output)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["metrics.json", "report.html"]
    shutil.rmtree(data)
    assert validate_dataset(str(data), store, output) == first


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


def test_data_that_changed_after_the_run_began_is_refused(data: Path, tmp_path: Path) -> None:
    begun_with = source_facts(data).fingerprint
    store, output = str(tmp_path / "store"), (tmp_path / "results").as_uri()
    image = next((data / "train").iterdir())
    content = image.read_bytes()
    cv2.imwrite(str(image), 0 * cv2.imread(str(image)))
    with pytest.raises(WorkError, match="shapes: the data changed after the run began; run it again"):
        validate_dataset(str(data), store, output, begun_with)
    assert not (tmp_path / "results" / "metrics.json").exists()
    image.write_bytes(content)
    assert validate_dataset(str(data), store, output, begun_with).digest == validate_dataset(str(data), store).digest
