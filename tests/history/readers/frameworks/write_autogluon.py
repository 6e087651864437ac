"""Trains with AutoGluon and keeps its leaderboard: python write_autogluon.py FOLDER."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor


def main(folder):
    rng = np.random.default_rng(0)
    expected = {}
    for name, metric in (("class", "accuracy"), ("number", "root_mean_squared_error")):
        data = pd.DataFrame(rng.normal(size=(80, 3)), columns=list("abc"))
        data["label"] = data["a"] + 0.1 * rng.normal(size=80)
        if name == "class":
            data["label"] = (data["label"] > 0).astype(int)
        predictor = TabularPredictor("label", eval_metric=metric, path=str(folder / name))
        predictor.fit(data[:60], hyperparameters={"KNN": {}, "LR": {}}, verbosity=0)
        board = predictor.leaderboard(data[60:], extra_metrics=["r2"] if name == "number" else [])
        board.to_csv(folder / f"leaderboard_{name}.csv", index=False)
        predictor.leaderboard().to_csv(folder / f"validation_{name}.csv")
        expected[name] = dict(zip(board["model"], board["score_test"], strict=True))
        shutil.rmtree(folder / name)
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
