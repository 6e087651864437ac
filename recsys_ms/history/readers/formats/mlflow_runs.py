"""One MLflow run as a run of a log."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.readers.templates import scalar
from recsys_ms.history.store.curves import Series

_SPLIT: Final = re.compile(r"(train|training|val|valid|validation|eval|test)[_/.](.+)", re.DOTALL)
_STATUS: Final = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "failed",
    "RUNNING": "running",
    "SCHEDULED": "running",
}
_OWN: Final = "mlflow."
_PARENT: Final = "mlflow.parentRunId"
_COMMIT: Final = "mlflow.source.git.commit"
_STAGE: Final = "mlflow.lifecycle_stage"
#: MLflow writes infinities into a database as the largest double.
_INFINITY: Final = 1.7976931348623157e308


class MetricPoint(NamedTuple):
    """One logged value: optimizer step, milliseconds since 1970, value."""

    step: int
    timestamp: int
    value: float


def logged_run(
    place: Path, experiment: str, run: Any, points: Mapping[str, Sequence[MetricPoint]]
) -> LoggedRun:
    """Run of a log from an entity of MLflow and the histories of its metrics.

    Parameters
    ----------
    place : Path
        The store.
    experiment : str
        Name of the run's experiment.
    run : mlflow.entities.Run
        The entity.
    points : mapping of metric key to sequence of MetricPoint
        All logged values.
    """
    info, data = run.info, run.data
    params, tags = _texts(data.params), _texts(data.tags)
    datasets = _datasets(run)
    deleted = info.lifecycle_stage == "deleted"
    kept_tags = {key: tag for key, tag in tags.items() if not key.startswith(_OWN)}
    kept_tags |= {key: tags[key] for key in (_PARENT, "mlflow.runName") if key in tags}
    if deleted:
        kept_tags[_STAGE] = "deleted"
    fields: JsonDict = {
        c.HYPERPARAMETERS: {key: scalar(value) for key, value in params.items()},
        c.TAGS: kept_tags,
        c.STATUS: "failed" if deleted else _STATUS.get(str(info.status), "running"),
        c.STARTED_AT: _moment(info.start_time),
        c.FINISHED_AT: _moment(info.end_time),
        c.SOURCE_VERSION: tags.get(_COMMIT),
        c.DATASET_FINGERPRINT: datasets[0]["digest"] if len(datasets) == 1 else None,
    }
    epochs = {step: value for step, _, value in points.get("epoch", ())}
    moments = [moment for of_key in points.values() for _, moment, _ in of_key]
    return LoggedRun(
        file=str(place.resolve()),
        identity=f"mlflow:{info.run_id}",
        columns={
            "params": params,
            # A template's dots look inside dicts, which names of tags are full of.
            "tags": tags,
            "datasets": datasets,
            "run_name": _text(info.run_name),
            "experiment": _text(experiment),
            "experiment_id": str(info.experiment_id),
            "user": _text(info.user_id),
            "artifact_uri": _text(info.artifact_uri),
            "state": str(info.status),
            "lifecycle_stage": str(info.lifecycle_stage),
            "parent_run_id": tags.get(_PARENT),
            "mlflow_run_id": str(info.run_id),
        },
        fields={name: value for name, value in fields.items() if value is not None},
        series=tuple(_series(key, of_key, epochs) for key, of_key in points.items()),
        progress=max(
            (m for m in (info.end_time, info.start_time, *moments) if m is not None), default=0
        ),
    )


def _series(key: str, points: Sequence[MetricPoint], epochs: Mapping[int, float]) -> Series:
    name = _text(key) or key
    split = _SPLIT.fullmatch(name)
    # Of several values at one step the last counts, in the order they were logged.
    last = {step: value for step, _, value in sorted(points, key=lambda p: (p.timestamp, p.step))}
    steps = sorted(last)
    return Series(
        name=name,
        metric=split[2] if split else name,
        split=split[1] if split else None,
        steps=steps,
        epochs=[epochs.get(step) for step in steps],
        values=[_finite(last[step]) for step in steps],
    )


def _finite(value: float) -> float:
    return float("inf") * (1 if value > 0 else -1) if abs(value) >= _INFINITY else value


def _datasets(run: Any) -> list[dict[str, str]]:
    inputs = getattr(run.inputs, "dataset_inputs", None) or []
    return [
        {
            "name": _text(each.dataset.name) or "",
            "digest": _text(each.dataset.digest) or "",
            "source_type": _text(each.dataset.source_type) or "",
            "context": next(
                (_text(tag.value) or "" for tag in each.tags if tag.key == "mlflow.data.context"),
                "",
            ),
        }
        for each in inputs
    ]


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {_text(key) or "": _text(value) or "" for key, value in values.items()}


def _text(value: Any) -> str | None:
    # Half of a surrogate pair is no text that a table can hold.
    return None if value is None else str(value).encode(errors="backslashreplace").decode()
