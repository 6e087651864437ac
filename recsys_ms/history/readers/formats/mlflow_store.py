"""Read-only access to an MLflow tracking store through MLflow's own client."""

import importlib
import math
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from recsys_ms.core.errors import DataError
from recsys_ms.core.optional import require
from recsys_ms.history.readers.logged import BadLog

_PURPOSE: Final = "read an MLflow tracking store"
#: Recent versions refuse folder stores, which are deprecated, unless this variable is set.
_ALLOW_FOLDERS: Final = "MLFLOW_ALLOW_FILE_STORE"
_PAGE: Final = 50_000
_RUNS_PER_QUERY: Final = 400
_POINTS_PER_QUERY: Final = 1_000_000
_META: Final = "meta.yaml"
_NO_RUNS: Final = ("models", "traces", "datasets", "evaluation_datasets", "tags", "assessments")


class MetricPoint(NamedTuple):
    """One logged value: optimizer step, milliseconds since 1970, value."""

    step: int
    timestamp: int
    value: float


class StoreProblem(DataError):
    """A store that cannot be read as a whole."""


class TrackingStore:
    """Runs of a store and the histories of their metrics.

    ``client`` is an ``MlflowClient``, which raises ``failures``; ``folder`` that of a folder store.
    """

    def __init__(
        self, client: Any, folder: Path | None, failures: tuple[type[Exception], ...]
    ) -> None:
        self._client = client
        self._folder = folder
        self._failures = failures
        #: Parts of a folder store that could not be read so far.
        self.bad: list[BadLog] = []
        self._all = importlib.import_module("mlflow.entities").ViewType.ALL

    def pages(self) -> Iterator[tuple[dict[str, str], list[Any]]]:
        """Yield names of experiments by id, and a page of runs: all, deleted ones too.

        The runs of a folder are read one by one: a search reads the whole folder for each page, and
        fails with the first damaged run.

        Raises
        ------
        StoreProblem
            The store cannot be read.
        """
        try:
            pages = _all_pages(self._client.search_experiments, view_type=self._all)
            names = {str(e.experiment_id): str(e.name) for page in pages for e in page}
            for runs in self._pages_of(list(names)) if self._folder is None else self._of_folders():
                yield names, runs
        except self._failures as error:
            raise StoreProblem(_told(error)) from error

    def _pages_of(self, experiments: list[str]) -> Iterator[list[Any]]:
        if experiments:
            yield from _all_pages(
                self._client.search_runs,
                experiments,
                run_view_type=self._all,
                max_results=_PAGE,
                order_by=["attributes.run_id"],
            )

    def _of_folders(self) -> Iterator[list[Any]]:
        for folder in self._run_folders():
            try:
                yield [self._client.get_run(folder.name)]
            except self._failures as error:
                self._note(folder, error)

    def _run_folders(self) -> list[Path]:
        """Folders of all runs of a folder store, of deleted experiments too."""
        roots = (self._folder, self._folder / ".trash") if self._folder else ()
        found = [path for root in roots for path in sorted(root.glob("[!.]*/*")) if path.is_dir()]
        return [path for path in found if path.name not in _NO_RUNS]

    def with_histories(
        self, runs: Sequence[Any]
    ) -> Iterator[tuple[Any, dict[str, list[MetricPoint]]]]:
        """Yield each run with all values of its metrics, by key.

        A database is queried for many runs at once, through MLflow's own session and model, since
        ``get_metric_history`` takes one call for each run and metric. At most a million values are
        held, unless one run has more.
        """
        model = None if self._folder else self._metric_model()
        if model is None:
            for run in runs:
                run_id = run.info.run_id
                yield run, {key: self._history(run_id, key) for key in run.data.metrics}
            return
        try:
            for start in range(0, len(runs), _RUNS_PER_QUERY):
                for group in self._groups(runs[start : start + _RUNS_PER_QUERY], model):
                    found = self._points(group, model)
                    for run in group:
                        of_run = found[run.info.run_id]
                        yield run, {key: of_run.get(key, []) for key in run.data.metrics}
        except self._failures as error:
            raise StoreProblem(_told(error)) from error

    def _metric_model(self) -> Any:
        """MLflow's class of stored values; ``None`` in a version without one."""
        try:
            models = importlib.import_module("mlflow.store.tracking.dbmodels.models")
            return models.SqlMetric if self._session is not None else None
        except (ImportError, AttributeError):
            return None

    @property
    def _session(self) -> Any:
        store = getattr(getattr(self._client, "_tracking_client", None), "store", None)
        return getattr(store, "ManagedSessionMaker", None)

    def _groups(self, runs: Sequence[Any], model: Any) -> Iterator[Sequence[Any]]:
        """Yield the runs in groups with few enough values for one query."""
        ids = [run.info.run_id for run in runs]
        with self._session() as session:
            n_points = session.query(model.run_uuid).filter(model.run_uuid.in_(ids)).count()
        if len(runs) > 1 and n_points > _POINTS_PER_QUERY:
            middle = len(runs) // 2
            yield from self._groups(runs[:middle], model)
            yield from self._groups(runs[middle:], model)
        else:
            yield runs

    def _points(self, runs: Sequence[Any], model: Any) -> dict[str, dict[str, list[MetricPoint]]]:
        found: dict[str, dict[str, list[MetricPoint]]] = defaultdict(dict)
        with self._session() as session:
            query = session.query(
                model.run_uuid, model.key, model.step, model.timestamp, model.value, model.is_nan
            ).filter(model.run_uuid.in_([run.info.run_id for run in runs]))
            order = (model.run_uuid, model.key, model.step, model.timestamp, model.value)
            for run_id, key, step, timestamp, value, is_nan in query.order_by(*order):
                point = MetricPoint(step, timestamp, math.nan if is_nan else value)
                found[run_id].setdefault(key, []).append(point)
        return found

    def _history(self, run_id: str, key: str) -> list[MetricPoint]:
        try:
            points = self._client.get_metric_history(run_id, key)
        except self._failures as error:
            folder = next((f for f in self._run_folders() if f.name == run_id), None)
            if folder is None:
                raise StoreProblem(_told(error)) from error
            self._note(folder / "metrics" / key, error)
            return []
        return [MetricPoint(p.step, p.timestamp, p.value) for p in points]

    def _note(self, path: Path, error: Exception) -> None:
        file = path / _META if path.is_dir() else path
        try:
            raw = file.read_bytes().decode(errors="backslashreplace")
        except OSError:
            raw = ""
        self.bad.append(BadLog(file=file, reason=_told(error), raw=raw))


def _all_pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[list[Any]]:
    """Yield the pages of a search of MLflow's client."""
    token: str | None = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield list(page)
        token = page.token
        if not token:
            return


@contextmanager
def open_store(place: Path) -> Iterator[TrackingStore]:
    """Open a database or a folder of experiments, read-only.

    Of a database there is no migration, no new table, and no lock that stops a writer.

    Raises
    ------
    MissingExtraError
        MLflow is not installed.
    StoreProblem
        The store is damaged, or of another version of MLflow.
    """
    mlflow = require("mlflow", extra="mlflow", purpose=_PURPOSE)
    failures = _failures()
    folder = place if place.is_dir() else None
    with ExitStack() as stack:
        if folder:
            before = os.environ.get(_ALLOW_FOLDERS)
            os.environ[_ALLOW_FOLDERS] = "true"
            stack.callback(_restore, before)
            address = folder.resolve().as_uri()
        else:
            # MLflow keeps connections by address: one of its own for a file that may be replaced.
            # With the driver named, it makes no folder after the address in the working directory.
            path = quote(str(place.resolve()))
            address = f"sqlite+pysqlite:///file:{path}?mode=ro&uri=true&n={secrets.token_hex(4)}"
        try:
            client = mlflow.MlflowClient(address)
            if not folder:
                stack.callback(client._tracking_client.store.engine.dispose)
        except failures as error:
            raise StoreProblem(_told(error)) from error
        yield TrackingStore(client, folder, failures)


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(_ALLOW_FOLDERS, None)
    else:
        os.environ[_ALLOW_FOLDERS] = before


def _failures() -> tuple[type[Exception], ...]:
    """Errors that MLflow's client raises for a damaged store."""
    own = importlib.import_module("mlflow.exceptions").MlflowException
    database = importlib.import_module("sqlalchemy.exc").SQLAlchemyError
    yaml = importlib.import_module("yaml").YAMLError
    return (own, database, yaml, OSError, ValueError, TypeError, KeyError, AttributeError)


def _told(error: Exception) -> str:
    said = " ".join(str(error).split())[:400]
    if "schema" in said and "upgrade" in said:
        return (
            f"the store has the schema of another version of MLflow ({said}); copy it and run "
            "'mlflow db upgrade sqlite:///COPY' on the copy, or, where the store is newer, "
            "upgrade MLflow here"
        )
    return f"MLflow cannot read it ({type(error).__name__}: {said}); restore it from a backup"
