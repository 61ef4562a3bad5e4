"""Where a bundle comes from: an entry in ``bundle.json`` for each step that made it, also shown in the model card."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from kubeyolo import __version__
from kubeyolo.processes import IMAGE, RUN

_RUNS = ("KUBEYOLO_RUN_ID", RUN, "GITHUB_RUN_ID", "CI_PIPELINE_ID")
_USERS = ("KUBEYOLO_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")
_MOST_CHARACTERS = 300


class ProvenanceEntry(BaseModel):
    """What is known about one step in the making of a bundle; empty texts are unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    time: str = Field(description="UTC, ISO 8601, to the second.")
    inputs: dict[str, str] = Field({}, description="Digest of each input by its name: sha256, 64 digits.")
    code: str = Field("", description="Digest of the code that the result depends on, 16 digits.")
    version: str = Field("", description="Version of kubeyolo.")
    image: str = Field("", description="Reference of the container image.")
    run: str = Field("", description="Name of the run, or its id on Kubeflow or in a CI system.")
    user: str = ""


def made_now(step: str, inputs: Mapping[str, str], code: str = "") -> ProvenanceEntry:
    """Return the entry of a step that this process is finishing.

    Args:
        step: Name of the step or command.
        inputs: Digest of each input by its name; empty digests are left out.
        code: Digest of the code that the result depends on.
    """
    return ProvenanceEntry(
        step=step,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs={name: digest for name, digest in inputs.items() if digest},
        code=code,
        version=__version__,
        image=_first_of((IMAGE,)),
        run=_first_of(_RUNS),
        user=_user(),
    )


def _first_of(variables: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in variables if os.environ.get(name)), "")[:_MOST_CHARACTERS]


def _user() -> str:
    """Return the account that a CI system names, else the login name; empty if ``KUBEYOLO_USER`` is empty."""
    if "KUBEYOLO_USER" in os.environ or any(os.environ.get(name) for name in _USERS):
        return "" if os.environ.get("KUBEYOLO_USER") == "" else _first_of(_USERS)
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
