"""Optuna: a SQLite study file, or ``study.trials_dataframe()`` saved as CSV or Parquet."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from recsys_ms.history.readers.formats.exported import has_columns
from recsys_ms.history.readers.formats.optuna_frame import is_frame, read_frame
from recsys_ms.history.readers.formats.optuna_study import is_study_file, read_studies
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun


class Optuna(LogFormat):
    """Trials of Optuna studies; each trial is one run.

    A study file (``sqlite:///study.db``) of Optuna 2.0 to 5.0 is opened read-only, and holds
    everything: names of studies (``{study}``), directions, names of metrics, typed parameters,
    intermediate values (the series ``intermediate``), infinities. A saved frame has neither
    directions nor intermediate values: give ``--set direction=max``. Its columns may also be nested
    (``multi_index=True``).

    - Series are ``value`` of a study with one objective, ``values_0``, ``values_1``, … of several,
      and ``value_<name>``, ``values_<name>`` where the study names its metrics. Without a name the
      metric is empty: give ``--set metric=NAME``. A single objective is the chosen series; of
      several, name one: ``--map value='{values_accuracy}'``.
    - ``COMPLETE`` is finished, ``FAIL`` failed, ``RUNNING`` and ``WAITING`` running. ``PRUNED`` is
      failed with the tag ``reason=pruned``: the trial was stopped early because it looked
      bad, so that its last value is not the outcome of a whole training.
    - Parameters are the hyperparameters; ``{params.NAME}``, ``{user_attrs.NAME}``,
      ``{system_attrs.NAME}`` and ``{study_user_attrs.NAME}`` look inside.
    - Times are local times of an unknown zone (or UTC, since 5.0): they are columns
      (``{datetime_start}``), not fields.
    - The identity is the place, the study's name and the trial's number; the row of a trial in a
      study file is its ``trial_id``.
    """

    name: ClassVar[str] = "optuna"
    wanted: ClassVar[str] = (
        "a SQLite study file, or study.trials_dataframe() saved as CSV or Parquet"
    )

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, if its tables or its columns are those of Optuna."""
        mine = is_study_file(candidate) or has_columns(candidate, is_frame, "number", "state")
        return candidate.path if mine else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Read the trials of a study file or of a saved frame.

        Raises
        ------
        BadLogError
            The file is neither, is damaged, or has an unknown schema.
        """
        head = b"" if files.given(place) else Candidate(place).head
        if head.startswith(b"SQLite format 3"):
            yield from read_studies(place)
        else:
            yield from read_frame(place, files)
