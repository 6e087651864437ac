"""Reads Parquet tables in batches that are bounded by bytes, whatever their columns hold."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.core.errors import DataError, StorageError

#: Errors that damaged Parquet files, and cells outside of Python's range, were seen to raise.
BROKEN_PARQUET: Final = (pa.ArrowException, OSError, ValueError, ArithmeticError, MemoryError)

#: Rows by which the size of the others is judged: a dictionary of one long text makes a few bytes
#: of a file into gigabytes of rows.
_PROBE_ROWS: Final = 64
_BATCH_BYTES: Final = 32 << 20
#: The largest uncompressed column of one row group that is read at all.
_MAX_CHUNK_BYTES: Final = 1 << 30


def parquet_names(path: Path) -> list[str]:
    """Names of the top-level columns, as the file has them.

    Raises
    ------
    DataError
        No such file, or not a Parquet file.
    StorageError
        It may not be opened.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        return [str(name) for name in pq.read_schema(path).names]
    except BROKEN_PARQUET as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{path}: cannot be opened ({error.strerror})") from error
        raise DataError(f"{path}: not a Parquet file ({error})") from error


def parquet_cells(path: Path, batch_rows: int) -> Iterator[tuple[list[list[Any]], dict[int, int]]]:
    """Columns of cells, in pieces of at most ``batch_rows`` rows.

    A cell that Python has no value for, such as a date in the year 5,881,580, is its text; with
    each piece goes the position of the first column with one, by row.

    Raises
    ------
    DataError
        The file is damaged, or holds more than fits.
    """
    done = 0
    try:
        with pq.ParquetFile(path) as table:
            for group in range(table.num_row_groups):
                _check_size(table.metadata.row_group(group))
                for batch in _batches(table, group, batch_rows):
                    read = [_python(column) for column in batch.columns]
                    odd = {row: at for at in reversed(range(len(read))) for row in read[at][1]}
                    yield [cells for cells, _ in read], odd
                    done += batch.num_rows
    except BROKEN_PARQUET as error:
        raise DataError(
            f"{path}: row {done + 1}: reading stopped here ({error}); copy the file again"
        ) from error


def _check_size(group: Any) -> None:
    for at in range(group.num_columns):
        size = group.column(at).total_uncompressed_size
        if size > _MAX_CHUNK_BYTES:
            raise DataError(
                f"column {group.column(at).path_in_schema!r} of a row group has {size} bytes, more "
                f"than {_MAX_CHUNK_BYTES}: write smaller row groups"
            )


def _batches(table: pq.ParquetFile, group: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of one row group, smaller where the first rows are large."""
    n_rows = batch_rows
    if table.metadata.row_group(group).num_rows > _PROBE_ROWS < batch_rows:
        probe = next(table.iter_batches(batch_size=_PROBE_ROWS, row_groups=[group]))
        per_row = max(1, probe.nbytes // probe.num_rows)
        n_rows = max(1, min(batch_rows, _BATCH_BYTES // per_row))
    yield from table.iter_batches(batch_size=n_rows, row_groups=[group])


def _python(column: pa.Array) -> tuple[list[Any], list[int]]:
    """Python values, and the rows in which there is none but a text."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [None if cell is None else _plain(cell) for cell in column.to_pylist()], []
    odd: list[int] = []
    try:
        cells = column.to_pylist()
    except BROKEN_PARQUET:
        cells = []
        for row, cell in enumerate(column):
            try:
                cells.append(cell.as_py())
            except BROKEN_PARQUET:
                cells.append(_text(cell))
                odd.append(row)
    if pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type):
        return [None if cell == "" else cell for cell in cells], odd
    return [_plain(cell) for cell in cells], odd


def _text(scalar: pa.Scalar) -> str:
    try:
        return str(scalar.cast(pa.string()).as_py())
    except BROKEN_PARQUET:
        return f"a {scalar.type}"


def _plain(cell: Any) -> Any:
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, bytes):
        cell = cell.decode(errors="backslashreplace")
    return None if cell == "" else cell
