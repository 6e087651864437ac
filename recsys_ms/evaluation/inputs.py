"""What a back-test works on and where, in every form that a person would try."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError, kind_of
from recsys_ms.core.executor import EXECUTORS, Executor, SerialExecutor, make_executor
from recsys_ms.core.types import FloatArray
from recsys_ms.evaluation.folds import Protocol
from recsys_ms.evaluation.registry import PROTOCOL_NAMES, make_protocol
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.interactions import Interactions

if TYPE_CHECKING:
    from recsys_ms.history.history import History

Triplet: TypeAlias = tuple[str, str, float]
#: A history in any of its forms.
HistoryLike: TypeAlias = "History | Interactions | pd.DataFrame | Iterable[Triplet]"

_TRIPLET: Final = (c.TASK_ID, c.MODEL_ID, c.VALUE)
_WANTED: Final = (
    "wanted a History, Interactions, a DataFrame of runs or of triplets "
    f"({', '.join(_TRIPLET)}), or a list of such triplets"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadHistory:
    """A history as a back-test needs it.

    Attributes
    ----------
    interactions : Interactions
    runs : DataFrame or None
        The runs themselves, where there were some.
    version : int or None
        Of a :class:`History`.
    """

    interactions: Interactions
    runs: pd.DataFrame | None = None
    version: int | None = None


def read_history(history: HistoryLike) -> ReadHistory:
    """Read a history given in any form.

    Parameters
    ----------
    history : History, Interactions, DataFrame or iterable of triplets
        A frame needs the columns ``task_id``, ``model_id`` and ``value``. Without ``metric`` all
        values are of one metric; without ``direction`` higher is better; without ``status`` every
        run is finished. Several values of one task and model count as runs: the best is taken.

    Raises
    ------
    UsageError
        Something that is no history.
    DataError
        A history that cannot be used: a column or a number is missing, or two metrics in one task.
    """
    given: object = history
    if isinstance(given, Interactions):
        return ReadHistory(interactions=given)
    # Loaded here: a process that computes folds needs no Delta table.
    from recsys_ms.history.history import History

    if isinstance(given, History):
        runs = given.runs()
        return ReadHistory(interactions=_reduced(runs), runs=runs, version=given.version)
    if isinstance(given, pd.DataFrame):
        runs = _completed(given)
        return ReadHistory(interactions=_reduced(runs), runs=runs)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | dict | pd.Series):
        return ReadHistory(interactions=_reduced(_completed(_of_triplets(given))))
    hint = "; open a folder with History.open(path)" if isinstance(given, str) else ""
    raise UsageError(f"the history is {kind_of(given)}; {_WANTED}{hint}")


def read_protocol(protocol: str | Protocol, runs: pd.DataFrame | None) -> Protocol:
    """A protocol, or the one of that name with its default options.

    Raises
    ------
    UsageError
        No such name, something else, or ``temporal`` where there are no dated runs.
    """
    given: object = protocol
    if isinstance(given, Protocol):
        return given
    if not isinstance(given, str):
        made = " without calling it" if isinstance(given, type) else ""
        raise UsageError(
            f"protocol is {kind_of(given)}{made}; wanted a Protocol such as LeaveOneTaskOut(), or "
            f"one of {', '.join(PROTOCOL_NAMES)}"
        )
    if given == Temporal.name and (runs is None or c.FINISHED_AT not in runs):
        raise UsageError(
            f"protocol 'temporal' needs runs with {c.FINISHED_AT}; give a History or a DataFrame "
            "that has it, in place of interactions or triplets"
        )
    return make_protocol(given, runs=runs)


def read_catalog(catalog: Catalog | None) -> Catalog | None:
    """The catalog as it is.

    Raises
    ------
    UsageError
        Something else.
    """
    given: object = catalog
    if given is None or isinstance(given, Catalog):
        return catalog
    raise UsageError(
        f"catalog is {kind_of(given)}; wanted a Catalog, such as Catalog.from_cards(models=..., "
        "tasks=...), or None"
    )


def read_executor(executor: Executor | str | None) -> Executor:
    """An executor, or the one of that spelling; the serial one where nothing is given.

    Raises
    ------
    UsageError
        No such spelling, or something that runs no jobs.
    """
    given: object = executor
    if executor is None:
        return SerialExecutor()
    if isinstance(executor, str):
        return make_executor(executor)
    if isinstance(given, type) or not callable(getattr(given, "map", None)):
        raise UsageError(f"executor is {kind_of(given)}; wanted an Executor, or {EXECUTORS}")
    return executor


def _reduced(runs: pd.DataFrame) -> Interactions:
    try:
        return Interactions.from_runs(runs)
    except DataError as error:
        raise DataError(
            f"{error} (metric and on_two_metrics are arguments of Interactions.from_runs: give "
            "what it returns as the history)"
        ) from error


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs from a frame that has three columns at least."""
    if set(frame.index.names) & set(_TRIPLET):
        frame = frame.reset_index()
    missing = [name for name in _TRIPLET if name not in frame]
    if missing:
        there = ", ".join(map(str, frame.columns)) or "none"
        raise DataError(
            f"the history's frame lacks the column {missing[0]!r}; wanted {', '.join(_TRIPLET)}; "
            f"there are {there}"
        )
    if c.METRIC in frame and c.DIRECTION not in frame:
        raise DataError(
            f"the history's frame has {c.METRIC!r} and no {c.DIRECTION!r}; add it: 'max' where "
            "higher is better, 'min' where lower"
        )
    runs = frame.reset_index(drop=True)
    for name in (c.TASK_ID, c.MODEL_ID):
        unknown = runs[name].isna()
        if unknown.any():
            raise DataError(
                f"the history's frame has no {name!r} in row {int(np.argmax(unknown))}; wanted "
                "an id in each"
            )
        runs[name] = runs[name].astype(str)
    runs[c.VALUE] = _numbers(runs[c.VALUE])
    for name, value in ((c.METRIC, "score"), (c.DIRECTION, "max"), (c.STATUS, "finished")):
        if name not in runs:
            runs[name] = value
    used = runs[(runs[c.STATUS] == "finished") & runs[c.VALUE].notna()]
    infinite = used.index[np.isinf(used[c.VALUE])]
    if infinite.size:
        raise DataError(
            f"the history's value in row {infinite[0]} is infinite; wanted a finite number, or NaN "
            "where there is none"
        )
    strange = used.loc[~used[c.DIRECTION].isin(["max", "min"]), c.DIRECTION]
    if not strange.empty:
        raise DataError(
            f"the history's frame has the direction {strange.iloc[0]!r}; wanted 'max' or 'min'"
        )
    return runs


def _numbers(values: "pd.Series[Any]") -> FloatArray:
    try:
        found: FloatArray = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the history's values are no numbers ({error}); wanted one number each, NaN where "
            "there is none"
        ) from error
    return found


def _of_triplets(rows: Iterable[object]) -> pd.DataFrame:
    found = []
    for at, row in enumerate(rows):
        if isinstance(row, str | bytes | dict) or not isinstance(row, Iterable):
            raise DataError(f"row {at} of the history is {kind_of(row)}; wanted {_shape()}")
        parts = tuple(row)
        if len(parts) != len(_TRIPLET):
            raise DataError(f"row {at} of the history has {len(parts)} parts; wanted {_shape()}")
        found.append(parts)
    if not found:
        raise DataError(f"the history has no row; {_WANTED}")
    return pd.DataFrame(found, columns=list(_TRIPLET))


def _shape() -> str:
    return f"({', '.join(_TRIPLET)})"
