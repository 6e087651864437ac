"""Records of what each ingest and each retraction did: one small JSON file each, by id."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, make_folder, read_regular, write_atomic
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.types import JsonDict
from recsys_ms.core.version import package_version
from recsys_ms.history.store.inventory import mend

Operation: TypeAlias = Literal["ingest", "replace", "retract", "restore"]

_TIME: Final = "%Y%m%dT%H%M%S"
_ID: Final = re.compile(r"i-(\d{8}T\d{6})-[0-9a-f]{4,}")
_MAX_BYTES: Final = 1 << 26
#: Counts of a record, in the order they are shown.
COUNTS: Final = (
    "n_read",
    "n_new",
    "n_updated",
    "n_duplicate",
    "n_quarantined",
    "n_left_out",
    "n_retracted",
    "n_restored",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRecord:
    """One change of a history.

    Attributes
    ----------
    ingest_id : str
        ``i-``, its time (UTC) and hexadecimal digits: ids sort in the order of the ingests.
    operation : {"ingest", "replace", "retract", "restore"}
        What was done.
    sources : tuple of str
        Logs that were read; empty for a retraction.
    options : dict
        How they were read (mapping, format), or what was retracted.
    counts : mapping of str to int
        Some of :data:`COUNTS`.
    history_version : int
        Version of the history afterwards.
    package_version : str
        Of recsys-ms.
    reason : str
        Why, in the words of the caller.
    """

    ingest_id: str
    operation: Operation
    history_version: int
    sources: tuple[str, ...] = ()
    options: JsonDict = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    package_version: str = field(default_factory=package_version)
    reason: str = ""


class IngestRecords:
    """The records of a history, in a folder of it.

    A record follows its commit. Killed in between, the ingest is known by the id in its runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_id(self) -> str:
        """An id that sorts behind those of all records, also where the clock stepped back."""
        made = f"i-{datetime.now(UTC).strftime(_TIME)}-{secrets.randbelow(1 << 15):04x}"
        last = max((path.stem for path in self.folder.glob("i-*.json")), default="")
        if made > last or _ID.fullmatch(last) is None:
            return made
        moment, _, number = last.rpartition("-")
        return f"{moment}-{int(number, 16) + 1:04x}"

    def add(self, record: IngestRecord) -> None:
        """Keep a record; ``StorageError`` if the folder cannot be written."""
        make_folder(self.folder)
        text = json.dumps(asdict(record), ensure_ascii=False, indent=1, default=str)
        write_atomic(
            self.folder / f"{record.ingest_id}.json", text.encode(errors="backslashreplace")
        )

    def read(self) -> list[IngestRecord]:
        """All records, by id; ``DataError`` for one that is damaged."""
        return [_read(path) for path in sorted(self.folder.glob("i-*.json"))]

    def table(self, states: pa.Table, *, version: int | None = None) -> pd.DataFrame:
        """Ingests up to a version, with the runs that each has now.

        ``states`` holds ``ingest_id`` and ``retraction`` of the present state of every run.
        """
        active = _counted(states.filter(states[c.RETRACTION].is_null())[c.INGEST_ID])
        retracted = _counted(states.filter(states[c.RETRACTION].is_valid())[c.INGEST_ID])
        by_retraction = _counted(states[c.RETRACTION])
        records = {
            each.ingest_id: each
            for each in self.read()
            if version is None or each.history_version <= version
        }
        rows = []
        for name in sorted({*records, *active, *retracted, *by_retraction}):
            record = records.get(name)
            moment = _ID.fullmatch(name)
            # Killed before its record was written.
            lost: Operation = "ingest" if name in active or name in retracted else "retract"
            rows.append(
                {
                    c.INGEST_ID: name,
                    "at": moment and datetime.strptime(moment[1], _TIME).replace(tzinfo=UTC),
                    "operation": record.operation if record else lost,
                    "sources": list(record.sources) if record else [],
                    **{n: record.counts.get(n, 0) if record else pd.NA for n in COUNTS},
                    "n_runs": active.get(name, 0),
                    "n_runs_retracted": retracted.get(name, 0),
                    "history_version": record.history_version if record else pd.NA,
                    "package_version": record.package_version if record else "",
                    "options": dict(record.options) if record else {},
                    "reason": record.reason if record else "the record was not written",
                }
            )
        frame = pd.DataFrame(rows, columns=_COLUMNS)
        whole = [*COUNTS, "n_runs", "n_runs_retracted", "history_version"]
        return frame.astype(dict.fromkeys(whole, "Int64"))


_COLUMNS: Final = [
    c.INGEST_ID,
    "at",
    "operation",
    "sources",
    *COUNTS,
    "n_runs",
    "n_runs_retracted",
    "history_version",
    "package_version",
    "options",
    "reason",
]


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    pairs = pc.value_counts(column.drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs}


def _read(path: Path) -> IngestRecord:
    caught = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
    what = f"{path}: the record of an ingest cannot be read"
    with file_errors(what, mend(path.parents[1]), catch=caught, raises=DataError):
        given: dict[str, Any] = parse_json(read_regular(path, max_bytes=_MAX_BYTES))
        counts = {str(name): int(n) for name, n in given.pop("counts").items()}
        record = IngestRecord(
            **{**given, "counts": counts, "sources": tuple(map(str, given["sources"]))}
        )
        if record.ingest_id != path.stem or not isinstance(record.options, dict):
            raise ValueError("it holds another record than its name says")
        return record
