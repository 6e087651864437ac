"""timm's ``train.py``: ``summary.csv`` and ``args.yaml`` in a run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.formats.metric_csv import (
    EPOCH,
    MetricFolder,
    MetricRow,
    Metrics,
    largest,
    metric_series,
)
from recsys_ms.history.readers.formats.plain_values import (
    named_by_path,
    not_none,
    stated,
    whole_number,
)
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.store.curves import Series

_TRAIN: Final = "train_"
_EVAL: Final = "eval_"
_RATE: Final = "lr"
#: Columns of an evaluation, in the order of ``validate`` in ``train.py``.
_EVALUATED: Final = ("eval_loss", "eval_top1", "eval_top5")
#: Metrics that ``timm.utils.accuracy`` gives in percent.
_PERCENT: Final = ("top1", "top5")


class Timm(MetricFolder):
    """Run folders of timm's ``train.py``.

    The value is that of ``args.eval_metric``, by timm's own rule the smallest ``loss`` or the
    largest of anything else; ``top1`` and ``top5`` are percent. With ``model_ema`` the eval
    columns are those of the averaged weights (``value_kind`` is ``ema``), unless they were kept on
    the CPU (``model_ema_force_cpu``), where timm evaluates the model itself. The model is
    ``args.model``; the task ``args.dataset``, or the name of the folder of images
    ``args.data_dir``. The header is repeated after a resume; rows of epochs without evaluation
    (``--val-interval``) have no cells for it, and if such a row came first, the header has no
    names for the cells of the others. A run is finished when its last epoch is reached.
    """

    name: ClassVar[str] = "timm"
    wanted: ClassVar[str] = "summary.csv with train_loss or eval_… (and args.yaml) in a run folder"

    metrics_file: ClassVar[str] = "summary.csv"
    settings_file: ClassVar[str] = "args.yaml"
    times: ClassVar[tuple[str, ...]] = (EPOCH,)

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether there are epochs, with a loss or a metric of timm's."""
        return EPOCH in names and any(name.startswith((_TRAIN, _EVAL)) for name in names)

    def forms(self, header: list[str]) -> list[list[str]]:
        """Rows under a header of another epoch: without evaluation, or with timm's own."""
        without = [name for name in header if not name.startswith(_EVAL)]
        at = without.index(_RATE) if _RATE in without else len(without)
        return [without, [*without[:at], *_EVALUATED, *without[at:]]]

    def run(self, folder: Path, found: Metrics, settings: JsonDict) -> LoggedRun:
        """The run of a folder."""
        metric = stated(settings.get("eval_metric"))
        series = metric_series(found.columns, found.rows, _parts, percent=_PERCENT)
        finished = _finished(settings, found.rows)
        epoch = largest(found.rows, EPOCH)
        reached = 0 if epoch is None else max(epoch + 1, 0)
        ema = bool(settings.get("model_ema")) and not settings.get("model_ema_force_cpu")
        fields: JsonDict = {
            c.HYPERPARAMETERS: settings,
            c.METRIC: metric,
            c.MODEL_ID: stated(settings.get("model")),
            c.TASK_ID: stated(settings.get("dataset"))
            or named_by_path(stated(settings.get("data_dir"))),
            c.SEED: whole_number(settings.get("seed")),
            c.STATUS: {True: "finished", False: "running", None: None}[finished],
        }
        return LoggedRun(
            file=str(folder),
            identity=f"timm:{folder}",
            columns={"args": settings},
            fields=not_none(fields),
            series=series,
            chosen=None if metric is None else _EVAL + metric,
            directions=_directions(series, metric),
            progress=2 * reached + (finished is not False),
            value_kind="ema" if ema else None,
        )


def _parts(name: str) -> tuple[str | None, str]:
    prefix = next((each for each in (_TRAIN, _EVAL) if name.startswith(each)), "")
    return prefix.rstrip("_") or None, name.removeprefix(prefix)


def _finished(args: Mapping[str, Any], rows: Sequence[MetricRow]) -> bool | None:
    """Whether the last epoch was reached; ``None`` if the settings do not say how many."""
    if not rows:
        return False
    epochs = whole_number(args.get("epochs"))
    if epochs is None:
        return None
    epochs += whole_number(args.get("cooldown_epochs")) or 0
    if args.get("warmup_prefix"):
        epochs += whole_number(args.get("warmup_epochs")) or 0
    last = largest(rows, EPOCH)
    return last is not None and last + 1 >= epochs


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
