"""Journals: files that open recorders write to, so that a kill loses no logged value.

A journal is a hidden file of the inbox, locked by its recorder as long as the recorder lives. Its
first line holds the fields of the run, every further line one logged value or later fields. A kill
loses no line that was written; a power cut may.
"""

import contextlib
import io
import json
import logging
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import open_regular, read_bounded
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.lock import hold, is_held
from recsys_ms.core.processes import is_running
from recsys_ms.core.temporary import temporary_name
from recsys_ms.core.types import JsonDict
from recsys_ms.history.inbox.inbox import MAX_FILE_BYTES, file_stem
from recsys_ms.history.recorder.state_order import recorded_progress

_LOG = logging.getLogger(__name__)

PREFIX: Final = ".open-"
SUFFIX: Final = ".jsonl"
#: A recorder on another host, whose lock may not be visible here, counts as dead after this time.
SILENCE_SECONDS: Final = 24 * 3600.0

#: Tag of a failed run: the class of its error, or another reason.
ERROR_TAG: Final = "error"

#: Where more lines are damaged, the rest is not looked at: it takes 5 seconds for a million lines.
_MOST_DAMAGED: Final = 1_000
_MOST_LINES: Final = 2_000_000

_INT64: Final = range(-(2**63), 2**63)


class Point(NamedTuple):
    """One logged value."""

    step: int | None
    epoch: float | None
    metric: str
    split: str | None
    value: float

    @classmethod
    def of(cls, row: Any) -> Self:
        """A logged value as JSON has it; ``DataError`` if it is not one."""
        match row:
            case [step, epoch, str(metric), split, value] if (
                (step is None or _is_whole(step))
                and (epoch is None or _is_number(epoch))
                and metric
                and (split is None or isinstance(split, str))
                and _is_number(value)
            ):
                at = None if epoch is None else float(epoch)
                # Millions of values have few names.
                split = None if split is None else sys.intern(split)
                return cls(step, at, sys.intern(metric), split, float(value))
        raise DataError(
            f"got {str(row)[:100]}, expected [step, epoch, metric, split, value] of a whole "
            "number, a number, a text, a text and a number; all but metric and value may be null"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


@dataclass(slots=True)
class Recorded:
    """A run as its recorder knows it: fields as of ``record_run``, and logged values in order.

    ``recording`` tells it from other recordings of the same ``run_id``.
    """

    fields: JsonDict
    recording: int = field(default_factory=lambda: secrets.randbits(30))
    points: list[Point] = field(default_factory=list)

    def outcome(self) -> tuple[float | None, float | None]:
        """Value and epoch of the run so far: the best of its metric by direction, or the last."""
        metric, split = self.fields.get(c.METRIC), self.fields.get(c.SPLIT)
        own = [p for p in self.points if p.metric == metric and p.split == split]
        if self.fields.get(c.VALUE_KIND) == "last":
            own = own[-1:]
        finite = [point for point in own if math.isfinite(point.value)]
        if not finite:
            return None, None
        sign = -1.0 if self.fields.get(c.DIRECTION) == "max" else 1.0
        best = min(finite, key=lambda point: sign * point.value)
        return best.value, best.epoch

    def account(
        self, status: str, stage: int, error: Mapping[str, str] | None = None
    ) -> tuple[JsonDict, int]:
        """Fields and progress of a state; its logged values are ``points``.

        ``stage`` is one of ``state_order.py``. ``error`` holds tags that say why it failed.
        """
        value, epoch = self.outcome()
        fields = {**self.fields, c.VALUE: value, c.EPOCH: epoch, c.STATUS: status}
        if error:
            tags = fields.get(c.TAGS)
            fields[c.TAGS] = {**(tags if isinstance(tags, Mapping) else {}), **error}
        return fields, recorded_progress(self.recording, len(self.points), stage)


class JournalWriter:
    """Creates a journal in an inbox, locked before it can be found, and appends to it.

    Raises
    ------
    OSError
        The journal cannot be written.
    """

    def __init__(self, inbox: Path, recorded: Recorded) -> None:
        stem = file_stem(inbox)
        self.path = inbox / f"{PREFIX}{stem}{SUFFIX}"
        temporary = inbox / temporary_name(stem)
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            # An ingest takes an unlocked journal for that of a dead recorder.
            head = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "locked": hold(self._descriptor),
                "recording": recorded.recording,
                "fields": recorded.fields,
            }
            self.append(head)
            try:
                temporary.rename(self.path)
            except PermissionError:
                # Windows renames no open file. An ingest of this very moment takes the run for
                # killed, until its end corrects that.
                self.close()
                temporary.rename(self.path)
                self._descriptor = os.open(self.path, flags)
                hold(self._descriptor)
        except OSError:
            self.close()
            temporary.unlink(missing_ok=True)
            raise

    def append(self, entry: object) -> None:
        """Write one line in one call; ``OSError`` if it cannot be written whole."""
        data = json.dumps(entry, default=_spelt).encode() + b"\n"
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes could be written")

    def close(self) -> None:
        """Release the lock."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the journal: the run is in the inbox."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            # Windows deletes no open file.
            self.close()
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        else:
            self.close()


def _spelt(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal that was read, and when its last line was written.

    ``recorded`` is ``None`` if the first line is damaged; ``damaged`` are the lines that cannot be
    read (cut off by a full disk), then all of them; ``dead`` says that the recorder is dead.
    """

    path: Path
    recorded: Recorded | None
    dead: bool
    damaged: str
    written_at: datetime | None


def list_journals(inbox: Path) -> list[Path]:
    """Journals of an inbox, oldest first."""
    return sorted(inbox.glob(f"{PREFIX}*{SUFFIX}"))


def read_journals(paths: Iterable[Path]) -> Iterable[Journal]:
    """Read journals; those that their recorders have removed meanwhile are skipped."""
    for path in paths:
        try:
            with open_regular(path, max_bytes=MAX_FILE_BYTES) as handle:
                yield _read(path, handle)
        except DataError as error:
            warn_unread(error)


def warn_unread(error: DataError) -> None:
    """Say why an entry of an inbox is passed over, unless it is gone: its recorder has ended."""
    if not isinstance(error.__cause__, FileNotFoundError):
        _LOG.warning("left in the inbox: %s", error)


def _read(path: Path, handle: BinaryIO) -> Journal:
    # Before the text is read: a dead recorder does not write on.
    held = is_held(handle.fileno())
    written_at = os.fstat(handle.fileno()).st_mtime
    start = b""
    if held:
        # The byte that Windows keeps from readers.
        handle.seek(1)
        start = b"{"
    data = start + read_bounded(path, handle, MAX_FILE_BYTES)
    lines = io.BytesIO(data)
    first = lines.readline()
    # The text after the last line break was not written whole.
    head: Any = _entry(first) if first.endswith(b"\n") else None
    recorded = _begun(head)
    silent = time.time() - written_at > SILENCE_SECONDS
    # A recorder that lives has written its first line.
    dead = not held and (recorded is None or _is_dead(head, held, silent=silent))
    damaged = data if recorded is None else _fill(recorded, lines)
    text = damaged.decode(errors="surrogateescape")
    return Journal(path, recorded, dead, text, _moment(written_at))


def _is_dead(head: JsonDict, held: bool | None, *, silent: bool) -> bool:
    """Whether the recorder of a journal that is not locked is dead."""
    if head.get("host") != socket.gethostname():
        return silent
    if held is False and head.get("locked", True):
        return True
    pid = head.get("pid")
    return silent or (isinstance(pid, int) and is_running(pid) is False)


def _fill(recorded: Recorded, lines: io.BytesIO) -> bytes:
    """Add what the lines hold to a run; gives those that are damaged."""
    damaged: list[bytes] = []
    for n_lines, line in enumerate(lines):
        if not (line.endswith(b"\n") and _taken_in(recorded, _entry(line))):
            damaged.append(line)
        if n_lines > _MOST_LINES or len(damaged) > _MOST_DAMAGED:
            damaged.append(lines.read())
    return b"".join(damaged)


def _entry(line: bytes) -> Any:
    """What a line holds; ``None`` if it is damaged, since no entry is null."""
    with contextlib.suppress(DataError):
        return parse_json(line)
    return None


def _begun(head: Any) -> Recorded | None:
    """A run that its first line describes."""
    match head:
        case {"fields": dict(fields), "recording": int(recording)}:
            return Recorded(fields, recording)
        case {"fields": dict(fields), "began": int(began)}:
            # Of an earlier version.
            return Recorded(fields, began)
    return None


def _taken_in(recorded: Recorded, entry: Any) -> bool:
    """Add a value, or later fields, to a run; ``False`` if the entry is neither."""
    if isinstance(entry, dict):
        recorded.fields.update(entry)
        return True
    with contextlib.suppress(DataError):
        recorded.points.append(Point.of(entry))
        return True
    return False


def _moment(seconds: float) -> datetime | None:
    """A time of the file system, which may be any number."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC)
    return None
