"""Runs out of tables (CSV, TSV, JSONL, Parquet), streamed: every row a run, or in quarantine."""

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.readers.batch import BadRow, SourceBatch
from recsys_ms.history.readers.expressions import ColumnKind
from recsys_ms.history.readers.fields import JsonField, RunValues
from recsys_ms.history.readers.mapping import BoundMapping, FieldMapping
from recsys_ms.history.readers.rows import (
    TABLE_READER,
    MappedRows,
    RowMapper,
    batch_of,
    stored_options,
)
from recsys_ms.history.readers.sources import (
    BATCH_ROWS,
    Source,
    TableFormat,
    open_source,
)
from recsys_ms.history.readers.templates import (
    plain_text,
    without_thousands,
)
from recsys_ms.history.store.schema import build_runs

_LOGGER: Final = logging.getLogger(__name__)

#: Fields a mapping may give: those of a run that the history does not set itself.
RUN_FIELDS: Final = tuple(name for name in c.RUN_COLUMNS if name != c.INGESTED_AT)
_OPEN_FIELDS: Final = {c.HYPERPARAMETERS, c.TAGS}
_NUMBERS: Final = (c.EPOCH, c.SEED, c.COST_GPU_SECONDS)


class TableReader:
    """Batches of runs of one table; iterate it, then look at :attr:`warnings`.

    Parameters
    ----------
    source : Source
        The table.
    mapping : FieldMapping
        How its columns become fields of runs.
    batch_rows : int
        Rows held at a time.
    kinds : mapping of column name to kind, optional
        What the columns hold in expressions; default: decided from the first rows.

    Raises
    ------
    UsageError
        The mapping does not fit the table, or a required field is neither mapped nor set.
    """

    def __init__(
        self,
        source: Source,
        mapping: FieldMapping,
        *,
        batch_rows: int = BATCH_ROWS,
        kinds: Mapping[str, ColumnKind] | None = None,
    ) -> None:
        self._mapper = RowMapper(
            source, mapping, fields=RUN_FIELDS, open_fields=_OPEN_FIELDS, kind="run", kinds=kinds
        )
        self._batch_rows = batch_rows
        self._largest: float | None = None
        self._json = {name: JsonField(name) for name in _OPEN_FIELDS}
        _check_required(self._mapper.bound, source)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong about the rows read so far, though each could be read."""
        found = [
            f"{name} was empty in every row; check its template {self._mapper.mapping.map[name]!r}"
            for name in self._mapper.never_filled()
        ]
        largest = self._largest
        if self._mapper.mapping.unit == "percent" and largest is not None and 0 < largest <= 1:
            found.append(
                f"the unit is percent and no value is above {largest:g}: were these fractions "
                "already? Then ingest with unit='fraction' (--unit fraction)"
            )
        return tuple(found)

    def __iter__(self) -> Iterator[ReadBatch]:
        for batch in self._mapper.source.batches(self._batch_rows):
            yield self.read(batch)
        for text in self.warnings:
            _LOGGER.warning("%s: %s", self._mapper.source.path, text)

    def read(self, batch: SourceBatch) -> ReadBatch:
        """Turn one batch of the table into runs and rejects."""
        mapped = self._mapper.map(batch)
        values = RunValues.of(mapped, self._mapper)
        if values.largest is not None:
            self._largest = max(values.largest, self._largest or values.largest)
        problems = dict(values.problems)
        good = [row for row in range(len(mapped.rows)) if row not in problems]
        columns = self._arrow(mapped, values)
        if problems:
            chosen = pa.array(good, pa.int64())
            columns = {name: column.take(chosen) for name, column in columns.items()}
        built = build_runs(columns, len(good))
        problems |= {good[row]: reason for row, reason in built.problems.items()}
        bad = [
            BadRow(line=mapped.line(row), reason=reason, raw=mapped.raw(row))
            for row, reason in problems.items()
        ]
        rejects = sorted((*batch.bad, *bad), key=lambda row: row.line)
        return ReadBatch(
            runs=built.runs,
            rejects=tuple(map(self._mapper.reject, rejects)),
            n_left_out=mapped.n_left_out,
            file=self._mapper.file,
            lines=tuple(mapped.line(good[row]) for row in built.rows.tolist()),
        )

    def _arrow(self, mapped: MappedRows, values: "RunValues") -> dict[str, pa.Array]:
        n_rows = len(mapped.rows)
        constants = self._mapper.bound.constants
        cells: dict[str, list[Any]] = {
            name: mapped.fields[name] for name in RUN_FIELDS if name in mapped.fields
        }
        for name in _NUMBERS:
            if name in cells:
                cells[name] = [without_thousands(cell) for cell in cells[name]]
        cells.update(values.status(mapped, constants.get(c.STATUS)))
        arrays = {
            name: pa.array([_text(cell) for cell in column], pa.string())
            for name, column in cells.items()
            if name not in _OPEN_FIELDS
        }
        for name, text in {c.SOURCE: self._mapper.source.path.name, **constants}.items():
            if name in RUN_FIELDS and name not in arrays and name not in _OPEN_FIELDS:
                arrays[name] = pa.repeat(text, n_rows)
        # NaN and infinities stay what they are here: build_runs says why they are refused.
        arrays[c.VALUE] = pa.array(values.numbers, pa.float64(), mask=values.empty)
        for name, json_field in self._json.items():
            extra = values.tags if name == c.TAGS else None
            column = json_field.compose(mapped, constants, extra)
            if column is not None:
                arrays[name] = pa.array(column, pa.string())
        return arrays


def read_table(
    path: str | Path,
    mapping: FieldMapping | None = None,
    *,
    table_format: TableFormat | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    batch_rows: int = BATCH_ROWS,
) -> TableReader:
    """Read runs out of a table, in batches of bounded memory.

    Every row becomes a run, is left out by ``mapping.where`` and counted, or becomes a reject with
    its line, the reason and its text. Rows that say no ``run_id`` get one of their identifying
    fields, the name of the file included (unless ``source`` is given): ingesting a file twice
    changes nothing, and rows that agree in all of them are one run: map ``run_id``, or a
    hyperparameter that tells them apart. Text that spells a number becomes one inside
    ``hyperparameters``. Thousands separators (``1,013.01``) are read in numeric fields.

    Parameters
    ----------
    path : str or Path
        The table; see :func:`recsys_ms.history.readers.sources.open_source`.
    mapping : FieldMapping, optional
        Default: columns that have the name of a field of a run, as they are.
    table_format : {"csv", "tsv", "jsonl", "parquet"}, optional
        Default: by the suffix, ``.gz`` on top allowed.
    delimiter : str, optional
        Of CSV (comma) and TSV (tab).
    encoding : str, default "utf-8"
        Of a text format.
    batch_rows : int, default 50,000
        Rows held at a time.

    Returns
    -------
    TableReader
        Iterate it for :class:`ReadBatch`; afterwards ``warnings`` says what looks wrong as a whole.

    Raises
    ------
    UsageError
        Before any row is read: a template that names no column, an unknown field, a required field
        (``model_id``, ``task_id``, ``metric``, ``direction``, and ``value`` unless the status is
        set to another than ``finished``) that is neither mapped nor set.
    DataError
        No such file, an empty one, or the wrong delimiter.
    """
    source = open_source(path, table_format=table_format, delimiter=delimiter, encoding=encoding)
    return TableReader(source, mapping or FieldMapping(), batch_rows=batch_rows)


def replay_row(reject: Reject, mapping: FieldMapping | None = None) -> ReadBatch:
    """Read a quarantined row again.

    Parameters
    ----------
    reject : Reject
        One whose ``reader`` is ``"table"``; ``raw`` may have been corrected.
    mapping : FieldMapping, optional
        Default: the one it was read with.

    Returns
    -------
    ReadBatch
        One run, or one reject, or one row left out.

    Raises
    ------
    UsageError
        The mapping does not fit the columns of the file the row stood in.
    DataError
        The reject is not a row of a table of runs.
    """
    stored = stored_options(reject)
    if stored.kind != "run":
        raise DataError(
            f"{reject.file}: line {reject.line} is the row of a {stored.kind}, not of a run; "
            "correct the file and import it again"
        )
    reader = _replaying(reject.file, reject.options, None if mapping is None else mapping.to_json())
    if stored.final:
        # What was kept is not what the file said, so it must not become a run.
        return reader.read(_only_bad(stored.source, reject, stored.final))
    return reader.read(batch_of(reject, stored.source))


@lru_cache(maxsize=4)
def _replaying(file: str, options: str, mapping: str | None) -> TableReader:
    """Reader of single rows; made once for the many rows of one file."""
    like = Reject(file=file, line=None, reason="", raw="", reader=TABLE_READER, options=options)
    stored = stored_options(like)
    chosen = stored.mapping if mapping is None else FieldMapping.from_json(mapping)
    return TableReader(stored.source, chosen, kinds=stored.kinds)


def _only_bad(source: Source, reject: Reject, final: str) -> SourceBatch:
    row = BadRow(line=reject.line or 1, reason=reject.reason, raw=reject.raw, final=final)
    return SourceBatch(columns={name: [] for name in source.columns}, lines=[], raws=[], bad=(row,))


def _check_required(bound: BoundMapping, source: Source) -> None:
    needed = list(c.REQUIRED_COLUMNS)
    if c.STATUS not in bound.templates and bound.constants.get(c.STATUS, "finished") == "finished":
        needed.append(c.VALUE)
    lacking = [name for name in needed if name not in bound]
    if lacking:
        ways = "; ".join(
            f"--map {name}='{{COLUMN}}'" + ("" if name == c.VALUE else f" or --set {name}=TEXT")
            for name in lacking
        )
        raise UsageError(
            f"{source.path}: a run needs {', '.join(lacking)}, which no column says: give {ways}. "
            f"Columns are: {', '.join(source.columns)}"
        )


def _text(cell: Any) -> str | None:
    return cell if cell is None or type(cell) is str else plain_text(cell)
