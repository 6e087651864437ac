"""Records a run of transformers' ``Trainer``."""

from collections.abc import Mapping
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recsys_ms.callbacks.adapter import Adapter
from recsys_ms.history.recorder.recording import Recorder

_SETTINGS: Final = (
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
)


class HfTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Record what a ``Trainer`` logs, in the first process only.

    ::

        run = rms.recording("H", model_id="m", task_id="t", metric="accuracy")
        Trainer(..., callbacks=[HfTrainerCallback(run)]).train()

    The ``Trainer`` does not report exceptions to callbacks. In a script the run is written as
    failed when the process ends; with ``with run:`` around the training it is written at once.

    Parameters
    ----------
    run : Recorder
        Seed and hyperparameters that it does not have come from the ``TrainingArguments``.
    monitor : str, optional
        Name under which the ``Trainer`` logs the run's metric; default: ``eval_<metric>``.
    """

    def __init__(self, run: Recorder, monitor: str | None = None) -> None:
        self._adapter = Adapter(run, monitor, unnamed="train")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin."""
        if state.is_world_process_zero:
            named = {name: getattr(args, name, None) for name in _SETTINGS}
            self._adapter.begin(
                seed=args.seed,
                hyperparameters={
                    # Enumerations are texts of their own class.
                    name: str(getattr(value, "value", value)) if isinstance(value, str) else value
                    for name, value in named.items()
                    if value is not None
                },
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Log training steps and evaluations."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            values = {name: value for name, value in logs.items() if name != "epoch"}
            self._adapter.log(values, epoch=state.epoch, step=state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """End."""
        self._adapter.end()
