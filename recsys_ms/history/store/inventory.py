"""The inventory of a history: every file that it consists of, with size, digest and second copy.

All files of a history but those of its inbox are written once and never changed. The marker
(``history.json``) lists them with size and SHA-256, so damage to any of them is seen: a file that
is missing, cut off, altered, or replaced by something else. ``archive/copies`` holds each file of
the tables and of the quarantine a second time, so it can be put right again
(:mod:`recsys_ms.history.store.repair`). A table and its copy take about 80 bytes a run and 8 bytes
a logged value each; a digest takes half a second for 1 GB.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from recsys_ms.core.errors import DataError
from recsys_ms.core.files import (
    file_errors,
    open_regular,
    read_regular,
    sha256_file,
    write_atomic,
    written_beside,
)
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.temporary import discard
from recsys_ms.history.inbox.inbox import INBOX_FOLDER, MARKER_FILE

RUNS_FOLDER: Final = "runs"
CURVES_FOLDER: Final = "curves"
ARCHIVE_FOLDER: Final = "archive"
QUARANTINE_FOLDER: Final = "quarantine"
INGESTS_FOLDER: Final = "ingests"
#: Folders that every history has from the first day on.
STANDING_FOLDERS: Final = (INBOX_FOLDER, ARCHIVE_FOLDER, QUARANTINE_FOLDER)
#: Delta tables.
TABLES: Final = (RUNS_FOLDER, CURVES_FOLDER)
LOG_FOLDER: Final = "_delta_log"
#: Where Delta looks for the newest checkpoint first.
HINT: Final = "_last_checkpoint"
COPIES: Final = f"{ARCHIVE_FOLDER}/copies"
_FORMAT: Final = 1
_CHECK: Final = "digest"
#: A history of 100,000 commits has a marker of 40 MB.
_MAX_MARKER_BYTES: Final = 1 << 30
_MAX_COMMIT_BYTES: Final = 1 << 28
COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"\d{20}\.checkpoint(\..*)?\.parquet")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file was when it was written."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a history that is not as it was written; ``file`` is relative to the history."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


@dataclass(frozen=True, slots=True)
class Marker:
    """Content of the marker: the least version of the runs, and the inventory.

    ``files`` is ``None`` if an earlier version of recsys-ms wrote it.
    """

    version: int
    files: Mapping[str, Entry] | None = None

    def to_bytes(self) -> bytes:
        """The JSON document, with a digest of itself."""
        document: dict[str, object] = {"format": _FORMAT, "version": self.version}
        if self.files is not None:
            document["files"] = {name: [e.size, e.digest] for name, e in self.files.items()}
            document[_CHECK] = _digest_of(document)
        return json.dumps(document).encode()


def read_marker(path: Path) -> Marker:
    """The marker of a history.

    ``DataError`` if it is damaged, or of a newer version of recsys-ms.
    """
    caught = (ValueError, LookupError, TypeError, AttributeError)
    with file_errors(f"{path}: damaged", mend(path.parent), catch=caught, raises=DataError):
        document = parse_json(read_regular(path, max_bytes=_MAX_MARKER_BYTES))
        written, version = (_whole(document[name]) for name in ("format", "version"))
        if written <= _FORMAT:
            check = document.pop(_CHECK, None)
            if len(document) == 2 and check is None:
                return Marker(version)
            if check != _digest_of(document):
                raise ValueError("its content was altered")
            return Marker(version, dict(map(_entry, document["files"].items())))
    raise DataError(
        f"{path}: format {written} was written by a newer version of recsys-ms, this one knows "
        f"formats up to {_FORMAT}; upgrade recsys-ms"
    )


def _digest_of(document: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _entry(item: tuple[str, Any]) -> tuple[str, Entry]:
    name, (size, digest) = item
    if not _DIGEST.fullmatch(digest) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r:.80} is not a file of a history with its digest")
    return name, Entry(_whole(size), digest)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"got {value!r:.80}, expected a whole number from 0")
    return value


def mend(folder: Path) -> str:
    """How to go on with a damaged history."""
    return f"see 'recsys-ms doctor -H {folder}'; with --repair it shows how it can be put right"


@dataclass(slots=True)
class Inventory:
    """Files of the history in a folder: checked against the marker, and brought up to date.

    The marker is read when it is first needed, and again after :meth:`forget`.
    """

    folder: Path
    _marker: Marker | None = None
    #: Files whose digest was found right, as size, time of the last change and inode then.
    _right: dict[Path, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def marker(self) -> Marker:
        """The marker; ``DataError`` if it is damaged."""
        if self._marker is None:
            self._marker = read_marker(self.folder / MARKER_FILE)
        return self._marker

    def forget(self) -> None:
        """Read the marker again at the next call: another process may have written."""
        self._marker = None

    @property
    def files(self) -> Mapping[str, Entry]:
        """The listed files."""
        return self.marker.files or {}

    def damages(self, names: Iterable[str] | None = None, *, content: bool) -> Iterator[Damage]:
        """Listed files that are not as they were written.

        Parameters
        ----------
        names : iterable of str, optional
            Only these, and only those of them that are listed. Default: all, and the folders that
            every history has.
        content : bool
            Whether digests are compared; else kind and size only, which takes no reading.
        """
        if names is None:
            for name in STANDING_FOLDERS:
                if not (self.folder / name).is_dir():
                    yield Damage(f"{name}/", "is missing")
        files = self.files
        for name in files if names is None else [name for name in names if name in files]:
            what = self.difference(self.folder / name, files[name], content=content)
            if what:
                yield Damage(name, what)

    def check(self, names: Iterable[str] | None = None, *, content: bool) -> None:
        """``DataError`` if a file is damaged; see :meth:`damages`.

        Without ``names``, commits that are not listed yet are looked at as well.
        """
        given = None if names is None else list(names)
        if next(self.damages(given, content=content), None) is None:
            for table in TABLES if given is None else ():
                self.check_new(table)
            return
        # A writer may have replaced old files, and the marker, since it was read.
        self.forget()
        found = list(self.damages(given, content=content))
        if found:
            raise DataError(f"{self.folder}: damaged: {_listed(found)}; {mend(self.folder)}")

    def difference(self, path: Path, entry: Entry, *, content: bool) -> str:
        """How a file differs from what was written; empty if it does not."""
        try:
            found = path.lstat()
        except OSError as error:
            return "is missing" if isinstance(error, FileNotFoundError) else f"({error.strerror})"
        if not stat.S_ISREG(found.st_mode):
            return "is not a file any more, but a folder, a link or a device"
        if found.st_size != entry.size:
            return f"has {found.st_size:,} bytes, expected {entry.size:,}"
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        if content and self._right.get(path) != state:
            try:
                digest = sha256_file(path)
            except OSError as error:
                return f"cannot be read ({error.strerror})"
            if digest != entry.digest:
                return "has other content than was written"
            self._right[path] = state
        return ""

    def update(self, version: int, live: Iterable[str]) -> None:
        """List what was written since, make the second copies, and write the marker.

        The caller holds the lock, and has checked the files that are listed.

        Parameters
        ----------
        version : int
            Version of the runs.
        live : iterable of str
            Data files of the tables as they are now: a log may begin with a checkpoint.

        Raises
        ------
        DataError
            A new commit is not whole.
        StorageError
            The disk is full or read-only.
        """
        self.forget()
        before = self.marker
        files: dict[str, Entry] = {}
        for name in dict.fromkeys((*self.present(), *live)):
            path = self.folder / name
            known = self.files.get(name)
            files[name] = known or Entry(path.lstat().st_size, sha256_file(path))
        now = Marker(version, files)
        self.keep(now, changed=now != before)

    def keep(self, marker: Marker, *, changed: bool = True) -> None:
        """Make the second copies of the listed files, and write the marker."""
        copies = self.folder / COPIES
        wanted = {name for name in marker.files or {} if has_copy(name)}
        with file_errors(
            f"{copies}: the second copies cannot be written",
            "everything is in the history; check that there is free space, and run again",
        ):
            for name in wanted:
                if not _is_like(copies / name, (marker.files or {})[name]):
                    if (copies / name).is_dir():
                        discard(copies / name)
                    copy_file(self.folder / name, copies / name)
            wanted.add(MARKER_FILE)
            for path in [*_walk(copies)] if changed else ():
                if path.relative_to(copies).as_posix() not in wanted:
                    discard(path)
        if changed:
            # The copy first: a marker without a copy is not written.
            for folder in (copies, self.folder):
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(folder / MARKER_FILE, marker.to_bytes())
        self._marker = marker

    def drop(self, names: Iterable[str]) -> None:
        """Take files off the list that are about to be deleted, with their copies."""
        gone = set(names)
        if gone & set(self.files):
            files = {name: entry for name, entry in self.files.items() if name not in gone}
            self.keep(Marker(self.marker.version, files))

    def check_new(self, table: str) -> None:
        """``DataError`` if a commit of a table that is not listed yet is not whole."""
        for _ in self._present(table):
            pass

    def present(self) -> Iterator[str]:
        """Files that belong to the history: commits, quarantine, archive, records of ingests.

        ``DataError`` if a commit that is not listed yet is not whole.
        """
        for table in TABLES:
            yield from self._present(table)
        quarantine = self.folder / QUARANTINE_FOLDER
        yield from self._names(quarantine.glob("*.parquet"))
        yield from self._names((self.folder / INGESTS_FOLDER).glob("*.json"))
        yield from self._names((self.folder / ARCHIVE_FOLDER).glob("*/*.tar.gz"))

    def _present(self, table: str) -> Iterator[str]:
        """Log and committed data files of a Delta table."""
        files = self.files
        log = self.folder / table / LOG_FOLDER
        logged = [path for path in sorted(log.glob("*")) if is_of_log(path.name)]
        hint = log / HINT
        if is_odd(hint):
            raise DataError(f"{hint}: damaged: it is not a file; {mend(self.folder)}")
        numbers = [int(found[1]) for path in logged if (found := COMMIT.fullmatch(path.name))]
        if numbers and numbers[-1] - numbers[0] >= len(numbers):
            raise DataError(f"{log}: damaged: a commit is missing; {mend(self.folder)}")
        yield from self._names(logged)
        data = {name for name in files if name.startswith(f"{table}/") and LOG_FOLDER not in name}
        for path in logged:
            name = path.relative_to(self.folder).as_posix()
            if name not in files and COMMIT.fullmatch(path.name):
                for part, size in added_files(path).items():
                    of_part = self.folder / table / part
                    # A compaction of the curves deletes the files that it replaced.
                    if table == CURVES_FOLDER and not os.path.lexists(of_part):
                        continue
                    self._check_part(of_part, size)
                    data.add(f"{table}/{part}")
        yield from sorted(name for name in data if os.path.lexists(self.folder / name))

    def _check_part(self, path: Path, size: int) -> None:
        with file_errors(f"{path}: damaged", mend(self.folder), raises=DataError):
            found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            raise DataError(
                f"{path}: damaged: the commit says {size:,} bytes, found {found.st_size:,}; "
                f"{mend(self.folder)}"
            )

    def _names(self, paths: Iterable[Path]) -> Iterator[str]:
        for path in sorted(paths):
            if not path.name.startswith("."):
                yield path.relative_to(self.folder).as_posix()

    def uncommitted(self) -> list[Path]:
        """What killed writers left in the tables; the caller holds the lock."""
        if self.marker.files is None:
            # Not every file is known yet.
            return []
        found: list[Path] = []
        for table in TABLES:
            folder = self.folder / table
            committed = {self.folder / name for name in self._present(table)}
            data = {*folder.glob("*.parquet"), *folder.glob("month=*/*.parquet")}
            found += [*(data - committed), *(folder / LOG_FOLDER).glob("_commit_*.tmp")]
        return found


def is_odd(path: Path) -> bool:
    """Whether something that is not a regular file lies at a path."""
    return os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode)


def has_copy(name: str) -> bool:
    """Whether a file has a second copy; an archive holds copies itself."""
    return not name.startswith(f"{ARCHIVE_FOLDER}/")


def is_of_log(name: str) -> bool:
    """Whether a file of a Delta log counts; :data:`HINT` may be missing, and changes."""
    return bool(COMMIT.fullmatch(name) or _CHECKPOINT.fullmatch(name))


def added_files(commit: Path) -> dict[str, int]:
    """Data files that a commit of a Delta log adds, relative to the table, with their sizes.

    ``DataError`` if the commit is not whole.
    """
    found: dict[str, int] = {}
    actions = 0
    caught = (ValueError, LookupError, TypeError, AttributeError)
    with file_errors(f"{commit}: damaged", mend(commit.parents[2]), catch=caught, raises=DataError):
        for line in read_regular(commit, max_bytes=_MAX_COMMIT_BYTES).splitlines():
            action = parse_json(line)
            actions += len(action)
            if "add" in action:
                part = unquote(action["add"]["path"])
                found[part] = _whole(action["add"]["size"])
        if not actions:
            raise ValueError("it is empty")
    return found


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, so that the target is whole or not there; ``OSError``, ``DataError``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        open_regular(source) as reader,
        written_beside(target, durable=False) as temporary,
        temporary.open("xb") as writer,
    ):
        shutil.copyfileobj(reader, writer, 1 << 20)


def _is_like(path: Path, entry: Entry) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == entry.size


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _listed(damages: list[Damage]) -> str:
    more = f" (and {len(damages) - 3} more)" if len(damages) > 3 else ""
    return ", ".join(map(str, damages[:3])) + more
