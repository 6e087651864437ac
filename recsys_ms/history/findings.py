"""What a person should look at in a history: one list for ingest, doctor, night and report."""

from collections.abc import Sequence
from typing import Final

from recsys_ms.history.diagnosis import pairing_problem
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox_files import unread_entries
from recsys_ms.history.plausibility import JUDGED_COLUMNS, implausible

#: Findings that a page or a terminal shows; doctor --json has all.
_N_SHOWN: Final = 10


def findings_of(history: History) -> tuple[str, ...]:
    """Everything about the runs of a history that should be looked at, one sentence each.

    Runs that are named in one are kept, and rankers do not learn from them. Entries of the inbox
    that no ingest reads are one finding.
    """
    found: list[str] = []
    if problem := pairing_problem(history):
        found.append(f"{history.path}: {problem}")
    if unread := unread_entries(history.inbox):
        found.append(f"entries of the inbox that no ingest reads: {len(unread)}, first {unread[0]}")
    found += [each.text for each in implausible(history.runs(JUDGED_COLUMNS))]
    return tuple(found)


def first_of(findings: Sequence[str]) -> tuple[str, ...]:
    """The first findings, and how many more there are."""
    more = len(findings) - _N_SHOWN
    told = (f"{more} more findings of this kind: recsys-ms doctor --json",) if more > 0 else ()
    return (*findings[:_N_SHOWN], *told)
