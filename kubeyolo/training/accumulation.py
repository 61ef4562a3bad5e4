"""When weights are updated: after every batch, or after the gradients of several batches have been added.

YOLOv5 and Scaled-YOLOv4 publish their rates for updates from 64 images, for any number of images in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.schedules import interpolate, warmup_steps


@dataclass(frozen=True)
class Accumulation:
    """How many batches an update of the weights is computed from.

    Attributes:
        images: Images of a batch in all processes together.
        nominal: Images that an update is computed from; 0 updates after every batch.
        warmup: Steps of the warm-up, in which the number of batches rises from 1.
    """

    images: int
    nominal: int = 0
    warmup: int = 0

    @property
    def batches(self) -> int:
        """Batches of an update after the warm-up: ``nominal / images``, rounded, at least 1."""
        return max(round(self.nominal / self.images), 1)

    @property
    def decay_factor(self) -> float:
        """Factor of the weight decay: images of an update divided by ``nominal``."""
        return self.images * self.batches / self.nominal if self.nominal else 1.0

    def batches_at(self, step: int) -> int:
        """Return the number of batches of the update that a step belongs to; steps count from 0."""
        if step >= self.warmup:
            return self.batches
        return max(round(interpolate(step, self.warmup, 1.0, self.nominal / self.images)), 1)

    def updates_after(self, steps: int) -> tuple[int, int]:
        """Return the number of updates in the first ``steps`` steps of a training, and of batches since the last."""
        updates = waiting = 0
        for step in range(min(steps, self.warmup)):
            waiting += 1
            if waiting >= self.batches_at(step):
                updates, waiting = updates + 1, 0
        more, waiting = divmod(waiting + max(steps - self.warmup, 0), self.batches)
        return updates + more, waiting


def build_accumulation(config: TrainConfig, images: int, steps_per_epoch: int) -> Accumulation:
    """Return the accumulation of a training configuration.

    Args:
        config: Settings of the training.
        images: Images of a batch in all processes together.
        steps_per_epoch: Steps of an epoch.
    """
    warmup = warmup_steps(steps_per_epoch, config.warmup_epochs, config.warmup_steps)
    return Accumulation(images, config.nominal_batch, warmup)
