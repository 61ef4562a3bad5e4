"""compare: two bundles of fixed networks on the same images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.cli.app import main
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import RuntimeName
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.compare import Network
from kubeyolo.steps.outcome import StoredOutcome
from kubeyolo.storage.place import Place
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import AP_OF_SHIFT, MODEL, fixed_bundle, write_data


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A stored data set of three images, and two bundles: A is exact in ONNX, B is 4 pixels off, 6 in int8."""
    folder = tmp_path_factory.mktemp("compare")
    store = str(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBEYOLO_CACHE", str(folder / "cache"))
        dataset = validate_dataset(str(write_data(folder / "data")), store).dataset
    bundles = {"A": fixed_bundle(folder / "a", {"onnx": 0}), "B": fixed_bundle(folder / "b", {"onnx": 4, "int8": 6})}
    return {"store": store, "dataset": dataset, "cache": str(folder / "cache"), **bundles}


@pytest.fixture(autouse=True)
def cache(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", stored["cache"])


def network(stored: dict[str, str], name: str, runtime: RuntimeName = "onnx", **sets: Any) -> Network:
    pairs = [f"evaluate.{key}={value}" for key, value in {"per_batch_size": 1, **sets}.items()]
    return Network(bundle=open_bundle(Place.of(stored[name])), config=load_config(MODEL, sets=pairs), runtime=runtime)


def compared(stored: dict[str, str], first: Network, second: Network) -> StoredOutcome:
    call = StepCall(store=Place.of(stored["store"]), config=second.config, code="c")
    return facade.compare(call, (first, second), call.dataset(stored["dataset"]))


def test_two_bundles_are_compared_and_the_result_is_found_again(
    stored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compared(stored, network(stored, "A"), network(stored, "B", min_ap=0.9))
    document = json.loads(made.document("comparison.json"))
    ap = document["numbers"][0]
    assert (ap["first"], ap["second"]) == pytest.approx((AP_OF_SHIFT[0], AP_OF_SHIFT[4]))
    assert ap["points"] == pytest.approx(-40) and ap["interval"] == pytest.approx([-40, -40], abs=1e-4)
    assert len(document["numbers"]) == 12 and [row["name"] for row in document["classes"]] == ["disc", "ring"]
    assert document["classes"][1]["points"] is None
    assert (document["images"], document["images_with_objects"], document["resamples"]) == (3, 3, 1000)
    assert document["decision"] == made.record.metrics["decision"] == "undecided"
    # At IoU .50 both find all objects.
    assert document["images_that_differ"] == 0
    report = made.report().decode()
    assert "3 images with objects are too few to tell which is better (30 are required)" in report
    assert "A is yolov5n-r7 in onnx" in report and "−40.00 to −40.00" in report

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("evaluated again")

    monkeypatch.setattr(facade.evaluate_step, "evaluate", refuse)
    again = compared(stored, network(stored, "A"), network(stored, "B", min_ap=0.1, judge="strict"))
    assert again.outcome is None and again.document("comparison.json") == made.document("comparison.json")
    # The evaluations are stored too: the comparison in the other direction runs no network.
    back = json.loads(compared(stored, network(stored, "B"), network(stored, "A")).document("comparison.json"))
    assert back["numbers"][0]["points"] == pytest.approx(40)


def test_networks_of_a_bundle_can_be_compared_with_each_other(stored: dict[str, str]) -> None:
    made = compared(stored, network(stored, "B"), network(stored, "B", "int8"))
    document = json.loads(made.document("comparison.json"))
    assert [each["runtime"] for each in document["bundles"]] == ["onnx", "int8"]
    assert document["numbers"][0]["points"] == pytest.approx(100 * (AP_OF_SHIFT[6] - AP_OF_SHIFT[4]))


def test_images_that_differ_are_listed_and_drawn(stored: dict[str, str]) -> None:
    # No detection of B has a score above the threshold, so that B misses every object.
    made = compared(stored, network(stored, "A"), network(stored, "B", conf_threshold=0.99))
    document = json.loads(made.document("comparison.json"))
    assert document["images_that_differ"] == 3
    assert {each["file_name"] for each in document["most_different"]} == {"1.png", "2.png", "3.png"}
    assert document["most_different"][0]["second"] == {"found": 0, "missed": 1, "false_alarms": 0}
    report = made.report().decode()
    assert report.count('<div class="trio">') == 3 and report.count("data:image/jpeg") == 9


def test_different_splits_are_refused(stored: dict[str, str]) -> None:
    with pytest.raises(InputError, match="on the split 'val', .* on 'train'; give --split"):
        compared(stored, network(stored, "A"), network(stored, "B", split="train"))


def test_the_command_prints_both_and_what_the_interval_says(
    stored: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", stored["A"], stored["B"], stored["dataset"], "--store", stored["store"]]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--runtime", "onnx", "--split", "val"])
    printed = capsys.readouterr().out
    assert ended.value.code in (0, None)
    assert " AP       1.000   0.600   -40.00   -40.00 to -40.00" in printed
    assert "3 images with objects are too few to tell which is better (30 are required)" in printed
    with pytest.raises(SystemExit):
        main([*words, "--runtime", "onnx", "--json"])
    assert json.loads(capsys.readouterr().out)["numbers"][0]["second"] == pytest.approx(0.6)
    for options, message in (
        (["--runtime", "onnx,onnx,int8"], "give one runtime, or two with a comma"),
        (["--runtime", "onx"], "did you mean 'onnx'"),
        (["--runtime", "onnx", "--split", "vall"], "did you mean 'val'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, *options])
        assert ended.value.code == 2 and message in capsys.readouterr().err, options


def test_a_single_image_is_too_few_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    data = write_data(tmp_path / "data")
    for split in ("train", "val"):
        file = data / "annotations" / f"{split}.json"
        document = json.loads(file.read_text())
        file.write_text(json.dumps({**document, "annotations": document["annotations"][:1]}))
    bundle, store = fixed_bundle(tmp_path / "bundle", {"onnx": 0}), ("--store", str(tmp_path / "store"))
    with pytest.raises(SystemExit):
        main(["compare", bundle, bundle, str(data), *store, "--runtime", "onnx", "--output", str(tmp_path / "out")])
    assert "1 image with objects is too few to tell which is better" in capsys.readouterr().out
    assert "1 image with objects is too few to tell" in (tmp_path / "out/report.html").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", bundle, str(data), *store, "--runtime", "onnx", "--min_ap", "0.1", "--judge", "strict"])
    assert ended.value.code == 1
    assert "1 image with objects is too few to tell (30 are required)" in capsys.readouterr().err
