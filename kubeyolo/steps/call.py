"""The arguments that all steps have in common, and the output that they write to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubeyolo.bundle import Bundle, read_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.steps.outputs import result_output
from kubeyolo.steps.settings import read_sections
from kubeyolo.storage.place import Place


def nothing(output: Place) -> None:
    """Do nothing: the default of ``begin``."""


@dataclass(frozen=True, kw_only=True)
class StepCall:
    """The arguments that all steps have in common.

    Attributes:
        store: The store of results.
        config: The configuration.
        code: Digest of the source, a part of the name of the output.
        output: Where the step writes; if None, a folder named after everything that the result depends on is used.
        begin: Called with the output before anything is changed there.
    """

    store: Place
    config: Config
    code: str
    output: Place | None = None
    begin: Callable[[Place], None] = nothing

    def bundle(self, text: str) -> Bundle:
        """Return the bundle at a URI or a reference."""
        return read_bundle(self.store.at(text))

    def dataset(self, text: str) -> Dataset:
        """Return the stored data set at a URI or a reference."""
        return open_dataset(self.store.at(text))

    def begun_output(self, step: str, model: str, reads: str = "", **digests: str) -> Place:
        """Return the output of a step that is about to write to it.

        Args:
            step: Name of the step.
            model: First part of the name of the folder.
            reads: Name of the step whose settings are used; by default the step itself.
            **digests: Digests of the step's inputs.
        """
        sections = read_sections(self.config, reads or step)
        output = self.output or result_output(self.store, step, model, digests, sections, self.code)
        self.begin(output)
        return output
