"""MLflow's tracking stores, SQLite and folders, through MLflow's own client (extra ``mlflow``)."""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.mlflow_store import MetricPoint, StoreProblem, open_store
from recsys_ms.history.readers.formats.plain_values import clean, split_of
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.templates import scalar
from recsys_ms.history.store.curves import Series

_MAGIC: Final = b"SQLite format 3\x00"
_TABLES: Final = {"experiments", "runs", "metrics", "params", "tags"}
_META: Final = "meta.yaml"
_EXPERIMENT: Final = re.compile(rb"^experiment_id:\s*['\"]?([^'\"\s]+)", re.MULTILINE)
_RUN: Final = re.compile(rb"^run_(?:id|uuid):\s*['\"]?([^'\"\s]+)", re.MULTILINE)
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


class Mlflow(LogFormat):
    """Tracking stores of MLflow: an SQLite file or a folder (``mlruns``), never written to.

    All runs of all experiments are read, nested ones and deleted ones too: a parent run has often
    no metrics of its own, and a deleted run is kept as ``failed`` with the tag
    ``mlflow.lifecycle_stage``, since its owner discarded it; leave them out with
    ``--where "lifecycle_stage = 'active'"``. Columns: ``params``, ``tags``, ``run_name``,
    ``experiment``, ``parent_run_id``, ``user``, ``datasets`` and others. Parameters, which MLflow
    keeps as text, become numbers where they spell one. ``val_NAME``, ``val/NAME`` and ``val.NAME``
    are on the split ``val`` (likewise ``train``, ``valid``, ``validation``, ``eval``, ``test``).
    Every value of a metric is read, so that best and last can be told apart; the epoch is that of a
    metric ``epoch`` at the same step. The run's id is MLflow's own.
    """

    name: ClassVar[str] = "mlflow"
    wanted: ClassVar[str] = "an SQLite tracking store, or a folder of experiments with meta.yaml"
    owns_folder: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The database, or the folder that holds the experiments."""
        path = candidate.path
        if candidate.head.startswith(_MAGIC):
            return path if _is_store(path) else None
        if path.name != _META:
            return None
        folder = path.parent.name.encode()
        for pattern, place in (
            (_RUN, path.parent.parent.parent),
            (_EXPERIMENT, path.parent.parent),
        ):
            found = pattern.search(candidate.head)
            if found is not None and found[1] == folder:
                return place
        return None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a store, page by page."""
        try:
            with open_store(place) as store:
                for experiments, runs in store.pages():
                    for run, points in store.with_histories(runs):
                        name = experiments.get(run.info.experiment_id, run.info.experiment_id)
                        yield _logged_run(place, name, run, points)
                yield from store.bad
        except StoreProblem as problem:
            raise BadLogError(BadLog(file=place, reason=str(problem))) from problem


def _is_store(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            return {name for (name,) in connection.execute(query)} >= _TABLES
    except sqlite3.Error:
        return False


def _logged_run(
    place: Path, experiment: str, run: Any, points: Mapping[str, Sequence[MetricPoint]]
) -> LoggedRun:
    """Run of a log from an ``mlflow.entities.Run`` and all values of its metrics."""
    info = run.info
    params, tags = _texts(run.data.params), _texts(run.data.tags)
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
            # Names of tags contain dots, which a template takes for keys inside a dict.
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
    name = clean(key)
    split, metric = split_of(name, _SPLIT)
    # Of several values at one step the last counts, in the order they were logged.
    last = {step: value for step, _, value in sorted(points, key=lambda p: (p.timestamp, p.step))}
    ordered = ((step, epochs.get(step), _unbounded(last[step])) for step in sorted(last))
    return Series.of(name, metric, split, ordered)


def _unbounded(value: float) -> float:
    return float("inf") * (1 if value > 0 else -1) if abs(value) >= _INFINITY else value


def _datasets(run: Any) -> list[dict[str, str]]:
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
        for each in getattr(run.inputs, "dataset_inputs", None) or []
    ]


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {clean(key): _text(value) or "" for key, value in values.items()}


def _text(value: Any) -> str | None:
    return None if value is None else clean(str(value))
