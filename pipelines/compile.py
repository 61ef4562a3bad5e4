"""Compile every pipeline to kubeyolo/compiled, and write the tables that are generated from the catalogue.

``python -m pipelines.compile`` writes the files; with ``--check`` it only lists files that are stale.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler

from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION, PIPELINES
from kubeyolo.compiled.pipeline import CompiledPipeline, dump_pipeline
from kubeyolo.config.form import describe_field
from kubeyolo.config.load import preset_names
from kubeyolo.evaluation.results import RUNTIMES
from kubeyolo.launch.launcher import LAUNCHERS
from pipelines.detector_retraining import detector_retraining
from pipelines.detector_training import detector_training
from pipelines.model_evaluation import model_evaluation
from pipelines.tables import stale_tables, write_tables

FUNCTIONS = {
    DETECTOR_RETRAINING: detector_retraining,
    DETECTOR_TRAINING: detector_training,
    MODEL_EVALUATION: model_evaluation,
}
COMPILED = Path(__file__).resolve().parent.parent / "kubeyolo" / "compiled"

CHOICES = {"model": preset_names(), "launcher": LAUNCHERS, "runtime": RUNTIMES}
"""Choices for the value of a field, a drop-down list on Kubeflow's pages; kfp's SDK has no option to set them."""


def compile_all(folder: Path) -> list[Path]:
    """Write every pipeline as YAML into a folder and return the paths."""
    paths = []
    for name, pipeline in FUNCTIONS.items():
        path = folder / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        described = CompiledPipeline(_with_form(name, path.read_text(encoding="utf-8")))
        # Without changes, this only passes the memory limits of all steps to the first step.
        path.write_text(described.bind_resources({}).text, encoding="utf-8")
        paths.append(path)
    return paths


def stale(folder: Path = COMPILED) -> list[str]:
    """Return the names of compiled pipelines that differ from their source, or are missing."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = compile_all(Path(temporary))
        return [
            path.name
            for path in fresh
            if not (folder / path.name).is_file() or (folder / path.name).read_bytes() != path.read_bytes()
        ]


def _with_form(name: str, text: str) -> str:
    """Add the choices of the fields to a compiled pipeline, and a description that explains all fields."""
    documents = list(yaml.safe_load_all(text))
    fields: Mapping[str, dict[str, Any]] = documents[0]["root"]["inputDefinitions"]["parameters"]
    lines = [PIPELINES[name], ""]
    for field in sorted(fields):
        lines.append(f"{field}: {describe_field(field)}")
        if field in CHOICES:
            fields[field]["literals"] = list(CHOICES[field])
    documents[0]["pipelineInfo"]["description"] = "\n".join(lines)
    return dump_pipeline(documents)


def main() -> int:
    """Write all files, or list the stale files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only list the stale files")
    if parser.parse_args().check:
        names = [f"kubeyolo/compiled/{name}" for name in stale()] + stale_tables()
        for name in names:
            print(f"{name} is stale: run `make pipelines`", file=sys.stderr)
        return 1 if names else 0
    for path in [*compile_all(COMPILED), *write_tables()]:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
