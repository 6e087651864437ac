"""Any table whose rows are epochs or steps: CSV, TSV and JSON lines that no other format claims."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.history.readers.formats.metric_csv import (
    DELIMITERS,
    MetricRow,
    Metrics,
    header_cells,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.formats.plain_values import split_of
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun
from recsys_ms.history.readers.sources import is_table
from recsys_ms.history.readers.steps import is_clock, restarts, steps_in, time_columns
from recsys_ms.history.store.curves import Series

_SPLIT: Final = re.compile(
    r"(train|training|val|valid|validation|dev|eval|test)[_/. -]+(.+)", re.IGNORECASE
)


class StepTable(LogFormat):
    """Tables in which a row is an epoch or a step of a run, and not a run.

    A column of the name ``epoch`` or ``step`` (``iteration``, ``round``, …) rises from row to row.
    Columns of text (model, task) tell the runs apart; without any, the table is one run, and where
    the epoch begins at 0 or 1 again, the next. They are columns for ``--map``; columns of numbers
    are series. ``val_NAME`` and ``val/NAME`` are on the split ``val`` (likewise ``train``,
    ``valid``, ``test``, …). Nothing else is stated.
    """

    name: ClassVar[str] = "steps"
    wanted: ClassVar[str] = "a table with a column epoch or step that rises from row to row"
    rows_are_steps: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its header and its first rows."""
        if not is_table(candidate.path) or candidate.path.suffix == ".gz":
            return None
        names, delimiter = header_cells(candidate.first_line, DELIMITERS)
        if not time_columns(names):
            return None
        lines = candidate.head.decode(errors="replace").split("\n")[1:]
        # The last line of the head may be a part of one.
        rows = [header_cells(line, delimiter)[0] for line in lines[:-1] if line.strip()]
        rows = [row for row in rows if len(row) == len(names) and row != names]
        columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
        return candidate.path if steps_in(columns) else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a table, each with its texts as columns."""
        names, _ = header_cells(files.text(place).lstrip().split("\n", 1)[0], DELIMITERS)
        times = time_columns(names)
        bad: list[BadLog] = []
        found = read_metrics(place, files, tuple(times.values()), bad, delimiters=DELIMITERS)
        yield from bad
        path = place.resolve()
        main = times.get(c.STEP) or times[c.EPOCH]
        groups: dict[tuple[tuple[str, str], ...], list[MetricRow]] = {}
        for row in found.rows:
            texts = tuple((n, text) for n, text in row.texts.items() if not is_clock(text))
            groups.setdefault(texts, []).append(row)
        number = 0
        for texts, rows in groups.items():
            begins = restarts([row.cells.get(main, math.inf) for row in rows])
            for begin, end in pairwise([*begins, len(rows)]):
                part = rows[begin:end]
                number += 1
                yield LoggedRun(
                    file=str(path),
                    identity=f"{self.name}:{path}" + f"#{number}" * (number > 1),
                    line=part[0].line,
                    columns={**dict(texts), "training": number},
                    series=_series(found, part, times),
                    progress=len(part),
                )


def _series(found: Metrics, rows: Sequence[MetricRow], times: dict[str, str]) -> tuple[Series, ...]:
    return metric_series(
        found.columns, rows, _parts, step=times.get(c.STEP), epoch=times.get(c.EPOCH)
    )


def _parts(name: str) -> tuple[str | None, str]:
    split, metric = split_of(name, _SPLIT)
    return (split.lower() if split else None), metric
