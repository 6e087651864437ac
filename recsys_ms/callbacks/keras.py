"""Records a run of Keras' ``fit``."""

from collections.abc import Mapping
from typing import Any

import keras

from recsys_ms.callbacks.adapter import Adapter
from recsys_ms.history.recorder.recording import Recorder


class KerasCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Record what ``fit`` logs at the end of each epoch.

    ::

        run = rms.recording("H", model_id="m", task_id="t", metric="accuracy")
        model.fit(x, y, validation_data=..., callbacks=[KerasCallback(run)])

    Keras does not report exceptions to callbacks. In a script the run is written as failed when the
    process ends; with ``with run:`` around the training it is written at once.

    Parameters
    ----------
    run : Recorder
        Hyperparameters, if it has none, are the optimizer and its learning rate.
    monitor : str, optional
        Name under which Keras logs the run's metric; default: ``val_<metric>``.
    """

    def __init__(self, run: Recorder, monitor: str | None = None) -> None:
        super().__init__()
        self._adapter = Adapter(run, monitor, unnamed="train")

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin."""
        optimizer = self.model.optimizer
        self._adapter.begin(
            hyperparameters={
                "optimizer": type(optimizer).__name__,
                "learning_rate": float(optimizer.learning_rate),
            }
        )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log an epoch, from 0."""
        self._adapter.log(logs or {}, epoch=epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End."""
        self._adapter.end()
