"""Lightning's ``CSVLogger``: ``metrics.csv`` and ``hparams.yaml`` in a version folder."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.metric_csv import (
    MetricRow,
    header_cells,
    largest,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.formats.settings_text import read_yaml_settings, whole_number
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.store.curves import Series

_METRICS: Final = "metrics.csv"
_HPARAMS: Final = "hparams.yaml"
_STEP: Final = "step"
_EPOCH: Final = "epoch"
_SPLIT: Final = re.compile(r"(train|training|val|valid|validation|test)[_/.-](.+)")
_LOADER: Final = re.compile(r"(.+)/dataloader_idx_(\d+)")
_MAX_ROWS: Final = 2**20 - 1


class Lightning(LogFormat):
    """Version folders of ``lightning.pytorch.loggers.CSVLogger``.

    Training and validation stand in different rows of ``metrics.csv``, whose columns come in any
    order. ``val_NAME`` and ``val/NAME`` are on the split ``val`` (likewise ``train``, ``valid``,
    ``validation``, ``test``); of several loaders, ``val_NAME/dataloader_idx_1`` is on ``val/1``;
    the endings ``_step`` and ``_epoch`` stay part of the metric's name. ``hparams.yaml`` is the
    column ``hparams`` and the run's hyperparameters. The columns ``experiment`` and ``version``
    are the names of the folders. The log names neither model nor data set nor a direction, and
    does not say whether the training ended.
    """

    name: ClassVar[str] = "lightning"
    wanted: ClassVar[str] = "metrics.csv with a column step (and hparams.yaml) in a version folder"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The version folder, by ``metrics.csv`` in it."""
        if candidate.path.name != _METRICS:
            return None
        cells, _ = header_cells(candidate.first_line)
        beside = candidate.path.with_name(_HPARAMS).is_file()
        return candidate.path.parent if _STEP in cells or beside else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a version folder."""
        path = place / _METRICS
        found = read_metrics(path, files.text(path))
        yield from found.bad
        if not {_STEP, _EPOCH} & set(found.columns):
            raise BadLogError(
                BadLog(
                    file=path,
                    reason="the header has neither step nor epoch",
                    raw=files.text(path),
                    line=1,
                )
            )
        hparams: JsonDict = {}
        if files.exists(place / _HPARAMS):
            hparams, bad = read_yaml_settings(place / _HPARAMS, files)
            if bad is not None:
                yield bad
        folder = place.resolve()
        fields: JsonDict = {c.HYPERPARAMETERS: hparams}
        seed = whole_number(hparams.get(c.SEED))
        if seed is not None:
            fields[c.SEED] = seed
        if not found.rows:
            fields[c.STATUS] = "running"
        yield LoggedRun(
            file=str(folder),
            identity=f"lightning:{folder}",
            columns={
                "hparams": hparams,
                "experiment": folder.parent.name,
                "version": folder.name,
            },
            fields=fields,
            series=tuple(_series(found.columns, found.rows)),
            progress=_progress(found.rows),
        )


def _series(columns: Sequence[str], rows: Sequence[MetricRow]) -> Iterator[Series]:
    for name in columns:
        if name in (_STEP, _EPOCH):
            continue
        loader = _LOADER.fullmatch(name)
        base = loader[1] if loader else name
        split = _SPLIT.fullmatch(base)
        where = split[1] if split else None
        series = metric_series(
            rows,
            name,
            metric=split[2] if split else base,
            split=f"{where or 'loader'}/{loader[2]}" if loader else where,
            step=_STEP,
            epoch=_EPOCH,
        )
        if series.values:
            yield series


def _progress(rows: Sequence[MetricRow]) -> int:
    """Steps first, since a resumed training may write its file anew; then rows, for a test."""
    step = largest(rows, _STEP)
    reached = 0 if step is None else min(max(step + 1, 0), 2**40)
    return (reached << 20) | min(len(rows), _MAX_ROWS)
