"""Components: thin, described, and each of them runs alone."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo.runs.folder import STEPS

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_RESULTS = ("read_pointer", "stop_training")
"""Components that are no steps: the first task of a retraining and the exit handler, without record and command."""

RETRAINING = ("evaluate_in_use", "promote")
"""Steps that retraining alone has."""

COMPONENTS = (*STEPS, *RETRAINING, *WITHOUT_RESULTS)

FILES = {"README.md", "__init__.py", "component.py"}

ALONE = """
import sys
from pathlib import Path
from kfp import local
from components.validate_dataset.component import validate_dataset

if __name__ == "__main__":
    data, store, root = sys.argv[1:]
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
    task = validate_dataset(data=data, store=store, fingerprint="1", code_digest="2")
    assert task.outputs["dataset"].startswith("file://"), task.outputs
    assert len(task.outputs["digest"]) == 64
    assert task.outputs["metrics"].metadata["train_images"] == 3
    assert "<html" in Path(task.outputs["report"].path).read_text()
    print("RAN ALONE")
"""


def folders() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "components").glob("*/component.py"))


def test_there_is_a_component_for_each_step() -> None:
    assert sorted(folder.name for folder in folders()) == sorted(COMPONENTS)


@pytest.mark.parametrize("step", COMPONENTS)
def test_a_component_has_the_fixed_set_of_files(step: str) -> None:
    found = {path.name for path in (ROOT / "components" / step).iterdir() if path.name != "__pycache__"}
    assert found == FILES


@pytest.mark.parametrize("step", COMPONENTS)
def test_a_body_is_one_call_into_the_library(step: str) -> None:
    tree = ast.parse((ROOT / "components" / step / "component.py").read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    docstring, imported, returned = function.body
    assert function.name == step
    assert isinstance(docstring, ast.Expr)
    assert isinstance(imported, ast.ImportFrom) and imported.module == "kubeyolo.steps.component"
    assert isinstance(returned, ast.Return) and isinstance(returned.value, ast.Call)
    results = set() if step in WITHOUT_RESULTS else {"code_digest", "store", "metrics", "report"}
    assert {argument.arg for argument in function.args.args} >= results


@pytest.mark.parametrize("step", COMPONENTS)
def test_a_readme_names_every_input_and_output_and_a_command(step: str) -> None:
    folder = ROOT / "components" / step
    text = (folder / "README.md").read_text()
    for heading in ("## Inputs", "## Outputs", "## Failure modes", "## Alone"):
        assert heading in text
    tree = ast.parse((folder / "component.py").read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for argument in function.args.args:
        assert argument.arg in text, f"{step}: {argument.arg} is not in the README"
    assert text.count("```sh\nkubeyolo ") == (step not in WITHOUT_RESULTS)


def test_the_command_of_a_readme_is_one_that_there_is() -> None:
    import typer

    from kubeyolo.cli.app import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for folder in (folder for folder in folders() if folder.name not in WITHOUT_RESULTS):
        command = (folder / "README.md").read_text().split("```sh\nkubeyolo ")[1].split()[0]
        assert command in known


def test_a_component_runs_alone(tmp_path: Path) -> None:
    from kubeyolo.data.sample import generate_sample_dataset

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


@pytest.mark.parametrize("step", (*STEPS, *RETRAINING))
def test_a_readme_speaks_of_a_failure_document_where_one_is_left(step: str) -> None:
    from kubeyolo.steps import component

    text = (ROOT / "components" / step / "README.md").read_text()
    assert ("failure.json" in text) == ("write_to" in inspect.getsource(getattr(component, step)))
