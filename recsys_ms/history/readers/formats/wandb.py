"""Weights & Biases: exported tables of runs, and full histories as Parquet."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from recsys_ms.history.readers.formats.exported import has_columns, is_parquet
from recsys_ms.history.readers.formats.wandb_history import (
    history_place,
    is_history,
    read_history,
)
from recsys_ms.history.readers.formats.wandb_runs import (
    is_api_export,
    is_runs_table,
    read_exported,
)
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun


class Wandb(LogFormat):
    """Runs of Weights & Biases, from files that were exported or downloaded, without a server.

    Three kinds of files are known by their content:

    - ``runs.csv`` (or Parquet) of the public API, with the columns ``summary``, ``config`` and
      ``name``, as W&B's guide writes it. Add ``id`` (``run.id``) and ``state`` (``run.state``):
      without an id a run is identified by its name and config, without a state it counts as
      finished. ``{config.lr}`` and ``{summary.acc}`` look inside; the config is the
      hyperparameters.
    - The CSV of the runs table (``Name``, ``State``, ``Created``, …), in which config and summary
      are not told apart: every number is a series, every column is there for templates
      (``{lr}``), and hyperparameters are named one by one,
      ``--map hyperparameters.lr='{lr}'``. Columns with the name of another field of a run
      (``epoch``, ``metric``) are in ``{export.epoch}``. Add the column ``ID`` before the export.
    - The history of a run: Parquet files with ``_step`` and ``_timestamp`` in the folder of an
      artifact of the type ``wandb-history`` (``run-<id>-history-v0/0000.parquet``), or written by
      ``Run.download_history_exports``. Parts of one run are one run.

    A summary holds the last value of each metric (``acc.max`` if the run defined the maximum), so
    its series have one value. Whole curves come from the history. ``run.history()`` of the public
    API is sampled (500 rows by default): the artifact, or ``run.scan_history()``, is complete.

    A history and an export of the same run have the same id, and the later of them is kept; they
    are not joined.
    """

    name: ClassVar[str] = "wandb"
    wanted: ClassVar[str] = (
        "runs.csv exported by the public API or from the runs table, or Parquet files of a "
        "wandb-history artifact"
    )

    def place_of(self, candidate: Candidate) -> Path | None:
        """The exported table itself, or the folder of a history in parts."""
        if is_history(candidate):
            return history_place(candidate.path)
        mine = has_columns(candidate, is_api_export, "summary", "config")
        if not mine and not is_parquet(candidate):
            mine = has_columns(candidate, is_runs_table, "Name", "State")
        return candidate.path if mine else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Read the runs of an export, or the one run of a history.

        Raises
        ------
        BadLogError
            Nothing of it can be read.
        """
        if not files.given(place) and (place.is_dir() or is_history(Candidate(place))):
            yield from read_history(place)
        else:
            yield from read_exported(place, files)
