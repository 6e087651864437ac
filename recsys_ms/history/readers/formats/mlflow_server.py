"""An MLflow tracking server, read through MLflow's own client (extra ``mlflow``)."""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from recsys_ms.core.errors import StorageError
from recsys_ms.core.optional import require
from recsys_ms.history.readers.formats.mlflow_run import CONTEXT, MetricPoint, MlflowRun, unbounded
from recsys_ms.history.readers.logged import LoggedRun

_PURPOSE: Final = "read an MLflow tracking server"
#: MLflow itself asks a server that does not answer for minutes.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
_SECONDS: Final = 10
_PAGE: Final = 1_000
#: Experiments of one search; their ids are sent in one request.
_EXPERIMENTS: Final = 100


def read_server(address: str) -> Iterator[LoggedRun]:
    """Read all runs of all experiments of the server at ``http://HOST:PORT``.

    Raises
    ------
    MissingExtraError
        MLflow is not installed.
    StorageError
        The server does not answer, or refuses.
    """
    yield from _Server(address).runs()


class _Server:
    def __init__(self, address: str) -> None:
        self._address = address
        mlflow = require("mlflow", extra="mlflow", purpose=_PURPOSE)
        requests = importlib.import_module("requests")
        own = importlib.import_module("mlflow.exceptions").MlflowException
        # What the client raises on an answer of something else than MLflow is not documented.
        other = (ValueError, TypeError, KeyError, AttributeError)
        self._failures: tuple[type[Exception], ...] = (
            own,
            requests.exceptions.RequestException,
            *other,
        )
        self._all = importlib.import_module("mlflow.entities").ViewType.ALL
        # Fails at once where nothing listens.
        self._asked(requests.get, f"{address}/health", timeout=_SECONDS)
        self._client = self._asked(mlflow.MlflowClient, address)

    def runs(self) -> Iterator[LoggedRun]:
        experiments = list(self._pages(self._client.search_experiments, view_type=self._all))
        names = {str(each.experiment_id): str(each.name) for each in experiments}
        ids = list(names)
        for start in range(0, len(ids), _EXPERIMENTS):
            for run in self._pages(
                self._client.search_runs,
                ids[start : start + _EXPERIMENTS],
                run_view_type=self._all,
                order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
            ):
                experiment = names.get(str(run.info.experiment_id), str(run.info.experiment_id))
                yield self._run(run, experiment).logged(self._address)

    def _run(self, run: Any, experiment: str) -> MlflowRun:
        info, data = run.info, run.data
        return MlflowRun(
            run_id=str(info.run_id),
            experiment_id=str(info.experiment_id),
            experiment=experiment,
            name=info.run_name,
            user=info.user_id,
            status=str(info.status),
            started=info.start_time,
            ended=info.end_time,
            stage=str(info.lifecycle_stage),
            artifact_uri=info.artifact_uri,
            params=dict(data.params),
            tags=dict(data.tags),
            datasets=_datasets(run),
            points={
                key: [
                    MetricPoint(point.step, point.timestamp, unbounded(point.value))
                    for point in self._asked(self._client.get_metric_history, info.run_id, key)
                ]
                for key in data.metrics
            },
        )

    def _pages(self, search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._asked(search, *arguments, page_token=token, max_results=_PAGE, **options)
            yield from page
            token = page.token
            if not token:
                return

    def _asked(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with _patience():
            try:
                return call(*arguments, **options)
            except self._failures as error:
                said = " ".join(str(error).split())[:300]
                raise StorageError(
                    f"{self._address}: the MLflow server does not answer as one "
                    f"({type(error).__name__}: {said}); start it, or check the address"
                ) from error


@contextmanager
def _patience() -> Iterator[None]:
    """MLflow's settings for a reader that is waited for, unless the user has set them."""
    ours = [name for name in _PATIENCE if name not in os.environ]
    os.environ.update({name: _PATIENCE[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _datasets(run: Any) -> list[dict[str, str]]:
    return [
        {
            "name": str(each.dataset.name or ""),
            "digest": str(each.dataset.digest or ""),
            "source_type": str(each.dataset.source_type or ""),
            "context": next((str(tag.value) for tag in each.tags if tag.key == CONTEXT), ""),
        }
        for each in getattr(run.inputs, "dataset_inputs", None) or []
    ]
