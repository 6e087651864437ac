"""Reads the runs that training frameworks logged, and replays those in quarantine."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import JsonDict
from recsys_ms.history.quarantine import ReadBatch, Reject, digest_of
from recsys_ms.history.readers.found_logs import (
    AUTO,
    FoundLogs,
    find_logs,
    log_format,
    log_formats,
)
from recsys_ms.history.readers.log_mapper import (
    LOG_COLUMNS,
    LOG_READER,
    LOG_RUN_READER,
    LogMapper,
    MappedLogs,
    options_for,
)
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.mapping import PSEUDO_COLUMNS, FieldMapping
from recsys_ms.history.readers.sources import is_table
from recsys_ms.history.readers.templates import named
from recsys_ms.history.store.schema import RUN_SCHEMA

_RUNS_PER_BATCH: Final = 1_000
_N_TOLD: Final = 5
_POINTS_PER_BATCH: Final = 1_000_000
_Item: TypeAlias = tuple[Path, LoggedRun | BadLog]
#: Runs with missing fields before the first good one, until the caller is told to give them.
_MAX_HELD: Final = 10_000


class LogReader:
    """Batches of runs out of logs; iterate it, then look at :attr:`warnings`.

    ``mapping`` gives the fields that the logs do not; errors name ``path``.
    """

    def __init__(self, found: FoundLogs, mapping: FieldMapping, path: Path) -> None:
        self.found = found
        self._path = path
        self._mapping = mapping
        self._mappers: dict[str, LogMapper] = {}
        self._statuses: Counter[str] = Counter()
        self._n_runs = 0
        #: Whether every part could be read, by place.
        self._whole: dict[Path, bool] = {}
        self._cut: list[BadLog] = []

    @property
    def how(self) -> JsonDict:
        """Source and options, for the record of an ingest."""
        mapping = json.loads(self._mapping.to_json())
        return {
            "sources": [str(self._path.resolve())],
            "format": ", ".join(dict.fromkeys(log.format_name for log in self.found.logs)),
            "mapping": {name: value for name, value in mapping.items() if value},
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong about the logs read so far, though each could be read."""
        found = [
            f"{bad.file}, line {bad.line}: the last line breaks off ({bad.reason}), as in the log "
            f"of a killed or running job: {bad.raw.splitlines()[-1][:200]!r} was left out, the "
            "rest was read"
            for bad in self._cut[:_N_TOLD]
        ]
        if len(self._cut) > _N_TOLD:
            found.append(f"{len(self._cut) - _N_TOLD} more logs end in a line that breaks off")
        found += [text for mapper in self._mappers.values() for text in mapper.warnings()]
        running = self._statuses["running"]
        if running:
            found.append(
                f"{running} of {self._n_runs} runs are not finished by what their logs say; they "
                "count once a later ingest finds them finished, or now with --set status=finished"
            )
        second = self.found.second
        if second:
            names = ", ".join(dict.fromkeys(log.format_name for log in second))
            found.append(
                f"{len(second)} logs repeat what another log of their folder says and were not "
                f"read ({names}; the first is {second[0].place}); name one by itself to read it"
            )
        tables = [path for path in self.found.others if is_table(path)]
        if tables:
            found.append(
                f"{len(tables)} tables are of no known log format and were not read (the first is "
                f"{tables[0]}); name them one by one to read them as tables of runs"
            )
        return tuple(found)

    def __iter__(self) -> Iterator[ReadBatch]:
        for name in dict.fromkeys(log.format_name for log in self.found.logs):
            places = [log.place for log in self.found.logs if log.format_name == name]
            for mapped in self._asking(name, self._agreeing(name, self.read(name, places))):
                self._n_runs += mapped.batch.runs.num_rows
                self._statuses.update(mapped.batch.runs["status"].to_pylist())
                yield mapped.batch

    def read(
        self, format_name: str, places: Iterable[Path], files: LogFiles | None = None
    ) -> Iterator[MappedLogs]:
        """Read the logs of one format, and map what they hold."""
        mapper = self._mappers.setdefault(format_name, LogMapper(format_name, self._mapping))
        chosen = log_format(format_name)
        stream = _items(chosen, places, files or LogFiles(numbers=self._mapping.value_numbers))
        for piece in _pieces(stream):
            mapped = mapper.map([item for _, item in piece if isinstance(item, LoggedRun)])
            self._cut += [item for _, item in piece if isinstance(item, BadLog) and item.cut]
            parts = [(p, item) for p, item in piece if isinstance(item, LoggedRun) or not item.cut]
            bad = [mapper.bad(item, place) for place, item in parts if isinstance(item, BadLog)]
            for place, item in parts:
                self._whole[place] = self._whole.get(place, True) and isinstance(item, LoggedRun)
            rejects = (*mapped.batch.rejects, *bad)
            yield replace(mapped, batch=replace(mapped.batch, rejects=rejects))

    def _agreeing(self, format_name: str, pieces: Iterator[MappedLogs]) -> Iterator[MappedLogs]:
        """Pass on what was read, unless an option contradicts what a log says.

        Raises
        ------
        UsageError
            Before anything is committed.
        """
        options = [name for name in (c.DIRECTION, c.METRIC) if name in self._mapping.set]
        for mapped in pieces:
            if options and mapped.contradiction:
                given = " ".join(f"--set {name}={self._mapping.set[name]}" for name in options)
                raise UsageError(f"{self._path}: {format_name}: {given}: {mapped.contradiction}")
            yield mapped

    def _asking(self, format_name: str, pieces: Iterator[MappedLogs]) -> Iterator[MappedLogs]:
        """Pass on what was read, unless there is a required field that no run of a whole log has.

        Raises
        ------
        UsageError
            Before anything was passed on.
        """
        held: list[MappedLogs] = []
        missing: list[tuple[str, ...]] = []
        for mapped in pieces:
            held.append(mapped)
            missing += mapped.missing
            if mapped.batch.runs.num_rows:
                missing = []
                break
            if len(missing) >= _MAX_HELD:
                break
        first = missing[0] if missing else ()
        common = [name for name in first if all(name in each for each in missing)]
        # What a damaged log does not say may be in the part that cannot be read.
        if common and any(self._whole.values()):
            columns = list(dict.fromkeys(name for piece in held for name in piece.columns))
            series = list(dict.fromkeys(name for piece in held for name in piece.series))
            runs = "run does" if len(missing) == 1 else "runs do"
            raise UsageError(
                f"{self._path}: {len(missing)} {format_name} {runs} not say "
                f"{', '.join(common)}: give {options_for(common)}. "
                f"Columns are: {named([*columns, *LOG_COLUMNS, *PSEUDO_COLUMNS])}. "
                f"Series are: {named(series)}"
            )
        yield from held
        yield from pieces


def _items(chosen: LogFormat, places: Iterable[Path], files: LogFiles) -> Iterator[_Item]:
    for place in places:
        folder = chosen.folder_of(place)
        try:
            for item in chosen.read(place, files):
                if isinstance(item, LoggedRun):
                    # Kept with the run, since a replay may find the place gone.
                    item = replace(item, columns={**item.columns, "_folder": folder})
                yield place, item
        except BadLogError as error:
            yield place, error.bad


def _pieces(stream: Iterator[_Item]) -> Iterator[list[_Item]]:
    piece: list[_Item] = []
    n_points = 0
    for place, item in stream:
        piece.append((place, item))
        if isinstance(item, LoggedRun):
            n_points += sum(len(series.values) for series in item.series)
        if len(piece) >= _RUNS_PER_BATCH or n_points >= _POINTS_PER_BATCH:
            yield piece
            piece, n_points = [], 0
    if piece:
        yield piece


def read_log(
    path: str | Path, mapping: FieldMapping | None = None, *, log_format_name: str = AUTO
) -> LogReader:
    """Read the runs that training frameworks logged.

    Folders are walked recursively. A run keeps the framework's own id where there is one, else one
    made of the place of its log, so that reading a log again is a no-op and a log that has grown
    updates its run. Fields that a log does not give (often the task) the mapping gives:
    ``FieldMapping(map={"task_id": "{_folder}"}, set={"metric": "f1"})``. ``map["value"]`` names
    a series (``{eval_accuracy}``); else the series is found by ``metric`` (and ``split``), else the
    framework's own choice is taken. ``set["value_kind"]`` chooses between ``best`` (default) and
    ``last``. The model and the task that a log states are replaced by what the mapping gives, with
    a warning, but not by the name of a folder or file. A run with missing fields goes to
    quarantine, whole, with the options that give them.

    Parameters
    ----------
    path : str or Path
        Folder or file.
    mapping : FieldMapping, optional
        Default: only what the logs say.
    log_format_name : str, default "auto"
        One of :data:`recsys_ms.history.readers.found_logs.LOG_FORMATS`, or ``auto``: by what the
        files hold.

    Returns
    -------
    LogReader
        Iterate it for :class:`recsys_ms.history.quarantine.ReadBatch`.

    Raises
    ------
    DataError
        No such path, or no log in it.
    UsageError
        An unknown format; while iterating, a required field that no run has and no option gives.
    MissingExtraError
        While iterating: a format needs an extra that is not installed.
    """
    found = find_logs(path, log_format_name)
    if not found.logs:
        n_files = len(found.others)
        if log_format_name != AUTO:
            wanted = f"a {log_format_name} log is {log_format(log_format_name).wanted}"
        else:
            wanted = f"formats are {', '.join(each.name for each in log_formats())}"
            if found.others == (Path(path).resolve(),) and Path(path).suffix == ".json":
                wanted += "; a JSON document of runs is read with --format json, or --records KEYS"
        files = "1 file" if n_files == 1 else f"{n_files} files"
        raise DataError(f"{path}: no log found in {files}; {wanted}")
    return LogReader(found, mapping or FieldMapping(), Path(path))


def replay_log(
    reject: Reject,
    mapping: FieldMapping | None = None,
    *,
    readable: dict[str, bool] | None = None,
) -> ReadBatch:
    """Read a quarantined part of a log again.

    Parameters
    ----------
    reject : Reject
        One whose ``reader`` is ``log`` (text of a file) or ``log-run`` (JSON of one run). ``raw``
        may have been corrected; a text that was not is read from the disk again, where the file may
        have been.
    mapping : FieldMapping, optional
        Laid over the one it was read with.
    readable : dict, optional
        Kept from call to call, with the same mapping: a log on the disk is then read once, however
        many of its lines are in quarantine. Those after the first are left out, if it is good now.

    Returns
    -------
    ReadBatch
        The runs, or a reject that says why not.

    Raises
    ------
    DataError
        The reject is not of a log.
    """
    try:
        options = json.loads(reject.options)
        name = str(options["format"])
        chosen = FieldMapping.from_json(json.dumps(options["mapping"]))
        if mapping is not None:
            chosen = mapping.over(chosen)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{reject.file}: the quarantined log does not say how it was read ({error!r}); "
            "ingest it again"
        ) from error
    if reject.reader == LOG_RUN_READER:
        try:
            return LogMapper(name, chosen).map([LoggedRun.from_json(reject.raw)]).batch
        except DataError as error:
            again = replace(reject, reason=str(error))
            return ReadBatch(runs=RUN_SCHEMA.empty_table(), rejects=(again,))
    if reject.reader != LOG_READER:
        raise DataError(f"{reject.file}: the reader {reject.reader!r} is not one of logs")
    file = Path(reject.file)
    corrected = digest_of(reject.raw) != options.get("raw_sha256")
    texts = {file: reject.raw} if corrected or (reject.raw and not file.exists()) else {}
    log = json.dumps([name, options["place"], reject.file])
    if not texts and readable is not None and log in readable:
        is_good = readable[log]
        return ReadBatch(
            runs=RUN_SCHEMA.empty_table(),
            rejects=() if is_good else (reject,),
            n_left_out=int(is_good),
        )
    reader = LogReader(FoundLogs(logs=(), others=()), chosen, file)
    pieces = list(
        reader.read(name, [Path(options["place"])], LogFiles(texts, chosen.value_numbers))
    )
    rejects = [each for piece in pieces for each in piece.batch.rejects]
    still = tuple(each for each in rejects if each.file == reject.file)[:1]
    if not texts and readable is not None:
        readable[log] = bool(pieces) and not still
    if still or not pieces:
        return ReadBatch(runs=RUN_SCHEMA.empty_table(), rejects=still)
    return ReadBatch.joined([piece.batch for piece in pieces])
