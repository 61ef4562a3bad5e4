"""A process of two that train a tiny detector with all sizes of a model; it writes sizes, graphs and weights."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from kubeyolo.data.sampler import SizeSchedule
from kubeyolo.models.named_facts import model_facts
from kubeyolo.runtime import configure_mindspore
from kubeyolo.training.distribution import distribution_from_environment, is_scheduler, join
from tests.training.tiny_detector import STEPS_PER_EPOCH, rendered_loader, tiny_engine

MODEL, STEPS = "yolov4", 100


def main() -> None:
    """Train 100 steps as one of the processes."""
    configure_mindspore("CPU", 1)
    distribution = distribution_from_environment()
    join(distribution)
    if is_scheduler():
        return
    facts, rank, world = model_facts(MODEL), distribution.rank, distribution.world
    schedule = SizeSchedule(facts.sizes, 1, seed=3)
    epochs = STEPS // STEPS_PER_EPOCH
    engine, sizes = tiny_engine(facts, facts.sizes[0], epochs, world=world), []
    with rendered_loader(facts.sizes[0], schedule, rank=rank, world=world) as loader:
        for epoch in range(epochs):
            for batch in loader.epoch(epoch):
                sizes.append(batch.images.shape[-1])
                engine.train(batch.images, batch.labels)
    out = Path(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["output"])
    found = {"sizes": sizes, "graphs": engine.compilations.result.graphs}
    (out / f"sizes-{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    np.savez(out / f"weights-{rank}.npz", **engine.common()["weights"])
    outcome = {"rank": rank, "exit_code": 0, "message": ""}
    Path(os.environ["KUBEYOLO_OUTCOME"], f"rank-{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
