"""Records trainings of transformers' Trainer: python train_hf_trainer.py FOLDER CASE..."""

import contextlib
import sys
from pathlib import Path

# First: it makes the settings of transformers.
import tiny_bert
from transformers import TrainerCallback

import recsys_ms as rms
from recsys_ms.callbacks import HfTrainerCallback


class CrashError(RuntimeError):
    pass


class Crash(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise CrashError("out of luck")


def accuracy(predicted):
    return {"accuracy": tiny_bert.accuracy(predicted)}


def trainer(callbacks):
    return tiny_bert.bert_trainer(
        Path(sys.argv[1]) / "out",
        tiny_bert.samples(),
        accuracy,
        callbacks,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="no",
        learning_rate=0.25,
        seed=11,
    )


def main(folder, case):
    run = rms.recording(
        folder / case, model_id="bert", task_id="birds", metric="accuracy", direction="max"
    )
    if case == "success":
        trained = trainer([HfTrainerCallback(run)])
        trained.train()
        best = max(row["eval_accuracy"] for row in trained.state.log_history if "eval_loss" in row)
        print("best", case, best)
        trained.evaluate()
    elif case == "twice":
        trained = trainer([HfTrainerCallback(run)])
        trained.train()
        trained.train()
    elif case == "crash":
        trainer([HfTrainerCallback(run), Crash()]).train()
    elif case == "caught":
        trained = trainer([HfTrainerCallback(run), Crash()])
        for _ in range(2):
            with contextlib.suppress(CrashError):
                trained.train()
    elif case == "with":
        with contextlib.suppress(CrashError), run:
            trainer([HfTrainerCallback(run), Crash()]).train()
    elif case == "other-rank":
        trained = trainer([HfTrainerCallback(run)])
        trained.is_world_process_zero = lambda: False
        trained.train()
    elif case == "monitor":
        trainer([HfTrainerCallback(run, monitor="eval_nothing")]).train()


for each in sys.argv[2:]:
    main(Path(sys.argv[1]), each)
