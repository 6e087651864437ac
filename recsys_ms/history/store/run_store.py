"""The Delta table of runs: read at any version, appended to in one commit, queried read-only."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.dataset import Dataset

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError
from recsys_ms.core.files import file_errors
from recsys_ms.history.store.curve_store import STORED_CURVES, latest_curves
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.dedup import (
    DIGEST,
    PROGRESS,
    SEQUENCE,
    STORED_SCHEMA,
    SUPERSEDES,
    RunIndex,
)
from recsys_ms.history.store.delta import (
    DELTA_ERRORS,
    KEEP_LOG,
    READ_ERRORS,
    RESTORE,
    DeltaStore,
    to_frame,
)
from recsys_ms.history.store.inventory import Inventory

_ROWS_TO_LEARN: Final = 65_536
#: Tables written before logs could grow have no progress.
_NEEDED: Final = set(STORED_SCHEMA.names) - {PROGRESS}
#: Files of a table before they are merged: a year of nights would be slow to open.
_LEAST_FILES: Final = 32
_QUERY_SETTINGS: Final = (
    "SET TimeZone = 'UTC'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class RunStore(DeltaStore):
    """Runs in a Delta table, read at ``version``, or at each call at the latest."""

    rows: ClassVar[str] = "runs"
    schema: ClassVar[pa.Schema] = STORED_SCHEMA
    #: Runs are kept for ever: no row is deleted, no log entry expires.
    configuration: ClassVar[Mapping[str, str | None]] = {"delta.appendOnly": "true", **KEEP_LOG}

    def __init__(
        self, folder: Path, inventory: Inventory | None = None, *, version: int | None = None
    ) -> None:
        super().__init__(folder, inventory)
        self._version = version

    @property
    def version(self) -> int:
        """Version that is read."""
        return int(self.at_version().version())

    def at_version(self) -> DeltaTable:
        """The table at the version that is read."""
        table = self.table()
        if table is None:
            raise DataError(f"{self.folder}: the table of runs is missing; {RESTORE}")
        if self._version is not None and self._version != table.version():
            if not 0 <= self._version <= table.version():
                raise UnknownIdError(
                    f"{self.folder}: there is no version {self._version}; "
                    f"this history has the versions 0 to {table.version()}"
                )
            what = f"{self.folder}: version {self._version} cannot be read"
            with file_errors(what, RESTORE, catch=DELTA_ERRORS, raises=DataError):
                table.load_as_version(self._version)
        missing = _NEEDED - {field.name for field in table.schema().fields}
        if missing:
            raise DataError(
                f"{self.folder}: this Delta table has no column {min(missing)!r}, so it is not a "
                "table of runs; name the folder of a history"
            )
        return table

    def _read(
        self, columns: Sequence[str], *, where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        dataset = self.dataset(self.at_version())
        what = f"{self.folder}: a part of the table cannot be read"
        with file_errors(what, RESTORE, catch=READ_ERRORS):
            yield from dataset.to_batches(columns=list(columns), filter=where)

    def states(self, columns: Sequence[str], *, where: pc.Expression | None = None) -> pa.Table:
        """Latest state of every run that fulfils ``where``, in no particular order."""
        gone = self._superseded()
        if len(gone):
            hidden = ~pc.field(SEQUENCE).isin(gone)
            where = hidden if where is None else hidden & where
        schema = pa.schema([STORED_SCHEMA.field(name) for name in columns])
        batches = [batch.cast(schema) for batch in self._read(columns, where=where)]
        return pa.Table.from_batches(batches, schema=schema)

    def _superseded(self) -> pa.Array:
        """Sequences of the rows that a later row replaced."""
        batches = self._read([SUPERSEDES], where=pc.field(SUPERSEDES).is_valid())
        return pa.chunked_array(
            [batch.column(0) for batch in batches], type=pa.int64()
        ).combine_chunks()

    def runs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Latest state of every run, sorted by ``run_id``; ``UsageError`` for an unknown column."""
        wanted = list(c.RUN_COLUMNS if columns is None else columns)
        unknown = [name for name in wanted if name not in c.RUN_COLUMNS]
        if unknown:
            raise UsageError(
                f"column {unknown[0]!r} is unknown; a run has {', '.join(c.RUN_COLUMNS)}"
            )
        read = wanted if c.RUN_ID in wanted else [*wanted, c.RUN_ID]
        table = self.states(read)
        order = pc.sort_indices(table[c.RUN_ID])
        return to_frame(table.select(wanted).take(order))

    def query(self, sql: str, *, curves: Dataset | None = None) -> pd.DataFrame:
        """Answer one SELECT over ``runs`` and ``curves``; see :meth:`History.query`."""
        table = self.at_version()
        with duckdb.connect(":memory:") as connection:
            connection.register("_stored", self.dataset(table))
            connection.register("_superseded", pa.table({SUPERSEDES: self._superseded()}))
            connection.execute(
                f"CREATE VIEW runs AS SELECT {', '.join(c.RUN_COLUMNS)} FROM _stored "  # noqa: S608
                f"WHERE {SEQUENCE} NOT IN (SELECT {SUPERSEDES} FROM _superseded)"
            )
            stored = STORED_CURVES.empty_table() if curves is None else curves
            connection.register("_curves", stored)
            connection.execute(f"CREATE VIEW curves AS {latest_curves('_curves')}")
            for setting in _QUERY_SETTINGS:
                connection.execute(setting)
            try:
                statements = connection.extract_statements(sql)
                kinds = [statement.type for statement in statements]
                if kinds != [duckdb.StatementType.SELECT]:
                    named = ", ".join(kind.name for kind in kinds) or "nothing"
                    raise DataError(
                        f"the query holds {named}; a history answers one SELECT over the views "
                        "runs and curves"
                    )
                return to_frame(connection.sql(statements[0]).to_arrow_table())
            except (duckdb.Error, pa.ArrowException) as error:
                raise DataError(
                    f"the query cannot be answered: {error}; "
                    f"the view runs has the columns {', '.join(c.RUN_COLUMNS)}; "
                    f"the view curves {', '.join(CURVE_SCHEMA.names)}"
                ) from error

    def index(self) -> RunIndex:
        """What the table holds, for deciding on runs that come in."""
        index = RunIndex()
        columns = [DIGEST, c.STATUS, SEQUENCE]
        if any(field.name == PROGRESS for field in self.at_version().schema().fields):
            columns.append(PROGRESS)
        waiting: list[pa.RecordBatch] = []
        # A table of many nights has many small files: learn from several at once.
        for batch in self._read(columns):
            waiting.append(batch)
            if sum(map(len, waiting)) >= _ROWS_TO_LEARN:
                index.learn(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            index.learn(pa.Table.from_batches(waiting))
        return index

    def append(self, tables: Iterable[pa.Table]) -> int:
        """Write tables of ``STORED_SCHEMA`` in one commit; see :meth:`DeltaStore.write`."""
        return self.write(self.at_version(), tables)

    def compact(self) -> bool:
        """Merge small files if there are many; see :meth:`DeltaStore.merge_files`."""
        return self.merge_files(self.at_version(), least_files=_LEAST_FILES)
