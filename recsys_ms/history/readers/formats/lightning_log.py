"""Lightning's ``CSVLogger``: ``metrics.csv`` and ``hparams.yaml`` in a version folder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.metric_csv import (
    EPOCH,
    STEP,
    MetricFolder,
    MetricRow,
    Metrics,
    largest,
    metric_series,
)
from recsys_ms.history.readers.formats.plain_values import split_of
from recsys_ms.history.readers.formats.stated_params import best_by, settings_fields
from recsys_ms.history.readers.logged import LoggedRun

_LOADER: Final = re.compile(r"(.+)/dataloader_idx_(\d+)")
_VERSION: Final = re.compile(r"version_\d+")
#: Where loggers without a name write to.
_UNNAMED: Final = frozenset({"lightning_logs", "csv", "csv_logs", "csvlogs", "logs", "default"})
_MAX_ROWS: Final = 2**20 - 1


class Lightning(MetricFolder):
    """Version folders of ``lightning.pytorch.loggers.CSVLogger``.

    Training and validation are in different rows of ``metrics.csv``, whose columns come in any
    order. ``val_NAME`` and ``val/NAME`` are on the split ``val`` (likewise ``train``, ``valid``,
    ``validation``, ``test``); of several loaders, ``val_NAME/dataloader_idx_1`` is on ``val/1``;
    the endings ``_step`` and ``_epoch`` stay part of the metric's name. ``hparams.yaml`` is the
    column ``hparams`` and the run's hyperparameters. The columns ``experiment`` and ``version``
    are the names of the folders. Model and task are those of the hyperparameters, where they state
    them (``model``, ``dataset``); else of ``NAME/version_0`` the task is the experiment ``NAME``,
    unless that is a logger's default (``lightning_logs``); ``_folder`` is never a version. The
    value is that of ``monitor`` with ``mode``, where these are among the hyperparameters. The log
    does not say whether the training ended.
    """

    name: ClassVar[str] = "lightning"
    wanted: ClassVar[str] = "metrics.csv with a column step (and hparams.yaml) in a version folder"
    metrics_file: ClassVar[str] = "metrics.csv"
    settings_file: ClassVar[str] = "hparams.yaml"
    times: ClassVar[tuple[str, ...]] = (STEP, EPOCH)

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether there is a column of steps."""
        return STEP in names

    def folder_of(self, place: Path) -> str:
        """The folder of the run; of a version, which says nothing, the experiment."""
        return place.parent.name if _VERSION.fullmatch(place.name) else place.name

    def run(self, folder: Path, found: Metrics, settings: JsonDict) -> LoggedRun:
        """The run of a version folder."""
        fields = settings_fields(settings)
        if not found.rows:
            fields[c.STATUS] = "running"
        experiment = folder.parent.name
        if _VERSION.fullmatch(folder.name) and experiment.lower() not in _UNNAMED:
            fields.setdefault(c.TASK_ID, experiment)
        series = metric_series(found.columns, found.rows, _parts, step=STEP)
        chosen, directions = best_by(settings, [each.name for each in series])
        return LoggedRun(
            file=str(folder),
            identity=f"lightning:{folder}",
            columns={
                "hparams": settings,
                "experiment": experiment,
                "version": folder.name,
            },
            fields=fields,
            series=series,
            chosen=chosen,
            directions=directions,
            progress=_progress(found.rows),
        )


def _parts(name: str) -> tuple[str | None, str]:
    loader = _LOADER.fullmatch(name)
    split, metric = split_of(loader[1] if loader else name)
    return (f"{split or 'loader'}/{loader[2]}" if loader else split), metric


def _progress(rows: Sequence[MetricRow]) -> int:
    """Steps first, since a resumed training may rewrite its file; then rows, for a test."""
    step = largest(rows, STEP)
    reached = 0 if step is None else min(max(step + 1, 0), 2**40)
    return (reached << 20) | min(len(rows), _MAX_ROWS)
