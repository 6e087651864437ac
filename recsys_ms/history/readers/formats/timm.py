"""timm's ``train.py``: ``summary.csv`` and ``args.yaml`` in a run folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.formats.metric_csv import (
    MetricRow,
    header_cells,
    largest,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.formats.settings_text import (
    read_yaml_settings,
    stated,
    whole_number,
)
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.store.curves import Series

_SUMMARY: Final = "summary.csv"
_ARGS: Final = "args.yaml"
_EPOCH: Final = "epoch"
_TRAIN: Final = "train_"
_EVAL: Final = "eval_"
_RATE: Final = "lr"
#: What ``validate`` of ``train.py`` returns, in its order.
_EVALUATED: Final = ("eval_loss", "eval_top1", "eval_top5")
#: ``timm.utils.accuracy`` counts in percent.
_PERCENT: Final = ("top1", "top5")


class Timm(LogFormat):
    """Run folders of timm's ``train.py``.

    The value is that of ``args.eval_metric``, by timm's own rule the smallest ``loss`` or the
    largest of anything else; ``top1`` and ``top5`` are percent. With ``model_ema`` the eval columns
    are those of the averaged weights (``value_kind`` is ``ema``), unless they were kept on the CPU
    (``model_ema_force_cpu``), where timm evaluates the model itself. The model is ``args.model``;
    the task ``args.dataset`` where that names a data set, for a folder of images it is to be mapped
    (``--map task_id='{args.data_dir}'``). The header comes again after a resume; rows of epochs
    without evaluation (``--val-interval``) have no cells for it, and where such a row came first,
    the header has no names for the cells of the others. A run is finished when its last epoch
    is reached.
    """

    name: ClassVar[str] = "timm"
    wanted: ClassVar[str] = "summary.csv with train_loss or eval_… (and args.yaml) in a run folder"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The run folder, by ``summary.csv`` in it."""
        if candidate.path.name != _SUMMARY:
            return None
        cells, _ = header_cells(candidate.first_line)
        logged = any(name.startswith((_TRAIN, _EVAL)) for name in cells)
        beside = candidate.path.with_name(_ARGS).is_file()
        return candidate.path.parent if (_EPOCH in cells and logged) or beside else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        path = place / _SUMMARY
        found = read_metrics(path, files.text(path), forms=_forms)
        yield from found.bad
        if _EPOCH not in found.columns:
            raise BadLogError(
                BadLog(
                    file=path,
                    reason="the header has no column epoch",
                    raw=files.text(path),
                    line=1,
                )
            )
        args: JsonDict = {}
        if files.exists(place / _ARGS):
            args, bad = read_yaml_settings(place / _ARGS, files)
            if bad is not None:
                yield bad
        folder = place.resolve()
        metric = stated(args.get("eval_metric"))
        series = tuple(_series(found.columns, found.rows))
        finished = _finished(args, found.rows)
        epoch = largest(found.rows, _EPOCH)
        reached = 0 if epoch is None else max(epoch + 1, 0)
        ema = bool(args.get("model_ema")) and not args.get("model_ema_force_cpu")
        yield LoggedRun(
            file=str(folder),
            identity=f"timm:{folder}",
            columns={"args": args},
            fields=_fields(args, metric, finished),
            series=series,
            chosen=None if metric is None else _EVAL + metric,
            directions=_directions(series, metric),
            progress=2 * reached + (finished is not False),
            value_kind="ema" if ema else None,
        )


def _forms(header: list[str]) -> list[list[str]]:
    """Rows under a header of another epoch: without evaluation, or with what timm evaluates."""
    without = [name for name in header if not name.startswith(_EVAL)]
    at = without.index(_RATE) if _RATE in without else len(without)
    return [without, [*without[:at], *_EVALUATED, *without[at:]]]


def _fields(args: Mapping[str, Any], metric: str | None, finished: bool | None) -> JsonDict:
    fields: JsonDict = {c.HYPERPARAMETERS: dict(args)}
    if metric:
        fields[c.METRIC] = metric
    model, data = stated(args.get("model")), stated(args.get("dataset"))
    if model:
        fields[c.MODEL_ID] = model
    if data:
        fields[c.TASK_ID] = data
    seed = whole_number(args.get("seed"))
    if seed is not None:
        fields[c.SEED] = seed
    if finished is not None:
        fields[c.STATUS] = "finished" if finished else "running"
    return fields


def _finished(args: Mapping[str, Any], rows: Sequence[MetricRow]) -> bool | None:
    """Whether the last epoch was reached; ``None`` where the arguments do not say how many."""
    if not rows:
        return False
    epochs = whole_number(args.get("epochs"))
    if epochs is None:
        return None
    epochs += whole_number(args.get("cooldown_epochs")) or 0
    if args.get("warmup_prefix"):
        epochs += whole_number(args.get("warmup_epochs")) or 0
    last = largest(rows, _EPOCH)
    return last is not None and last + 1 >= epochs


def _series(columns: Sequence[str], rows: Sequence[MetricRow]) -> Iterator[Series]:
    for name in columns:
        if name == _EPOCH:
            continue
        prefix = next((p for p in (_TRAIN, _EVAL) if name.startswith(p)), "")
        metric = name.removeprefix(prefix)
        series = metric_series(
            rows,
            name,
            metric=metric,
            split=prefix.rstrip("_") or None,
            epoch=_EPOCH,
            percent=metric in _PERCENT,
        )
        if series.values:
            yield series


def _directions(series: Sequence[Series], metric: str | None) -> dict[str, Direction]:
    """By timm's definition: the loss is minimised, every other eval metric maximised."""
    ways: dict[str, Direction] = {
        each.name: "min" if each.metric == "loss" else "max"
        for each in series
        if each.split == "eval"
    }
    if metric:
        ways[metric] = "min" if metric == "loss" else "max"
    return ways
