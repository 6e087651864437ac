"""Journals: files that open recorders write to, so that a kill loses no logged value.

A journal is a hidden file of the inbox, locked by its recorder as long as the recorder lives. Its
first line holds the fields of the run, every further line one logged value or later fields. A kill
loses no line that was written; a power cut may. Standard library only.
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.inbox.inbox import CURVE_KEY, PROGRESS_KEY, file_stem

_LOG = logging.getLogger(__name__)

PREFIX: Final = ".open-"
SUFFIX: Final = ".jsonl"
#: A recorder on another host, whose lock may not be visible here, counts as dead after this time.
SILENCE_SECONDS: Final = 24 * 3600.0

#: Tag of a failed run: the class of its error, or another reason.
ERROR_TAG: Final = "error"

#: Progress of the run of a recorder: first which recording of it this is (a job that restarts under
#: its run_id), then the logged values, then the stage.
_PER_SECOND: Final = 1 << 32
_PER_VALUE: Final = 4
AT_WORK, TERMINATED, AT_END = 0, 1, 2


class Point(NamedTuple):
    """One logged value."""

    step: int | None
    epoch: float | None
    metric: str
    split: str | None
    value: float


@dataclass(slots=True)
class Recorded:
    """A run as its recorder knows it: fields as of ``record_run``, and logged values in order.

    ``began`` is when the recording began, in seconds since 1970.
    """

    fields: JsonDict
    began: int = field(default_factory=lambda: int(time.time()))
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
    ) -> tuple[JsonDict, JsonDict]:
        """Fields, and curve and progress, of an inbox file.

        ``stage`` is ``AT_WORK``, ``TERMINATED`` or ``AT_END``: of two accounts with equally many
        values the one of the later stage counts. ``error`` holds tags that say why it failed.
        """
        value, epoch = self.outcome()
        fields = {**self.fields, c.VALUE: value, c.EPOCH: epoch, c.STATUS: status}
        if error:
            tags = fields.get(c.TAGS)
            fields[c.TAGS] = {**(tags if isinstance(tags, Mapping) else {}), **error}
        extras: JsonDict = {
            CURVE_KEY: [list(point) for point in self.points],
            PROGRESS_KEY: self.began * _PER_SECOND + _PER_VALUE * len(self.points) + stage,
        }
        return fields, extras


class JournalWriter:
    """Creates a journal in an inbox, locked before it can be found, and appends to it.

    Raises
    ------
    OSError
        The journal cannot be written.
    """

    def __init__(self, inbox: Path, recorded: Recorded) -> None:
        stem = file_stem()
        self.path = inbox / f"{PREFIX}{stem}{SUFFIX}"
        temporary = inbox / f".{stem}.tmp"
        self._descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644
        )
        try:
            # An ingest takes an unlocked journal for that of a dead recorder.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            began, fields = recorded.began, recorded.fields
            self.append({"host": socket.gethostname(), "began": began, "fields": fields})
            temporary.rename(self.path)
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
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.close()


def _spelt(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal that was read, its whole text, and when its last line was written.

    ``recorded`` is ``None`` if the first line is damaged; ``damaged`` are the lines that cannot be
    read (cut off by a full disk); ``dead`` says that the recorder is dead.
    """

    path: Path
    recorded: Recorded | None
    dead: bool
    damaged: str
    text: str
    written_at: datetime


def list_journals(inbox: Path) -> list[Path]:
    """Journals of an inbox, oldest first."""
    return sorted(inbox.glob(f"{PREFIX}*{SUFFIX}"))


def read_journals(paths: Iterable[Path]) -> Iterable[Journal]:
    """Read journals; those that their recorders have removed meanwhile are skipped."""
    for path in paths:
        try:
            # Before the text is read: a dead recorder does not write on.
            dead = _is_dead(path)
            written_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            continue
        except OSError as error:
            _LOG.warning("%s: left in the inbox, it cannot be read (%s)", path, error)
            continue
        yield _parsed(path, text, written_at, dead=dead)


def _is_dead(path: Path) -> bool:
    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(handle, fcntl.LOCK_UN)
        first = handle.readline()
        silent = time.time() - os.fstat(handle.fileno()).st_mtime
    try:
        here = json.loads(first)["host"] == socket.gethostname()
    except (ValueError, KeyError, TypeError, RecursionError):
        here = True
    return here or silent > SILENCE_SECONDS


def _parsed(path: Path, text: str, written_at: datetime, *, dead: bool) -> Journal:
    lines = text.split("\n")
    recorded: Recorded | None = None
    # The text after the last line break was not written whole.
    damaged = [lines[-1]] if lines[-1] else []
    for line in lines[:-1]:
        try:
            entry = json.loads(line)
            if recorded is None:
                recorded = Recorded(dict(entry["fields"]), int(entry["began"]))
            elif isinstance(entry, dict):
                recorded.fields.update(entry)
            else:
                step, epoch, metric, split, value = entry
                recorded.points.append(Point(step, epoch, str(metric), split, float(value)))
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(line)
    return Journal(path, recorded, dead, "\n".join(damaged), text, written_at)
