"""Publishing: under a version, with a model card, never over other content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.bundle import MANIFEST_NAME, MODEL_CARD, BundleManifest, open_bundle, read_bundle
from kubeyolo.errors import InputError
from kubeyolo.evaluation.intervals import Resamples
from kubeyolo.publishing import VersionTaken, derive_bundle, publish_bundle
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.place import Place
from tests.steps.called import publish, write_record

NUMBERS = {key: 0.5 for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")}


def make_bundle(folder: Path, content: bytes = b"weights", warnings: Sequence[str] = ()) -> str:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    path = folder / "files" / "weights.safetensors"
    path.write_bytes(content)
    manifest = BundleManifest(
        model="yolov5n-r7",
        classes=("cat", "dog"),
        image_size=(64, 64),
        strides=(8, 16, 32),
        anchors=(((1.0, 2.0),),) * 3,
        metrics={
            "int8": {"numbers": {**NUMBERS, "AP": 0.25}},
            **({"train": {"warnings": warnings}} if warnings else {}),
        },
    )
    return publish_bundle(Place.of(folder / "bundle"), manifest, {path.name: path}).uri


def test_a_bundle_is_published_with_a_card_that_has_all_numbers(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    evaluation = write_record(str(tmp_path / "e"), "evaluate", 1, {}, {**NUMBERS, "runtime": "mindspore"})
    published = publish(bundle, str(tmp_path / "store"), "1.0.0", evaluation)
    opened = open_bundle(Place.of(published.bundle))
    assert opened.uri == (tmp_path / "store" / "models" / "yolov5n-r7" / "1.0.0").as_uri()
    assert published.bundle == opened.reference
    assert set(opened.manifest.files) == {"weights.safetensors", MODEL_CARD}
    assert opened.manifest.parent == bundle
    assert opened.manifest.metrics["mindspore"]["AP"] == 0.5
    assert opened.manifest.metrics["int8"]["AP"] == 0.25
    card = opened.path(MODEL_CARD).read_text()
    assert "0.500" in card and "0.250" in card and "cat, dog" in card
    assert read_record(Place.of(published.record)).metrics["version"] == "1.0.0"
    # Others may publish the same networks with numbers of their own.
    assert Place.of(published.record).uri.startswith(f"{(tmp_path / 'store').as_uri()}/results/publish/yolov5n-r7-")


def test_the_best_thresholds_of_evaluations_are_published_and_on_the_card(tmp_path: Path) -> None:
    best = {"overall": 0.25, "classes": {"cat": 0.375}}
    plain = open_bundle(Place.of(make_bundle(tmp_path)))
    metrics = {"int8": {"numbers": NUMBERS, "best_thresholds": {"overall": 0.125, "classes": {}}}}
    exported = derive_bundle(plain, Place.of(tmp_path / "exported"), {}, metrics=metrics)
    evaluation = write_record(str(tmp_path / "e"), "evaluate", 1, {}, {**NUMBERS, "best_thresholds": best})
    published = open_bundle(Place.of(publish(exported.uri, str(tmp_path / "store"), "1", evaluation).bundle))
    expected = {"mindspore": best, "int8": {"overall": 0.125, "classes": {}}}
    assert published.manifest.metrics["best_thresholds"] == expected
    card = published.path(MODEL_CARD).read_text()
    assert "| Best threshold | mindspore | int8 |" in card and "| cat | 0.375 | 0.125 |" in card
    assert "| dog | 0.250 | 0.125 |" in card
    # A published bundle that is published again keeps them; a bundle without thresholds has no table.
    again = open_bundle(Place.of(publish(published.uri, str(tmp_path / "other"), "1").bundle))
    assert again.manifest.metrics["best_thresholds"] == expected
    old = open_bundle(Place.of(publish(plain.uri, str(tmp_path / "old"), "1").bundle))
    assert "best_thresholds" not in old.manifest.metrics and "Best threshold" not in old.path(MODEL_CARD).read_text()


def test_the_card_has_the_intervals_that_are_known(tmp_path: Path) -> None:
    values = np.concatenate([[0.5], 0.5 + 0.05 * np.linspace(-1, 1, 101)])
    about = {"images": 90, "images_with_objects": 80, "drawn_from": "val"}
    resamples = Resamples.of({"AP": values}, **about).model_dump()
    metrics = {**NUMBERS, "runtime": "mindspore", "resamples": resamples}
    evaluation = write_record(str(tmp_path / "e"), "evaluate", 1, {}, metrics)
    published = open_bundle(Place.of(publish(make_bundle(tmp_path), str(tmp_path / "store"), "1", evaluation).bundle))
    # int8 was evaluated by a version without intervals.
    assert "| AP | 95 % interval over the images | 0.443 to 0.557 | – |" in published.path(MODEL_CARD).read_text()
    assert published.manifest.metrics["mindspore"] == NUMBERS
    without = publish(make_bundle(tmp_path), str(tmp_path / "other"))
    assert "interval" not in open_bundle(Place.of(without.bundle)).path(MODEL_CARD).read_text()


def test_what_the_training_warned_of_is_on_the_card_and_stays_with_the_bundle(tmp_path: Path) -> None:
    lines = ["12 of 20 (60.0 %) training images have no boxes.", "no anchor fits 3 * 3 boxes."]
    published = publish(make_bundle(tmp_path, warnings=lines), str(tmp_path / "store"), "1.0.0")
    opened = open_bundle(Place.of(published.bundle))
    card = opened.path(MODEL_CARD).read_text()
    assert "## Training\n\n**Warning: 12 of 20 (60.0 %) training images have no boxes.**" in card
    assert r"**Warning: no anchor fits 3 \* 3 boxes.**" in card
    assert opened.manifest.metrics["train"] == {"warnings": lines}
    again = publish(published.bundle, str(tmp_path / "other"), "1.0.0")
    assert lines[0] in open_bundle(Place.of(again.bundle)).path(MODEL_CARD).read_text()
    without = publish(make_bundle(tmp_path / "b"), str(tmp_path / "store"), "2.0.0")
    assert "Warning" not in open_bundle(Place.of(without.bundle)).path(MODEL_CARD).read_text()


def test_without_a_version_the_content_gives_one(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    one, again = publish(make_bundle(tmp_path / "a"), store), publish(make_bundle(tmp_path / "a"), store)
    other = publish(make_bundle(tmp_path / "b", b"others"), store)
    assert one.version == again.version != other.version
    assert len(one.version) == 12


def test_a_taken_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first = publish(make_bundle(tmp_path / "a"), store, "1")
    with pytest.raises(InputError, match=r"models/yolov5n-r7/1: version 1 has different content already"):
        publish(make_bundle(tmp_path / "b", b"others"), store, "1")
    assert open_bundle(Place.of(first.bundle)).path("weights.safetensors").read_bytes() == b"weights"


def test_a_version_is_not_the_name_of_the_pointer(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"version 'latest\.json': this is the name of the pointer to the current model"
    ):
        publish(make_bundle(tmp_path), str(tmp_path / "store"), "latest.json")


@pytest.mark.parametrize("version", ["../evil", "a/b", ".hidden", "a b", "v" * 64])
def test_a_version_is_a_name(tmp_path: Path, version: str) -> None:
    with pytest.raises(InputError, match="expected letters, digits"):
        publish(make_bundle(tmp_path), str(tmp_path / "store"), version)


def test_what_was_published_is_published_again_without_change(tmp_path: Path) -> None:
    first = publish(make_bundle(tmp_path / "a"), str(tmp_path / "store"))
    before = open_bundle(Place.of(first.bundle)).manifest
    again = publish(first.bundle, str(tmp_path / "store"))
    assert (again.bundle, again.version) == (first.bundle, first.version)
    assert open_bundle(Place.of(first.bundle)).manifest == before


def test_what_was_published_goes_to_another_store_with_its_numbers(tmp_path: Path) -> None:
    first = publish(make_bundle(tmp_path / "a"), str(tmp_path / "store"))
    copied = publish(first.bundle, str(tmp_path / "other"))
    assert copied.version == first.version
    assert open_bundle(Place.of(copied.bundle)).manifest.metrics["int8"]["AP"] == 0.25
    assert publish(first.bundle, str(tmp_path / "other")).bundle == copied.bundle
    renamed = publish(first.bundle, str(tmp_path / "store"), "2.0")
    assert Place.of(renamed.bundle).uri.endswith("/2.0")


def test_the_same_network_exported_again_is_the_same_version(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    bundles = []
    for number in range(2):
        path = tmp_path / f"{number}" / "model.mindir"
        path.parent.mkdir()
        path.write_bytes(b"exported at %d" % number)
        bundle = open_bundle(Place.of(make_bundle(tmp_path / f"b{number}")))
        bundles.append(derive_bundle(bundle, Place.of(tmp_path / f"e{number}"), {"model.mindir": path}).uri)
    first = publish(bundles[0], store)
    before = open_bundle(Place.of(first.bundle)).manifest
    assert publish(bundles[1], store).version == first.version
    assert publish(bundles[1], store, first.version).bundle == first.bundle
    assert open_bundle(Place.of(first.bundle)).manifest == before


def test_a_published_bundle_that_was_damaged_is_mended(tmp_path: Path) -> None:
    bundle, store = make_bundle(tmp_path), str(tmp_path / "store")
    published = publish(bundle, store, "1")
    path = open_bundle(Place.of(published.bundle)).path("weights.safetensors")
    path.write_bytes(b"broken")
    assert publish(bundle, store, "1").bundle == published.bundle
    assert path.read_bytes() == b"weights"


def test_a_damaged_card_is_written_anew_and_the_networks_stay(tmp_path: Path) -> None:
    bundle, store = make_bundle(tmp_path), str(tmp_path / "store")
    evaluation = write_record(str(tmp_path / "e"), "evaluate", 1, {}, {**NUMBERS, "runtime": "mindspore"})
    published = publish(bundle, store, "1", evaluation)
    path = open_bundle(Place.of(published.bundle)).path(MODEL_CARD)
    path.write_bytes(b"broken")
    # Without the numbers of the evaluation it is another card, and so other content.
    again = publish(bundle, store, "1").bundle
    assert Place.of(again).uri == Place.of(published.bundle).uri
    opened = open_bundle(Place.of(again))
    with pytest.raises(InputError, match="its content has changed"):
        open_bundle(Place.of(published.bundle))
    assert opened.path(MODEL_CARD).read_text().startswith("#")
    assert opened.path("weights.safetensors").read_bytes() == b"weights"


def test_a_bundle_is_published_by_its_reference(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    reference = read_bundle(Place.of(bundle)).reference
    published = publish(reference, str(tmp_path / "store"), "1")
    assert open_bundle(Place.of(published.bundle)).manifest.parent == bundle
    make_bundle(tmp_path, b"others")
    with pytest.raises(InputError, match="its content has changed"):
        publish(reference, str(tmp_path / "store"), "2")


def version_folder(tmp_path: Path, version: str) -> dict[str, bytes]:
    """Return everything that lies in the folder of a version, whether listings show it or not."""
    folder = tmp_path / "store" / "models" / "yolov5n-r7" / version
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [b"others", b"weights"])
def test_a_publisher_that_is_slower_by_a_moment_writes_nothing_into_a_taken_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    store, slower, faster = str(tmp_path / "store"), make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", content)
    create_bytes = LocalStore.create_bytes
    before: dict[str, bytes] = {}

    def create_late(self: LocalStore, key: str, data: bytes) -> bool:
        if key == MANIFEST_NAME:
            monkeypatch.setattr(LocalStore, "create_bytes", create_bytes)
            publish(faster, store, "1")
            before.update(version_folder(tmp_path, "1"))
        return create_bytes(self, key, data)

    monkeypatch.setattr(LocalStore, "create_bytes", create_late)
    if content == b"others":
        with pytest.raises(VersionTaken, match=r"yolov5n-r7/1: version 1 has different content already; choose"):
            publish(slower, store, "1")
        folder = open_bundle(Place.of(f"{store}/models/yolov5n-r7/1")).manifest.folder
        names = {
            MANIFEST_NAME,
            f"{folder}/{MODEL_CARD}",
            f"{folder}/weights.safetensors",
        }
        assert version_folder(tmp_path, "1") == {name: before[name] for name in names}
    else:
        published = publish(slower, store, "1")
        assert open_bundle(Place.of(published.bundle)).manifest.parent == faster
        assert version_folder(tmp_path, "1")[MANIFEST_NAME] == before[MANIFEST_NAME]


def test_only_the_record_of_an_evaluation_gives_numbers(tmp_path: Path) -> None:
    record = write_record(str(tmp_path / "t"), "train", 1, {}, {"loss": 1.0})
    with pytest.raises(InputError, match="this is the record of train; give the record of an evaluation"):
        publish(make_bundle(tmp_path), str(tmp_path / "store"), "1.0.0", record)


def test_the_record_of_the_evaluation_is_that_of_its_reference(tmp_path: Path) -> None:
    bundle, store = make_bundle(tmp_path), str(tmp_path / "store")
    evaluation = write_record(str(tmp_path / "e"), "evaluate", 1, {}, {**NUMBERS, "runtime": "mindspore"})
    with pytest.raises(InputError, match=r"e/metrics\.json: its content has changed: expected sha256 0{12}…"):
        publish(bundle, store, "1", Place.of(Place.of(evaluation).uri).pinned("0" * 64).reference)
    assert not (tmp_path / "store").exists()
    record = read_record(Place.of(publish(bundle, store, "1", evaluation).record))
    assert record.metrics["mindspore"] == NUMBERS
    assert record.outputs == {"bundle": read_bundle(Place.of(f"{store}/models/yolov5n-r7/1")).reference}
