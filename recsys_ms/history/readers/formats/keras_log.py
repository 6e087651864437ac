"""Keras' ``CSVLogger``: one file a training, one row an epoch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.history.readers.formats.metric_csv import (
    MetricRow,
    header_cells,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.templates import to_number

_EPOCH: Final = "epoch"
_VAL: Final = "val_"
_DELIMITERS: Final = ",;\t|"


class Keras(LogFormat):
    """Files of ``keras.callbacks.CSVLogger``.

    The first column is ``epoch`` (from 0), the others are metrics: ``val_NAME`` is on the split
    ``val``, ``NAME`` on ``train``. ``NA`` is a missing value; lists are no metrics. A file to which
    a second training was appended (its epochs begin at 0 again) holds two runs; epochs that come
    again after a resume count as they were logged last. The log names neither model nor data set
    nor a direction, and does not say whether the training ended: a run counts as finished, and a
    later ingest of a file that has grown updates it.
    """

    name: ClassVar[str] = "keras"
    wanted: ClassVar[str] = "a file of CSVLogger, whose first column is epoch, with loss or val_…"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its header and its first row."""
        cells, delimiter = header_cells(candidate.first_line, _DELIMITERS)
        metrics = cells[1:]
        if cells[:1] != [_EPOCH] or not metrics or {"step", "train_loss", "eval_loss"} & set(cells):
            return None
        if not any(name == "loss" or name.startswith(_VAL) for name in metrics):
            return None
        lines = candidate.head.decode(errors="replace").split("\n")
        row = lines[1].split(delimiter) if len(lines) > 1 and lines[1].strip() else None
        if row is not None and to_number(row[0].strip()) is None:
            return None
        return candidate.path

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the trainings of a file."""
        text = files.text(place)
        first = next((line for line in text.split("\n") if line.strip()), "")
        _, delimiter = header_cells(first, _DELIMITERS)
        found = read_metrics(place, text, delimiter=delimiter)
        yield from found.bad
        if _EPOCH not in found.columns:
            raise BadLogError(
                BadLog(file=place, reason="the header has no column epoch", raw=text, line=1)
            )
        trainings = _trainings(found.rows)
        for number, rows in enumerate(trainings, start=1):
            yield _run(place, found.columns, rows, number)


def _trainings(rows: Sequence[MetricRow]) -> list[list[MetricRow]]:
    """Rows of each training: one that begins at epoch 0 behind another is a new one."""
    trainings: list[list[MetricRow]] = [[]]
    for row in rows:
        if row.cells.get(_EPOCH) == 0 and trainings[-1]:
            trainings.append([])
        trainings[-1].append(row)
    return trainings


def _run(place: Path, columns: Sequence[str], rows: Sequence[MetricRow], number: int) -> LoggedRun:
    series = [
        metric_series(
            rows,
            name,
            metric=name.removeprefix(_VAL),
            split="val" if name.startswith(_VAL) else "train",
            epoch=_EPOCH,
        )
        for name in columns
        if name != _EPOCH
    ]
    path = place.resolve()
    return LoggedRun(
        file=str(path),
        identity=f"keras:{path}" if number == 1 else f"keras:{path}#{number}",
        line=rows[0].line if rows else 1,
        columns={"training": number},
        fields={} if rows else {"status": "running"},
        series=tuple(each for each in series if each.values),
        progress=len(rows),
    )
