"""Applies a mapping to the rows of a table; shared by tables of runs and of cards."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from recsys_ms.core.errors import DataError
from recsys_ms.history.quarantine import Reject, digest_of
from recsys_ms.history.readers.expressions import ColumnKind, Expressions, kinds_of
from recsys_ms.history.readers.lines import BadRow
from recsys_ms.history.readers.mapping import BoundMapping, FieldMapping, bind_mapping
from recsys_ms.history.readers.number_style import NumberStyle, Unread
from recsys_ms.history.readers.sources import Source, SourceBatch

#: ``Reject.reader`` of rows of tables.
TABLE_READER: Final = "table"
#: Columns of a table whose kinds are all kept, so that a replay may name others in expressions.
_MAX_KINDS: Final = 1_000
#: Part of the ``Reject.options`` of rows that no mapping makes readable.
DAMAGED: Final = '"damaged":true'


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRows:
    """Rows of one batch for which the predicate holds: cells by field, and as the table has them.

    ``fields`` has ``None`` where a cell is empty, and no constants. ``problems`` says, by row,
    which cells do not fit the format of a template.
    """

    fields: dict[str, list[Any]]
    batch: SourceBatch
    n_left_out: int
    problems: Mapping[int, str]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.batch.lines)

    def bad(self, row: int, reason: str) -> BadRow:
        """Row ``row``, refused; of a cell of a wide table the reason names the column."""
        places = self.batch.places
        where = "" if places is None else f"column {places[row]!r}: "
        return BadRow(
            line=self.batch.lines[row],
            reason=where + reason,
            raw=self.batch.raw(row),
            damaged=False,
        )


class RowMapper:
    """A mapping bound to a table: batches of cells in, fields and rejects out.

    Parameters
    ----------
    source, mapping, fields, open_fields
        As for :func:`recsys_ms.history.readers.mapping.bind_mapping`.
    kind : str
        What the rows become ("run", "model", "task"), kept with the rejects.
    kinds : mapping of column name to kind, optional
        Kinds of the columns in expressions; default: by the first rows.

    Raises
    ------
    UsageError
        The mapping names a column or a field that does not exist.
    """

    def __init__(
        self,
        source: Source,
        mapping: FieldMapping,
        *,
        fields: Iterable[str],
        open_fields: set[str],
        kind: str,
        kinds: Mapping[str, ColumnKind] | None = None,
    ) -> None:
        self.source = source
        self.mapping = mapping
        self.bound = bind_mapping(
            mapping,
            source.columns,
            fields=fields,
            open_fields=open_fields,
            repeated=source.repeated,
        )
        # Resolved, so that the same log under another spelling of its path is the same log.
        self.file = str(source.path.resolve())
        self._kind = kind
        self._kinds = kinds
        self._expressions = Expressions(mapping.columns, mapping.where, mapping.numbers)
        self._filled: set[str] = set()
        self._n_rows = 0

    def map(self, batch: SourceBatch) -> MappedRows:
        """Evaluate computed columns, predicate and templates for one batch."""
        n_rows = len(batch.lines)
        columns: dict[str, Any] = {
            **batch.columns,
            "_file": [self.source.path.name] * n_rows,
            "_stem": [stem(self.source.path)] * n_rows,
            "_line": batch.lines,
        }
        if self._kinds is None and n_rows:
            few = {**columns} if len(columns) <= _MAX_KINDS else {}
            self._kinds = kinds_of(few or self._named(columns), self.mapping.numbers)
        kinds = self._kinds or {}
        unknown = {n: cells for n, cells in self._named(columns).items() if n not in kinds}
        if unknown:
            kinds = {**kinds, **kinds_of(unknown, self.mapping.numbers)}
        fields, rows, problems = apply_mapping(
            self.bound, self._expressions, columns, n_rows, kinds, self.mapping.numbers
        )
        for name in fields.keys() - self._filled:
            if any(cell is not None for cell in fields[name]):
                self._filled.add(name)
        self._n_rows += len(rows)
        kept = batch if len(rows) == n_rows else batch.take(rows)
        n_left_out = n_rows - len(rows)
        return MappedRows(fields=fields, batch=kept, n_left_out=n_left_out, problems=problems)

    def _named(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Columns that an expression names."""
        if not (self.mapping.columns or self.mapping.where):
            return {}
        return {name: cells for name, cells in columns.items() if self._expressions.names(name)}

    def unused_columns(self) -> list[str]:
        """Columns of the table that neither a field nor an expression uses."""
        used = {name for each in self.bound.templates.values() for name in each.columns}
        return [
            name
            for name in self.source.columns
            if name not in used and not self._expressions.names(name)
        ]

    def never_filled(self) -> list[str]:
        """Fields whose template was empty in every row so far."""
        mapped = self.mapping.map if self._n_rows else {}
        return [name for name in mapped if name not in self._filled]

    def rejects(self, bad: Iterable[BadRow]) -> list[Reject]:
        """Quarantine entries of rows, by line, with all that reading them again needs."""
        options: dict[str, Any] = {
            "kind": self._kind,
            "mapping": json.loads(self.mapping.to_json()),
            "table": {
                "format": self.source.row_format,
                "columns": self.source.columns,
                "delimiter": self.source.delimiter,
                "kinds": None if self._kinds is None else dict(self._kinds),
            },
        }
        plain = canonical(options)
        damaged = canonical({**options, "damaged": True})
        return [
            Reject(
                file=self.file,
                line=row.line,
                reason=row.reason,
                raw=row.raw,
                reader=TABLE_READER,
                # The digest tells a corrected text from the one that must not be read again.
                options=canonical(
                    {
                        **options,
                        "damaged": row.damaged,
                        "final": row.final,
                        "raw_sha256": digest_of(row.raw),
                    }
                )
                if row.final
                else damaged
                if row.damaged
                else plain,
            )
            for row in sorted(bad, key=lambda row: row.line)
        ]


class StoredOptions(NamedTuple):
    """How a rejected row was read; ``final`` says why reading the same text again cannot help."""

    source: Source
    mapping: FieldMapping
    kind: str
    kinds: Mapping[str, ColumnKind] | None
    final: str


def apply_mapping(
    bound: BoundMapping,
    expressions: Expressions,
    columns: Mapping[str, Sequence[Any]],
    n_rows: int,
    kinds: Mapping[str, ColumnKind],
    numbers: NumberStyle,
) -> tuple[dict[str, list[Any]], list[int], dict[int, str]]:
    """Fields of the rows for which the predicate holds, and the positions of these rows.

    The third are the cells that do not fit a format, by the position of their row among these.
    """
    keep, computed = expressions.evaluate(columns, n_rows, kinds)
    visible = {**columns, **computed}
    rows = [row for row in range(n_rows) if keep[row]]
    fields: dict[str, list[Any]] = {}
    problems: dict[int, list[str]] = {}
    for name, template in bound.templates.items():
        cells = template.apply(visible, n_rows, numbers)
        fields[name] = cells if len(rows) == n_rows else [cells[row] for row in rows]
        if template.has_format or computed:
            for row, cell in enumerate(fields[name]):
                if isinstance(cell, Unread):
                    problems.setdefault(row, []).append(f"{name}: {cell.reason}")
                    fields[name][row] = None
    return fields, rows, {row: "; ".join(each) for row, each in problems.items()}


def stem(path: Path) -> str:
    """Name of a file without its suffixes: ``runs`` of ``runs.csv.gz``."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.stem


def canonical(options: Mapping[str, Any]) -> str:
    """JSON text by which equal options are equal."""
    return json.dumps(options, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def stored_options(reject: Reject) -> StoredOptions:
    """Read the options of a rejected row.

    Raises
    ------
    DataError
        They are not those of this reader.
    """
    try:
        options = json.loads(reject.options)
        table = options["table"]
        is_same = digest_of(reject.raw) == options.get("raw_sha256")
        return StoredOptions(
            source=Source(
                path=Path(reject.file),
                table_format=table["format"],
                columns=tuple(table["columns"]),
                delimiter=table["delimiter"],
            ),
            mapping=FieldMapping.from_json(json.dumps(options["mapping"])),
            kind=str(options["kind"]),
            kinds=table["kinds"],
            final=str(options.get("final", "")) if is_same else "",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{reject.file}: line {reject.line}: the quarantined row does not say how it was read "
            f"({error!r}); ingest the file again"
        ) from error
