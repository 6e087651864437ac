"""``record_run``: writes a run into the inbox of a history, from inside a training job.

Training jobs never write to a shared table. Each puts one immutable file in the inbox of the
history, and the nightly job ingests them. This module needs neither pyarrow nor pandas.
"""

import json
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.core.files import write_atomic
from recsys_ms.core.known_metrics import accepted
from recsys_ms.core.types import Direction, JsonDict, Status, Unit, ValueKind
from recsys_ms.history.run import Run

_LOG = logging.getLogger(__name__)

#: Folder of a history that training jobs write to, and the file that makes a folder a history.
INBOX_FOLDER: Final = "inbox"
MARKER_FILE: Final = "history.json"
#: Format of one inbox file: a JSON object of the fields of a run, this key, and maybe ``problem``.
FORMAT_KEY: Final = "format"
FORMAT: Final = 1
#: Why the payload could not be written as it was given.
PROBLEM_KEY: Final = "problem"
#: Where runs are kept that cannot go to the inbox, in the folder for temporary files.
_UNSENT: Final = "recsys-ms-unsent-"
#: All logged values of the run, ``[step, epoch, metric, split, value]`` each; and the progress of
#: its log, see ``ReadBatch.progress``.
CURVE_KEY: Final = "curve"
PROGRESS_KEY: Final = "progress"

#: Longest file that is read: one of 1.5 million logged values, which take 10 seconds and 0.5 GB.
MAX_FILE_BYTES: Final = 64 << 20

#: A logged value: step, epoch, metric, split, value.
CurvePoint: TypeAlias = tuple[int | None, float | None, str, str | None, float]


def record_run(
    history_path: str | Path,
    *,
    model_id: str,
    task_id: str,
    metric: str,
    direction: Direction | None = None,
    value: float | None = None,
    unit: Unit | None = None,
    status: Status = "finished",
    run_id: str | None = None,
    model_revision: str | None = None,
    value_kind: ValueKind | None = None,
    split: str | None = None,
    epoch: float | None = None,
    seed: int | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    cost_gpu_seconds: float | None = None,
    started_at: datetime | None = None,
    finished_at: datetime | None = None,
    dataset_fingerprint: str | None = None,
    source: str | None = None,
    source_version: str | None = None,
    tags: Mapping[str, str] | None = None,
    curve: Sequence[CurvePoint] | None = None,
    on_error: Literal["log", "raise"] = "log",
    unsent_folder: str | Path | None = None,
) -> str | None:
    """Record one fine-tuning run in the inbox of a history, from inside a training job.

    Writes one file (temporary name, fsync, rename); any number of processes may do so at once. The
    fields are those of :class:`recsys_ms.history.run.Run`. Without ``run_id`` the run is named by
    its identifying fields, so the same configuration trained twice needs another ``seed``,
    ``started_at`` or ``run_id`` to count as two runs. A run recorded as ``running`` is updated by
    recording it again under the same ``run_id``.

    Nothing is lost and, by default, nothing is raised: errors are logged (logger
    ``recsys_ms.history.inbox.inbox``). Invalid fields are written all the same, and go to
    quarantine with their reason when the inbox is ingested. When the inbox cannot be written, the
    file goes to ``unsent_folder`` and the log says where; ``History.ingest_inbox(folder)`` ingests
    it from there. When that fails too, the log holds the payload itself.

    Parameters
    ----------
    history_path : str or Path
        Folder of the history. It must exist: ``History.open`` creates one.
    direction : {"max", "min"}, optional
        Needed only for a metric that is not known (:mod:`recsys_ms.core.known_metrics`).
    unit : {"fraction", "percent"}, optional
        With ``percent``, value and curve of the metric are divided by 100.
    curve : sequence of (step, epoch, metric, split, value), optional
        Values logged during the training, for ``History.curves``; step, epoch and split may be
        ``None``.
    on_error : {"log", "raise"}
        Whether to raise after the payload was kept.
    unsent_folder : str or Path, optional
        Default: a private ``recsys-ms-unsent-…`` in the folder for temporary files.

    Returns
    -------
    str or None
        The ``run_id``, or ``None`` when the run is not (validly) in the inbox.

    Raises
    ------
    DataError, StorageError
        Only with ``on_error="raise"``: a field is invalid, or the inbox cannot be written.
    """
    given = locals()
    fields: JsonDict = {name: given[name] for name in c.RUN_COLUMNS if name in given}
    if unit == "percent":
        fields[c.VALUE] = as_fraction(value, metric)
        curve = [
            (*point[:4], as_fraction(point[4], metric)) if point[2] == metric else point
            for point in curve or ()
        ]
    elif unit not in (None, "fraction"):
        # Not a field of a run: it goes to quarantine, whose reason names it.
        fields["unit"] = unit
    return keep_run(history_path, fields, unsent_folder, on_error=on_error, curve=curve)


def as_fraction(value: Any, metric: str) -> Any:
    """A percentage as a fraction, where the metric can be one; other values as they are."""
    try:
        return value / accepted(metric, "percent").divisor
    except (TypeError, AttributeError):
        # Whatever was handed in is recorded, and refused when it is ingested.
        return value


def default_unsent_folder() -> Path:
    """Where runs go when the inbox cannot be written: a folder that only this user can open.

    It is made if there is none, under a name that cannot be foreseen: in a folder that all users
    may write to, another one can take a known name first. ``OSError`` if it cannot be made.
    """
    place = Path(tempfile.gettempdir())
    own = (folder for folder in sorted(place.glob(f"{_UNSENT}*")) if _is_private(folder))
    return next(own, None) or Path(tempfile.mkdtemp(prefix=_UNSENT, dir=place))


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    # On Windows each user has a temporary folder.
    return os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o077)


def keep_run(
    history: str | Path | None,
    fields: Mapping[str, object],
    unsent_folder: str | Path | None,
    *,
    on_error: Literal["log", "raise"],
    curve: Sequence[CurvePoint] | None = None,
    progress: int | None = None,
) -> str | None:
    """Put a run in the inbox, or where it can be kept; see :func:`record_run`.

    ``history`` is ``None`` if it was not given; fields that are ``None`` are left out. For
    ``progress`` see ``ReadBatch.progress``.
    """
    try:
        extras = {CURVE_KEY: [list(point) for point in curve or ()], PROGRESS_KEY: progress}
        return _keep(None if history is None else Path(history), fields, extras, unsent_folder)
    # A training job of many GPU hours must not die of its log, whatever was handed in.
    except Exception as error:
        if on_error == "raise":
            raise
        run_id = fields.get(c.RUN_ID) or "without run_id"
        _LOG.error("run %s was not recorded in %s: %s", run_id, history, error)
        return None


def _keep(
    history: Path | None,
    fields: Mapping[str, object],
    extras: Mapping[str, object],
    unsent_folder: str | Path | None,
) -> str:
    problem: DataError | None = None
    run_id = ""
    try:
        run = Run.from_payload(fields)
        run_id, payload = run.run_id, run.to_payload()
    except DataError as error:
        problem, payload = error, {k: v for k, v in fields.items() if v is not None}
    data = _encode({**payload, **{key: value for key, value in extras.items() if value}})
    if len(data) > MAX_FILE_BYTES:
        message = (
            "run %s: its file has %d bytes, of which an ingest reads at most %d; log less often"
        )
        _LOG.error(message, run_id, len(data), MAX_FILE_BYTES)
    try:
        inbox = open_inbox(history)
        write_atomic(inbox / f"{file_stem(inbox)}.json", data)
    except (StorageError, OSError) as error:
        _keep_unsent(data, unsent_folder, error)
        raise StorageError(
            f"{history}: the run cannot be put in the inbox ({error}); "
            "the log says where it was kept instead"
        ) from error
    if problem is not None:
        raise DataError(
            f"{problem}. The run is in the inbox and will go to quarantine; "
            "recsys-ms ingest --replay --set FIELD=TEXT corrects it there"
        ) from problem
    return run_id


def _encode(payload: Mapping[str, object]) -> bytes:
    """JSON of a payload; other types are written as ``repr``, and noted as a problem."""
    strange: list[str] = []

    def describe(value: object) -> str:
        if isinstance(value, datetime):
            return value.isoformat()
        strange.append(type(value).__name__)
        return repr(value)

    document: JsonDict = {FORMAT_KEY: FORMAT, **payload}
    try:
        text = json.dumps(document, default=describe)
    except (TypeError, ValueError, RecursionError) as error:
        document = {
            k: v if isinstance(v, str | int | float) else repr(v) for k, v in payload.items()
        }
        document = {FORMAT_KEY: FORMAT, **document}
        strange.append(str(error))
        text = json.dumps(document)
    if strange:
        document[PROBLEM_KEY] = f"written as text, since JSON has no type for: {', '.join(strange)}"
        text = json.dumps(document, default=repr)
    return text.encode()


def open_inbox(history: Path | None) -> Path:
    """The inbox of a history, made if it is missing.

    Raises
    ------
    StorageError
        There is no history, or its inbox cannot be made.
    """
    if history is None:
        raise StorageError("no history is given: pass history_path, or set RECSYS_MS_HISTORY")
    inbox = history / INBOX_FOLDER
    if not inbox.is_dir():
        # Only a history gets an inbox: a folder made at a mistyped path would swallow the runs.
        if not (history / MARKER_FILE).is_file():
            raise StorageError(
                f"{history} is not a history; create it once with recsys_ms.History.open"
            )
        inbox.mkdir(exist_ok=True)
    return inbox


def _keep_unsent(data: bytes, folder: str | Path | None, cause: Exception) -> None:
    try:
        unsent = default_unsent_folder() if folder is None else Path(folder)
        unsent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = unsent / f"{file_stem(unsent)}.json"
        write_atomic(path, data)
    except (StorageError, OSError) as error:
        _LOG.error(
            "a run could be written neither to the inbox (%s) nor elsewhere (%s); save this as a "
            ".json file in the inbox: %s",
            cause,
            error,
            data.decode(),
        )
        return
    _LOG.error(
        "the inbox cannot be written (%s); the run is kept in %s, and "
        "History.ingest_inbox(%r) takes it from there",
        cause,
        path,
        str(path.parent),
    )


def file_stem(folder: Path) -> str:
    """A name no other file of an inbox has; sorted names are the order of recording.

    That holds also where the clock steps back: a name is later than all earlier names of this
    process, and than the last change of the folder.
    """
    global _latest
    now = datetime.now(UTC)
    # A folder may have any time, also one that no calendar has.
    with suppress(OSError, ValueError, OverflowError):
        changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        now = max(now, changed, _latest + timedelta(microseconds=1))
    _latest = now
    return f"{now.strftime('%Y%m%dT%H%M%S.%fZ')}-{os.getpid()}-{secrets.token_hex(4)}"


#: When the last name of this process was given.
_latest = datetime.fromtimestamp(0, UTC)
