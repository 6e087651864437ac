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
#: Bytes of the longest row, over all lines of its quoted fields.
MAX_ROW_BYTES: Final = 8 << 20
#: Bytes of an over-long line that are kept as its raw text.
_KEPT_BYTES: Final = 4096
#: Bytes of a line behind which the file is not read further: 11 MB of gzip can hold 11 GB.
_END_BYTES: Final = 1 << 30
#: Characters of ASCII, and sequences of them that some encodings take for other characters:
#: escapes, UTF-7, HZ, ISO 2022, IDNA.
_ASCII: Final = (
    "".join(chr(code) for code in (9, 10, 13, *range(32, 127)) if code != ord("\\"))
    + r"\x41\u0041 +AGE- ~{VPND~} "
    + "\x1b$B!!\x1b(B \x0e!!\x0f .xn--mnchen-3ya"
)


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
    damaged : bool
        Whether no mapping can help, since the row itself cannot be read.
    """

    line: int
    reason: str
    raw: str
    final: str = ""
    damaged: bool = True


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
        self._row_bytes = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self.taken:
            self._row_bytes = 0
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
        self._row_bytes += len(data)
        if self._row_bytes > MAX_ROW_BYTES and self.taken:
            raise self._bad(
                f"the row has more than the limit of {MAX_ROW_BYTES} bytes up to here",
                data[:_KEPT_BYTES],
                "only a part was kept; shorten the row in the file and ingest it again",
            )
        if self.number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{self._name}: the file is UTF-16; convert it to UTF-8")
        try:
            return data.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise self._bad(
                f"byte {data[error.start]:#04x} at position {error.start + 1} is not "
                f"{self._encoding}; give the encoding of the file, for example --encoding latin-1",
                data.rstrip(b"\r\n"),
                "its bytes are not text; ingest the file again with its encoding",
            ) from error

    def _too_long(self, data: bytes) -> BadLineError:
        digest, size, kept = hashlib.sha256(data), len(data), data[:_KEPT_BYTES]
        while data and not data.endswith(b"\n"):
            data = self._handle.readline(MAX_LINE_BYTES)
            digest.update(data)
            size += len(data)
            if size > _END_BYTES:
                raise DataError(
                    f"{self._name}: line {self.number} has more than {_END_BYTES} bytes: this is "
                    "not a table"
                )
        return self._bad(
            f"the line has {size} bytes (sha256 {digest.hexdigest()}), more than the limit of "
            f"{MAX_LINE_BYTES}; only its first {_KEPT_BYTES} bytes are kept here",
            kept,
            "only its beginning was kept; shorten the line in the file and ingest it again",
        )

    def _bad(self, reason: str, data: bytes, final: str) -> BadLineError:
        raw = data.decode(self._encoding, errors="backslashreplace")
        return BadLineError(BadRow(line=self.number, reason=reason, raw=raw, final=final))


def check_encoding(encoding: str) -> None:
    """Refuse encodings that cannot be read line by line; ``UsageError`` before anything is read.

    Each byte of ASCII must be its own character, wherever it is, as in UTF-8 and Latin-1.
    """
    try:
        is_plain = _ASCII.encode("ascii").decode(encoding) == _ASCII
    except (LookupError, ValueError) as error:
        # A ValueError is what codecs say of bytes that are not theirs, and of odd names.
        if isinstance(error, LookupError) and "not a text encoding" not in str(error):
            raise UsageError(
                f"--encoding {encoding!r} is unknown; use utf-8, latin-1 or cp1252"
            ) from error
        is_plain = False
    if not is_plain:
        raise UsageError(
            f"--encoding {encoding!r}: such a text cannot be read line by line; convert the file "
            "to utf-8"
        )


def open_lines(path: Path, encoding: str) -> tuple[BinaryIO, Lines]:
    """Open ``path`` (decompressing ``.gz``) and its line iterator; the caller closes the handle.

    Raises
    ------
    UsageError
        An encoding that :func:`check_encoding` refuses.
    DataError
        No such file.
    StorageError
        The file may not be opened.
    """
    check_encoding(encoding)
    handle = open_plain(path)
    return handle, Lines(handle, encoding, str(path))


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read its bytes, decompressed where it ends in ``.gz``.

    Raises
    ------
    DataError
        No such file.
    StorageError
        The file may not be opened.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror or error})") from error
    return cast(BinaryIO, opened)
