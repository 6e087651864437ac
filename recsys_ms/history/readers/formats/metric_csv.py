"""CSV files of metrics, one row an epoch or step, and the run folders that hold them."""

import csv
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.csv_rows import DELIMITERS, told_apart
from recsys_ms.history.readers.formats.plain_values import read_settings, step_of
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.number_style import PLAIN_NUMBERS, NumberStyle, Unread, to_number
from recsys_ms.history.readers.steps import INDEX_NAMES, LIST_SIGNS
from recsys_ms.history.store.curves import Series

#: Cells without a value: empty, and what Keras writes.
_MISSING: Final = ("", "NA")
#: Values of one file, until they are stored: 1.3 GB of memory.
_MAX_CELLS: Final = 4_000_000
STEP: Final = "step"
EPOCH: Final = "epoch"
LOSS: Final = "loss"


class MetricRow(NamedTuple):
    """One row: its physical line, from 1, its numbers by column, and the cells of text columns."""

    line: int
    cells: dict[str, float]
    texts: dict[str, str]


class Metrics(NamedTuple):
    """Content of a CSV of metrics: columns in the order of their first use, and rows."""

    columns: tuple[str, ...]
    rows: list[MetricRow]


class MetricFolder(LogFormat):
    """Run folders with a CSV of metrics and, beside it, a YAML file of settings."""

    reads_tables: ClassVar[bool] = True
    metrics_file: ClassVar[str]
    settings_file: ClassVar[str]
    #: Columns that say when, of which the CSV needs at least one.
    times: ClassVar[tuple[str, ...]]

    def place_of(self, candidate: Candidate) -> Path | None:
        """The run folder, by the CSV in it."""
        path = candidate.path
        if path.name != self.metrics_file:
            return None
        beside = path.with_name(self.settings_file).is_file()
        names, _ = header_cells(candidate.first_line)
        return path.parent if beside or self.is_header(names) else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        bad: list[BadLog] = []
        found = read_metrics(place / self.metrics_file, files, self.times, bad, forms=self.forms)
        settings = read_settings(place / self.settings_file, files, bad)
        yield from bad
        yield self.run(place.resolve(), found, settings)

    @abstractmethod
    def is_header(self, names: Sequence[str]) -> bool:
        """Whether these columns alone identify the CSV."""

    @abstractmethod
    def run(self, folder: Path, found: Metrics, settings: JsonDict) -> LoggedRun:
        """The run of a folder, from its metrics and its settings."""

    def forms(self, header: list[str]) -> list[list[str]]:
        """Other columns that rows under a header may have."""
        return []


class MetricFile(LogFormat):
    """A CSV of metrics by itself; the rows of a second training may be appended to the first."""

    reads_tables: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its header and its first row."""
        names, delimiter = header_cells(candidate.first_line, DELIMITERS)
        if not self.is_header(names):
            return None
        lines = candidate.head.decode(errors="replace").split("\n")
        cells = header_cells(lines[1], delimiter)[0] if len(lines) > 1 and lines[1].strip() else []
        if EPOCH in names:
            cells = cells[names.index(EPOCH) :][:1]
        elif not cells:
            return None
        is_data = all(to_number(cell) is not None for cell in cells if cell not in _MISSING)
        return candidate.path if is_data else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the trainings of a file."""
        bad: list[BadLog] = []
        found = read_metrics(place, files, (EPOCH, LOSS), bad, delimiters=DELIMITERS)
        if EPOCH not in found.columns:
            found = _counted(found)
        more = self.beside(place, files, bad)
        yield from bad
        path = place.resolve()
        for number, rows in enumerate(trainings(found.rows), start=1):
            run = LoggedRun(
                file=str(path),
                identity=f"{self.name}:{path}" if number == 1 else f"{self.name}:{path}#{number}",
                line=rows[0].line if rows else 1,
                columns={"training": number},
                fields={} if rows else {c.STATUS: "running"},
                series=metric_series(found.columns, rows, self.parts),
                progress=len(rows),
            )
            yield self.completed(run, rows, more)

    @abstractmethod
    def is_header(self, names: Sequence[str]) -> bool:
        """Whether these columns, which may be none at all, identify the CSV."""

    @abstractmethod
    def parts(self, name: str) -> tuple[str | None, str]:
        """Split and metric of a column."""

    def beside(self, place: Path, files: LogFiles, bad: list[BadLog]) -> JsonDict:
        """What files beside the CSV say; damaged ones are added to ``bad``."""
        return {}

    def completed(self, run: LoggedRun, rows: Sequence[MetricRow], beside: JsonDict) -> LoggedRun:
        """A run with what the format knows besides its series."""
        return run


def _counted(found: Metrics) -> Metrics:
    """Rows with their number, from 0, as their epoch, in place of an index without a name."""
    for at, row in enumerate(found.rows):
        row.cells[EPOCH] = float(at)
    return Metrics(tuple(name for name in found.columns if name not in INDEX_NAMES), found.rows)


def trainings(rows: Sequence[MetricRow], time: str = EPOCH) -> list[list[MetricRow]]:
    """Rows of each training: a new one begins where the time begins again, at 0 or 1."""
    found: list[list[MetricRow]] = [[]]
    for row in rows:
        first = found[-1][0].cells.get(time, 1.0) if found[-1] else -math.inf
        if row.cells.get(time, math.inf) <= min(first, 1.0):
            found.append([])
        found[-1].append(row)
    return found


def header_cells(line: str, delimiters: str = ",") -> tuple[list[str], str]:
    """Column names of a first line, and the delimiter between them."""
    delimiter = next((each for each in delimiters if each in line), delimiters[0])
    try:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return [], delimiter
    return [cell.strip() for cell in cells], delimiter


def read_metrics(
    path: Path,
    files: LogFiles,
    times: Sequence[str],
    bad: list[BadLog],
    *,
    delimiters: str = ",",
    forms: Callable[[list[str]], list[list[str]]] = lambda header: [],
) -> Metrics:
    """Read a CSV of metrics whose header may be repeated, and changed, after a resume.

    Cells are separated by the first of ``delimiters`` that the header has. Lines that cannot be
    read are added to ``bad``. ``forms`` gives other columns that rows under a header may have, for
    frameworks that write a row without checking the header.

    Raises
    ------
    BadLogError
        The file cannot be read, or has none of the columns ``times``, where some are needed.
    """
    text = files.text(path)
    last = text.count("\n") + 1
    first = next((line for line in text.split("\n") if line.strip()), "")
    _, delimiter = header_cells(first, delimiters)
    header: list[str] = []
    headers: list[list[str]] = []
    columns: dict[str, None] = {}
    found: list[MetricRow] = []
    #: Names and line of the rows that hold text too.
    with_text: list[tuple[MetricRow, list[str], str]] = []
    n_cells, lengths = 0, _Lengths()
    number_of = _number if files.numbers == PLAIN_NUMBERS else files.numbers.number

    def refuse(number: int, line: str, names: Sequence[str], reason: str) -> None:
        lines = [delimiter.join(names), line.rstrip()] if names else [line.rstrip()]
        raw = "".join(f"{each}\n" for each in lines)
        # Every logger ends its rows; text behind the last newline is a row that breaks off.
        cut = number == last and bool(names)
        bad.append(BadLog(file=path, line=number, reason=reason, raw=raw, cut=cut))

    # Only the newline ends a row: a metric's name may contain other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = [x.strip() for x in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except csv.Error as error:
            refuse(number, line, header, f"not CSV: {error}")
            continue
        if not header or _is_header(cells, header):
            header = [*told_apart(cells)[0]]
            headers.append(header)
            columns |= dict.fromkeys(header)
            continue
        others = (form for each in reversed(headers) for form in forms(each))
        known = chain(reversed(headers), others)
        names = next((each for each in known if len(each) == len(cells)), None)
        if names is None:
            refuse(number, line, header, f"{len(cells)} fields, but the header has {len(header)}")
            continue
        columns |= dict.fromkeys(names)
        row = MetricRow(number, {}, {})
        for name, cell in zip(names, cells, strict=True):
            value = None if cell in _MISSING else number_of(cell)
            if value is not None:
                row.cells[name] = value
            elif cell not in _MISSING and not cell.startswith(LIST_SIGNS):
                row.texts[name] = cell
        found.append(row)
        n_cells += len(row.cells) + len(row.texts)
        if n_cells > _MAX_CELLS:
            reason = f"more than {_MAX_CELLS:,} values, which is the most that is read; thin it out"
            raise BadLogError(BadLog(file=path, reason=reason, line=number))
        if row.texts:
            with_text.append((row, names, line))
        if number == last and lengths.is_shorter(names, cells[-1]):
            reason = f"{names[-1]}: {cells[-1]!r} is shorter than every other"
            refuse(number, line, names, reason)
            row.cells.pop(names[-1], None)
        lengths.add(names, cells[-1])
    if times and not set(times) & set(columns):
        reason = f"the header has no column {' or '.join(times)}, got {', '.join(columns)[:300]}"
        raise BadLogError(BadLog(file=path, reason=reason, raw=text, line=1))
    _settle_texts(found, with_text, refuse, files.numbers)
    bad.sort(key=lambda each: each.line or 0)
    return Metrics(tuple(columns), found)


def _settle_texts(
    found: Sequence[MetricRow],
    with_text: Sequence[tuple[MetricRow, list[str], str]],
    refuse: Callable[[int, str, Sequence[str], str], None],
    numbers: NumberStyle,
) -> None:
    """Keep the texts of columns of text; refuse those among numbers, and numbers with a sign."""
    # A column without any number is a column of text; in another one, a text is damage.
    numeric = {name for row in found for name in row.cells}
    told: set[str] = set()
    for row, names, line in with_text:
        for name, cell in [*row.texts.items()]:
            read = numbers.read(cell)
            sign = read.way_out if isinstance(read, Unread) and read.sign else ""
            if name in numeric:
                reason = sign or f"{cell[:80]!r} is not a number"
                refuse(row.line, line, names, f"{name}: {reason}")
            elif not sign:
                continue
            elif name not in told:
                told.add(name)
                refuse(row.line, line, names, f"{name}: {sign}")
            del row.texts[name]


def _number(cell: str) -> float | None:
    """A number as loggers write it; in a comma or an underscore there is no known meaning."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else None
    except ValueError:
        return None


class _Lengths:
    """Lengths of the last cells of rows, by the columns of the rows."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int]] = {}

    def add(self, names: Sequence[str], cell: str) -> None:
        n_rows, shortest = self._found.get(id(names), (0, len(cell)))
        self._found[id(names)] = (n_rows + 1, min(shortest, len(cell)))

    def is_shorter(self, names: Sequence[str], cell: str) -> bool:
        """Whether a cell that ends the file may be the beginning of a number."""
        n_rows, shortest = self._found.get(id(names), (0, 0))
        return n_rows > 1 and len(cell) < shortest


def metric_series(
    columns: Iterable[str],
    rows: Sequence[MetricRow],
    parts: Callable[[str], tuple[str | None, str]],
    *,
    step: str | None = None,
    epoch: str | None = EPOCH,
    percent: Sequence[str] = (),
) -> tuple[Series, ...]:
    """Every column with a value as a series; the later of two values at one step and epoch counts.

    ``parts`` gives split and metric of a name, ``step`` and ``epoch`` are the columns of the time,
    and ``percent`` lists the metrics in percent.
    """
    found: list[Series] = []
    for name in columns:
        if name in (step, epoch):
            continue
        split, metric = parts(name)
        points: dict[object, tuple[int | None, float | None, float]] = {}
        for row in rows:
            if name not in row.cells:
                continue
            at = step_of(row.cells.get(step)) if step else None
            when = row.cells.get(epoch) if epoch else None
            key: object = row.line if at is None and when is None else (at, when)
            # A point that is logged again moves to the end, where the training continued.
            points.pop(key, None)
            points[key] = (at, when, row.cells[name])
        if points:
            in_percent = metric in percent
            found.append(Series.of(name, metric, split, points.values(), percent=in_percent))
    return tuple(found)


def largest(rows: Sequence[MetricRow], column: str) -> int | None:
    """Largest whole number of a column, ``None`` where there is none."""
    found = [step_of(row.cells.get(column)) for row in rows]
    return max((value for value in found if value is not None), default=None)


def _is_header(cells: list[str], header: list[str]) -> bool:
    return cells[0] == header[0] and not any(to_number(cell) is not None for cell in cells)
