"""Runs as Arrow tables: the schema, and the checks of ``history.run`` on whole columns."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import BoolArray, IntArray
from recsys_ms.history.run import (
    DIRECTIONS,
    ISO_WITH_ZONE,
    JSON_COLUMNS,
    STATUSES,
    TIME_COLUMNS,
    VALUE_KINDS,
    Run,
    canonical_json,
    microseconds,
)
from recsys_ms.history.store.identity import make_run_ids

_TIME: Final = pa.timestamp("us", tz="UTC")
_TYPES: Final[Mapping[str, pa.DataType]] = {
    c.VALUE: pa.float64(),
    c.EPOCH: pa.float64(),
    c.SEED: pa.int64(),
    c.COST_GPU_SECONDS: pa.float64(),
    **dict.fromkeys(TIME_COLUMNS, _TIME),
}

#: Schema of a table of runs: text but for the numbers and the times (UTC, microseconds).
RUN_SCHEMA: Final = pa.schema(
    [pa.field(name, _TYPES.get(name, pa.string())) for name in c.RUN_COLUMNS]
)

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    c.DIRECTION: DIRECTIONS,
    c.STATUS: STATUSES,
    c.VALUE_KIND: VALUE_KINDS,
}
_REQUIRED: Final = (*c.REQUIRED_COLUMNS, c.STATUS)
_NUMBER: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_NAN: Final = ("nan", "NaN", "NAN")
_INFINITE: Final = r"^[+-]?(?i:inf|infinity)$"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltRuns:
    """Columns turned into runs.

    Attributes
    ----------
    runs : pyarrow.Table
        The valid rows, in order, with :data:`RUN_SCHEMA`.
    rows : ndarray of shape (n_runs,)
        Position of each of them in the input, from 0.
    problems : dict of int to str
        What is wrong with each of the other rows, by position.
    """

    runs: pa.Table
    rows: IntArray
    problems: Mapping[int, str]


def build_runs(columns: Mapping[str, pa.Array | pa.ChunkedArray], n_rows: int) -> BuiltRuns:
    """Check loose columns and build a table of runs; no row is guessed at and none is lost.

    Text is read as numbers and ISO 8601 times where the schema wants those; blank text counts as
    unknown. A column that is not given is unknown everywhere, except ``status``, which is then
    ``finished``, and ``run_id``, which is :func:`recsys_ms.history.run.make_run_id` wherever it is
    unknown.

    Parameters
    ----------
    columns : mapping of column name to Arrow array of length ``n_rows``
        Columns of ``core.columns.RUN_COLUMNS``; ``hyperparameters`` and ``tags`` as JSON text.
    n_rows : int
        Number of rows.

    Raises
    ------
    DataError
        A column no run has, or one of another length.
    """
    checks = _Checks(n_rows)
    built: dict[str, pa.Array] = {}
    for name in columns:
        if name not in RUN_SCHEMA.names:
            raise DataError(f"unknown column {name!r}; a run has {', '.join(c.RUN_COLUMNS)}")
        if len(columns[name]) != n_rows:
            raise DataError(f"column {name!r} has {len(columns[name])} rows, wanted {n_rows}")
    for name in c.RUN_COLUMNS:
        if name in columns:
            built[name] = _READERS.get(name, _read_text)(name, _flat(columns[name]), checks)
        elif name in JSON_COLUMNS:
            built[name] = pa.repeat("{}", n_rows)
        elif name == c.STATUS:
            built[name] = pa.repeat("finished", n_rows)
        else:
            built[name] = pa.nulls(n_rows, RUN_SCHEMA.field(name).type)
    _check_meaning(built, checks)
    keep = ~checks.bad
    table = pa.table([built[name] for name in c.RUN_COLUMNS], schema=RUN_SCHEMA)
    if not keep.all():
        table = table.filter(pa.array(keep))
    if table[c.RUN_ID].null_count:
        table = table.set_column(0, RUN_SCHEMA.field(c.RUN_ID), make_run_ids(table))
    return BuiltRuns(runs=table, rows=np.flatnonzero(keep), problems=checks.problems())


def runs_to_table(runs: Iterable[Run]) -> pa.Table:
    """Table of runs that are valid by construction."""
    rows = [_row(run) for run in runs]
    return pa.Table.from_pylist(rows, schema=RUN_SCHEMA)


def _row(run: Run) -> dict[str, object]:
    row = {name: getattr(run, name) for name in c.RUN_COLUMNS}
    return row | {name: canonical_json(row[name]) for name in JSON_COLUMNS}


class _Checks:
    """Which rows are bad so far, and why; reasons are texts made only for the bad rows."""

    def __init__(self, n_rows: int) -> None:
        self.bad: BoolArray = np.zeros(n_rows, dtype=bool)
        self._reasons: dict[int, list[str]] = {}
        self._bad_in: dict[str, BoolArray] = {}

    def bad_in(self, name: str) -> BoolArray:
        """Rows already noted for column ``name``, so that one fault is told once."""
        return self._bad_in.get(name, np.zeros_like(self.bad))

    def note(self, where: BoolArray, name: str, wording: Callable[[int], str]) -> None:
        for row in np.flatnonzero(where).tolist():
            self._reasons.setdefault(row, []).append(f"{name}: {wording(row)}")
        self.bad |= where
        self._bad_in[name] = self.bad_in(name) | where

    def problems(self) -> dict[int, str]:
        return {row: "; ".join(self._reasons[row]) for row in sorted(self._reasons)}


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        # An empty chunked array combines to a chunked array in some versions of pyarrow.
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks or [pa.array([], type=column.type)])
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def _mask(array: pa.Array) -> BoolArray:
    mask: BoolArray = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return mask


def _shown(array: pa.Array) -> Callable[[int], str]:
    def show(row: int) -> str:
        text = repr(array[row].as_py())
        return text if len(text) <= 80 else text[:60] + "…" + text[-15:]

    return show


def _is_text(array: pa.Array) -> bool:
    kind = array.type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _blank_to_null(array: pa.Array) -> pa.Array:
    blank = _mask(pc.equal(pc.utf8_trim_whitespace(array), ""))
    return pc.if_else(pa.array(blank), pa.scalar(None, array.type), array) if blank.any() else array


def _read_text(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string())
    if not _is_text(array):
        show = _shown(array)
        checks.note(_mask(pc.is_valid(array)), name, lambda row: f"got {show(row)}, wanted text")
        return pa.nulls(len(array), pa.string())
    return _blank_to_null(array.cast(pa.string()))


def _read_choice(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    text = _read_text(name, array, checks)
    show = _shown(text)
    allowed = _CHOICES[name]
    known = pc.is_in(text, value_set=pa.array(allowed))
    strange = _mask(pc.and_(pc.is_valid(text), pc.invert(known)))
    wanted = " or ".join(map(repr, allowed))
    checks.note(strange, name, lambda row: f"got {show(row)}, wanted {wanted}")
    return text


def _read_number(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    """Numbers as float64, with NaN and infinities as such; what is no number becomes null."""
    show = _shown(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.float64())
    if _is_text(array):
        text = pc.utf8_trim_whitespace(_blank_to_null(array.cast(pa.string())))
        special = pc.or_(pc.is_in(text, value_set=pa.array(_NAN)), _matches(text, _INFINITE))
        fits = pc.or_(_matches(text, _NUMBER), special)
        strange = _mask(pc.and_(pc.is_valid(text), pc.invert(fits)))
        text = pc.if_else(pa.array(strange), pa.scalar(None, pa.string()), text)
        # Arrow's own parser knows neither a leading plus nor "1." on every version.
        text = pc.replace_substring_regex(text, r"^\+", "")
        numbers = text.cast(pa.float64())
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        strange = np.zeros(len(array), dtype=bool)
        numbers = array.cast(pa.float64(), safe=False)
    elif pa.types.is_decimal(array.type):
        strange = np.zeros(len(array), dtype=bool)
        numbers = array.cast(pa.float64())
    else:
        strange = _mask(pc.is_valid(array))
        numbers = pa.nulls(len(array), pa.float64())
    checks.note(strange, name, lambda row: f"got {show(row)}, wanted a number")
    return numbers


def _matches(text: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(text, pattern)


def _read_finite(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    numbers = _read_number(name, array, checks)
    bad = _mask(pc.invert(pc.is_finite(numbers)))
    show = _shown(numbers)
    checks.note(
        bad,
        name,
        lambda row: f"got {show(row)}, wanted a finite number, or nothing when it is unknown",
    )
    return numbers


def _read_cost(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    numbers = _read_finite(name, array, checks)
    show = _shown(numbers)
    checks.note(_mask(pc.less(numbers, 0)), name, lambda row: f"got {show(row)}, wanted 0 or more")
    return numbers


def _read_integer(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    # 64-bit integers go straight: float64 would round seeds above 2^53.
    if pa.types.is_signed_integer(array.type):
        return array.cast(pa.int64())
    whole = pa.nulls(len(array), pa.int64())
    if _is_text(array):
        text = pc.utf8_trim_whitespace(array.cast(pa.string()))
        digits = pc.replace_substring_regex(text, r"^([+-]?)0*(\d)", r"\1\2")
        # 19 digits may or may not fit: texts of one length compare as their numbers do.
        long = pc.replace_substring_regex(digits, r"^[+-]", "")
        fits_long = pc.and_(_matches(long, r"^\d{19}$"), pc.less_equal(long, str(2**63 - 1)))
        plain = _mask(pc.or_(_matches(digits, r"^[+-]?\d{1,18}$"), fits_long))
        digits = pc.if_else(pa.array(plain), digits, pa.scalar(None, pa.string()))
        whole = pc.replace_substring_regex(digits, r"^\+", "").cast(pa.int64())
        array = pc.if_else(pa.array(plain), pa.scalar(None, pa.string()), text)
    numbers = _read_number(name, array, checks)
    values = numbers.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        fits = (np.abs(values) < 2.0**63) & (values == np.floor(values))
    bad = _mask(pc.is_valid(numbers)) & ~fits
    show = _shown(array)
    checks.note(bad, name, lambda row: f"got {show(row)}, wanted a whole number of 64 bits")
    rest = pc.if_else(pa.array(fits), numbers, pa.scalar(None, pa.float64())).cast(pa.int64())
    return pc.coalesce(whole, rest)


def _read_time(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    show = _shown(array)
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        return array.cast(_TIME, safe=False)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), _TIME)
    if not _is_text(array):
        wording = (
            "{}, a time without a zone, and a zone is not guessed"
            if pa.types.is_timestamp(array.type)
            else "{}, wanted an ISO 8601 time"
        )
        checks.note(_mask(pc.is_valid(array)), name, lambda row: "got " + wording.format(show(row)))
        return pa.nulls(len(array), _TIME)
    text = pc.utf8_trim_whitespace(_blank_to_null(array.cast(pa.string())))
    encoded = text.dictionary_encode()
    moments: list[int | None] = []
    for written in encoded.dictionary.to_pylist():
        moments.append(_parse_time(written))
    times = pc.take(pa.array(moments, pa.int64()), encoded.indices).cast(_TIME)
    bad = _mask(pc.and_(pc.is_valid(text), pc.is_null(times)))
    checks.note(
        bad, name, lambda row: f"got {show(row)}, wanted an ISO 8601 time with its time zone"
    )
    return times


def _parse_time(written: str) -> int | None:
    if not ISO_WITH_ZONE.fullmatch(written):
        return None
    try:
        return microseconds(datetime.fromisoformat(written))
    except ValueError:
        return None


def _read_json(name: str, array: pa.Array, checks: _Checks) -> pa.Array:
    text = pc.fill_null(_read_text(name, array, checks), "{}")
    encoded = text.dictionary_encode()
    canonical: list[str | None] = []
    reasons: dict[int, str] = {}
    for at, written in enumerate(encoded.dictionary.to_pylist()):
        try:
            canonical.append(canonical_json(written))
        except DataError as error:
            canonical.append(None)
            reasons[at] = str(error)
    if name == c.TAGS:
        _check_tags(encoded.dictionary, canonical, reasons)
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    bad = np.isin(indices, list(reasons)) if reasons else np.zeros(len(array), dtype=bool)
    checks.note(bad, name, lambda row: reasons[int(indices[row])])
    return pc.take(pa.array(canonical, pa.string()), encoded.indices)


def _check_tags(written: pa.Array, canonical: list[str | None], reasons: dict[int, str]) -> None:
    for at, text in enumerate(canonical):
        strange = (
            []
            if text is None
            else [k for k, v in json.loads(text).items() if not isinstance(v, str)]
        )
        if strange:
            reasons[at] = f"tag {strange[0]!r} in {written[at].as_py()!r} is not text"


def _check_meaning(built: dict[str, pa.Array], checks: _Checks) -> None:
    """What concerns more than one column, and what is missing; may null a value in ``built``."""
    for name in _REQUIRED:
        checks.note(
            _mask(pc.is_null(built[name])) & ~checks.bad_in(name),
            name,
            lambda row: "missing; a run cannot do without",
        )
    value = built[c.VALUE]
    finished = _mask(pc.equal(built[c.STATUS], "finished"))
    not_finite = _mask(pc.invert(pc.is_finite(value)))
    show = _shown(value)
    checks.note(
        finished & not_finite,
        c.VALUE,
        lambda row: f"got {show(row)}, wanted a finite number (a diverged run has failed)",
    )
    checks.note(
        finished & _mask(pc.is_null(value)) & ~checks.bad_in(c.VALUE),
        c.VALUE,
        lambda row: "missing, and a finished run has one; else its status is 'failed'",
    )
    if not_finite.any():
        built[c.VALUE] = pc.if_else(pa.array(not_finite), pa.scalar(None, pa.float64()), value)


_READERS: Final[Mapping[str, Callable[[str, pa.Array, _Checks], pa.Array]]] = {
    **dict.fromkeys(_CHOICES, _read_choice),
    **dict.fromkeys(JSON_COLUMNS, _read_json),
    **dict.fromkeys(TIME_COLUMNS, _read_time),
    c.VALUE: _read_number,
    c.EPOCH: _read_finite,
    c.COST_GPU_SECONDS: _read_cost,
    c.SEED: _read_integer,
}
