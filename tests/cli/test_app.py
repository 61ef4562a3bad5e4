"""The command line: help, exit codes, one line for an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from kubeyolo.bundle import BundleManifest
from kubeyolo.cli import errors
from kubeyolo.cli.app import main, with_homes
from kubeyolo.cli.forms import training_form
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps.outputs import result_output
from kubeyolo.storage.place import Place
from tests.commands import COMMAND, all_commands

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "run",
    "configure",
    "estimate",
    "validate",
    "anchors",
    "pretrain",
    "train",
    "evaluate",
    "compare",
    "export",
    "quantize",
    "publish",
    "sign",
    "promote",
    "predict",
    "benchmark",
    "gate",
    "sample",
    "copy",
    "convert",
    "gc",
    "models list",
    "models show",
    "pipeline show",
    "pipeline submit",
    "pipeline status",
    "pipeline logs",
    "pipeline cancel",
    "pipeline list",
    "pipeline gate",
    "pipeline schedule apply",
    "pipeline schedule diff",
    "pipeline schedule list",
    "pipeline schedule run",
    "pipeline schedule delete",
    "weights export",
    "weights import",
]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def kubeyolo(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Result:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return generate_sample_dataset(tmp_path / "shapes", train=2, val=1, image_size=(64, 64))


def test_all_commands_are_there() -> None:
    assert {name for name, command in all_commands().items() if not hasattr(command, "commands")} == set(COMMANDS)


def modules_after(code: str) -> set[str]:
    """Return the outer packages and the modules that a new process has after some code."""
    code = f"import sys, typer\nfrom kubeyolo.cli.app import app, main\n{code}\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    names = done.stdout.rpartition("MODULES ")[2].split()
    assert "kubeyolo.cli.app" in names, done.stdout[-500:] + done.stderr
    return {*names} | {name.partition(".")[0] for name in names}


SLOW_OR_ABSENT = {
    "mindspore",
    "kfp",
    "onnx",
    "onnxruntime",
    "kubernetes",
    "docker",
    "hotcoco",
    "pycocotools",
    "matplotlib",
}
"""Packages that images lack, or that take seconds: only the work of a command imports them."""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["pipeline", "--help"], ["models"], ["--version"]])
def test_a_list_of_commands_imports_none_of_them(arguments: list[str]) -> None:
    found = modules_after(f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass")
    heavy = {*SLOW_OR_ABSENT, "kubeyolo.config", "cv2", "numpy", "PIL", "minio", "yaml"}
    assert not found & heavy
    assert not found & {f"kubeyolo.cli.{path.stem}" for path in (ROOT / "kubeyolo/cli").glob("*.py")} - {
        f"kubeyolo.cli.{name}" for name in ("__init__", "app", "errors", "spelling", "streams")
    }


def test_help_of_a_command_imports_no_slow_package() -> None:
    found = modules_after("from tests.commands import all_commands\nall_commands()")
    assert "kubeyolo.cli.steps" in found and not found & SLOW_OR_ABSENT


def test_a_command_is_listed_by_the_line_of_its_function() -> None:
    for name, command in all_commands().items():
        group: Any = COMMAND
        for word in name.split()[:-1]:
            group = group.commands[word]
        listed = group.commands[name.split()[-1]]
        assert listed.help == command.help and listed.get_short_help_str() and listed.name == command.name, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run", ["--data", "--sample"]),
        ("run --data absent", ["absent"]),
        ("run --data shapes --set train.max_epoc=3", ["'train.max_epoc'", "did you mean 'train.max_epoch'"]),
        ("run --data shapes --set train.image_size=100", ["train.image_size = 100", "multiple of 32"]),
        ("run --data shapes --model yolov5nano", ["unknown model 'yolov5nano'"]),
        ("run --data shapes --config absent.yaml", ["absent.yaml", "cannot be read"]),
        ("run --data shapes --store ftp://host/x", ["ftp"]),
        ("run --data shapes --store shapes/annotations/val.json/x", ["val.json: this is a file, but a store"]),
        ("run --data shapes --runs /proc/nope", ["/proc/nope", "no folder can be made there"]),
        ("run --data shapes --version ../x", ["version '../x': expected letters"]),
        ("run --data shapes --set evaluate.split=vall", ["no split 'vall'; did you mean 'val'"]),
        ("run --data shapes --model yolov4-p7 --set train.image_size=672", ["needs a multiple of 128, such as 640"]),
        ("run --data shapes --set export.formats=[]", ["export.formats"]),
        ("run --data shapes --set export.formats=[mindir]", ["export.formats", "add onnx to the formats"]),
        ("run --data shapes --set pretrain.data=absent", ["absent"]),
        ("run --data shapes --set train.anchors=[10,13]", ["train.anchors = [10, 13]", "3 levels of 3 anchors"]),
        ("run --data shapes --set train.anchors=7", ["train.anchors = 7", "from --set", "widths and heights"]),
        ("configure --data shapes --set train.anchors=[[1,2],[3]]", ["train.anchors = [[1, 2], [3]]", "2 lists"]),
        ("anchors shapes", ["shapes: no data set there", "validated"]),
        ("anchors shapes --model yolov4-p7 --set train.image_size=672", ["no data set there"]),
        ("run --data shapes --set train.lr=", ["train.lr = None", "--set"]),
        ("configure", ["--data"]),
        ("configure --data absent", ["absent"]),
        ("configure --data shapes --set train.max_epoc=3", ["did you mean 'train.max_epoch'"]),
        ("configure --data shapes -p launcher=vulcano", ["did you mean 'volcano'"]),
        ("configure --data shapes -p launcher=volcano -p cluster=cpuu", ["unknown cluster preset 'cpuu'"]),
        (
            "configure --data shapes -p weights=old",
            ["there is no bundle, no pointer to a bundle and no file of weights"],
        ),
        ("configure --data shapes -p launcher", ["--param 'launcher': expected FIELD=VALUE"]),
        ("configure --data shapes -p =x", ["--param '=x': expected FIELD=VALUE"]),
        (
            "configure --data shapes -p max_epoch=3 --set train.max_epoch=4",
            ["max_epoch is given twice: '3' by --param, and '4' by another option"],
        ),
        (
            "configure --data shapes --model yolov5s -p model=yolov5m",
            ["model is given twice: 'yolov5m' by --param, and 'yolov5s'"],
        ),
        ("configure --data shapes --set model=yolov5s -p model=yolov5m", ["model is given twice: 'yolov5m' by --par"]),
        ("configure --data shapes --version 1.0 -p version=1.1", ["version is given twice: '1.1' by --param"]),
        (
            'configure --data shapes -p max_epoch=3 -p settings={"train":{"max_epoch":3}}',
            ["train.max_epoch is given twice: '3' by the field max_epoch, and 3 in the field settings"],
        ),
        ("configure --data shapes -p seed=3", ["it has no field: write {train: {seed: …}} into the field settings"]),
        ("validate absent", ["absent"]),
        ("validate shapes --store /proc/nope", ["/proc/nope", "no folder can be made there"]),
        ("sample /proc/nope", ["/proc/nope: there is no such file"]),
        ("train absent --model yolov5n-r7", ["absent"]),
        ("evaluate absent absent", ["absent", "bundle.json"]),
        ("evaluate absent absent --runtime onx", ["unknown runtime 'onx'; did you mean 'onnx'"]),
        ("export absent absent", ["absent"]),
        ("quantize absent absent", ["absent"]),
        ("publish absent", ["absent"]),
        ("predict photo.jpg", ["no finished run in this folder; give --bundle"]),
        ("predict photo.jpg --bundle absent", ["bundle.json"]),
        ("models show yolov5nn-r7", ["unknown model 'yolov5nn-r7'; did you mean 'yolov5n-r7'"]),
        ("pipeline show detector", ["unknown pipeline 'detector'"]),
        ("pipeline show --image kubeyolo-trian=x", ["did you mean 'kubeyolo-train'"]),
        ("pipeline show --image kubeyolo-train", ["expected name=reference"]),
        ("pipeline show --resources trian.memory=1Gi", ["unknown step 'trian'", "did you mean 'train'"]),
        ("pipeline show model-evaluation --resources train.memory=1Gi", ["unknown step 'train'"]),
        ("pipeline show --resources train.memory", ["expected STEP.RESOURCE=QUANTITY", "train.memory=32Gi"]),
        ("pipeline submit --data minio://a/b --resources train.gpu=1", ["unknown resource 'gpu'"]),
        ("pipeline show -o absent/file.yaml", ["absent/file.yaml: cannot be written"]),
        ("pipeline cancel", ["Missing argument 'RUN'"]),
        ("estimate", ["Missing option '--data'"]),
        ("predict", ["no images are given"]),
        ("train", ["Missing argument 'DATASET'"]),
        (
            "pipeline submit --data shapes --store minio://xyz",
            ["the field data = /", "/shapes: pods cannot read folders", "kubeyolo copy"],
        ),
        ("pipeline submit --data minio://data/x --store st", ["the field store = /", "/st: pods cannot read folders"]),
        (
            "pipeline submit --data minio://data/x --store minio://kubeyolo --set pretrain.data=shapes",
            ["pretrain.data = shapes: pods cannot read folders"],
        ),
        (
            "pipeline submit --data minio://data/x --store minio://kubeyolo -p max_epochs=3",
            ["did you mean 'max_epoch'"],
        ),
        (
            "pipeline submit --data minio://data/x --store minio://kubeyolo -p max_epoch=ten",
            ["expected a whole number"],
        ),
        (
            "pipeline submit --data minio://data/x --store minio://kubeyolo -p data=minio://data/y",
            ["data is given twice: 'minio://data/y' by --param, and 'minio://data/x' by another option"],
        ),
        (
            # Settings of the configuration and of the launcher are looked at together: these go with each other.
            "pipeline submit --data minio://data/x --store minio://kubeyolo --set train.processes=16 "
            '-p launcher=volcano -p cluster={"preset":"ascend910b"}',
            ["MINIO_ENDPOINT is not set"],
        ),
        ("pipeline status", ["no Kubeflow host: give --host"]),
        ("pipeline status --host nowhere", ["'nowhere': expected an address"]),
        ("pipeline list --host http://127.0.0.1:9", ["http://127.0.0.1:9: does not answer", "refused"]),
        ("pipeline gate --bundle minio://m/b --data minio://d/x --store minio://s", ["no limit is given"]),
        (
            "pipeline gate --bundle b --data minio://d/x --store minio://s --min-ap 2",
            ["--min-ap", "less than or"],
        ),
        ("pipeline gate --bundle b --data minio://d/x --store minio://s --min AP5=0.3", ["did you mean 'AP50'"]),
        ("pipeline gate --bundle b --data minio://d/x --store minio://s --min AP50", ["such as --min AP50=0.8"]),
        ("pipeline gate --bundle b --data minio://d/x --store minio://s --max-drop 1", ["give --baseline"]),
        ("pipeline gate --bundle b --data d --store s --min-ap 0.5 --junit absent/x.xml", ["absent/x.xml: cannot be"]),
        (
            "pipeline gate --bundle b --data minio://data/x --store minio://kubeyolo --min-ap 0.5",
            ["the field bundle = b: pods cannot read folders"],
        ),
        (
            "pipeline gate --bundle minio://models/b --data minio://data/x --store minio://kubeyolo --min-ap 0.5 "
            "--runtime onx",
            ["did you mean 'onnx'"],
        ),
        (
            "pipeline gate --bundle minio://models/b --data minio://data/x --store minio://kubeyolo --min-ap 0.5 "
            "--set train.sed=1",
            ["did you mean 'train.seed'"],
        ),
        ("publish b --latest models/latest", ["models/latest: the name of a pointer ends in .json"]),
        ("copy absent there", ["absent: there is nothing to copy"]),
        ("sample", ["FOLDER", "sample --help"]),
        ("sample there --train none", ["--train", "valid integer", "sample --help"]),
        ("sample there --seed 99999999999999999999999", ["--seed", "4294967295", "sample --help"]),
        ("sample there --seed 4294967296", ["--seed", "4294967295"]),
        ("sample there --seed -1", ["--seed", "greater than or equal to 0"]),
        ("trian", ["trian"]),
        ("run --dta x", ["--dta"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(kubeyolo: Any, data: Path, arguments: str, words: list[str]) -> None:
    result = kubeyolo(*arguments.split())
    assert result.code == 2, result.err
    lines = result.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.err
    for word in words:
        assert word in lines[0]


def broken_bundle(folder: Path) -> Path:
    files = {"weights.safetensors": folder / "weights.safetensors"}
    files["weights.safetensors"].write_bytes(b"weights")
    facts = model_facts("yolov5n-r7")
    manifest = BundleManifest(
        model=facts.name, classes=("a",), image_size=(64, 64), strides=facts.strides, anchors=facts.anchors
    )
    bundle = folder / "bundle"
    publish_bundle(Place.of(bundle), manifest, files)
    (stored,) = bundle.rglob("weights.safetensors")
    stored.write_bytes(b"WEIGHTS")
    return bundle


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda data: (data / "annotations" / "train.json").write_text("{"), ["train.json", "not JSON"]),
        (lambda data: (data / "annotations" / "train.json").write_text("{}"), ["train.json", "not COCO"]),
        (lambda data: next((data / "train").iterdir()).write_bytes(b""), ["is empty"]),
        (lambda data: next((data / "train").iterdir()).write_bytes(b"\xff\xd8\xff"), ["is a truncated JPEG"]),
        (lambda data: next((data / "train").iterdir()).unlink(), ["is missing"]),
    ],
)
def test_broken_data_is_one_line_and_exit_code_2(kubeyolo: Any, data: Path, break_it: Any, words: list[str]) -> None:
    break_it(data)
    for result in (kubeyolo("validate", data), kubeyolo("run", "--data", data)):
        (line,) = result.err.strip().splitlines()
        assert result.code == 2 and line.startswith("error: "), result.err
        assert all(word in line for word in words), line


def test_a_damaged_bundle_is_one_line_and_exit_code_2(kubeyolo: Any, tmp_path: Path) -> None:
    result = kubeyolo("predict", "photo.jpg", "--bundle", broken_bundle(tmp_path))
    (line,) = result.err.strip().splitlines()
    assert result.code == 2
    assert "weights.safetensors: the content does not match its checksum" in line


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("MINIO_ENDPOINT", "127.0.0.1:9", "does not answer"), ("MINIO_SECRET_KEY", "wrong", "SignatureDoesNotMatch")],
)
def test_a_store_that_cannot_be_used_is_one_line_and_exit_code_2(
    kubeyolo: Any,
    data: Path,
    minio_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv(variable, value)
    result = kubeyolo("validate", data, "--store", f"minio://{minio_bucket}/x")
    (line,) = result.err.strip().splitlines()
    assert result.code == 2 and line.startswith("error: ") and words in line, result.err


def test_the_stack_of_an_error_goes_to_the_debug_log(kubeyolo: Any, tmp_path: Path) -> None:
    result = kubeyolo("evaluate", "absent", "absent")
    assert "Traceback" not in result.err
    log = (tmp_path / "cache" / "logs" / "debug.log").read_text()
    assert "kubeyolo evaluate absent absent" in log
    assert "Traceback" in log and "InputError" in log


def test_debug_prints_the_stack(kubeyolo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(errors.DEBUG, "")
    result = kubeyolo("--debug", "evaluate", "absent", "absent")
    assert result.code == 2
    assert "Traceback" in result.err


def test_failed_work_is_exit_code_1() -> None:
    from kubeyolo.errors import WorkError

    def fail() -> None:
        raise WorkError("the gate is closed")

    assert errors.exit_code_of(fail, []) == 1


def test_an_unexpected_error_is_exit_code_1_and_names_the_log(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path))

    def fail() -> None:
        raise ZeroDivisionError("by\nzero")

    assert errors.exit_code_of(fail, ["run"]) == 1
    said = capsys.readouterr().err
    assert said.strip() == (
        f"error: unexpected ZeroDivisionError: by zero; the stack trace is in {tmp_path / 'logs' / 'debug.log'}"
    )


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, typer.Abort])
def test_an_interruption_is_exit_code_130(interruption: type[BaseException]) -> None:
    def stop() -> None:
        raise interruption

    assert errors.exit_code_of(stop, []) == 130


def test_no_arguments_show_the_help(kubeyolo: Any) -> None:
    result = kubeyolo()
    shown = result.out + result.err
    assert [name for name in COMMAND.commands if not re.search(rf"(?m)^\W*{name}\s", shown)] == []
    assert not re.search(r"(?m)^error", shown)


def test_the_version_is_printed(kubeyolo: Any) -> None:
    from kubeyolo import __version__

    assert kubeyolo("--version").out.strip() == f"kubeyolo {__version__}"


def test_models_are_listed(kubeyolo: Any) -> None:
    listed = kubeyolo("models", "list").out
    assert "yolov5n-r7" in listed and "818.35 G" in listed
    assert max(len(line.rstrip()) for line in listed.splitlines()) <= 81
    rows = {row["name"]: row for row in json.loads(kubeyolo("models", "list", "--json").out)}
    assert rows["yolov5s"]["parameters"] == 7_276_605
    assert rows["yolov5s"]["multiply_adds"] == 8_478_924_800


def test_a_model_is_shown_with_its_configuration(kubeyolo: Any) -> None:
    shown = json.loads(kubeyolo("models", "show", "yolov5n-r7", "--set", "train.max_epoch=3", "--json").out)
    assert (shown["parameters"], shown["multiply_adds"]) == (1_872_157, 2_234_060_800)
    assert shown["config"]["train"]["max_epoch"] == 3
    assert "train.lr" in shown["bands"]["often changed"]
    out = kubeyolo("models", "show", "yolov5n-r7").out
    places = [out.index(word) for word in ("often changed", "train.max_epoch", "leave alone", "train.momentum")]
    assert places == sorted(places)


def test_validate_prints_the_stored_data_set(kubeyolo: Any, data: Path) -> None:
    record = json.loads(kubeyolo("validate", data, "--store", "store", "--json").out)
    assert record["step"] == "validate_dataset"
    assert record["metrics"]["train_images"] == 2
    assert record["outputs"]["dataset"].startswith("file://")
    assert "train_images" in kubeyolo("validate", data, "--store", "store").out


def test_sample_writes_a_data_set(kubeyolo: Any, tmp_path: Path) -> None:
    assert kubeyolo("sample", tmp_path / "made", "--train", "2", "--val", "1").code == 0
    document = json.loads((tmp_path / "made" / "annotations" / "train.json").read_text())
    assert len(document["images"]) == 2


def test_pipeline_show_binds_images_and_values(kubeyolo: Any, tmp_path: Path) -> None:
    images = tmp_path / "images.yaml"
    images.write_text("kubeyolo-train: r/kubeyolo-train@sha256:1\n")
    arguments = ["--images", images, "--image", "kubeyolo-validate=r/v@sha256:2", "--set", "train.max_epoch=3"]
    assert kubeyolo("pipeline", "show", "-o", "bound.yaml", *arguments).code == 0
    bound = next(yaml.safe_load_all((tmp_path / "bound.yaml").read_text()))
    executors = bound["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["image"] == "r/kubeyolo-train@sha256:1"
    assert executors["exec-validate-dataset"]["container"]["image"] == "r/v@sha256:2"
    fields = bound["root"]["inputDefinitions"]["parameters"]
    assert fields["max_epoch"]["defaultValue"] == "3"
    assert fields["data"] == CompiledPipeline.named().fields["data"]


def test_pipeline_show_fills_in_what_has_no_field_as_settings(kubeyolo: Any, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: yolov5s\ntrain: {seed: 3, max_epoch: 7}\nretrain: {max_regression: 0.5}\n")
    filled: dict[str, dict[str, Any]] = {}
    for name in ("detector-training", "detector-retraining", "model-evaluation"):
        if name == "model-evaluation":
            file.write_text(file.read_text().removeprefix("model: yolov5s\n"))
        fields = CompiledPipeline(kubeyolo("pipeline", "show", name, "--config", file).out).fields
        assert set(fields) == set(CompiledPipeline.named(name).fields)
        filled[name] = {field: fields[field].get("defaultValue") for field in fields}
    training, retraining, evaluation = filled.values()
    assert (
        (training["model"], training["max_epoch"]) == (retraining["model"], retraining["max_epoch"]) == ("yolov5s", "7")
    )
    assert json.loads(training["settings"]) == {"train": {"seed": 3}, "retrain": {"max_regression": 0.5}}
    assert (json.loads(retraining["settings"]), retraining["max_regression"]) == ({"train": {"seed": 3}}, "0.5")
    assert json.loads(evaluation["settings"])["train"] == {"seed": 3, "max_epoch": 7}


def test_pipeline_show_binds_resources(kubeyolo: Any) -> None:
    pairs = ("--resources", "evaluate.cpu=2", "--resources", "evaluate_baseline.memory=16Gi")
    before = CompiledPipeline.named("model-evaluation").resources
    after = CompiledPipeline(kubeyolo("pipeline", "show", "model-evaluation", *pairs).out).resources
    assert {step for step in before if before[step] != after[step]} == {"evaluate", "evaluate_baseline"}
    assert (after["evaluate"].cpu, after["evaluate_baseline"].memory) == ("2", "16Gi")


def test_pipeline_show_is_what_the_wheel_holds(kubeyolo: Any) -> None:
    assert kubeyolo("pipeline", "show").out == CompiledPipeline.named().text
    plain = kubeyolo("pipeline", "show", "--without-literals").out
    assert "literals" in CompiledPipeline.named().text and "literals" not in plain
    assert set(CompiledPipeline(plain).fields) == set(CompiledPipeline.named().fields)


def test_configure_says_what_a_run_would_do_and_writes_nothing(kubeyolo: Any, data: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    sets = ["--set", "train.max_epoch=7", "--set", "train.seed=3", "--set", "retrain.max_regression=0.5"]
    shown = kubeyolo("configure", "--data", data, *sets)
    assert shown.code == 0, shown.err
    name, lead, *rest = shown.out.splitlines()
    assert name.startswith("run yolov5n-r7-shapes-") and "7 epochs at 640 px" in lead
    assert any(line.startswith("about ") for line in rest)
    assert {"train.max_epoch = 7 (the field max_epoch)", "train.seed = 3 (the field settings)"} <= set(rest)
    facts = json.loads(kubeyolo("configure", "--data", data, *sets, "--json").out)
    assert (facts["name"], facts["data"]) == (name.removeprefix("run "), str(data))
    assert (facts["config"]["train"]["seed"], facts["origins"]["train.seed"]) == (3, "the field settings")
    assert facts["images"] == {"train": 2, "val": 1} and facts["estimate"][0].startswith("about ")
    # The same settings by the fields of the form are the same run.
    fields = ["-p", "max_epoch=7", "-p", "settings={train: {seed: 3}, retrain: {max_regression: 0.5}}"]
    again = json.loads(kubeyolo("configure", "--data", data.name, *fields, "--json").out)
    assert again["name"] == facts["name"] and again["config"] == facts["config"]
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before


def test_a_field_takes_the_place_of_the_default_model(kubeyolo: Any, data: Path) -> None:
    facts = json.loads(kubeyolo("configure", "--data", data, "-p", "model=yolov5s", "--json").out)
    assert facts["config"]["model"] == "yolov5s" and facts["name"].startswith("yolov5s-shapes-")


def test_tables_in_a_pipe_do_not_fold(kubeyolo: Any, data: Path) -> None:
    text = kubeyolo("validate", data, "--store", "store/" + "a-long-name-of-a-folder/" * 6).out
    record = json.loads(kubeyolo("validate", data, "--store", "store/" + "a-long-name-of-a-folder/" * 6, "--json").out)
    lines = [line.rstrip() for line in text.splitlines()]
    assert len([line for line in lines if line.endswith(record["outputs"]["dataset"])]) == 1
    # Of the reference of the data set, and by itself.
    assert len([line for line in lines if line.endswith(record["outputs"]["digest"])]) == 2
    assert len([line for line in lines if line.endswith("report.html")]) == 1


def test_the_models_whose_names_begin_so_are_suggested(kubeyolo: Any) -> None:
    said = kubeyolo("models", "show", "yolov5").err
    assert "'yolov5s'" in said and "'yolov5l'" in said


def test_work_that_was_told_to_stop_is_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    from kubeyolo.errors import InterruptedWork

    def stop() -> None:
        raise InterruptedWork("interrupted: stopped after step 3; run the same command again to continue")

    assert errors.exit_code_of(stop, ["train"]) == 130
    message = "interrupted: stopped after step 3; run the same command again to continue"
    assert capsys.readouterr().err == f"error: {message}\n"


def test_an_argument_that_is_not_utf8_is_named_in_one_line(kubeyolo: Any, tmp_path: Path) -> None:
    failed = kubeyolo("configure", "--data", "d", "--set", "train.max_epoch=\udcff")
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert failed.err.startswith("error: --set 'train.max_epoch=\\udcff': not JSON or YAML: ")
    assert kubeyolo("models", "show", "yolo\udcff").code == 2
    assert "\\udcff" in (tmp_path / "cache" / "logs" / "debug.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("detector-training --set export.formats=[mindir]", "export.formats = ['mindir']: the pipeline quantizes"),
        ("detector-retraining --set export.formats=[mindir]", "export.formats = ['mindir']: the pipeline quantizes"),
        ("detector-training --set train.max_epoch=0", "train.max_epoch = 0"),
        (
            "model-evaluation --set model=yolov5s",
            "model = 'yolov5s': model-evaluation has no field model; the pipeline uses the model",
        ),
    ],
)
def test_pipeline_show_refuses_what_a_run_would_refuse(kubeyolo: Any, arguments: str, message: str) -> None:
    failed = kubeyolo("pipeline", "show", *arguments.split())
    assert (failed.code, failed.out) == (2, "")
    assert message in failed.err


def test_texts_of_the_form_stay_texts_for_every_yaml_parser(kubeyolo: Any) -> None:
    text = kubeyolo("pipeline", "show", "--set", "train.lr=1e-5").out
    assert CompiledPipeline(text).fields["lr"]["defaultValue"] == "1e-05"
    assert "defaultValue: '1e-05'" in text


def form_of(*pairs: str, data: str = "d", model: str | None = None, sets: tuple[str, ...] = ()) -> dict[str, str]:
    return training_form(data, "store", model, "", None, list(sets), list(pairs))


def test_params_that_say_nothing_or_the_same_are_no_contradiction(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert form_of("version=", "lr= ", sets=("train.lr=0.02",)) == form_of(sets=("train.lr=0.02",))
    assert form_of("lr=0.020", sets=("train.lr=0.02",))["lr"] == "0.020"
    assert form_of("data=./d") == form_of(data=" d ")
    assert form_of(data=" d ")["data"] == str(tmp_path / "d")
    assert form_of("settings=train: {seed: 1}", sets=("train.seed=1",))["settings"] == "train: {seed: 1}"
    for pairs, sets in (("lr=0.03", "train.lr=0.02"), ("data=e", "train.lr=0.02"), ("settings={}", "train.seed=1")):
        with pytest.raises(InputError, match="is given twice"):
            form_of(pairs, sets=(sets,))
    with pytest.raises(InputError, match="two models: 'yolov5s-r7', and 'yolov5m-r7' by --set model"):
        form_of(model="yolov5s-r7", sets=("model=yolov5m-r7",))


def test_settings_are_checked_before_sample_data_is_made(kubeyolo: Any, tmp_path: Path) -> None:
    failed = kubeyolo("run", "--sample", "--set", "export.formats=[mindir]")
    assert failed.code == 2 and "add onnx" in failed.err
    assert not (tmp_path / "runs").exists()


def test_examples_name_the_folders_that_steps_write_to(kubeyolo: Any) -> None:
    for command, step in (("quantize", "export_model"), ("publish", "quantize")):
        folder = result_output(Place.of("store"), step, "yolov5n-r7", {}, {}, "c").uri.rpartition("/store/")[2]
        folder, digits = folder[:-12], r"[0-9a-f]{12}"
        assert re.search(rf"kubeyolo {command} store/{folder}{digits}/bundle", kubeyolo(command, "--help").out)


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("~/set", "HOME/set"),
        ("--config=~/my.yaml", "--config=HOME/my.yaml"),
        ("-c~/my.yaml", "-cHOME/my.yaml"),
        ("~", "HOME"),
        ("./~/set", "./~/set"),
        ("train.lr=~/x", "train.lr=~/x"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        ("minio://a/~b", "minio://a/~b"),
        ("--set=augment.mosaic=0", "--set=augment.mosaic=0"),
    ],
)
def test_an_argument_that_begins_with_the_home_is_expanded(
    argument: str, expanded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_homes([argument]) == [expanded.replace("HOME", str(tmp_path))]


@pytest.mark.parametrize("option", ["--config=~/my.yaml", "--cluster=~/my.yaml", "--images=~/my.yaml"])
def test_a_file_of_an_option_is_looked_for_in_the_home(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["pipeline", "show"] if "images" in option else ["train", "none", "--launcher", "volcano"]
    with pytest.raises(SystemExit) as end:
        main([*command, option])
    assert end.value.code == 2 and str(tmp_path / "my.yaml") in capsys.readouterr().err
