"""Ends a training that has infinite or NaN values: the check, the error, and the note in the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import orjson

from kubeyolo.arrays import AnyArray, not_finite
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import PretrainConfig, TrainConfig
from kubeyolo.errors import KubeyoloError, WorkError
from kubeyolo.storage.base import Store

FILE_NAME = "not-finite.json"
"""File in the output of a training that ended because of values that are not finite; it has the reason."""

REMEDIES = frozenset(
    {
        "pretrain.lr",
        "train.grad_clip",
        "train.grad_scaler",
        "train.grad_scaler_value",
        "train.lr",
        "train.precision",
        "train.warmup_bias_lr",
        "train.warmup_epochs",
        "train.warmup_momentum",
        "train.warmup_steps",
    }
)
"""Settings that may be changed after a training ended in this way: it then starts from step 0 in the same output."""

SCALED_COLUMNS = 4
"""Number of columns that a scaled loss adds to the losses of a step: whether its gradients overflowed (0 or 1), the new
scale, the number of skipped updates, and of skipped updates in a row whose scale could not be lowered."""

MOST_SKIPPED = 20
"""Number of updates in a row, skipped at a scale that is not lowered any more, at which a training ends."""

_MOST_NAMES = 16
_KINDS = {"weights": "weight", "moments": "moment of the optimizer", "ema": "moving average"}
STATISTICS = ("moving_mean", "moving_variance", "running_mean", "running_var", ".range")
"""Ends of the names of parameters that follow the images of a process, and are not trained."""

Arrays = Mapping[str, AnyArray]


class NotFiniteError(WorkError):
    """A loss, a weight, a moment or an average is infinite or NaN."""


def first_not_finite(arrays: Arrays) -> tuple[str, int] | None:
    """Return the first array that is not finite and how many of its values are not, or None if all are finite."""
    return next(((name, count) for name, count, _ in not_finite(arrays.items())), None)


class Guard:
    """Ends a training whose values are not finite, with an error that says what to do.

    Args:
        remedy: What the user should do, with the options to type.
        image_names: File names of the images by the indices of a batch; empty if batches have no indices.
    """

    def __init__(self, remedy: str = "lower the learning rate", image_names: Sequence[str] = ()) -> None:
        self._remedy = remedy
        self._image_names = image_names

    def loss(self, step: int, losses: str, before: str, images: Sequence[int] = ()) -> NotFiniteError:
        """Return the error of a step whose loss is not finite.

        Args:
            step: Number of the step.
            losses: Losses of the step, as text.
            before: Losses of the previous step, as text.
            images: Images of the batch.
        """
        return NotFiniteError(
            f"training step {step}: the loss is not finite: (total, parts, gradient norm) = {losses}, "
            f"at the previous step {before}; {self._images(images)}{self._remedy}"
        )

    def overflow(self, step: int, scale: float, skipped: int, images: Sequence[int] = ()) -> NotFiniteError:
        """Return the error of a training whose gradients overflow whatever the scale of the loss.

        Args:
            step: Number of the step.
            scale: The scale, which is not lowered any more.
            skipped: Number of updates in a row that were skipped at this scale.
            images: Images of the batch.
        """
        return NotFiniteError(
            f"training step {step}: gradients are infinite or NaN, and the last {skipped} updates in a row were "
            f"skipped at the scale {scale:g} of the loss, which is not lowered any more; {self._images(images)}compute "
            f"in float32 with --set train.precision=float32, or: {self._remedy}"
        )

    def check(self, step: int, parts: Mapping[str, Arrays], images: Sequence[int] = ()) -> None:
        """Check the arrays that are about to be stored.

        Args:
            step: The last finished step.
            parts: Arrays by name for each of "weights", "moments" and "ema".
            images: Images of the last batch.

        Raises:
            NotFiniteError: A value is not finite; names the step, the array, the images and the remedy.
        """
        for part, arrays in parts.items():
            if (bad := first_not_finite(arrays)) is not None:
                name, count = bad
                kind = "running statistic" if name.endswith(STATISTICS) and part == "weights" else _KINDS[part]
                raise NotFiniteError(
                    f"training step {step}: {count} of the {arrays[name].size} values of the {kind} {name!r} are "
                    f"infinite or NaN, so no checkpoint was written; {self._images(images)}{self._remedy}"
                )

    def _images(self, images: Sequence[int]) -> str:
        names = [self._image_names[i] for i in dict.fromkeys(images) if 0 <= i < len(self._image_names)]
        if not names:
            return ""
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return f"images of its batch: {', '.join(names[:_MOST_NAMES])}{more}; "


def remedy_for(config: Config, task: str) -> str:
    """Return the likeliest cause, and options with values to type: a lower learning rate or a longer warm-up."""
    section: TrainConfig | PretrainConfig = config.train if task == "detector" else config.pretrain
    key = "train.lr" if task == "detector" else "pretrain.lr"
    usual = float(type(section).model_fields["lr"].default)
    lower = min(section.lr / 10, usual)
    other = ""
    # A rate above the usual rates stays too high after the longest warm-up.
    if isinstance(section, TrainConfig) and section.lr <= usual:
        longer = max(2 * section.warmup_epochs, float(TrainConfig.model_fields["warmup_epochs"].default))
        other = f", or lengthen the warm-up with --set train.warmup_epochs={longer:g}"
    return (
        f"the likeliest cause is {key} = {section.lr:g}: run the same command with --set {key}={lower:.3g}{other}; "
        "it starts from step 0 and removes the checkpoints of this output; give a different output to keep them"
    )


@contextmanager
def remembered(store: Store) -> Iterator[None]:
    """Write a note into the output if the training in this block ends because of values that are not finite."""
    try:
        yield
    except NotFiniteError as error:
        # Without the note this output refuses changed settings, but the error of the training matters more.
        with suppress(KubeyoloError, OSError):
            store.write_bytes(FILE_NAME, orjson.dumps({"message": str(error)}))
        raise
