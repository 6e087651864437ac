"""The Delta table of curves: every logged value once, the latest where one was corrected."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import unquote

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from recsys_ms.core import columns as c
from recsys_ms.core.files import file_errors
from recsys_ms.core.temporary import temporary_name
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.delta import (
    DELTA_ERRORS,
    READ_ERRORS,
    RESTORE,
    WAY_OUT,
    DeltaStore,
    to_frame,
)

#: Partition: month of the run's start, else of its first ingest, as ``2026-11``.
MONTH: Final = "month"
#: Grows with every commit: of two values of one point the one of the later round is valid.
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
_LEAST_FILES: Final = 8
#: A reader of an earlier version of the table has this long before its files are deleted.
_READERS_HOURS: Final = 24
_BATCH_ROWS: Final = 131_072


class CurveSpool:
    """Curves of one ingest, in a temporary file of the history until its runs are committed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / temporary_name("curves")
        self._writer: pq.ParquetWriter | None = None
        self._n_offered = 0

    def __bool__(self) -> bool:
        return self._writer is not None

    def add(self, curves: pa.Table, months: pa.Table) -> None:
        """Keep rows of ``CURVE_SCHEMA`` of the runs in ``months`` (``run_id``, ``month``)."""
        at = pc.index_in(curves[c.RUN_ID], value_set=months[c.RUN_ID].combine_chunks())
        known = at.is_valid()
        curves, at = curves.filter(known), at.filter(known)
        if not curves.num_rows:
            return
        self._n_offered += 1
        rows = curves.append_column(MONTH, months[MONTH].take(at)).append_column(
            ROUND, pa.repeat(pa.scalar(self._n_offered, pa.int64()), curves.num_rows)
        )
        with file_errors(f"{self.path}: the curves cannot be stored", WAY_OUT):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.path, STORED_CURVES, compression="zstd")
            self._writer.write_table(rows.cast(STORED_CURVES))

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()

    def discard(self) -> None:
        """Delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)


class CurveStore(DeltaStore):
    """Curves in a Delta table that is created with the first of them."""

    rows: ClassVar[str] = "curves"
    schema: ClassVar[pa.Schema] = STORED_CURVES
    partition_by: ClassVar[list[str] | None] = [MONTH]

    def append(self, spool: CurveSpool) -> int:
        """Write the new points of a spool, in one commit; the caller holds the lock.

        A point (run, metric, split, step, epoch) that is stored with the same value is not written
        again; with another value it is, and that value counts from then on. Gives the number of
        points written.
        """
        spool.close()
        if not spool:
            return 0
        table = self.table() or self.create()
        written: list[int] = []

        def fresh() -> Iterator[pa.Table]:
            for rows in self._fresh(table, spool.path):
                written.append(rows.num_rows)
                yield rows

        self.write(table, fresh())
        return sum(written)

    def _fresh(self, table: DeltaTable, spool: Path) -> Iterator[pa.Table]:
        """Points of a spool that the table does not have yet; of one offered twice the last."""
        number = pa.scalar(table.version() + 1, pa.int64())
        at = STORED_CURVES.get_field_index(ROUND)
        source = str(spool).replace("'", "''")
        same = " AND ".join(f"s.{name} IS NOT DISTINCT FROM t.{name}" for name in _POINT)
        for rows in self._answer(
            f"WITH offered AS ({_LATEST} FROM read_parquet('{source}') {_BY_POINT}), "  # noqa: S608
            f"known AS ({_LATEST} FROM stored "
            f"WHERE {c.RUN_ID} IN (SELECT {c.RUN_ID} FROM offered) {_BY_POINT}) "
            f"SELECT s.* FROM offered s LEFT JOIN known t ON {same} "
            f"WHERE t.{c.RUN_ID} IS NULL OR t.{c.VALUE} IS DISTINCT FROM s.{c.VALUE} "
            f"ORDER BY {', '.join(f's.{name}' for name in _POINT)}",
            self.dataset(table),
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
            return to_frame(CURVE_SCHEMA.empty_table())
        source = self.dataset(table)
        if run_ids is not None:
            source = source.filter(pc.field(c.RUN_ID).isin(list(run_ids)))
        for name, wanted in ((c.METRIC, metric), (c.SPLIT, split)):
            if wanted is not None:
                source = source.filter(pc.field(name) == wanted)
        query = f"{_LATEST} FROM stored {_BY_POINT} ORDER BY {', '.join(_POINT)}"
        found = pa.concat_tables([STORED_CURVES.empty_table(), *self._answer(query, source)])
        return to_frame(found.select(CURVE_SCHEMA.names))

    def compact(self) -> bool:
        """Rewrite months of many small files as few sorted ones, without corrected values.

        Files of earlier versions are deleted a day later, so that their readers can finish. Gives
        whether there is a new version.
        """
        table = self.table()
        if table is None:
            return False
        files = Counter(Path(uri).parent.name for uri in table.file_uris())
        months = sorted(name.partition("=")[2] for name, n in files.items() if n >= _LEAST_FILES)
        for month in months:
            of_month = f"{MONTH} = '{month}'"
            # A point may have been logged in another month, too: its latest value decides.
            query = (
                f"SELECT * FROM ({_LATEST} FROM stored WHERE {c.RUN_ID} IN "  # noqa: S608
                f"(SELECT {c.RUN_ID} FROM stored WHERE {of_month}) {_BY_POINT}) "
                f"WHERE {of_month} ORDER BY {', '.join(_POINT)}"
            )
            table = DeltaTable(self.folder)
            rows = self._answer(query, self.dataset(table))
            self.write(table, rows, predicate=of_month)
        what = f"{self.folder}: files of earlier versions cannot be deleted"
        with file_errors(what, "nothing is lost", catch=DELTA_ERRORS):
            if months:
                self._vacuum(DeltaTable(self.folder))
        return bool(months)

    def _vacuum(self, table: DeltaTable) -> None:
        """Delete files of earlier versions; first they are taken off the inventory."""
        for dry_run in (True, False):
            gone = table.vacuum(
                retention_hours=_READERS_HOURS, dry_run=dry_run, enforce_retention_duration=False
            )
            if dry_run and self._inventory is not None:
                self._inventory.drop(f"{self.folder.name}/{unquote(path)}" for path in gone)

    def _answer(self, query: str, stored: object) -> Iterator[pa.Table]:
        """Stream rows of ``STORED_CURVES`` from a query over the data set ``stored``.

        DuckDB may spill into the folder of the history.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": str(self.folder.parent / temporary_name("spill")),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        way_out = f"check the disk, or {RESTORE}"
        with (
            duckdb.connect(":memory:", config=config) as connection,
            file_errors(f"{self.folder}: the curves cannot be read", way_out, catch=READ_ERRORS),
        ):
            connection.register("stored", stored)
            for batch in connection.sql(query).to_arrow_reader(_BATCH_ROWS):
                rows = pa.Table.from_batches([batch])
                yield rows.select(STORED_CURVES.names).cast(STORED_CURVES)


def latest_curves(name: str) -> str:
    """SQL of the latest value of every point of a stored table, with the columns of a curve."""
    return f"SELECT {', '.join(CURVE_SCHEMA.names)} FROM ({_LATEST} FROM {name} {_BY_POINT})"  # noqa: S608


def months_of(runs: pa.Table) -> pa.Table:
    """Partition of each run's curves: ``run_id`` and ``month``."""
    now = datetime.now(UTC).strftime("%Y-%m")
    months = pc.fill_null(pc.strftime(runs[c.STARTED_AT], format="%Y-%m"), now)
    return pa.table({c.RUN_ID: runs[c.RUN_ID], MONTH: months})
