"""Compiled graphs of trainings, stored on this machine: the same training compiles its graphs once.

MindSpore stores a graph after its front end, which takes most of the time of a compilation. This module adds what
MindSpore's cache lacks:

- MindSpore compares the source files of the program, but neither settings nor shapes. Here the name of a stored graph
  is a digest of all that it depends on: settings, code, versions, shapes of inputs and of parameters.
- A loaded graph finds its parameters by name among those of the compiled cell. A parameter that the cell does not own
  is silently replaced by a new one, and its updates are lost. So a cell must contain all cells whose parameters it
  reads or updates; the graphs of other cells are not stored.
- MindSpore uses the folder of its first compilation as long as the process lives, numbers files in the order of
  compilations, and writes them in place. Here each process has a folder of its own, and a stored graph is renamed into
  place, so several processes may use the store at once.

Several processes of one training compile without the store: if one process loaded a graph and another compiled it,
their exchanges might be in a different order.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from kubeyolo.errors import KubeyoloError
from kubeyolo.output_streams import Show
from kubeyolo.source import weights_source, weights_versions
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.workspace import work_folder
from kubeyolo.training.extension import EXTENDED, REDISTRIBUTED, VALIDATED
from kubeyolo.training.spec import TrainingSpec

LIMIT = 5 * 10**8
"""Largest size of all stored graphs in bytes; graphs that were not used for the longest time are removed first."""

OWN_CACHE = "MS_COMPILER_CACHE_ENABLE"
"""Environment variable that switches on MindSpore's own cache."""

SECTIONS = ("augment", "data", "evaluate")
"""Sections of an identity that decide what graphs get as inputs."""

INPUTS = frozenset(
    {
        *("seed", "lr", "lr_scheduler", "lr_final", "eta_min", "t_max", "lr_epochs", "lr_gamma", "max_epoch"),
        *("warmup", "warmup_epochs", "warmup_steps", "warmup_bias_lr", "warmup_momentum", "ema_decay", "ema_tau"),
        *("multi_scale", "sizes", "resize_rate"),
    }
)
"""Settings of the section train whose values are inputs of the graphs, or decide what graphs get as inputs."""

_GRAPH, _CHECKSUM = "graph.mindir", "graph.sha256"

_SOURCES = "compile_dependency.hash"
"""MindSpore's name for the checksum of the sources of a program; its first compilation decides whether it loads any."""


class _ProcessFolder:
    """The folder from which MindSpore reads graphs in this process, and to which it writes them."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    @property
    def root(self) -> Path:
        """The folder that MindSpore is given."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kubeyolo-graphs-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def next_file(self) -> Path:
        """Return the file that the next compilation reads, or writes if it does not exist."""
        folder = self.root / f"rank_{os.environ.get('RANK_ID', '0')}" / "graph_cache"
        folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        return folder / f"compile_cache_{self._count - 1}.mindir"


_process = _ProcessFolder()


class GraphStore:
    """The stored graphs of a training, among those of all trainings on this machine.

    Args:
        folder: Folder of all graphs of this machine.
        dependencies: What all graphs of a training depend on, as JSON values: settings, code, versions.
        show: Shows a line if the store cannot be used.
        limit: Largest size of the folder in bytes.

    Attributes:
        loaded: Number of graphs that were loaded.
        compiled: Number of graphs that were compiled.
    """

    def __init__(self, folder: Path, dependencies: Mapping[str, Any], show: Show, limit: int = LIMIT) -> None:
        self.loaded = self.compiled = 0
        self._folder, self._show, self._limit = folder, show, limit
        program = os.path.realpath(sys.argv[0])
        self._sources = folder / f"{_digest(program)}.hash"
        self._dependencies = {
            **dependencies,
            "program": program,
            "python": sys.version,
            "machine": platform.machine(),
        }

    def compile(self, name: str, cell: nn.Cell, arguments: Sequence[Tensor]) -> None:
        """Compile a cell, or load its graph.

        Args:
            name: Name of the graph among those of its training.
            cell: The cell, in the mode in which it is called.
            arguments: Arguments of a call.
        """
        entry = self._folder / self._name(name, cell, arguments)
        try:
            file = _process.next_file()
        except OSError as error:
            self._show(f"warning: compiled graphs are not stored: {error}")
            return
        taken = self._take(entry, file)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(_process.root))
        try:
            cell.compile(*arguments)
        except ImportError:
            # MindSpore looks for the modules that the program imports, also for those of packages that are not
            # installed. The call of the cell compiles it.
            pass
        finally:
            ms.set_context(enable_compile_cache=False)
        # MindSpore writes the file again if it does not use it.
        is_loaded = taken is not None and file.exists() and file.stat().st_mtime_ns == taken
        try:
            if is_loaded:
                self.loaded += 1
                os.utime(entry)
            else:
                self.compiled += 1
                self._keep(entry, file, cell)
        except (OSError, KubeyoloError) as error:
            self._show(f"warning: a compiled graph could not be stored: {error}")
        with suppress(OSError):
            file.unlink()

    def _name(self, name: str, cell: nn.Cell, arguments: Sequence[Tensor]) -> str:
        """Return the name of a stored graph."""
        dependencies = {
            **self._dependencies,
            "graph": name,
            "arguments": [_described(argument) for argument in arguments],
            "parameters": {each.name: (*_described(each), each.requires_grad) for each in cell.get_parameters()},
        }
        return _digest(json.dumps(dependencies, sort_keys=True))

    def _take(self, entry: Path, file: Path) -> int | None:
        """Copy a stored graph to the file that MindSpore reads; return the time of the copy, None without a graph."""
        sources = file.with_name(_SOURCES)
        with suppress(OSError):
            if not sources.exists():
                shutil.copyfile(self._sources, sources)
            shutil.copyfile(entry / _GRAPH, file)
            if sha256_file(file) == (entry / _CHECKSUM).read_text():
                return file.stat().st_mtime_ns
            shutil.rmtree(entry, ignore_errors=True)
        with suppress(OSError):
            file.unlink()
        return None

    def _keep(self, entry: Path, file: Path, cell: nn.Cell) -> None:
        """Store the graph that MindSpore has written, and remove old graphs."""
        if not file.exists() or file.stat().st_size > self._limit or not _parameters(file) <= {*cell.parameters_dict()}:
            return
        with work_folder(self._folder) as work:
            shutil.copyfile(file.with_name(_SOURCES), work / _SOURCES)
            (work / _SOURCES).rename(self._sources)
            shutil.copyfile(file, work / _GRAPH)
            (work / _CHECKSUM).write_text(sha256_file(work / _GRAPH))
            shutil.rmtree(entry, ignore_errors=True)
            with suppress(OSError):  # Another process has stored the same graph in the meantime.
                work.rename(entry)
        remove_oldest(self._folder, self._limit)


def graph_store(spec: TrainingSpec, identity: Mapping[str, Any], show: Show) -> GraphStore | None:
    """Return the stored graphs of a detector's training; None if its graphs are not stored.

    Args:
        spec: The training.
        identity: Its identity, from :func:`kubeyolo.training.spec.training_identity`.
        show: Shows a line if the store cannot be used.
    """
    train = spec.config.train
    if not train.compile_cache or spec.processes > 1 or train.device_target != "CPU":
        return None
    # The user has switched on MindSpore's own cache, or the program is a text in a command line.
    if OWN_CACHE in os.environ or not os.path.isfile(sys.argv[0]):
        return None
    code = spec.code_digest or weights_source()
    dependencies = {
        **graph_settings(identity),
        "recompute": train.recompute,
        "code": code,
        "versions": weights_versions(),
    }
    return GraphStore(cache_folder("graphs"), dependencies, show)


def graph_settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a training's identity that graphs depend on other than by their inputs.

    A new setting is part of it unless ``INPUTS`` names the setting.
    """
    inputs = {*(f"train.{name}" for name in INPUTS), *VALIDATED, EXTENDED, REDISTRIBUTED}
    return {
        key: value for key, value in identity.items() if key not in inputs and key.partition(".")[0] not in SECTIONS
    }


class StoredGraph:
    """A cell whose graphs are taken from a store, one for each combination of shapes.

    Args:
        name: Name of the graph among those of its training.
        cell: The cell.
        store: The store.
    """

    def __init__(self, name: str, cell: nn.Cell, store: GraphStore) -> None:
        self._name, self._cell, self._store = name, cell, store
        self._compiled: set[str] = set()

    @property
    def compile_cache(self) -> Any:
        """The keys of the graphs that the cell has, loaded or compiled."""
        return self._cell.compile_cache

    def __call__(self, *arguments: Tensor) -> Any:
        """Call the cell, whose graph for these shapes is first compiled or loaded."""
        shapes = str([_described(argument) for argument in arguments])
        if shapes not in self._compiled:
            self._store.compile(self._name, self._cell, arguments)
            self._compiled.add(shapes)
        return self._cell(*arguments)


def stored(name: str, cell: nn.Cell, store: GraphStore | None) -> Any:
    """Return a cell whose graphs are taken from a store; without a store, the cell itself."""
    return cell if store is None else StoredGraph(name, cell, store)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _parameters(file: Path) -> set[str]:
    """Return the names of the parameters of a stored graph."""
    model = ModelProto()
    model.ParseFromString(file.read_bytes())
    return {parameter.name.rpartition(":")[2] for parameter in model.graph.parameter}


def _described(value: Tensor) -> tuple[list[int], str]:
    return list(value.shape), str(value.dtype)


def remove_oldest(folder: Path, limit: int) -> None:
    """Remove the graphs that were not used for the longest time, until the folder is not larger than the limit."""
    entries = sorted(_entries(folder), reverse=True)
    total = 0
    for _, size, path in entries:
        total += size
        if total > limit:
            shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> Iterable[tuple[float, int, Path]]:
    """Yield time of the last use, size in bytes and path of each stored graph."""
    for path in folder.iterdir():
        with suppress(OSError):
            yield path.stat().st_mtime, (path / _GRAPH).stat().st_size, path
