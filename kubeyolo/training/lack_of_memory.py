"""What to lower when a training has not enough memory."""

from __future__ import annotations

from kubeyolo.config.schema import Config


def memory_remedy(config: Config, task: str) -> str:
    """Return what to lower, with the present values; first what changes no weight, so that the training continues.

    Args:
        config: Of the training.
        task: ``detector`` or ``backbone``.
    """
    data, train, pretrain = config.data, config.train, config.pretrain
    if task == "backbone":
        sizes = {"pretrain.per_batch_size": pretrain.per_batch_size, "pretrain.image_size": pretrain.image_size}
        return f"lower {_listed(sizes)}, which is another pretraining"
    same = {"data.workers": data.workers}
    if data.cache:
        same["data.cache_limit_mb"] = data.cache_limit_mb
    same = {key: value for key, value in same.items() if value}
    other = {"train.per_batch_size": train.per_batch_size, "train.image_size": train.image_size}
    if train.processes > 1:
        other["train.processes"] = train.processes
    first = f"lower {_listed(same)}, and the same command continues at its newest checkpoint; or " if same else ""
    return f"{first}lower {_listed(other)}, which is another training"


def _listed(values: dict[str, int]) -> str:
    return " or ".join(f"{key} ({value})" for key, value in values.items())
