"""Reads a history given in any common form (frame, mapping, triplets, …) as one frame of runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
import pandas as pd

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError, kind_of

if TYPE_CHECKING:
    from recsys_ms.history.interactions import Interactions

Triplet: TypeAlias = tuple[str, str, float]


@runtime_checkable
class RunTable(Protocol):
    """What is needed of a table of runs; :class:`recsys_ms.History` is one."""

    @property
    def version(self) -> int:
        """Version of the table."""
        ...

    def runs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The latest state of every run."""
        ...


#: Runs in any form that :func:`as_runs` reads.
RunsLike: TypeAlias = (
    "RunTable | pd.DataFrame | pd.Series[Any] | Mapping[Any, Any] | Iterable[Triplet]"
)
#: A history in any form.
HistoryLike: TypeAlias = "Interactions | RunsLike"

_TRIPLET: Final = (c.TASK_ID, c.MODEL_ID, c.VALUE)
_SHAPE: Final = f"({', '.join(_TRIPLET)})"
_WANTED: Final = (
    "expected a History, Interactions, a DataFrame of runs or of triplets "
    f"{_SHAPE}, one with a row a task and a column a model, a Series by task and model, "
    "{task: {model: value}}, or a list of triplets"
)


def is_run_table(given: object) -> TypeGuard[RunTable]:
    """Whether it is a table of runs that has a version."""
    return not isinstance(given, pd.DataFrame | pd.Series | type) and isinstance(given, RunTable)


def as_runs(given: RunsLike, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read runs that are given in any form.

    Parameters
    ----------
    given : History, DataFrame, Series, mapping, or iterable of triplets
        A frame has the columns ``task_id``, ``model_id`` and ``value``. Without ``metric`` all
        values are of one metric; without ``direction`` higher is better; without ``status`` every
        run is finished. One that has none of these columns and whose rows are named holds a task a
        row and a model a column, or the other way round where its axes are named so, and NaN where
        there is no run. A Series is indexed by task and model; a mapping is ``{task: {model:
        value}}`` or ``{(task, model): value}``.
    columns : sequence of str, optional
        What to read of a table of runs.

    Returns
    -------
    DataFrame
        One row a run: at least ``task_id, model_id, metric, direction, value, status``.

    Raises
    ------
    UsageError
        The form is unknown.
    DataError
        Missing or invalid columns, ids or numbers.
    """
    told: object = given
    if is_run_table(told):
        return told.runs(columns)
    if isinstance(told, pd.DataFrame):
        return _completed(_of_wide(told) if _is_wide(told) else told)
    if isinstance(told, pd.Series):
        return _completed(_of_series(told))
    if isinstance(told, Mapping):
        return _completed(_of_triplets(_entries(told)))
    if isinstance(told, Iterable) and not isinstance(told, str | bytes):
        return _completed(_of_triplets(told))
    hint = "; open a folder with History.open(path)" if isinstance(told, str) else ""
    raise UsageError(f"the history is {kind_of(told)}; {_WANTED}{hint}")


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs from a frame that has three columns at least."""
    if set(frame.index.names) & set(_TRIPLET):
        frame = frame.reset_index()
    missing = [name for name in _TRIPLET if name not in frame]
    if missing:
        there = ", ".join(map(str, frame.columns)) or "none"
        raise DataError(
            f"the history's frame has no column {missing[0]!r}; expected {', '.join(_TRIPLET)}, "
            f"got {there}"
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
                f"the history's frame has no {name!r} in row {int(np.argmax(unknown))}; expected "
                "an id in each"
            )
        runs[name] = runs[name].astype(str)
    try:
        numbers = pd.to_numeric(runs[c.VALUE]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the history's values are not numbers ({error}); expected one number each, NaN where "
            "there is none"
        ) from error
    runs[c.VALUE] = numbers
    for name, value in ((c.METRIC, "score"), (c.DIRECTION, "max"), (c.STATUS, "finished")):
        if name not in runs:
            runs[name] = value
    used = runs[(runs[c.STATUS] == "finished") & runs[c.VALUE].notna()]
    infinite = used.index[np.isinf(used[c.VALUE])]
    if infinite.size:
        raise DataError(
            f"the history's value in row {infinite[0]} is infinite; expected a finite number, or "
            "NaN where there is none"
        )
    strange = used.loc[~used[c.DIRECTION].isin(["max", "min"]), c.DIRECTION]
    if not strange.empty:
        raise DataError(
            f"the history's frame has the direction {strange.iloc[0]!r}; expected 'max' or 'min'"
        )
    return runs


def _frame(tasks: Iterable[object], models: Iterable[object], values: object) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(_TRIPLET, (list(tasks), list(models), values), strict=True)))


def _is_wide(frame: pd.DataFrame) -> bool:
    """Whether rows and columns are tasks and models; rows that are only numbered are runs."""
    axes = (frame.index, frame.columns)
    return (
        not any(isinstance(axis, pd.RangeIndex | pd.MultiIndex) for axis in axes)
        and not set(_TRIPLET) & set(frame.columns)
        and not frame.empty
        and all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes)
    )


def _of_wide(frame: pd.DataFrame) -> pd.DataFrame:
    if _is_by_model(frame.index.name, frame.columns.name):
        frame = frame.T
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    task, model = np.nonzero(~np.isnan(values))
    return _frame(frame.index[task], frame.columns[model], values[task, model])


def _of_series(values: "pd.Series[Any]") -> pd.DataFrame:
    index = values.index
    if index.nlevels != 2:
        raise UsageError(
            f"the history is {kind_of(values)} with an index of {index.nlevels} level; {_WANTED}"
        )
    at = (1, 0) if _is_by_model(*index.names) else (0, 1)
    tasks, models = (index.get_level_values(level) for level in at)
    return _frame(tasks, models, values.to_numpy())


def _is_by_model(first: object, second: object) -> bool:
    """Whether the first of two axes is named as that of models, or the second as that of tasks."""
    return first == c.MODEL_ID or second == c.TASK_ID


def _entries(given: Mapping[Any, Any]) -> Iterator[tuple[object, ...]]:
    for key, told in given.items():
        if isinstance(told, Mapping | pd.Series):
            yield from ((key, model, value) for model, value in told.items())
        elif isinstance(key, tuple) and len(key) == 2:
            yield (*key, told)
        else:
            raise DataError(
                f"the history has {kind_of(told)} for {key!r}; expected values by model id, such "
                "as {task: {model: value}}"
            )


def _of_triplets(rows: Iterable[object]) -> pd.DataFrame:
    found = []
    for at, row in enumerate(rows):
        if isinstance(row, str | bytes | dict) or not isinstance(row, Iterable):
            raise DataError(f"row {at} of the history is {kind_of(row)}; expected {_SHAPE}")
        parts = tuple(row)
        if len(parts) != len(_TRIPLET):
            raise DataError(f"row {at} of the history has {len(parts)} parts; expected {_SHAPE}")
        found.append(parts)
    if not found:
        raise DataError(f"the history has no row; {_WANTED}")
    return pd.DataFrame(found, columns=list(_TRIPLET))
