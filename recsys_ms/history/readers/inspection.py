"""Says what an ingest of a folder would read, and which fields are missing; writes nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import MissingExtraError
from recsys_ms.history.readers.found_logs import AUTO, find_logs
from recsys_ms.history.readers.log_mapper import MappedLogs, options_for
from recsys_ms.history.readers.logs import LogReader
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.sources import is_table

#: Runs of one format that are looked at, which takes seconds.
N_LOOKED_AT: Final = 1_000
_N_REASONS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInspection:
    """The logs of one format in a folder.

    Attributes
    ----------
    format_name : str
        The format.
    n_logs, n_runs, n_ready : int
        Run folders, databases or files; runs looked at (all, or the first :data:`N_LOOKED_AT`);
        those of them that an ingest would take as they are.
    statuses, missing, reasons : mapping to int
        Number of ready runs by status, of runs by missing required field, and of runs or files by
        the reason for quarantine, the most frequent first.
    columns, series : tuple of str
        Names that ``--map`` may use.
    needs : str
        Why the format cannot be read here (a missing extra); else empty.
    first : str
        The first of the logs, and of the files that would go to quarantine if there are any.
    """

    format_name: str
    n_logs: int
    n_runs: int
    n_ready: int
    statuses: Mapping[str, int]
    missing: Mapping[str, int]
    reasons: Mapping[str, int]
    columns: tuple[str, ...]
    series: tuple[str, ...]
    needs: str = ""
    first: str = ""

    @property
    def advice(self) -> str:
        """Options that give the missing fields; empty where none is missing."""
        return options_for(tuple(self.missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderInspection:
    """What :func:`inspect_logs` found.

    Attributes
    ----------
    logs : tuple of LogInspection
        One of each format.
    tables : tuple of Path
        Tables that are not of a known log format, to be read one by one with ``--map``.
    n_others : int
        Other files, which are ignored.
    """

    logs: tuple[LogInspection, ...]
    tables: tuple[Path, ...]
    n_others: int


def inspect_logs(
    path: str | Path, mapping: FieldMapping | None = None, *, log_format_name: str = AUTO
) -> FolderInspection:
    """Say what :func:`recsys_ms.history.readers.logs.read_log` would read.

    Parameters
    ----------
    path, mapping, log_format_name
        As there.

    Raises
    ------
    DataError
        No such path.
    UsageError
        An unknown format, or an invalid mapping.
    """
    found = find_logs(path, log_format_name)
    reader = LogReader(found, mapping or FieldMapping(), Path(path))
    tables = tuple(file for file in found.others if is_table(file))
    return FolderInspection(
        logs=tuple(
            _inspected(reader, name, [log.place for log in found.logs if log.format_name == name])
            for name in dict.fromkeys(log.format_name for log in found.logs)
        ),
        tables=tables,
        n_others=len(found.others) - len(tables),
    )


def _inspected(reader: LogReader, name: str, places: list[Path]) -> LogInspection:
    pieces: list[MappedLogs] = []
    needs, n_runs = "", 0
    try:
        for piece in reader.read(name, places):
            pieces.append(piece)
            batch = piece.batch
            n_runs += batch.runs.num_rows + len(batch.rejects) + batch.n_left_out
            if n_runs >= N_LOOKED_AT:
                break
    except MissingExtraError as error:
        needs = str(error)
    batches = [piece.batch for piece in pieces]
    rejects = list(chain.from_iterable(batch.rejects for batch in batches))
    missing = Counter(chain.from_iterable(chain.from_iterable(p.missing for p in pieces)))
    return LogInspection(
        format_name=name,
        n_logs=len(places),
        n_runs=n_runs,
        n_ready=sum(batch.runs.num_rows for batch in batches),
        statuses=dict(Counter(s for b in batches for s in b.runs[c.STATUS].to_pylist())),
        missing={field: missing[field] for field in c.REQUIRED_COLUMNS if missing[field]},
        reasons=dict(Counter(reject.reason for reject in rejects).most_common(_N_REASONS)),
        columns=tuple(dict.fromkeys(chain.from_iterable(piece.columns for piece in pieces))),
        series=tuple(dict.fromkeys(chain.from_iterable(piece.series for piece in pieces))),
        needs=needs,
        first=next((reject.file for reject in rejects if reject.file), str(places[0])),
    )
