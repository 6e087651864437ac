"""CSV files of metrics, one row an epoch or step, as training loops append them."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from recsys_ms.history.readers.logged import BadLog
from recsys_ms.history.readers.templates import to_number
from recsys_ms.history.store.curves import Series

#: What stands for no value: an empty cell, and what Keras writes.
_MISSING: Final = ("", "NA")
_MAX_STEP: Final = 2**53
Forms: TypeAlias = Callable[[list[str]], list[list[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One row.

    Attributes
    ----------
    line : int
        Physical line, from 1.
    cells : dict of str to float
        Numbers by column; missing values and cells that hold no number are not there.
    """

    line: int
    cells: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRows:
    """What a CSV of metrics holds.

    Attributes
    ----------
    columns : tuple of str
        All columns, in the order they came up.
    rows : tuple of MetricRow
        In the order of the file.
    bad : tuple of BadLog
        Lines that could not be read.
    """

    columns: tuple[str, ...]
    rows: tuple[MetricRow, ...]
    bad: tuple[BadLog, ...]


def header_cells(line: str, delimiters: str = ",") -> tuple[list[str], str]:
    """Column names of a first line, and the delimiter that separates them."""
    for delimiter in delimiters:
        if delimiter in line:
            try:
                cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
            except csv.Error:
                return [], delimiter
            return [cell.strip() for cell in cells], delimiter
    return [line.strip()], delimiters[0]


def read_metrics(
    path: Path, text: str, *, delimiter: str = ",", forms: Forms | None = None
) -> MetricRows:
    """Read a CSV of metrics whose header may come again, and may change, after a resume.

    Parameters
    ----------
    path : Path
        The file, named in what goes to quarantine.
    text : str
        What it holds.
    delimiter : str
        Between cells.
    forms : callable of header to headers, optional
        Other columns that rows under a header may have, where the framework writes a row without
        looking at the header.
    """
    header: list[str] = []
    headers: list[list[str]] = []
    columns: dict[str, None] = {}
    rows: list[tuple[int, list[str], list[str]]] = []
    bad: list[BadLog] = []
    # The newline alone ends a row: a metric's name may hold other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = [c.strip() for c in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except csv.Error as error:
            bad.append(_bad(path, number, line, header, delimiter, f"not CSV: {error}"))
            continue
        if not header or _is_header(cells, header):
            header = _unique(cells)
            headers.append(header)
            columns |= dict.fromkeys(header)
            continue
        names = _names(len(cells), headers, forms)
        if names is None:
            reason = f"{len(cells)} fields where the header has {len(header)}"
            bad.append(_bad(path, number, line, header, delimiter, reason))
            continue
        columns |= dict.fromkeys(names)
        rows.append((number, names, cells))
    return _numbers(path, tuple(columns), rows, bad, delimiter)


def _numbers(
    path: Path,
    columns: tuple[str, ...],
    rows: list[tuple[int, list[str], list[str]]],
    bad: list[BadLog],
    delimiter: str,
) -> MetricRows:
    found: list[MetricRow] = []
    strange: list[tuple[int, int, str]] = []
    numeric: set[str] = set()
    for at, (number, names, cells) in enumerate(rows):
        kept: dict[str, float] = {}
        for name, cell in zip(names, cells, strict=True):
            value = None if cell in _MISSING else to_number(cell)
            if value is not None:
                kept[name] = value
            elif cell not in _MISSING and not cell.startswith(("[", "(", '"')):
                strange.append((number, at, name))
        numeric.update(kept)
        found.append(MetricRow(line=number, cells=kept))
    # A column that holds no number anywhere is text, and no metric that was damaged.
    for number, at, name in strange:
        if name in numeric:
            _, names, cells = rows[at]
            cell = cells[names.index(name)]
            line = delimiter.join(cells)
            bad.append(
                _bad(path, number, line, names, delimiter, f"{name}: {cell[:80]!r} is no number")
            )
    return MetricRows(
        columns=columns, rows=tuple(found), bad=tuple(sorted(bad, key=lambda b: b.line or 0))
    )


def metric_series(
    rows: Sequence[MetricRow],
    name: str,
    *,
    metric: str,
    split: str | None,
    step: str | None = None,
    epoch: str | None = None,
    percent: bool = False,
) -> Series:
    """One column as a series: of two values at one step and epoch the later one counts.

    Parameters
    ----------
    rows : sequence of MetricRow
        The rows.
    name, metric, split, percent
        As :class:`recsys_ms.history.store.curves.Series` has them.
    step, epoch : str, optional
        Columns that say when.
    """
    points: dict[object, tuple[int | None, float | None, float]] = {}
    for row in rows:
        if name not in row.cells:
            continue
        at = _whole(row.cells.get(step)) if step else None
        when = row.cells.get(epoch) if epoch else None
        key: object = (at, when) if at is not None or when is not None else row.line
        # A point that is logged again moves to the end, where the training went on.
        points.pop(key, None)
        points[key] = (at, when, row.cells[name])
    return Series(
        name=name,
        metric=metric,
        split=split,
        steps=[at for at, _, _ in points.values()],
        epochs=[when for _, when, _ in points.values()],
        values=[value for _, _, value in points.values()],
        percent=percent,
    )


def largest(rows: Sequence[MetricRow], column: str) -> int | None:
    """Largest whole number of a column, ``None`` where there is none."""
    found = [_whole(row.cells.get(column)) for row in rows]
    return max((value for value in found if value is not None), default=None)


def _whole(value: float | None) -> int | None:
    if value is None or not abs(value) < _MAX_STEP or value != int(value):
        return None
    return int(value)


def _is_header(cells: list[str], header: list[str]) -> bool:
    return cells[0] == header[0] and not any(to_number(cell) is not None for cell in cells)


def _names(n_cells: int, headers: list[list[str]], forms: Forms | None) -> list[str] | None:
    for header in reversed(headers):
        if len(header) == n_cells:
            return header
    for header in reversed(headers):
        for form in forms(header) if forms else ():
            if len(form) == n_cells:
                return form
    return None


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for position, name in enumerate(names, start=1):
        base = name or f"column_{position}"
        unique, copy = base, 2
        while unique in found:
            unique, copy = f"{base}#{copy}", copy + 1
        found.append(unique)
    return found


def _bad(
    path: Path, number: int, line: str, header: Sequence[str], delimiter: str, reason: str
) -> BadLog:
    top = delimiter.join(header)
    raw = f"{top}\n{line.rstrip()}\n" if top else f"{line.rstrip()}\n"
    return BadLog(file=path, line=number, reason=reason, raw=raw)
