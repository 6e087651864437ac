"""Logs with DVCLive: python write_dvclive.py FOLDER (no network)."""

import json
import os
import sys
from pathlib import Path

from dvclive import Live

ACCURACIES, LOSSES = [0.5, 0.75, 0.625], [1.5, 1.0, 1.25]


def main(folder):
    # DVCLive writes into the repository that it is run in.
    os.chdir(folder)
    with Live(str(folder / "dvclive"), save_dvc_exp=False, dvcyaml=None) as live:
        live.log_params({"model": "resnet18", "dataset": "birds", "optim": {"lr": 0.1}, "seed": 3})
        for accuracy, loss in zip(ACCURACIES, LOSSES, strict=True):
            live.log_metric("train/loss", loss)
            live.log_metric("eval/accuracy", accuracy)
            live.next_step()
        live.log_metric("test_f1", 0.7)
    (folder / "expected.json").write_text(
        json.dumps({"eval/accuracy": ACCURACIES, "train/loss": LOSSES, "test_f1": [0.7]})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
