"""Trains with Lightning and CSVLogger: python write_lightning.py FOLDER (no network)."""

import json
import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from tiny_lightning import QUIET, LinearModel, loader


class Model(LinearModel):
    def __init__(self, model="linear", lr=0.1, seed=7, nested=None):
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        accuracy = (self.layer(x).argmax(1) == y).float().mean()
        self.log("val_acc", accuracy)
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch):
        self.log("test_acc", torch.tensor(0.25))


def trainer(folder, epochs, version):
    return lightning.Trainer(
        max_epochs=epochs,
        logger=CSVLogger(folder, name="birds", version=version),
        log_every_n_steps=1,
        enable_checkpointing=True,
        default_root_dir=folder,
        **QUIET,
    )


def main(folder):
    lightning.seed_everything(0, verbose=False)
    model = Model(nested={"depth": 2})
    first = trainer(folder, 2, 0)
    first.fit(model, loader(), loader())
    first.test(model, loader(), verbose=False)
    first.save_checkpoint(folder / "last.ckpt")
    two = trainer(folder, 1, 1)
    two.fit(Model(), loader(), [loader(), loader()])
    resumed = trainer(folder, 4, 2)
    resumed.fit(Model(), loader(), loader(), ckpt_path=folder / "last.ckpt", weights_only=False)
    expected = {name: float(value) for name, value in resumed.callback_metrics.items()}
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
