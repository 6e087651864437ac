"""Keras' ``CSVLogger``: one file a training, one row an epoch."""

from collections.abc import Sequence
from typing import ClassVar, Final

from recsys_ms.history.readers.formats.metric_csv import EPOCH, MetricFile
from recsys_ms.history.readers.steps import is_history

_VAL: Final = "val_"


class Keras(MetricFile):
    """Files of ``keras.callbacks.CSVLogger``.

    The first column is ``epoch`` (from 0), the others are metrics: ``val_NAME`` is on the split
    ``val``, ``NAME`` on ``train``. ``NA`` is a missing value; lists are skipped. A file to which a
    second training was appended (its epochs begin at 0 again) holds two runs; of epochs that are
    repeated after a resume the last counts. A table of ``history.history`` without a column
    ``epoch`` is read too, its rows counted from 0. The log names neither model nor data set nor a
    direction, and does not say whether the training ended: a run counts as finished, and a later
    ingest of a file that has grown updates it.
    """

    name: ClassVar[str] = "keras"
    wanted: ClassVar[str] = "a file of CSVLogger, whose first column is epoch, with loss or val_…"

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether the epoch comes first, with a loss or a metric of the validation."""
        if EPOCH not in names:
            return {"loss", f"{_VAL}loss"} <= set(names) and is_history(names)
        if names[0] != EPOCH or {"step", "train_loss", "eval_loss"} & set(names):
            return False
        return any(name == "loss" or name.startswith(_VAL) for name in names[1:])

    def parts(self, name: str) -> tuple[str | None, str]:
        """``val_NAME`` is on ``val``, ``NAME`` on ``train``."""
        return ("val" if name.startswith(_VAL) else "train"), name.removeprefix(_VAL)
