"""Compile every pipeline to kubeyolo/compiled: ``python -m pipelines.compile``, or ``--check`` that they are fresh."""

import argparse
import sys
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.detector_retraining import detector_retraining
from pipelines.detector_training import detector_training
from pipelines.model_evaluation import model_evaluation

PIPELINES = {
    "detector-retraining.yaml": detector_retraining,
    "detector-training.yaml": detector_training,
    "model-evaluation.yaml": model_evaluation,
}
COMPILED = Path(__file__).resolve().parent.parent / "kubeyolo" / "compiled"


def compile_all(folder: Path) -> list[Path]:
    """Write every pipeline as YAML into a folder and return the paths."""
    paths = []
    for name, pipeline in PIPELINES.items():
        compiler.Compiler().compile(pipeline, str(folder / name))
        paths.append(folder / name)
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


def main() -> int:
    """Compile, or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which compiled pipelines are stale")
    if parser.parse_args().check:
        names = stale()
        for name in names:
            print(f"kubeyolo/compiled/{name} is stale: run `make pipelines`", file=sys.stderr)
        return 1 if names else 0
    for path in compile_all(COMPILED):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
