"""A step of a pipeline as the work of a job: its document, and what each process of the job does.

Rank 0 calls the step as a step without a job does, so the result is stored in the same way, in the same output. The
step that has launched the job then reads the stored result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, first_problem
from kubeyolo.evaluation.results import RuntimeName
from kubeyolo.memory import lower
from kubeyolo.work import Work

WORKER_MODULE = "kubeyolo.steps.worker"

_NAMES: Mapping[str, str] = {"evaluate": "evaluate", "export_model": "export"}
_DIGITS = 6


class StepSpec(BaseModel):
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

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        is_alone = self.step != "evaluate"
        return Work(
            step=self.step,
            # A run may evaluate two bundles at the same time.
            name=f"{_NAMES[self.step]}-{self.digest[:_DIGITS]}",
            module=WORKER_MODULE,
            document=self.model_dump_json(),
            output=self.output,
            processes=1 if is_alone else processes,
            is_alone=is_alone,
            device_target=self.device_target,
            reads={"bundle": self.bundle, "data set": self.dataset},
            memory_remedy=self.memory_remedy,
        )

    @property
    def device_target(self) -> str:
        """Device of the processes."""
        section = self.config.evaluate if self.step == "evaluate" else self.config.export
        return section.device_target

    @property
    def memory_remedy(self) -> str:
        """What to lower after memory ran out."""
        sizes = {"evaluate.per_batch_size": self.config.evaluate.per_batch_size}
        return f"{lower(sizes)}, or give the pods more memory (cluster setting memory)"

    @classmethod
    def read(cls, path: Path) -> StepSpec:
        """Read the document.

        Raises:
            InputError: The file is missing, or is not the document of a step.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise InputError(f"{path}: is not the document of a step: {first_problem(error)}") from error
