"""Counts the findings of a data set: corrected faults, warnings, and faults for which the data set is refused.

:data:`KINDS` lists each kind once, with its default action. ``data.findings`` of the configuration changes the action
of individual kinds; ``data.strict`` refuses all kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from kubeyolo.data.finding_kinds import KINDS, Action
from kubeyolo.data.raw import RawFinding
from kubeyolo.errors import InputError, suggest

if TYPE_CHECKING:
    from kubeyolo.arrays import Int64Array

_EXPLAINED_BY_EXAMPLE = frozenset({"image_missing", "image_damaged", "size_differs", "split_left_out"})
"""Kinds whose first case already describes what is wrong, so the error message does not repeat it."""


class Finding(BaseModel):
    """A finding as the manifest of a data set stores it.

    Attributes:
        code: The kind, a key of :data:`KINDS`.
        action: The action that was taken.
        count: The number of cases.
        first: The first case: file, entry, value.
        note: Details about all cases, such as a range of values; may be empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    action: Action
    count: int = Field(ge=1)
    first: str
    note: str = ""

    @property
    def about(self) -> str:
        """What is wrong, in the plural."""
        return KINDS[self.code].about if self.code in KINDS else self.code.replace("_", " ")

    @property
    def done(self) -> str:
        """What was done about the finding."""
        if self.code not in KINDS:
            return self.action
        kind = KINDS[self.code]
        return "kept as they are" if self.action == "warn" and "mend" in kind.actions else kind.done

    @property
    def remedy(self) -> str:
        """What the user can do about the finding."""
        return KINDS[self.code].advice(self.action) if self.code in KINDS else ""

    def words(self) -> str:
        """Return the finding as one line, with its first case and its code."""
        return f"{self.brief()}; first: {self.first} [{self.code}]"

    def brief(self) -> str:
        """Return the finding as one line without its first case."""
        note = f" ({self.note})" if self.note else ""
        return f"{self.about}: {self.count:,}{note}; {self.done}"

    def facts(self) -> dict[str, Any]:
        """Return the finding as JSON values, with the texts of its kind, for records and summaries."""
        return {**self.model_dump(mode="json"), "about": self.about, "done": self.done, "remedy": self.remedy}


class Findings:
    """Collects the findings of a data set, and refuses the data set if the action of a finding is ``refuse``.

    Findings of the same kind are added up; the first case is kept as the example.
    """

    def __init__(self, actions: Mapping[str, str] = MappingProxyType({}), strict: bool = False) -> None:
        """Take the configured actions by code, which replace the default actions; ``strict`` refuses all findings."""
        check_actions(actions)
        self._actions = cast(dict[str, Action], dict(actions))
        self._strict = strict
        self._found: dict[str, Finding] = {}

    def action(self, code: str) -> Action:
        """Return the action for findings of a kind."""
        if self._strict:
            return "refuse"
        return self._actions.get(code, KINDS[code].actions[0])

    def add(self, code: str, first: str, count: int = 1, note: str = "") -> None:
        """Add ``count`` cases of a kind; a count of 0 changes nothing."""
        if count <= 0:
            return
        before = self._found.get(code)
        if before is None:
            self._found[code] = Finding(code=code, action=self.action(code), count=count, first=first, note=note)
        else:
            update = {"count": before.count + count, "note": before.note or note}
            self._found[code] = before.model_copy(update=update)

    def add_cases(
        self, code: str, cases: Sequence[int] | Int64Array, describe: Callable[[int], str], note: str = ""
    ) -> None:
        """Add cases of a kind by their positions in a table; ``describe`` returns the text for the first case."""
        if len(cases):
            self.add(code, describe(int(cases[0])), len(cases), note)

    def empty_copy(self) -> Findings:
        """Return an empty collector with the same actions."""
        return Findings(self._actions, self._strict)

    def extend(self, others: Iterable[Finding | RawFinding]) -> None:
        """Add the findings of another collector or of a reader."""
        for other in others:
            self.add(other.code, other.first, other.count, other.note)

    def all(self) -> tuple[Finding, ...]:
        """Return the findings in the order of their kinds."""
        return tuple(self._found[code] for code in KINDS if code in self._found)

    def refused(self) -> tuple[Finding, ...]:
        """Return the findings whose action is to refuse the data set."""
        return tuple(finding for finding in self.all() if finding.action == "refuse")

    def check(self) -> None:
        """Raise an error if there are findings whose action is to refuse the data set.

        Raises:
            InputError: There are such findings; the message has the first finding, its number of cases, and the other
                refused kinds.
        """
        refused = self.refused()
        if not refused:
            return
        first = refused[0]
        more = f" (and {first.count - 1:,} more)" if first.count > 1 else ""
        about = "" if first.code in _EXPLAINED_BY_EXAMPLE else f": {first.about}"
        note = f", {first.note}" if first.note else ""
        others = [f"{other.about}: {other.count:,} [{other.code}]" for other in refused[1:]]
        also = f"; also refused: {', '.join(others)}" if others else ""
        raise InputError(f"{first.first}{more}{about}{note}; {first.remedy} [{first.code}]{also}")


def check_actions(actions: Mapping[str, str]) -> None:
    """Refuse codes and actions that do not exist.

    Raises:
        InputError: A code or action does not exist; the message suggests a code or lists the allowed actions.
    """
    for code, action in actions.items():
        if code not in KINDS:
            raise InputError(f"data.findings: unknown code {code!r}{suggest(code, KINDS) or '; see docs/data.md'}")
        if action not in KINDS[code].actions:
            possible = " or ".join(KINDS[code].actions)
            raise InputError(f"data.findings.{code} = {action!r}: use {possible}")
