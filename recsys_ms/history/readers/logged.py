"""Base of the log formats, and what they give: runs as logged, and texts that cannot be read."""

import errno
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.core.files import open_regular, read_regular, reason_of
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.number_style import PLAIN_NUMBERS, NumberStyle
from recsys_ms.history.store.curves import Series

#: Of a file, for finding its format.
HEAD_BYTES: Final = 65_536
#: Of one text file of a log: JSON of that size takes up to 1.7 GB of memory.
_MAX_BYTES: Final = 64 << 20
#: Errors of the name alone: one run is concerned, and not the disk.
_LEADS_NOWHERE: Final = {
    errno.ENOENT: "the file is gone; restore it, or give its text",
    errno.ELOOP: "is a loop of links; put the file in its place",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """One run as its log has it, before any mapping.

    Attributes
    ----------
    file : str
        Its file (folder, database), resolved.
    identity : str
        Permanent name of the run, unique among all logs: the id of the framework, else the resolved
        place of its log. ``run_id`` is made of it unless the mapping gives one.
    line : int or None
        Line or row in ``file``, from 1.
    columns : mapping of str to JSON value
        Columns for templates and expressions. Groups of the framework are dicts (``args``,
        ``params``, ``hparams``, ``config``): ``{args.model}`` is an entry.
    fields : mapping of field to JSON value or datetime
        Fields of a run that the log itself states, by ``core.columns``; ``hyperparameters`` is a
        dict with typed values, ``tags`` one of text.
    series : sequence of Series
        All metrics the run logged.
    chosen : str or None
        Name of the series by which the framework itself selects the best model, where the log says.
    directions : mapping of series name to direction
        By the log or the framework's definition; never guessed from a name.
    progress : int or None
        How far the log had come; see :class:`recsys_ms.history.quarantine.ReadBatch`.
    value_kind : {"ema"} or None
        ``ema`` where the logged values are those of averaged weights.
    """

    file: str
    identity: str
    line: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    series: Sequence[Series] = ()
    chosen: str | None = None
    directions: Mapping[str, Direction] = field(default_factory=dict)
    progress: int | None = None
    value_kind: str | None = None

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` takes; times as ISO 8601, NaN as in JavaScript."""
        form = {**_form(self), "series": [_form(series) for series in self.series]}
        return json.dumps(form, ensure_ascii=False, default=_plain)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what :meth:`to_json` wrote.

        Raises
        ------
        DataError
            Another JSON text.
        """
        try:
            form: JsonDict = json.loads(text)
            form["series"] = tuple(Series(**series) for series in form["series"])
            return cls(**form)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"not a logged run ({error}): {text[:200]!r}") from error


def _form(record: "LoggedRun | Series") -> JsonDict:
    """A record as a dict, without copies of its values."""
    return {each.name: getattr(record, each.name) for each in fields(record)}


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLog:
    """A text of a log that cannot be read; it goes to quarantine.

    Attributes
    ----------
    file : Path
        Its file.
    reason : str
        What was wrong and what was expected.
    raw : str
        The text, such that it could replace the file: a whole small file, or the header and the row
        of a table. Empty for a binary file (SQLite, Parquet).
    line : int or None
        Line in ``file``, from 1.
    cut : bool
        Whether it is the last line, and breaks off: what a killed job leaves, or a running one has
        not written yet. It is told and not quarantined.
    """

    file: Path
    reason: str
    raw: str = ""
    line: int | None = None
    cut: bool = False


class BadLogError(DataError):
    """Nothing (more) of a log can be read; carries the :class:`BadLog`."""

    def __init__(self, bad: BadLog) -> None:
        super().__init__(f"{bad.file}: {bad.reason}")
        self.bad = bad


class LogFiles:
    """Reads files of logs as text; a replay replaces files by corrected texts.

    Parameters
    ----------
    texts : mapping of resolved path to str, optional
        Texts that replace files, which need not exist any more.
    numbers : NumberStyle, optional
        How values are written in CSV files and model cards, as far as it was told.
    """

    def __init__(
        self, texts: Mapping[Path, str] | None = None, numbers: NumberStyle = PLAIN_NUMBERS
    ) -> None:
        self._texts = dict(texts or {})
        self.numbers = numbers

    def exists(self, path: Path) -> bool:
        """Whether there is a text for the file, or anything under its name, readable or not."""
        return real(path) in self._texts or os.path.lexists(path)

    def given(self, path: Path) -> bool:
        """Whether a corrected text replaces the file."""
        return real(path) in self._texts

    def text(self, path: Path) -> str:
        """Whole text of a file, a byte-order mark skipped.

        Raises
        ------
        BadLogError
            Not UTF-8 text, too long, not a regular file, or gone.
        StorageError
            The disk refuses.
        """
        known = self._texts.get(real(path))
        if known is not None:
            return known
        try:
            data = read_regular(path, max_bytes=_MAX_BYTES, follow=True)
        except DataError as error:
            cause = error.__cause__
            reason = str(error).removeprefix(f"{path}: ")
            if isinstance(cause, OSError):
                if cause.errno not in _LEADS_NOWHERE:
                    raise StorageError(f"{path}: cannot be read ({reason_of(cause)})") from error
                reason = _LEADS_NOWHERE[cause.errno]
            raise BadLogError(BadLog(file=path, reason=reason)) from error
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadLogError(
                BadLog(
                    file=path,
                    reason=f"byte {error.start + 1} is not UTF-8; convert the file to UTF-8",
                    raw=data.decode(errors="backslashreplace"),
                )
            ) from error


def real(path: Path) -> Path:
    """``path`` without links; of one in a loop of links, what can be followed."""
    # Path.resolve raises a RuntimeError for a loop.
    return Path(os.path.realpath(path))


class Candidate:
    """A file that a format may claim: its path, and its first bytes, read if needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head: bytes | None = None

    @property
    def head(self) -> bytes:
        """The first 64 KiB; empty where the file cannot be read."""
        if self._head is None:
            try:
                with open_regular(self.path, follow=True) as handle:
                    self._head = handle.read(HEAD_BYTES)
            except (DataError, OSError):
                self._head = b""
        return self._head

    @property
    def first_line(self) -> str:
        """The first line as text, without a byte-order mark; empty for a binary file."""
        line = self.head.split(b"\n", 1)[0].strip(b"\r")
        try:
            return line.decode("utf-8-sig")
        except UnicodeDecodeError:
            return ""


class LogFormat(ABC):
    """One log format: finds its logs by content, and reads them as data, never as code."""

    #: Name on the command line.
    name: ClassVar[str]
    #: What its log looks like, for messages: "trainer_state.json in a run or checkpoint folder".
    wanted: ClassVar[str]
    #: Folder of a log, below it or it itself (``.``), in which nothing else is looked for.
    owned_folder: ClassVar[str | None] = None
    #: Whether a table in this format is its log also where it is named by itself: read as a table
    #: of runs, its steps would become runs, or its metric and direction be lost.
    reads_tables: ClassVar[bool] = False
    #: Whether its logs repeat what another format records in the same folder or above it, if there
    #: is such a log; they are then not read.
    is_second_record: ClassVar[bool] = False

    @abstractmethod
    def place_of(self, candidate: Candidate) -> Path | None:
        """The log that a file belongs to: a run folder, a database, or the file itself.

        Judged by content; a file with the format's own name is claimed even when it is damaged, so
        that it goes to quarantine and does not go unseen. ``None`` for a file of another format.
        """

    def place_if_named(self, candidate: Candidate) -> Path | None:
        """The same of a file that is named by itself, together with this format."""
        return self.place_of(candidate)

    def folder_of(self, place: Path) -> str:
        """``_folder`` of the runs of a log: its folder's name, or the next above that says more."""
        return place.name if place.is_dir() else place.parent.name

    @abstractmethod
    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Read the runs of one log that :meth:`place_of` gave.

        Yields
        ------
        LoggedRun or BadLog
            A run with a damaged part is yielded from what can be read, beside the damaged part.

        Raises
        ------
        BadLogError
            Nothing (more) of the log can be read.
        MissingExtraError
            The format needs an extra that is not installed.
        """
