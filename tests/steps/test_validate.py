"""validate_dataset: what is stored, and what is said of a data set that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.digest import source_facts
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.steps.called import validate_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return generate_sample_dataset(tmp_path / "shapes", train=4, val=2, image_size=(96, 96))


def test_a_data_set_is_stored_with_record_and_report(data: Path, tmp_path: Path) -> None:
    outcome = validate_dataset(str(data), str(tmp_path / "store"))
    folder = tmp_path / "store" / "datasets" / f"shapes-{outcome.digest[:12]}"
    assert Place.of(outcome.dataset) == Place.of(folder).pinned(outcome.digest)
    record = read_record(Place.of(outcome.record))
    assert record.outputs == {"dataset": outcome.dataset, "digest": outcome.digest}
    manifest = open_dataset(Place.of(outcome.dataset)).manifest
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
    with pytest.raises(WorkError, match="shapes: the data changed after the run started; run it again"):
        validate_dataset(str(data), store, output, begun_with)
    assert not (tmp_path / "results" / "metrics.json").exists()
    image.write_bytes(content)
    assert validate_dataset(str(data), store, output, begun_with).digest == validate_dataset(str(data), store).digest


def change_train(data: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change the annotations of train and return them as they were."""
    path = data / "annotations" / "train.json"
    document = json.loads(path.read_text())
    before = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return before


def double_first_box(document: dict[str, Any]) -> None:
    document["annotations"].append({**document["annotations"][0], "id": 999})


def test_findings_are_in_record_manifest_and_report(data: Path, tmp_path: Path) -> None:
    change_train(data, double_first_box)
    outcome = validate_dataset(str(data), str(tmp_path / "store"))
    (finding,) = open_dataset(Place.of(outcome.dataset)).manifest.findings
    assert (finding.code, finding.action, finding.count) == ("box_double", "mend", 1)
    assert "annotation 999" in finding.first
    record = read_record(Place.of(outcome.record))
    assert record.metrics["findings_count"] == 1
    assert record.metrics["findings"][0] | finding.model_dump() == record.metrics["findings"][0]
    report = (tmp_path / "store/datasets" / f"shapes-{outcome.digest[:12]}" / "report.html").read_text()
    assert 'data-code="box_double"' in report
    assert report.index('id="findings"') < report.index('id="splits"')


def test_what_is_mended_gives_the_same_content_and_the_last_findings(data: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    clean = validate_dataset(str(data), store)
    assert open_dataset(Place.of(clean.dataset)).manifest.findings == ()
    change_train(data, double_first_box)
    mended = validate_dataset(str(data), store)
    assert mended.dataset == clean.dataset
    assert [finding.code for finding in open_dataset(Place.of(clean.dataset)).manifest.findings] == ["box_double"]


@pytest.mark.parametrize("pair", ["data.strict=true", "data.findings.box_double=refuse"])
def test_a_finding_that_is_refused_stores_nothing(data: Path, tmp_path: Path, pair: str) -> None:
    change_train(data, double_first_box)
    with pytest.raises(InputError, match=r"annotation 999 .*\[box_double\]"):
        validate_dataset(str(data), str(tmp_path / "store"), config=load_config(sets=[pair]))
    assert not list((tmp_path / "store").rglob("*.tar"))


def test_images_are_left_out_on_request_with_their_boxes(data: Path, tmp_path: Path) -> None:
    document = json.loads((data / "annotations/train.json").read_text())
    gone = document["images"][1]
    (data / "train" / gone["file_name"]).unlink()
    with pytest.raises(InputError, match=rf"{gone['file_name']} \(image {gone['id']} of train.json\) is missing"):
        validate_dataset(str(data), str(tmp_path / "store"))
    config = load_config(sets=["data.findings.image_missing=mend"])
    dataset = open_dataset(Place.of(validate_dataset(str(data), str(tmp_path / "store"), config=config).dataset))
    index = dataset.split("train").index
    assert gone["file_name"] not in index.file_name and len(index) == len(document["images"]) - 1
    kept = [box for box in document["annotations"] if box["image_id"] != gone["id"]]
    assert sorted(index.box_id.tolist()) == sorted(box["id"] for box in kept)
    for i in range(len(index)):
        assert dataset.split("train").read_image(i).shape[:2] == (index.height[i], index.width[i])
    assert dataset.manifest.findings[0].count == 1


def test_boxes_of_images_of_another_scale_are_scaled_on_request(data: Path, tmp_path: Path) -> None:
    def double(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image.update(width=2 * image["width"], height=2 * image["height"])
        for box in document["annotations"]:
            box.update(bbox=[2 * value for value in box["bbox"]], area=4 * box["area"])

    expected = open_dataset(Place.of(validate_dataset(str(data), str(tmp_path / "a")).dataset)).split("train").index
    change_train(data, double)
    with pytest.raises(InputError, match=r"pixels, but the annotations have .*\[size_scaled\]"):
        validate_dataset(str(data), str(tmp_path / "b"))
    config = load_config(sets=["data.findings.size_scaled=mend"])
    index = (
        open_dataset(Place.of(validate_dataset(str(data), str(tmp_path / "b"), config=config).dataset))
        .split("train")
        .index
    )
    np.testing.assert_allclose(index.box_xywh, expected.box_xywh, atol=1e-9)
    np.testing.assert_allclose(index.box_area, expected.box_area, atol=1e-9)
    assert index.width.tolist() == expected.width.tolist()


def test_the_split_that_is_evaluated_needs_boxes(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "val", data / "test")
    document = json.loads((data / "annotations/val.json").read_text())
    (data / "annotations/test.json").write_text(json.dumps({**document, "annotations": []}))
    assert validate_dataset(str(data), str(tmp_path / "store")).digest
    with pytest.raises(InputError, match="split 'test' has no boxes"):
        validate_dataset(str(data), str(tmp_path / "other"), config=load_config(sets=["evaluate.split=test"]))
