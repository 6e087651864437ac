"""Protocols by the name that the command line knows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import pandas as pd

from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.folds import Protocol
from recsys_ms.evaluation.protocols import (
    LeaveOneTaskOut,
    Setting1,
    Setting2,
    Setting3,
    UnseenModels,
)
from recsys_ms.evaluation.temporal import Temporal

PROTOCOL_NAMES: Final = (
    LeaveOneTaskOut.name,
    UnseenModels.name,
    Setting1.name,
    Setting2.name,
    Setting3.name,
    Temporal.name,
)


def make_protocol(
    name: str,
    *,
    n_observed: int | None = None,
    max_tasks: int | None = None,
    history_fraction: float | None = None,
    n_repeats: int | None = None,
    group_by: Literal["family"] | None = None,
    test_fraction: float | None = None,
    train_fraction: float | None = None,
    runs: pd.DataFrame | None = None,
    before: Sequence[datetime | str] | None = None,
    fractions: Sequence[float] | None = None,
    undated: Literal["error", "leave-out"] | None = None,
) -> Protocol:
    """Make a protocol from its name and the options that apply to it; ``None`` is its default.

    Parameters
    ----------
    name : str
        One of :data:`PROTOCOL_NAMES`; ``setting-1`` is read as ``settings-1``.
    n_observed, max_tasks, history_fraction : optional
        leave-one-task-out: runs revealed, tasks held out at most, share of the history trained on.
    n_repeats, test_fraction, group_by : optional
        unseen-models.
    n_repeats, train_fraction : optional
        settings-1 and settings-3.
    runs, before, fractions, undated : optional
        temporal; ``runs`` is required there and ignored elsewhere.

    Raises
    ------
    UsageError
        Unknown name, or an option that the protocol does not have.
    """
    wanted = name.replace("setting-", "settings-")
    kinds: dict[str, tuple[type[Protocol], tuple[str, ...]]] = {
        LeaveOneTaskOut.name: (
            LeaveOneTaskOut,
            ("n_observed", "max_tasks", "history_fraction"),
        ),
        UnseenModels.name: (UnseenModels, ("n_repeats", "group_by", "test_fraction")),
        Setting1.name: (Setting1, ("n_repeats", "train_fraction")),
        Setting2.name: (Setting2, ()),
        Setting3.name: (Setting3, ("n_repeats", "train_fraction")),
        Temporal.name: (Temporal, ("before", "fractions", "undated")),
    }
    if wanted not in kinds:
        raise UsageError(f"protocol {name!r} is unknown; choose one of {', '.join(PROTOCOL_NAMES)}")
    kind, allowed = kinds[wanted]
    options: dict[str, object] = {
        "n_observed": n_observed,
        "max_tasks": max_tasks,
        "history_fraction": history_fraction,
        "n_repeats": n_repeats,
        "group_by": group_by,
        "test_fraction": test_fraction,
        "train_fraction": train_fraction,
        "before": before,
        "fractions": fractions,
        "undated": undated,
    }
    given = {key: value for key, value in options.items() if value is not None}
    foreign = sorted(set(given) - set(allowed))
    if foreign:
        raise UsageError(
            f"{wanted} has no option {foreign[0]!r}; it takes "
            f"{', '.join(allowed) if allowed else 'none'}"
        )
    if kind is Temporal:
        if runs is None:
            raise UsageError("temporal splits runs by time: pass runs=history.runs()")
        given["runs"] = runs
    return kind(**given)
