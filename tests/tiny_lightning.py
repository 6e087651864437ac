"""A linear model and its data for Lightning, and how to train it quietly: for scripts."""

import logging
import warnings

import lightning
import torch

warnings.simplefilter("ignore")
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)

#: Arguments of a Trainer.
QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "devices": 1,
}


class LinearModel(lightning.LightningModule):
    """Subclasses save their hyperparameters, ``lr`` among them."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def loader():
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)
    return torch.utils.data.DataLoader(data, batch_size=4)
