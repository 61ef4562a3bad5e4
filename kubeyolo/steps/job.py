"""A step of a pipeline as the work of a job: its document, and what each process of the job does.

Rank 0 calls the step as a step without a job does, so the result is stored in the same way, in the same output. The
step that has launched the job then reads the stored result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from kubeyolo.catalogue import STEPS
from kubeyolo.config.schema import Config
from kubeyolo.evaluation.results import RuntimeName
from kubeyolo.memory import lower
from kubeyolo.work import Document, Work

WORKER_MODULE = "kubeyolo.steps.worker"

_NAMES: Mapping[str, str] = {"evaluate": "evaluate", "export_model": "export"}
_DIGITS = 6


class StepSpec(Document):
    """A step that runs in a job.

    Attributes:
        step: Name of the step.
        store: URI of the store.
        output: URI of the folder that receives the result.
        config: The configuration.
        code: Digest of the source.
        bundle: Reference of the bundle.
        dataset: Reference of the data set.
        runtime: What runs the network, for ``evaluate``.
        digest: Digest of everything that the result depends on.
    """

    kind: ClassVar[str] = "the document of a step"

    step: Literal["evaluate", "export_model"]
    store: str
    output: str
    config: Config
    code: str
    bundle: str
    dataset: str
    runtime: RuntimeName = "mindspore"
    digest: str

    def work(self, processes: int) -> Work:
        """Return the step as the work of processes; only an evaluation is shared among several."""
        step = STEPS[self.step]
        return Work(
            step=self.step,
            # A run may evaluate two bundles at the same time.
            name=f"{_NAMES[self.step]}-{self.digest[:_DIGITS]}",
            module=WORKER_MODULE,
            document=self.model_dump_json(),
            output=self.output,
            processes=processes if step.is_shared else 1,
            device_target=self.config.value(step.device_key),
            reads={"bundle": self.bundle, "data set": self.dataset},
            memory_remedy=self.memory_remedy,
        )

    @property
    def memory_remedy(self) -> str:
        """What to lower after memory ran out."""
        sizes = {"evaluate.per_batch_size": self.config.evaluate.per_batch_size}
        return f"{lower(sizes)}, or give the pods more memory (cluster setting memory)"
