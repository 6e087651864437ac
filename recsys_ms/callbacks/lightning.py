"""Records a run of Lightning's ``Trainer``."""

from collections.abc import Mapping
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    # The same framework under its older name.
    from pytorch_lightning import Callback, LightningModule, Trainer

from recsys_ms.callbacks.adapter import Adapter
from recsys_ms.history.recorder.recording import Recorder


class LightningCallback(Callback):  # type: ignore[misc]
    """Record what a module logs, in the process of rank zero only.

    ::

        run = rms.recording("H", model_id="m", task_id="t", metric="accuracy")
        Trainer(callbacks=[LightningCallback(run)]).fit(module, data)

    An exception in ``fit`` writes a failed run with its class.

    Parameters
    ----------
    run : Recorder
        Hyperparameters, if it has none, come from the module's ``hparams``.
    monitor : str, optional
        Name under which the module logs the run's metric; default: the metric itself, or with the
        prefix of a split (``val_accuracy``, ``val/accuracy``).
    """

    def __init__(self, run: Recorder, monitor: str | None = None) -> None:
        self._adapter = Adapter(run, monitor, unnamed=None)
        self._validated: set[str] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        if trainer.is_global_zero:
            named = pl_module.hparams
            self._adapter.begin(hyperparameters=_plain(named) if named else None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of the validation."""
        if trainer.sanity_checking:
            return
        values = trainer.callback_metrics
        names = {name for name in values if not self._adapter.is_of_training(name)}
        self._validated |= names
        self._log(trainer, {name: values[name] for name in names})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rest."""
        values = trainer.callback_metrics
        names = set(values) - self._validated
        self._log(trainer, {name: values[name] for name in sorted(names)})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        self._adapter.end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End with an error."""
        self._adapter.end(exception)

    def _log(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        if trainer.is_global_zero:
            self._adapter.log(values, epoch=trainer.current_epoch, step=trainer.global_step)


def _plain(value: Any) -> Any:
    """Settings as JSON data; modules, functions and other objects as their ``repr``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
