"""Run folders of Weights & Biases (``wandb/run-*``): what W&B leaves on the training machine."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.plain_values import (
    parse_cell,
    read_settings,
    stated,
    text_if_any,
)
from recsys_ms.history.readers.formats.wandb_history import TIMES
from recsys_ms.history.readers.formats.wandb_summary import numbers_in, summary_run
from recsys_ms.history.readers.logged import (
    BadLog,
    Candidate,
    LogFiles,
    LoggedRun,
    real,
)
from recsys_ms.history.readers.number_style import scalar
from recsys_ms.history.run import check_field

_FILES: Final = "files"
_SUMMARY: Final = "wandb-summary.json"
_CONFIG: Final = "config.yaml"
_METADATA: Final = "wandb-metadata.json"
_CONFIG_MARK: Final = re.compile(rb"^(_wandb:|wandb_version:)", re.MULTILINE)
_RECORD: Final = re.compile(r"run-([^/]+)\.wandb")
_RECORD_MAGIC: Final = b":W&B"
_FOLDER: Final = re.compile(r"(?:offline-|dry)?run-\d{8}_\d{6}-(.+)", re.DOTALL)
#: Of the metadata, which also has names, addresses and the machine.
_SHOWN: Final = ("program", "codePath", "args", "gpu", "python", "startedAt")


def run_folder_of(candidate: Candidate) -> Path | None:
    """The run folder that a file of W&B is in."""
    path = candidate.path
    known = path.name in (_SUMMARY, _METADATA) or (
        path.name == _CONFIG and _CONFIG_MARK.search(candidate.head)
    )
    if known:
        return path.parent.parent if path.parent.name == _FILES else path.parent
    if _RECORD.fullmatch(path.name) and candidate.head.startswith(_RECORD_MAGIC):
        return path.parent
    return None


def is_run_folder(place: Path, files: LogFiles) -> bool:
    """Whether a place is the folder of a run, and not that of a history."""
    homes = (place / _FILES, place)
    names = (_SUMMARY, _CONFIG, _METADATA)
    return any(files.exists(home / name) for home in homes for name in names) or bool(
        _record_in(place)
    )


def _record_in(place: Path) -> Path | None:
    return next(iter(sorted(place.glob("run-*.wandb"))), None)


def read_run_folder(place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
    """Read the run of a folder: the last value of each metric, from its summary.

    Yields
    ------
    LoggedRun or BadLog
        A run that was logged offline is a bad log with the way out: its values are only in a
        binary file of W&B's own.
    """
    bad: list[BadLog] = []
    names = (_SUMMARY, _CONFIG)
    homes = (place / _FILES, place)
    home = next((h for h in homes if any(files.exists(h / n) for n in names)), homes[0])
    summary = _read_summary(home / _SUMMARY, files, bad)
    config = {
        name: _spelt(value) for name, value in read_settings(home / _CONFIG, files, bad).items()
    }
    metadata = read_settings(home / _METADATA, files, bad)
    record = _record_in(place)
    if not bad and not any(numbers_in(summary)):
        reason = "it holds no metrics yet"
        if record is not None:
            reason = (
                "the run was logged offline, or ended early: its values are only in "
                f"{record.name}, in a form of W&B's own; upload it ('wandb sync FOLDER') and "
                "export the run"
            )
        yield BadLog(file=record or home / _SUMMARY, reason=reason)
        return
    found = _FOLDER.fullmatch(place.name)
    named = _RECORD.fullmatch(record.name) if record else None
    run_id = found[1] if found else named[1] if named else None
    folder = real(place)
    # The end of a run writes its whole time; times alone are of one that runs, or was killed.
    times = any(name in summary for name in TIMES)
    ended = "runtime" in (summary.get("_wandb") or {}) or not times
    git: Any = metadata.get("git")
    fields: JsonDict = {
        c.STATUS: "finished" if ended else "running",
        c.SOURCE_VERSION: stated(git.get("commit")) if isinstance(git, dict) else None,
    }
    # A time without a zone is not guessed at.
    with suppress(DataError):
        fields[c.STARTED_AT] = check_field(c.STARTED_AT, str(metadata.get("startedAt")))
    yield summary_run(
        file=str(folder),
        identity=f"wandb:{run_id or folder}",
        config=config,
        summary=summary,
        fields=fields,
        columns={
            "id": run_id,
            "metadata": {name: metadata[name] for name in _SHOWN if name in metadata},
        },
    )
    yield from bad


def _read_summary(path: Path, files: LogFiles, bad: list[BadLog]) -> JsonDict:
    text = text_if_any(path, files, bad)
    if text is None:
        return {}
    try:
        found = parse_cell(text)
        if not isinstance(found, dict):
            raise ValueError(f"got a {type(found).__name__}, expected metrics by name")
    except ValueError as error:
        bad.append(BadLog(file=path, reason=f"{error}; correct the file", raw=text))
        return {}
    return found


def _spelt(setting: Any) -> Any:
    """A setting of ``config.yaml``: W&B writes ``1e-05``, which is a text in YAML."""
    if isinstance(setting, dict) and isinstance(setting.get("value"), str):
        return {**setting, "value": scalar(setting["value"])}
    return setting
