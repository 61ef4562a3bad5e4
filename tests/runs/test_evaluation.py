"""What the gate sends to the evaluation pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.pointers import ModelPointer, write_model_pointer
from kubeyolo.runs.evaluation import evaluation_arguments


def test_a_pointer_stands_for_the_bundle_that_it_names(tmp_path: Path) -> None:
    latest = str(tmp_path / "latest.json")
    bundle = (tmp_path / "models" / "1").as_uri()
    write_model_pointer(latest, ModelPointer(bundle=bundle))
    # It is what is looked at: here, a folder that pods do not see.
    with pytest.raises(InputError, match=f"--baseline {bundle}: pods see no folder"):
        evaluation_arguments("minio://models/new", "minio://data/x", "minio://models", latest)
    with pytest.raises(InputError, match=f"--bundle {bundle}: pods see no folder"):
        evaluation_arguments(latest, "minio://data/x", "minio://models")
