"""Finds the logs of training frameworks in folders, by what their files hold.

Formats are in :mod:`recsys_ms.history.readers.formats`, one file each, and in installed packages.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import isabstract, isclass
from pathlib import Path
from typing import Final

from recsys_ms.core.errors import DataError, StorageError, UsageError
from recsys_ms.core.plugins import PluginTable
from recsys_ms.history.inbox.inbox import MARKER_FILE
from recsys_ms.history.readers.addresses import local_path, server_address
from recsys_ms.history.readers.logged import Candidate, LogFormat

AUTO: Final = "auto"
#: Our own formats, in the order in which they may claim a file; a new one is its file and a line
#: here. Those of installed packages come after them.
_HOMES: Final[Mapping[str, str]] = {
    "mlflow": "recsys_ms.history.readers.formats.mlflow:Mlflow",
    "optuna": "recsys_ms.history.readers.formats.optuna:Optuna",
    "wandb": "recsys_ms.history.readers.formats.wandb:Wandb",
    "wandb-chart": "recsys_ms.history.readers.formats.wandb_chart:WandbChart",
    "hf-trainer": "recsys_ms.history.readers.formats.hf_trainer_state:HfTrainer",
    "timm": "recsys_ms.history.readers.formats.timm:Timm",
    "lightning": "recsys_ms.history.readers.formats.lightning_log:Lightning",
    "ultralytics": "recsys_ms.history.readers.formats.ultralytics:Ultralytics",
    "fastai": "recsys_ms.history.readers.formats.fastai:Fastai",
    "detectron2": "recsys_ms.history.readers.formats.training_lines:Detectron2",
    "mmengine": "recsys_ms.history.readers.formats.training_lines:MmEngine",
    "ray": "recsys_ms.history.readers.formats.training_lines:RayTune",
    "dvclive": "recsys_ms.history.readers.formats.event_folders:DvcLive",
    "keras-tuner": "recsys_ms.history.readers.formats.result_documents:KerasTuner",
    "lm-eval": "recsys_ms.history.readers.formats.result_documents:LmEval",
    "mteb": "recsys_ms.history.readers.formats.result_documents:Mteb",
    "sentence-transformers": "recsys_ms.history.readers.formats.leaderboards:SentenceTransformers",
    "autogluon": "recsys_ms.history.readers.formats.leaderboards:AutoGluon",
    "tensorboard": "recsys_ms.history.readers.formats.event_folders:TensorBoard",
    "keras": "recsys_ms.history.readers.formats.keras_log:Keras",
    "model-card": "recsys_ms.history.readers.formats.model_card:ModelCard",
    # Any table of epochs: after all that know more.
    "epoch-lists": "recsys_ms.history.readers.formats.result_documents:EpochLists",
    "steps": "recsys_ms.history.readers.formats.step_table:StepTable",
}
_GROUP: Final = "recsys_ms.readers"
#: The one format that has servers.
_OF_SERVERS: Final = "mlflow"


def _checked(name: str, found: object) -> type[LogFormat]:
    if not (isclass(found) and issubclass(found, LogFormat)):
        raise TypeError(
            f"{found!r} is not a subclass of recsys_ms.history.readers.logged.LogFormat"
        )
    if isabstract(found):
        raise TypeError(
            f"{found.__name__} is missing {', '.join(sorted(found.__abstractmethods__))}"
        )
    if getattr(found, "name", None) != name or name == AUTO:
        raise TypeError(f"{found.__name__}.name is {getattr(found, 'name', None)!r}, not {name!r}")
    return found


#: Every format by name, ours and those that installed packages add.
LOG_FORMATS: Final = PluginTable(_GROUP, _HOMES, _checked)

_SKIPPED_FOLDERS: Final = ("__pycache__", "node_modules", "site-packages")
#: Where MLflow moves the experiments that were deleted.
_DELETED: Final = ".trash"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLog:
    """A log: its format, one of :data:`LOG_FORMATS`, and its run folder, database or file."""

    format_name: str
    place: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLogs:
    """Logs of a folder in the order of their paths, and the files that are not part of any.

    ``second`` are logs that repeat what another one in their folder, or above it, records.
    """

    logs: tuple[FoundLog, ...]
    others: tuple[Path, ...]
    second: tuple[FoundLog, ...] = ()


@cache
def log_format(name: str) -> LogFormat:
    """Format by its name.

    Raises
    ------
    UsageError
        The name is unknown.
    PluginError
        It is that of an installed package, and cannot be used.
    """
    if name not in LOG_FORMATS:
        raise UsageError(
            f"format {name!r}: expected one of {', '.join((*LOG_FORMATS, AUTO))}; other packages "
            "may add formats: is the package installed?"
        )
    return LOG_FORMATS[name]()


def log_formats() -> tuple[LogFormat, ...]:
    """Every format that can be used; warns of those that cannot."""
    return tuple(log_format(name) for name, _ in LOG_FORMATS.usable())


def find_logs(path: str | Path, log_format_name: str = AUTO) -> FoundLogs:
    """Find the logs in a folder, recursively, or the log that a file is.

    Hidden folders are not entered (but MLflow's ``.trash``) and links to folders not followed.

    Parameters
    ----------
    path : str or Path
        Folder or file (also as ``file:`` or ``sqlite:`` address), or ``mlflow+http://HOST:PORT``.
    log_format_name : str, default "auto"
        Look for one format only; default: any.

    Raises
    ------
    DataError
        No such file or folder.
    StorageError
        A folder cannot be read.
    UsageError
        An unknown format.
    PluginError
        The format of that name cannot be used.
    """
    if server_address(path) is not None:
        log = FoundLog(format_name=_OF_SERVERS, place=Path(path))
        return FoundLogs(logs=(log,), others=())
    root = local_path(path)
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; check the path")
    if not (root.is_file() or root.is_dir()):
        raise DataError(f"{root}: a pipe or a device, not a file or a folder; check the path")
    formats = log_formats() if log_format_name == AUTO else (log_format(log_format_name),)
    is_named = root.is_file() and log_format_name != AUTO
    found: dict[FoundLog, None] = {}
    owned: set[Path] = set()
    others: list[Path] = []
    for file in _files(root.resolve()):
        # Neither pipes and sockets, which would wait, nor links that lead nowhere.
        if not owned.isdisjoint(file.parents) or not file.is_file():
            continue
        candidate = Candidate(file)
        for each in formats:
            place = each.place_if_named(candidate) if is_named else each.place_of(candidate)
            if place is not None:
                log = FoundLog(format_name=each.name, place=place.resolve())
                found[log] = None
                if each.owned_folder is not None and log.place.is_dir():
                    owned.add(log.place / each.owned_folder)
                break
        else:
            others.append(file)
    can_repeat = {log for log in found if log_format(log.format_name).is_second_record}
    places = {log.place for log in found if log not in can_repeat}
    second = [log for log in can_repeat if places & {log.place, *log.place.parents}]
    return FoundLogs(
        logs=tuple(log for log in found if log not in second),
        others=tuple(others),
        second=tuple(sorted(second, key=lambda log: log.place)),
    )


def is_table_of_log(path: Path) -> bool:
    """Whether a table is a log, also where it is named by itself, by the format of its content.

    Its rows are epochs or steps, or the format says of each what it measures; every other table is
    one of runs.
    """
    logs = find_logs(path).logs if path.is_file() else ()
    return any(log_format(log.format_name).reads_tables for log in logs)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return

    def refuse(error: OSError) -> None:
        raise StorageError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        if MARKER_FILE in files and Path(folder) != root:
            # A history keeps copies of what was ingested.
            folders.clear()
            continue
        folders[:] = sorted(
            name
            for name in folders
            if name == _DELETED or not (name.startswith(".") or name in _SKIPPED_FOLDERS)
        )
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name)
