"""Charts of Weights & Biases, exported as CSV: one curve of each run in columns of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.history.readers.formats.metric_csv import (
    EPOCH,
    header_cells,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.formats.plain_values import split_of
from recsys_ms.history.readers.formats.wandb_history import EPOCHS
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
    real,
)

_STEPS: Final = ("Step", "_step", "global_step", "train/global_step", "trainer/global_step")
_SEPARATOR: Final = " - "
_ENDS: Final = ("__MIN", "__MAX")


class WandbChart(LogFormat):
    """The CSV that a chart of W&B exports, with the columns ``RUN - METRIC`` of each run.

    Each run is one run with its curve (a chart of several metrics: curves), by the name that the
    chart shows: ``{run_name}``. The first column is the step, or the epoch, or another axis, in
    which case the values are numbered. ``RUN - METRIC__MIN`` and ``__MAX`` are the range of the
    points that W&B drew as one, and are not read. ``val/NAME`` and ``val_NAME`` are on the split
    ``val``. A chart says neither the model nor the task: ``--map model_id='{run_name}'``.
    """

    name: ClassVar[str] = "wandb-chart"
    wanted: ClassVar[str] = "the CSV of a chart, with columns RUN - METRIC, …__MIN and …__MAX"
    reads_tables: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its header."""
        if candidate.path.suffix.lower() != ".csv":
            return None
        names, _ = header_cells(candidate.first_line)
        return candidate.path if _curves(names) else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of each curve, in the order of the columns.

        Raises
        ------
        BadLogError
            Not a chart, or two runs have one name.
        """
        names, _ = header_cells(files.text(place).split("\n", 1)[0].strip("\r"))
        curves = _curves(names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if not curves or twice:
            told = f"two runs have the column {twice[0]!r}" if twice else "no column RUN - METRIC"
            way_out = "name the runs apart in the chart, and export it again"
            raise BadLogError(BadLog(file=place, line=1, reason=f"{told}; {way_out}"))
        bad: list[BadLog] = []
        found = read_metrics(place, files, names[:1], bad)
        yield from bad
        path = real(place)
        runs: dict[str, list[str]] = {}
        for column in curves:
            runs.setdefault(column.rpartition(_SEPARATOR)[0], []).append(column)
        axis = names[0]
        for run, columns in runs.items():
            series = metric_series(
                columns,
                found.rows,
                lambda name: split_of(_metric(name)),
                step=axis if axis in _STEPS else None,
                epoch=axis if axis in (EPOCH, *EPOCHS) else None,
            )
            yield LoggedRun(
                file=str(path),
                identity=f"wandb:{path}#{run}",
                columns={"run_name": run},
                series=[replace(each, name=_metric(each.name)) for each in series],
                progress=sum(any(each in row.cells for each in columns) for row in found.rows),
            )


def _metric(column: str) -> str:
    return column.rpartition(_SEPARATOR)[2]


def _curves(names: Sequence[str]) -> list[str]:
    """Columns of a run's metric, with the range of the points that were drawn as one."""
    known = set(names)
    return [
        name
        for name in names
        if all(f"{name}{end}" in known for end in _ENDS)
        and _SEPARATOR in name
        # W&B's own, such as the step of each run.
        and not _metric(name).startswith("_")
    ]
