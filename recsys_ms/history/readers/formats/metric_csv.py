"""CSV files of metrics, one row an epoch or step, and the run folders that hold them."""

import csv
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.plain_values import read_settings, step_of
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.sources import unique_names
from recsys_ms.history.readers.templates import to_number
from recsys_ms.history.store.curves import Series

#: Cells without a value: empty, and what Keras writes.
_MISSING: Final = ("", "NA")
STEP: Final = "step"
EPOCH: Final = "epoch"


class MetricRow(NamedTuple):
    """One row: its physical line, from 1, and its numbers by column."""

    line: int
    cells: dict[str, float]


class Metrics(NamedTuple):
    """Content of a CSV of metrics: columns in the order of their first use, and rows."""

    columns: tuple[str, ...]
    rows: list[MetricRow]


class MetricFolder(LogFormat):
    """Run folders with a CSV of metrics and, beside it, a YAML file of settings."""

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
        The file cannot be read, or has none of the columns ``times``.
    """
    text = files.text(path)
    first = next((line for line in text.split("\n") if line.strip()), "")
    _, delimiter = header_cells(first, delimiters)
    header: list[str] = []
    headers: list[list[str]] = []
    columns: dict[str, None] = {}
    rows: list[tuple[int, list[str], list[str]]] = []

    def refuse(number: int, line: str, names: Sequence[str], reason: str) -> None:
        lines = [delimiter.join(names), line.rstrip()] if names else [line.rstrip()]
        raw = "".join(f"{each}\n" for each in lines)
        bad.append(BadLog(file=path, line=number, reason=reason, raw=raw))

    # Only the newline ends a row: a metric's name may contain other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = [c.strip() for c in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except csv.Error as error:
            refuse(number, line, header, f"not CSV: {error}")
            continue
        if not header or _is_header(cells, header):
            header = unique_names(cells)
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
        rows.append((number, names, cells))
    if not set(times) & set(columns):
        reason = f"the header has no column {' or '.join(times)}, got {', '.join(columns)[:300]}"
        raise BadLogError(BadLog(file=path, reason=reason, raw=text, line=1))
    found: list[MetricRow] = []
    texts: list[tuple[int, list[str], list[str], str, str]] = []
    for number, names, cells in rows:
        kept: dict[str, float] = {}
        for name, cell in zip(names, cells, strict=True):
            value = None if cell in _MISSING else to_number(cell)
            if value is not None:
                kept[name] = value
            elif cell not in _MISSING and not cell.startswith(("[", "(", '"')):
                texts.append((number, names, cells, name, cell))
        found.append(MetricRow(number, kept))
    # A column without any number is a column of text; in another one, a text is damage.
    numeric = {name for row in found for name in row.cells}
    for number, names, cells, name, cell in texts:
        if name in numeric:
            refuse(number, delimiter.join(cells), names, f"{name}: {cell[:80]!r} is not a number")
    bad.sort(key=lambda each: each.line or 0)
    return Metrics(tuple(columns), found)


def metric_series(
    columns: Iterable[str],
    rows: Sequence[MetricRow],
    parts: Callable[[str], tuple[str | None, str]],
    *,
    step: str | None = None,
    percent: Sequence[str] = (),
) -> tuple[Series, ...]:
    """Every column with a value as a series; the later of two values at one step and epoch counts.

    ``parts`` gives split and metric of a name, ``step`` is the column of the step, and ``percent``
    lists the metrics in percent.
    """
    found: list[Series] = []
    for name in columns:
        if name in (step, EPOCH):
            continue
        split, metric = parts(name)
        points: dict[object, tuple[int | None, float | None, float]] = {}
        for row in rows:
            if name not in row.cells:
                continue
            at = step_of(row.cells.get(step)) if step else None
            epoch = row.cells.get(EPOCH)
            key: object = row.line if at is None and epoch is None else (at, epoch)
            # A point that is logged again moves to the end, where the training continued.
            points.pop(key, None)
            points[key] = (at, epoch, row.cells[name])
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
