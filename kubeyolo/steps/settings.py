"""What ``configure`` passes to a step: the parts of the configuration that the step reads, URIs, digests and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.catalogue import STEPS
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, first_problem, problem_of


class StepSettings(BaseModel):
    """The settings of one step, as a pipeline passes them.

    They are a struct without nulls; fields at their default are left out.

    Attributes:
        model: Name of the detector.
        store: URI of the store.
        store_id: Id of the store, which changes when the store is emptied.
        code: Digest of the source that the result depends on.
        config: All values that the step reads, by section.
        data: URI of the data set, or of images by class.
        fingerprint: Fingerprint of the data at this URI.
        version: Version to publish under; if empty, it is derived from the content.
        index: URI that receives a copy of the step's record, so that results can be found by the name of the run.
        launcher: Name of the launcher, which starts training processes.
        cluster: Settings of the cluster, if the launcher needs them.
        runtime: Runtime of the network that is evaluated.
        current: Reference of the bundle that is the current model; empty if there is none.
        latest: URI of the pointer to the current model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = ""
    store: str
    store_id: str = ""
    code: str
    config: dict[str, dict[str, Any]] = {}
    data: str = ""
    fingerprint: str = ""
    version: str = ""
    index: str = ""
    launcher: str = ""
    cluster: dict[str, Any] = {}
    runtime: str = ""
    current: str = ""
    latest: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any], step: str) -> StepSettings:
        """Return the settings that a pipeline has passed.

        Raises:
            InputError: The values are not the settings of a step.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(
                f"settings of {step}: {first_problem(error)}; use the output of the step configure of the same version"
            ) from error

    def struct(self) -> dict[str, Any]:
        """Return the settings as a struct of a pipeline."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def configuration(self) -> Config:
        """Return the configuration: the sections that the step reads, and the schema's defaults for all other sections.

        Raises:
            InputError: A value is not allowed.
        """
        if not self.model:
            raise InputError("the settings of this step name no model; use the output of the step configure")
        try:
            return Config.model_validate({"model": self.model, **self.config})
        except ValidationError as error:
            wrong = problem_of(error)
            raise InputError(f"{wrong.key} = {wrong.value!r}: {wrong.reason}") from error


def read_sections(config: Config, step: str) -> dict[str, dict[str, Any]]:
    """Return the values of a configuration that a step reads, by section."""
    return sections_of(config, STEPS[step].reads)


def sections_of(config: Config, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return sections of a configuration, or single keys of them (``train.seed``), as JSON values by section."""
    sections: dict[str, dict[str, Any]] = {}
    for key in keys:
        section, _, name = key.partition(".")
        values = getattr(config, section).model_dump(mode="json")
        sections.setdefault(section, {}).update({name: values[name]} if name else values)
    return sections
