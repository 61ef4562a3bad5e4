"""Changes to a compiled pipeline: images, defaults, and features that only some servers support."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kubeyolo.compiled.read import tasks_of
from kubeyolo.config.text_file import decode_text
from kubeyolo.errors import InputError, one_line, suggest

_OTHER_KIND = re.compile(
    r"""[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-f_]+)                          # 0x10
    |[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)(e[-+]?[0-9_]+)?     # 1, 1_0, 1e-3
    |[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?                           # 1:30
    |[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t\s].*)?                           # 2024-01-01
    |[-+]?\.(inf|nan)|y|n|yes|no|on|off|true|false|null|~|<<|=|""",
    re.IGNORECASE | re.VERBOSE,
)
"""Texts that YAML 1.1 or 1.2 takes for a number, a date, a boolean or null when they are not quoted."""


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
    return dump_pipeline(documents)


def bind_defaults(pipeline: str, form: Mapping[str, str]) -> str:
    """Return a compiled pipeline whose form is filled in.

    Args:
        pipeline: The compiled pipeline as YAML.
        form: Text by field; fields that the pipeline has not are left out.
    """
    documents = list(yaml.safe_load_all(pipeline))
    fields = documents[0]["root"]["inputDefinitions"]["parameters"]
    for name, value in form.items():
        if name in fields:
            fields[name] |= {"defaultValue": value, "isOptional": True}
    return dump_pipeline(documents)


def without_literals(pipeline: str) -> str:
    """Return a compiled pipeline without the choices of its fields, which older servers refuse."""
    documents = list(yaml.safe_load_all(pipeline))
    for facts in documents[0]["root"]["inputDefinitions"]["parameters"].values():
        facts.pop("literals", None)
    return dump_pipeline(documents)


def without_retries(pipeline: str) -> str:
    """Return a compiled pipeline none of whose tasks is tried again: on one machine there are no pods to lose."""
    documents = list(yaml.safe_load_all(pipeline))
    for _, task in tasks_of(documents[0]):
        task.pop("retryPolicy", None)
    return dump_pipeline(documents)


def dump_pipeline(documents: Iterable[Any]) -> str:
    """Return the documents of a pipeline as YAML that every parser reads alike: texts like ``1e-3`` are quoted."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True))


def read_images(file: Path) -> dict[str, str]:
    """Read a YAML or JSON file of image references by name.

    Raises:
        InputError: It cannot be read, or is not a mapping of names to references.
    """
    try:
        content = yaml.safe_load(decode_text(file.read_bytes(), f"image list {file}"))
    except OSError as error:
        raise InputError(
            f"image list {file}: cannot be read: {error.strerror}; 'make images' writes it, or give --images FILE"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"image list {file}: not YAML or JSON: {one_line(error, 200)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise InputError(f"image list {file}: expected image references by name, such as kubeyolo-train: registry/…")
    return {str(name): reference for name, reference in content.items()}


class _Dumper(yaml.SafeDumper):
    """Quotes each text that some version of YAML takes for a number, a boolean, a date or null."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Return a text as a node."""
        return self.represent_scalar(
            "tag:yaml.org,2002:str", value, style="'" if _OTHER_KIND.fullmatch(value) else None
        )


_Dumper.add_representer(str, _Dumper.text)


def _containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # The first document is the pipeline; a second one has what only Kubernetes knows.
    executors = documents[0]["deploymentSpec"]["executors"].values()
    return [executor["container"] for executor in executors if "container" in executor]


def _name(image: str) -> str:
    """Return ``kubeyolo-train`` of ``registry:5000/kubeyolo-train:1.0`` or ``…@sha256:…``."""
    return image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
