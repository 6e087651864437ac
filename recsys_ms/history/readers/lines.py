"""Reads the physical lines of a text file, one at a time, in bounded memory."""

import codecs
import gzip
import hashlib
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self, cast

from recsys_ms.core.errors import DataError, StorageError, UsageError

#: Bytes of the longest line that is read; a longer one is rejected and the rest is still read.
MAX_LINE_BYTES: Final = 1 << 20
#: Bytes of an over-long line that are kept as its raw text.
_KEPT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row of a table that cannot be read.

    Attributes
    ----------
    line : int
        Physical line (row, for Parquet) it begins on, from 1.
    reason, raw : str
        What was wrong, and its text.
    final : str
        Why reading ``raw`` again cannot help; empty where it can.
    """

    line: int
    reason: str
    raw: str
    final: str = ""


class BadLineError(Exception):
    """A line that cannot become text; reading goes on with the next one."""

    def __init__(self, bad: BadRow) -> None:
        super().__init__(bad.reason)
        self.bad = bad


class Lines:
    """Iterator over the lines of a file, with their line ends.

    A line that is not text or is longer than :data:`MAX_LINE_BYTES` raises :class:`BadLineError`;
    the next call goes on behind it.

    The encoding is any whose line feed is one byte; ``name`` is the file in errors. ``number`` is
    that of the last line, from 1, and ``taken`` the lines given out since the caller cleared it.
    """

    def __init__(self, handle: BinaryIO, encoding: str, name: str = "row") -> None:
        self._name = name
        self.number = 0
        self.taken: list[str] = []
        self._handle = handle
        self._encoding = encoding
        self._again: deque[str] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self.number += 1
        text = self._again.popleft() if self._again else self._read()
        self.taken.append(text)
        return text

    def push_back(self, lines: Sequence[str]) -> None:
        """Give out ``lines``, which were the last ones, once more."""
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)

    def _read(self) -> str:
        try:
            data = self._handle.readline(MAX_LINE_BYTES + 1)
            if len(data) > MAX_LINE_BYTES:
                raise self._too_long(data)
        except (OSError, EOFError, zlib.error) as error:
            # gzip reports a broken file as EOFError, BadGzipFile (an OSError) or zlib.error.
            raise DataError(
                f"{self._name}: line {self.number}: reading stopped here ({error}); "
                "copy the file again"
            ) from error
        if not data:
            self.number -= 1
            raise StopIteration
        if self.number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{self._name}: the file is UTF-16; convert it to UTF-8")
        try:
            return data.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise self._bad(
                f"byte {data[error.start]:#04x} at position {error.start + 1} is not "
                f"{self._encoding}; pass the encoding of the file, for example latin-1",
                data.rstrip(b"\r\n"),
                "its bytes are not text; ingest the file again with its encoding",
            ) from error

    def _too_long(self, data: bytes) -> BadLineError:
        digest, size, kept = hashlib.sha256(data), len(data), data[:_KEPT_BYTES]
        while data and not data.endswith(b"\n"):
            data = self._handle.readline(MAX_LINE_BYTES)
            digest.update(data)
            size += len(data)
        return self._bad(
            f"the line has {size} bytes (sha256 {digest.hexdigest()}), more than the limit of "
            f"{MAX_LINE_BYTES}; only its first {_KEPT_BYTES} bytes are kept here",
            kept,
            "only its beginning was kept; shorten the line in the file and ingest it again",
        )

    def _bad(self, reason: str, data: bytes, final: str) -> BadLineError:
        raw = data.decode(self._encoding, errors="backslashreplace")
        return BadLineError(BadRow(line=self.number, reason=reason, raw=raw, final=final))


def open_lines(path: Path, encoding: str) -> tuple[BinaryIO, Lines]:
    """Open ``path`` (decompressing ``.gz``) and its line iterator; the caller closes the handle.

    Raises
    ------
    UsageError
        Unknown encoding, or one whose line feed is not one byte (UTF-16, UTF-32).
    DataError
        No such file.
    StorageError
        The file may not be opened.
    """
    try:
        is_by_line = "a,\n".encode(encoding) == b"a,\n"
    except LookupError as error:
        raise UsageError(f"encoding {encoding!r} is unknown; use utf-8 or latin-1") from error
    if not is_by_line:
        raise UsageError(f"encoding {encoding!r} cannot be read line by line; convert to utf-8")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror or error})") from error
    handle = cast(BinaryIO, opened)
    return handle, Lines(handle, encoding, str(path))
