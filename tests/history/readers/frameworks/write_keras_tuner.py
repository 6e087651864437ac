"""Searches with Keras Tuner on torch: python write_keras_tuner.py FOLDER (no network)."""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import keras_tuner
import numpy as np


def build(hp):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    rate = hp.Float("lr", 0.01, 1.0, sampling="log")
    model.compile(
        keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def main(folder):
    tuner = keras_tuner.RandomSearch(
        build,
        objective="val_accuracy",
        max_trials=3,
        seed=0,
        directory=str(folder),
        project_name="points",
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype("float32"), np.arange(8) % 2
    tuner.search(x, y, epochs=2, validation_data=(x, y), verbose=0)
    scores = {trial.trial_id: trial.score for trial in tuner.oracle.trials.values()}
    (folder / "expected.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
