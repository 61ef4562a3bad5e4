"""The compiled pipelines that the wheel holds, and image references bound into them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kubeyolo.errors import InputError, one_line, suggest

DETECTOR_TRAINING, DETECTOR_RETRAINING = "detector-training", "detector-retraining"
MODEL_EVALUATION = "model-evaluation"

_COMPILED = resources.files("kubeyolo.compiled")


def pipeline_names() -> tuple[str, ...]:
    """Return the names of the compiled pipelines."""
    return tuple(sorted(entry.name[:-5] for entry in _COMPILED.iterdir() if entry.name.endswith(".yaml")))


def pipeline_text(name: str = DETECTOR_TRAINING) -> str:
    """Return a compiled pipeline as YAML, with image names as they were compiled.

    Raises:
        InputError: No pipeline has this name.
    """
    if name not in pipeline_names():
        raise InputError(f"unknown pipeline {name!r}{suggest(name, pipeline_names())}")
    return (_COMPILED / f"{name}.yaml").read_text(encoding="utf-8")


def image_names(pipeline: str) -> tuple[str, ...]:
    """Return the names of the images of a compiled pipeline, without their tags."""
    return tuple(sorted({_name(reference) for reference in image_references_in(pipeline)}))


def image_references_in(pipeline: str) -> tuple[str, ...]:
    """Return the references of the images of a compiled pipeline, as they stand in it."""
    return tuple(sorted({container["image"] for container in _containers(list(yaml.safe_load_all(pipeline)))}))


def bind_images(pipeline: str, images: Mapping[str, str]) -> str:
    """Return a compiled pipeline with image references in place of names.

    A name that is not given stays as it is. Kubeflow's cache keys hold the reference, so bind digests and not tags.

    Args:
        pipeline: The compiled pipeline as YAML.
        images: Reference by name, such as ``{"kubeyolo-train": "registry/kubeyolo-train@sha256:…"}``.

    Raises:
        InputError: A name is not in the pipeline, or a reference is empty.
    """
    known = image_names(pipeline)
    for name, reference in images.items():
        if name not in known:
            raise InputError(f"unknown image {name!r}{suggest(name, known)}")
        if not reference or any(character.isspace() for character in reference):
            raise InputError(f"image {name}: {reference!r} is not an image reference")
    documents = list(yaml.safe_load_all(pipeline))
    for container in _containers(documents):
        container["image"] = images.get(_name(container["image"]), container["image"])
    return _dump(pipeline, documents)


def bind_defaults(pipeline: str, values: Mapping[str, Any], code_digest: str = "") -> str:
    """Return a compiled pipeline with other defaults: the model, values by section, and the digest of the library.

    Args:
        pipeline: The compiled pipeline as YAML.
        values: ``{"model": name, section: {key: value}}``, each part optional.
        code_digest: Digest of the library in the images; empty leaves the default.
    """
    documents = list(yaml.safe_load_all(pipeline))
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    if code_digest:
        parameters["code_digest"]["defaultValue"] = code_digest
    for key, value in values.items():
        name = "model" if key == "model" else f"{key}_overrides"
        # What a file says for other commands is no business of a pipeline.
        if name in parameters:
            parameters[name]["defaultValue"] = value
    return _dump(pipeline, documents)


def without_retries(pipeline: str) -> str:
    """Return a compiled pipeline none of whose tasks is tried again: on one machine there are no pods to lose."""
    documents = list(yaml.safe_load_all(pipeline))
    for _, task in _tasks(documents):
        task.pop("retryPolicy", None)
    return _dump(pipeline, documents)


def without_cache(pipeline: str, names: Collection[str]) -> str:
    """Return a compiled pipeline whose tasks of these names always run; the results of the others may be cached ones.

    Args:
        pipeline: The compiled pipeline as YAML.
        names: Names of tasks, such as ``validate-dataset``; those that it has not are left out.
    """
    documents = list(yaml.safe_load_all(pipeline))
    for name, task in _tasks(documents):
        if name in names:
            task["cachingOptions"] = {}
    return _dump(pipeline, documents)


def read_images(file: Path) -> dict[str, str]:
    """Read a YAML or JSON file of image references by name.

    Raises:
        InputError: It cannot be read, or is not a mapping of names to references.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"image list {file}: cannot be read: {error.strerror}; 'make images' writes it, or give --images FILE"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"image list {file}: not YAML or JSON: {one_line(error, 200)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise InputError(f"image list {file}: expected image references by name, such as kubeyolo-train: registry/…")
    return {str(name): reference for name, reference in content.items()}


def _tasks(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tasks of a pipeline and of the graphs within it, by name."""
    for component in (documents[0]["root"], *documents[0]["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def _containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # The first document is the pipeline; a second one has what only Kubernetes knows.
    executors = documents[0]["deploymentSpec"]["executors"].values()
    return [executor["container"] for executor in executors if "container" in executor]


def _dump(pipeline: str, documents: list[dict[str, Any]]) -> str:
    """Return the documents as YAML, under the comment that tells a reader the parameters."""
    header = "".join(line for line in pipeline.splitlines(keepends=True) if line.startswith("#"))
    return header + yaml.safe_dump_all(documents, sort_keys=True)


def _name(image: str) -> str:
    """Return ``kubeyolo-train`` of ``registry:5000/kubeyolo-train:1.0`` or ``…@sha256:…``."""
    return image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
