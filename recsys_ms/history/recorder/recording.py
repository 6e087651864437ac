"""``recording``: records a run around the code that trains it, and writes it however it ends.

Training jobs import this module: it needs neither pyarrow nor pandas.
"""

import logging
import math
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, RecsysError, StorageError
from recsys_ms.core.known_metrics import direction_of, direction_problem
from recsys_ms.core.types import Direction, JsonDict, Unit, ValueKind
from recsys_ms.history.inbox.inbox import as_fraction, keep_run, open_inbox
from recsys_ms.history.recorder.journal import ERROR_TAG, JournalWriter, Point, Recorded
from recsys_ms.history.recorder.state_order import AT_END, TERMINATED
from recsys_ms.history.recorder.termination import TERMINATION
from recsys_ms.history.run import Run

_LOG = logging.getLogger(__name__)

#: Environment variable that names the history where ``history_path`` is not given.
HISTORY_VARIABLE: Final = "RECSYS_MS_HISTORY"
_MESSAGE_TAG: Final = "error_message"
_MESSAGE_LENGTH: Final = 300
_SETTABLE: Final = tuple(
    name
    for name in c.RUN_COLUMNS
    if name not in (c.RUN_ID, c.STATUS, c.VALUE, c.EPOCH, c.INGESTED_AT)
)


def recording(
    history_path: str | Path | None = None,
    *,
    model_id: str,
    task_id: str,
    metric: str,
    direction: Direction | None = None,
    unit: Unit = "fraction",
    run_id: str | None = None,
    value_kind: ValueKind = "best",
    on_error: Literal["log", "raise"] = "log",
    unsent_folder: str | Path | None = None,
    **fields: Any,
) -> "Recorder":
    """Record a fine-tuning run around the code that trains it.

    ::

        with rms.recording("H", model_id="m", task_id="t", metric="f1") as run:
            for epoch in range(20):
                run.log(train_and_evaluate(), epoch=epoch)

    When the block ends the run is written to the inbox as one file: finished with its best value,
    or failed with the tag ``error`` after an exception (its class; the exception propagates),
    SIGTERM, or without a value. Until then all logged values are in a journal beside it, so that a
    process that is killed outright loses nothing: the next ingest makes a failed run of it
    (``error`` is ``killed``), and a running one of the journal of a live process. Any number of
    processes may record into one history. The recorder never raises into the training unless
    ``on_error="raise"``; a run that cannot be written is kept as by
    :func:`recsys_ms.history.inbox.inbox.record_run`.

    Parameters
    ----------
    history_path : str or Path, optional
        Folder of the history; default: the environment variable ``RECSYS_MS_HISTORY``.
    model_id, task_id, metric : str
        What is fine-tuned, on what, and what is measured.
    direction : {"max", "min"}, optional
        Which values of the metric are better; default: what is known of the metric by its name
        (:mod:`recsys_ms.core.known_metrics`).
    unit : {"fraction", "percent"}
        Of the metric's values as they are logged; percentages are divided by 100.
    run_id : str, optional
        Name of the run; default: a new one, so that each recording is its own run.
    value_kind : {"best", "last", "ema"}
        Which of the logged values becomes the run's value; ``ema`` is the best of averaged weights.
    on_error : {"log", "raise"}
        Whether errors of the recording itself are logged or raised.
    unsent_folder : str or Path, optional
        Where the run goes when the inbox cannot be written.
    **fields
        Further fields of :class:`recsys_ms.history.run.Run` (``seed``, ``hyperparameters``,
        ``tags``, ``split``, ``cost_gpu_seconds``, …).

    Returns
    -------
    Recorder
        A context manager; ``start`` and ``finish`` do without ``with``.

    Raises
    ------
    TypeError
        An unknown field, or an unknown unit.
    """
    _check_names(fields)
    if unit not in get_args(Unit):
        raise TypeError(f"unit is {unit!r}, expected 'fraction' or 'percent'")
    given = history_path if history_path is not None else os.environ.get(HISTORY_VARIABLE)
    named = {c.RUN_ID: run_id} if run_id else {}
    of_run = {
        c.MODEL_ID: model_id,
        c.TASK_ID: task_id,
        c.METRIC: metric,
        c.DIRECTION: direction or (direction_of(metric) if isinstance(metric, str) else None),
        c.VALUE_KIND: value_kind,
        **named,
        **fields,
    }
    history = None if given is None else Path(given)
    return Recorder(history, of_run, unit=unit, on_error=on_error, unsent_folder=unsent_folder)


class Recorder:
    """A run that is being recorded, made by :func:`recording`."""

    def __init__(
        self,
        history: Path | None,
        fields: JsonDict,
        *,
        unit: Unit = "fraction",
        on_error: Literal["log", "raise"],
        unsent_folder: str | Path | None,
    ) -> None:
        self._history = history
        self._given = fields
        self._unit = unit
        self._recorded = self._new()
        self._on_error = on_error
        self._unsent_folder = unsent_folder
        self._journal: JournalWriter | None = None
        # Reentrant: SIGTERM is handled between two lines of the thread that holds it.
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._open = False
        self._terminated = False
        self._ended = False

    def _new(self) -> Recorded:
        """The run as it begins, under a new ``run_id`` unless one was given."""
        return Recorded({c.RUN_ID: f"rec-{uuid.uuid4().hex}", **self._given})

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self._recorded.fields[c.RUN_ID])

    @property
    def metric(self) -> str:
        """What is measured."""
        return str(self._recorded.fields[c.METRIC])

    @property
    def is_open(self) -> bool:
        """Whether this process has started it and not finished it."""
        return self._open and self._process == os.getpid()

    @property
    def has_value(self) -> bool:
        """Whether a finite value of its metric was logged."""
        return self._recorded.outcome()[0] is not None

    def start(self) -> Self:
        """Begin the run; ``with`` does it.

        A recorder that has ended begins a new run, or restarts the same one if it has a ``run_id``.

        Raises
        ------
        RecsysError
            Only with ``on_error="raise"``: a field is invalid, or there is no history.
        """
        if self._ended:
            self._recorded = self._new()
            self._ended = self._terminated = False
        fields = self._recorded.fields
        fields.setdefault(c.STARTED_AT, datetime.now(UTC))
        self._process = os.getpid()
        self._open = True
        TERMINATION.add(self)
        try:
            self._check_direction()
            with TERMINATION.held():
                self._open_journal()
                if self._on_error == "raise":
                    Run.from_payload({**fields, c.STATUS: "running"})
        except RecsysError:
            self._close(remove=True)
            raise
        return self

    def log(
        self,
        value: float,
        *,
        epoch: float | None = None,
        step: int | None = None,
        metric: str | None = None,
        split: str | None = None,
    ) -> None:
        """Log one value.

        Parameters
        ----------
        value : float
            Number, or a scalar array or tensor. NaN and infinities are kept in the curve.
        epoch, step : float, int, optional
            When it was measured.
        metric, split : str, optional
            Another metric or split, kept in the curve only. Default: those of the run.

        Raises
        ------
        DataError
            Only with ``on_error="raise"``: ``value`` is not a number, or the recorder is not open.
        """
        try:
            fields = self._recorded.fields
            number = float(value)
            if self._unit == "percent" and metric in (None, fields[c.METRIC]):
                number = as_fraction(number, self.metric)
            point = Point(
                None if step is None else int(step),
                None if epoch is None else float(epoch),
                str(fields[c.METRIC] if metric is None else metric),
                (fields.get(c.SPLIT) if metric is None else None) if split is None else split,
                number,
            )
        except (TypeError, ValueError, OverflowError) as error:
            self._complain(DataError(f"run {self.run_id}: {value!r} was not logged ({error})"))
            return
        if not self.is_open:
            self._complain(DataError(f"run {self.run_id} is not open: {value!r} was not logged"))
            return
        with self._lock:
            self._recorded.points.append(point)
            self._write(list(point))

    def set(self, **fields: Any) -> None:
        """Set fields of the run; ``TypeError`` for an unknown one."""
        _check_names(fields)
        with self._lock:
            self._recorded.fields.update(fields)
            if self.is_open:
                self._write(fields)

    def fill(self, **fields: Any) -> None:
        """Set those of the fields that the run does not have; ``TypeError`` for an unknown one."""
        known = self._recorded.fields
        self.set(**{name: value for name, value in fields.items() if known.get(name) is None})

    def finish(self, error: BaseException | str | None = None) -> str | None:
        """End the run; ``with`` does it.

        Parameters
        ----------
        error : exception or str, optional
            Why it failed.

        Returns
        -------
        str or None
            The ``run_id``, or ``None`` if the run is not (validly) in the inbox.

        Raises
        ------
        RecsysError
            Only with ``on_error="raise"``.
        """
        if not self.is_open:
            return None
        with TERMINATION.held(), self._lock:
            self._open = False
            tags = self._failure_tags(error)
            try:
                return self._account("failed" if tags else "finished", AT_END, tags)
            finally:
                self._ended = True
                self._close(remove=True)

    def terminate(self) -> None:
        """Write the run as failed by SIGTERM; a training that continues may still finish it."""
        if self.is_open:
            self._terminated = True
            self._account("failed", TERMINATED, {ERROR_TAG: "SIGTERM"})

    def forget(self) -> None:
        """In a forked child: leave the run to the parent."""
        # A child that outlives its parent must not hold the lock.
        self._close(remove=False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.finish(error)
        except RecsysError:
            # The error of the training is the one to see.
            if error is None:
                raise

    def _write(self, entry: Sequence[object] | JsonDict) -> None:
        if self._journal is None:
            return
        try:
            self._journal.append(entry)
        except OSError as error:
            message = "the journal of run %s cannot be written, it is kept in memory: %s"
            _LOG.warning(message, self.run_id, error)
            self._journal.close()
            self._journal = None
        # Fields may hold any object, and any of its errors would end the training.
        except Exception as error:
            _LOG.warning("run %s: %r is kept in memory only: %s", self.run_id, list(entry), error)
            if self._on_error == "raise":
                raise DataError(f"run {self.run_id}: not written as JSON ({error})") from error

    def _failure_tags(self, error: BaseException | str | None) -> dict[str, str]:
        """Tags of the run by what ended it; empty after a success."""
        if isinstance(error, str):
            return {ERROR_TAG: error}
        if error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0)):
            if self._terminated and isinstance(error, SystemExit | KeyboardInterrupt):
                # An earlier handler of SIGTERM ended the program its own way.
                return {ERROR_TAG: "SIGTERM"}
            message = " ".join(str(error).split()).encode(errors="backslashreplace").decode()
            tags = {ERROR_TAG: type(error).__name__, _MESSAGE_TAG: message[:_MESSAGE_LENGTH]}
            return {tag: text for tag, text in tags.items() if text}
        if self.has_value:
            return {}
        logged = any(
            point.metric == self.metric and not math.isfinite(point.value)
            for point in self._recorded.points
        )
        return {ERROR_TAG: f"no finite {self.metric}" if logged else "no value logged"}

    def _account(self, status: str, stage: int, tags: Mapping[str, str]) -> str | None:
        fields, progress = self._recorded.account(status, stage, tags)
        fields[c.FINISHED_AT] = self._recorded.fields.get(c.FINISHED_AT) or datetime.now(UTC)
        return keep_run(
            self._history,
            fields,
            self._unsent_folder,
            on_error=self._on_error,
            curve=self._recorded.points,
            progress=progress,
        )

    def _open_journal(self) -> None:
        try:
            self._journal = JournalWriter(open_inbox(self._history), self._recorded)
        # As for later fields.
        except Exception as error:
            _LOG.warning("no journal for run %s, it is kept in memory only: %s", self.run_id, error)
            if self._on_error == "raise" and isinstance(error, StorageError):
                raise

    def _close(self, *, remove: bool) -> None:
        self._open = False
        if self._journal is not None:
            if remove:
                self._journal.remove()
            else:
                self._journal.close()
            self._journal = None
        # Last, since it may restore a handler of SIGTERM that ends the process at once.
        TERMINATION.discard(self)

    def _check_direction(self) -> None:
        """Say now what would send the run to quarantine when it is ingested."""
        direction = self._recorded.fields[c.DIRECTION]
        problem = f"{self.metric!r} is unknown: give direction='max' or direction='min'"
        if direction is not None:
            problem = direction_problem(self.metric, direction) or ""
        if problem:
            self._complain(DataError(f"run {self.run_id}: {c.DIRECTION}: {problem}"))

    def _complain(self, error: DataError) -> None:
        if self._on_error == "raise":
            raise error
        _LOG.error("%s", error)


def _check_names(fields: Mapping[str, object]) -> None:
    strange = sorted(set(fields) - set(_SETTABLE))
    if strange:
        raise TypeError(f"unknown field {strange[0]!r}; a run has {', '.join(_SETTABLE)}")
