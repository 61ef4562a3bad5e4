"""The averaged weights of the best validations, as files in the output: ``best/epoch-0012-ap-0.4312.safetensors``.

A file is written when its validation is among the best, before the next checkpoint. A checkpoint names the files that
were the best at its step, with their checksums; while training, a file is removed when no checkpoint names it any more.
So a training that is killed at any moment finds the files of the checkpoint that it continues from, and validates later
epochs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file

from kubeyolo.arrays import Float32Array
from kubeyolo.output_streams import Show
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.claim import check_claim
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training.finite import Guard
from kubeyolo.training.history import HistoryRow
from kubeyolo.weights.safetensors_file import write_safetensors

FOLDER = "best"


class Candidate(BaseModel):
    """The averaged weights of a validation.

    Attributes:
        epoch: Epoch after which the validation ran, from 0.
        step: Number of finished steps.
        ap: COCO AP, 0..1; above 0.
        ap50: AP at IoU 0.50.
        sha256: Checksum of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    step: int
    ap: float
    ap50: float | None
    sha256: str = ""

    @property
    def key(self) -> str:
        """Key of the file in the output."""
        return f"{FOLDER}/epoch-{self.epoch:04d}-ap-{self.ap:.4f}.safetensors"


class BestWeights:
    """The best validations of a training so far, and the files with their weights.

    Args:
        store: The output of the training.
        count: Largest number of validations to keep.
        guard: Checks that the weights are finite.
        metadata: Metadata of the files, such as the names of the classes, for trainings that start from a file.
        writer: Name of the writer in the claim on the output; empty if there is no claim.

    Attributes:
        candidates: The best validations, the best first. Of two validations with the same AP the earlier is
            better. A validation whose AP is 0 or unknown is not a candidate.
    """

    def __init__(self, store: Store, count: int, guard: Guard, metadata: Mapping[str, str], writer: str = "") -> None:
        self._store, self._count, self._guard, self._writer = store, count, guard, writer
        self._metadata = metadata
        self.candidates: list[Candidate] = []

    @property
    def best(self) -> Candidate | None:
        """The best validation; None if there is no candidate."""
        return self.candidates[0] if self.candidates else None

    def offer(self, row: HistoryRow, arrays: dict[str, Float32Array]) -> bool:
        """Keep the weights of a validation if it is among the best, and tell whether it is the best.

        Args:
            row: The row of the validation in the history.
            arrays: The averaged weights by name of their parameter.

        Raises:
            NotFiniteError: A weight is not finite.
            WorkError: A different process has taken over the output.
        """
        if not row.ap:
            return False
        new = Candidate(epoch=row.epoch, step=row.step, ap=row.ap, ap50=row.ap50)
        ranked = sorted([*self.candidates, new], key=lambda each: (-each.ap, each.epoch))[: self._count]
        if new not in ranked:
            return False
        self._guard.check(row.step, {"ema": arrays})
        check_claim(self._store, self._writer)
        with temporary_folder("best") as folder:
            path = folder / "weights.safetensors"
            # The safetensors package writes metadata in an order that differs between processes.
            write_safetensors(path, arrays.items(), self._metadata)
            written = new.model_copy(update={"sha256": self._store.put_file(path, new.key)})
        self.candidates = [written if each is new else each for each in ranked]
        return self.candidates[0] is written

    def restore(self, candidates: Iterable[Candidate], show: Show) -> None:
        """Continue with the best validations of a checkpoint; a validation without its file is left out and named."""
        self.candidates = []
        with temporary_folder("best") as folder:
            for number, candidate in enumerate(candidates):
                if self._fetch(candidate, folder / str(number)):
                    self.candidates.append(candidate)
                    continue
                show(
                    f"warning: {self._store.uri_of(candidate.key)} is missing or damaged: the weights of epoch "
                    f"{candidate.epoch}, AP {candidate.ap:.4f}, cannot be published"
                )

    def copy_to(self, path: Path) -> Candidate | None:
        """Copy the weights of the best validation whose file is whole to a path; None if there is no such file.

        The copy has no metadata: it becomes a file of a bundle, whose manifest has the classes.
        """
        found = next((each for each in self.candidates if self._fetch(each, path)), None)
        if found is not None:
            save_file(load_file(path), path)
        return found

    def remove_unused(self, named: Callable[[], set[str]] = set) -> None:
        """Remove the files that are not among the best, unless a checkpoint names them.

        Args:
            named: Returns the keys of the files that checkpoints name; by default none, after the training.
        """
        best = {each.key for each in self.candidates}
        others = [stored.key for stored in self._store.list(FOLDER) if stored.key not in best]
        used = named() if others else set()
        for key in others:
            if key not in used:
                self._store.delete(key)

    def _fetch(self, candidate: Candidate, path: Path) -> bool:
        try:
            self._store.get_file(candidate.key, path)
        except NotFound:
            return False
        return sha256_file(path) == candidate.sha256
