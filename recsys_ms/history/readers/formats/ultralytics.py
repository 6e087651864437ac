"""Ultralytics YOLO: ``results.csv``, one row an epoch, and ``args.yaml`` beside it."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.formats.metric_csv import EPOCH, MetricFile, MetricRow, largest
from recsys_ms.history.readers.formats.plain_values import (
    named_by_path,
    not_none,
    read_settings,
    split_of,
    stated,
    whole_number,
)
from recsys_ms.history.readers.logged import BadLog, LogFiles, LoggedRun

_METRICS: Final = "metrics/"
_RESULTS: Final = "results.csv"
#: Settings, as Ultralytics and as YOLOv5 and YOLOv7 write them.
_SETTINGS: Final = ("args.yaml", "opt.yaml")
#: Drawn when a training ends.
_PLOT: Final = "results.png"
_SPLIT: Final = re.compile(r"(train|val|metrics)/(.+)")
#: What the best weights are chosen by: the strictest metric of the task. Its weight in the fitness
#: is 1 in Ultralytics 8.4; it was .9 before, with .1 for the mAP at an overlap of .5.
_FITNESS: Final = (
    "metrics/mAP50-95(P)",
    "metrics/mAP50-95(M)",
    "metrics/mAP50-95(B)",
    "metrics/mAP50-95",
    "metrics/mAP_0.5:0.95",
    "metrics/accuracy_top1",
    "metrics/mIoU",
)
_MADE: Final = re.compile(r"runs|detect|segment|classify|pose|obb|((train|exp|val)[-_]?\d*)")
#: Weights of an earlier run, whose file does not say which model it was.
_NAMELESS_WEIGHTS: Final = re.compile(r"(best|last|epoch\d+)(\.pt)?")


class Ultralytics(MetricFile):
    """Run folders of Ultralytics (YOLOv8 and later) and of YOLOv5, by their ``results.csv``.

    ``metrics/NAME`` and ``val/NAME`` are on the split ``val``. The value is the metric that the
    best weights are chosen by (``metrics/mAP50-95(B)``; of masks ``(M)``, of poses ``(P)``; of
    classification ``metrics/accuracy_top1``). Everything in ``metrics/`` is maximised and losses
    are minimised. The model is ``model`` (``weights``) in ``args.yaml`` (``opt.yaml``) without
    ``.pt``, unless it is weights of an earlier run (``best.pt``); the task is the name of ``data``,
    of ``…/birds/data.yaml`` its folder. A run is finished when its last epoch is reached, when no
    epoch was better for ``patience`` epochs, when ``results.png`` is there, or when there are no
    settings.
    """

    name: ClassVar[str] = "ultralytics"
    wanted: ClassVar[str] = "results.csv with epoch and metrics/… (and args.yaml) in a run folder"

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether a metric has Ultralytics' prefix, beside its losses."""
        return (
            EPOCH in names
            and any(name.startswith(_METRICS) for name in names)
            and any(name.startswith(("train/", "val/")) for name in names)
        )

    def parts(self, name: str) -> tuple[str | None, str]:
        """Metrics are of the validation."""
        split, metric = split_of(name, _SPLIT)
        return "val" if split == "metrics" else split, metric

    def folder_of(self, place: Path) -> str:
        """The project: the folder above those that Ultralytics names (``runs/detect/train2``)."""
        names = [folder.name for folder in place.parents if folder.name]
        return next((name for name in names if not _MADE.fullmatch(name)), place.parent.name)

    def beside(self, place: Path, files: LogFiles, bad: list[BadLog]) -> JsonDict:
        """Settings of the run, and whether its results were drawn."""
        if place.name != _RESULTS:
            return {}
        found = [read_settings(place.with_name(name), files, bad) for name in _SETTINGS]
        drawn = files.exists(place.with_name(_PLOT))
        return {"args": next(filter(None, found), {}), "drawn": drawn}

    def completed(self, run: LoggedRun, rows: Sequence[MetricRow], beside: JsonDict) -> LoggedRun:
        """Model, task, seed, status and the metric of the best weights."""
        args: JsonDict = beside.get("args", {})
        chosen = next((each for each in _FITNESS if any(each in row.cells for row in rows)), None)
        ended = beside.get("drawn") or not args or _ended(args, rows, chosen)
        fields = {
            c.HYPERPARAMETERS: args,
            c.MODEL_ID: _model(args),
            c.TASK_ID: named_by_path(stated(args.get("data"))),
            c.SEED: whole_number(args.get("seed")),
            c.STATUS: "finished" if ended and rows else "running",
        }
        ways: dict[str, Direction] = {
            each.name: "max" if each.name.startswith(_METRICS) else "min"
            for each in run.series
            if each.name.startswith(_METRICS) or each.metric.endswith("loss")
        }
        return replace(
            run,
            columns={**run.columns, "args": args},
            fields=not_none(fields),
            chosen=chosen,
            directions=ways,
            progress=2 * len(rows) + bool(ended),
        )


def _model(args: JsonDict) -> str | None:
    """The model's file without its folder; an architecture (``.yaml``) keeps its suffix."""
    named = [stated(args.get(key)) for key in ("model", "weights", "cfg", "pretrained")]
    known = [re.split(r"[/\\]", text)[-1] for text in named if text]
    # Weights win over the architecture that they are loaded into.
    name = next((each for each in known if not each.endswith(".yaml")), next(iter(known), None))
    if name is None or _NAMELESS_WEIGHTS.fullmatch(name):
        return None
    return name.removesuffix(".pt")


def _ended(args: JsonDict, rows: Sequence[MetricRow], chosen: str | None) -> bool:
    """Whether the last epoch was reached, or the training stopped early."""
    last, epochs = largest(rows, EPOCH), whole_number(args.get("epochs"))
    if last is None or epochs is None:
        return last is not None
    # Epochs were counted from 0 until Ultralytics 8.2.
    first = min((row.cells.get(EPOCH, 1.0) for row in rows), default=1.0)
    if last >= epochs - (first == 0):
        return True
    patience = whole_number(args.get("patience"))
    values = [row.cells.get(chosen or "", math.nan) for row in rows]
    known = [at for at, value in enumerate(values) if value > 0]
    if not patience or not known:
        return False
    return len(rows) - 1 - max(known, key=lambda at: (values[at], -at)) >= patience
