"""MLflow's folders of experiments (``mlruns``), read as plain files.

``EXPERIMENT/meta.yaml`` names the experiment; ``EXPERIMENT/RUN/meta.yaml`` has times and status of
a run, and every file in its ``params``, ``tags`` and ``metrics`` one entry, by its path. Folders
that Git or a copy left out (empty ones) hold nothing.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.mlflow_run import (
    CONTEXT,
    MOST_VALUES,
    MetricPoint,
    MlflowRun,
)
from recsys_ms.history.readers.formats.plain_values import read_settings, whole_number
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LoggedRun,
)

_META: Final = "meta.yaml"
_PARTS: Final = ("metrics", "params", "tags")
_EXPERIMENT_ID: Final = re.compile(rb"^experiment_id:\s*['\"]?([^'\"\s]+)", re.MULTILINE)
_RUN_ID: Final = re.compile(rb"^run_(?:id|uuid):\s*['\"]?([^'\"\s]+)", re.MULTILINE)
#: ``RunStatus`` of MLflow, which a folder keeps as a number.
_STATUS: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_MOST_FILES: Final = 100_000


def folder_of(candidate: Candidate) -> Path | None:
    """Folder of the experiment or of the run that a ``meta.yaml`` is of."""
    path = candidate.path
    if path.name != _META:
        return None
    if _is_run(candidate):
        return path.parent
    found = _EXPERIMENT_ID.search(candidate.head)
    return path.parent if found and found[1] == path.parent.name.encode() else None


def _is_run(candidate: Candidate) -> bool:
    # A damaged file is known by the folders beside it.
    path = candidate.path
    return bool(_RUN_ID.search(candidate.head)) or any(
        path.with_name(name).is_dir() for name in _PARTS[:2]
    )


def read_folder(place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
    """Read one run, or the runs of one experiment.

    Raises
    ------
    BadLogError
        It is neither.
    """
    bad: list[BadLog] = []
    if _is_run(Candidate(place / _META)):
        folders, home = [place], place.parent
    else:
        folders, home = sorted(path.parent for path in place.glob(f"*/{_META}")), place
    experiment = _Experiment(home, files, bad)
    for folder in folders:
        if _is_run(Candidate(folder / _META)):
            yield from experiment.run(folder)
    yield from bad


class _Experiment:
    """The folder of an experiment: its name, and its data sets by id."""

    def __init__(self, folder: Path, files: LogFiles, bad: list[BadLog]) -> None:
        self._files = files
        meta = read_settings(folder / _META, files, bad)
        self._id = str(meta.get("experiment_id", folder.name))
        self._name = str(meta.get("name") or self._id)
        self._datasets = {
            path.parent.name: read_settings(path, files, bad)
            for path in sorted(folder.glob(f"datasets/*/{_META}"))
        }

    def run(self, folder: Path) -> Iterator[LoggedRun | BadLog]:
        """The run of a folder, then what of it cannot be read."""
        bad: list[BadLog] = []
        meta = read_settings(folder / _META, self._files, bad)
        run_id = meta.get("run_id") or meta.get("run_uuid")
        if isinstance(run_id, str | int):
            metrics, params, tags = (dict(self._texts(folder / part, bad)) for part in _PARTS)
            run = MlflowRun(
                run_id=str(run_id),
                experiment_id=str(meta.get("experiment_id", self._id)),
                experiment=self._name,
                name=_text(meta.get("run_name") or meta.get("name")),
                user=_text(meta.get("user_id")),
                status=_status(meta.get("status")),
                started=whole_number(meta.get("start_time")),
                ended=whole_number(meta.get("end_time")),
                stage=_text(meta.get("lifecycle_stage")) or "active",
                version=_text(meta.get("source_version")),
                artifact_uri=_text(meta.get("artifact_uri")),
                params=params,
                # MLflow ends a tag with a line break.
                tags={key: text.removesuffix("\n") for key, text in tags.items()},
                datasets=self._data(folder, bad),
                points={
                    key: _points(folder / "metrics" / key, text, bad)
                    for key, text in metrics.items()
                },
            )
            yield run.logged(str(folder.resolve()))
        elif not bad:
            reason = "it does not say run_id; restore the file"
            raw = self._files.text(folder / _META)
            bad.append(BadLog(file=folder / _META, reason=reason, raw=raw))
        yield from bad

    def _texts(self, folder: Path, bad: list[BadLog]) -> Iterator[tuple[str, str]]:
        """Names and texts of the files of a folder; a name may have several parts."""
        n_files = 0
        for root, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(root, name)
                n_files += 1
                if n_files > _MOST_FILES:
                    bad.append(BadLog(file=folder, reason=f"more than {_MOST_FILES} files"))
                    return
                if name.startswith("."):
                    continue
                if path.is_symlink() or not path.is_file():
                    reason = "a link or no regular file, which is not read; copy the file itself"
                    bad.append(BadLog(file=path, reason=reason))
                    continue
                try:
                    yield path.relative_to(folder).as_posix(), self._files.text(path)
                except BadLogError as error:
                    bad.append(error.bad)

    def _data(self, folder: Path, bad: list[BadLog]) -> list[dict[str, str]]:
        """Data sets that the run logged."""
        found = []
        for path in sorted(folder.glob(f"inputs/*/{_META}")):
            used = read_settings(path, self._files, bad)
            data = self._datasets.get(str(used.get("source_id")))
            if data is not None:
                names = ("name", "digest", "source_type")
                each = {name: str(data.get(name) or "") for name in names}
                found.append({**each, "context": _context(used)})
        return found


def _context(used: JsonDict) -> str:
    tags: Any = used.get("tags")
    # A mapping in some versions, a list of names and values in others.
    if isinstance(tags, Sequence) and not isinstance(tags, str):
        tags = {str(t.get("key")): t.get("value") for t in tags if isinstance(t, Mapping)}
    found = tags.get(CONTEXT) if isinstance(tags, Mapping) else None
    return str(found or "")


def _status(value: Any) -> str:
    return _STATUS.get(value, "RUNNING") if isinstance(value, int) else str(value or "RUNNING")


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _points(path: Path, text: str, bad: list[BadLog]) -> list[MetricPoint]:
    """Values of a metric: ``timestamp value step`` in a line, without a step before MLflow 1.0.

    Later versions may name a data set, too. Lines that cannot be read cost themselves only.
    """
    found: list[MetricPoint] = []
    first: tuple[int, str] | None = None
    n_bad = 0
    lines = text.split("\n")
    if len(lines) > MOST_VALUES:
        reason = f"{len(lines)} values, more than the {MOST_VALUES} of any training"
        bad.append(BadLog(file=path, reason=reason))
        return []
    for at, line in enumerate(lines, start=1):
        cells = line.split()
        if not cells:
            continue
        # MLflow ends each line; without a step, what is left of a value looks like one.
        cut = at == len(lines) and len(cells) < 3
        try:
            if cut or len(cells) not in (2, 3, 5):
                raise ValueError("expected timestamp, value and step")
            step = int(cells[2]) if len(cells) > 2 else 0
            time, value = whole_number(int(cells[0])), float(cells[1])
            if time is None or whole_number(step) is None:
                raise ValueError("a number of more than 64 bits")
            found.append(MetricPoint(step, time, value))
        except ValueError as error:
            told = f"{line.strip()[:80]!r}: {error}"
            if cut:
                bad.append(BadLog(file=path, line=at, reason=told, raw=text, cut=True))
            else:
                first, n_bad = first or (at, told), n_bad + 1
    if first is not None:
        more = f", and {n_bad - 1} more lines" if n_bad > 1 else ""
        bad.append(BadLog(file=path, line=first[0], reason=f"{first[1]}{more}", raw=text))
    return found
