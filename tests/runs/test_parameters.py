"""What a run is made of: the pipeline's parameters, and a name that follows them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.runs.bind import pipeline_text
from kubeyolo.runs.parameters import run_parameters
from kubeyolo.source import source_digest


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_sample_dataset(tmp_path_factory.mktemp("data") / "shapes", train=2, val=1, image_size=(64, 64))


def test_arguments_are_those_of_the_compiled_pipeline(data: Path, tmp_path: Path) -> None:
    arguments = run_parameters(str(data), str(tmp_path)).arguments()
    parameters = next(yaml.safe_load_all(pipeline_text()))["root"]["inputDefinitions"]["parameters"]
    assert set(arguments) <= set(parameters)
    needed = {name for name, parameter in parameters.items() if not parameter.get("isOptional")}
    assert needed <= set(arguments)
    assert arguments["code_digest"] == source_digest()
    assert len(arguments["fingerprint"]) == 64


def test_only_what_was_said_is_passed_on(data: Path, tmp_path: Path) -> None:
    parameters = run_parameters(str(data), str(tmp_path), "yolov5s", sets=("train.max_epoch=3",))
    arguments = parameters.arguments()
    assert (arguments["model"], arguments["train_overrides"]) == ("yolov5s", {"max_epoch": 3})
    assert arguments["quantize_overrides"] == {}


def test_the_name_follows_configuration_data_and_store(data: Path, tmp_path: Path) -> None:
    def name(store: str = "a", *sets: str) -> str:
        return run_parameters(str(data), str(tmp_path / store), sets=sets).name

    first = name()
    assert first == name() == name("a", "train.max_epoch=300")
    assert first.startswith("yolov5n-r7-shapes-")
    others = {name("b"), name("a", "train.max_epoch=3"), name("a", "model=yolov5s-r7")}
    document = data / "annotations" / "val.json"
    document.write_bytes(document.read_bytes() + b" ")
    others.add(name())
    assert len(others | {first}) == 5


def test_relative_places_are_made_absolute(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    parameters = run_parameters(data.name, "store")
    assert (parameters.data, parameters.store) == (str(data), str(data.parent / "store"))


def test_bad_input_is_refused_before_anything_runs(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.max_epoch"):
        run_parameters(str(data), str(tmp_path), sets=("train.max_epoc=3",))
    with pytest.raises(InputError, match="absent"):
        run_parameters(str(tmp_path / "absent"), str(tmp_path))
    with pytest.raises(InputError, match="onnx"):
        run_parameters(str(data), str(tmp_path), sets=("export.formats=[mindir]",))


@pytest.mark.parametrize(
    ("pair", "remedy"),
    [
        ("data", "give --data"),
        ("store", "give --store"),
        ("model", "give --model"),
        ("classification", "give --classification"),
        ("version", "give --version"),
        ("fingerprint", "it is taken from what lies at --data"),
        ("classification_fingerprint", "it is taken from what lies at --classification"),
        ("code_digest", "it is that of the installed library"),
        ("run_name", "--name is that of the run in Kubeflow"),
        ("train_overrides", "--config or --set has values of the section train too; .* as --set train.KEY=VALUE"),
    ],
)
def test_what_has_an_option_or_is_made_here_is_not_taken_as_a_parameter_too(
    data: Path, tmp_path: Path, pair: str, remedy: str
) -> None:
    with pytest.raises(InputError, match=f"^--param {pair}: .*{remedy}"):
        run_parameters(str(data), str(tmp_path), sets=("train.max_epoch=3",), pairs={"seed": 1, pair: "x"})
    taken = run_parameters(str(data), str(tmp_path), sets=("train.max_epoch=3",), pairs={"evaluate_overrides": {}})
    assert taken.overrides == {"train": {"max_epoch": 3}}
