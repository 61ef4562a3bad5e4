"""What an evaluation takes: folders, sizes, classes in another order, files of detections, images without annotations.

The network of the bundle finds the box of each image 4 pixels off, so AP is 0.6.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.catalogue import DETECTOR_TRAINING, MODEL_EVALUATION
from kubeyolo.cli.app import main
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.class_subset import of_classes
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.image_folder import open_image_folder
from kubeyolo.errors import InputError
from kubeyolo.evaluation.class_map import categories_of_classes
from kubeyolo.evaluation.notes import threshold_notes
from kubeyolo.evaluation.results_file import read_detections
from kubeyolo.steps.configure import configure
from kubeyolo.storage.place import Place
from kubeyolo.training.extension import changed_keys
from tests.steps.fixed_detector import fixed_bundle, write_data

AP = 0.6
TEST_DEV = "detections_test-dev2017_yolov5n-r7_results"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``kubeyolo evaluate`` in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, arguments)])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fixed_bundle(tmp_path_factory.mktemp("bundle"), {"onnx": 4})


def result_of(output: str) -> dict[str, Any]:
    return dict(json.loads(Path(output, "result.json").read_text()))


def ground_truth(data: Path, split: str = "val") -> dict[str, Any]:
    return dict(json.loads((data / "annotations" / f"{split}.json").read_text()))


def detections_of(data: Path, shift: float = 0.0) -> list[dict[str, Any]]:
    rows = []
    for box in ground_truth(data)["annotations"]:
        x, y, width, height = box["bbox"]
        found = {"image_id": box["image_id"], "category_id": box["category_id"], "bbox": [x + shift, y, width, height]}
        rows.append({**found, "score": 0.9})
    return rows


def test_a_plain_folder_is_validated_on_the_way_and_found_again(run: Run, bundle: str, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    code, printed, _ = run(bundle, "data", "--runtime", "onnx", "--output", "one")
    assert code == 0 and f"data is stored as {(tmp_path / 'store/datasets').as_uri()}/data-" in printed
    assert result_of("one")["numbers"]["AP"] == pytest.approx(AP)
    stored = next((tmp_path / "store/datasets").glob("data-*"))
    code, again, _ = run(bundle, stored, "--runtime", "onnx", "--output", "two")
    assert code == 0 and "is stored as" not in again
    assert result_of("two") == result_of("one")
    assert result_of("one")["thresholds"] == {
        "conf_threshold": 0.001,
        "iou_threshold": 0.65,
        "max_det": 300,
        "multi_label": True,
    }
    (tmp_path / "data/annotations/val.json").write_text("{}")
    code, _, errors = run(bundle, "data", "--runtime", "onnx")
    assert code == 2 and "val.json" in errors
    code, _, errors = run(bundle, "elsewhere", "--runtime", "onnx")
    assert code == 2 and "elsewhere: no data set there" in errors


def test_a_runtime_without_a_file_is_refused_with_remedies_before_data_are_read(run: Run, bundle: str) -> None:
    code, _, errors = run(bundle, "no-data", "--runtime", "int8")
    assert code == 2 and f"{bundle}: runtime = int8 needs the file model-int8.onnx, which this bundle does" in errors
    assert "choose the runtime mindspore or onnx, or make the file with 'kubeyolo quantize'" in errors


def test_another_size_than_that_of_the_exported_file_is_refused_before_data_are_read(run: Run, bundle: str) -> None:
    code, _, errors = run(bundle, "no-data", "--runtime", "onnx", "--testing_shape", "128x64")
    assert code == 2
    assert "evaluate.image_size = 128x64: the onnx file of this bundle takes images of 64 x 64" in errors
    assert "leave evaluate.image_size out" in errors
    code, _, errors = run(bundle, "no-data", "--runtime", "onnx", "--image_size", "64")
    assert code == 2 and "no data set there" in errors


@pytest.mark.parametrize(
    ("written", "value", "size"),
    [("0", 0, None), ("320", 320, (320, 320)), ("384x640", "384x640", (384, 640)), ("64X64", 64, (64, 64))],
)
def test_sizes_are_sides_or_height_x_width(written: str, value: object, size: tuple[int, int] | None) -> None:
    settings = load_config(sets=[f"evaluate.image_size={written}"]).evaluate
    assert (settings.image_size, settings.input_size) == (value, size)


@pytest.mark.parametrize(
    ("written", "names"), [("0", ("0",)), ("0,1", ("0", "1")), ("[0, 1]", ("0", "1")), ('["a, b"]', ("a, b",))]
)
def test_names_of_classes_may_be_numbers(written: str, names: tuple[str, ...]) -> None:
    assert load_config(sets=[f"evaluate.classes={written}"]).evaluate.classes == names


@pytest.mark.parametrize("written", ["33", "640x33", "0x64", "640x", "big", "true", "-64", "9000x64", "64x64x64"])
def test_sizes_that_fit_no_network_are_refused(written: str) -> None:
    with pytest.raises(InputError, match=r"evaluate.image_size"):
        load_config(sets=[f"evaluate.image_size={written}"])


def test_typed_keys_without_effect_are_refused_and_those_of_a_file_are_named(
    run: Run, bundle: str, tmp_path: Path
) -> None:
    write_data(tmp_path / "data")
    pairs = ("--set", "train.lr=1", "--set", "evaluate.device_target=CPU")
    code, _, errors = run(bundle, "data", "--runtime", "onnx", *pairs)
    assert code == 2
    assert "train.lr has no effect on evaluate; " in errors
    assert "evaluate.device_target = CPU has no effect on evaluate: the runtime onnx runs on processors; " in errors
    Path("my.yaml").write_text("{train: {lr: 1}, evaluate: {device_target: CPU}}")
    code, _, errors = run(bundle, "data", "--runtime", "onnx", "--config", "my.yaml")
    assert code == 0 and "train.lr" not in errors
    assert "note: evaluate.device_target = CPU has no effect on evaluate: the runtime onnx runs on processors" in errors


def test_limits_that_lower_ap_are_printed_and_stored_with_it(run: Run, bundle: str, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    low = ("--conf_threshold", "0.999", "--max_det", "50", "--multi_label", "false", "--dets_per_class", "7")
    code, printed, _ = run(bundle, "data", "--runtime", "onnx", "--output", "out", *low)
    result = result_of("out")
    assert code == 0 and result["numbers"]["AP"] == 0
    assert [note.partition(" lowers ")[0] for note in result["notes"]] == [
        "evaluate.conf_threshold = 0.999",
        "evaluate.max_det = 50",
        "evaluate.multi_label = false",
    ]
    assert all(f"warning: {note}" in printed for note in result["notes"])
    assert result["additional_numbers"] == {"AP@maxDets=7": 0, "AP50@maxDets=7": 0, "AR@maxDets=7": 0}
    page = Path("out/report.html").read_text()
    assert "evaluate.conf_threshold = 0.999 lowers AP" in page and "AP@maxDets=7" in page
    assert threshold_notes(EvaluateConfig()) == []
    (note,) = threshold_notes(EvaluateConfig(), most_objects=301)
    assert "an image has 301 annotated objects, and only 300 boxes are kept" in note


def test_crowded_images_are_counted_by_validate_evaluate_and_the_report(
    run: Run, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data")
    document = ground_truth(data)
    box = document["annotations"][0]
    document["annotations"] += [{**box, "id": 100 + n, "bbox": [n / 4, 0, 9, 9], "area": 81} for n in range(101)]
    (data / "annotations/val.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit) as ended:
        main(["validate", "data"])
    sentence = "1 image has more than 100 objects of a class: AP counts 100 detections of a class in an image"
    assert ended.value.code == 0 and f"warning: split val: {sentence}" in capsys.readouterr().out
    stored = next((tmp_path / "store/datasets").glob("data-*"))
    assert sentence in (stored / "report.html").read_text()
    _, printed, _ = run(bundle, stored, "--runtime", "onnx", "--output", "out", "--dets_per_class", "300")
    assert f"warning: {sentence}" in printed and "AP@maxDets=300 counts 300" in printed
    assert result_of("out")["crowded_images"] == 1 and sentence in Path("out/report.html").read_text()


def test_classes_in_another_order_are_mapped_by_name(run: Run, bundle: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", classes=("ring", "\ufeffdisc "))
    for split in ("train", "val"):
        document = ground_truth(data, split)
        document["annotations"] = [{**box, "category_id": 2} for box in document["annotations"]]
        (data / f"annotations/{split}.json").write_text(json.dumps(document))
    code, printed, errors = run(bundle, "data", "--runtime", "onnx", "--output", "out")
    assert code == 0, printed + errors
    assert result_of("out")["numbers"]["AP"] == pytest.approx(AP)
    rows = json.loads(Path("out/detections.json").read_text())
    assert {row["category_id"] for row in rows} == {2}


def test_other_classes_are_refused_by_the_first_difference_and_a_subset_is_evaluated_on_request(
    run: Run, bundle: str, tmp_path: Path
) -> None:
    write_data(tmp_path / "data", classes=("disc", "disk"))
    code, _, errors = run(bundle, "data", "--runtime", "onnx")
    assert code == 2 and "the model's class 'ring' is not in the data set, which has 'disk' instead" in errors
    assert "evaluate.classes" in errors
    code, printed, _ = run(bundle, "data", "--runtime", "onnx", "--classes", "disc", "--output", "out")
    result = result_of("out")
    assert code == 0 and [row["name"] for row in result["per_class"]] == ["disc"]
    assert result["numbers"]["AP"] == pytest.approx(AP)
    assert "warning: the metrics are those of 1 of the model's 2 classes: disc" in printed
    code, _, errors = run(bundle, "data", "--runtime", "onnx", "--classes", "disk")
    assert code == 2 and "evaluate.classes: the model has no class 'disk'" in errors
    code, _, errors = run(bundle, "data", "--runtime", "onnx", "--classes", "dis")
    assert code == 2 and "evaluate.classes: data set 'data' has no class 'dis'" in errors


def test_a_class_that_is_there_twice_fits_only_in_the_same_order(small_set: Any) -> None:
    manifest = small_set.manifest
    twice = manifest.model_copy(update={"classes": ("disc", "disc"), "category_ids": (4, 2)})
    assert categories_of_classes(("disc", "disc"), twice, partial=False) == (4, 2)
    assert categories_of_classes(("ring", "disc"), manifest, partial=False) == (2, 1)
    with pytest.raises(InputError, match="data set 'data' has two classes 'disc'"):
        categories_of_classes(("disc", "ring"), twice, partial=False)


def stored_data(folder: Path) -> str:
    from tests.steps.called import validate_dataset

    return validate_dataset(str(folder / "data"), str(folder / "store")).dataset


def test_a_subset_has_the_boxes_of_its_classes_and_all_images(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    document = ground_truth(data)
    document["annotations"][1]["category_id"] = 2
    (data / "annotations/val.json").write_text(json.dumps(document))
    whole = open_dataset(Place.of(stored_data(tmp_path)))
    ring = of_classes(whole, ["ring"])
    index = ring.split("val").index
    assert (len(index), np.diff(index.box_start).tolist(), index.box_class.tolist()) == (3, [0, 1, 0], [0])
    assert (ring.manifest.classes, ring.manifest.category_ids) == (("ring",), (2,))
    assert of_classes(ring, ["ring"]) is ring and of_classes(whole, []) is whole
    assert of_classes(whole, ["ring", "disc"]) is whole
    row = {"bbox": [0, 0, 1, 1], "score": 0.5}
    both = [{**row, "image_id": 1, "category_id": 1}, {**row, "image_id": 2, "category_id": 2}]
    (kept,) = read_detections(json.dumps(both).encode(), "file", ring, "val")
    assert (kept["image_id"], kept["category_id"]) == (2, 2)


def test_the_detections_of_any_program_are_evaluated(run: Run, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    Path("results.json").write_text(json.dumps(detections_of(data, 4.0)))
    code, printed, errors = run("--detections", "results.json", "data", "--output", "out")
    assert code == 0, errors
    assert result_of("out")["numbers"]["AP"] == pytest.approx(AP)
    assert "maxDets=100 ] = 0.600" in printed and "results.json on data" in printed
    assert {"report.html", "detections.json", "confusion.json"} <= {path.name for path in Path("out").iterdir()}
    code, _, errors = run("--detections", "results.json", "data", "--min_ap", "0.7")
    assert code == 1 and "AP" in errors
    code, _, errors = run("--detections", "results.json", "data", "--min_ap", "0.1", "--judge", "strict")
    assert code == 1 and "3 images with objects are too few to tell" in errors
    code, _, errors = run("--detections", "results.json", "data", "--conf_threshold", "0.5")
    assert code == 2 and "evaluate.conf_threshold: no effect with --detections" in errors
    code, _, errors = run("--detections", "results.json", "bundle", "data")
    assert code == 2 and "takes a single argument, the data set, and no bundle" in errors
    code, _, errors = run("data")
    assert code == 2 and "Missing argument 'DATA'" in errors


def test_detections_have_the_ids_of_the_annotations_if_these_are_texts(run: Run, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for split in ("train", "val"):
        document = ground_truth(data, split)
        for row in (*document["images"], *document["categories"]):
            row["id"] = f"key {row['id']}"
        for box in document["annotations"]:
            box |= {"image_id": f"key {box['image_id']}", "category_id": f"key {box['category_id']}"}
        (data / f"annotations/{split}.json").write_text(json.dumps(document))
    rows = detections_of(data)
    assert rows[0]["image_id"] == "key 1"
    Path("results.json").write_text(json.dumps(rows))
    assert run("--detections", "results.json", "data", "--output", "out")[0] == 0
    assert result_of("out")["numbers"]["AP"] == pytest.approx(1)
    assert json.loads(Path("out/detections.json").read_text())[0]["category_id"] == "key 1"


ROW = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("[]", "has no detections"),
        ("[{", "not JSON"),
        ("3", "found int"),
        ("[3]", "detection 0 is 3"),
        ('{"images": [], "annotations": []}', "this is a file of annotations"),
        ([ROW, {**ROW, "image_id": 77}], "1 of 2 image ids are not in the split val of data set 'data'"),
        ([{**ROW, "image_id": "1"}], 'the first in detection 0: "1", while the data set has ids such as 1'),
        ([{**ROW, "category_id": 0}], "the file seems to number the classes from 0"),
        ([{**ROW, "category_id": 12}], "1 of 1 category ids are not in data set 'data'"),
        ([{**ROW, "category_id": True}], "has category_id True"),
        ([{**ROW, "score": float("nan")}], "has score nan"),
        ([{**ROW, "score": "0.5"}], 'has score "0.5"'),
        ([{**ROW, "score": 95}], "has score 95; expected a number from 0 to 1, such as 0.95 for 95 %"),
        ([{**ROW, "score": -0.5}], "has score -0.5; expected a number from 0 to 1"),
        ([{**ROW, "score": 10**400}], "is too large); expected a COCO results file"),
        ([{**ROW, "bbox": [0, 0, 9]}], "has bbox [0, 0, 9]; expected 4 numbers"),
        ([{**ROW, "bbox": [0, 0, float("inf"), 9]}], "expected finite numbers"),
        ([{**ROW, "bbox": [0, 0, 10**400, 9]}], "is too large); expected a COCO results file"),
        ([{**ROW, "bbox": [0, 0, 1e308, 1e308]}], "expected finite numbers of pixels, at most 1000000"),
        ([{**ROW, "bbox": [9, 9, -5, 2]}], "with a negative size"),
        ([{"image_id": 1, "category_id": 1, "segmentation": [], "score": 1}], "has no bbox, but a segmentation"),
        ([{**ROW, "extra": 1}, {"image_id": 1}], "detection 1 has no category_id"),
    ],
)
def test_files_that_cannot_be_judged_are_refused_in_one_line(
    small_set: Any, content: str | list[dict[str, Any]], words: str
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(InputError, match=r"results\.json: ") as raised:
        read_detections(text.encode(), "results.json", small_set, "val")
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a stored data set whose split train has further images."""
    folder = tmp_path_factory.mktemp("small")
    data = write_data(folder / "data")
    document = ground_truth(data, "train")
    for row in document["images"]:
        row["id"] += 500
    for box in document["annotations"]:
        box["image_id"] += 500
    (data / "annotations/train.json").write_text(json.dumps(document))
    return open_dataset(Place.of(stored_data(folder)))


def test_detections_of_another_split_name_it_and_an_unknown_split_is_refused(small_set: Any) -> None:
    rows = json.dumps([{**ROW, "image_id": 501}]).encode()
    with pytest.raises(InputError, match="all of them are in the split train: give --split train"):
        read_detections(rows, "results.json", small_set, "val")
    assert read_detections(rows, "results.json", small_set, "train")[0]["image_id"] == 501
    with pytest.raises(InputError, match="no split 'tes'"):
        read_detections(rows, "results.json", small_set, "tes")


def test_images_without_annotations_give_the_files_for_test_dev(run: Run, bundle: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2, 3):
        shutil.copy(data / f"val/{number}.png", images / f"{number:012d}.png")
    code, printed, errors = run(bundle, "images", "--runtime", "onnx", "--test_dev", "--output", "out")
    assert code == 0, errors
    assert "Average" not in printed and "AP" not in json.loads(Path("out/metrics.json").read_text())["metrics"]
    assert f"upload {Path('out').resolve().as_uri()}/{TEST_DEV}.zip" in printed
    with zipfile.ZipFile(f"out/{TEST_DEV}.zip") as archive:
        assert archive.namelist() == [f"{TEST_DEV}.json"]
        rows = json.loads(archive.read(f"{TEST_DEV}.json"))
    assert rows == json.loads(Path(f"out/{TEST_DEV}.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(1, 1), (2, 1), (3, 1)]
    assert rows[0]["bbox"] == pytest.approx([20, 16, 32, 32], abs=0.01)
    first = Path(f"out/{TEST_DEV}.zip").read_bytes()
    run(bundle, "images", "--runtime", "onnx", "--test_dev", "--output", "again")
    assert Path(f"again/{TEST_DEV}.zip").read_bytes() == first


def test_coco_s_list_decides_which_images_and_ids(run: Run, bundle: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "coco")
    shutil.copytree(data / "val", data / "test2017")
    categories = [{"id": 17, "name": "ring"}, {"id": 90, "name": "disc"}]
    listed = {"images": [{"id": 2**40, "file_name": "2.png"}], "categories": categories}
    (data / "annotations/image_info_test-dev2017.json").write_text(json.dumps(listed))
    (data / "annotations/image_info_test2017.json").write_text("{}")
    assert run(bundle, "coco", "--runtime", "onnx", "--test_dev", "--output", "out")[0] == 0
    (row,) = json.loads(Path(f"out/{TEST_DEV}.json").read_text())
    assert (row["image_id"], row["category_id"]) == (2**40, 90)
    listed["images"].append({"id": 9, "file_name": "absent.png"})
    (data / "annotations/image_info_test-dev2017.json").write_text(json.dumps(listed))
    code, _, errors = run(bundle, "coco", "--runtime", "onnx", "--test_dev")
    assert code == 2 and "1 of 2 images are not in" in errors and "such as absent.png" in errors


def test_test_dev_takes_some_of_the_classes(run: Run, bundle: str, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    some = (bundle, "data/val", "--runtime", "onnx", "--test_dev", "--classes")
    for name, detections in (("disc", 3), ("ring", 0)):
        code, _, errors = run(*some, name, "--output", name)
        assert code == 0, errors
        assert len(json.loads(Path(name, f"{TEST_DEV}.json").read_text())) == detections


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"images": [{"id": 1.5}]}, "the id 1.5 is not a whole number of at most 18 digits"),
        ({"images": [{"id": True}]}, "the id True is not a whole number"),
        ({"images": [{"id": 10**30}]}, "is not a whole number of at most 18 digits"),
        ({"images": [{"id": 7}, {"id": 7}]}, "several images have the id 7"),
        ({"images": [{"id": 7}], "categories": [3, 3]}, "several categories have the id 3"),
    ],
)
def test_ids_of_a_list_are_distinct_whole_numbers(tmp_path: Path, listed: dict[str, Any], words: str) -> None:
    data = write_data(tmp_path / "data") / "val"
    images = [{**row, "file_name": "1.png"} for row in listed["images"]]
    categories = [{"id": each, "name": f"class {n}"} for n, each in enumerate(listed.get("categories", []))]
    (data / "image_info_test-dev2017.json").write_text(json.dumps({"images": images, "categories": categories}))
    with pytest.raises(InputError, match=r"image_info_test-dev2017\.json: ") as raised:
        open_image_folder(data, "test", ("disc",), (1,))
    assert words in str(raised.value)


def test_numbers_in_file_names_are_ids_if_they_are_distinct_and_have_64_bits(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data") / "val"
    (data / "1.png").rename(data / f"{'9' * 30}.png")
    assert open_image_folder(data, "test", ("disc",), (1,)).only.index.image_key == ["2", "3", "9" * 30]
    (data / f"{'9' * 30}.png").rename(data / "02.png")
    with pytest.raises(InputError, match=r"02\.png and 2\.png have the same number"):
        open_image_folder(data, "test", ("disc",), (1,))


def test_test_dev_is_refused_where_ap_can_be_computed_or_is_asked_for(run: Run, bundle: str, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    code, _, errors = run(bundle, "data", "--runtime", "onnx", "--test_dev", "--split", "val")
    assert code == 2 and "the split val of data set 'data' has annotations" in errors
    assert run(bundle, "data/val", "--runtime", "onnx", "--test_dev")[0] == 0
    code, _, errors = run(bundle, "data/val", "--runtime", "onnx", "--test_dev", "--min_ap", "0.5")
    assert code == 2 and "evaluate.min_ap = 0.5: without annotations there is no AP" in errors


def test_a_pipeline_refuses_sizes_and_settings_without_ap_before_it_starts(bundle: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    form = {"data": str(data), "store": str(tmp_path / "store"), "runtime": "onnx", "bundle": bundle}
    with pytest.raises(InputError, match="evaluate.image_size = 128: the onnx file of this bundle"):
        configure(MODEL_EVALUATION, {**form, "settings": "{evaluate: {image_size: 128}}"})
    run = configure(MODEL_EVALUATION, {**form, "settings": "{evaluate: {classes: [ring], engine: pycocotools}}"})
    sent = run.settings["evaluate"].configuration().evaluate
    assert (sent.classes, sent.engine) == (("ring",), "pycocotools")
    training = {name: form[name] for name in ("data", "store")}
    with pytest.raises(InputError, match="evaluate.test_dev: a run that trains needs the AP"):
        configure(DETECTOR_TRAINING, {**training, "settings": "{evaluate: {test_dev: true}}"})
    noted = configure(DETECTOR_TRAINING, {**training, "settings": "{evaluate: {image_size: 384x640}}"})
    assert any("evaluate.image_size = 384x640 has no effect on the exported networks" in note for note in noted.notes)


def test_a_training_of_the_version_before_has_the_same_identity() -> None:
    before = {"task": "detector", "train.keep": "best", "evaluate.image_size": 0, "evaluate.max_det": 300}
    config = load_config()
    now = {**before, "evaluate.engine": config.evaluate.engine, "evaluate.image_size": config.evaluate.image_size}
    assert changed_keys(before, now) == []
    assert changed_keys(before, {**now, "evaluate.engine": "pycocotools"}) == ["evaluate.engine"]
