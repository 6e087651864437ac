"""Rows of a table as fields: what runs and cards share of reading a table."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.errors import DataError
from recsys_ms.history.quarantine import Reject
from recsys_ms.history.readers.batch import BadRow, SourceBatch
from recsys_ms.history.readers.expressions import ColumnKind, Expressions, kinds_of
from recsys_ms.history.readers.mapping import FieldMapping, bind_mapping
from recsys_ms.history.readers.sources import Source, read_row

#: ``Reject.reader`` of rows of tables.
TABLE_READER: Final = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRows:
    """Fields of the rows of one batch that were not left out.

    Attributes
    ----------
    fields : dict of field to list of length n_rows
        Cells; ``None`` where empty. Constants are not among them.
    rows : list of int
        Position of each row in ``batch``.
    batch : SourceBatch
        Where they came from.
    n_left_out : int
        Rows removed by the predicate.
    """

    fields: dict[str, list[Any]]
    rows: list[int]
    batch: SourceBatch
    n_left_out: int

    def line(self, row: int) -> int:
        """Physical line of row ``row``."""
        return self.batch.lines[self.rows[row]]

    def raw(self, row: int) -> str:
        """Text of row ``row``."""
        return self.batch.raw(self.rows[row])


class RowMapper:
    """A mapping bound to a table: batches of cells in, fields and rejects out.

    Parameters
    ----------
    source : Source
        The table.
    mapping : FieldMapping
        The mapping.
    fields, open_fields : iterable of str, set of str
        As for :func:`recsys_ms.history.readers.mapping.bind_mapping`.
    kind : str
        What the rows become ("run", "model", "task"), kept with the rejects.

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
        self.fields = tuple(fields)
        self.bound = bind_mapping(
            mapping, source.columns, fields=self.fields, open_fields=open_fields
        )
        # Resolved, so that the same log under another spelling of its path is the same log.
        self.file = str(source.path.resolve())
        self._kind = kind
        self._kinds = kinds
        self._options: dict[str, str] = {}
        self._expressions = Expressions(mapping.columns, mapping.where)
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
            self._kinds = kinds_of(columns)
            self._options.clear()
        keep, computed = self._expressions.evaluate(columns, n_rows, self._kinds or {})
        columns.update(computed)
        rows = [row for row in range(n_rows) if keep[row]]
        fields: dict[str, list[Any]] = {}
        for name, template in self.bound.templates.items():
            cells = template.apply(columns, n_rows)
            fields[name] = cells if len(rows) == n_rows else [cells[row] for row in rows]
            if name not in self._filled and any(cell is not None for cell in fields[name]):
                self._filled.add(name)
        self._n_rows += len(rows)
        return MappedRows(fields=fields, rows=rows, batch=batch, n_left_out=n_rows - len(rows))

    def never_filled(self) -> list[str]:
        """Fields whose template was empty in every row so far."""
        mapped = self.mapping.map if self._n_rows else {}
        return [name for name in mapped if name not in self._filled]

    def reject(self, bad: BadRow) -> Reject:
        """Quarantine entry of a row, with all that reading it again needs."""
        return Reject(
            file=self.file,
            line=bad.line,
            reason=bad.reason,
            raw=bad.raw,
            reader=TABLE_READER,
            options=self._with_final(bad) if bad.final else self._plain_options(""),
        )

    def _with_final(self, bad: BadRow) -> str:
        # The digest tells a text that someone corrected from the one that must not be read again.
        return self._plain_options(bad.final, _digest(bad.raw))

    def _plain_options(self, final: str, digest: str = "") -> str:
        if not final and "" in self._options:
            return self._options[""]
        options: dict[str, Any] = {
            "kind": self._kind,
            "mapping": json.loads(self.mapping.to_json()),
            "table": {
                "format": self.source.table_format,
                "columns": self.source.columns,
                "delimiter": self.source.delimiter,
                "kinds": None if self._kinds is None else dict(self._kinds),
            },
        }
        if final:
            options |= {"final": final, "raw_sha256": digest}
        text = json.dumps(options, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if not final:
            self._options[""] = text
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOptions:
    """How a rejected row was read.

    Attributes
    ----------
    source : Source
        The table it stood in.
    mapping : FieldMapping
        The mapping of that reading.
    kind : str
        What its rows became.
    kinds : mapping of column name to kind, or None
        What its columns hold in expressions.
    final : str
        Why reading the same text again cannot help; empty where it can.
    """

    source: Source
    mapping: FieldMapping
    kind: str
    kinds: Mapping[str, ColumnKind] | None
    final: str


def stem(path: Path) -> str:
    """Name of a file without its suffixes: ``runs`` of ``runs.csv.gz``."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.stem


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
        corrected = _digest(reject.raw) != options.get("raw_sha256")
        return StoredOptions(
            source=Source(
                path=Path(reject.file),
                table_format=table["format"],
                columns=tuple(table["columns"]),
                delimiter=table["delimiter"],
                encoding="utf-8",
            ),
            mapping=FieldMapping.from_json(json.dumps(options["mapping"])),
            kind=str(options["kind"]),
            kinds=table["kinds"],
            final="" if corrected else str(options.get("final", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{reject.file}: line {reject.line}: the quarantined row does not say how it was read "
            f"({error!r}); ingest the file again"
        ) from error


def _digest(raw: str) -> str:
    return hashlib.sha256(raw.encode(errors="backslashreplace")).hexdigest()


def batch_of(reject: Reject, source: Source) -> SourceBatch:
    """Read the raw text of a rejected row again, under its own line number."""
    batch = read_row(source, reject.raw)
    line = reject.line or 1
    bad = tuple(
        BadRow(line=line, reason=row.reason, raw=row.raw, final=row.final) for row in batch.bad
    )
    return SourceBatch(
        columns=batch.columns, lines=[line] * len(batch.lines), raws=batch.raws, bad=bad
    )
