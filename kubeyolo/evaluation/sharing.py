"""The share that one of several processes has in the evaluation of a split.

Process ``rank`` of ``world`` evaluates batches ``rank``, ``rank + world``, … of the split. The batches are the same as
with one process, so the detections are the same to the last digit. Each process stores the detections of its share;
process 0 reads all of them. A process that finds its share in the store, after a restart, does not evaluate it again,
unless the file is damaged or is not its share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kubeyolo.documents import NotJson, read_large_json
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.integrity import DamagedContent
from kubeyolo.storage.place import Place

_BOX_NUMBERS = 4
_POLL_SECONDS = 0.5
_REPORT_SECONDS = 30.0
_REPLACE_SECONDS = 60.0
"""How long process 0 waits until another process has deleted its unusable share, which it does when it starts."""


class _Unusable(Exception):
    """A stored file is not the share of its process."""


@dataclass(frozen=True)
class Share:
    """The part of a split that one process evaluates.

    Attributes:
        rank: Number of the process, from 0.
        world: Number of processes.
        folder: Folder that all processes can write to; required if there are several.
        digest: Digest of everything that the detections depend on; a stored share is used only with the same digest.
    """

    rank: int = 0
    world: int = 1
    folder: Place | None = None
    digest: str = ""

    def numbers(self, images: int, batch_size: int, rank: int | None = None) -> list[int]:
        """Return the numbers of the images of a share, from 0 and in order.

        Args:
            images: Number of images of the split.
            batch_size: Images of a batch.
            rank: Number of a process; by default this process.
        """
        rank = self.rank if rank is None else rank
        return [number for number in range(images) if number // batch_size % self.world == rank]

    def stored(self, image_ids: Sequence[int]) -> list[Detection] | None:
        """Return the detections of this share if they are stored; delete a file that is not this share.

        Args:
            image_ids: Ids of the images of this share, in order.
        """
        try:
            return self._read(self.rank, image_ids)
        except _Unusable as error:
            file = self._file(self.rank)
            print(f"{file}: {error}; evaluating this share again", flush=True)
            file.parent.store.delete(file.name)
            return None

    def store(self, image_ids: Sequence[int], detections: Sequence[Detection]) -> None:
        """Store the detections of this share."""
        self._file(self.rank).write(orjson.dumps({"images": list(image_ids), "detections": list(detections)}))

    def gathered(self, own: Sequence[Detection], image_ids: Sequence[int], batch_size: int) -> list[Detection]:
        """Wait for the shares of all other processes, and return all detections in the order of the images.

        Args:
            own: Detections of this share.
            image_ids: Id of every image of the split, in order.
            batch_size: Images of a batch.

        Raises:
            WorkError: A stored file is not the share of its process.
        """
        of_image: dict[int, list[Detection]] = {image_id: [] for image_id in image_ids}
        for rank in range(self.world):
            images = [image_ids[number] for number in self.numbers(len(image_ids), batch_size, rank)]
            for detection in own if rank == self.rank else self._waited(rank, images):
                of_image[detection["image_id"]].append(detection)
        return [detection for detections in of_image.values() for detection in detections]

    def clear(self) -> None:
        """Delete the stored shares."""
        for rank in range(self.world):
            file = self._file(rank)
            file.parent.store.delete(file.name)

    def _waited(self, rank: int, image_ids: Sequence[int]) -> list[Detection]:
        """Return a share as soon as it is stored; the launcher ends this process if that process fails."""
        started = reported = time.monotonic()
        while True:
            try:
                detections = self._read(rank, image_ids)
            except _Unusable as error:
                if time.monotonic() - started >= _REPLACE_SECONDS:
                    raise WorkError(f"{self._file(rank)}: {error}; delete this file") from error
                detections = None
            if detections is not None:
                return detections
            if time.monotonic() - reported > _REPORT_SECONDS:
                print(f"waiting for the share of process {rank} of {self.world}", flush=True)
                reported = time.monotonic()
            time.sleep(_POLL_SECONDS)

    def _read(self, rank: int, image_ids: Sequence[int]) -> list[Detection] | None:
        """Return the stored detections of a process on its images; None if they are not stored.

        Raises:
            _Unusable: The file is damaged, or is not the share of this process.
        """
        try:
            document = read_large_json(self._file(rank).read(), f"the share of process {rank}")
        except NotFound:
            return None
        except (NotJson, DamagedContent) as error:
            raise _Unusable(f"is damaged, and does not have the detections of process {rank}") from error
        if not isinstance(document, dict) or not isinstance(document.get("detections"), list):
            raise _Unusable(f"does not have the detections of process {rank}")
        if document.get("images") != list(image_ids):
            raise _Unusable(f"does not have the images of process {rank}")
        detections: list[Detection] = document["detections"]
        own = frozenset(image_ids)
        for number, detection in enumerate(detections):
            if not _is_detection(detection):
                raise _Unusable(f"detections.{number} is not a detection of process {rank}")
            if detection["image_id"] not in own:
                image = detection["image_id"]
                raise _Unusable(f"detections.{number} is on image {image}, which is not an image of process {rank}")
        return detections

    def _file(self, rank: int) -> Place:
        assert self.folder is not None
        return self.folder / "shares" / f"{self.digest}-{rank}-of-{self.world}.json"


def _is_detection(row: Any) -> bool:
    """Tell whether a value has the keys and types of :class:`Detection`, and finite numbers."""
    if not isinstance(row, dict) or row.keys() != Detection.__annotations__.keys():
        return False
    box = row["bbox"]
    return (
        type(row["image_id"]) is type(row["category_id"]) is int
        and isinstance(box, list)
        and len(box) == _BOX_NUMBERS
        and all(type(number) in (int, float) and math.isfinite(number) for number in (*box, row["score"]))
    )


WHOLE = Share()
"""The share of a process that evaluates alone."""
