"""Quarantine: rows that could not be read, kept with file, line, reason and text for a replay."""

import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_ms.core.errors import DataError, RefusedError, UnknownIdError
from recsys_ms.core.files import file_errors, make_folder, write_atomic

_TEXTS: Final = ("file", "reason", "raw", "reader", "options")


def digest_of(raw: str) -> str:
    """SHA-256 of a raw text, to tell a corrected one from what was kept."""
    return hashlib.sha256(raw.encode(errors="backslashreplace")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One row or file that did not become a run.

    Attributes
    ----------
    file : str
        Its log.
    line : int or None
        Physical line or row in that log, from 1; ``None`` for the whole file.
    reason : str
        What was wrong and what was expected.
    raw : str
        The text of the row, or its JSON.
    reader : str
        What reads it again: ``table``, ``inbox`` (JSON of an inbox file), ``run`` (JSON fields), …
    options : str
        Canonical JSON of how it was read (mapping, unit, …), for the replay.
    """

    file: str
    line: int | None
    reason: str
    raw: str
    reader: str
    options: str = "{}"

    def __post_init__(self) -> None:
        # Undecodable bytes come as lone surrogates, which no UTF-8 column can hold.
        for name in _TEXTS:
            text = getattr(self, name).encode(errors="backslashreplace").decode()
            object.__setattr__(self, name, text)

    @property
    def id(self) -> str:
        """32 hexadecimal digits over everything but the reason, so a row is kept once."""
        digest = hashlib.sha256()
        for part in (self.file, str(self.line), self.raw, self.reader, self.options):
            data = part.encode()
            digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBatch:
    """A piece of a log: the runs read, the rejects, and the number of rows left out by a filter.

    Attributes
    ----------
    runs : pyarrow.Table
        Rows of :data:`recsys_ms.history.store.schema.RUN_SCHEMA`.
    rejects : tuple of Reject
        Rows that did not become runs.
    n_left_out : int
        Rows that a filter of the caller left out.
    file : str or tuple of str
        The log, or the file of each run, named if a run is quarantined as a conflict.
    lines : tuple of int or None
        Line of each run in ``file``, from 1; ``None`` when not known.
    progress : tuple of int or None, optional
        How far the log of each run had come (steps, rows, milliseconds, …; larger is later), for
        logs that grow: a run replaces its state of a smaller progress, whatever its status, and is
        ignored beside one of a larger. ``None`` where the log does not say.
    curves : pyarrow.Table, optional
        Rows of :data:`recsys_ms.history.store.curves.CURVE_SCHEMA` of these runs, by ``run_id``.

    Raises
    ------
    DataError
        ``file``, ``lines`` or ``progress`` of another length than ``runs``.
    """

    runs: pa.Table
    rejects: tuple[Reject, ...] = ()
    n_left_out: int = 0
    file: str | tuple[str, ...] = ""
    lines: tuple[int, ...] | None = None
    progress: tuple[int | None, ...] | None = None
    curves: pa.Table | None = None

    def __post_init__(self) -> None:
        for name in ("file", "lines", "progress"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != self.runs.num_rows:
                raise DataError(f"{name} has {len(given)} entries for {self.runs.num_rows} runs")

    @classmethod
    def joined(cls, batches: Sequence["ReadBatch"]) -> "ReadBatch":
        """One batch of several; at least one."""
        files: list[str] = []
        lines: list[int] = []
        progress: list[int | None] = []
        for batch in batches:
            n = batch.runs.num_rows
            files += [batch.file] * n if isinstance(batch.file, str) else batch.file
            lines += batch.lines or ()
            progress += batch.progress or [None] * n
        curves = [batch.curves for batch in batches if batch.curves is not None]
        return cls(
            runs=pa.concat_tables([batch.runs for batch in batches]),
            rejects=tuple(reject for batch in batches for reject in batch.rejects),
            n_left_out=sum(batch.n_left_out for batch in batches),
            file=tuple(files),
            lines=tuple(lines) if len(lines) == len(files) else None,
            progress=tuple(progress) if any(each is not None for each in progress) else None,
            curves=pa.concat_tables(curves) if curves else None,
        )

    def slices(self, n_rows: int) -> Iterator["ReadBatch"]:
        """The runs in pieces of at most ``n_rows``, without curves.

        Rejects and counts come with the first.
        """
        for start in range(0, max(self.runs.num_rows, 1), n_rows):
            part = slice(start, start + n_rows)
            yield replace(
                self,
                runs=self.runs.slice(start, n_rows),
                rejects=self.rejects if start == 0 else (),
                n_left_out=self.n_left_out if start == 0 else 0,
                file=self.file if isinstance(self.file, str) else self.file[part],
                lines=self.lines and self.lines[part],
                progress=self.progress and self.progress[part],
                curves=None,
            )


_TIME: Final = pa.timestamp("us", tz="UTC")
_REJECTS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.large_string()),
        # One raw line may have 100 MB: offsets of 32 bits end at 2 GB a column.
        ("raw", pa.large_string()),
        ("reader", pa.string()),
        ("options", pa.string()),
        ("seen_at", _TIME),
    ]
)
_RESOLVED: Final = pa.schema([("id", pa.string()), ("resolved_at", _TIME)])
_STORED: Final = ("file", "line", "reason", "raw", "reader", "options")


class Quarantine:
    """Rejects of a history, each kept once, in small Parquet files that are never changed.

    Parameters
    ----------
    folder : Path
        Folder of the files; it is created with the first reject.
    read_only : bool
        Whether to refuse :meth:`add` and :meth:`resolve`.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self._read_only = read_only

    def table(self, *, raw: bool = True) -> pd.DataFrame:
        """Every reject: id, file, line, reason, raw, reader, options, seen_at, resolved (bool).

        Without ``raw`` the texts, which may be gigabytes, are not read.
        """
        names = [name for name in _REJECTS.names if raw or name != "raw"]
        found = self._read("rejects", _REJECTS, columns=names)
        frame = found.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        frame["resolved"] = pc.is_in(found["id"], value_set=self._resolved()).to_numpy()
        return frame  # type: ignore[no-any-return]

    def pending(self) -> Iterator[Reject]:
        """Rejects that are not resolved, in the order they were seen; those of one file at once."""
        resolved = self._resolved()
        for found in self._tables("rejects", _REJECTS.names):
            open_ones = pc.invert(pc.is_in(found["id"], value_set=resolved))
            waiting = found.cast(_REJECTS).filter(open_ones).select(_STORED)
            for batch in waiting.to_batches(max_chunksize=1024):
                for row in batch.to_pylist():
                    yield Reject(**row)

    def known(self) -> set[str]:
        """Ids of all rejects, resolved or not."""
        return set(self._read("rejects", _REJECTS, columns=["id"])["id"].to_pylist())

    def add(self, rejects: Iterable[Reject], *, known: set[str] | None = None) -> int:
        """Keep rejects that are not here yet, and give how many those are.

        A caller that adds many times passes the ids that are here, as :meth:`known` gave them; the
        new ones are added to them. ``StorageError`` if the folder cannot be written.
        """
        self._refuse_read_only()
        seen = self.known() if known is None else known
        by_id = {reject.id: reject for reject in rejects}
        fresh = {identity: reject for identity, reject in by_id.items() if identity not in seen}
        if fresh:
            now = datetime.now(UTC)
            rows = [
                {"id": identity, "seen_at": now, **{n: getattr(reject, n) for n in _STORED}}
                for identity, reject in fresh.items()
            ]
            self._write("rejects", pa.Table.from_pylist(rows, schema=_REJECTS))
            seen.update(fresh)
        return len(fresh)

    def resolve(self, ids: Collection[str]) -> None:
        """Mark rejects as dealt with; they stay in :meth:`table`.

        ``UnknownIdError`` for an unknown id.
        """
        self._refuse_read_only()
        unknown = set(ids) - self.known()
        if unknown:
            raise UnknownIdError(f"{self.folder}: no reject has the id {min(unknown)!r}")
        already = set(self._resolved().to_pylist())
        now = datetime.now(UTC)
        rows = [{"id": one, "resolved_at": now} for one in sorted(set(ids) - already)]
        if rows:
            self._write("resolved", pa.Table.from_pylist(rows, schema=_RESOLVED))

    def _resolved(self) -> pa.ChunkedArray:
        return self._read("resolved", _RESOLVED)["id"]

    def _refuse_read_only(self) -> None:
        if self._read_only:
            raise RefusedError(f"{self.folder}: an earlier version of a history is read-only")

    def _read(self, kind: str, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
        names = schema.names if columns is None else columns
        wanted = pa.schema([schema.field(name) for name in names])
        tables = [table.cast(wanted) for table in self._tables(kind, names)]
        return pa.concat_tables(tables or [wanted.empty_table()])

    def _tables(self, kind: str, columns: list[str]) -> Iterator[pa.Table]:
        """One table a file, in the order they were written."""
        for path in sorted(self.folder.glob(f"{kind}-*.parquet")):
            with file_errors(
                f"{path}: this part of the quarantine is damaged",
                "restore it from a backup, or move it away to go on without it",
                catch=(OSError, pa.ArrowException),
                raises=DataError,
            ):
                table = pq.ParquetFile(path).read(columns=columns)
            yield table

    def _write(self, kind: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        make_folder(self.folder)
        path = self.folder / f"{kind}-{stamp}-{secrets.token_hex(4)}.parquet"
        write_atomic(path, sink.getvalue().to_pybytes())
