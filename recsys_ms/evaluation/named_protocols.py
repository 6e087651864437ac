"""Protocols by the name that the command line uses."""

from dataclasses import fields
from typing import Any, Final

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

_PROTOCOLS: Final[dict[str, type[Protocol]]] = {
    kind.name: kind
    for kind in (LeaveOneTaskOut, UnseenModels, Setting1, Setting2, Setting3, Temporal)
}
PROTOCOL_NAMES: Final = tuple(_PROTOCOLS)


def make_protocol(name: str, *, runs: pd.DataFrame | None = None, **options: Any) -> Protocol:
    """Make a protocol from its name and the options that apply to it.

    Parameters
    ----------
    name : str
        One of :data:`PROTOCOL_NAMES`; ``setting-1`` is read as ``settings-1``.
    runs : DataFrame, optional
        Required by temporal, ignored by the others.
    **options : object
        Fields of the protocol's class; ``None`` is the default. leave-one-task-out:
        ``n_observed``, ``max_tasks``, ``history_fraction``. unseen-models: ``n_repeats``,
        ``test_fraction``, ``group_by``. settings-1 and settings-3: ``n_repeats``,
        ``train_fraction``. temporal: ``before``, ``fractions``, ``undated``.

    Raises
    ------
    UsageError
        Unknown name, or an option that the protocol does not have.
    """
    wanted = name.replace("setting-", "settings-")
    if wanted not in _PROTOCOLS:
        raise UsageError(f"protocol {name!r} is unknown; choose one of {', '.join(PROTOCOL_NAMES)}")
    kind = _PROTOCOLS[wanted]
    given = {key: value for key, value in options.items() if value is not None}
    allowed = [own.name for own in fields(kind) if own.name != "runs"]
    if foreign := sorted(set(given) - set(allowed)):
        raise UsageError(
            f"{wanted} has no option {foreign[0]!r}; its options are {', '.join(allowed) or 'none'}"
        )
    if kind is Temporal:
        if runs is None:
            raise UsageError("temporal splits runs by time: pass runs=history.runs()")
        given["runs"] = runs
    return kind(**given)
