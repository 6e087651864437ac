"""Weights & Biases: run folders, exported tables of runs, and full histories as Parquet."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.history.readers.formats.exported import (
    HeaderError,
    TableRow,
    has_columns,
    is_parquet,
    table_runs,
)
from recsys_ms.history.readers.formats.plain_values import (
    not_none,
    parse_cell,
    plain,
    typed,
)
from recsys_ms.history.readers.formats.wandb_folder import (
    is_run_folder,
    read_run_folder,
    run_folder_of,
)
from recsys_ms.history.readers.formats.wandb_history import (
    history_place,
    is_history,
    progress_of,
    read_history,
)
from recsys_ms.history.readers.formats.wandb_summary import last_value, settings_in, summary_run
from recsys_ms.history.readers.logged import (
    BadLog,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.number_style import to_number
from recsys_ms.history.run import check_field

#: Status of a run by W&B's state; a preempted run may resume under the same id.
_STATUS_OF: Final = {
    "finished": "finished",
    "crashed": "failed",
    "failed": "failed",
    "killed": "failed",
    "preempted": "failed",
    "running": "running",
    "pending": "running",
    "preempting": "running",
}
_DICTS: Final = ("summary", "config")
_NAMED_BY: Final = ("name", "id", "run_id")
_ALWAYS: Final = {"Name", "State"}
_SHOWN: Final = {"Notes", "User", "Tags", "Created", "Runtime", "Sweep"}
_N_SHOWN: Final = 3
#: Columns of the runs table that W&B fills in, and that are not metrics.
_SYSTEM: Final = {
    *_ALWAYS,
    *_SHOWN,
    "ID",
    "Agent",
    "Group",
    "Job Type",
    "Host",
    "Hostname",
    "Updated",
    "End Time",
    "Duration",
    "Description",
    "Commit",
    "GPU Count",
    "CPU Count",
    "epoch",
}
_INDEX: Final = re.compile(r"column_\d+|Unnamed: .*|__index_level_\d+__")
#: Fields of a run that a column of the same name gives; other such columns are in ``export``.
_MEANT: Final = {c.MODEL_ID, c.MODEL_REVISION, c.TASK_ID, c.SEED, c.DATASET_FINGERPRINT}
_N_DIGITS: Final = 16
_MAX_DEPTH: Final = 4


class Wandb(LogFormat):
    """Runs of Weights & Biases, from files that were exported or downloaded, without a server.

    Four kinds of files are known by their content:

    - A run folder of the training machine, ``wandb/run-…/files``, with ``wandb-summary.json``,
      ``config.yaml`` and ``wandb-metadata.json``. The config is the hyperparameters. A run that W&B
      has not ended is running. A run that was logged offline has its values in ``run-….wandb``
      only, in a form of W&B's own: upload it (``wandb sync``), and export it.
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

    In a config, ``model_name_or_path``, ``_name_or_path``, ``model_name``, ``model`` and the like
    name the model, ``dataset_name``, ``dataset`` and the like the task, ``metric_for_best_model``
    and ``greater_is_better`` (``monitor`` and ``mode``) metric and direction, as in MLflow.

    A summary holds the last value of each metric (``acc.max`` if the run defined the maximum), so
    its series have one value. Whole curves come from the history. ``run.history()`` of the public
    API is sampled (500 rows by default): the artifact, or ``run.scan_history()``, is complete.

    A history and an export of the same run have the same id, and the later of them is kept; they
    are not joined.
    """

    name: ClassVar[str] = "wandb"
    wanted: ClassVar[str] = (
        "a run folder (wandb/run-*) with wandb-summary.json, runs.csv of the public API or "
        "from the runs table, or Parquet files of a wandb-history artifact"
    )

    def place_of(self, candidate: Candidate) -> Path | None:
        """The exported table itself, or the folder of a history in parts."""
        folder = run_folder_of(candidate)
        if folder is not None:
            return folder
        if is_history(candidate):
            return history_place(candidate.path)
        mine = has_columns(candidate, _is_api_export, "summary", "config")
        if not mine and not is_parquet(candidate):
            mine = has_columns(candidate, _is_runs_table, "Name", "State")
        return candidate.path if mine else None

    def folder_of(self, place: Path) -> str:
        """The folder of the project: that of a run is a time and an id."""
        is_run = place.is_dir() and place.parent.name == "wandb"
        return place.parent.parent.name if is_run else super().folder_of(place)

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Read the runs of an export, or the one run of a history.

        Raises
        ------
        BadLogError
            Nothing of it can be read.
        """
        if is_run_folder(place, files):
            yield from read_run_folder(place, files)
        elif not files.given(place) and (place.is_dir() or is_history(Candidate(place))):
            yield from read_history(place)
        else:
            file, seen = str(place.resolve()), Counter[str]()
            yield from table_runs(place, files, lambda row: _exported_run(file, row, seen))


def _is_api_export(names: Sequence[str], first: Sequence[str] = ()) -> bool:
    """Whether columns (and cells of the first row) are ``summary``, ``config`` and ``name``."""
    if not set(_DICTS) <= set(names) or not set(_NAMED_BY) & set(names):
        return False
    cells = dict(zip(names, first, strict=False))
    return all(cells.get(name, "{")[:1] in ("{", "") for name in _DICTS)


def _is_runs_table(names: Sequence[str], first: Sequence[str] = ()) -> bool:
    """Whether columns are those of the runs table that the web page exports."""
    return set(names) >= _ALWAYS and len(_SHOWN & set(names)) >= _N_SHOWN


def _exported_run(file: str, row: TableRow, seen: Counter[str]) -> LoggedRun:
    """The run of a row; ``seen`` counts the identities of the rows before."""
    if _is_runs_table(row.names):
        return _table_run(file, row, seen)
    if _is_api_export(row.names):
        return _api_run(file, row, seen)
    raise HeaderError(
        "the header is neither that of the public API's export (summary, config, name) nor that of "
        "the runs table (Name, State, Notes, User, Tags, Created, Runtime, Sweep)"
    )


def _api_run(file: str, row: TableRow, seen: Counter[str]) -> LoggedRun:
    summary, config = (_dict_of(name, row.cells.get(name)) for name in _DICTS)
    rest = {name: cell for name, cell in _typed_cells(row).items() if name not in _DICTS}
    created = rest.get("created_at", rest.get("createdAt"))
    fields = _fields(rest.get("state"), created)
    if created is None:
        plain_config = {n: v for n, v in settings_in(config).items() if not n.startswith("_")}
        created = json.dumps(plain_config, sort_keys=True)
    run_id = rest.get("id", rest.get("run_id"))
    return summary_run(
        file=file,
        identity=_identity(file, seen, run_id, rest.get("name"), str(created)),
        line=row.line,
        config=config,
        summary=summary,
        fields=fields,
        columns=_columns(rest),
    )


def _table_run(file: str, row: TableRow, seen: Counter[str]) -> LoggedRun:
    cells = _typed_cells(row)
    fields = _fields(cells.get("State"), cells.get("Created"))
    numbers = (
        (name, to_number(cell))
        for name, cell in row.cells.items()
        if name in cells and name not in _SYSTEM and not name.startswith("_")
    )
    return LoggedRun(
        file=file,
        identity=_identity(
            file, seen, cells.get("ID"), cells.get("Name"), str(cells.get("Created", ""))
        ),
        line=row.line,
        columns=_columns(cells),
        fields=fields,
        series=[last_value(name, value) for name, value in numbers if value is not None],
        progress=progress_of(
            *(to_number(cells.get(name)) for name in ("_timestamp", "_step", "Runtime")),
            ended=fields.get(c.STATUS) != "running",
        ),
    )


def _typed_cells(row: TableRow) -> dict[str, Any]:
    return {name: typed(cell) for name, cell in row.cells.items() if not _INDEX.fullmatch(name)}


def _dict_of(name: str, cell: Any) -> dict[str, Any]:
    if cell is None:
        return {}
    try:
        found = parse_cell(cell) if isinstance(cell, str) else plain(cell)
    except ValueError as error:
        raise ValueError(
            f"{name}: the cell does not hold a dict ({error}); export {name} as a plain dict"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{name}: the cell holds a {type(found).__name__}, expected a dict")
    if isinstance(cell, Mapping):
        # A struct of Parquet has every key of every run.
        return not_none(found)
    return found


def _columns(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of an export; those with the name of a field, but another meaning, in ``export``."""
    other = {n: cell for n, cell in cells.items() if n in c.RUN_COLUMNS and n not in _MEANT}
    found = {name: cell for name, cell in cells.items() if name not in other}
    return {**found, "export": other} if other else found


def _fields(state: object, created: object) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if state is not None:
        known = str(state).lower()
        if known not in _STATUS_OF:
            raise ValueError(f"state: {state!r} is not one of {', '.join(_STATUS_OF)}")
        fields[c.STATUS] = _STATUS_OF[known]
        if fields[c.STATUS] == "failed":
            fields[c.TAGS] = {"reason": known}
    # A time without a zone is not guessed at.
    if isinstance(created, str) and created.strip():
        with suppress(DataError):
            fields[c.STARTED_AT] = check_field(c.STARTED_AT, created)
    return fields


def _identity(file: str, seen: Counter[str], run_id: object, name: object, constant: str) -> str:
    """Identity by W&B's id, else by the name and what else stays constant while a run grows."""
    if run_id is not None:
        identity = f"wandb:{run_id}"
        if seen[identity]:
            raise ValueError(f"id: {run_id!r} is already the id of another run of the same export")
    else:
        digest = hashlib.sha256(constant.encode()).hexdigest()[:_N_DIGITS]
        identity = f"wandb:{file}#{name}#{digest}"
    seen[identity] += 1
    return identity if seen[identity] == 1 else f"{identity}#{seen[identity]}"
