"""Reads tables on disk in batches of columns: CSV, TSV, JSONL, Parquet and JSON documents.

Every row is given with its physical line and its text, and a row that cannot be read costs no
other. DuckDB's readers were tried for this: they give neither line nor text of the rows they can
read, and one unclosed quote takes the rest of the file.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.pieces import pieces
from recsys_ms.history.readers.csv_rows import (
    Row,
    bare,
    csv_cells,
    csv_header,
    csv_rows,
    told_apart,
)
from recsys_ms.history.readers.json_document import json_keys, json_records
from recsys_ms.history.readers.lines import (
    BadLineError,
    BadRow,
    Lines,
    check_encoding,
    open_lines,
)
from recsys_ms.history.readers.parquet_rows import parquet_cells, parquet_names
from recsys_ms.history.readers.wide import Unpivot, Wide

TableFormat: TypeAlias = Literal["csv", "tsv", "jsonl", "parquet", "json"]

BATCH_ROWS: Final = 50_000
#: Cells held at once: a wide table comes in batches of fewer rows.
_MAX_CELLS: Final = 5_000_000
#: Characters of the rows held at once; an object of JSON takes up to 20 times its text.
_MAX_CHARACTERS: Final = 16 << 20
_SUFFIXES: Final[dict[str, TableFormat]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBatch:
    """Consecutive rows of a table.

    Attributes
    ----------
    columns : dict of str to list
        Cells by column; ``None`` where empty. Cells of CSV have no surrounding spaces.
    lines : list of int
        Physical line each row begins on, from 1; row for Parquet, record for a JSON document.
    raws : list of str or None
        Text of each row; ``None`` where the table holds no such text.
    bad : tuple of BadRow
        Rows between them that could not be read.
    places : list of str or None
        Column that each row, a cell of a wide table, stands in.
    """

    columns: dict[str, list[Any]]
    lines: list[int]
    raws: list[str] | None
    bad: tuple[BadRow, ...] = ()
    places: list[str] | None = None

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
            places=None if self.places is None else [self.places[row] for row in rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A table on disk whose columns are known; those of JSON are the keys of all rows.

    Attributes
    ----------
    path : Path
        Its file.
    table_format : str
        Its format.
    columns : tuple of str
        Names of the columns that a mapping sees: of a wide table, those of the long one. None is
        that of two: see :func:`told_apart`.
    delimiter, encoding : str
        Of a text format.
    repeated : mapping of str to tuple of str
        Names that several columns have in the file, and what each of these is called here.
    header : tuple of str
        Columns of the file itself, told apart.
    titles : tuple of str
        Their names as the file has them.
    records : sequence of dict or BadRow
        Records of a JSON document, which is read as a whole.
    unpivot : Unpivot or None
        How a wide table becomes a long one.
    """

    path: Path
    table_format: TableFormat
    columns: tuple[str, ...]
    delimiter: str
    encoding: str = "utf-8"
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    records: Sequence[dict[str, Any] | BadRow] = field(default=(), repr=False)
    unpivot: Unpivot | None = None

    @property
    def row_format(self) -> TableFormat:
        """Format in which :meth:`SourceBatch.raw` gives the text of a row."""
        is_text = self.table_format in ("csv", "tsv") and self.unpivot is None
        return self.table_format if is_text else "jsonl"

    def batches(self, batch_rows: int = BATCH_ROWS) -> Iterator[SourceBatch]:
        """Yield the rows in order, at most ``batch_rows`` and some megabytes at a time.

        Raises
        ------
        DataError
            The file breaks off (a damaged archive or Parquet file).
        """
        runs_of_row = 1 if self.unpivot is None else len(self.unpivot.cells)
        rows_of_file = max(1, min(batch_rows // runs_of_row, _MAX_CELLS // len(self.header)))
        if self.table_format == "parquet":
            batches = self._parquet_batches(rows_of_file)
        elif self.table_format == "json":
            batches = self._document_batches(rows_of_file)
        else:
            batches = self._line_batches(rows_of_file)
        yield from batches if self.unpivot is None else map(self._long, batches)

    def read_row(self, raw: str, line: int) -> SourceBatch:
        """Read the text of one row again: a batch of one row, or of one bad row, on ``line``."""
        lines = Lines(io.BytesIO(raw.encode(errors="backslashreplace")), "utf-8")
        empty = SourceBatch(columns={name: [] for name in self.columns}, lines=[], raws=[])
        rows = self._rows(lines, None, self.columns)
        found = next(self._text_batches(rows, BATCH_ROWS, self.columns), empty)
        bad = tuple(replace(row, line=line) for row in found.bad)
        return replace(found, lines=[line] * len(found.lines), bad=bad)

    def _line_batches(self, batch_rows: int) -> Iterator[SourceBatch]:
        handle, lines = open_lines(self.path, self.encoding)
        with handle:
            reader = None
            if self.table_format in ("csv", "tsv"):
                reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
                next(filter(None, reader))
            rows = self._rows(lines, reader, self.header)
            yield from self._text_batches(rows, batch_rows, self.header)

    def _rows(
        self, lines: Lines, reader: Iterator[list[str]] | None, names: tuple[str, ...]
    ) -> Iterator[Row | BadRow]:
        if self.table_format not in ("csv", "tsv"):
            return _json_rows(lines)
        # A row that is read again has no header before it.
        begun = reader or csv.reader(lines, delimiter=self.delimiter, strict=True)
        return csv_rows(lines, begun, len(names))

    def _text_batches(
        self, rows: Iterator[Row | BadRow], batch_rows: int, names: tuple[str, ...]
    ) -> Iterator[SourceBatch]:
        for piece in pieces(rows, most=batch_rows, size_of=_characters, largest=_MAX_CHARACTERS):
            good = [row for row in piece if not isinstance(row, BadRow)]
            cells = [row[2] for row in good]
            by_name = csv_cells if self.table_format in ("csv", "tsv") else _json_cells
            yield SourceBatch(
                columns=by_name(cells, names),
                lines=[row[0] for row in good],
                raws=[row[1] for row in good],
                bad=tuple(row for row in piece if isinstance(row, BadRow)),
            )

    def _parquet_batches(self, batch_rows: int) -> Iterator[SourceBatch]:
        done = 0
        for columns, odd in parquet_cells(self.path, batch_rows):
            n_rows = len(columns[0])
            batch = SourceBatch(
                columns=dict(zip(self.header, columns, strict=True)),
                lines=list(range(done + 1, done + 1 + n_rows)),
                raws=None,
            )
            yield _without(odd, batch) if odd else batch
            done += n_rows

    def _document_batches(self, batch_rows: int) -> Iterator[SourceBatch]:
        items = iter(enumerate(self.records, start=1))
        while piece := list(islice(items, batch_rows)):
            good = [(at, item) for at, item in piece if not isinstance(item, BadRow)]
            yield SourceBatch(
                columns=_json_cells([item for _, item in good], self.header),
                lines=[at for at, _ in good],
                raws=None,
                bad=tuple(item for _, item in piece if isinstance(item, BadRow)),
            )

    def _long(self, batch: SourceBatch) -> SourceBatch:
        if self.unpivot is None:
            return batch
        columns, lines, places = self.unpivot.long(batch.columns, batch.lines)
        final = "it is a row of a wide table; correct it in the file and ingest the file again"
        return SourceBatch(
            columns=columns,
            lines=lines,
            raws=None,
            bad=tuple(replace(row, final=row.final or final) for row in batch.bad),
            places=places,
        )


def open_source(
    path: str | Path,
    *,
    table_format: TableFormat | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    records: str | None = None,
    wide: Wide | None = None,
) -> Source:
    """Open a table: its format and its columns.

    Parameters
    ----------
    path : str or Path
        The table; ``.gz`` on top of a text format is decompressed.
    table_format : {"csv", "tsv", "jsonl", "parquet", "json"}, optional
        Default: by the suffix (csv, tsv, tab, jsonl, ndjson, parquet); a JSON document where
        ``records`` is given, or the suffix is json.
    delimiter : str, optional
        One character; default comma for CSV, tab for TSV.
    encoding : str, default "utf-8"
        Of CSV, TSV and JSONL. A byte-order mark is skipped.
    records : str, optional
        Of a JSON document: keys to the list, or object, of records; default the document itself.
    wide : Wide, optional
        That the table is models by tasks, and what its columns are; it is then read as a table with
        the columns ``model_id``, ``task_id`` and ``value``.

    Raises
    ------
    DataError
        No such file, an empty one, a broken head, or the wrong delimiter.
    UsageError
        An unknown suffix, format, delimiter or encoding, or options that do not fit the table.
    """
    file = Path(path)
    check_encoding(encoding)
    chosen = table_format or ("json" if records is not None else _format_of(file))
    if chosen not in get_args(TableFormat):
        raise UsageError(f"format {chosen!r}: expected one of {', '.join(get_args(TableFormat))}")
    if records is not None and chosen != "json":
        raise UsageError(f"--records is for JSON documents, not for {chosen}; leave it out")
    separator = delimiter or ("\t" if chosen == "tsv" else ",")
    if len(separator) != 1 or separator in '\r\n"':
        raise UsageError(f"delimiter {separator!r}: expected one character, such as ';'")
    found = json_records(file, records) if chosen == "json" else ()
    titles = _titles(file, chosen, separator, encoding, found)
    header, repeated = told_apart(titles)
    if not header:
        raise DataError(f"{file}: the table has no columns")
    unpivot = None if wide is None else Unpivot.of(wide, header)
    if unpivot is not None and repeated:
        raise UsageError(
            f"{file}: {len(next(iter(repeated.values())))} columns are named "
            f"{next(iter(repeated))!r}; in a wide table each name is a task or a model: rename them"
        )
    return Source(
        path=file,
        table_format=chosen,
        columns=header if unpivot is None else unpivot.names,
        delimiter=separator,
        encoding=encoding,
        repeated=repeated,
        header=header,
        titles=tuple(titles),
        records=found,
        unpivot=unpivot,
    )


def _titles(
    file: Path,
    chosen: TableFormat,
    separator: str,
    encoding: str,
    records: Sequence[dict[str, Any] | BadRow],
) -> list[str]:
    """Names of the columns as the file has them."""
    if chosen == "parquet":
        return parquet_names(file)
    if chosen == "json":
        items = enumerate(records, start=1)
        return json_keys(
            file, (item if isinstance(item, BadRow) else (at, item) for at, item in items)
        )
    handle, lines = open_lines(file, encoding)
    with handle:
        if chosen == "jsonl":
            rows = _json_rows(lines)
            return json_keys(file, (r if isinstance(r, BadRow) else (r[0], r[2]) for r in rows))
        return csv_header(file, lines, separator)


def _without(odd: Mapping[int, int], batch: SourceBatch) -> SourceBatch:
    """A batch of Parquet whose rows with a cell without a value are bad, mapped or not."""
    columns = list(batch.columns.items())
    bad = []
    for row, at in sorted(odd.items()):
        name, cells = columns[at]
        reason = (
            f"column {name!r}: {cells[row]} is out of the range of Python; correct it in the file, "
            "or run --replay to take the row as it is"
        )
        bad.append(BadRow(line=batch.lines[row], reason=reason, raw=batch.raw(row), damaged=False))
    good = [row for row in range(len(batch.lines)) if row not in odd]
    return replace(batch.take(good), bad=(*batch.bad, *bad))


def _characters(row: Row | BadRow) -> int:
    return len(row.raw if isinstance(row, BadRow) else row[1])


def is_table(path: Path) -> bool:
    """Whether the suffix of a file is one of a table."""
    return _suffix(path) in _SUFFIXES


def _suffix(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.suffix.lower()


def _format_of(path: Path) -> TableFormat:
    # Most .json files are something else, so is_table does not take them for tables.
    found = "json" if _suffix(path) == ".json" else _SUFFIXES.get(_suffix(path))
    if found is None:
        if path.is_dir():
            raise UsageError(f"{path}: a folder, expected a table; name the file in it")
        raise UsageError(
            f"{path}: the suffix {_suffix(path)!r} does not say how to read it; name a format "
            f"({', '.join(get_args(TableFormat))}) or rename it to end in {', '.join(_SUFFIXES)}"
        )
    return found


def _json_cells(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [_known(row.get(name)) for row in rows] for name in names}


def _known(cell: Any) -> Any:
    return None if cell == "" else cell


def _json_row(line: str) -> dict[str, Any]:
    """Parse one line; a ``DataError`` says why it is not a JSON object."""
    row = parse_json(line)
    if not isinstance(row, dict):
        raise DataError(f"got a JSON {type(row).__name__}, expected an object")
    return row


def _json_rows(lines: Lines) -> Iterator[Row | BadRow]:
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
            yield lines.number, bare(line), _json_row(line)
        except DataError as error:
            yield BadRow(line=lines.number, reason=f"not JSON: {error}", raw=bare(line))
