"""The action and the examples for CI: their commands are run by a real bash, and text of inputs is never a command."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.commands import all_commands
from tests.steps.fixed_detector import fixed_bundle, write_data

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "ci"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
SECRET = re.compile(r"secrets\.|-key|-token")
HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a b\tc  d",
    "* ? [a-z] ~ {a,b}",
    "--help",
    "-- -o x",
    "${{ secrets.KEY }}",
    "\\n%0A\\",
    "${options[0]} $BUNDLE",
]
RECORDER = """#!/bin/sh
exec {python} -c 'import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps([sys.argv[1], *sys.argv[2:]]), file=file)' {name} "$@"
"""


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    return found


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Return all steps for GitHub: of the action, and of the workflows."""
    found = [("action.yml", step) for step in ACTION["runs"]["steps"]]
    for name in ("github.yml", "github-runner.yml"):
        found += [(name, step) for job in workflow(name)["jobs"].values() for step in job["steps"]]
    return found


def value_of(expression: str, known: Mapping[str, str]) -> str:
    """Return the value of ``${{ a || b }}``, of the known contexts; any other text is itself."""
    match = re.fullmatch(r"\$\{\{ (.+) \}\}(.*)", expression)
    if match is None:
        return expression
    return next((known[name] for name in match[1].split(" || ") if known.get(name)), "") + match[2]


def bash(script: str, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub runs the step of an action, with nothing but these variables."""
    file = folder.parent / "script.sh"
    file.write_text(script)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


class Runner:
    """A runner of GitHub: a workspace, and the environment that the step before the last has installed."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.temp, self.record = folder / "workspace", folder / "temp", folder / "record"
        self.bin = self.temp / "kubeyolo" / "bin"
        self.workspace.mkdir()
        self.bin.mkdir(parents=True)
        self.program("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        self.program("kubeyolo", f'#!/bin/sh\nexec {sys.executable} -m kubeyolo.cli.app "$@"\n')

    def program(self, name: str, text: str) -> Path:
        file = self.bin / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def recorder(self, name: str) -> Path:
        """Install a program that only writes down its arguments."""
        return self.program(name, RECORDER.format(python=sys.executable, name=name))

    @property
    def recorded(self) -> list[list[str]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    def step(self, number: int, inputs: Mapping[str, str], **contexts: str) -> subprocess.CompletedProcess[str]:
        """Run a step of the action."""
        step = ACTION["runs"]["steps"][number]
        assert step["shell"] == "bash" and inputs.keys() <= ACTION["inputs"].keys()
        given = {name: str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()} | inputs
        known = {f"inputs.{name}": text for name, text in given.items()}
        known |= {"runner.temp": str(self.temp), "github.action_path": str(ROOT), **contexts}
        variables = {name: value_of(text, known) for name, text in step["env"].items()}
        variables |= {"GITHUB_STEP_SUMMARY": str(self.workspace / "summary.md"), "RECORD": str(self.record)}
        variables |= {"PYTHONPATH": str(ROOT), "KUBEYOLO_CACHE": str(self.temp / "cache"), "OMP_NUM_THREADS": "1"}
        return bash(step["run"], self.workspace, variables)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_action_installs_what_the_gate_needs_in_an_environment_of_its_own(runner: Runner) -> None:
    python = runner.recorder("python")
    done = runner.step(1, {}, **{"steps.python.outputs.python-path": str(python)})
    assert done.returncode == 0, done.stderr
    environment = str(runner.temp / "kubeyolo")
    first, second = runner.recorded
    assert first == ["python", "-m", "venv", environment]
    assert second[:4] == ["python", "-m", "pip", "install"]
    assert second[-3:] == ["--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[evaluate-onnx]"]


def test_the_action_evaluates_and_judges(runner: Runner) -> None:
    """Names of folders that would be commands in a script are names."""
    places = runner.workspace / "models $(touch pwned)" / 'it\'s "new" `touch pwned`;&|'
    bundle = fixed_bundle(places / "bundle", {"onnx": 4})
    data = write_data(places / "cells")
    inputs = {"bundle": str(places / "bundle" / "plain"), "data": str(data), "min": "AP50=1\n\nAR100=0.6\r\n"}
    assert bundle.endswith("plain")
    done = runner.step(2, inputs | {"min-ap": "0.6"})
    assert done.returncode == 0, done.stderr
    assert "✓ AP >= 0.6: AP is 0.6000" in done.stdout and "✓ AR100 >= 0.6" in done.stdout
    token = done.stdout.splitlines()[0].removeprefix("::stop-commands::")
    assert len(token) == 36 and done.stdout.splitlines()[-1] == f"::{token}::"
    (suite,) = ElementTree.parse(runner.workspace / "gate.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("3", "0")
    assert (runner.workspace / "summary.md").read_text().startswith("## ✅ kubeyolo gate\n")
    assert "AP is 0.6000" in (runner.workspace / "gate.html").read_text()
    done = runner.step(2, inputs | {"min-ap": "0.61"})
    assert done.returncode == 1 and "✗ AP >= 0.61" in done.stdout
    assert not list(runner.workspace.rglob("pwned"))


@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_are_arguments_and_nothing_else(runner: Runner, text: str) -> None:
    runner.recorder("kubeyolo")
    inputs = dict.fromkeys(ACTION["inputs"], text)
    done = runner.step(2, inputs)
    assert done.returncode == 0, done.stderr
    (arguments,) = runner.recorded
    assert arguments[:2] == ["kubeyolo", "gate"]
    options = ["--bundle", "--data", "--runtime", "--store", "--baseline", "--split", "--min-ap", "--max-drop"]
    options += ["--config", "--junit", "--report", "--min", "--set"]
    summary = f"--summary={runner.workspace / 'summary.md'}"
    assert sorted(arguments[2:]) == sorted([*(f"{option}={text}" for option in options), summary])
    assert not list(runner.workspace.iterdir())


def test_options_of_empty_inputs_are_left_out(runner: Runner) -> None:
    runner.recorder("kubeyolo")
    assert runner.step(2, {"bundle": "b", "data": "d", "min": "\n", "max-drop": "1"}).returncode == 0
    (arguments,) = runner.recorded
    names = [argument.partition("=")[0] for argument in arguments[2:]]
    assert names == ["--bundle", "--data", "--runtime", "--store", "--summary", "--max-drop", "--junit", "--report"]
    command = all_commands()["gate"]
    assert command.make_context("gate", arguments[2:]).params["max_drop"] == 1.0


@pytest.mark.parametrize(
    ("name", "command"),
    [("github.yml", "pipeline gate"), ("gitlab.yml", "pipeline gate"), ("gitlab-runner.yml", "gate")],
)
def test_scripts_of_the_examples_call_the_command_with_options_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    runner = Runner(tmp_path)
    runner.recorder("kubeyolo")
    runner.recorder("pip")
    if name == "github.yml":
        scripts = [step["run"] for step in workflow(name)["jobs"]["gate"]["steps"] if "run" in step]
    else:
        scripts = workflow(name)["model gate"]["script"]
    texts = {"BUNDLE": "$(touch pwned) 'b", "BASELINE": "a b", "DATA": 'd"; touch pwned'}
    variables = {**texts, "RECORD": str(runner.record), "GITHUB_STEP_SUMMARY": "summary.md"}
    done = bash("\n".join(scripts), runner.workspace, variables | {"PATH": f"{runner.bin}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    words = command.split()
    recorded = next(arguments[1:] for arguments in runner.recorded if arguments[0] == "kubeyolo")
    assert recorded[: len(words)] == words
    monkeypatch.setenv("KUBEYOLO_STORE", "minio://kubeyolo")
    given = all_commands()[command].make_context(command, recorded[len(words) :]).params
    assert {key: given[key.lower()] for key in texts} == texts
    assert (given["min_ap"], given["max_drop"], given["junit"]) == (0.5, 0.5, Path("gate.xml"))
    assert not (runner.workspace / "pwned").exists()


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    (step,) = (step for _, step in steps() if step.get("uses", "").startswith("OWNER/kubeyolo@"))
    assert step["with"].keys() <= ACTION["inputs"].keys()
    assert {name for name, entry in ACTION["inputs"].items() if entry.get("required")} <= step["with"].keys()
    outputs = workflow("github-runner.yml")["jobs"]["gate"]["steps"][-1]["with"]["path"]
    assert set(re.findall(r"outputs\.([\w-]+)", outputs)) == set(ACTION["outputs"])


def test_no_expression_is_part_of_a_script() -> None:
    scripts = [step["run"] for _, step in steps() if "run" in step]
    assert len(scripts) == 4 and not any("${{" in script for script in scripts)


def test_secrets_are_in_one_step_and_the_token_may_only_read() -> None:
    for name in ("action.yml", "github.yml", "github-runner.yml"):
        found = [step for file, step in steps() if file == name]
        assert sum(bool(SECRET.search(json.dumps(step))) for step in found) == 1, name
    for name in ("github.yml", "github-runner.yml"):
        document = workflow(name)
        assert document["permissions"] == {"contents": "read"}
        assert all("env" not in job and "permissions" not in job for job in document["jobs"].values())
        assert "env" not in document


def test_actions_are_named_by_commit_with_their_version() -> None:
    lines = []
    for file in (ROOT / "action.yml", *EXAMPLES.glob("*.yml")):
        lines += re.findall(r"uses: (.+)", file.read_text())
    assert len(lines) == 6
    for line in lines:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # (v\d+\.\d+\.\d+|the commit of a release)", line), line
    known = {line.partition("@")[0]: line for line in lines}
    assert len(known) == 4 and {*lines} == {*known.values()}, "one version of each"


def test_lint_checks_every_file() -> None:
    recipe = (ROOT / "Makefile").read_text()
    checked = {word for line in recipe.splitlines() if "check-jsonschema" in line for word in shlex.split(line)}
    files = {"action.yml", *(path.relative_to(ROOT).as_posix() for path in EXAMPLES.iterdir())}
    assert files <= checked
