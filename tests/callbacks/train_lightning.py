"""Records trainings of Lightning: python train_lightning.py FOLDER CASE..."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import lightning
import torch
from tiny_lightning import QUIET, LinearModel, loader

import recsys_ms as rms
from recsys_ms.callbacks import LightningCallback


class CrashError(RuntimeError):
    pass


class Model(LinearModel):
    def __init__(self, lr=0.25, layer=torch.nn.ReLU, nested=None, case=""):
        super().__init__()
        self.save_hyperparameters()
        self.case = case

    def training_step(self, batch, batch_idx):
        if self.current_epoch == 1 and self.case.startswith("crash"):
            raise CrashError("out of luck")
        if self.current_epoch == 1 and self.case == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", torch.tensor(0.5 + 0.1 * self.current_epoch))
        self.log("val/loss", self.loss(batch))


def fit(run, case, **options):
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        callbacks=[LightningCallback(run, **options)],
        **QUIET,
    )
    trainer.fit(Model(nested={"depth": 2}, case=case), loader(), loader())


def main(folder, case):
    run = rms.recording(folder / case, model_id="m", task_id="t", metric="acc", direction="max")
    if case == "monitor":
        fit(run, case, monitor="val/loss")
    elif case == "crash-with":
        with contextlib.suppress(CrashError), run:
            fit(run, case)
    else:
        with contextlib.suppress(CrashError):
            fit(run, case)


for each in sys.argv[2:]:
    main(Path(sys.argv[1]), each)
