"""Imports transferability scores that were computed elsewhere, by the same mappings as runs."""

from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import pandas as pd

from recsys_ms.catalog.importer import is_missing
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError, did_you_mean
from recsys_ms.core.types import Direction
from recsys_ms.history.quarantine import Reject
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.number_style import NumberStyle, Unread
from recsys_ms.history.readers.rows import MappedRows, RowMapper
from recsys_ms.history.readers.sources import SourceBatch, TableFormat, open_source
from recsys_ms.history.readers.templates import plain_text
from recsys_ms.scores.methods import METHODS

_SCORE: Final = "score"
_FIELDS: Final = (c.TASK_ID, c.MODEL_ID, _SCORE, c.VALUE, c.DIRECTION)
_PAIR: Final = (c.TASK_ID, c.MODEL_ID)
_NAMES: Final = (*_PAIR, _SCORE)


class ScoreImport(NamedTuple):
    """Scores and rejects of a table.

    Attributes
    ----------
    scores : ScoreTable
        Higher is better.
    n_values : int
        Values taken.
    rejects : tuple of Reject
        Rows that hold no score: file, line, reason, text.
    n_left_out : int
        Rows removed by ``where``.
    not_kept : tuple of str
        Columns that no score was made of.
    """

    scores: ScoreTable
    n_values: int
    rejects: tuple[Reject, ...]
    n_left_out: int
    not_kept: tuple[str, ...]


def import_scores(
    path: str | Path,
    *,
    mapping: FieldMapping | None = None,
    table_format: TableFormat | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> ScoreImport:
    """Read transferability scores of models on tasks out of a table.

    Parameters
    ----------
    path : str or Path
        CSV, TSV, JSONL (``.gz`` too) or Parquet: a row a value (``task_id, model_id, score,
        value``), or a table that is wide in one of the first three: a column a score, a task or a
        model.
    mapping : FieldMapping, optional
        Templates, constants and computed columns for ``task_id``, ``model_id``, ``score``,
        ``value`` and ``direction``; ``where``; ``missing``. Default: columns of these names. Where
        ``value`` is neither a column nor mapped, the names of all other columns with numbers say
        the one of task, model and score that is not given.
    table_format, delimiter, encoding
        As for :func:`recsys_ms.history.readers.table.read_table`.

    Notes
    -----
    Scores of :data:`recsys_ms.scores.methods.METHODS` are known by name or title, and higher is
    better. Of any other score ``direction`` must say so (``max`` or ``min``); with ``min`` the
    values are kept with the opposite sign. Empty cells and NaN are unknown.

    Raises
    ------
    UsageError
        Before any row is read: an unknown field, a template without a column, no task or no model;
        no score at all.
    DataError
        No such file, an empty one, or the wrong delimiter.
    """
    source = open_source(path, table_format=table_format, delimiter=delimiter, encoding=encoding)
    used = mapping or FieldMapping()
    if used.unit is not None:
        raise UsageError(f"--unit {used.unit} is for runs; scores are kept as they are")
    mapper = RowMapper(source, used, fields=_FIELDS, open_fields=set(), kind=_SCORE)
    across = _across(mapper)
    columns: list[str] | None = None
    found = _Found()
    rejects: list[Reject] = []
    n_left_out = 0
    for batch in source.batches():
        mapped = mapper.map(batch)
        n_left_out += mapped.n_left_out
        if columns is None:
            columns = _columns_of_values(mapper, across, batch)
        bad = list(batch.bad)
        for row in range(mapped.n_rows):
            problems = (
                [mapped.problems[row]]
                if row in mapped.problems
                else found.add_row(mapper, mapped, row, across, columns)
            )
            if problems:
                bad.append(mapped.bad(row, "; ".join(problems)))
        rejects.extend(mapper.rejects(bad))
    not_kept = tuple(name for name in mapper.unused_columns() if name not in (columns or ()))
    return ScoreImport(*found.table(), tuple(rejects), n_left_out, not_kept)


class _Found:
    """Values by pair and score."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], dict[str, float]] = {}

    def add_row(
        self,
        mapper: RowMapper,
        mapped: MappedRows,
        row: int,
        across: str | None,
        columns: Sequence[str],
    ) -> list[str]:
        """Take the values of a row, and give what is wrong with the others."""
        cells = {**mapper.bound.constants, **{n: col[row] for n, col in mapped.fields.items()}}
        mapping = mapper.mapping
        told = {
            name: "" if is_missing(cells.get(name), mapping) else plain_text(cells[name]).strip()
            for name in (*_NAMES, c.DIRECTION)
        }
        empty = [name for name in _NAMES if name != across and not told[name]]
        if empty:
            return [f"{', '.join(empty)} is empty; a score needs it"]
        values = (
            [(told, cells[c.VALUE])]
            if across is None
            else [({**told, across: n}, mapped.batch.columns[n][row]) for n in columns]
        )
        problems = []
        for names, cell in values:
            try:
                if not is_missing(cell, mapping):
                    self._add(names, cell, mapping.numbers)
            except DataError as error:
                problems.append(str(error))
        return problems

    def _add(self, names: Mapping[str, str], cell: Any, style: NumberStyle) -> None:
        pair = (names[c.TASK_ID], names[c.MODEL_ID])
        score, sign = _named(names[_SCORE], names[c.DIRECTION])
        where = f"{score} of model {pair[1]!r} on task {pair[0]!r}"
        number = style.number(cell)
        if number is None or not isfinite(number):
            read = style.read(cell) if isinstance(cell, str) else ""
            if isinstance(read, Unread) and read.sign:
                raise DataError(f"{where}: {read.reason}")
            raise DataError(
                f"{where} is {plain_text(cell)[:80]!r}, expected a finite number; leave the cell "
                "empty where it is unknown"
            )
        known = self._values.setdefault(pair, {}).setdefault(score, sign * number)
        if known != sign * number:
            raise DataError(
                f"{where} is {number:g} here and {sign * known:g} in an earlier row; keep one"
            )

    def table(self) -> tuple[ScoreTable, int]:
        """All values, and their number."""
        rows = [{**dict(zip(_PAIR, pair, strict=True)), **v} for pair, v in self._values.items()]
        if not rows:
            return ScoreTable.empty(), 0
        return ScoreTable(pd.DataFrame(rows)), sum(map(len, self._values.values()))


def _across(mapper: RowMapper) -> str | None:
    """The name that the columns of a wide table have: task, model or score; ``None`` if long."""
    missing = [name for name in _NAMES if name not in mapper.bound]
    is_long = c.VALUE in mapper.bound
    if len(missing) != (0 if is_long else 1):
        wanted = missing if is_long or missing else [c.VALUE]
        ways = "; ".join(f"--map {name}='{{COLUMN}}' or --set {name}=TEXT" for name in wanted)
        raise UsageError(
            f"{mapper.source.path}: a score needs {', '.join((*_NAMES, c.VALUE))}, and no column "
            f"says {', '.join(wanted)}: give {ways}. A table without values in one column has a "
            f"column for each score, task or model. Columns are: {', '.join(mapper.source.columns)}"
        )
    direction = mapper.bound.constants.get(c.DIRECTION)
    if direction not in (None, *get_args(Direction)):
        raise UsageError(f"--set direction={direction}: expected max or min")
    return None if is_long else missing[0]


def _columns_of_values(mapper: RowMapper, across: str | None, batch: SourceBatch) -> list[str]:
    """Columns of a wide table that hold values, by the first rows."""
    if across is None:
        return []
    style = mapper.mapping.numbers
    columns = [
        name
        for name in mapper.unused_columns()
        if any(style.number(cell) is not None for cell in batch.columns[name])
    ]
    if across == _SCORE and c.DIRECTION not in mapper.bound:
        columns = [name for name in columns if _known_name(name) is not None]
    if not columns:
        raise UsageError(
            f"{mapper.source.path}: no column is a known score ({', '.join(METHODS)}) with "
            "numbers; of other scores say whether higher is better: --set direction=max, or "
            "--set direction=min"
        )
    return columns


def _named(name: str, direction: str) -> tuple[str, float]:
    """Name of a score as the table keeps it, and the sign that makes higher better."""
    if direction not in ("", *get_args(Direction)):
        raise DataError(f"direction is {direction!r}, expected max or min")
    known = _known_name(name)
    if known is not None and direction == "min":
        raise DataError(
            f"of {known} higher is better, the table says min; give the score a name of its own if "
            "it is another quantity"
        )
    if known is None and not direction:
        raise DataError(
            f"the score {name!r} is not a known one{did_you_mean(name, METHODS)}; say whether "
            "higher is better: --set direction=max, or --set direction=min"
        )
    if known is None and name in _FIELDS:
        raise DataError(f"a score cannot have the name {name!r}; give it another one")
    return known or name, -1.0 if direction == "min" else 1.0


def _known_name(name: str) -> str | None:
    """Our name of a score that a table names in its own spelling, such as ``H-Score``."""
    return _spellings().get(_folded(name))


@cache
def _spellings() -> Mapping[str, str]:
    titles = {_folded(METHODS[name].title): name for name in METHODS.own}
    return titles | {_folded(name): name for name in METHODS}


def _folded(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
