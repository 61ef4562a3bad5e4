"""The forms of names, references and quantities in cluster settings, as Kubernetes reads them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from kubeyolo.compiled.resources import quantity_problem
from kubeyolo.errors import one_line

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PART = r"[A-Za-z0-9][-A-Za-z0-9_.]*"

IMAGE = re.compile(
    rf"({_PART}(:[0-9]+)?/)?{_PART}(/{_PART})*(:[A-Za-z0-9_][-A-Za-z0-9_.]*)?(@[A-Za-z0-9]+:[0-9A-Fa-f]+)?"
)
"""A reference of an image: no spaces, and no part of its path that is a folder above."""

DEVICE = re.compile(rf"{_LABEL}(\.{_LABEL})+/{_WORD}")
"""An extended resource: a domain and a name. Resources without a domain belong to Kubernetes."""

_CARDS_DOMAIN = "huawei.com/"
_CARDS = re.compile(r"huawei\.com/Ascend(310|910).*")

_LONGEST_SHOWN = 80


def _form(pattern: str, expected: str, may_be_empty: bool = False) -> AfterValidator:
    """Return the check of a form."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text) and not (may_be_empty and text == ""):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


_NAMESPACE = "a name of small letters, digits and hyphens"
_OBJECT = "a name of small letters, digits, hyphens and dots"
_KEY = "a name of letters, digits, '-', '_' and '.', which may follow a domain and a slash"

Namespace = Annotated[str, _form(_LABEL, _NAMESPACE, may_be_empty=True)]
Name = Annotated[str, Field(max_length=253), _form(_DOMAIN, _OBJECT)]
"""Name of an object of Kubernetes."""
NameOrNone = Annotated[str, Field(max_length=253), _form(_DOMAIN, _OBJECT, may_be_empty=True)]
Key = Annotated[str, _form(rf"({_DOMAIN}/)?{_WORD}", _KEY)]
"""Name of a label or an annotation."""
KeyOrNone = Annotated[str, _form(rf"({_DOMAIN}/)?{_WORD}", _KEY, may_be_empty=True)]
LabelValue = Annotated[
    str, _form(_WORD, "at most 63 letters, digits, '-', '_' and '.', the first and the last a letter or digit", True)
]
Variable = Annotated[str, _form(r"[A-Za-z_][A-Za-z0-9_]*", "a name of letters, digits and '_'")]
"""Name of an environment variable."""
Text = Annotated[str, _form(r"[^\x00]*", "a text without null characters")]
Image = Annotated[
    str, _form(IMAGE.pattern, "a reference such as registry.example.com/team/kubeyolo-train:1", may_be_empty=True)
]


def _device(text: str) -> str:
    if text and not DEVICE.fullmatch(text):
        raise ValueError("expected a domain and a name, such as huawei.com/Ascend910")
    if text.lower().startswith(_CARDS_DOMAIN) and not _CARDS.fullmatch(text):
        raise ValueError("cards are huawei.com/Ascend910, or with HAMi's plugin huawei.com/Ascend910B3, for example")
    if text.partition("/")[0].endswith(("kubernetes.io", "k8s.io")):
        raise ValueError("expected a resource of a device plugin, such as huawei.com/Ascend910")
    return text


Device = Annotated[str, AfterValidator(_device)]
"""Resource of a device plugin; empty for none."""


def _written(value: Any) -> Any:
    """Return a number as it is written in Kubernetes: a YAML file may have a number for a quantity."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{Decimal(str(value)):f}" if abs(value) < float("inf") else str(value)
    return value


def _quantity(is_memory: bool, may_be_empty: bool) -> AfterValidator:
    def check(text: str) -> str:
        if text or not may_be_empty:
            refuse_quantity(text, is_memory)
        return text

    return AfterValidator(check)


def refuse_quantity(text: str, is_memory: bool) -> None:
    """Refuse a text that is not a quantity, or one that no pod can use.

    Raises:
        ValueError: What is expected.
    """
    if problem := quantity_problem(text, "memory" if is_memory else "cpu", may_have_decimals=True):
        raise ValueError(one_line(problem, 2 * _LONGEST_SHOWN))


Processors = Annotated[str, BeforeValidator(_written), _quantity(is_memory=False, may_be_empty=False)]
ProcessorsOrNone = Annotated[str, BeforeValidator(_written), _quantity(is_memory=False, may_be_empty=True)]
Memory = Annotated[str, BeforeValidator(_written), _quantity(is_memory=True, may_be_empty=False)]
MemoryOrNone = Annotated[str, BeforeValidator(_written), _quantity(is_memory=True, may_be_empty=True)]
