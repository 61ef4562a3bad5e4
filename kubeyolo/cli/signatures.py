"""Signatures on the command line: ``--verify-key`` of every command that reads bundles, and ``kubeyolo sign``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kubeyolo.cli.options import BundleArgument
from kubeyolo.errors import InputError
from kubeyolo.signing import SIGNING_KEY, TRUSTED_KEYS, Signer, trust_only

READING_BUNDLES = frozenset(
    {
        "run:run",
        "steps:train",
        "steps:evaluate",
        "compare:compare",
        "steps:export",
        "steps:quantize",
        "steps:publish",
        "predict:predict",
        "benchmark:benchmark",
        "gate:gate",
        "retention:promote",
        "weights:export",
    }
)
"""Module and function of each command that reads bundles on this machine."""

_PARAMETER = "verify_keys"

_VerifyKeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--verify-key",
        metavar="FILE",
        help="Public key in PEM: refuse bundles that are not signed with it, or with another key given so; replaces "
        f"{TRUSTED_KEYS}.",
    ),
]


def with_verify_keys(place: str, function: Callable[..., None]) -> Callable[..., None]:
    """Return the function of a command with the option ``--verify-key``, if the command reads bundles.

    Args:
        place: Module and function of the command.
        function: The function.
    """
    if place not in READING_BUNDLES:
        return function

    @functools.wraps(function)
    def call(**values: Any) -> None:
        keys = values.pop(_PARAMETER, None)
        if keys:
            trust_only(keys)
        function(**values)

    own = inspect.signature(function, eval_str=True)
    option = inspect.Parameter(_PARAMETER, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_VerifyKeyOption)
    signature = own.replace(parameters=[*own.parameters.values(), option])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return call


def sign(bundle: BundleArgument) -> None:
    """Check all files of a bundle, and sign it with the private key that KUBEYOLO_SIGNING_KEY names.

    Commands that publish bundles sign them when this variable is set. Sign a bundle with this command if it was made
    without a key, or when you change keys. docs/security.md says how to make keys.

    [bold]Examples[/bold]

      kubeyolo sign minio://kubeyolo/models/yolov5n-r7/1.0.0
    """
    from kubeyolo.publishing import sign_bundle
    from kubeyolo.storage.place import Place

    signer = Signer.from_environment()
    if signer is None:
        raise InputError(
            f"{SIGNING_KEY} is not set: set it to the path of a private key in PEM; make one: "
            "openssl genpkey -algorithm ed25519 -out signing-key.pem"
        )
    signed = sign_bundle(Place.of(bundle))
    print(f"{signed.uri}: signed with key {signer.trusted.ids[0]}")
