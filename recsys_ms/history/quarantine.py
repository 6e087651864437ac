"""What could not be read: kept with file, line, reason and raw text until it is replayed."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One row or file that did not become a run.

    Attributes
    ----------
    file : str
        The log it stood in.
    line : int or None
        Physical line or row in that log, from 1; ``None`` when the whole file is meant.
    reason : str
        What was wrong and what was wanted.
    raw : str
        The text of the row, or its JSON.
    reader : str
        Who reads it again: ``table``, ``inbox`` (JSON of one inbox file), or ``run`` (JSON fields).
    options : str
        Canonical JSON of how it was read (mapping, unit, …), so that a replay reads it alike.
    """

    file: str
    line: int | None
    reason: str
    raw: str
    reader: str
    options: str = "{}"

    @property
    def id(self) -> str:
        """32 hexadecimal digits over everything but the reason, so a row is kept once."""
        digest = hashlib.sha256()
        for part in (self.file, str(self.line), self.raw, self.reader, self.options):
            data = part.encode(errors="surrogatepass")
            digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBatch:
    """A piece of a log, read: runs, what could not be read, and what was left out on purpose.

    Attributes
    ----------
    runs : pyarrow.Table
        Rows of :data:`recsys_ms.history.schema.RUN_SCHEMA`.
    rejects : tuple of Reject
        Rows that did not become runs.
    n_left_out : int
        Rows removed by a filter the caller asked for.
    file : str
        The log, named when a run of this batch is quarantined as a conflict.
    lines : tuple of int or None
        Line of each run in ``file``, from 1; ``None`` when not known.
    """

    runs: pa.Table
    rejects: tuple[Reject, ...] = ()
    n_left_out: int = 0
    file: str = ""
    lines: tuple[int, ...] | None = None
