"""``study.trials_dataframe()`` saved as CSV or Parquet, read back as trials."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.history.readers.formats.exported import TableRow, table_rows
from recsys_ms.history.readers.formats.optuna_trial import STATUS_OF, Objective, run_of_trial
from recsys_ms.history.readers.formats.plain_values import plain, typed
from recsys_ms.history.readers.logged import BadLog, BadLogError, LogFiles, LoggedRun
from recsys_ms.history.readers.templates import to_number

_GROUPS: Final = ("params", "user_attrs", "system_attrs")
_NESTED: Final = ("value", "values", *_GROUPS)
_TIMES: Final = ("datetime_start", "datetime_complete", "duration")
_OBJECTIVE: Final = re.compile(r"value|values?_.+", re.DOTALL)
_INDEX: Final = re.compile(r"column_\d+|Unnamed: .*|__index_level_\d+__|index")
_COPY: Final = re.compile(r"#\d+$")
_MAX_NUMBER: Final = 1 << 53
#: Columns of a run that a further column of the frame may not hide.
_TAKEN: Final = {*c.RUN_COLUMNS, "number", "state", *_GROUPS}


def flat_names(names: Sequence[str]) -> list[str]:
    """Column names as ``trials_dataframe()`` spells them; Parquet holds pairs as their repr."""
    return [_flat_name(name) for name in names]


def _flat_name(name: str) -> str:
    if name[:1] != "(":
        return name
    try:
        pair = ast.literal_eval(name)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return name
    if not isinstance(pair, tuple):
        return name
    return "_".join(str(part) for part in pair if part != "")


def second_header(names: Sequence[str], first: Sequence[str]) -> list[str] | None:
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


def is_frame(names: Sequence[str], first: Sequence[str] = ()) -> bool:
    """Whether columns are those of a frame of trials: number, state, an objective and more."""
    flat = second_header(names, first) or flat_names(names)
    known = {"number", "state"} <= set(flat) and any(map(_OBJECTIVE.fullmatch, flat))
    return known and any(
        name in _TIMES or name.startswith(tuple(f"{group}_" for group in _GROUPS)) for name in flat
    )


def read_frame(place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
    """Read the trials of a saved frame; a row that is not a trial is bad, the others are kept.

    Raises
    ------
    BadLogError
        Not such a frame, or one that is cut off.
    """
    file = str(place.resolve())
    seen: set[int] = set()
    read_by: Sequence[str] = ()
    flat: Mapping[str, str] = {}
    objectives: list[Objective] = []
    for row in table_rows(place, files, second_header):
        if isinstance(row, BadLog):
            yield row
            continue
        if row.names is not read_by:
            read_by = row.names
            flat = dict(zip(read_by, flat_names(read_by), strict=True))
            objectives = _objectives(flat.values())
            if not objectives or not {"number", "state"} <= set(flat.values()):
                reason = (
                    "the header is not that of study.trials_dataframe(): expected number, state "
                    "and value or values_*"
                )
                raise BadLogError(BadLog(file=place, reason=reason, raw=row.raw, line=row.line))
        cells = {flat[name]: cell for name, cell in row.cells.items()}
        try:
            run = _run(file, row, cells, seen, objectives)
        except ValueError as error:
            yield BadLog(file=place, reason=str(error), raw=row.raw, line=row.line)
            continue
        yield run


def _objectives(names: Iterable[str]) -> list[Objective]:
    """Objectives by their columns; ``values_0`` has a number where the study has no names."""
    found = []
    for name in names:
        if _OBJECTIVE.fullmatch(name):
            said = name.partition("_")[2]
            plain_number = name.startswith("values_") and said.isdecimal()
            found.append(Objective(series=name, name="" if plain_number else said))
    return found


def _run(
    file: str,
    row: TableRow,
    cells: Mapping[str, Any],
    seen: set[int],
    objectives: Sequence[Objective],
) -> LoggedRun:
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
