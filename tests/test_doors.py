"""Each kind of file has one door: no other module opens or parses files that people or other programs may write."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import kubeyolo

PACKAGE = Path(kubeyolo.__file__).parent

OPENER = {
    "regular_files.py": "the door",
    "processes.py": "files of the kernel below /proc",
    "resources.py": "files of the kernel below /proc and /sys",
    "runs/interrupt.py": "files of the kernel below /proc",
    "storage/claim.py": "files of the kernel below /proc",
    "launch/cluster.py": "the service account that Kubernetes mounts",
    "launch/policy.py": "manifests of the package, and the namespace that Kubernetes mounts",
    "launch/binding.py": "a program of the installed MindSpore",
    "launch/rank_logs.py": "logs that this program's own processes write",
    "source.py": "the package's own source",
    "compiled/pipeline.py": "the package's own pipelines",
    "cli/app.py": "the package's own source",
    "storage/integrity.py": "copies and checksums of files that have been opened or listed",
    "storage/checksums.py": "notes in the cache",
    "storage/base.py": "checksums of files that have been listed",
    "storage/minio_store.py": "uploads of files that have been listed",
    "storage/local.py": "objects of a store, which exist only as regular files",
    "training/compile_cache.py": "graphs in the cache, with checksums",
    "export/mindspore_export.py": "files that MindSpore has just written",
    "evaluation/network.py": "networks of a bundle, with checksums",
    "cli/streams.py": "standard input",
}
"""Modules that open files for reading themselves, and what they open."""

IMAGES = {
    "data/checks.py",
    "data/class_crops.py",
    "data/image_folder.py",
    "prediction/sources.py",
}
"""Modules that open images."""

WEIGHTS = "weights/"
"""Readers of weights have a door of their own."""

PARSER = {
    "documents.py": "the door of JSON",
    "config/text.py": "the door of YAML, and of JSON as people write it",
    "compiled/pipeline.py": "the package's own pipelines",
    "compiled/resources.py": "limits that the package's own pipelines have",
    "data/readers/coco_json.py": "typed records, which ignore everything else",
    "data/readers/xml.py": "the door of XML",
    "events.py": "lines of this program's own processes",
    "evaluation/speed.py": "lines of this program's own process",
    "kubeflow/connection.py": "answers of Kubeflow",
    "kubeflow/remote.py": "descriptions that this program has written",
    "launch/cluster.py": "answers of Kubernetes, and errors of its client",
    "launch/pod.py": "the environment of a pod",
    "storage/claim.py": "claims that this program has written",
    "storage/owned_folder.py": "claims that this program has written",
    "storage/checksums.py": "notes in the cache",
    "weights/safetensors_file.py": "the header of weights, which has its own limits",
    "weights/weights_file.py": "metadata of weights",
    "weights/class_file.py": "nodes of YAML from its door",
}
"""Modules that call a parser themselves, and what they parse."""

CONSOLE = {"consoles.py"}
"""Modules that make consoles of rich."""


def test_files_are_opened_at_their_door() -> None:
    found = {name for name, call in calls() if is_opener(call)}
    unknown = sorted(name for name in found - OPENER.keys() - IMAGES if not name.startswith(WEIGHTS))
    assert not unknown, f"{unknown} open files: use kubeyolo/regular_files.py, or kubeyolo/config/text_file.py"
    assert found >= OPENER.keys(), f"{sorted(OPENER.keys() - found)} open no files any more: remove them here"


def test_documents_are_parsed_at_their_door() -> None:
    found = {name for name, call in calls() if is_parser(call)} | set(yaml_users())
    unknown = sorted(found - PARSER.keys())
    assert not unknown, f"{unknown} parse documents: use kubeyolo/documents.py or kubeyolo/config/text.py"
    assert found >= PARSER.keys(), f"{sorted(PARSER.keys() - found)} parse nothing any more: remove them here"


def test_consoles_of_rich_read_no_markup_in_data() -> None:
    found = {name for name, call in calls() if isinstance(call.func, ast.Name) and call.func.id == "Console"}
    assert found <= CONSOLE, f"{sorted(found - CONSOLE)} make consoles: use kubeyolo/consoles.py"
    without = {name for name, call in calls() if is_column(call) and not has(call, "markup")}
    assert not without, f"{sorted(without)} show texts of data in a bar: pass markup=False"


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """Return the calls of all modules."""
    return [(name, node) for name, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Call)]


def yaml_users() -> Iterator[str]:
    """Yield the modules that import PyYAML."""
    for name, tree in modules():
        if any(isinstance(node, ast.Import) and node.names[0].name == "yaml" for node in tree.body):
            yield name


@cache
def modules() -> list[tuple[str, ast.Module]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def is_opener(call: ast.Call) -> bool:
    """Tell whether a call opens a file for reading: ``path.open("rb")``, ``open(path)``, ``path.read_bytes()``."""
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and not writes(call, 1)
    if not isinstance(call.func, ast.Attribute):
        return False
    method, owner = call.func.attr, call.func.value
    if method == "fdopen":
        return not writes(call, 1)
    if method == "read_bytes":
        return not call.args  # the method of a store has a key
    if method == "read_text":
        return True
    is_library = isinstance(owner, ast.Name) and owner.id in ("os", "Pillow", "Image", "tarfile")
    return (
        method == "open"
        and not is_library
        and bool(call.args)
        and isinstance(call.args[0], ast.Constant)
        and not writes(call, 0)
    )


def writes(call: ast.Call, position: int) -> bool:
    mode = call.args[position] if len(call.args) > position else None
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set("wax") & set(mode.value))


def is_parser(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in ("fromstring", "quick_fromstring", "iterparse")
    if not isinstance(call.func, ast.Attribute):
        return False
    module = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
    return (
        (module in ("json", "orjson") and call.func.attr in ("loads", "load"))
        or call.func.attr == "model_validate_json"
        or ast.unparse(call.func).startswith("msgspec.json.decode")
    )


def is_column(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "TextColumn"


def has(call: ast.Call, keyword: str) -> bool:
    return any(each.arg == keyword for each in call.keywords)
