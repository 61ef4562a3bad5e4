"""Weights from PyTorch checkpoints, read without PyTorch and without running pickled code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeyolo.errors import InputError
from kubeyolo.weights.pickle_tree import Global, Pairs, PickleTree, Record, attribute, get, items, read_pickle
from kubeyolo.weights.stored_array import ITEM_SIZES, DeflatedContent, StoredArray
from kubeyolo.weights.torch_archive import TorchArchive, open_archive

_KNOWN_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_MODULES = ("torch", "torch.storage", "torch.cuda")
_STORAGES = {Global(module, name): dtype for module in _MODULES for name, dtype in _KNOWN_STORAGES.items()}
_UNTYPED = (Global("torch", "UntypedStorage"), Global("torch.storage", "UntypedStorage"))
_DTYPES = {Global("torch", name): name for name in ITEM_SIZES}
_PARTS_OF_CHECKPOINT = ("ema", "model", "state_dict", "model_state_dict", "net", "network")
_MAX_DEPTH = 100
_MAX_MODULES = 20_000
_MAX_ARRAYS = 100_000
_MAX_RANK = 16
_MAX_CLASSES = 100_000
_MAX_NAME = 256
_MAX_WALK = 2_000_000
"""Names that are looked at in all modules together: a module may occur in many others."""

_MAX_EXPANDED = 1 << 26
"""Bytes that all expanded tensors together may claim beyond their storages: grids are expanded, weights never are."""

_MAX_SKIPPED = 1 << 28
"""Bytes that may be inflated in order to be skipped: a deflated storage is inflated from its start for each tensor."""

_SHOWN = 40


@dataclass(frozen=True)
class TorchCheckpoint:
    """The content of a checkpoint.

    Attributes:
        part: The part of the checkpoint that was used, such as "ema"; "" if the weights have no parts.
        arrays: Parameters and buffers by name.
        classes: Names of the classes, if the checkpoint has them.
    """

    part: str
    arrays: dict[str, StoredArray]
    classes: tuple[str, ...] | None


def read_torch_checkpoint(path: Path) -> TorchCheckpoint:
    """Read a ``.pt`` or ``.pth`` in PyTorch's zip format: a state dict, a module, or a dict that contains either.

    From a training checkpoint the averaged weights ("ema") are preferred to the raw weights ("model").

    Raises:
        InputError: The archive or its pickle is refused or damaged, a tensor does not fit its storage, or there
            are no weights.
    """
    archive = open_archive(path)
    tree = read_pickle(archive.pickle(), str(path))
    tensors = _Tensors(archive, tree)
    for part in (*_PARTS_OF_CHECKPOINT, ""):
        node = _model_of(get(tree.root, part) if part else tree.root)
        arrays = tensors.of_module(node) or tensors.of_mapping(node)
        if arrays:
            classes = _class_names(attribute(node, "names")) or _class_names(get(tree.root, "names"))
            return TorchCheckpoint(part, arrays, classes)
    known = ", ".join(sorted({shown(key) for key, _ in items(tree.root)})[:8])
    content = f"keys: {known}" if known else "not a dict"
    raise InputError(f"{path}: contains no weights ({content}); give a different file")


def _model_of(node: Any) -> Any:
    """Return the model without an averager, a wrapper for several devices, or a count of updates around it."""
    for _ in range(4):
        if isinstance(node, tuple) and node:
            node = node[0]
        elif attribute(node, "ema") is not None and attribute(node, "_modules") is None:
            node = attribute(node, "ema")
        elif [name for name, _ in items(attribute(node, "_modules"))] == ["module"]:
            node = get(attribute(node, "_modules"), "module")
    return node


class _Tensors:
    """The tensors of a pickle, all of them checked."""

    def __init__(self, archive: TorchArchive, tree: PickleTree) -> None:
        self._archive = archive
        self._expanded = self._skipped = self._walked = 0
        self._arrays = {id(call): self._checked(call) for call in tree.calls if _is_tensor(call)}

    def of_mapping(self, node: Any) -> dict[str, StoredArray]:
        """Return the tensors of a state dict."""
        found = {}
        for name, value in items(node):
            array = self._array(value)
            if array is not None:
                self._check_name(name)
                found[name] = array
        return found

    def of_module(self, module: Any) -> dict[str, StoredArray]:
        """Return the parameters and buffers of a module and its submodules, under dotted names."""
        found: dict[str, StoredArray] = {}
        waiting, visited = [("", module, 0)], 0
        while waiting:
            prefix, node, depth = waiting.pop()
            visited += 1
            if depth > _MAX_DEPTH or visited > _MAX_MODULES or len(found) > _MAX_ARRAYS:
                raise self._nested()
            parts = {kind: attribute(node, kind) for kind in ("_parameters", "_buffers", "_modules")}
            state = node.state if isinstance(node, Record) else None
            looked_at = (*parts.values(), *(state if isinstance(state, tuple) else (state,)))
            self._walked += sum(len(part.pairs) for part in looked_at if isinstance(part, Pairs))
            if self._walked > _MAX_WALK or len(waiting) > _MAX_MODULES:
                raise self._nested()
            for kind in ("_parameters", "_buffers"):
                for name, value in items(parts[kind]):
                    array = self._array(value)
                    if array is not None:
                        self._check_name(prefix + name)
                        found[prefix + name] = array
            children = []
            for name, child in items(parts["_modules"]):
                self._check_name(prefix + name)
                children.append((f"{prefix}{name}.", child, depth + 1))
            waiting.extend(reversed(children))
        return found

    def _nested(self) -> InputError:
        return InputError(
            f"{self._archive.path}: its modules are nested too deeply or contain themselves; do not trust this file"
        )

    def _check_name(self, name: str) -> None:
        if len(name) > _MAX_NAME:
            raise InputError(
                f"{self._archive.path}: an array or module has a name of {len(name)} characters ({shown(name)}), at "
                f"most {_MAX_NAME} are allowed; do not trust this file"
            )

    def _array(self, node: Any) -> StoredArray | None:
        for _ in range(4):
            if not isinstance(node, Record) or not isinstance(node.arguments, tuple):
                return None
            if id(node) in self._arrays:
                return self._arrays[id(node)]
            maker, arguments = str(node.maker), node.arguments
            if maker.startswith("torch._utils._rebuild_parameter") and arguments:
                node = arguments[0]
            elif maker == "torch._tensor._rebuild_from_type_v2" and len(arguments) >= 3:
                # A subclass of tensor: a function, the class, and the function's arguments.
                return self._from_type(arguments)
            else:
                return None
        return None

    def _from_type(self, arguments: tuple[Any, ...]) -> StoredArray | None:
        function, inner = arguments[0], arguments[2]
        if not isinstance(function, Global):
            return None
        call = Record(maker=function, arguments=inner, called=True)
        return self._checked(call) if _is_tensor(call) else None

    def _checked(self, call: Record) -> StoredArray:
        """Return the array for a call that rebuilds a tensor, after checking that the array fits its storage."""
        path = self._archive.path
        try:
            storage, first, shape, strides = call.arguments[:4]
            kind, storage_type, key, _, length = storage.value[:5]
            untyped = storage_type in _UNTYPED if isinstance(storage_type, Global) else False
            named = call.arguments[6] if untyped else storage_type
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"{path}: a tensor in its pickle is damaged ({error}); get the file again") from error
        # No text is made of a value before its type and its length are checked: tuples may contain each other so often
        # that their text does not fit in memory.
        is_known = isinstance(kind, str) and kind == "storage" and isinstance(key, str) and len(key) <= _MAX_NAME
        if not is_known or not _are_counts(first, length):
            raise InputError(f"{path}: a tensor in its pickle is damaged; get the file again")
        if not (_are_sides(shape) and _are_sides(strides)):
            raise InputError(f"{path}: the tensor of storage {key!r} has no valid shape; get the file again")
        if len(shape) != len(strides):
            raise InputError(
                f"{path}: a tensor of storage {key!r} has shape {shape} and {len(strides)} strides; get the file again"
            )
        if not isinstance(named, Global):
            raise InputError(f"{path}: storage {key!r} has no known type; get the file again")
        dtype = (_DTYPES if untyped else _STORAGES).get(named)
        if dtype is None:
            raise InputError(
                f"{path}: storage {key!r} has type {shown(str(named))}, which weights of a float model do not have"
            )
        array = StoredArray(
            self._content(key, length, 1 if untyped else ITEM_SIZES[dtype]), dtype, shape, strides, first
        )
        self._check_bounds(key, array)
        return array

    def _content(self, key: str, length: int, item: int) -> Any:
        content = self._archive.storage(key)
        have = 0 if content is None else content.length
        if content is None or have != length * item:
            raise InputError(
                f"{self._archive.path}: a tensor claims a storage {key!r} of {length * item} bytes, the archive has "
                f"{'none' if content is None else have}; get the file again"
            )
        return content

    def _check_bounds(self, key: str, array: StoredArray) -> None:
        item = ITEM_SIZES[array.dtype]
        shape, strides = array.shape, array.strides or ()
        length, size = array.content.length, array.size * item
        if (array.first + array.span) * item > length:
            raise InputError(
                f"{self._archive.path}: a tensor {shape} with strides {strides} from element {array.first} on reaches "
                f"beyond its storage {key!r} of {length} bytes; do not trust this file"
            )
        if isinstance(array.content, DeflatedContent):
            self._skipped += array.first * item
        if self._skipped > _MAX_SKIPPED:
            raise InputError(
                f"{self._archive.path}: many tensors share the compressed storage {key!r}, which would be inflated for "
                "each of them; save the checkpoint again with torch.save, which compresses nothing"
            )
        self._expanded += max(size - length, 0)
        if self._expanded > _MAX_EXPANDED:
            raise InputError(
                f"{self._archive.path}: a tensor {shape} claims {size} bytes, its storage {key!r} has {length}; "
                "do not trust this file"
            )


def _is_tensor(call: Record) -> bool:
    return call.maker.module == "torch._utils" and call.maker.name.startswith("_rebuild_tensor")


def _are_counts(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _are_sides(value: Any) -> bool:
    """Tell whether a value is the shape or the strides of a tensor."""
    return isinstance(value, tuple) and len(value) <= _MAX_RANK and _are_counts(*value)


def shown(text: str) -> str:
    """Return a text from a file for a message, shortened, with control characters escaped."""
    return repr(text[:_SHOWN])[1:-1] + ("…" if len(text) > _SHOWN else "")


def _class_names(node: Any) -> tuple[str, ...] | None:
    """Return names that are a list, or a dictionary with numbers as keys."""
    if isinstance(node, Pairs):
        numbered = {key: value for key, value in node.pairs[:_MAX_CLASSES] if type(key) is int}
        node = [numbered.get(number) for number in range(len(numbered))]
    if not isinstance(node, list) or not 0 < len(node) <= _MAX_CLASSES:
        return None
    if not all(isinstance(name, str) for name in node):
        return None
    return tuple(name[:200].encode("utf-8", "replace").decode() for name in node)
