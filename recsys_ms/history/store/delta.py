"""A Delta table of a history: created, opened, and written to in durable commits."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import ClassVar, Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction
from pyarrow.dataset import Dataset
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.core.files import file_errors, fsync, reason_of
from recsys_ms.history.store.inventory import LOG_FOLDER, Inventory

#: Bytes from which on the rows of a commit are written here: delta-rs holds 8,192 rows however long
#: they are, twice, and gzip makes 17 MB of rows of a megabyte each.
_HELD_BYTES: Final = 64 << 20
_WRITER: Final = WriterProperties(compression="ZSTD")
WAY_OUT: Final = "check that the folder is writable and has free space"
RESTORE: Final = "see recsys-ms doctor, which can repair it, or restore the folder from a backup"
DELTA_ERRORS: Final = (DeltaError, OSError)
#: Of reading the files of a table.
READ_ERRORS: Final = (duckdb.Error, OSError, pa.ArrowException)
#: A log is kept whole, so that every version can be read and nothing goes unnoticed.
KEEP_LOG: Final[Mapping[str, str]] = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}


class DeltaStore:
    """A Delta table in a folder; a subclass says what its rows are."""

    #: What the rows are, for messages.
    rows: ClassVar[str]
    schema: ClassVar[pa.Schema]
    partition_by: ClassVar[list[str] | None] = None
    configuration: ClassVar[Mapping[str, str | None]] = KEEP_LOG

    def __init__(self, folder: Path, inventory: Inventory | None = None) -> None:
        self.folder = folder
        #: What the files of the table must be; a table that is being rebuilt has none.
        self._inventory = inventory

    def create(self) -> DeltaTable:
        """Create an empty table unless there is one."""
        what = f"{self.folder}: the table of {self.rows} cannot be created"
        with file_errors(what, WAY_OUT, catch=DELTA_ERRORS):
            return DeltaTable.create(
                self.folder,
                schema=self.schema,
                mode="ignore",
                partition_by=self.partition_by,
                configuration=self.configuration,
            )

    def table(self) -> DeltaTable | None:
        """The table, ``None`` if it was not created yet; ``DataError`` if it is damaged."""
        log = f"{self.folder.name}/{LOG_FOLDER}/"
        if self._inventory is not None:
            self._inventory.check(
                [name for name in self._inventory.files if name.startswith(log)], content=True
            )
        what = f"{self.folder}: the Delta log of the {self.rows} cannot be read"
        with file_errors(what, RESTORE, catch=DELTA_ERRORS, raises=DataError):
            try:
                return DeltaTable(self.folder)
            except TableNotFoundError:
                return None

    def data_files(self, table: DeltaTable | None) -> list[str]:
        """Data files of a table at its version, relative to the history; none of ``None``."""
        if table is None:
            return []
        # As URIs they would be encoded, and begin with where the table lies.
        return [
            f"{self.folder.name}/{path}" for path in table.get_add_actions()["path"].to_pylist()
        ]

    def dataset(self, table: DeltaTable) -> Dataset:
        """The rows of a table at its version, to be read.

        ``DataError`` if a data file is damaged: no reader of Parquet is shown such bytes.
        """
        if self._inventory is not None:
            self._inventory.check(self.data_files(table), content=True)
        # A file system in Python is called by threads of Arrow that may outlive an error, and crash
        # the interpreter at its end.
        files = SubTreeFileSystem(str(self.folder.absolute()), LocalFileSystem())
        # Columns that files of earlier versions do not have are null there. A filter by null would
        # pass them by, since the bounds that Delta states for such a column are wrong.
        return table.to_pyarrow_dataset(filesystem=files, schema=self.schema)

    def write(
        self, table: DeltaTable, tables: Iterable[pa.Table], *, predicate: str | None = None
    ) -> int:
        """Write rows of :attr:`schema` in one durable commit, streaming; without rows, no commit.

        The rows are appended, or replace those that fulfil ``predicate``. The caller holds the
        lock. Gives the latest version. After an error of ``tables``, or a ``StorageError`` (the
        disk is full or read-only), the table is as it was.
        """
        filled = (each for each in tables if each.num_rows)
        first = next(filled, None)
        if first is None:
            return int(table.version())
        failed: list[Exception] = []

        def rows() -> Iterator[pa.Table]:
            try:
                yield from chain([first], filled)
            except Exception as error:
                # Arrow's C interface makes a text of it.
                failed.append(error)
                raise pa.ArrowException(str(error)) from error

        has = {field.name for field in table.schema().fields}
        if not self.configuration.items() <= table.metadata().configuration.items():
            # A table of an earlier version; with appendOnly it has been right from the start.
            with self._commit(table, "written", failed):
                table.alter.set_table_properties(dict(KEEP_LOG))
        with self._commit(table, "written", failed):
            given = rows()
            is_plain = predicate is None and not self.partition_by and has == set(self.schema.names)
            held = list(_up_to(given, _HELD_BYTES)) if is_plain else []
            if sum(each.nbytes for each in held) >= _HELD_BYTES:
                self._append_part(table, chain(held, given))
            else:
                batches = (batch for each in chain(held, given) for batch in each.to_batches())
                write_deltalake(
                    table,
                    pa.RecordBatchReader.from_batches(self.schema, batches),
                    mode="append" if predicate is None else "overwrite",
                    predicate=predicate,
                    # A table of an earlier version may have fewer columns.
                    schema_mode=None if has >= set(self.schema.names) else "merge",
                    writer_properties=_WRITER,
                )
        return int(table.version())

    def _append_part(self, table: DeltaTable, tables: Iterable[pa.Table]) -> None:
        """Append rows as one file, a row group for each table, in one commit."""
        name = f"part-00000-{uuid.uuid4()}-c000.zstd.parquet"
        path = self.folder / name
        n_rows = 0
        with pq.ParquetWriter(path, self.schema, compression="zstd") as writer:
            for each in tables:
                writer.write_table(each.cast(self.schema))
                n_rows += each.num_rows
        state = path.stat()
        added = AddAction(
            path=name,
            size=state.st_size,
            partition_values={},
            modification_time=int(state.st_mtime * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": n_rows}),
        )
        table.create_write_transaction([added], mode="append", schema=table.schema())

    def merge_files(self, table: DeltaTable, *, least_files: int) -> bool:
        """Merge the small files of a table, if there are many; the rows stay as they are.

        The old files stay on the disk, since earlier versions consist of them. Gives whether there
        is a new version.
        """
        if len(table.file_uris()) < least_files:
            return False
        with self._commit(table, "merged into fewer files", []):
            done = table.optimize.compact(writer_properties=_WRITER)
        return bool(done["numFilesAdded"])

    @contextmanager
    def _commit(self, table: DeltaTable, done: str, failed: list[Exception]) -> Iterator[None]:
        """Make one commit durable, or leave no trace of it; ``failed`` holds errors of the rows."""
        before = _data_files(self.folder)
        try:
            yield
        except (DeltaError, OSError, pa.ArrowException) as error:
            # The lock is ours and nothing was committed: new files belong to no version.
            for path in _data_files(self.folder) - before:
                path.unlink(missing_ok=True)
            if failed:
                raise failed[0] from error
            raise StorageError(
                f"{self.folder}: the {self.rows} cannot be {done} ({reason_of(error)}); nothing "
                f"was committed: {WAY_OUT}, and run again"
            ) from error
        # A transaction of our own leaves the table as it was opened.
        with file_errors(
            f"{self.folder}: is written and cannot be read", RESTORE, catch=DELTA_ERRORS
        ):
            table.update_incremental()
        make_durable(self.folder, _data_files(self.folder) - before, int(table.version()))


def _up_to(tables: Iterable[pa.Table], n_bytes: int) -> Iterator[pa.Table]:
    """Tables up to the one with which they have so many bytes."""
    held = 0
    for each in tables:
        yield each
        held += each.nbytes
        if held >= n_bytes:
            return


def _data_files(folder: Path) -> set[Path]:
    """Data files of a Delta table, of partitions too."""
    return set(folder.glob("*.parquet")) | set(folder.glob("*/*.parquet"))


def make_durable(folder: Path, parts: Iterable[Path], version: int) -> None:
    """Flush a commit to the disk: its sources may be deleted right after."""
    files = [*parts, folder / LOG_FOLDER / f"{version:020d}.json"]
    with file_errors(
        f"{folder}: version {version} is written and may not survive a power cut",
        "check the disk and run again, which repeats nothing",
    ):
        for path in (*files, *{folder, *(path.parent for path in files)}):
            fsync(path)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas, which takes over its memory; nullable integers stay integers."""
    # As float64, seeds above 2^53 would change.
    return table.to_pandas(  # type: ignore[no-any-return]
        types_mapper={pa.int64(): pd.Int64Dtype()}.get, split_blocks=True, self_destruct=True
    )
