"""Keras' ``CSVLogger``: one file a training, one row an epoch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.history.readers.formats.metric_csv import (
    EPOCH,
    MetricRow,
    header_cells,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun
from recsys_ms.history.readers.templates import to_number

_VAL: Final = "val_"
_DELIMITERS: Final = ",;\t|"


class Keras(LogFormat):
    """Files of ``keras.callbacks.CSVLogger``.

    The first column is ``epoch`` (from 0), the others are metrics: ``val_NAME`` is on the split
    ``val``, ``NAME`` on ``train``. ``NA`` is a missing value; lists are skipped. A file to which a
    second training was appended (its epochs begin at 0 again) holds two runs; of epochs that are
    repeated after a resume the last counts. The log names neither model nor data set nor a
    direction, and does not say whether the training ended: a run counts as finished, and a later
    ingest of a file that has grown updates it.
    """

    name: ClassVar[str] = "keras"
    wanted: ClassVar[str] = "a file of CSVLogger, whose first column is epoch, with loss or val_…"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its header and its first row."""
        cells, delimiter = header_cells(candidate.first_line, _DELIMITERS)
        if cells[:1] != [EPOCH] or {"step", "train_loss", "eval_loss"} & set(cells):
            return None
        if not any(name == "loss" or name.startswith(_VAL) for name in cells[1:]):
            return None
        lines = candidate.head.decode(errors="replace").split("\n")
        row = lines[1].split(delimiter) if len(lines) > 1 and lines[1].strip() else None
        is_data = row is None or to_number(row[0].strip()) is not None
        return candidate.path if is_data else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the trainings of a file."""
        bad: list[BadLog] = []
        found = read_metrics(place, files, (EPOCH,), bad, delimiters=_DELIMITERS)
        yield from bad
        path = place.resolve()
        for number, rows in enumerate(_trainings(found.rows), start=1):
            yield LoggedRun(
                file=str(path),
                identity=f"keras:{path}" if number == 1 else f"keras:{path}#{number}",
                line=rows[0].line if rows else 1,
                columns={"training": number},
                fields={} if rows else {"status": "running"},
                series=metric_series(found.columns, rows, _parts),
                progress=len(rows),
            )


def _trainings(rows: Sequence[MetricRow]) -> list[list[MetricRow]]:
    """Rows of each training: a new one begins at each further epoch 0."""
    trainings: list[list[MetricRow]] = [[]]
    for row in rows:
        if row.cells.get(EPOCH) == 0 and trainings[-1]:
            trainings.append([])
        trainings[-1].append(row)
    return trainings


def _parts(name: str) -> tuple[str | None, str]:
    return ("val" if name.startswith(_VAL) else "train"), name.removeprefix(_VAL)
