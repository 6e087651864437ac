"""Repair of a damaged history: what is damaged, and how each file is put right again.

A damaged file is restored from its second copy, byte for byte. Where both are gone, the table is
built anew of all rows that can still be read, and the caller takes in the bundles of the archive
again. Nothing is deleted: damaged files are moved to ``damaged/``.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, make_folder, read_regular
from recsys_ms.core.temporary import temporary_name
from recsys_ms.history.inbox.inbox import MARKER_FILE
from recsys_ms.history.store.curve_store import MONTH, CurveStore
from recsys_ms.history.store.dedup import SEQUENCE
from recsys_ms.history.store.delta import DeltaStore
from recsys_ms.history.store.inventory import (
    COMMIT,
    COPIES,
    CURVES_FOLDER,
    HINT,
    LOG_FOLDER,
    RUNS_FOLDER,
    TABLES,
    Entry,
    Inventory,
    Marker,
    added_files,
    copy_file,
    has_copy,
    is_odd,
    read_marker,
)
from recsys_ms.history.store.layout import DAMAGED_FOLDER, LOCK_FILE
from recsys_ms.history.store.run_store import RunStore

Remedy: TypeAlias = Literal["make", "restore", "copy", "rebuild", "give up"]
#: What a repair does, in the order in which it does it.
REMEDIES: Final[dict[Remedy, str]] = {
    "make": "made anew",
    "restore": "restored from its second copy",
    "copy": "copied again",
    "rebuild": "no second copy: the table is built anew of all rows that can be read, and of the "
    "bundles in archive/; its earlier versions are lost",
    "give up": "lost: no second copy",
}
_STORES: Final[dict[str, type[DeltaStore]]] = {RUNS_FOLDER: RunStore, CURVES_FOLDER: CurveStore}
_MAX_LOG_BYTES: Final = 1 << 28
_N_NAMED: Final = 3
#: The marker of a history that lost it, and its copy.
_NOTHING_KNOWN: Final = Marker(0, None)
#: Damage to a file that a person chose to read: whatever its bytes make of the reader.
_UNREADABLE: Final = (OSError, pa.ArrowException, DataError, ValueError, LookupError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One damaged part of a history.

    Attributes
    ----------
    file : str
        The file, relative to the history.
    what : str
        How it differs from what was written.
    since : str
        What is known of the time.
    runs : str
        Which runs are concerned.
    remedy : str
        A key of :data:`REMEDIES`.
    """

    file: str
    what: str
    since: str = ""
    runs: str = ""
    remedy: Remedy

    def __str__(self) -> str:
        return f"{self.file} {self.what}" + f" ({self.since})" * bool(self.since)


class Repair:
    """Examines the history in a folder, and puts it right.

    Parameters
    ----------
    folder : Path
        It holds a history; for :meth:`apply` the caller holds its lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copies = folder / COPIES
        self._inventory = Inventory(folder)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        #: Where damaged files go.
        self.aside = folder / DAMAGED_FOLDER / stamp

    def examine(self) -> list[Finding]:
        """Everything that is damaged, by reading every file.

        ``DataError`` if the history is of a newer version of recsys-ms.
        """
        found = [*self._marker(), *self._unlistable(), *self._listed(), *self._second_copies()]
        # Where the listed files are damaged, the others are looked at once those are right again.
        broken = {each.file.partition("/")[0] for each in found if each.remedy != "copy"}
        return [*found, *self._unlisted([name for name in TABLES if name not in broken])]

    def apply(self, findings: Sequence[Finding]) -> None:
        """Put right what :meth:`examine` found; the archive is to be taken in after a rebuild.

        Raises
        ------
        StorageError
            The disk is full or read-only; what is done so far stays, and it can be repeated.
        """
        files = dict(self._inventory.files)
        for finding in findings:
            path = self.folder / finding.file
            if finding.remedy == "make" and finding.file.endswith("/"):
                self._set_aside(path)
                make_folder(path)
            elif finding.remedy in ("make", "restore"):
                self._set_aside(path)
                if finding.remedy == "restore":
                    with file_errors(f"{path}: cannot be restored", "check the disk"):
                        copy_file(self._copies / finding.file, path)
            elif finding.remedy == "give up":
                self._set_aside(path)
                del files[finding.file]
            elif finding.remedy == "copy":
                self._set_aside(self._copies / finding.file)
        for table in TABLES:
            if any(
                each.remedy == "rebuild" and each.file.startswith(f"{table}/") for each in findings
            ):
                self._rebuild(table)
                files = {n: e for n, e in files.items() if not n.startswith(f"{table}/")}
        runs = RunStore(self.folder / RUNS_FOLDER)
        curves = CurveStore(self.folder / CURVES_FOLDER)
        table = runs.at_version()
        version = int(table.version())
        live = runs.data_files(table) + curves.data_files(curves.table())
        self._inventory.keep(Marker(version, files))
        self._inventory.update(version, live)

    def _marker(self) -> Iterator[Finding]:
        """Read the marker, or its copy, or go on without."""
        path = self.folder / MARKER_FILE
        self._inventory = Inventory(self.folder)
        try:
            _ = self._inventory.marker
            return
        except DataError as error:
            if "upgrade" in str(error):
                raise
            what = "is damaged" if path.exists() or path.is_symlink() else "is missing"
        remedy: Remedy = "restore"
        try:
            marker = read_marker(self._copies / MARKER_FILE)
        except DataError:
            marker, remedy = _NOTHING_KNOWN, "make"
        self._inventory = Inventory(self.folder, marker)
        yield Finding(file=MARKER_FILE, what=what, since=_since(path), remedy=remedy)

    def _unlistable(self) -> Iterator[Finding]:
        """Files whose content may be anything, and which are something else now."""
        for name in (LOCK_FILE, *(f"{table}/{LOG_FOLDER}/{HINT}" for table in TABLES)):
            if is_odd(self.folder / name):
                yield Finding(file=name, what="is not a file any more", remedy="make")

    def _listed(self) -> Iterator[Finding]:
        for damage in self._inventory.damages(content=True):
            name, path = damage.file, self.folder / damage.file
            remedy: Remedy = "make" if name.endswith("/") else "give up"
            if has_copy(name) and not name.endswith("/"):
                if self._is_sound(self._copies / name, self._inventory.files[name]):
                    remedy = "restore"
                elif name.partition("/")[0] in TABLES:
                    remedy = "rebuild"
            yield Finding(
                file=name,
                what=damage.what,
                since=_since(path),
                runs=self._runs_of(name),
                remedy=remedy,
            )

    def _second_copies(self) -> Iterator[Finding]:
        if self._inventory.files:
            try:
                read_marker(self._copies / MARKER_FILE)
            except DataError:
                what = f"in {COPIES}/ is missing or damaged"
                yield Finding(file=MARKER_FILE, what=what, remedy="copy")
        for name, entry in self._inventory.files.items():
            if not has_copy(name) or self._is_sound(self._copies / name, entry):
                continue
            if self._is_sound(self.folder / name, entry):
                what = self._inventory.difference(self._copies / name, entry, content=True)
                yield Finding(file=name, what=f"in {COPIES}/ {what}", remedy="copy")

    def _unlisted(self, tables: Sequence[str]) -> Iterator[Finding]:
        """Tables whose latest commits are damaged, or which an earlier version has written."""
        for table in tables:
            try:
                if table == RUNS_FOLDER and not (self.folder / table / LOG_FOLDER).is_dir():
                    raise DataError("its Delta log is missing")
                self._inventory.check_new(table)
                if table == RUNS_FOLDER:
                    version = RunStore(self.folder / RUNS_FOLDER).version
                    if version < self._inventory.marker.version:
                        raise DataError(f"it ends at version {version}")
                if self._inventory.marker == _NOTHING_KNOWN and (lost := self._uncommitted(table)):
                    raise DataError(f"no commit tells of {lost[0]}")
            except DataError as error:
                what = str(error).removeprefix(f"{self.folder}/").partition(";")[0]
                yield Finding(file=f"{table}/", what=f"is damaged: {what}", remedy="rebuild")

    def _uncommitted(self, table: str) -> list[str]:
        """Data files of a table that no commit tells of: its latest commits are gone."""
        store = _STORES[table](self.folder / table)
        now = store.at_version() if isinstance(store, RunStore) else store.table()
        told = {Path(name).name for name in store.data_files(now)}
        for commit in (self.folder / table / LOG_FOLDER).glob("*.json"):
            told |= {Path(part).name for part in added_files(commit)}
        found = {path.name for path in (self.folder / table).rglob("*.parquet")}
        logged = {path.name for path in (self.folder / table / LOG_FOLDER).glob("*.parquet")}
        return sorted(found - told - logged)

    def _is_sound(self, path: Path, entry: Entry) -> bool:
        return not self._inventory.difference(path, entry, content=True)

    def _set_aside(self, path: Path) -> None:
        """Move whatever lies at a path to ``damaged/``, and what stands in the way to it."""
        inside = path.relative_to(self.folder)
        for part in (*reversed(inside.parents), inside):
            there = self.folder / part
            if part == inside or not there.is_dir():
                if there.exists() or there.is_symlink():
                    target = self.aside / part
                    while os.path.lexists(target):
                        target = target.with_name(f"{target.name}~")
                    with file_errors(f"{there}: cannot be moved to {target}"):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        there.rename(target)
                return

    def _runs_of(self, name: str) -> str:
        """Which runs a file of a table concerns, as far as it can still be read."""
        table = name.partition("/")[0]
        if table not in TABLES:
            return ""
        parts = [name]
        if f"/{LOG_FOLDER}/" in name:
            if not COMMIT.fullmatch(Path(name).name):
                return ""
            try:
                commit = self._sound(name) or self.folder / name
                parts = [f"{table}/{part}" for part in added_files(commit)]
            except DataError:
                return "unknown"
        ids: dict[str, None] = {}
        for part in parts:
            path = self._sound(part)
            if path is None:
                return "unknown"
            column = pq.ParquetFile(path).read(columns=[c.RUN_ID])[c.RUN_ID]
            ids.update(dict.fromkeys(column.unique().to_pylist()))
        named = ", ".join([*ids][:_N_NAMED]) + ", …" * (len(ids) > _N_NAMED)
        return f"{len(ids)}: {named}" if ids else "none"

    def _sound(self, name: str) -> Path | None:
        """The file, or else its copy, if it is as it was written; an unlisted one if it is read."""
        entry = self._inventory.files.get(name)
        for path in (self.folder / name, self._copies / name):
            if entry is not None:
                if self._is_sound(path, entry):
                    return path
            elif path.is_file():
                try:
                    if path.suffix == ".parquet":
                        pq.ParquetFile(path).read(columns=[c.RUN_ID])
                    else:
                        json.loads(read_regular(path, max_bytes=_MAX_LOG_BYTES).splitlines()[0])
                except _UNREADABLE:
                    continue
                return path
        return None

    def _rebuild(self, table: str) -> None:
        """Build a table anew of all data files that can be read; the old one is set aside."""
        names = {name for name in self._inventory.files if name.startswith(f"{table}/")}
        for root in (self.folder, self._copies):
            for pattern in ("*.parquet", "month=*/*.parquet"):
                found = (root / table).glob(pattern)
                names |= {path.relative_to(root).as_posix() for path in found}
        paths = [self._sound(name) for name in sorted(names) if LOG_FOLDER not in name]
        fresh = self.folder / temporary_name(table)
        store = _STORES[table](fresh)
        rows = [_rows(path, store.schema) for path in paths if path is not None]
        whole = pa.concat_tables([store.schema.empty_table(), *rows])
        if table == RUNS_FOLDER:
            # A merged file holds rows of the files that it was made of.
            whole = whole.take(np.unique(whole[SEQUENCE].to_numpy(), return_index=True)[1])
        store.write(store.create(), [whole])
        self._set_aside(self.folder / table)
        self._set_aside(self._copies / table)
        with file_errors(f"{self.folder / table}: cannot be put in place"):
            fresh.rename(self.folder / table)


def _rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Rows of a data file, with the columns that are missing."""
    rows = pq.ParquetFile(path).read()
    if MONTH in schema.names and MONTH not in rows.column_names:
        month = path.parent.name.partition("=")[2]
        rows = rows.append_column(MONTH, pa.repeat(month, rows.num_rows))
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def _since(path: Path) -> str:
    """What the file system tells of the time of the damage."""
    for there, text in ((path, "changed"), (path.parent, "its folder changed last")):
        try:
            moment = datetime.fromtimestamp(there.lstat().st_mtime, UTC)
        except OSError:
            continue
        return f"{text} {moment.isoformat(timespec='seconds')}"
    return ""
