"""The choice of what a training starts from, and checks of the settings of the start that read nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubeyolo.bundle import Bundle
from kubeyolo.config.load import ResolvedConfig, with_values
from kubeyolo.config.training_schema import BACKBONE
from kubeyolo.errors import InputError
from kubeyolo.models.ranges import check_quantization
from kubeyolo.storage.place import Place
from kubeyolo.training.start import check_detector

_PARTS = (BACKBONE, "neck", "head")
_WILD = "*?["
_DOWNLOADS = ("http://", "https://", "ftp://")


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """A configuration whose start is resolved.

    Attributes:
        resolved: The configuration: ``train.weights`` is a reference, pretraining is off if there are weights, and the
            values of the recipe are filled in.
        digest: Digest of the content of the weights; empty if the training does not start from a detector.
        notes: Remarks for the person who starts the training.
    """

    resolved: ResolvedConfig
    digest: str = ""
    notes: tuple[str, ...] = ()


def check_start(resolved: ResolvedConfig, is_retraining: bool = False) -> None:
    """Refuse settings of the start that contradict each other; nothing is read.

    Raises:
        InputError: Names the settings and the remedy.
    """
    config, start = resolved.config, resolved.config.retrain.start_from if is_retraining else ""
    weights, pretrain = config.train.weights, config.pretrain.enabled
    choice = f"retrain.start_from = {start}"
    if start == "weights" and not weights:
        raise InputError(f"{choice}: train.weights is empty; set it to a bundle or a file of weights")
    if start in ("backbone", "fresh") and weights:
        raise InputError(f"{choice}, and train.weights = {weights}: leave one of them out")
    if start == "backbone" and not pretrain and resolved.is_set("pretrain.enabled"):
        raise InputError(f"{choice}, and pretrain.enabled = false: leave one of them out")
    if start == "fresh" and pretrain and resolved.is_set("pretrain.enabled"):
        raise InputError(f"{choice}, and pretrain.enabled = true: leave one of them out")
    if weights and pretrain and resolved.is_set("pretrain.enabled"):
        raise InputError(
            f"train.weights = {weights}, and pretrain.enabled = true: the weights of a detector include its backbone, "
            "which would replace the pretrained backbone; leave one of them out"
        )
    check_quantization(config, has_weights=bool(weights) or is_retraining)
    if weights.lower().startswith(_DOWNLOADS):
        raise InputError(
            f"train.weights = {weights} is a web address, and kubeyolo downloads no weights; download the file, "
            "and give its path or its URI in a store"
        )
    for pattern in config.train.freeze:
        _check_pattern(pattern)
    _check_coverage(config.train.freeze)


def _check_pattern(pattern: str) -> None:
    """Refuse a pattern that cannot match a parameter of any network; the rest is known once the network is built."""
    if pattern == BACKBONE:
        return
    end = min((pattern.index(sign) for sign in _WILD if sign in pattern), default=len(pattern))
    literal = pattern[:end]
    if not any(literal.startswith(f"{part}.") or f"{part}.".startswith(literal) for part in _PARTS):
        raise InputError(
            f"train.freeze: {pattern!r} matches no parameter: names start with backbone., neck. or head.; write the "
            "word backbone, or patterns such as neck.* and head.m.0.*"
        )


def _check_coverage(patterns: Sequence[str]) -> None:
    """Refuse patterns that freeze all parts of any network; single names are known once the network is built."""
    full = [f"{BACKBONE}.*" if pattern == BACKBONE else pattern for pattern in patterns]
    # A pattern that ends in * and has no other sign covers the parts whose names it starts.
    starts = [pattern.rstrip("*") for pattern in full if pattern.endswith("*")]
    if all(any(f"{part}.".startswith(start) for start in starts) for part in _PARTS):
        raise InputError(
            f"train.freeze = {list(patterns)} freezes all parameters, so nothing would be trained; leave out a part, "
            "such as head.*"
        )


def retraining_start(resolved: ResolvedConfig, current: Bundle | None, latest: Place) -> StartingPoint:
    """Return the configuration of a retraining, whose ``train.weights`` names the current model if it starts from it.

    Args:
        resolved: The configuration, as checked by :func:`check_start`.
        current: The current model; None if there is none.
        latest: The pointer to the current model.

    Raises:
        InputError: ``retrain.start_from`` is ``current``, and no training of this model can start from the current
            model.
    """
    config = resolved.config
    start, weights = config.retrain.start_from, config.train.weights
    if start == "backbone":
        return StartingPoint(resolved=_with_pretraining(resolved, True))
    if start == "fresh":
        return StartingPoint(resolved=_with_pretraining(resolved, False))
    if start == "weights":
        return StartingPoint(resolved=resolved)
    if current is None:
        return StartingPoint(resolved=resolved, notes=(_without_current(resolved, latest),) if start else ())
    try:
        check_detector(current, config.model)
    except InputError as error:
        if start:
            raise InputError(f"retrain.start_from = current: {error}; or leave retrain.start_from out") from error
        return StartingPoint(resolved=resolved, notes=(f"the training does not start from the current model: {error}",))
    notes: tuple[str, ...] = ()
    if weights:
        notes = (f"train.weights = {weights} is not used, since there is a current model (retrain.start_from)",)
    elif config.pretrain.enabled and resolved.is_set("pretrain.enabled"):
        notes = ("pretrain.enabled = true is not used, since there is a current model (retrain.start_from)",)
    return StartingPoint(
        resolved=with_values(resolved, {"train.weights": current.reference}, "the current model"), notes=notes
    )


def _with_pretraining(resolved: ResolvedConfig, enabled: bool) -> ResolvedConfig:
    if resolved.config.pretrain.enabled == enabled:
        return resolved
    return with_values(resolved, {"pretrain.enabled": enabled}, "retrain.start_from")


def _without_current(resolved: ResolvedConfig, latest: Place) -> str:
    """Return what a retraining from the current model starts from while there is none."""
    config = resolved.config
    instead = "a pretrained backbone" if config.pretrain.enabled else "fresh weights"
    return (
        f"retrain.start_from = current: there is no current model at {latest} yet; this training starts from "
        f"{'train.weights' if config.train.weights else instead}"
    )
