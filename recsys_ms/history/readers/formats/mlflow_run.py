"""One MLflow run as a run of a log, wherever its tracking store keeps it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.plain_values import clean, not_none, split_of, stated
from recsys_ms.history.readers.formats.stated_params import best_by, model_of, one_name, task_of
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.readers.number_style import scalar
from recsys_ms.history.store.curves import Series

#: MLflow's own name of a data set that was given none.
_UNNAMED: Final = "dataset"
_MODELS: Final = "mlflow.log-model.history"
_STATUS: Final = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "failed",
    "RUNNING": "running",
    "SCHEDULED": "running",
}
#: Values of a run, of which 2 million take about 1 GB while they are read.
MOST_VALUES: Final = 2_000_000
_OWN: Final = "mlflow."
#: Tag of a data set: what the run used it for.
CONTEXT: Final = "mlflow.data.context"
_PARENT: Final = "mlflow.parentRunId"
_NAME: Final = "mlflow.runName"
_COMMIT: Final = "mlflow.source.git.commit"
_STAGE: Final = "mlflow.lifecycle_stage"
#: MLflow writes infinities into a database as the largest double.
_INFINITY: Final = 1.7976931348623157e308


class MetricPoint(NamedTuple):
    """One logged value: step, milliseconds since 1970, value."""

    step: int
    timestamp: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowRun:
    """What a tracking store keeps of a run; times are in milliseconds since 1970.

    Attributes
    ----------
    points : mapping of metric to points
        Every logged value, in the order it was logged.
    datasets : sequence of dict
        ``name``, ``digest``, ``source_type`` and ``context`` of the data sets that were logged.
    """

    run_id: str
    experiment_id: str
    experiment: str
    name: str | None = None
    user: str | None = None
    status: str = "RUNNING"
    started: int | None = None
    ended: int | None = None
    stage: str = "active"
    version: str | None = None
    artifact_uri: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[Mapping[str, str]] = ()
    points: Mapping[str, Sequence[MetricPoint]] = field(default_factory=dict)

    def logged(self, file: str) -> LoggedRun:
        """The run of a log in the store ``file``."""
        params, tags = _texts(self.params), _texts(self.tags)
        deleted = self.stage == "deleted"
        kept_tags = {key: tag for key, tag in tags.items() if not key.startswith(_OWN)}
        kept_tags |= {key: tags[key] for key in (_PARENT, _NAME) if key in tags}
        if deleted:
            kept_tags[_STAGE] = "deleted"
        data = self.datasets
        fields: JsonDict = {
            c.MODEL_ID: _model(params, tags),
            c.TASK_ID: _task(params, data),
            c.HYPERPARAMETERS: {key: scalar(value) for key, value in params.items()},
            c.TAGS: kept_tags,
            c.STATUS: "failed" if deleted else _STATUS.get(self.status, "running"),
            c.STARTED_AT: _moment(self.started),
            c.FINISHED_AT: _moment(self.ended),
            c.SOURCE_VERSION: tags.get(_COMMIT) or stated(self.version),
            c.DATASET_FINGERPRINT: (data[0]["digest"] or None) if len(data) == 1 else None,
        }
        epochs = {point.step: point.value for point in self.points.get("epoch", ())}
        series = tuple(_series(key, points, epochs) for key, points in self.points.items())
        chosen, directions = best_by(params, [each.name for each in series])
        moments = [point.timestamp for points in self.points.values() for point in points]
        return LoggedRun(
            file=file,
            identity=f"mlflow:{self.run_id}",
            columns={
                "params": params,
                # Names of tags contain dots, which a template takes for keys inside a dict.
                "tags": tags,
                "datasets": [dict(each) for each in data],
                "run_name": _text(tags.get(_NAME) or self.name),
                "experiment": _text(self.experiment),
                "experiment_id": self.experiment_id,
                "user": _text(self.user),
                "artifact_uri": _text(self.artifact_uri),
                "state": self.status,
                "lifecycle_stage": self.stage,
                "parent_run_id": tags.get(_PARENT),
                "mlflow_run_id": self.run_id,
            },
            fields=not_none(fields),
            series=series,
            chosen=chosen,
            directions=directions,
            progress=max(
                (each for each in (self.ended, self.started, *moments) if each is not None),
                default=0,
            ),
        )


def unbounded(value: float) -> float:
    """Value of a metric in a database, where infinities are the largest doubles."""
    return math.copysign(math.inf, value) if abs(value) >= _INFINITY else value


def _series(key: str, points: Sequence[MetricPoint], epochs: Mapping[int, float]) -> Series:
    name = clean(key)
    split, metric = split_of(name)
    # The order of logging decides within a millisecond: sorting keeps it.
    ordered = sorted(points, key=lambda point: (point.step, point.timestamp))
    # Without a step MLflow writes 0: then the order is all there is.
    stepless = len(ordered) > 1 and all(point.step == 0 for point in ordered)
    return Series.of(
        name,
        metric,
        split,
        (
            (at, None, point.value)
            if stepless
            else (point.step, epochs.get(point.step), point.value)
            for at, point in enumerate(ordered)
        ),
    )


def _model(params: Mapping[str, str], tags: Mapping[str, str]) -> str | None:
    """The model by the run's parameters, else by the one logged model that names its source."""
    return model_of(params) or _only(_logged_models(tags.get(_MODELS)))


def _logged_models(text: str | None) -> Iterator[str]:
    """Names of the pre-trained models in the tag that MLflow writes when models are logged."""
    try:
        logged: Any = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return
    for each in logged if isinstance(logged, list) else ():
        flavors = each.get("flavors") if isinstance(each, dict) else None
        for flavor in flavors.values() if isinstance(flavors, dict) else ():
            name = flavor.get("source_model_name") if isinstance(flavor, dict) else None
            if isinstance(name, str):
                yield name


def _task(params: Mapping[str, str], datasets: Sequence[Mapping[str, str]]) -> str | None:
    """The task by the run's parameters, else by the one data set that it logged by name."""
    named = (each["name"] for each in datasets if each["name"] != _UNNAMED)
    return task_of(params) or _only(named)


def _only(names: Iterator[str]) -> str | None:
    found = {name for name in map(one_name, names) if name}
    return found.pop() if len(found) == 1 else None


def _moment(time: int | None) -> datetime | None:
    if time is None:
        return None
    try:
        return datetime.fromtimestamp(time / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    return {clean(key): clean(value) for key, value in values.items()}


def _text(value: str | None) -> str | None:
    return None if value is None else clean(value)
