"""The Delta table of curves: every logged value once, the latest where one was corrected."""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.history.store import delta
from recsys_ms.history.store.curves import CURVE_SCHEMA

#: Partition: month of the run's start, else of its first ingest, as ``2026-11``.
MONTH: Final = "month"
#: Grows with every commit: the larger one of two values of one point is the valid one.
ROUND: Final = "_round"
STORED_CURVES: Final = pa.schema(
    [*CURVE_SCHEMA, pa.field(MONTH, pa.string()), pa.field(ROUND, pa.int64())]
)

_POINT: Final = (c.RUN_ID, c.METRIC, c.SPLIT, c.STEP, c.EPOCH)
_LATEST: Final = (
    f"SELECT {', '.join(_POINT)}, arg_max({c.VALUE}, {ROUND}) AS {c.VALUE}, "
    f"arg_max({MONTH}, {ROUND}) AS {MONTH}, max({ROUND}) AS {ROUND}"
)
_BY_POINT: Final = f"GROUP BY {', '.join(_POINT)}"
_SPOOL: Final = ".curves-"
_LEAST_FILES: Final = 8
#: Whoever reads an earlier version of the table has this long before its files go.
_READERS_HOURS: Final = 24
_BATCH_ROWS: Final = 131_072


class CurveSpool:
    """Curves of one ingest, kept in a temporary file until its runs are committed.

    Parameters
    ----------
    folder : Path
        Folder of the history.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{_SPOOL}{secrets.token_hex(4)}.tmp"
        self._writer: pq.ParquetWriter | None = None
        self._n_offered = 0

    def __bool__(self) -> bool:
        return self._writer is not None

    @staticmethod
    def sweep(folder: Path) -> None:
        """Delete what killed ingests left behind; the caller holds the lock."""
        for path in folder.glob(f"{_SPOOL}*.tmp"):
            path.unlink(missing_ok=True)

    def add(self, curves: pa.Table, months: pa.Table) -> None:
        """Keep curves of runs.

        Parameters
        ----------
        curves : pyarrow.Table
            Rows of ``CURVE_SCHEMA``.
        months : pyarrow.Table
            Columns ``run_id`` and ``month`` of the runs that are taken; curves of others are not.

        Raises
        ------
        StorageError
            The disk is full or read-only.
        """
        at = pc.index_in(curves[c.RUN_ID], value_set=months[c.RUN_ID].combine_chunks())
        known = at.is_valid()
        curves, at = curves.filter(known), at.filter(known)
        if not curves.num_rows:
            return
        self._n_offered += 1
        rows = curves.append_column(MONTH, months[MONTH].take(at)).append_column(
            ROUND, pa.repeat(pa.scalar(self._n_offered, pa.int64()), curves.num_rows)
        )
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.path, STORED_CURVES, compression="zstd")
            self._writer.write_table(rows.cast(STORED_CURVES))
        except OSError as error:
            raise StorageError(
                f"{self.path}: the curves cannot be kept ({error.strerror or error}); check that "
                "the folder of the history is writable and has free space"
            ) from error

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()

    def discard(self) -> None:
        """Delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)


class CurveStore:
    """Curves in a Delta table that is created with the first of them.

    Parameters
    ----------
    folder : Path
        Folder of the Delta table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def table(self) -> DeltaTable | None:
        """The table, ``None`` where no curve was ever kept.

        Raises
        ------
        DataError
            The table is damaged.
        """
        try:
            return DeltaTable(self.folder)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise DataError(
                f"{self.folder}: the Delta log of the curves cannot be read "
                f"({delta.first_line(error)}); restore the folder from a backup"
            ) from error

    def append(self, spool: CurveSpool) -> int:
        """Write what is new in a spool, in one commit; the caller holds the lock.

        A point (run, metric, split, step, epoch) that is stored with the same value is not written
        again; with another value it is, and counts from then on.

        Returns
        -------
        int
            Points written.

        Raises
        ------
        StorageError
            The disk is full or read-only; the table stays as it was.
        """
        spool.close()
        if not spool:
            return 0
        table = self.table()
        if table is None:
            table = self._create()
        n_written = 0

        def fresh() -> Iterator[pa.Table]:
            nonlocal n_written
            for rows in self._fresh(table, spool.path):
                n_written += rows.num_rows
                yield rows

        stream = fresh()
        first = next(stream, None)
        if first is None:
            return 0

        def all_of_them() -> Iterator[pa.Table]:
            yield first
            yield from stream

        delta.append(table, self.folder, all_of_them(), STORED_CURVES, rows="curves")
        return n_written

    def _create(self) -> DeltaTable:
        try:
            return DeltaTable.create(
                self.folder, schema=STORED_CURVES, mode="ignore", partition_by=[MONTH]
            )
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"{self.folder}: the table of curves cannot be created "
                f"({delta.first_line(error)}); check that the folder is writable and has free space"
            ) from error

    def _fresh(self, table: DeltaTable, spool: Path) -> Iterator[pa.Table]:
        """Points of a spool that the table does not hold yet; of one offered twice the last."""
        number = pa.scalar(table.version() + 1, pa.int64())
        at = STORED_CURVES.get_field_index(ROUND)
        with _Queries(self.folder.parent) as queries:
            queries.register(
                "offered", f"{_LATEST} FROM read_parquet('{_quoted(spool)}') {_BY_POINT}"
            )
            queries.register("stored", table.to_pyarrow_dataset())
            known = f"{_LATEST} FROM stored WHERE {c.RUN_ID} IN (SELECT {c.RUN_ID} FROM offered)"  # noqa: S608
            queries.register("known", f"{known} {_BY_POINT}")
            same = " AND ".join(f"s.{name} IS NOT DISTINCT FROM t.{name}" for name in _POINT)
            for rows in queries.answer(
                f"SELECT s.* FROM offered s LEFT JOIN known t ON {same} "  # noqa: S608
                f"WHERE t.{c.RUN_ID} IS NULL OR t.{c.VALUE} IS DISTINCT FROM s.{c.VALUE} "
                f"ORDER BY {', '.join(f's.{name}' for name in _POINT)}"
            ):
                stamp = pa.repeat(number, rows.num_rows)
                yield rows.set_column(at, STORED_CURVES.field(ROUND), stamp)

    def curves(
        self,
        run_ids: Sequence[str] | None = None,
        *,
        metric: str | None = None,
        split: str | None = None,
    ) -> pd.DataFrame:
        """Latest value of every point; see :meth:`recsys_ms.history.history.History.curves`."""
        table = self.table()
        if table is None:
            return _frame(CURVE_SCHEMA.empty_table())
        wanted = [
            condition
            for condition in (
                None if run_ids is None else pc.field(c.RUN_ID).isin(list(run_ids)),
                None if metric is None else pc.field(c.METRIC) == metric,
                None if split is None else pc.field(c.SPLIT) == split,
            )
            if condition is not None
        ]
        source = table.to_pyarrow_dataset()
        for condition in wanted:
            source = source.filter(condition)
        with _Queries(self.folder.parent) as queries:
            queries.register("stored", source)
            query = f"{_LATEST} FROM stored {_BY_POINT} ORDER BY {', '.join(_POINT)}"
            found = pa.concat_tables([STORED_CURVES.empty_table(), *queries.answer(query)])
        return _frame(found.select(CURVE_SCHEMA.names))

    def compact(self) -> bool:
        """Rewrite months of many small files as few sorted ones, without corrected values.

        Files of earlier versions are deleted a day later, so that whoever reads one can finish.

        Returns
        -------
        bool
            Whether there is a new version.

        Raises
        ------
        StorageError
            The disk refuses; nothing is lost.
        """
        table = self.table()
        if table is None:
            return False
        files = Counter(Path(uri).parent.name for uri in table.file_uris())
        months = sorted(name.partition("=")[2] for name, n in files.items() if n >= _LEAST_FILES)
        for month in months:
            self._rewrite(month)
        if months:
            self._vacuum()
        return bool(months)

    def _rewrite(self, month: str) -> None:
        table = DeltaTable(self.folder)
        before = delta.data_files(self.folder)
        with _Queries(self.folder.parent) as queries:
            queries.register("stored", table.to_pyarrow_dataset())
            rows = queries.answer(
                f"SELECT * FROM ({_LATEST} FROM stored WHERE {c.RUN_ID} IN "  # noqa: S608
                f"(SELECT {c.RUN_ID} FROM stored WHERE {MONTH} = '{month}') {_BY_POINT}) "
                f"WHERE {MONTH} = '{month}' ORDER BY {', '.join(_POINT)}"
            )
            stream = delta.Guarded(rows)
            try:
                write_deltalake(
                    table,
                    pa.RecordBatchReader.from_batches(STORED_CURVES, stream.batches()),
                    mode="overwrite",
                    predicate=f"{MONTH} = '{month}'",
                    writer_properties=delta.WRITER,
                )
            except (DeltaError, OSError, pa.ArrowException) as error:
                for path in delta.data_files(self.folder) - before:
                    path.unlink(missing_ok=True)
                raise stream.error or StorageError(
                    f"{self.folder}: the curves of {month} cannot be rewritten "
                    f"({delta.first_line(error)}); nothing is lost: check that the folder is "
                    "writable and has free space"
                ) from error
        delta.make_durable(
            self.folder, delta.data_files(self.folder) - before, int(table.version())
        )

    def _vacuum(self) -> None:
        try:
            DeltaTable(self.folder).vacuum(
                retention_hours=_READERS_HOURS, dry_run=False, enforce_retention_duration=False
            )
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"{self.folder}: files of earlier versions cannot be deleted "
                f"({delta.first_line(error)}); nothing is lost"
            ) from error


class _Queries:
    """DuckDB over the curves, which may spill into the folder of the history."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": str(folder / f".spill-{secrets.token_hex(4)}.tmp"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )

    def __enter__(self) -> "_Queries":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def register(self, name: str, source: object) -> None:
        """Give a query or an Arrow data set a name."""
        if isinstance(source, str):
            self._connection.execute(f"CREATE VIEW {name} AS {source}")
        else:
            self._connection.register(name, source)

    def answer(self, query: str) -> Iterator[pa.Table]:
        """Rows of ``STORED_CURVES``, streamed.

        Raises
        ------
        StorageError
            A file cannot be read, or the disk is full.
        """
        try:
            for batch in self._connection.sql(query).to_arrow_reader(_BATCH_ROWS):
                rows = pa.Table.from_batches([batch])
                yield rows.select(STORED_CURVES.names).cast(STORED_CURVES)
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise StorageError(
                f"{self._folder}: the curves cannot be read ({delta.first_line(error)}); check the "
                "disk, or restore the folder from a backup"
            ) from error


def latest_curves(name: str) -> str:
    """SQL of the latest value of every point of a stored table, with the columns of a curve."""
    return f"SELECT {', '.join(CURVE_SCHEMA.names)} FROM ({_LATEST} FROM {name} {_BY_POINT})"  # noqa: S608


def months_of(runs: pa.Table) -> pa.Table:
    """Partition of each run's curves: ``run_id`` and ``month``."""
    now = datetime.now(UTC).strftime("%Y-%m")
    months = pc.fill_null(pc.strftime(runs[c.STARTED_AT], format="%Y-%m"), now)
    return pa.table({c.RUN_ID: runs[c.RUN_ID], MONTH: months})


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)  # type: ignore[no-any-return]
