"""Computed columns and predicates over the rows of a table, by DuckDB without access to files."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

import duckdb
import pyarrow as pa

from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.number_style import PLAIN_NUMBERS, NumberStyle, Unread
from recsys_ms.history.readers.templates import parse_nested, plain_text

ColumnKind: TypeAlias = Literal["number", "json", "time", "text"]

# Names that no column of a table has: a header holds no unit separator.
_ROW: Final = "row\x1f"
_KEEP: Final = "keep\x1f"
#: An expression sees its row: no files, no extensions, no variables of this program.
_CLOSED: Final[Mapping[str, str | bool | int]] = {
    "enable_external_access": False,
    "python_enable_replacements": False,
    "threads": 1,
    "lock_configuration": True,
}
#: Whole numbers with more digits are ids, which a DOUBLE would round.
_MAX_DIGITS: Final = 15
_SAMPLE: Final = 10_000
_WINDOW: Final = re.compile(r"\)\s*over\b", re.IGNORECASE)


class Expressions:
    """Computed columns and a predicate of one table, evaluated batch by batch.

    A cell that does not fit the kind of its column (see :func:`kinds_of`) is NULL.

    Each computed column sees the table's columns and the ones before it. ``numbers`` says how text
    spells numbers.

    Raises
    ------
    UsageError
        A text that is not one expression.
    """

    def __init__(
        self,
        computed: Mapping[str, str],
        where: str | None,
        numbers: NumberStyle = PLAIN_NUMBERS,
    ) -> None:
        self._numbers = numbers
        self._computed = dict(computed)
        self._where = where
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._texts = "\n".join((*computed.values(), where or "")).casefold()
        for name, text in self._named():
            if _WINDOW.search(text):
                raise UsageError(
                    f"{_option(name)} {text!r} looks at other rows; a table is read in pieces, so "
                    "an expression sees its own row only: leave OVER (...) out"
                )
            try:
                duckdb.SQLExpression(text)
            except duckdb.Error as error:
                raise _refused(name, text, error) from error

    def evaluate(
        self, columns: Mapping[str, Sequence[Any]], n_rows: int, kinds: Mapping[str, ColumnKind]
    ) -> tuple[list[bool], dict[str, list[Any]]]:
        """Evaluate for one batch: cells by column, ``None`` where empty, each with ``n_rows`` rows.

        The ``kinds`` of the columns are the same for every batch of a table.

        Returns
        -------
        keep : list of bool
            Whether the predicate holds. A row is kept where it is NULL because a cell of a numeric
            column is not a number, so that the row is refused for that cell and not left out.
        computed : dict of name to list
            The computed columns. ``Unread`` in place of a NULL whose row has a number with a sign
            that an option would explain, so that it is refused and not unknown.

        Raises
        ------
        UsageError
            DuckDB refuses an expression: an unknown column, an aggregate, a cast that fails.
        """
        if not self._computed and self._where is None:
            return [True] * n_rows, {}
        table, unfit = self._typed(columns, n_rows, kinds)
        result = table
        for name, text in self._named():
            result = self._add(result, name, text)
        computed = {name: _values(result[name].to_pylist()) for name in self._computed}
        signed = {row: each for row, each in unfit.items() if each.sign}
        for row, cells in ((row, cells) for row in signed for cells in computed.values()):
            cells[row] = signed[row] if cells[row] is None else cells[row]
        if self._where is None:
            return [True] * n_rows, computed
        holds = result[_KEEP].to_pylist()
        keep = [row in unfit if held is None else bool(held) for row, held in enumerate(holds)]
        return keep, computed

    def _named(self) -> list[tuple[str, str]]:
        where = [] if self._where is None else [(_KEEP, self._where)]
        return [*self._computed.items(), *where]

    def _typed(
        self, columns: Mapping[str, Sequence[Any]], n_rows: int, kinds: Mapping[str, ColumnKind]
    ) -> tuple[pa.Table, dict[int, Unread]]:
        """The columns that expressions name, and by row a cell that does not fit its column."""
        # Columns that no expression names need not be converted.
        used = [name for name in columns if self.names(name)]
        folded = Counter(map(str.casefold, (*used, *self._computed)))
        for name in (*used, *self._computed):
            if folded[name.casefold()] > 1:
                raise UsageError(
                    f"DuckDB ignores the case of names, and there is more than one {name!r}; "
                    "rename one of them, or give the computed column another name"
                )
        arrays: dict[str, pa.Array] = {_ROW: pa.array(range(n_rows), pa.int64())}
        unfit: dict[int, Unread] = {}
        for name in used:
            cells = columns[name]
            kind = kinds[name]
            read = self._numbers.number if kind == "number" else _READ[kind]
            converted = [None if cell is None else read(cell) for cell in cells]
            for row, (cell, value) in enumerate(zip(cells, converted, strict=True)):
                if value is None and cell is not None:
                    unfit[row] = self._unfit(name, cell, kind)
            arrays[name] = pa.array(converted, _ARROW[kind])
        return pa.table(arrays), unfit

    def _unfit(self, name: str, cell: object, kind: ColumnKind) -> Unread:
        found = self._numbers.read(cell) if kind == "number" and isinstance(cell, str) else None
        if isinstance(found, Unread) and found.sign:
            return Unread(f"column {name!r}: {found.reason}", found.sign)
        return Unread("")

    def names(self, column: str) -> bool:
        """Whether an expression may name the column, plain or quoted (a quote is doubled there)."""
        folded = column.casefold()
        return folded in self._texts or folded.replace('"', '""') in self._texts

    def _add(self, table: pa.Table, name: str, text: str) -> pa.Table:
        try:
            if self._connection is None:
                self._connection = duckdb.connect(":memory:", config=dict(_CLOSED))
            self._connection.register("source", table)
            result = (
                self._connection.view("source")
                .select(duckdb.StarExpression(), duckdb.SQLExpression(text).alias(name))
                .to_arrow_table()
            )
            self._connection.unregister("source")
        except duckdb.Error as error:
            raise _refused(name, text, error, table.schema) from error
        if result.num_rows != table.num_rows:
            raise UsageError(
                f"{_option(name)} {text!r} makes {result.num_rows} rows of {table.num_rows}; "
                "use an expression of one row at a time, without unnest"
            )
        if result[_ROW].to_pylist() != table[_ROW].to_pylist():
            result = result.sort_by(_ROW)
        return result


def kinds_of(
    columns: Mapping[str, Sequence[Any]], numbers: NumberStyle = PLAIN_NUMBERS
) -> dict[str, ColumnKind]:
    """Decide what each column holds, from at most its first 10,000 cells.

    ``number`` (DOUBLE) when at least half of the known cells are numbers, and none has more than 15
    digits; ``json`` when more than half are dicts or lists; ``time`` for times; else ``text``
    (VARCHAR).
    """
    return {name: _kind_of(cells[:_SAMPLE], numbers) for name, cells in columns.items()}


def _option(name: str) -> str:
    return "--where" if name == _KEEP else f"--column {name}"


def _refused(
    name: str, text: str, error: duckdb.Error, schema: pa.Schema | None = None
) -> UsageError:
    said = re.sub(r"\s+", " ", str(error).split("\nLINE")[0])
    columns = [f"{column.name} ({column.type})" for column in schema or () if column.name != _ROW]
    return UsageError(
        f"{_option(name)} {text!r}: DuckDB says: {said}; it takes one expression over the columns "
        "(put a column with a space or # in double quotes, text in single ones)"
        + (f". Columns it names: {', '.join(columns)}" if columns else "")
    )


def _kind_of(cells: Sequence[Any], style: NumberStyle) -> ColumnKind:
    known = [cell for cell in cells if cell is not None]
    if not known:
        return "text"
    numbers = sum(1 for cell in known if style.number(cell) is not None)
    if 2 * numbers >= len(known):
        return "text" if any(map(_is_long, islice(known, 1000))) else "number"
    if 2 * sum(1 for cell in known if isinstance(cell, datetime)) > len(known):
        return "time"
    # Parsing dicts is slow, and a column that holds them holds them from the start.
    sample = known[:1000]
    nested = sum(1 for cell in sample if parse_nested(cell) is not None)
    return "json" if 2 * nested > len(sample) else "text"


def _is_long(cell: object) -> bool:
    text = cell if isinstance(cell, str) else str(cell) if isinstance(cell, int) else ""
    digits = text.removeprefix("-")
    return digits.isdecimal() and len(digits) > _MAX_DIGITS


def _json_of(cell: Any) -> str | None:
    try:
        return json.dumps(cell, default=str, allow_nan=False) if cell is not None else None
    except ValueError:
        # JSON has no NaN, and DuckDB would refuse the whole column for it.
        return None


def _as_json(cell: Any) -> str | None:
    return _json_of(parse_nested(cell))


def _as_time(cell: Any) -> datetime | None:
    return cell if isinstance(cell, datetime) else None


#: How a cell of each kind but numbers is read, and the Arrow type of each kind.
_READ: Final[Mapping[ColumnKind, Callable[[Any], Any]]] = {
    "json": _as_json,
    "time": _as_time,
    "text": plain_text,
}
_ARROW: Final[Mapping[ColumnKind, pa.DataType | None]] = {
    "number": pa.float64(),
    "json": pa.string(),
    "time": None,
    "text": pa.string(),
}


def _values(cells: list[Any]) -> list[Any]:
    return [None if cell == "" else cell for cell in cells]
