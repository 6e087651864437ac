"""Reads tables on disk in batches of columns: CSV, TSV, JSONL and Parquet.

Every row is given with its physical line and its text, and a row that cannot be read costs no
other. DuckDB's readers were tried for this: they give neither line nor text of the rows they can
read, and one unclosed quote takes the rest of the file.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.core.errors import DataError, StorageError, UsageError
from recsys_ms.history.readers.lines import BadLineError, BadRow, Lines, open_lines

TableFormat: TypeAlias = Literal["csv", "tsv", "jsonl", "parquet"]

BATCH_ROWS: Final = 50_000
#: Cells held at once: a wide table comes in batches of fewer rows.
_MAX_CELLS: Final = 5_000_000
_MAX_KEYS: Final = 10_000
_SUFFIXES: Final[dict[str, TableFormat]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_DELIMITERS: Final = (",", ";", "\t", "|")
#: Line, text and cells of a row.
_Row: TypeAlias = tuple[int, str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBatch:
    """Consecutive rows of a table.

    Attributes
    ----------
    columns : dict of str to list
        Cells by column; ``None`` where empty. Cells of CSV have no surrounding spaces.
    lines : list of int
        Physical line (row, for Parquet) each row begins on, from 1.
    raws : list of str or None
        Text of each row; ``None`` for Parquet.
    bad : tuple of BadRow
        Rows between them that could not be read.
    """

    columns: dict[str, list[Any]]
    lines: list[int]
    raws: list[str] | None
    bad: tuple[BadRow, ...] = ()

    def raw(self, row: int) -> str:
        """Text of row ``row`` of this batch; JSON where the table holds no text."""
        if self.raws is not None:
            return self.raws[row]
        cells = {name: cells[row] for name, cells in self.columns.items()}
        return json.dumps(cells, ensure_ascii=False, default=str)

    def take(self, rows: list[int]) -> "SourceBatch":
        """Some of its rows, without the bad ones."""
        return SourceBatch(
            columns={name: [cells[row] for row in rows] for name, cells in self.columns.items()},
            lines=[self.lines[row] for row in rows],
            raws=None if self.raws is None else [self.raws[row] for row in rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A table on disk whose columns are known; those of JSONL are the keys of all rows.

    An unnamed column is ``column_N``, the second of one name ``name#2``.
    """

    path: Path
    table_format: TableFormat
    columns: tuple[str, ...]
    delimiter: str
    encoding: str

    def batches(self, batch_rows: int = BATCH_ROWS) -> Iterator[SourceBatch]:
        """Yield the rows in order, at most ``batch_rows`` at a time.

        Raises
        ------
        DataError
            The file breaks off (a damaged archive or Parquet file).
        """
        batch_rows = max(1, min(batch_rows, _MAX_CELLS // len(self.columns)))
        if self.table_format == "parquet":
            yield from _parquet_batches(self.path, self.columns, batch_rows)
            return
        handle, lines = open_lines(self.path, self.encoding)
        with handle:
            yield from self._text_batches(lines, batch_rows, has_header=True)

    def read_row(self, raw: str, line: int) -> SourceBatch:
        """Read the text of one row again: a batch of one row, or of one bad row, on ``line``."""
        lines = Lines(io.BytesIO(raw.encode(errors="backslashreplace")), "utf-8")
        empty = SourceBatch(columns={name: [] for name in self.columns}, lines=[], raws=[])
        found = next(self._text_batches(lines, BATCH_ROWS, has_header=False), empty)
        bad = tuple(replace(row, line=line) for row in found.bad)
        return replace(found, lines=[line] * len(found.lines), bad=bad)

    def _text_batches(
        self, lines: Lines, batch_rows: int, *, has_header: bool
    ) -> Iterator[SourceBatch]:
        is_json = self.table_format not in ("csv", "tsv")
        if is_json:
            rows = _json_rows(lines)
        else:
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            if has_header:
                next(filter(None, reader))
            rows = _csv_rows(lines, reader, len(self.columns))
        while piece := list(islice(rows, batch_rows)):
            good = [row for row in piece if not isinstance(row, BadRow)]
            cells = [row[2] for row in good]
            by_name = _json_cells if is_json else _csv_cells
            yield SourceBatch(
                columns=by_name(cells, self.columns),
                lines=[row[0] for row in good],
                raws=[row[1] for row in good],
                bad=tuple(row for row in piece if isinstance(row, BadRow)),
            )


def open_source(
    path: str | Path,
    *,
    table_format: TableFormat | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Source:
    """Open a table: its format and its columns.

    Parameters
    ----------
    path : str or Path
        The table; ``.gz`` on top of a text format is decompressed.
    table_format : {"csv", "tsv", "jsonl", "parquet"}, optional
        Default: by the suffix (csv, tsv, tab, jsonl, ndjson, parquet).
    delimiter : str, optional
        One character; default comma for CSV, tab for TSV.
    encoding : str, default "utf-8"
        Of a text format. A byte-order mark is skipped.

    Raises
    ------
    DataError
        No such file, an empty one, a broken head, or the wrong delimiter.
    UsageError
        An unknown suffix, format, delimiter or encoding.
    """
    file = Path(path)
    chosen = _format_of(file) if table_format is None else table_format
    if chosen not in get_args(TableFormat):
        raise UsageError(f"format {chosen!r} must be one of {', '.join(get_args(TableFormat))}")
    separator = delimiter or ("\t" if chosen == "tsv" else ",")
    if len(separator) != 1 or separator in '\r\n"':
        raise UsageError(f"delimiter {separator!r} must be one character, such as ';'")
    if chosen == "parquet":
        columns = _parquet_columns(file)
    else:
        handle, lines = open_lines(file, encoding)
        with handle:
            if chosen == "jsonl":
                columns = _json_columns(file, lines)
            else:
                columns = _csv_columns(file, lines, separator)
    return Source(
        path=file, table_format=chosen, columns=columns, delimiter=separator, encoding=encoding
    )


def is_table(path: Path) -> bool:
    """Whether the suffix of a file is one of a table."""
    return _suffix(path) in _SUFFIXES


def _suffix(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.suffix.lower()


def _format_of(path: Path) -> TableFormat:
    found = _SUFFIXES.get(_suffix(path))
    if found is None:
        raise UsageError(
            f"{path}: the suffix {_suffix(path)!r} does not say how to read it; name a format "
            f"({', '.join(get_args(TableFormat))}) or rename it to end in {', '.join(_SUFFIXES)}"
        )
    return found


def _csv_columns(path: Path, lines: Lines, delimiter: str) -> tuple[str, ...]:
    try:
        header = next(filter(None, csv.reader(lines, delimiter=delimiter, strict=True)), None)
    except BadLineError as error:
        raise DataError(f"{path}: the header cannot be read: {error}") from error
    except csv.Error as error:
        raise DataError(
            f"{path}: the header cannot be read as CSV ({error}); is it another format?"
        ) from error
    if header is None:
        raise DataError(f"{path}: the file is empty; a header with column names is needed")
    if len(header) == 1:
        other = max((d for d in _DELIMITERS if d != delimiter), key=header[0].count)
        if header[0].count(other):
            raise DataError(
                f"{path}: with the delimiter {delimiter!r} the header is the one column "
                f"{header[0]!r}; it looks separated by {other!r}: pass delimiter={other!r} "
                f"(--delimiter {other!r})"
            )
    return tuple(unique_names(header))


def unique_names(header: Sequence[str]) -> list[str]:
    """Names of the columns of a header: ``column_N`` if blank, ``name#2`` if repeated."""
    names: list[str] = []
    for position, cell in enumerate(header, start=1):
        base = cell.strip() or f"column_{position}"
        name, copy = base, 2
        while name in names:
            name, copy = f"{base}#{copy}", copy + 1
        names.append(name)
    return names


def _csv_rows(lines: Lines, reader: Iterator[list[str]], n_columns: int) -> Iterator[_Row | BadRow]:
    while True:
        start = lines.number + 1
        lines.taken.clear()
        try:
            cells = next(reader, None)
        except BadLineError as error:
            if lines.taken:
                raw = "".join(lines.taken)
                yield BadRow(line=start, reason="its quote is never closed", raw=raw)
            yield error.bad
            continue
        except csv.Error as error:
            # An unclosed quote takes good lines with it: only its own is bad, read the rest again.
            yield BadRow(line=start, reason=f"not CSV: {error}", raw=_bare(lines.taken[0]))
            lines.push_back(lines.taken[1:])
            continue
        if cells is None:
            return
        raw = _bare("".join(lines.taken))
        if len(cells) == n_columns:
            yield start, raw, cells
        elif cells:
            reason = f"{len(cells)} fields where the header has {n_columns}"
            yield BadRow(line=start, reason=reason, raw=raw)


def _csv_cells(rows: list[list[str]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    columns = zip(*rows, strict=True) if rows else iter([()] * len(names))
    return {
        name: [cell.strip() or None for cell in cells]
        for name, cells in zip(names, columns, strict=True)
    }


def _json_cells(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [_known(row.get(name)) for row in rows] for name in names}


def _known(cell: Any) -> Any:
    return None if cell == "" else cell


def _bare(line: str) -> str:
    return line.rstrip("\r\n")


def _json_row(line: str) -> dict[str, Any]:
    """Parse one line; a ValueError says why it is not a JSON object."""
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"got a JSON {type(row).__name__}, expected an object")
    if "\\u" in line:
        # Half of a surrogate pair is valid JSON but not text; the error is a ValueError too.
        json.dumps(row, ensure_ascii=False).encode()
    return row


def _json_rows(lines: Lines) -> Iterator[_Row | BadRow]:
    while True:
        try:
            line = next(lines, None)
        except BadLineError as error:
            yield error.bad
            continue
        lines.taken.clear()
        if line is None:
            return
        if not line.strip():
            continue
        try:
            yield lines.number, _bare(line), _json_row(line)
        except ValueError as error:
            yield BadRow(line=lines.number, reason=f"not JSON: {error}", raw=_bare(line))


def _json_columns(path: Path, lines: Lines) -> tuple[str, ...]:
    names: dict[str, None] = {}
    first_bad: BadRow | None = None
    for row in _json_rows(lines):
        if isinstance(row, BadRow):
            first_bad = first_bad or row
            continue
        names.update(dict.fromkeys(row[2]))
        if len(names) > _MAX_KEYS:
            raise DataError(
                f"{path}: line {row[0]}: more than {_MAX_KEYS} different keys so far; "
                "log what varies from run to run as a dict inside one key"
            )
    if names:
        return tuple(names)
    if first_bad is None:
        raise DataError(f"{path}: the file is empty; one JSON object a line is needed")
    raise DataError(
        f"{path}: no line is a JSON object (line {first_bad.line}: {first_bad.reason}); "
        "is it another format?"
    )


def _parquet_columns(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        return tuple(pq.read_schema(path).names)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror or error})") from error


def _parquet_batches(
    path: Path, columns: tuple[str, ...], batch_rows: int
) -> Iterator[SourceBatch]:
    done = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=batch_rows):
                cells = dict(zip(columns, batch.columns, strict=True))
                yield SourceBatch(
                    columns={name: _python(column) for name, column in cells.items()},
                    lines=list(range(done + 1, done + 1 + batch.num_rows)),
                    raws=None,
                )
                done += batch.num_rows
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path}: row {done + 1}: reading stopped here ({error}); copy the file again"
        ) from error


def _python(column: pa.Array) -> list[Any]:
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return list(map(_known, column.to_pylist()))
