"""What the Delta tables of a history share: guarded appends, durable commits, compaction."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError

from recsys_ms.core.errors import StorageError
from recsys_ms.core.files import fsync_directory

#: How data files are written.
WRITER: Final = WriterProperties(compression="ZSTD")


class Guarded:
    """Keeps the error of an iterator that Arrow's C interface would turn into a text.

    Parameters
    ----------
    tables : iterator of pyarrow.Table
        What is to be written.
    """

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self.error: Exception | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the tables, one after the other."""
        try:
            for table in self._tables:
                yield from table.to_batches()
        except Exception as error:
            self.error = error
            raise


def append(
    table: DeltaTable, folder: Path, tables: Iterator[pa.Table], schema: pa.Schema, *, rows: str
) -> int:
    """Append to a Delta table in one durable commit, streaming; the caller holds the lock.

    Parameters
    ----------
    table : DeltaTable
        The table.
    folder : Path
        Its folder.
    tables : iterator of pyarrow.Table
        Rows of ``schema``.
    rows : str
        What the rows are, for messages.

    Returns
    -------
    int
        Version after the commit.

    Raises
    ------
    StorageError
        The disk is full or read-only; the table stays as it was.
    Exception
        Whatever ``tables`` raises, with nothing committed.
    """
    before = data_files(folder)
    stream = Guarded(tables)
    has = {field.name for field in table.schema().fields}
    try:
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(schema, stream.batches()),
            mode="append",
            # A table that an earlier version wrote lacks the columns of this one.
            schema_mode=None if has >= set(schema.names) else "merge",
            writer_properties=WRITER,
        )
    except (DeltaError, OSError, pa.ArrowException) as error:
        # The lock is ours and nothing was committed, so what is new here belongs to no version.
        for path in data_files(folder) - before:
            path.unlink(missing_ok=True)
        if stream.error is not None:
            raise stream.error from error
        raise StorageError(
            f"{folder}: the {rows} cannot be written ({first_line(error)}); nothing was "
            "committed: check that the folder is writable and has free space, and run again"
        ) from error
    version = int(table.version())
    make_durable(folder, data_files(folder) - before, version)
    return version


def compact(table: DeltaTable, folder: Path, *, least_files: int) -> bool:
    """Put the small files of a table together, when there are many; the rows stay as they are.

    The old files stay on the disk, since earlier versions are made of them.

    Returns
    -------
    bool
        Whether there is a new version.

    Raises
    ------
    StorageError
        The disk refuses; the table stays as it was.
    """
    if len(table.file_uris()) < least_files:
        return False
    before = data_files(folder)
    try:
        done = table.optimize.compact(writer_properties=WRITER)
    except (DeltaError, OSError, pa.ArrowException) as error:
        for path in data_files(folder) - before:
            path.unlink(missing_ok=True)
        raise StorageError(
            f"{folder}: small files cannot be put together ({first_line(error)}); nothing is "
            "lost: check that the folder is writable and has free space"
        ) from error
    make_durable(folder, data_files(folder) - before, int(table.version()))
    return bool(done["numFilesAdded"])


def data_files(folder: Path) -> set[Path]:
    """Data files of a Delta table, of partitions too."""
    return set(folder.glob("*.parquet")) | set(folder.glob("*/*.parquet"))


def make_durable(folder: Path, parts: Iterable[Path], version: int) -> None:
    """Flush a commit to the disk: what it came from may be deleted right after.

    Raises
    ------
    StorageError
        The disk refuses; the commit is written and may not survive a power cut.
    """
    log = folder / "_delta_log"
    files = [*parts, log / f"{version:020d}.json"]
    try:
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for each in {folder, *(path.parent for path in files)}:
            fsync_directory(each)
    except OSError as error:
        raise StorageError(
            f"{folder}: version {version} is written and may not survive a power cut "
            f"({error.strerror}); check the disk and run again, which repeats nothing"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text; Delta's go on for pages."""
    return str(error).strip().split("\n", 1)[0]
