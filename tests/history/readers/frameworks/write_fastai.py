"""Trains with fastai and CSVLogger: python write_fastai.py FOLDER (no network)."""

import json
import sys
from pathlib import Path

import torch
from fastai.callback.progress import CSVLogger
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy, error_rate


def loaders():
    torch.manual_seed(0)
    x = torch.randn(32, 3)
    samples = list(zip(x, (x[:, 0] > 0).long(), strict=True))
    return DataLoaders.from_dsets(samples[:24], samples[24:], bs=8, device="cpu")


def learner(folder, name, **settings):
    torch.manual_seed(0)
    logger = CSVLogger(fname=name, **settings)
    return Learner(
        loaders(),
        torch.nn.Linear(3, 2),
        loss_func=torch.nn.CrossEntropyLoss(),
        metrics=[accuracy, error_rate],
        path=folder,
        cbs=[logger],
    )


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    plain = learner(folder, "history.csv")
    plain.fit(3, 0.1)
    names = plain.recorder.metric_names[1:-1]
    values = [[float(value) for value in row] for row in plain.recorder.values]
    columns = {
        name: list(each) for name, each in zip(names, zip(*values, strict=True), strict=True)
    }
    (folder / "expected.json").write_text(json.dumps(columns))
    both = learner(folder, "appended.csv", append=True)
    both.fit(1, 0.1)
    both.fit(2, 0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
