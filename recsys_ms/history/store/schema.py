"""Runs as Arrow tables: their schema, and the rules of ``history.run`` on whole columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.known_metrics import (
    accepted,
    direction_of,
    direction_problem,
    is_possible,
    range_problem,
)
from recsys_ms.core.types import BoolArray, IntArray, Unit
from recsys_ms.history.run import (
    JSON_COLUMNS,
    RULES,
    FieldKind,
    Rule,
    Run,
    canonical_json,
    check_field,
    value_problem,
)
from recsys_ms.history.store.identity import make_run_ids

_TYPES: Final[Mapping[FieldKind, pa.DataType]] = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "time": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
    "tags": pa.string(),
}
#: Schema of a table of runs: text but for the numbers and the times (UTC, microseconds).
RUN_SCHEMA: Final = pa.schema([pa.field(name, _TYPES[rule.kind]) for name, rule in RULES.items()])
#: Texts of numbers that Arrow and Python read alike; all others are read by Python.
_PLAIN_NUMBER: Final[Mapping[FieldKind, str]] = {
    "number": r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$",
    "integer": r"^-?\d{1,18}$",
}
_UNITS: Final[tuple[Unit | None, ...]] = (None, *get_args(Unit))
#: What a column that is not given holds, where that is not null.
_DEFAULTS: Final = {c.STATUS: "finished", **dict.fromkeys(JSON_COLUMNS, "{}")}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltRuns:
    """Columns turned into runs: the valid rows, in order, with :data:`RUN_SCHEMA`."""

    runs: pa.Table
    #: Position of each run in the input, (n_runs,).
    rows: IntArray
    #: What is wrong with each of the other rows, by position.
    problems: Mapping[int, str]


def build_runs(
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    n_rows: int,
    *,
    units: Sequence[Unit | None] | None = None,
) -> BuiltRuns:
    """Check loose columns and build a table of runs; every row becomes a run or a problem.

    Every way into the history comes through here, so here is the gate for values: one outside the
    range of its metric, and a direction that the metric cannot have, are problems. A direction that
    is not given is that of the metric, where it is known. ``units`` says by row what the values
    are; percentages become fractions (:func:`recsys_ms.core.known_metrics.accepted`).

    Text is read as numbers and ISO 8601 times where the schema wants those; blank text counts as
    unknown. A column that is not given is unknown everywhere, except ``status``, which is then
    ``finished``, and ``run_id``, which is :func:`recsys_ms.history.run.make_run_id` wherever it is
    unknown. ``hyperparameters`` and ``tags`` are JSON text. ``DataError`` for an unknown column, or
    one that does not have ``n_rows``.
    """
    for name, column in columns.items():
        if name not in RULES:
            raise DataError(f"unknown column {name!r}; columns of runs are {', '.join(RULES)}")
        if len(column) != n_rows:
            raise DataError(f"column {name!r} has {len(column)} rows, expected {n_rows}")
    built: dict[str, pa.Array] = {}
    without_value: list[int] = []
    reasons: dict[int, list[str]] = {}
    for name, rule in RULES.items():
        if name not in columns and (name in _DEFAULTS or not rule.required):
            built[name] = pa.repeat(pa.scalar(_DEFAULTS.get(name), _TYPES[rule.kind]), n_rows)
            continue
        given = _flat(columns[name]) if name in columns else pa.nulls(n_rows)
        if name == c.DIRECTION:
            given = _with_known(given, built[c.METRIC])
        built[name], wrong = _checked(name, rule, given)
        for row, reason in wrong.items():
            reasons.setdefault(row, []).append(f"{name}: {reason}")
        if name == c.VALUE:
            without_value = list(wrong)
    built[c.VALUE] = _checked_values(built, without_value, reasons)
    for field, row, reason in _impossible(built, units):
        reasons.setdefault(row, []).append(f"{field}: {reason}")
    if units is not None:
        built[c.VALUE] = _as_fractions(built, units)
    table = pa.table(list(built.values()), schema=RUN_SCHEMA)
    keep = np.ones(n_rows, dtype=bool)
    keep[list(reasons)] = False
    if reasons:
        table = table.filter(pa.array(keep))
    if table[c.RUN_ID].null_count:
        table = table.set_column(0, RUN_SCHEMA.field(c.RUN_ID), make_run_ids(table))
    problems = {row: "; ".join(reasons[row]) for row in sorted(reasons)}
    return BuiltRuns(runs=table, rows=np.flatnonzero(keep), problems=problems)


def runs_to_table(runs: Iterable[Run]) -> pa.Table:
    """Table of runs that are valid by construction."""
    rows = []
    for run in runs:
        row = {name: getattr(run, name) for name in RULES}
        rows.append(row | {name: canonical_json(row[name]) for name in JSON_COLUMNS})
    return pa.Table.from_pylist(rows, schema=RUN_SCHEMA)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        # An empty chunked array combines to a chunked array in some versions of pyarrow.
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks or [pa.array([], type=column.type)])
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _checked(name: str, rule: Rule, column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Column as the schema has it, null where a cell is refused, and the reasons by row.

    Columns that have their type already are converted at once; only the cells that do not pass the
    rule as they are, and all those of other types, are read one by one.
    """
    wanted = _TYPES[rule.kind]
    quick = _converted(rule, column)
    rows = np.arange(len(column)) if quick is None else _doubtful(rule, quick, column)
    if not rows.size:
        return pa.nulls(len(column), wanted) if quick is None else quick, {}
    cells = column if rows.size == len(column) else column.take(pa.array(rows))
    is_text = pa.types.is_string(cells.type)
    # Equal texts are read once.
    distinct = cells.dictionary_encode(null_encoding="encode") if is_text else None
    values: list[object] = []
    reasons: dict[int, str] = {}
    for at, cell in enumerate((cells if distinct is None else distinct.dictionary).to_pylist()):
        try:
            values.append(check_field(name, cell, from_text=True))
        except DataError as error:
            values.append(None)
            reasons[at] = str(error)
    read = pa.array(values, wanted)
    if distinct is not None:
        indices = distinct.indices.to_numpy()
        read = read.take(distinct.indices)
        bad = np.flatnonzero(np.isin(indices, list(reasons))).tolist()
        reasons = {row: reasons[int(indices[row])] for row in bad}
    if quick is not None:
        at_rows = np.zeros(len(column), dtype=bool)
        at_rows[rows] = True
        read = pc.replace_with_mask(quick, pa.array(at_rows), read)
    return read, {int(rows[at]): reason for at, reason in reasons.items()}


def _converted(rule: Rule, column: pa.Array) -> pa.Array | None:
    """The column converted as a whole, null where that fails; ``None`` if its type never fits."""
    kind = column.type
    if rule.kind in _PLAIN_NUMBER and pa.types.is_string(kind):
        plain = pc.match_substring_regex(column, _PLAIN_NUMBER[rule.kind])
        return pc.if_else(plain, column, pa.scalar(None, kind)).cast(_TYPES[rule.kind])
    if rule.kind == "text" and pa.types.is_string(kind):
        blank = pc.fill_null(_blank(column), False)
        return pc.if_else(blank, pa.scalar(None, kind), column) if pc.any(blank).as_py() else column
    if rule.kind == "number" and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return column.cast(pa.float64(), safe=False)
    if rule.kind == "number" and pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if rule.kind == "integer" and pa.types.is_signed_integer(kind):
        return column.cast(pa.int64())
    if rule.kind == "time" and pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(_TYPES["time"], safe=False)
    if pa.types.is_null(kind) and rule.kind not in ("json", "tags"):
        return pa.nulls(len(column), _TYPES[rule.kind])
    return None


def _doubtful(rule: Rule, converted: pa.Array, column: pa.Array) -> IntArray:
    """Rows of a column that were not converted, or that the rule does not allow as they are."""
    settled = pc.or_(pc.is_valid(converted), pc.is_null(column))
    if rule.required:
        settled = pc.and_(settled, pc.is_valid(converted))
    if rule.choices:
        settled = pc.and_(settled, pc.is_in(converted, value_set=pa.array([*rule.choices, None])))
    if rule.kind == "number":
        fits = pc.greater_equal(converted, rule.minimum)
        fits = pc.and_(fits, pc.is_finite(converted)) if rule.finite else pa.repeat(True, len(fits))
        settled = pc.and_(settled, pc.fill_null(fits, True))
    return np.flatnonzero(~_mask(settled))


def _mask(condition: pa.Array) -> BoolArray:
    mask: BoolArray = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask


def _checked_values(
    built: Mapping[str, pa.Array], without: list[int], reasons: dict[int, list[str]]
) -> pa.Array:
    """Values where the status allows them; one that is not finite is unknown."""
    values = built[c.VALUE]
    is_finite = _mask(pc.is_finite(values))
    doubtful = ~is_finite & _mask(pc.equal(built[c.STATUS], "finished"))
    doubtful[without] = False
    for row in np.flatnonzero(doubtful).tolist():
        problem = value_problem(values[row].as_py(), "finished")
        reasons.setdefault(row, []).append(f"{c.VALUE}: {problem}")
    return pc.if_else(pa.array(is_finite), values, pa.scalar(None, pa.float64()))


def _with_known(direction: pa.Array, metric: pa.Array) -> pa.Array:
    """Directions, where they are missing those that are known of the metrics."""
    if pa.types.is_null(direction.type):
        direction = direction.cast(pa.string())
    if not pa.types.is_string(direction.type) or not (
        direction.null_count or _any_blank(direction)
    ):
        return direction
    distinct = metric.dictionary_encode()
    known = [direction_of(name) for name in distinct.dictionary.to_pylist()]
    filled = pa.array(known, pa.string()).take(distinct.indices)
    return pc.if_else(pc.fill_null(_blank(direction), True), filled, direction)


def _impossible(
    built: Mapping[str, pa.Array], units: Sequence[Unit | None] | None
) -> Iterator[tuple[str, int, str]]:
    """Field, row and reason of each direction and value that its metric cannot have."""
    values = built[c.VALUE].to_numpy(zero_copy_only=False)
    directions = built[c.DIRECTION]
    for (metric, unit), rows in _by_metric(built[c.METRIC], units):
        for row in rows[~is_possible(metric, values[rows], unit)].tolist():
            yield c.VALUE, row, str(range_problem(metric, float(values[row]), unit))
        known = direction_of(metric)
        if known is not None:
            own = directions.take(pa.array(rows))
            for row in rows[_mask(pc.not_equal(own, known))].tolist():
                problem = direction_problem(metric, directions[row].as_py())
                yield c.DIRECTION, row, str(problem)


def _as_fractions(built: Mapping[str, pa.Array], units: Sequence[Unit | None]) -> pa.Array:
    """Values as the history keeps them: percentages divided by 100."""
    values = built[c.VALUE].to_numpy(zero_copy_only=False).copy()
    for (metric, unit), rows in _by_metric(built[c.METRIC], units):
        values[rows] /= accepted(metric, unit).divisor
    return pa.array(values, pa.float64(), from_pandas=True)


def _by_metric(
    metrics: pa.Array, units: Sequence[Unit | None] | None
) -> Iterator[tuple[tuple[str, Unit | None], IntArray]]:
    """Rows of each metric and unit; rows without a metric are left out."""
    distinct = metrics.dictionary_encode()
    codes = pc.fill_null(distinct.indices, -1).to_numpy(zero_copy_only=False)
    given = np.zeros(len(metrics), dtype=np.int64)
    if units is not None:
        given = np.fromiter((_UNITS.index(unit) for unit in units), np.int64, len(metrics))
    for at, metric in enumerate(distinct.dictionary.to_pylist()):
        own = codes == at
        for unit in np.unique(given[own]).tolist():
            yield (metric, _UNITS[unit]), np.flatnonzero(own & (given == unit))


def _blank(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_trim_whitespace(texts), "")


def _any_blank(texts: pa.Array) -> bool:
    return bool(pc.any(_blank(texts)).as_py())
