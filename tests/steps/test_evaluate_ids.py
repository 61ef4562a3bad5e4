"""Detections are written with the ids that the annotations have."""

from __future__ import annotations

import json
from pathlib import Path

from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.steps.compare import index_ids
from kubeyolo.steps.evaluate import own_ids
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.steps.called import pretrain_backbone, validate_dataset


def test_ids_that_are_texts_come_back(tmp_path: Path) -> None:
    data = generate_sample_dataset(tmp_path / "shapes", train=3, val=3, image_size=(96, 96))
    for split in ("train", "val"):
        path = data / f"annotations/{split}.json"
        document = json.loads(path.read_text())
        names = {category["id"]: f"k{9 - category['id']}" for category in document["categories"]}
        for category in document["categories"]:
            category["id"] = names[category["id"]]
        for image in document["images"]:
            image["id"] = f"frame {image['id']}"
        for box in document["annotations"]:
            box.update(image_id=f"frame {box['image_id']}", category_id=names[box["category_id"]])
        path.write_text(json.dumps(document))
    dataset = open_dataset(Place.of(validate_dataset(str(data), str(tmp_path / "store")).dataset))
    index = dataset.split("val").index
    truth = {(row["image_id"], row["category_id"]) for row in document["annotations"]}
    rows = [
        {
            "image_id": image,
            "category_id": dataset.manifest.category_ids[number],
            "bbox": [0.0, 0.0, 1.0, 1.0],
            "score": 1,
        }
        for image, number in zip(index.image_id[index.box_image()].tolist(), index.box_class.tolist(), strict=True)
    ]
    found = own_ids(rows, index, dataset.manifest)  # type: ignore[arg-type]
    assert {(row["image_id"], row["category_id"]) for row in found} == truth
    assert all(row["score"] == 1 for row in found)
    # A comparison reads them again.
    assert index_ids([dict(row) for row in found], index, dataset.manifest) == rows


def test_objects_too_small_to_pretrain_on_are_said_and_the_run_goes_on(tmp_path: Path) -> None:
    data = generate_sample_dataset(tmp_path / "shapes", train=3, val=3, image_size=(96, 96))
    dataset = validate_dataset(str(data), str(tmp_path / "store")).dataset
    config = load_config(sets=["pretrain.min_object_size=8192"])
    outcome = pretrain_backbone(dataset, (tmp_path / "out").as_uri(), config)
    assert outcome.backbone == ""
    (warning,) = read_record(Place.of(outcome.record)).metrics["warnings"]
    assert "continues without pretraining: no object of split 'train' is at least 8192 pixels" in warning
