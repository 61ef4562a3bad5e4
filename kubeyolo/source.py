"""Two digests of the library's code, to recognize stored weights and results of different code.

==============================================================  =======  =======
code                                                            weights  results
==============================================================  =======  =======
losses, models, runtime, data, training: all but the following  yes      yes
what computes AP, by which the published weights are chosen     yes      yes
config: sections that training reads, with their base class     yes      yes
config: the other sections                                      no       yes
reading, checks and digest of a data set, sample data           no       yes
history and result of a training                                no       yes
weights, bundle, publishing, pointers                           no       yes
names, printable, npz_file, zip_members                         no       yes
rest of evaluation, export, quantization, steps, report         no       yes
configure, presets, estimates                                   no       no
cli, compiled, runs, launch, kubeflow, catalogue                no       no
retention, serving                                              no       no
storage, errors, events, progress, source, version              no       no
memory, processes, resources, stop_signals, output_streams      no       no
provenance, signing, documents, regular_files, consoles         no       no
ascend                                                          no       no
==============================================================  =======  =======

A new module counts for results unless ``NO_RESULTS`` names it, and in a folder of ``WEIGHTS`` also for weights unless
``NO_WEIGHTS`` names it. A test finds modules that training imports and that are in neither of the two lists.

A Python module counts by its syntax tree without its wording: docstrings, comments, layout, texts of errors and log
lines, descriptions of settings. Every other file counts by its bytes.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from kubeyolo.storage.checksums import remembered

WEIGHTS = (
    "config/class_names.py",
    "config/schema.py",
    "config/section.py",
    "config/training_schema.py",
    "config/validation_interval.py",
    "data",
    "evaluation/augmentation.py",
    "evaluation/batches.py",
    "evaluation/class_map.py",
    "evaluation/coco_eval.py",
    "evaluation/decode.py",
    "evaluation/engines.py",
    "evaluation/nms.py",
    "evaluation/outputs.py",
    "evaluation/predictor.py",
    "evaluation/split_evaluation.py",
    "losses",
    "models",
    "runtime.py",
    "training",
)
"""Folders and modules that determine the weights from a training."""

NO_WEIGHTS = (
    "__init__.py",  # has the version, and settings of protobuf
    "arrays.py",  # names types, and refuses weights that are not finite
    "ascend.py",  # explains why a device cannot be used
    "catalogue.py",  # names settings that a pretraining reads; they are part of its identity
    "config/anchor_forms.py",  # as config/text.py
    "config/foreign_words.py",  # as config/text.py
    "config/key_types.py",  # as config/text.py
    "config/load.py",  # as config/text.py
    "config/recipes.py",  # as config/text.py
    "config/text.py",  # reads settings; their values are part of a training's identity
    "config/text_file.py",  # as config/text.py
    "bundle.py",  # stores weights and reads them as they are; their digest is part of a training's identity
    # What reads and checks a data set acts through the stored data set, whose digest is part of a training's identity.
    "data/annotations.py",
    "data/box_forms.py",
    "data/boxes.py",
    "data/categories.py",
    "data/checks.py",
    "data/class_subset.py",  # for evaluations after the training
    "data/columns.py",
    "data/convert.py",
    "data/digest.py",
    "data/dividing.py",
    "data/duplicates.py",
    "data/file_names.py",
    "data/finding_kinds.py",
    "data/findings.py",
    "data/folder.py",
    "data/image_folder.py",  # as data/class_subset.py
    "data/layout.py",
    "data/layouts",
    "data/masks.py",
    "data/raw.py",
    "data/readers",
    "data/sample.py",  # generates a data set, which has a digest of its own
    "data/lookalikes.py",  # as data/sample.py
    "data/scene.py",  # as data/sample.py
    "data/shapes.py",  # as data/sample.py
    "data/texture.py",  # as data/sample.py
    "consoles.py",  # prints
    "documents.py",  # as config/text.py
    "errors.py",
    "estimate",  # estimates the memory of a training
    # The rest of what validation while training imports.
    "evaluation/intervals.py",
    "evaluation/network.py",
    "evaluation/network_checks.py",
    "evaluation/network_files.py",
    "evaluation/notes.py",
    "evaluation/openvino_runtime.py",
    "evaluation/results.py",
    "evaluation/runtimes.py",
    "evaluation/sharing.py",
    "file_kinds.py",  # names files that are refused, and tells which files of a folder are images
    "formats.py",  # writes numbers for people
    "memory.py",  # explains why a process has ended
    "names.py",  # makes names of classes printable; they are part of the digest of the stored data set
    "npz_file.py",  # reads arrays of a stored data set as they are
    "output_streams.py",  # prints
    "printable.py",  # as names.py
    "processes.py",  # explains how a process has ended, and ends a process whose parent is gone
    "progress.py",
    "provenance.py",  # as bundle.py
    "publishing.py",  # as bundle.py
    "regular_files.py",  # opens files
    "report/samples.py",  # names colours of boxes
    "resources.py",  # measures the machine, which is not part of any identity
    "signing.py",  # as storage
    "source.py",  # names the code and the versions of packages
    "stop_signals.py",  # only stops a training
    "storage",  # moves bytes
    "training/anchor_search.py",  # computes anchors for the command line; train.anchors is part of the identity
    "training/batch_pictures.py",  # draws batches without changing them
    "training/compilations.py",  # counts graphs and measures times
    "training/event_files.py",  # as training/history.py
    "training/finite.py",  # only stops a training
    "training/growth.py",  # reads weights without changing them
    "training/hints.py",  # reads the history
    "training/history.py",
    "training/memory_advice.py",  # warns if a machine has too little memory
    "training/outlook.py",  # estimates the remaining time of a training
    "training/pace.py",  # only names a slow process
    "training/process.py",  # starts and ends a process
    "training/profile.py",  # measures times
    "training/reach.py",  # warns of settings
    "training/result.py",
    "training/small_sets.py",  # writes a note
    "weights",  # imported by evaluation
    "whole.py",  # tells which bundle is stored whole
    "work.py",  # describes processes
    "zip_members.py",  # as npz_file.py
)
"""Modules that training imports, or that lie in a folder of ``WEIGHTS``, and that have no effect on weights."""

NO_RESULTS = (
    "__init__.py",
    "ascend.py",
    "catalogue.py",
    "cli",
    "compiled",
    # Read by configure: the resulting values are part of the name of each output.
    "config/anchor_forms.py",
    "config/foreign_words.py",
    "config/form.py",
    "config/idle_settings.py",
    "config/key_types.py",
    "config/load.py",
    "config/recipes.py",
    "config/presets",
    "config/text.py",
    "config/text_file.py",
    "consoles.py",
    "documents.py",
    "errors.py",
    "estimate",
    "events.py",
    "file_kinds.py",
    "index.py",
    "kubeflow",
    "launch",
    "memory.py",
    "output_streams.py",
    "processes.py",
    "progress.py",
    "provenance.py",
    "regular_files.py",
    "report/configuration.py",
    "report/templates/configuration.html",
    "resources.py",
    "retention",
    "runs",
    "serving",
    "signing.py",
    "source.py",
    "steps/checked_form.py",
    "steps/conditions.py",
    "steps/configure.py",
    "steps/configured_run.py",
    "steps/earlier_trainings.py",
    "steps/mlflow_run.py",
    "steps/model_evaluation.py",
    "steps/naming.py",
    "steps/plan_estimate.py",
    "steps/same_training.py",
    "stop_signals.py",
    "storage",
    "training/anchor_search.py",
    "training/event_files.py",
    "training/outlook.py",
    "whole.py",
)
"""Folders and modules that start, show, describe or store work, and do not change its outcome."""

OTHER_SECTIONS = frozenset({"EvaluateConfig", "PredictConfig", "ExportConfig", "QuantizeConfig", "RetrainConfig"})
"""Classes of config/schema.py that weights do not depend on; they depend on the rest of it."""

_ROOT = Path(__file__).parent
_SCHEMA = "config/schema.py"
_SUFFIXES = frozenset({".py", ".yaml", ".html", ".css", ".js", ".j2"})

_MESSAGE_CALLS = frozenset({"Progress", "print", "refuse", "say", "show", "warn"})
_MESSAGE_ENDINGS = ("Error", "NotFound", "Work")
_DESCRIBED_CALLS = frozenset({"Argument", "Field", "Option"})
_DESCRIPTIONS = frozenset({"description", "help", "json_schema_extra"})

_WEIGHTS_PACKAGES = ("mindspore", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
_RESULTS_PACKAGES = (*_WEIGHTS_PACKAGES, "hotcoco", "onnx", "onnxruntime", "openvino", "pycocotools")


def weights_source(root: Path = _ROOT) -> str:
    """Return 16 hexadecimal digits over the code of the package at ``root`` that trained weights depend on."""
    return _digest(root, counts_for_weights, OTHER_SECTIONS)


def results_source(root: Path = _ROOT) -> str:
    """Return 16 hexadecimal digits over the code at ``root`` that any result depends on, including weights."""
    digests = f"{weights_source(root)} {_digest(root, _counts_for_results_alone)}"
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed; none of the packages is imported."""
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def weights_versions() -> dict[str, str]:
    """Return the versions of the installed packages that weights depend on; none of the packages is imported."""
    return installed_versions(_WEIGHTS_PACKAGES)


def results_versions() -> dict[str, str]:
    """Return the versions of the installed packages that any result depends on; none of the packages is imported."""
    return installed_versions(_RESULTS_PACKAGES)


def versions_digest() -> str:
    """Return 16 hexadecimal digits over the versions of the packages that any result depends on."""
    return hashlib.sha256(repr(sorted(results_versions().items())).encode()).hexdigest()[:16]


def counts_for_weights(name: str) -> bool:
    """Tell whether a file, by its name relative to the package, is part of :func:`weights_source`."""
    return _is_in(name, WEIGHTS) and not _is_in(name, NO_WEIGHTS)


def _counts_for_results_alone(name: str) -> bool:
    # The schema counts twice: here with all its sections.
    return not _is_in(name, NO_RESULTS) and (name == _SCHEMA or not counts_for_weights(name))


def tree_text(source: bytes | str, without: frozenset[str] = frozenset()) -> str:
    """Return the syntax tree of a module as text, without its wording.

    Args:
        source: The text of the module.
        without: Names of classes that are left out, together with fields of these types.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            _NO_TEXTS.generic_visit(node)
        elif isinstance(node, ast.Call):
            _remove_wording(node)
        elif without and isinstance(node, ast.Module | ast.ClassDef):
            node.body = [part for part in node.body if _class_of(part) not in without]
    # Not ast.dump, which takes twice as long.
    parts: list[str] = []
    _write(tree, parts.append)
    return "\n".join(parts)


class _WithoutTexts(ast.NodeTransformer):
    """Replaces every string and f-string by an empty string."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:  # noqa: N802 - named by ast
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:  # noqa: N802 - named by ast
        return ast.Constant("")


_NO_TEXTS = _WithoutTexts()


def _remove_wording(call: ast.Call) -> None:
    """Remove the texts of a message, or the description of a setting."""
    name, owner = _names(call.func)
    if name in _DESCRIBED_CALLS:
        call.keywords = [keyword for keyword in call.keywords if keyword.arg not in _DESCRIPTIONS]
    if name in _MESSAGE_CALLS or name.endswith(_MESSAGE_ENDINGS) or owner == "logger":
        _NO_TEXTS.generic_visit(call)


def _names(called: ast.expr) -> tuple[str, str]:
    """Return the name of a called function without leading underscores, and the name of the object it belongs to."""
    if isinstance(called, ast.Attribute):
        return called.attr.lstrip("_"), called.value.id if isinstance(called.value, ast.Name) else ""
    return (called.id.lstrip("_"), "") if isinstance(called, ast.Name) else ("", "")


def _class_of(statement: ast.stmt) -> str:
    """Return the name of the class that a statement defines, or of the type of the field that it declares."""
    if isinstance(statement, ast.ClassDef):
        return statement.name
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.annotation, ast.Name):
        return statement.annotation.id
    return ""


def _write(node: ast.AST, out: Callable[[str], None]) -> None:
    out(type(node).__name__)
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            out("[")
            for item in value:
                if not isinstance(item, ast.AST):
                    out(repr(item))
                elif not _is_empty(item):
                    _write(item, out)
            out("]")
        elif isinstance(value, ast.AST):
            _write(value, out)
        else:
            out(repr(value))


def _is_empty(node: ast.AST) -> bool:
    """Tell whether this is a statement without effect: ``pass``, or a string, as a docstring is."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Pass)


def _files(root: Path) -> list[str]:
    paths = (path.relative_to(root) for path in root.rglob("*") if path.suffix in _SUFFIXES)
    return sorted(path.as_posix() for path in paths)


def _is_in(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


@cache
def _digest(root: Path, counts: Callable[[str], bool], without: frozenset[str] = frozenset()) -> str:
    """Return 16 digits over the files that count; the classes ``without`` are ignored in the schema.

    Parsing all files takes a second or two in each process of a step, so the digest is cached until a file changes.
    """
    names = list(filter(counts, _files(root)))
    what = f"code {root.absolute()} {counts.__name__} {sorted(without)} {sys.version}"
    facts = [(name, (root / name).stat()) for name in names] + [("", Path(__file__).stat())]
    return remembered(what, facts, lambda: _computed_digest(root, names, without))


def _computed_digest(root: Path, names: Iterable[str], without: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        content = (root / name).read_bytes()
        if name.endswith(".py"):
            content = tree_text(content, without if name == _SCHEMA else frozenset()).encode()
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
