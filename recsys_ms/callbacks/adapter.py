"""Connects the callbacks to a recorder: begin, log and end with the training loop."""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.history.recorder.recording import Recorder

_LOG = logging.getLogger(__name__)

#: ``val_acc``, ``val/acc``, ``val.acc`` and ``val-acc`` are ``acc`` on ``val``, as in the logs that
#: the frameworks write themselves (``history/readers/formats/``).
_NAMED: Final = re.compile(
    r"(train|training|val|valid|validation|dev|eval|evaluation|test)[_/.-](.+)", re.DOTALL
)
_TRAINING: Final = ("train", "training")
#: Measures of speed, which are not metrics.
_SPEED: Final = re.compile(r".*(_runtime|_per_second|_compilation_time|_preparation_time|_flos)")


class Adapter:
    """Logs the values of a framework to a recorder.

    Parameters
    ----------
    run : Recorder
        Made by ``recsys_ms.recording``. One that is already open (``with``) is only logged to;
        another is started and finished with the training.
    monitor : str or None
        Name under which the framework logs the run's metric; ``None`` for the first that is the
        metric, alone or with the prefix of a split other than the training's.
    unnamed : str or None
        Split of a name without such a prefix.
    """

    def __init__(self, run: Recorder, monitor: str | None, unnamed: str | None) -> None:
        self._run = run
        self._monitor = monitor
        self._unnamed = unnamed
        self._own = False
        self._seen: set[str] = set()

    def begin(self, **fields: Any) -> None:
        """Begin with the training; ``fields`` are set if the recorder does not have them."""
        if self._own:
            # A training that was interrupted and is restarted, in a notebook.
            self.end("interrupted")
        if not self._run.is_open:
            self._run.start()
            self._own = True
        self._run.fill(**{name: value for name, value in fields.items() if value is not None})

    def log(
        self, values: Mapping[str, Any], *, epoch: float | None, step: int | None = None
    ) -> None:
        """Log the values of one time; those that are not numbers are skipped."""
        if not self._run.is_open:
            return
        for name, value in values.items():
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError, RuntimeError):
                continue
            if _SPEED.fullmatch(name):
                continue
            self._seen.add(name)
            metric, split = self.parts(name)
            if self._is_monitored(name, metric, split):
                self._run.fill(**({} if split is None else {c.SPLIT: split}))
                self._run.log(number, epoch=epoch, step=step)
            else:
                self._run.log(number, epoch=epoch, step=step, metric=metric, split=split)

    def end(self, error: BaseException | str | None = None) -> None:
        """End with the training, unless the recorder was already open before."""
        if not self._own:
            return
        self._own = False
        if error is None and self._seen and not self._run.has_value:
            message = "run %s: its metric %r was not logged; pass monitor, one of %s"
            _LOG.warning(message, self._run.run_id, self._run.metric, ", ".join(sorted(self._seen)))
        self._run.finish(error)

    def parts(self, name: str) -> tuple[str, str | None]:
        """Metric and split of a logged name."""
        found = _NAMED.fullmatch(name)
        return (found[2], found[1]) if found else (name, self._unnamed)

    def is_of_training(self, name: str) -> bool:
        """Whether a logged name has the prefix of the training's split."""
        return self.parts(name)[1] in _TRAINING

    def _is_monitored(self, name: str, metric: str, split: str | None) -> bool:
        if self._monitor is None:
            if split in _TRAINING or self._run.metric not in (metric, name):
                return False
            self._monitor = name
        return name == self._monitor
