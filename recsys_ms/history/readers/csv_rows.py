"""Reads the header and the rows of CSV, and gives every column a name of its own."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from recsys_ms.core.errors import DataError
from recsys_ms.history.readers.lines import BadLineError, BadRow, Lines

#: That are known, in the order in which a header is searched for them.
DELIMITERS: Final = ",;\t|"
#: Line, text and cells of a row.
Row: TypeAlias = tuple[int, str, Any]


def csv_header(path: Path, lines: Lines, delimiter: str) -> list[str]:
    """First row of a file; ``DataError`` if there is none, or with another delimiter."""
    try:
        header = next(filter(None, csv.reader(lines, delimiter=delimiter, strict=True)), None)
    except BadLineError as error:
        raise DataError(f"{path}: the header cannot be read: {error}") from error
    except csv.Error as error:
        raise DataError(
            f"{path}: the header cannot be read as CSV ({error}); is it another format?"
        ) from error
    if header is None:
        raise DataError(f"{path}: the file is empty; a header with column names is needed")
    if any("\x00" in cell for cell in header):
        raise DataError(f"{path}: the header has zero bytes, as UTF-16 has; convert it to UTF-8")
    if len(header) == 1:
        other = max((d for d in DELIMITERS if d != delimiter), key=header[0].count)
        if header[0].count(other):
            raise DataError(
                f"{path}: with the delimiter {delimiter!r} the header is the one column "
                f"{header[0][:200]!r}; it looks separated by {other!r}: pass delimiter={other!r} "
                f"(--delimiter {other!r})"
            )
    return header


def csv_rows(lines: Lines, reader: Iterator[list[str]], n_columns: int) -> Iterator[Row | BadRow]:
    """Rows of ``n_columns`` fields; the others, and what is not CSV, are bad."""
    while True:
        start = lines.number + 1
        lines.taken.clear()
        try:
            cells = next(reader, None)
        except BadLineError as error:
            if lines.taken:
                raw = "".join(lines.taken)
                yield BadRow(line=start, reason="its quote is never closed", raw=raw)
            yield error.bad
            continue
        except csv.Error as error:
            # An unclosed quote takes good lines with it: only its own is bad, read the rest again.
            yield BadRow(line=start, reason=f"not CSV: {error}", raw=bare(lines.taken[0]))
            lines.push_back(lines.taken[1:])
            continue
        if cells is None:
            return
        raw = bare("".join(lines.taken))
        if len(cells) == n_columns:
            yield start, raw, cells
        elif cells:
            reason = f"{len(cells)} fields where the header has {n_columns}"
            yield BadRow(line=start, reason=reason, raw=raw)


def csv_cells(rows: list[list[str]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Rows as columns: cells without surrounding spaces, ``None`` where empty."""
    columns = zip(*rows, strict=True) if rows else iter([()] * len(names))
    return {
        name: [cell.strip() or None for cell in cells]
        for name, cells in zip(names, columns, strict=True)
    }


def bare(line: str) -> str:
    """A line without its end."""
    return line.rstrip("\r\n")


def unique_names(header: Iterable[str]) -> list[str]:
    """Names of the columns of a header: ``column_N`` if blank, ``name#2`` if repeated."""
    names: dict[str, None] = {}
    copies: Counter[str] = Counter()
    for position, cell in enumerate(header, start=1):
        base = name = cell.strip() or f"column_{position}"
        while name in names:
            copies[base] = max(copies[base], 1) + 1
            name = f"{base}#{copies[base]}"
        names[name] = None
    return list(names)


def told_apart(header: Iterable[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Names of columns of which none is that of two, and the new names of those that were.

    Two columns ``acc`` become ``acc_0`` and ``acc_1``, so that neither is taken for the other; a
    blank name becomes ``column_N``.
    """
    given = [cell.strip() or f"column_{at}" for at, cell in enumerate(header, start=1)]
    counts = Counter(given)
    taken = set(given)
    next_copy: Counter[str] = Counter()
    names: list[str] = []
    repeated: dict[str, list[str]] = {}
    for base in given:
        name = base
        if counts[base] > 1:
            while name in taken:
                name = f"{base}_{next_copy[base]}"
                next_copy[base] += 1
            taken.add(name)
            repeated.setdefault(base, []).append(name)
        names.append(name)
    return tuple(names), {base: tuple(found) for base, found in repeated.items()}
