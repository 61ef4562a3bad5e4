"""Components: thin, as the catalogue says, described, and each of them runs alone."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from kubeyolo.bundle import BundleManifest
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION, STEPS
from kubeyolo.config.form import describe_field
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps import component as library
from kubeyolo.steps import facade
from kubeyolo.steps.configure import configure
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place

ROOT = Path(__file__).resolve().parents[2]
FILES = {"README.md", "__init__.py", "component.py"}
FORMS = ("configure_training", "configure_retraining", "configure_evaluation")
"""The functions of the step that has one for each form."""

FUNCTIONS = [(step, name) for step in STEPS for name in (FORMS if step == "configure" else (step,))]
"""Every component: its folder, and its function."""

PROTOCOLS = {
    "HTML": "FileArtifact",
    "Markdown": "FileArtifact",
    "Metrics": "MetricsArtifact",
    "ClassificationMetrics": "ConfusionArtifact",
    "Dataset": "HandleArtifact",
    "Model": "HandleArtifact",
}
"""What the library takes for each kind of artifact of kfp."""

ALONE = """
import json
import sys
from pathlib import Path
from kfp import local
from components.configure.component import configure_training
from components.validate_dataset.component import validate_dataset

if __name__ == "__main__":
    data, store, root = sys.argv[1:]
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
    configured = configure_training(data=data, store=store, max_epoch="2", settings="{data: {workers: 0}}")
    assert configured.outputs["run"]["data"] == data, configured.outputs
    assert configured.outputs["train"]["config"]["train"]["max_epoch"] == 2
    assert configured.outputs["train"]["config"]["data"]["workers"] == 0
    assert configured.outputs["validate_dataset"]["config"]["data"]["strict"] is False
    assert "workers" not in configured.outputs["validate_dataset"]["config"]["data"]
    assert "| train.max\\\\_epoch | 2 |" in Path(configured.outputs["plan"].path).read_text()
    task = validate_dataset(settings=configured.outputs["validate_dataset"])
    uri, _, digest = task.outputs["dataset"].partition("@sha256:")
    assert uri.startswith("file://") and len(digest) == 64, task.outputs
    facts = task.outputs["validated_dataset"].metadata
    assert (facts["store_uri"], facts["digest"], facts["train_images"]) == (uri, digest, 3)
    assert json.loads(Path(task.outputs["validated_dataset"].path).read_text()) == facts
    assert "<html" in Path(task.outputs["data_report"].path).read_text()
    assert "No findings" in Path(task.outputs["data_findings"].path).read_text()
    print("RAN ALONE")
"""


def folders() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "components").glob("*/component.py"))


def function_of(step: str, name: str) -> ast.FunctionDef:
    tree = ast.parse((ROOT / "components" / step / "component.py").read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(functions) == {other for folder, other in FUNCTIONS if folder == step}
    return functions[name]


def outputs_of(function: ast.FunctionDef) -> list[str]:
    """Return the names of the outputs of a component."""
    assert isinstance(function.returns, ast.Call)
    return [name for name, _ in ast.literal_eval(_names_as_texts(function.returns.args[1]))]


def _names_as_texts(pairs: ast.expr) -> ast.expr:
    """Return [("record", "str")] of [("record", str)]."""
    for node in ast.walk(pairs):
        if isinstance(node, ast.Tuple):
            node.elts = [ast.Constant(each.id) if isinstance(each, ast.Name) else each for each in node.elts]
    return pairs


def artifacts_of(function: ast.FunctionDef) -> dict[str, str]:
    """Return the kind of each artifact of a component, by name."""
    texts = {argument.arg: ast.unparse(argument.annotation or ast.Constant("")) for argument in function.args.args}
    return {
        name: text.removeprefix("dsl.Output[dsl.")[:-1] for name, text in texts.items() if text.startswith("dsl.Output")
    }


def test_there_is_a_component_for_each_step() -> None:
    assert sorted(folder.name for folder in folders()) == sorted(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_component_has_the_fixed_set_of_files(step: str) -> None:
    found = {path.name for path in (ROOT / "components" / step).iterdir() if path.name != "__pycache__"}
    assert found == FILES


@pytest.mark.parametrize(("step", "name"), FUNCTIONS)
def test_a_body_is_one_call_that_passes_every_parameter_on(step: str, name: str) -> None:
    function = function_of(step, name)
    docstring, imported, returned = function.body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(imported, ast.ImportFrom) and imported.module == "kubeyolo.steps.component"
    assert [(each.name, each.asname) for each in imported.names] == [(name, "run")]
    assert isinstance(returned, ast.Return) and isinstance(returned.value, ast.Call)
    assert ast.unparse(returned.value.func) == "run" and not returned.value.args
    passed = {keyword.arg: ast.unparse(keyword.value) for keyword in returned.value.keywords}
    assert passed == {argument.arg: argument.arg for argument in function.args.args}
    (decorator,) = function.decorator_list
    assert ast.unparse(decorator) == f"step('{step}')"


@pytest.mark.parametrize(("step", "name"), FUNCTIONS)
def test_component_library_and_catalogue_have_the_same_inputs_outputs_and_artifacts(step: str, name: str) -> None:
    function, record = function_of(step, name), STEPS[step]
    given = [argument.arg for argument in function.args.args]
    assert artifacts_of(function) == {artifact.name: artifact.kind for artifact in record.artifacts}
    parameters = dict(inspect.signature(getattr(library, name)).parameters)
    assert {each.kind for each in parameters.values()} <= {
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    }
    for artifact in record.artifacts:
        assert parameters[artifact.name].annotation == PROTOCOLS[artifact.kind], artifact.name
    if step == "configure":
        assert set(parameters) == {"plan", "form"}
        return
    results = get_type_hints(getattr(library, name))["return"].__args__
    assert len(results) == len(outputs_of(function))
    assert given == ["settings", *record.inputs, *(artifact.name for artifact in record.artifacts)]
    assert list(parameters) == given
    assert outputs_of(function) == list(record.outputs)
    assert set(results) == {str}


class Plan:
    """Stands in for the artifact of kfp."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, dict[str, str]]:
    """Return a form for each function of configure, filled in with places that are there."""
    data = generate_sample_dataset(tmp_path / "shapes", train=2, val=1, image_size=(64, 64))
    (tmp_path / "pointer.json").write_text(json.dumps({"data": str(data)}))
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    manifest = BundleManifest(
        model="yolov5n-r7",
        classes=("a",),
        image_size=(64, 64),
        strides=(8, 16, 32),
        anchors=model_facts("yolov5n-r7").anchors,
    )
    bundle = publish_bundle(Place.of(tmp_path / "bundle"), manifest, {weights.name: weights}).uri
    places = {
        "configure_training": {"data": str(data)},
        "configure_retraining": {"pointer": str(tmp_path / "pointer.json")},
        "configure_evaluation": {"data": str(data), "bundle": bundle, "baseline": bundle},
    }
    return {name: {"store": str(tmp_path / "store"), **given} for name, given in places.items()}


@pytest.mark.parametrize("name", FORMS)
def test_the_outputs_of_configure_are_in_the_order_of_their_names(
    name: str, forms: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    pipeline = dict(zip(FORMS, (DETECTOR_TRAINING, DETECTOR_RETRAINING, MODEL_EVALUATION), strict=True))[name]
    results = getattr(library, name)(plan=Plan(tmp_path / "plan.md"), **forms[name])
    outputs = dict(zip(outputs_of(function_of("configure", name)), results, strict=True))
    run = configure(pipeline, forms[name])
    assert outputs.pop("run") == run.struct()
    assert read_record(Place.of(outputs.pop("record"))).step == "configure"
    references = {
        name: bundle.reference for name, bundle in (("bundle", run.bundle), ("baseline", run.baseline)) if bundle
    }
    others = {"data": run.data, **references}
    for output in {"configure_retraining": ["data"], "configure_evaluation": ["bundle", "baseline"]}.get(name, []):
        assert outputs.pop(output) == others[output] != "", output
    assert outputs == {task: settings.struct() for task, settings in run.settings.items()}
    assert (tmp_path / "plan.md").read_text().startswith(f"# {run.name}")


@pytest.mark.parametrize("name", ["configure_evaluation", "configure_retraining"])
def test_configure_has_all_outputs_where_there_is_less_to_do(
    name: str, forms: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    form = forms[name]
    if name == "configure_evaluation":
        form["baseline"] = ""
    else:
        # The current model was trained on this data.
        run = configure(DETECTOR_RETRAINING, form)
        latest = tmp_path / "store" / "models" / "yolov5n-r7" / "latest.json"
        latest.parent.mkdir(parents=True, exist_ok=True)
        pointer = {"bundle": forms["configure_evaluation"]["bundle"], "fingerprint": run.facts["fingerprint"]}
        latest.write_text(json.dumps(pointer))
    results = getattr(library, name)(plan=Plan(tmp_path / "plan.md"), **form)
    outputs = dict(zip(outputs_of(function_of("configure", name)), results, strict=True))
    assert outputs["baseline" if name == "configure_evaluation" else "data"] == ""
    structs = {output: value for output, value in outputs.items() if not isinstance(value, str)}
    assert all(structs.values()) and len(structs) == len(outputs) - (3 if name == "configure_evaluation" else 2)


@pytest.mark.parametrize(("step", "name"), FUNCTIONS)
def test_descriptions_are_those_of_the_catalogue_and_of_the_form(step: str, name: str) -> None:
    import importlib

    record, made = STEPS[step], getattr(importlib.import_module(f"components.{step}.component"), name)
    spec: Any = made.component_spec
    assert spec.name == step.replace("_", "-") and spec.description == record.title
    for field, given in spec.inputs.items():
        expected = describe_field(field) if step == "configure" else record.inputs.get(field, "The settings of")
        assert given.description.startswith(expected), field
    for output, given in spec.outputs.items():
        assert given.description or output in {artifact.name for artifact in record.artifacts}, output
        assert step == "configure" or output not in record.outputs or given.description == record.outputs[output]


@pytest.mark.parametrize("step", STEPS)
def test_a_readme_has_tables_of_everything_and_a_command(step: str) -> None:
    text, record = (ROOT / "components" / step / "README.md").read_text(), STEPS[step]
    assert text.startswith(f"# {step}\n\n")
    places = [
        text.index(f"\n{heading}\n")
        for heading in ("## Inputs", "## Outputs", "## Artifacts", "## Failure modes", "## Alone")
    ]
    assert places == sorted(places)
    names = ["settings", *record.inputs, *record.outputs] if step != "configure" else ["*"]
    for name in [*names, *(artifact.name for artifact in record.artifacts)]:
        assert f"\n| {name} | " in text, f"{step}: {name} is not in the README"
    assert all(f"`{key}`" in text for key in record.reads)
    assert text.count("```sh\nkubeyolo ") == 1


def test_the_command_of_a_readme_is_one_that_there_is() -> None:
    import typer

    from kubeyolo.cli.app import app

    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for folder in folders():
        name, *words = shlex.split((folder / "README.md").read_text().split("```sh\nkubeyolo ")[1].split("```")[0])
        assert name in known, folder.name
        known[name].make_context(name, words)


def names_its_output(function: Callable[..., Any]) -> bool:
    """Tell whether a function of the facade names its output before it works, by itself or by one that it calls."""
    code = inspect.getsource(function)
    below = [getattr(facade, name) for name in re.findall(r"\b(_[a-z_]+)\(call", code) if name != function.__name__]
    return "call.begin(" in code or "call.begun_output(" in code or any(map(names_its_output, below))


@pytest.mark.parametrize("step", sorted({*STEPS} - {"configure"}))
def test_a_readme_speaks_of_a_failure_document_where_one_is_left(step: str) -> None:
    text = (ROOT / "components" / step / "README.md").read_text()
    assert ("failure.json" in text) == names_its_output(getattr(facade, step))


def test_components_run_alone(tmp_path: Path) -> None:
    data = generate_sample_dataset(tmp_path / "data", train=3, val=1, image_size=(64, 64))
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    places = [str(data), str(tmp_path / "store"), str(tmp_path / "root")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import kubeyolo, runpy; runpy.run_path({str(script)!r}, run_name='__main__')",
            *places,
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "RAN ALONE" in done.stdout
