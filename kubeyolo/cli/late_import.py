"""Imports a module when it is used for the first time, so that the help of a command need not wait for it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def import_late(name: str) -> ModuleType:
    """Return a module that is executed when one of its attributes is read for the first time.

    Raises:
        ModuleNotFoundError: There is no such module.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    return module
