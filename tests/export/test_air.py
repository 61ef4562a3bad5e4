"""AIR in the export step: MindSpore's export of AIR, which needs a card, is replaced by one that writes a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import AIPP, AIR, ASCEND, MINDIR, ONNX, WEIGHTS, open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.export.mindspore_export import export_cell
from kubeyolo.publishing import publish_bundle
from kubeyolo.report.model_card import model_card
from kubeyolo.runtime import configure_mindspore
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.export.tiny_detector import CLASSES, manifest
from tests.report.test_reports import text_of
from tests.steps.called import Called, export_model, validate_dataset
from tests.steps.fixed_detector import write_data

CONTENT = b"what only a card writes"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Let networks for Ascend run on this machine's processors, and a function write AIR."""
    from kubeyolo.evaluation import network

    configure_mindspore()
    import mindspore

    monkeypatch.setattr(network, "configure_mindspore", lambda device_target: configure_mindspore())
    whole = mindspore.export

    def replace(write: Callable[[Path], None]) -> None:
        def export(net: Any, *inputs: Any, file_name: str, file_format: str) -> None:
            if file_format == "AIR":
                write(Path(file_name))
            else:
                whole(net, *inputs, file_name=file_name, file_format=file_format)

        monkeypatch.setattr(mindspore, "export", export)

    return replace


def exported(detector: Any, folder: Path, *formats: str) -> Called:
    data = write_data(folder / "data", classes=CLASSES)
    dataset = validate_dataset(str(data), str(folder / "store"))
    described = manifest(category_ids=(1, 2, 3))
    bundle = publish_bundle(Place.of(folder / "bundle"), described, {WEIGHTS: detector.weights})
    sections = {"export": {"device_target": "Ascend", "formats": formats, "parity_images": 1}}
    return export_model(bundle.uri, dataset.dataset, str(folder / "export"), Config.model_validate(sections))


def test_a_bundle_has_air_whose_parity_nobody_claims(detector, card, tmp_path, capsys) -> None:
    card(lambda path: path.write_bytes(CONTENT))
    stored = exported(detector, tmp_path, "mindir", "air", "onnx")
    bundle = open_bundle(Place.of(stored.bundle))
    assert {MINDIR, AIR, ONNX, WEIGHTS, ASCEND, AIPP} == bundle.manifest.files.keys()
    assert f"atc --framework=1 --model={AIR}" in bundle.path(ASCEND).read_text()
    assert bundle.path(AIR).read_bytes() == CONTENT and bundle.path(AIR).stat().st_mode & 0o777 == 0o644
    assert "export_model: AIR is deprecated in MindSpore" in capsys.readouterr().out

    metrics = read_record(Place.of(stored.record)).metrics
    assert metrics["not_measured"] == ["air"]
    assert metrics["differences"].keys() == {"mindir", "onnx"}
    assert {re.split("[,:]", check["name"])[0] for check in metrics["checks"]} == {"mindir", "onnx"}
    assert metrics["bytes"][AIR] == len(CONTENT)

    page = text_of(Place.of(stored.report).read().decode())
    assert "model.air 23 B not measured" in page and "not measured: model.air" in page
    assert page.count("B compared") == 2 and "deprecated" in page
    card_text = model_card(bundle.manifest.model_dump(mode="json"), {})
    assert "The parity of `model.air` with the trained network was not measured" in card_text


def test_air_alone_passes_no_check_and_has_no_difference(detector, card, tmp_path) -> None:
    card(lambda path: path.write_bytes(CONTENT))
    stored = exported(detector, tmp_path, "air")
    metrics = read_record(Place.of(stored.record)).metrics
    assert metrics["not_measured"] == ["air"] and metrics["checks"] == []
    assert "largest_difference" not in metrics
    page = text_of(Place.of(stored.report).read().decode())
    assert "agree with the trained network" not in page and "passed" not in page


def test_weights_in_a_folder_next_to_air_are_refused(card, tmp_path) -> None:
    from mindspore import nn

    def write(path: Path) -> None:
        path.write_bytes(CONTENT)
        (path.parent / "model_variables").mkdir()

    card(write)
    with pytest.raises(WorkError, match=r"model\.air, model_variables, .* one file for AIR; drop air from"):
        export_cell(nn.ReLU(), (1, 3, 32, 32), tmp_path / AIR, "AIR")
    card(lambda path: None)
    with pytest.raises(WorkError, match=r"MindSpore wrote no file"):
        export_cell(nn.ReLU(), (1, 3, 32, 32), tmp_path / AIR, "AIR")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_air_lacks_names_the_format_to_drop(card, tmp_path) -> None:
    from mindspore import nn

    def write(path: Path) -> None:
        raise RuntimeError("\nno adapter for the operator\nstack")

    card(write)
    with pytest.raises(WorkError, match="cannot export to AIR: no adapter for the operator; drop air from export"):
        export_cell(nn.ReLU(), (1, 3, 32, 32), tmp_path / AIR, "AIR")


def test_air_on_a_machine_without_a_card_ends_before_any_work(detector, tmp_path) -> None:
    with pytest.raises(InputError, match="^device_target 'Ascend' cannot be used on this machine: there is no card"):
        exported(detector, tmp_path, "mindir", "air")
    assert not (tmp_path / "export" / "bundle").exists()
