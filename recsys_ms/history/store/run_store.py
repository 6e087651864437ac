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
    ADDED_LATER,
    LEARNED,
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
_NEEDED: Final = set(STORED_SCHEMA.names) - ADDED_LATER
#: Columns that a reader may ask for, and those of the view of retracted runs.
RETRACTED_COLUMNS: Final = (*c.RUN_COLUMNS, c.INGEST_ID, c.RETRACTION)
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
        self._at_once: Dataset | None = None

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

    def as_it_is(self) -> "RunStore":
        """A store that reads the present files for ever, also while a commit is streamed."""
        if self._at_once is not None:
            return self
        store = RunStore(self.folder, self._inventory, version=self._version)
        store._at_once = self.dataset(self.at_version())
        return store

    def _read(
        self, columns: Sequence[str], *, where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        dataset = self._at_once or self.dataset(self.at_version())
        what = f"{self.folder}: a part of the table cannot be read"
        with file_errors(what, RESTORE, catch=READ_ERRORS):
            yield from dataset.to_batches(columns=list(columns), filter=where)

    def states(
        self,
        columns: Sequence[str],
        *,
        where: pc.Expression | None = None,
        retracted: bool | None = None,
    ) -> pa.Table:
        """Latest state of every run that fulfils ``where``, in no particular order.

        ``retracted``: only of retracted runs, or only of the others.
        """
        # All parts of the answer come from one version.
        now = self.as_it_is()
        gone = now._superseded()
        if retracted is not None:
            found = now._retracted(gone)
            if retracted:
                only = pc.field(SEQUENCE).isin(found)
                where = only if where is None else only & where
            else:
                gone = pa.concat_arrays([gone, found])
        if len(gone):
            hidden = ~pc.field(SEQUENCE).isin(gone)
            where = hidden if where is None else hidden & where
        schema = pa.schema([STORED_SCHEMA.field(name) for name in columns])
        batches = [batch.cast(schema) for batch in now._read(columns, where=where)]
        return pa.Table.from_batches(batches, schema=schema)

    def _superseded(self) -> pa.Array:
        """Sequences of the rows that a later row replaced."""
        batches = self._read([SUPERSEDES], where=pc.field(SUPERSEDES).is_valid())
        return pa.chunked_array(
            [batch.column(0) for batch in batches], type=pa.int64()
        ).combine_chunks()

    def _retracted(self, superseded: pa.Array) -> pa.Array:
        """Sequences of the rows that say that a run is retracted."""
        found = [pa.array([], pa.int64())]
        for batch in self._read([SEQUENCE, c.RETRACTION]):
            kept = batch.column(0).filter(batch.column(1).is_valid())
            found.append(kept.filter(pc.invert(pc.is_in(kept, value_set=superseded))))
        return pa.concat_arrays(found)

    def values(self, columns: Sequence[str]) -> Iterator[set[str]]:
        """Distinct texts of each column, over all states that ever were."""
        found: list[pa.RecordBatch] = list(self._read(columns))
        for at in range(len(columns)):
            texts = [pc.unique(batch.column(at)).drop_null().to_pylist() for batch in found]
            yield set().union(*texts)

    def runs(
        self, columns: Sequence[str] | None = None, *, retracted: bool = False
    ) -> pd.DataFrame:
        """Latest state of every run, sorted by ``run_id``; ``UsageError`` for an unknown column."""
        default = RETRACTED_COLUMNS if retracted else c.RUN_COLUMNS
        wanted = list(default if columns is None else columns)
        unknown = [name for name in wanted if name not in RETRACTED_COLUMNS]
        if unknown:
            raise UsageError(
                f"column {unknown[0]!r} is unknown; a run has {', '.join(RETRACTED_COLUMNS)}"
            )
        read = wanted if c.RUN_ID in wanted else [*wanted, c.RUN_ID]
        table = self.states(read, retracted=None if retracted else False)
        order = pc.sort_indices(table[c.RUN_ID])
        return to_frame(table.select(wanted).take(order))

    def query(self, sql: str, *, curves: Dataset | None = None) -> pd.DataFrame:
        """Answer one SELECT over the views; see :meth:`History.query`."""
        now = self.as_it_is()
        superseded = now._superseded()
        retracted = now._retracted(superseded)
        with duckdb.connect(":memory:") as connection:
            connection.register("_stored", now._at_once)
            connection.register("_retracted", pa.table({SEQUENCE: retracted}))
            hidden = pa.table({SEQUENCE: pa.concat_arrays([superseded, retracted])})
            connection.register("_hidden", hidden)
            # Behind an expression, so that no filter by null reaches the files: see dataset.
            shown = f"{', '.join(c.RUN_COLUMNS)}, nullif({c.INGEST_ID}, '') AS {c.INGEST_ID}"
            by = f", nullif({c.RETRACTION}, '') AS {c.RETRACTION}"
            for view, names, rows in (
                ("runs", shown, "NOT IN (FROM _hidden)"),
                ("retracted_runs", shown + by, "IN (FROM _retracted)"),
            ):
                connection.execute(
                    f"CREATE VIEW {view} AS SELECT {names} FROM _stored WHERE {SEQUENCE} {rows}"  # noqa: S608
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
                        "runs, retracted_runs and curves"
                    )
                return to_frame(connection.sql(statements[0]).to_arrow_table())
            except (duckdb.Error, pa.ArrowException) as error:
                raise DataError(
                    f"the query cannot be answered: {error}; "
                    f"the view runs has the columns {', '.join((*c.RUN_COLUMNS, c.INGEST_ID))}; "
                    f"the view curves {', '.join(CURVE_SCHEMA.names)}"
                ) from error

    def index(self) -> RunIndex:
        """What the table holds, for deciding on runs that come in."""
        index = RunIndex()
        waiting: list[pa.RecordBatch] = []
        # A table of many nights has many small files: learn from several at once.
        for batch in self._read(LEARNED):
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
