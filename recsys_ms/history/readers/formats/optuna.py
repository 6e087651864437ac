"""Optuna: a SQLite study file, or ``study.trials_dataframe()`` saved as CSV or Parquet."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.history.readers.formats.exported import (
    HeaderError,
    TableRow,
    has_columns,
    table_runs,
)
from recsys_ms.history.readers.formats.optuna_study import is_study_file, read_studies
from recsys_ms.history.readers.formats.optuna_trial import STATUS_OF, Objective, run_of_trial
from recsys_ms.history.readers.formats.plain_values import plain, typed
from recsys_ms.history.readers.logged import (
    BadLog,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.number_style import to_number
from recsys_ms.history.readers.sqlite_file import is_sqlite

_GROUPS: Final = ("params", "user_attrs", "system_attrs")
_NESTED: Final = ("value", "values", *_GROUPS)
_TIMES: Final = ("datetime_start", "datetime_complete", "duration")
_OBJECTIVE: Final = re.compile(r"value|values?_.+", re.DOTALL)
_INDEX: Final = re.compile(r"column_\d+|Unnamed: .*|__index_level_\d+__|index")
_COPY: Final = re.compile(r"#\d+$")
_MAX_NUMBER: Final = 1 << 53
#: Columns of a run that a further column of the frame may not hide.
_TAKEN: Final = {*c.RUN_COLUMNS, "number", "state", *_GROUPS}


class Optuna(LogFormat):
    """Trials of Optuna studies; each trial is one run.

    A study file (``sqlite:///study.db``) of Optuna 2.0 to 5.0 is opened read-only, and holds
    everything: names of studies (``{study}``), directions, names of metrics, typed parameters,
    intermediate values (the series ``intermediate``), infinities. A saved frame has neither
    directions nor intermediate values: give ``--set direction=max``. Its columns may also be nested
    (``multi_index=True``).

    - Series are ``value`` of a study with one objective, ``values_0``, ``values_1``, … of several,
      and ``value_<name>``, ``values_<name>`` where the study names its metrics. Without a name the
      metric is empty: give ``--set metric=NAME``. A single objective is the chosen series; of
      several, name one: ``--map value='{values_accuracy}'``.
    - ``COMPLETE`` is finished, ``FAIL`` failed, ``RUNNING`` and ``WAITING`` running. ``PRUNED`` is
      failed with the tag ``reason=pruned``: the trial was stopped early because it looked
      bad, so that its last value is not the outcome of a whole training.
    - Parameters are the hyperparameters; ``{params.NAME}``, ``{user_attrs.NAME}``,
      ``{system_attrs.NAME}`` and ``{study_user_attrs.NAME}`` look inside.
    - Times are local times of an unknown zone (or UTC, since 5.0): they are columns
      (``{datetime_start}``), not fields.
    - The identity is the place, the study's name and the trial's number; the row of a trial in a
      study file is its ``trial_id``.
    """

    name: ClassVar[str] = "optuna"
    wanted: ClassVar[str] = (
        "a SQLite study file, or study.trials_dataframe() saved as CSV or Parquet"
    )

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, if its tables or its columns are those of Optuna."""
        mine = is_study_file(candidate) or has_columns(candidate, _is_frame, "number", "state")
        return candidate.path if mine else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Read the trials of a study file or of a saved frame.

        Raises
        ------
        BadLogError
            The file is neither, is damaged, or has an unknown schema.
        """
        if not files.given(place) and is_sqlite(Candidate(place)):
            yield from read_studies(place)
        else:
            file, seen = str(place.resolve()), set[int]()
            yield from table_runs(place, files, lambda row: _run(file, row, seen), _second_header)


@lru_cache(maxsize=10_000)
def _flat_name(name: str) -> str:
    """A column name as ``trials_dataframe()`` spells it; Parquet holds pairs as their repr."""
    if name[:1] != "(":
        return name
    try:
        pair = ast.literal_eval(name)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return name
    if not isinstance(pair, tuple):
        return name
    return "_".join(str(part) for part in pair if part != "")


def _second_header(names: Sequence[str], first: Sequence[str]) -> list[str] | None:
    """Names of a frame with ``multi_index=True``, whose CSV has two header rows.

    The second ``params`` column comes as ``params#2``. ``None`` if the second row is data: it has
    a number.
    """
    bases = [_COPY.sub("", name) for name in names]
    if len(first) != len(bases) or "number" not in bases or first[bases.index("number")]:
        return None
    pairs = list(zip(bases, first, strict=True))
    if any(cell for base, cell in pairs if base not in _NESTED):
        return None
    return [f"{base}_{cell}" if base in _NESTED and cell else base for base, cell in pairs]


def _is_frame(names: Sequence[str], first: Sequence[str] = ()) -> bool:
    """Whether columns are those of a frame of trials: number, state, an objective and more."""
    flat = _second_header(names, first) or [_flat_name(name) for name in names]
    known = {"number", "state"} <= set(flat) and any(map(_OBJECTIVE.fullmatch, flat))
    return known and any(
        name in _TIMES or name.startswith(tuple(f"{group}_" for group in _GROUPS)) for name in flat
    )


def _objectives(names: Iterable[str]) -> list[Objective]:
    """Objectives by their columns; ``values_0`` has a number where the study has no names."""
    found = []
    for name in names:
        if _OBJECTIVE.fullmatch(name):
            said = name.partition("_")[2]
            plain_number = name.startswith("values_") and said.isdecimal()
            found.append(Objective(series=name, name="" if plain_number else said))
    return found


def _run(file: str, row: TableRow, seen: set[int]) -> LoggedRun:
    """The run of a trial; ``seen`` holds the numbers of the trials before."""
    flat = {name: _flat_name(name) for name in row.names}
    objectives = _objectives(flat.values())
    if not objectives or not {"number", "state"} <= set(flat.values()):
        raise HeaderError(
            "the header is not that of study.trials_dataframe(): expected number, state and value "
            "or values_*"
        )
    cells = {flat[name]: cell for name, cell in row.cells.items()}
    number = to_number(cells.get("number"))
    if number is None or not number.is_integer() or not 0 <= number < _MAX_NUMBER:
        raise ValueError(f"number: got {cells.get('number')!r}, expected the number of a trial")
    state = str(cells.get("state", ""))
    if state not in STATUS_OF:
        raise ValueError(f"state: {state!r} is not one of {', '.join(STATUS_OF)}")
    if int(number) in seen:
        raise ValueError(
            f"number: {int(number)} is already the number of another trial; keep the frames of "
            "several studies in separate files"
        )
    values: dict[str, float] = {}
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    more: dict[str, Any] = {}
    for name, cell in cells.items():
        group = next((each for each in _GROUPS if name.startswith(f"{each}_")), None)
        if group is not None:
            value = typed(cell)
            # A frame holds NaN for a parameter that only other trials have.
            if not (isinstance(value, float) and isnan(value)):
                groups[group][name.removeprefix(f"{group}_")] = value
        elif _OBJECTIVE.fullmatch(name):
            objective = to_number(cell)
            if objective is None:
                raise ValueError(f"{name}: {cell!r} is not a number")
            # pandas writes a missing value and a NaN alike; Optuna does not allow a NaN.
            if not isnan(objective):
                values[name] = objective
        elif name in _TIMES:
            more[name] = plain(cell)
        elif name not in _TAKEN and not _INDEX.fullmatch(name):
            more[name] = typed(cell)
    seen.add(int(number))
    return run_of_trial(
        file=file,
        number=int(number),
        line=row.line,
        state=state,
        objectives=objectives,
        values=values,
        attributes=groups,
        more=more,
    )
