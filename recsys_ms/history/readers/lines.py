"""Physical lines of a text file, one at a time, in bounded memory."""

import codecs
import gzip
import hashlib
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self, cast

from recsys_ms.core.errors import DataError, StorageError, UsageError

#: Bytes of the longest line that is read; a longer one is rejected and the rest is still read.
MAX_LINE_BYTES: Final = 1 << 20
#: Bytes of an over-long line that are kept as its raw text.
_KEPT_BYTES: Final = 4096


class BadLineError(Exception):
    """A line that cannot become text; the reader that asked for it goes on with the next one."""

    def __init__(self, number: int, reason: str, raw: str, final: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason
        self.raw = raw
        self.final = final


class Lines:
    """Iterator over the lines of a file, with their line ends, that keeps what it gave out.

    A line that is not text or is longer than :data:`MAX_LINE_BYTES` raises :class:`BadLineError`;
    the next call goes on behind it.

    Parameters
    ----------
    handle : BinaryIO
        Open at the first byte.
    encoding : str
        Any encoding whose line feed is one byte.
    name : str
        What errors call the file.

    Attributes
    ----------
    number : int
        Number of the line given out last, from 1.
    taken : list of str
        Lines given out since it was last cleared by its reader.
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
        if self._again:
            text = self._again.popleft()
        else:
            text = self._read()
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
                f"{self._name}: line {self.number}: the file cannot be read on ({error}); "
                "copy it again"
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
            raise BadLineError(
                self.number,
                f"byte {data[error.start]:#04x} at position {error.start + 1} is not "
                f"{self._encoding}; pass the file's encoding, for example latin-1",
                data.decode(self._encoding, errors="backslashreplace").rstrip("\r\n"),
                "its bytes are not text; ingest the file again with its encoding",
            ) from error

    def _too_long(self, data: bytes) -> BadLineError:
        digest = hashlib.sha256(data)
        size = len(data)
        kept = data[:_KEPT_BYTES].decode(self._encoding, errors="backslashreplace")
        while data and not data.endswith(b"\n"):
            data = self._handle.readline(MAX_LINE_BYTES)
            digest.update(data)
            size += len(data)
        return BadLineError(
            self.number,
            f"the line has {size} bytes (sha256 {digest.hexdigest()}), longer than "
            f"{MAX_LINE_BYTES}; only its first {_KEPT_BYTES} bytes are kept here",
            kept,
            "only its beginning was kept; shorten the line in the file and ingest it again",
        )


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
        plain = "a,\n".encode(encoding) == b"a,\n"
    except LookupError as error:
        raise UsageError(f"encoding {encoding!r} is unknown; utf-8 and latin-1 exist") from error
    if not plain:
        raise UsageError(f"encoding {encoding!r} cannot be read line by line; convert to utf-8")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror or error})") from error
    handle = cast(BinaryIO, opened)
    return handle, Lines(handle, encoding, str(path))
