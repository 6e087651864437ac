"""Optuna's SQLite storage read as data: all studies of a file, chunk by chunk of trials.

The tables are those of Optuna 2.0 to 5.0, told apart by their columns and not by the version in
the file, which is the one that created it:

- before 2.4 the one objective is in ``trials.value``, its direction in ``studies.direction`` and
  the intermediate values in ``trial_values``;
- before 3.0 infinities are the largest numbers of 32 bits, and NaN is NULL;
- since 3.0 ``value_type`` and ``intermediate_value_type`` say which values are not finite.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.types import Direction
from recsys_ms.history.readers.formats.optuna_trial import STATUS_OF, Objective, run_of_trial
from recsys_ms.history.readers.formats.plain_values import clean, plain
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate, LoggedRun
from recsys_ms.history.readers.sqlite_file import SqliteFile, has_tables, open_sqlite

#: Tables that only a study file of Optuna has together.
_OWN: Final = {"studies", "trials", "trial_params", "trial_values", "version_info"}
_ATTRIBUTES: Final = {
    "study_user_attributes",
    "study_system_attributes",
    "trial_user_attributes",
    "trial_system_attributes",
}
_SINCE_2_4: Final = {"study_directions", "trial_intermediate_values"}
_SCHEMA: Final = (
    "the schema is not one of Optuna 2.0 to 5.0; upgrade the file with 'optuna storage upgrade', "
    "or save study.trials_dataframe() as Parquet and read that"
)
_DIRECTIONS: Final[Mapping[object, Direction]] = {"MINIMIZE": "min", "MAXIMIZE": "max"}
_METRIC_NAMES: Final = "study:metric_names"
#: Names of distributions, in old and new versions, by the kind of their values.
_DISTRIBUTIONS: Final = {
    "categorical": ("CategoricalDistribution", "categorical"),
    "int": ("IntDistribution", "IntUniformDistribution", "IntLogUniformDistribution", "int"),
    "float": (
        "FloatDistribution",
        "UniformDistribution",
        "LogUniformDistribution",
        "DiscreteUniformDistribution",
        "float",
    ),
}
#: Few, since one trial may have reported thousands of values.
_TRIALS_PER_CHUNK: Final = 250
#: Type of a value that a table without types holds.
_UNTYPED: Final = "UNTYPED"
#: Infinity before 3.0.
_FLOAT32_MAX: Final = 3.4028234663852886e38
_NOT_FINITE: Final = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

_Rows = Mapping[Any, Sequence[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    name: str
    objectives: tuple[Objective, ...]
    more: Mapping[str, Any]


def is_study_file(candidate: Candidate) -> bool:
    """Whether a file is a SQLite storage of Optuna, or was one before it was damaged."""
    return has_tables(candidate, _OWN)


def read_studies(place: Path) -> Iterator[LoggedRun | BadLog]:
    """Read every trial of every study.

    Yields
    ------
    LoggedRun or BadLog
        In the order of trial ids.

    Raises
    ------
    BadLogError
        The file has an unknown schema, is damaged, or is locked.
    """
    with open_sqlite(place, _SCHEMA) as file:
        yield from _StudyFile(place, file).trials()


def _unknown_schema(place: Path, problem: str) -> BadLogError:
    return BadLogError(BadLog(file=place, reason=f"{problem}: {_SCHEMA}"))


class _StudyFile:
    def __init__(self, place: Path, sql: SqliteFile) -> None:
        self._place = place
        self._file = str(place.resolve())
        self._sql = sql
        self._find_layout()
        studies = sql.rows("SELECT study_id, study_name FROM studies")
        self._studies = {study_id: self._study(study_id, name) for study_id, name in studies}

    def trials(self) -> Iterator[LoggedRun | BadLog]:
        """All trials, in the order of their ids, from a few queries a chunk."""
        last = -(1 << 63)
        while True:
            # One transaction a chunk: a trial is seen whole, and a writer waits for one chunk only.
            with self._sql.transaction():
                rows = self._sql.rows(
                    "SELECT trial_id, number, study_id, state, datetime_start, datetime_complete "
                    "FROM trials WHERE trial_id > ? ORDER BY trial_id LIMIT ?",
                    last,
                    _TRIALS_PER_CHUNK,
                )
                chunk = self._chunk(rows) if rows else []
            yield from chunk
            if len(rows) < _TRIALS_PER_CHUNK:
                return
            last = rows[-1][0]

    def _chunk(self, rows: Sequence[tuple[Any, ...]]) -> list[LoggedRun | BadLog]:
        if any(type(row[0]) is not int for row in rows):
            raise _unknown_schema(self._place, "a trial_id is not an integer")
        span = (rows[0][0], rows[-1][0])
        tables = {
            "params": self._by_trial("trial_params", "param_name, param_value, distribution_json"),
            "user_attrs": self._by_trial("trial_user_attributes", "key, value_json"),
            "system_attrs": self._by_trial("trial_system_attributes", "key, value_json"),
            "values": self._by_trial(*self._value_columns),
            "intermediate": self._by_trial(*self._step_columns),
        }
        parts = {name: self._grouped(query, span) for name, query in tables.items()}
        found: list[LoggedRun | BadLog] = []
        for row in rows:
            problems: list[str] = []
            try:
                of_trial = {name: of_table.get(row[0], ()) for name, of_table in parts.items()}
                found.append(self._trial(row, of_trial, problems))
            except ValueError as error:
                problems.append(str(error))
            if problems:
                reason = f"trial_id {row[0]}: {'; '.join(problems)}"
                found.append(BadLog(file=self._place, reason=reason, line=row[0]))
        return found

    def _trial(self, row: tuple[Any, ...], parts: _Rows, problems: list[str]) -> LoggedRun:
        trial_id, number, study_id, state, started, completed = row
        attributes = {
            "params": _params(parts["params"], problems),
            "user_attrs": _attrs(parts["user_attrs"], problems),
            "system_attrs": _attrs(parts["system_attrs"], problems),
        }
        study = self._studies.get(study_id)
        if study is None:
            raise ValueError(f"study_id {study_id!r} is not a study of the file")
        if type(number) is not int:
            raise ValueError(f"number {number!r} is not an integer")
        if state not in STATUS_OF:
            raise ValueError(f"state {state!r} is not one of {', '.join(STATUS_OF)}")
        times = {"datetime_start": started, "datetime_complete": completed}
        return run_of_trial(
            file=self._file,
            study=study.name,
            number=number,
            line=trial_id,
            state=state,
            objectives=study.objectives,
            values={
                study.objectives[at].series: _value(value, kind)
                for at, value, kind in parts["values"]
                if type(at) is int and 0 <= at < len(study.objectives)
            },
            attributes=attributes,
            intermediate=_steps(parts["intermediate"]),
            more={**study.more, **{k: str(time) for k, time in times.items() if time is not None}},
        )

    def _by_trial(self, table: str, columns: str, where: str = "") -> str:
        # The names are constants of this module.
        return f"SELECT trial_id, {columns} FROM {table} WHERE trial_id BETWEEN ? AND ? {where}"  # noqa: S608

    def _grouped(self, query: str, span: tuple[int, int]) -> _Rows:
        found: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
        for trial_id, *cells in self._sql.rows(query, *span):
            found[trial_id].append(tuple(cells))
        return found

    def _find_layout(self) -> None:
        """Find out which of the known schemas the file has."""
        self._one_objective = "value" in self._sql.columns("trials")
        missing = _OWN | _ATTRIBUTES | (set() if self._one_objective else _SINCE_2_4)
        missing -= self._sql.tables()
        if missing:
            raise _unknown_schema(self._place, f"there is no table {min(missing)}")

        values, steps = "trial_values", "trial_intermediate_values"
        untyped = f"'{_UNTYPED}'"
        if self._one_objective:
            self._value_columns = ("trials", f"0, value, {untyped}", "AND value IS NOT NULL")
            self._step_columns = (values, f"step, value, {untyped}", "")
        else:
            kinds = ("value_type", "intermediate_value_type")
            known = self._sql.columns(values) | self._sql.columns(steps)
            kind, step_kind = (name if name in known else untyped for name in kinds)
            self._value_columns = (values, f"objective, value, {kind}", "")
            self._step_columns = (steps, f"step, intermediate_value, {step_kind}", "")

    def _study(self, study_id: object, study_name: object) -> _Study:
        if self._one_objective:
            query = "SELECT direction FROM studies WHERE study_id = ?"
        else:
            query = "SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective"
        directions = [row[0] for row in self._sql.rows(query, study_id)]
        query = "SELECT key, value_json FROM study_{}_attributes WHERE study_id = ?"
        # A broken attribute of a study belongs to no trial: it is skipped.
        user = _attrs(self._sql.rows(query.format("user"), study_id), [])
        system = _attrs(self._sql.rows(query.format("system"), study_id), [])
        names = system.get(_METRIC_NAMES)
        if not isinstance(names, list) or len(names) != len(directions):
            names = [""] * len(directions)
        several = len(directions) > 1
        objectives = []
        for at, (metric, direction) in enumerate(zip(map(str, names), directions, strict=True)):
            end = metric or (str(at) if several else "")
            series = ("values" if several else "value") + (f"_{end}" if end else "")
            way = _DIRECTIONS.get(direction)
            objectives.append(Objective(series=series, name=metric, direction=way))
        name = clean(str(study_name))
        more = {"study": name, "study_user_attrs": user, "study_system_attrs": system}
        return _Study(name=name, objectives=tuple(objectives), more=more)


def _params(rows: Sequence[tuple[Any, ...]], problems: list[str]) -> dict[str, Any]:
    found = {}
    for name, value, text in rows:
        try:
            found[clean(str(name))] = _param(value, text)
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            problems.append(f"parameter {name!r} of the distribution {text!r}: {error}")
    return found


def _param(value: Any, text: Any) -> Any:
    kind, choices = _distribution(text)
    if not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    if kind == "categorical":
        at = int(value)
        if not 0 <= at < len(choices):
            raise ValueError(f"choice {at} of {len(choices)}")
        return choices[at]
    return int(value) if kind == "int" else float(value)


@lru_cache(maxsize=10_000)
def _distribution(text: Any) -> tuple[str, tuple[Any, ...]]:
    """Kind (``categorical``, ``int`` or ``float``) and choices of a distribution's JSON.

    Raises
    ------
    ValueError, TypeError, KeyError
        An unknown distribution.
    """
    form = json.loads(text)
    name = str(form["name"] if "name" in form else form["type"])
    kind = next((kind for kind, names in _DISTRIBUTIONS.items() if name in names), None)
    if kind is None:
        raise ValueError("the distribution is not known")
    if kind != "categorical":
        return kind, ()
    choices = form["attributes"]["choices"] if "name" in form else form["choices"]
    if not isinstance(choices, list):
        raise ValueError("its choices are not a list")
    return kind, tuple(plain(choice) for choice in choices)


def _attrs(rows: Sequence[tuple[Any, ...]], problems: list[str]) -> dict[str, Any]:
    found = {}
    for key, text in rows:
        try:
            found[clean(str(key))] = plain(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            problems.append(f"attribute {key!r} is not JSON: {error}")
    return found


def _value(value: Any, kind: Any) -> float:
    """Value of an objective or a step, of the type in the file.

    Raises
    ------
    ValueError
        Not a number, or of an unknown type.
    """
    if kind in _NOT_FINITE:
        return _NOT_FINITE[kind]
    if kind not in ("FINITE", _UNTYPED):
        raise ValueError(f"the type {kind!r} of a value is not known")
    if value is None and kind == _UNTYPED:
        return math.nan
    if not isinstance(value, (int, float)):
        raise ValueError(f"the value {value!r} is not a number")
    found = float(value)
    if kind == _UNTYPED and math.isclose(abs(found), _FLOAT32_MAX, rel_tol=1e-5):
        return math.copysign(math.inf, found)
    return found


def _steps(rows: Sequence[tuple[Any, ...]]) -> dict[int, float]:
    """Intermediate values by step, in order."""
    found: dict[int, float] = {}
    for step, value, kind in rows:
        if type(step) is not int:
            raise ValueError(f"the step {step!r} of an intermediate value is not an integer")
        found[step] = _value(value, kind)
    return dict(sorted(found.items()))
