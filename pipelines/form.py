"""The form of a pipeline: the inputs of its first step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from kubeyolo.catalogue import STEPS


def form_of(configure: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a pipeline the fields of its first step as parameters, with their defaults.

    The pipeline takes the fields as keywords and passes them to its first step. kfp reads names, types and defaults
    from the signature, and the descriptions from the docstring.

    Args:
        configure: The component that is the first step.
    """
    function = configure.python_func
    artifacts = {artifact.name for artifact in STEPS["configure"].artifacts}
    fields = [each for name, each in inspect.signature(function).parameters.items() if name not in artifacts]

    def decorate(pipeline: Callable[..., None]) -> Callable[..., None]:
        def filled(*values: Any) -> None:
            pipeline(**{each.name: value for each, value in zip(fields, values, strict=True)})

        filled.__name__, filled.__doc__ = pipeline.__name__, function.__doc__
        filled.__signature__ = inspect.Signature(fields)  # type: ignore[attr-defined]
        return filled

    return decorate
