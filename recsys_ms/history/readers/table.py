"""Reads runs from tables (CSV, JSON, Parquet, wide ones): each row becomes a run or a reject."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError, did_you_mean
from recsys_ms.core.types import JsonDict
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.readers.expressions import ColumnKind
from recsys_ms.history.readers.fields import (
    NUMBER_FIELDS,
    OPEN_FIELDS,
    RUN_FIELDS,
    RunArrays,
    RunColumns,
    check_constants,
    missing_rows,
)
from recsys_ms.history.readers.lines import BadRow
from recsys_ms.history.readers.mapping import BoundMapping, FieldMapping
from recsys_ms.history.readers.number_style import SIGNS, settles
from recsys_ms.history.readers.rows import TABLE_READER, MappedRows, RowMapper, stored_options
from recsys_ms.history.readers.settled_direction import settle_direction
from recsys_ms.history.readers.sources import (
    BATCH_ROWS,
    Source,
    SourceBatch,
    TableFormat,
    open_source,
)
from recsys_ms.history.readers.steps import steps_in
from recsys_ms.history.readers.templates import named, text_of
from recsys_ms.history.readers.wide import Wide
from recsys_ms.history.store.schema import RUN_SCHEMA, build_runs

#: Values in two units have a gap between them; in one unit, runs of all qualities fill it.
_GAP: Final = 5.0
#: Columns that are compared with the name of a missing one.
_N_COMPARED: Final = 1_000


class TableReader:
    """Batches of runs of one table; iterate it, then look at :attr:`warnings`.

    Parameters
    ----------
    source, mapping : Source, FieldMapping
        The table, and how its columns become fields of runs.
    batch_rows : int
        Rows held at a time.
    kinds : mapping of column name to kind, optional
        Kinds of the columns in expressions; default: by the first rows.

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
            source, mapping, fields=RUN_FIELDS, open_fields=OPEN_FIELDS, kind="run", kinds=kinds
        )
        self._batch_rows = batch_rows
        self._largest: float | None = None
        #: Values that would be fractions as they stand, above 0 and at most 0.01: how many, the
        #: largest of them, and the smallest of the others.
        self._n_tiny, self._tiny, self._next = 0, 0.0, math.inf
        self._arrays = RunArrays(mapping)
        #: Fields, each with a kind of sign, of which some cell shows how the sign is to be taken.
        self._settled: set[tuple[str, str]] = set()
        _check_required(self._mapper.bound, source)
        check_constants(self._mapper.bound.constants, mapping)
        self._ask([self._mapper.bound.constants.get(c.METRIC)])

    @property
    def how(self) -> JsonDict:
        """Source and options, for the record of an ingest."""
        source = self._mapper.source
        mapping = json.loads(self._mapper.mapping.to_json())
        return {
            "sources": [self._mapper.file],
            "format": source.table_format,
            "mapping": {name: value for name, value in mapping.items() if value},
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """Suspicions about the rows read so far, although each could be read."""
        found = [
            f"{name} was empty in every row; check its template {self._mapper.mapping.map[name]!r}"
            for name in self._mapper.never_filled()
        ]
        largest = self._largest
        if self._mapper.mapping.unit != "percent" or largest is None:
            return tuple(found)
        if 0 < largest <= 0.01:
            found.append(
                f"the unit is percent and no value is above {100 * largest:g}: were these "
                "fractions already? Then ingest with unit='fraction' (--unit fraction)"
            )
        elif self._n_tiny and self._next > _GAP * self._tiny:
            found.append(
                f"the unit is percent, {self._n_tiny} of the values are not above 1 and all others "
                f"at least {100 * self._next:g}: were these fractions already? Then ingest them "
                "apart, with --where"
            )
        return tuple(found)

    @property
    def unused_columns(self) -> tuple[str, ...]:
        """Columns of the table that neither a field nor an expression uses."""
        return tuple(self._mapper.unused_columns())

    def __iter__(self) -> Iterator[ReadBatch]:
        for number, batch in enumerate(self._mapper.source.batches(self._batch_rows)):
            mapped = self._mapper.map(batch)
            columns = self._columns(mapped)
            self._ask(mapped.fields.get(c.METRIC, ()))
            self._ask_signs(mapped, columns)
            built = self._built(batch, mapped, columns)
            if number == 0:
                _check_not_steps(batch, built, self._mapper.source)
            yield built

    def read(self, batch: SourceBatch) -> ReadBatch:
        """Turn one batch of the table into runs and rejects."""
        mapped = self._mapper.map(batch)
        return self._built(batch, mapped, self._columns(mapped))

    def _built(self, batch: SourceBatch, mapped: MappedRows, columns: RunColumns) -> ReadBatch:
        problems = {row: columns.reason(row) for row in columns.unread}
        for row, reason in mapped.problems.items():
            problems[row] = "; ".join(filter(None, (problems.get(row), reason)))
        good = [row for row in range(mapped.n_rows) if row not in problems]
        taken = pa.array(good, pa.int64())
        arrays = {
            name: array.take(taken) if problems else array for name, array in columns.arrays.items()
        }
        unit = self._mapper.mapping.unit
        built = build_runs(arrays, len(good), units=None if unit is None else [unit] * len(good))
        if built.runs.num_rows and (largest := pc.max(built.runs[c.VALUE]).as_py()) is not None:
            self._largest = max(largest, self._largest or -math.inf)
            values = built.runs[c.VALUE].drop_null().to_numpy()
            tiny = (values > 0.0) & (values <= 0.01)
            self._n_tiny += int(tiny.sum())
            self._tiny = max(self._tiny, values[tiny].max(initial=0.0))
            self._next = min(self._next, values[values > 0.01].min(initial=math.inf))
        problems |= {good[at]: reason for at, reason in built.problems.items()}
        bad = [mapped.bad(row, reason) for row, reason in problems.items()]
        return ReadBatch(
            runs=built.runs,
            rejects=tuple(self._mapper.rejects([*batch.bad, *bad])),
            n_left_out=mapped.n_left_out,
            file=self._mapper.file,
            lines=tuple(mapped.batch.lines[good[at]] for at in built.rows.tolist()),
        )

    def _ask(self, metrics: Iterable[object]) -> None:
        """Refuse a direction for the whole table that does not fit; ask for one that is not known.

        Raises
        ------
        UsageError
            Before anything of the table is committed.
        """
        bound = self._mapper.bound
        said = bound.constants.get(c.DIRECTION)
        if c.DIRECTION in bound.templates:
            return
        for metric in sorted({text for each in metrics if (text := text_of(each)) is not None}):
            settled = settle_direction(metric, said=said)
            if settled.problem:
                raise UsageError(
                    f"{self._mapper.source.path}: --set direction={said}: {settled.problem}"
                )
            if settled.direction is None:
                raise UsageError(
                    f"{self._mapper.source.path}: whether higher or lower values of {metric!r} are "
                    "better is not known: give --set direction=max or --set direction=min, or "
                    "--map direction='{COLUMN}'"
                )

    def _ask_signs(self, mapped: MappedRows, columns: RunColumns) -> None:
        """Ask how numbers are written, where no cell of their column shows it.

        Raises
        ------
        UsageError
            A sign in a number, and no number before it or in its batch that settles how the sign is
            to be taken. Then nothing of the table is taken. Where one settles it, the cell is odd
            in its column, and its row waits in quarantine.
        """
        asked = {
            (name, each.sign): (row, each)
            for row in sorted(columns.unread, reverse=True)
            for name, each in columns.unread[row].items()
            if each.sign
        }
        # Signs may come later: what a batch without them settles is known then.
        for name in NUMBER_FIELDS:
            cells = mapped.fields.get(name, ())
            open_signs = [sign for sign in SIGNS if (name, sign) not in self._settled]
            if not cells or not open_signs:
                continue
            is_read = columns.arrays[name].is_valid().to_pylist()
            numbers = [cell for cell, read in zip(cells, is_read, strict=True) if read]
            for sign in open_signs:
                if any(settles(cell, sign) for cell in numbers):
                    self._settled.add((name, sign))
        for (name, sign), (row, each) in asked.items():
            if (name, sign) not in self._settled:
                raise UsageError(
                    f"{self._mapper.source.path}: line {mapped.batch.lines[row]}: {name}: "
                    f"{each.reason}. Nothing was taken"
                )

    def _columns(self, mapped: MappedRows) -> RunColumns:
        n_rows = mapped.n_rows
        constants = {c.SOURCE: self._mapper.source.path.name, **self._mapper.bound.constants}
        fields = dict(mapped.fields)
        values = fields.get(c.VALUE) or [constants.get(c.VALUE)] * n_rows
        used = self._mapper.mapping
        failed = missing_rows(values, used.missing, used.value_numbers)
        fields[c.VALUE] = [None if row in failed else cell for row, cell in enumerate(values)]
        if failed:
            told = fields.get(c.STATUS) or [constants.get(c.STATUS, "finished")] * n_rows
            fields[c.STATUS] = [
                "failed" if row in failed else cell for row, cell in enumerate(told)
            ]
        tags = {row: {"missing": marker} for row, marker in failed.items()}
        return self._arrays.of(fields, n_rows, constants, tags)


def read_table(
    path: str | Path,
    mapping: FieldMapping | None = None,
    *,
    table_format: TableFormat | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    records: str | None = None,
    wide: Wide | None = None,
    batch_rows: int = BATCH_ROWS,
) -> TableReader:
    """Read runs out of a table, in batches of bounded memory.

    Every row becomes a run, is left out by ``mapping.where`` and counted, or becomes a reject with
    its line, the reason and its text. Rows without ``run_id`` get one made of their identifying
    fields, the name of the file included (unless ``source`` is given): re-ingesting a file is a
    no-op, and rows that agree in all of these fields are one run unless ``run_id`` or a
    hyperparameter that tells them apart is mapped. Text that spells a number becomes one inside
    ``hyperparameters``.

    Numbers in text are never guessed. They are written with a point at most (``0.913``, ``1e-3``);
    with any other sign (``0,913``, ``91.3%``, ``0.913 ± 0.004``) they are read once ``mapping``
    says what it means: ``decimal``, ``unit`` or ``ignore_spread``.

    Parameters
    ----------
    path : str or Path
        The table; see :func:`recsys_ms.history.readers.sources.open_source`.
    mapping : FieldMapping, optional
        Default: columns that have the name of a field of a run, as they are.
    table_format : {"csv", "tsv", "jsonl", "parquet", "json"}, optional
        Default: by the suffix, ``.gz`` on top allowed.
    delimiter : str, optional
        Of CSV (comma) and TSV (tab).
    encoding : str, default "utf-8"
        Of a text format.
    records : str, optional
        Of a JSON document: keys to its records, joined by dots (``results.items``).
    wide : Wide, optional
        That the table is models by tasks: each cell that is not blank becomes a run. With the
        marker ``""`` in ``mapping.missing`` a blank one is a failed run.
    batch_rows : int, default 50,000
        Rows held at a time.

    Returns
    -------
    TableReader
        Iterate it for :class:`ReadBatch`; ``warnings`` then says what looks wrong as a whole.

    Raises
    ------
    UsageError
        Before any row is read: a template that names no column, an unknown field, a required field
        (``model_id``, ``task_id``, ``metric``, and ``value`` unless the status is set to another
        than ``finished``) that is neither mapped nor set, a direction that the metric cannot have,
        or another constant that no run can have. While iterating too: an unknown metric without a
        direction, and a sign in a number that no cell of its column explains.
    DataError
        No such file, an empty one, or the wrong delimiter.
    """
    used = mapping or FieldMapping()
    if wide is not None:
        wide = replace(wide, keep_blank="" in used.missing)
    source = open_source(
        path,
        table_format=table_format,
        delimiter=delimiter,
        encoding=encoding,
        records=records,
        wide=wide,
    )
    return TableReader(source, used, batch_rows=batch_rows)


def replay_row(reject: Reject, mapping: FieldMapping | None = None) -> ReadBatch:
    """Read a quarantined row again.

    Parameters
    ----------
    reject : Reject
        One whose ``reader`` is ``"table"``; ``raw`` may have been corrected.
    mapping : FieldMapping, optional
        Laid over the one it was read with.

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
    given = None if mapping is None else mapping.to_json()
    try:
        reader = _replaying(reject.file, reject.options, given)
    except UsageError as error:
        if mapping is not None:
            raise
        # Read by an earlier version, which took what this one refuses.
        again = replace(reject, reason=str(error))
        return ReadBatch(runs=RUN_SCHEMA.empty_table(), rejects=(again,))
    line = reject.line or 1
    if not stored.final:
        return reader.read(stored.source.read_row(reject.raw, line))
    # What was kept is not the whole row of the file, so it must not become a run.
    bad = BadRow(line=line, reason=reject.reason, raw=reject.raw, final=stored.final)
    columns: dict[str, list[Any]] = {name: [] for name in stored.source.columns}
    return reader.read(SourceBatch(columns=columns, lines=[], raws=[], bad=(bad,)))


@lru_cache(maxsize=4)
def _replaying(file: str, options: str, mapping: str | None) -> TableReader:
    """Reader of single rows; made once for the many rows of one file."""
    like = Reject(file=file, line=None, reason="", raw="", reader=TABLE_READER, options=options)
    stored = stored_options(like)
    chosen = stored.mapping
    if mapping is not None:
        chosen = FieldMapping.from_json(mapping).over(chosen)
    return TableReader(stored.source, chosen, kinds=stored.kinds)


def _check_not_steps(batch: SourceBatch, read: ReadBatch, source: Source) -> None:
    """Refuse rows that are epochs of a run: the first of them would become its outcome.

    Raises
    ------
    UsageError
        Runs share an id, and the rows rise in epochs or steps; or every run has several rows of
        different values, so that what tells them apart is not mapped.
    """
    finished = read.runs.filter(pc.equal(read.runs[c.STATUS], "finished"))
    n_rows = finished.num_rows
    of_values = finished.group_by([c.RUN_ID, c.VALUE]).aggregate([])
    n_values = Counter(of_values[c.RUN_ID].to_pylist())
    n_runs = len(n_values)
    if not n_rows or n_runs == n_rows:
        return
    time = steps_in(batch.columns)
    if time is None and min(n_values.values()) < 2:
        return
    how = "with --format steps" if time is None else "without --format"
    told = "each has several values" if time is None else f"{time} rises from one to the next"
    raise UsageError(
        f"{source.path}: the rows are not runs: {n_rows} rows are of {n_runs} "
        f"{'run' if n_runs == 1 else 'runs'}, and {told}. A CSV, TSV or JSONL file is read as the "
        f"curves that it holds (the best value of each run) {how}; if each row is a run, map what "
        "tells them apart, for example --map run_id='NAME-{_line}'"
    )


def _check_required(bound: BoundMapping, source: Source) -> None:
    needed = [name for name in c.REQUIRED_COLUMNS if name != c.DIRECTION]
    if c.STATUS not in bound.templates and bound.constants.get(c.STATUS, "finished") == "finished":
        needed.append(c.VALUE)
    missing = [name for name in needed if name not in bound]
    if missing:
        some = source.columns[:_N_COMPARED]
        near = [f"{name}{did_you_mean(name, some, form='{}')}" for name in missing]
        ways = "; ".join(
            f"--map {name}='{{COLUMN}}'" + ("" if name == c.VALUE else f" or --set {name}=TEXT")
            for name in missing
        )
        raise UsageError(
            f"{source.path}: no column is named {', '.join(near)}, which every run needs: give "
            f"{ways}. Columns are: {named(source.columns)}"
        )
