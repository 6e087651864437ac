"""MLflow's SQLite tracking store of every version, read as data by plain SQL.

Versions since 1.0 have the five tables of runs, experiments, metrics, params and tags; later ones
add columns (``metrics.step``, ``metrics.is_nan``) and tables (``datasets``). What a version does
not have is not asked for, and what it has besides is not looked at.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recsys_ms.history.readers.formats.mlflow_run import (
    CONTEXT,
    MOST_VALUES,
    MetricPoint,
    MlflowRun,
    unbounded,
)
from recsys_ms.history.readers.formats.plain_values import number, whole_number
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.sqlite_file import SqliteFile, has_tables, open_sqlite

_TABLES: Final = {"experiments", "runs", "metrics", "params", "tags"}
_DATA_TABLES: Final = {"inputs", "input_tags", "datasets"}
_SCHEMA: Final = (
    "the tables are not those of an MLflow tracking store, 1.0 or later; upgrade a copy with "
    "'mlflow db upgrade sqlite:///COPY' and read that"
)
#: The file name in MLflow's own documentation.
_FILE: Final = "mlflow.db"
_RUN: Final = (
    "run_uuid",
    "name",
    "user_id",
    "status",
    "start_time",
    "end_time",
    "source_version",
    "lifecycle_stage",
    "artifact_uri",
    "experiment_id",
)
_POINT: Final = ("run_uuid", "key", "value", "timestamp", "step", "is_nan")
_RUNS_PER_CHUNK: Final = 250
#: Values held at a time, about 100 MB, unless one run has more.
_POINTS_PER_CHUNK: Final = 500_000


def is_database(candidate: Candidate) -> bool:
    """Whether a file is a tracking store, or is named like one."""
    return candidate.path.name == _FILE or has_tables(candidate, _TABLES)


def read_database(place: Path) -> Iterator[LoggedRun | BadLog]:
    """Read all runs of all experiments, in the order they were made.

    Raises
    ------
    BadLogError
        The file is damaged, locked, or another database.
    """
    with open_sqlite(place, _SCHEMA) as file:
        yield from _Database(place, file).runs()


class _Database:
    def __init__(self, place: Path, sql: SqliteFile) -> None:
        self._place = place
        self._file = str(place.resolve())
        self._sql = sql
        tables = sql.tables()
        known = {name: sql.columns(name) for name in ("runs", "metrics")}
        # A column that the version does not have is empty.
        self._run_columns, self._point_columns = (
            ", ".join(name if name in known[table] else f"NULL AS {name}" for name in names)
            for table, names in (("runs", _RUN), ("metrics", _POINT))
        )
        self._has_data = tables >= _DATA_TABLES
        with sql.transaction():
            experiments = sql.rows("SELECT experiment_id, name FROM experiments")
            counts = sql.rows("SELECT run_uuid, COUNT(*) FROM metrics GROUP BY run_uuid")
        self._experiments = {str(key): str(name) for key, name in experiments}
        self._counts = dict(counts)

    def runs(self) -> Iterator[LoggedRun | BadLog]:
        """Every run, chunk by chunk: a writer waits for one chunk only."""
        last = -1
        while True:
            # The names of the columns are constants of this module.
            query = f"SELECT rowid, {self._run_columns} FROM runs WHERE rowid > ? ORDER BY rowid"  # noqa: S608
            rows = self._sql.rows(f"{query} LIMIT ?", last, _RUNS_PER_CHUNK)
            for chunk in self._chunks(rows):
                yield from self._read(chunk)
            if len(rows) < _RUNS_PER_CHUNK:
                return
            last = rows[-1][0]

    def _chunks(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
        chunk: list[tuple[Any, ...]] = []
        held = 0
        for row in rows:
            held += self._counts.get(row[1], 0)
            if chunk and held > _POINTS_PER_CHUNK:
                yield chunk
                chunk, held = [], self._counts.get(row[1], 0)
            chunk.append(row)
        if chunk:
            yield chunk

    def _read(self, rows: Sequence[tuple[Any, ...]]) -> list[LoggedRun | BadLog]:
        ids = [row[1] for row in rows if self._counts.get(row[1], 0) <= MOST_VALUES]
        listed = f"IN ({', '.join('?' * len(ids))})"
        with self._sql.transaction():
            points = self._sql.rows(
                f"SELECT {self._point_columns} FROM metrics WHERE run_uuid {listed} ORDER BY rowid",  # noqa: S608
                *ids,
            )
            params, tags = (
                self._sql.rows(
                    f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid {listed}",  # noqa: S608
                    *ids,
                )
                for table in ("params", "tags")
            )
            data = self._sql.rows(_data_query(listed), *ids) if self._has_data else []
        problems: dict[Any, list[str]] = defaultdict(list)
        points_of = _points_of(points, problems)
        params_of, tags_of = (_texts_of(each, problems) for each in (params, tags))
        data_of = _data_of(data)
        found: list[LoggedRun | BadLog] = []
        for row in rows:
            run_id, count = row[1], self._counts.get(row[1], 0)
            reasons = problems[run_id]
            if count > MOST_VALUES:
                reasons.append(f"{count} values, more than the {MOST_VALUES} of any training")
            elif not isinstance(run_id, str) or not run_id:
                reasons.append(f"run_uuid is {run_id!r}, expected a text")
            else:
                parts = (params_of[run_id], tags_of[run_id], data_of[run_id], points_of[run_id])
                found.append(self._run(row, *parts).logged(self._file))
            if reasons:
                more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
                reason = f"run {run_id!r:.80}: {reasons[0]}{more}; correct the database"
                found.append(BadLog(file=self._place, reason=reason, line=row[0]))
        return found

    def _run(
        self,
        row: tuple[Any, ...],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        data: Sequence[Mapping[str, str]],
        points: Mapping[str, Sequence[MetricPoint]],
    ) -> MlflowRun:
        cells = dict(zip(_RUN, row[1:], strict=True))
        experiment_id = str(cells["experiment_id"])
        return MlflowRun(
            run_id=cells["run_uuid"],
            experiment_id=experiment_id,
            experiment=self._experiments.get(experiment_id, experiment_id),
            name=_text(cells["name"]),
            user=_text(cells["user_id"]),
            status=_text(cells["status"]) or "RUNNING",
            started=whole_number(cells["start_time"]),
            ended=whole_number(cells["end_time"]),
            stage=_text(cells["lifecycle_stage"]) or "active",
            version=_text(cells["source_version"]),
            artifact_uri=_text(cells["artifact_uri"]),
            params=params,
            tags=tags,
            datasets=data,
            points=points,
        )


def _data_query(listed: str) -> str:
    return (
        "SELECT i.destination_id, d.name, d.digest, d.dataset_source_type, t.value FROM inputs i "  # noqa: S608
        "JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags t "
        f"ON t.input_uuid = i.input_uuid AND t.name = '{CONTEXT}' "
        "WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' "
        f"AND i.destination_id {listed}"
    )


def _points_of(
    rows: Sequence[tuple[Any, ...]], problems: Mapping[Any, list[str]]
) -> Mapping[Any, dict[str, list[MetricPoint]]]:
    found: dict[Any, dict[str, list[MetricPoint]]] = defaultdict(dict)
    for run_id, key, value, timestamp, step, is_nan in rows:
        logged = math.nan if is_nan else number(value)
        at = 0 if step is None else whole_number(step)
        time = whole_number(timestamp)
        if not isinstance(key, str) or logged is None or at is None or time is None:
            told = f"value {value!r:.60}, step {step!r:.60}, timestamp {timestamp!r:.60}"
            problems[run_id].append(f"metric {key!r:.80}: {told} is not a logged number")
            continue
        found[run_id].setdefault(key, []).append(MetricPoint(at, time, unbounded(logged)))
    return found


def _texts_of(
    rows: Sequence[tuple[Any, ...]], problems: Mapping[Any, list[str]]
) -> Mapping[Any, dict[str, str]]:
    found: dict[Any, dict[str, str]] = defaultdict(dict)
    for run_id, key, value in rows:
        if isinstance(key, str) and not isinstance(value, bytes):
            found[run_id][key] = "" if value is None else str(value)
        else:
            problems[run_id].append(f"{key!r:.80} is {value!r:.60}, expected texts")
    return found


def _data_of(rows: Sequence[tuple[Any, ...]]) -> Mapping[Any, list[dict[str, str]]]:
    found: dict[Any, list[dict[str, str]]] = defaultdict(list)
    for run_id, *cells in rows:
        names = ("name", "digest", "source_type", "context")
        found[run_id].append({n: _text(v) or "" for n, v in zip(names, cells, strict=True)})
    return found


def _text(cell: Any) -> str | None:
    return None if cell is None else str(cell)
