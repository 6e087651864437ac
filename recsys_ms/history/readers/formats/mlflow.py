"""MLflow's tracking stores: a SQLite file or a folder, read as data, or a tracking server."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from recsys_ms.history.readers.addresses import server_address
from recsys_ms.history.readers.formats.mlflow_database import is_database, read_database
from recsys_ms.history.readers.formats.mlflow_folder import folder_of, read_folder
from recsys_ms.history.readers.formats.mlflow_server import read_server
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun


class Mlflow(LogFormat):
    """Tracking stores of MLflow: a SQLite file or folders (``mlruns``), never written to.

    Files of every version since 1.0 are read as they are. Of folders, one experiment, or one run
    whose experiment has no ``meta.yaml``, is a log. They are read without MLflow; a tracking
    server, ``mlflow+http://HOST:PORT``, through MLflow's client.

    All runs of all experiments are read, nested ones and deleted ones too: a parent run has often
    no metrics of its own, and a deleted run is kept as ``failed`` with the tag
    ``mlflow.lifecycle_stage``, since its owner discarded it; leave them out with
    ``--where "lifecycle_stage = 'active'"``.

    - Columns are ``params``, ``tags``, ``run_name``, ``experiment``, ``parent_run_id``, ``user``,
      ``datasets`` and others. Parameters, which MLflow keeps as text, become numbers where they
      spell one.
    - The model is that of the first of the parameters ``model_id``, ``model_name_or_path``,
      ``_name_or_path``, ``base_model``, ``model_name``, ``model``, ``architecture``, ``arch``,
      ``backbone`` that names one (a path on a disk does not), else the source of the one model that
      was logged. The task is that of ``task_id``, ``task_name``, ``dataset_name``, ``dataset_id``,
      ``dataset``, ``data_set``, the file of ``data``, else the name of the one data set that was
      logged. An experiment may hold several tasks: give ``--map task_id='{experiment}'`` where each
      is one.
    - ``metric_for_best_model`` with ``greater_is_better``, or ``monitor`` with ``mode``, are the
      chosen series and its direction.
    - ``val_NAME``, ``val/NAME`` and ``val.NAME`` are on the split ``val`` (likewise ``train``,
      ``valid``, ``validation``, ``eval``, ``test``).
    - Every value of a metric is read, by step and then in the order they were logged; values that
      were all logged without a step are numbered. The epoch is that of a metric ``epoch`` at the
      same step.
    - The run's id is MLflow's own.
    """

    name: ClassVar[str] = "mlflow"
    wanted: ClassVar[str] = (
        "a SQLite tracking store, a folder of experiments with meta.yaml, or the address of a "
        "tracking server (mlflow+http://HOST:PORT)"
    )
    owned_folder: ClassVar[str | None] = "."

    def place_of(self, candidate: Candidate) -> Path | None:
        """The database, or the folder of the experiment or of the run."""
        return candidate.path if is_database(candidate) else folder_of(candidate)

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a store.

        Raises
        ------
        BadLogError
            A database that is damaged or locked.
        StorageError, MissingExtraError
            A server that does not answer, or no MLflow to ask it with.
        """
        server = server_address(place)
        if server is not None:
            yield from read_server(server)
        elif place.is_dir():
            yield from read_folder(place, files)
        else:
            yield from read_database(place)
