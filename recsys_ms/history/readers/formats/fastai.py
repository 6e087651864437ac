"""fastai's ``CSVLogger``: ``history.csv``, one row an epoch."""

from collections.abc import Sequence
from typing import ClassVar, Final

from recsys_ms.history.readers.formats.metric_csv import EPOCH, MetricFile

_TRAIN: Final = "train_loss"
_VALID: Final = "valid_loss"
#: Minutes and seconds of an epoch.
_TIME: Final = "time"


class Fastai(MetricFile):
    """Files of ``fastai.callback.progress.CSVLogger``.

    The columns are ``epoch`` (from 0), ``train_loss``, ``valid_loss``, the metrics of the learner,
    which fastai computes on the validation set (split ``valid``), and ``time``. With
    ``append=True`` each ``fit`` begins with a header and epoch 0: it is a run of its own. The log
    names neither model nor data set nor a direction; ``_folder`` is the learner's ``path``.
    """

    name: ClassVar[str] = "fastai"
    wanted: ClassVar[str] = "a file of CSVLogger: epoch,train_loss,valid_loss,…,time"

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether the columns are those of a learner's recorder."""
        return names[:1] == [EPOCH] and {_TRAIN, _TIME} <= set(names) and "step" not in names

    def parts(self, name: str) -> tuple[str | None, str]:
        """Every metric is on ``valid``, except for the training loss."""
        if name == _TRAIN:
            return "train", "loss"
        return "valid", "loss" if name == _VALID else name
