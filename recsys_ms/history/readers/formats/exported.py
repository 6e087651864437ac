"""Tables that tracking tools export, CSV or Parquet: rows with the text they are made of."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.history.readers.csv_rows import unique_names
from recsys_ms.history.readers.lines import BadRow
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LoggedRun,
)
from recsys_ms.history.readers.parquet_rows import parquet_names as names_of
from recsys_ms.history.readers.sources import open_source

_PARQUET_MAGIC: Final = b"PAR1"
_BATCH_ROWS: Final = 5_000

_Renamed: TypeAlias = Callable[[Sequence[str], Sequence[str]], Sequence[str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One row of an exported table, and the names of all columns.

    It begins on the physical ``line`` (row, for Parquet), from 1. Empty cells are left out. ``raw``
    is header and row as CSV, which could replace the file; empty for Parquet.
    """

    line: int
    cells: Mapping[str, Any]
    raw: str
    names: Sequence[str]


def is_parquet(candidate: Candidate) -> bool:
    """Whether a file begins as Parquet does."""
    return candidate.head[:4] == _PARQUET_MAGIC


def parquet_names(path: Path) -> tuple[str, ...]:
    """Top-level columns of a Parquet file; empty if it cannot be read."""
    try:
        return tuple(names_of(path))
    except (DataError, StorageError):
        return ()


def has_columns(
    candidate: Candidate, fits: Callable[[Sequence[str], Sequence[str]], bool], *words: str
) -> bool:
    """Whether a file is a table whose columns, and cells of the first row, fit a format.

    For Parquet the first row is empty. The header of a CSV must contain ``words``, which are
    checked first: most files of a folder are other tables.
    """
    if is_parquet(candidate):
        return fits(parquet_names(candidate.path), ())
    text = candidate.head.decode("utf-8-sig", errors="backslashreplace")
    if "\x00" in text or not all(word in candidate.first_line for word in words):
        return False
    records: list[list[str]] = []
    try:
        for record in islice(filter(None, csv.reader(io.StringIO(text, newline=""))), 2):
            records.append([cell.strip() for cell in record])
    except csv.Error:
        # A cell longer than the csv module takes: the header before it still tells the format.
        pass
    names, first = [*records, [], []][:2]
    return bool(records) and fits(names, first)


class HeaderError(ValueError):
    """The columns of a table are not those of the format."""


def table_runs(
    place: Path,
    files: LogFiles,
    run_of: Callable[[TableRow], LoggedRun],
    renamed: _Renamed = lambda names, first: None,
) -> Iterator[LoggedRun | BadLog]:
    """Read the runs of an exported table, CSV or Parquet, in the order of the file.

    ``run_of`` gives the run of a row, or raises ``ValueError`` for an invalid one and
    :class:`HeaderError` for another table. ``renamed`` takes the column names and the cells of the
    first row as text; it gives the names to use if that row is a second header, else ``None``.

    Raises
    ------
    BadLogError
        The table is of another kind, its head cannot be read, or the file is cut off.
    """
    with ExitStack() as stack:
        path = place
        if files.given(place):
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "text.csv")
            path.write_text(files.text(place), "utf-8", errors="backslashreplace", newline="")
        for row in _rows(path, place, files, renamed):
            if isinstance(row, BadLog):
                yield row
                continue
            try:
                run: LoggedRun | BadLog = run_of(row)
            except ValueError as error:
                run = BadLog(file=place, reason=str(error), raw=row.raw, line=row.line)
                if isinstance(error, HeaderError):
                    raise BadLogError(run) from error
            yield run


def _rows(
    path: Path, place: Path, files: LogFiles, renamed: _Renamed
) -> Iterator[TableRow | BadLog]:
    parquet = is_parquet(Candidate(path))
    try:
        source = open_source(path, table_format="parquet" if parquet else "csv")
        names: Sequence[str] = unique_names(source.titles)
        header = _csv_line(names)
        n_rows = 0
        for batch in source.batches(_BATCH_ROWS) if names else ():
            cells = list(batch.columns.values())
            items: list[int | BadRow] = [*range(len(batch.lines)), *batch.bad]
            items.sort(key=lambda item: batch.lines[item] if isinstance(item, int) else item.line)
            for item in items:
                if isinstance(item, BadRow):
                    raw = header + item.raw
                    yield BadLog(file=place, reason=item.reason, raw=raw, line=item.line)
                    continue
                row = [column[item] for column in cells]
                n_rows += 1
                if n_rows == 1 and not parquet:
                    second = renamed(names, ["" if cell is None else str(cell) for cell in row])
                    if second is not None:
                        names, header = second, _csv_line(second)
                        continue
                raw = "" if parquet else header + batch.raw(item)
                found = {n: c for n, c in zip(names, row, strict=True) if c is not None}
                yield TableRow(line=batch.lines[item], cells=found, raw=raw, names=names)
    except (DataError, StorageError) as error:
        if isinstance(error, StorageError) and not parquet:
            raise
        raw = ""
        if not parquet:
            try:
                raw = files.text(place)
            except BadLogError as unreadable:
                raw = unreadable.bad.raw
        reason = str(error).replace(str(path), place.name)
        raise BadLogError(BadLog(file=place, reason=reason, raw=raw)) from error


def _csv_line(names: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(names)
    return out.getvalue()
