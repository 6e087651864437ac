"""What the callbacks share: a recorder that a training loop begins, feeds and ends."""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.history.recorder.recording import Recorder

_LOG = logging.getLogger(__name__)

_NAMED: Final = re.compile(r"(train|val|valid|validation|eval|test)[_/](.+)")
_TRAIN: Final = "train"
#: How fast, not how well.
_SPEED: Final = re.compile(r".*(_runtime|_per_second|_compilation_time|_preparation_time|_flos)")


class Adapter:
    """Feeds a recorder with what a framework logs.

    Parameters
    ----------
    run : Recorder
        Made by ``recsys_ms.recording``. One that is open already (``with``) is fed only; another is
        started and finished with the training.
    monitor : str or None
        Name under which the framework logs the run's metric; ``None`` for the first that is the
        metric, by itself or with the prefix of a split that is not the training's.
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
        """Begin with the training; ``fields`` where the recorder was not given others."""
        if self._own:
            # A training that was broken off and is begun again, in a notebook.
            self.end("interrupted")
        if not self._run.is_open:
            self._run.start()
            self._own = True
        self._run.fill(**{name: value for name, value in fields.items() if value is not None})

    def log(
        self, values: Mapping[str, Any], *, epoch: float | None, step: int | None = None
    ) -> None:
        """Log what a framework logged at one time; what is no number is left out."""
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
        """End with the training, unless somebody else began it."""
        if not self._own:
            return
        self._own = False
        if error is None and self._seen and not self._run.has_value:
            _LOG.warning(
                "run %s: nothing logged is its metric %r; name one of %s as monitor",
                self._run.run_id,
                self._run.metric,
                ", ".join(sorted(self._seen)),
            )
        self._run.finish(error)

    def parts(self, name: str) -> tuple[str, str | None]:
        """Metric and split of a logged name."""
        found = _NAMED.fullmatch(name)
        return (found[2], found[1]) if found else (name, self._unnamed)

    def _is_monitored(self, name: str, metric: str, split: str | None) -> bool:
        if self._monitor is None:
            if split == _TRAIN or self._run.metric not in (metric, name):
                return False
            self._monitor = name
        return name == self._monitor
