"""Trains with transformers' Trainer: python write_hf_trainer.py FOLDER (no network)."""

import sys
from pathlib import Path

import numpy as np

# First: it makes the settings of transformers.
import tiny_bert
import torch
from tiny_bert import samples
from transformers import EarlyStoppingCallback, TrainerCallback


class Killed(Exception):
    """Stands for the end of the process in the middle of a training."""


class KillAt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise Killed


def accuracy(predicted):
    distance = float(np.abs(predicted.predictions).sum())
    return {"accuracy": tiny_bert.accuracy(predicted), "distance": distance}


def trainer(folder, evaluated, best, callbacks=(), rate=0.1):
    torch.manual_seed(0)
    return tiny_bert.bert_trainer(
        folder,
        evaluated,
        accuracy,
        callbacks,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        learning_rate=rate,
        metric_for_best_model=best,
        greater_is_better=not best.endswith("loss"),
        load_best_model_at_end=True,
        seed=7,
    )


def main(folder):
    plain = trainer(folder / "plain", samples(1), "eval_loss")
    result = plain.train()
    plain.save_state()
    plain.save_metrics("train", result.metrics)
    plain.save_metrics("eval", plain.evaluate())
    plain.create_model_card(
        finetuned_from="org/tiny-bert", dataset="Birds", dataset_tags="birds", dataset_args="small"
    )
    sets = trainer(folder / "sets", {"a": samples(1), "a_b": samples(2)}, "eval_a_loss")
    sets.train()
    sets.save_state()
    # No step changes anything: the second evaluation is no better, and the Trainer stops.
    stopped = trainer(folder / "stopped", samples(1), "eval_loss", [EarlyStoppingCallback(1)], 0.0)
    stopped.train()
    stopped.save_state()
    diverged = trainer(folder / "diverged", samples(1), "eval_loss", rate=1e30)
    diverged.train()
    diverged.save_state()
    held_out = diverged.evaluate(metric_key_prefix="test")
    diverged.save_metrics("holdout", held_out, combined=False)
    for name in ("killed", "resumed"):
        try:
            trainer(folder / name, samples(1), "eval_loss", [KillAt()]).train()
        except Killed:
            pass
    trainer(folder / "resumed", samples(1), "eval_loss").train(resume_from_checkpoint=True)


main(Path(sys.argv[1]))
