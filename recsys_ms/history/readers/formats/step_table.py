"""Any table whose rows are epochs or steps: CSV, TSV and JSON lines that no other format claims."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.history.readers.choice import FITTED
from recsys_ms.history.readers.csv_rows import DELIMITERS
from recsys_ms.history.readers.formats.metric_csv import (
    MetricRow,
    Metrics,
    header_cells,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.formats.metric_lines import json_object, read_json_metrics
from recsys_ms.history.readers.formats.plain_values import split_of
from recsys_ms.history.readers.logged import (
    HEAD_BYTES,
    BadLog,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.sources import is_table
from recsys_ms.history.readers.steps import (
    INDEX_NAMES,
    is_clock,
    is_history,
    restarts,
    spaced,
    steps_in,
    time_columns,
)
from recsys_ms.history.store.curves import Series

_SPLIT: Final = re.compile(
    r"(train|training|val|valid|validation|dev|eval|test)[_/. -]+(.+)", re.IGNORECASE
)
#: Suffixes of files that may hold JSON lines, besides those of tables.
_LINES: Final = (".txt", ".log", ".json")
_VALIDATED: Final = ("val", "valid", "validation")


class StepTable(LogFormat):
    """Tables in which a row is an epoch or a step of a run, and not a run.

    A column of the name ``epoch`` or ``step`` (``iteration``, ``round``, …) rises from row to row.
    Columns of text (model, task) tell the runs apart; without any, the table is one run, and where
    the epoch begins at 0 or 1 again, the next. They are columns for ``--map``; columns of numbers
    are series. ``val_NAME`` and ``val/NAME`` are on the split ``val`` (likewise ``train``,
    ``valid``, ``test``, …), and ``NAME`` beside it is on ``train``. Nothing else is stated. Rows
    without such a column count from 0: a table of nothing but metrics, with the loss of two splits,
    is found by itself; any other is read if the format is named. A table in the folder of another
    run repeats it.
    """

    name: ClassVar[str] = "steps"
    wanted: ClassVar[str] = (
        "a table with a column epoch or step that rises from row to row, or of two losses"
    )
    reads_tables: ClassVar[bool] = True
    is_second_record: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its first rows."""
        path = self.place_if_named(candidate)
        if path is None:
            return None
        text = candidate.head.decode("utf-8-sig", errors="replace")
        lines = [line for line in text.split("\n") if line.strip()]
        if len(candidate.head) == HEAD_BYTES:
            # The last line of the head may be a part of one.
            lines.pop()
        if not lines or (len(lines) == 1 and not is_table(path)):
            return None
        is_json = lines[0].lstrip().startswith("{")
        columns = _values_by_key(lines) if is_json else _cells_by_column(lines)
        return path if steps_in(columns) else None

    def place_if_named(self, candidate: Candidate) -> Path | None:
        """Any table: whoever names the format says that its rows are steps."""
        path = candidate.path
        is_text = is_table(path) and path.suffix not in (".gz", ".parquet")
        # DeiT, MAE and their descendants write JSON lines into log.txt.
        is_lines = path.suffix.lower() in _LINES and candidate.head.lstrip().startswith(b"{")
        return path if is_text or is_lines else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a table, each with its texts as columns."""
        bad: list[BadLog] = []
        text = files.text(place)
        first = text.lstrip().split("\n", 1)[0]
        if not first.startswith("{"):
            found = read_metrics(place, files, (), bad, delimiters=DELIMITERS)
        else:
            found = read_json_metrics(place, files, bad)
        yield from bad
        times = time_columns(found.columns)
        is_counted = bool(times)
        if not is_counted:
            columns = tuple(name for name in found.columns if name not in INDEX_NAMES)
            found = found._replace(columns=columns)
        path = place.resolve()
        main = times.get(c.STEP) or times.get(c.EPOCH, c.EPOCH)
        groups: dict[tuple[tuple[str, str], ...], list[MetricRow]] = {}
        for row in found.rows:
            texts = tuple((n, text) for n, text in row.texts.items() if not is_clock(text))
            groups.setdefault(texts, []).append(row)
        number = 0
        for texts, rows in groups.items():
            if not is_counted:
                for at, row in enumerate(rows):
                    row.cells[main] = float(at)
            begins = restarts([row.cells.get(main, math.inf) for row in rows])
            for begin, end in pairwise([*begins, len(rows)]):
                part = rows[begin:end]
                number += 1
                yield LoggedRun(
                    file=str(path),
                    identity=f"{self.name}:{path}" + f"#{number}" * (number > 1),
                    line=part[0].line,
                    columns={**dict(texts), "training": number},
                    series=series_of_steps(found, part, times),
                    progress=len(part),
                )


def _cells_by_column(lines: Sequence[str]) -> dict[str, list[Any]]:
    names, delimiter = header_cells(lines[0], DELIMITERS)
    counted = time_columns(names) or is_history(names)
    if not counted or len(set(names)) < len(names):
        return {}
    rows = [header_cells(line, delimiter)[0] for line in lines[1:]]
    rows = [row for row in rows if len(row) == len(names) and row != names]
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _values_by_key(lines: Sequence[str]) -> dict[str, list[Any]]:
    rows = []
    for line in lines:
        with suppress(DataError):
            rows.append(json_object(line))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_plain(row.get(name)) for row in rows] for name in names}


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float) else None


def series_of_steps(
    found: Metrics, rows: Sequence[MetricRow], times: Mapping[str, str]
) -> tuple[Series, ...]:
    """Columns of rows that are steps as series; ``times`` are the columns of step and epoch."""
    parts = {name: _parts(name) for name in found.columns}
    validated = {metric for split, metric in parts.values() if (split or "").lower() in _VALIDATED}
    fitted = {metric for split, metric in parts.values() if (split or "").lower() in FITTED}

    def parts_of(name: str) -> tuple[str | None, str]:
        split, metric = parts[name]
        if split is None and metric in validated - fitted:
            split = FITTED[0]
        return (split.lower() if split else None), metric

    return metric_series(
        found.columns, rows, parts_of, step=times.get(c.STEP), epoch=times.get(c.EPOCH, c.EPOCH)
    )


def _parts(name: str) -> tuple[str | None, str]:
    """Split and metric, also of ``ValLoss``."""
    found = split_of(name, _SPLIT)
    if found[0] is None:
        found = split_of(spaced(name), _SPLIT)
    return found if found[0] else (None, name)
