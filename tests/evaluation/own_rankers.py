"""Rankers and metrics as a person outside would write them: no base class, plain answers."""

import numpy as np
import pandas as pd


class Mine:
    """Mean outcome of a model, times a factor; says how often it was fitted."""

    def __init__(self, factor=1.0):
        self.factor = factor
        self.n_fits = 0

    def fit(self, interactions, catalog, *, rng):
        self.n_fits += 1
        if self.n_fits > 1:
            raise RuntimeError("fitted twice")
        frame = pd.DataFrame({"m": interactions.model_index, "y": interactions.outcomes})
        mean = frame.groupby("m")["y"].mean()
        self.mean_ = {interactions.model_ids[int(i)]: float(y) for i, y in mean.items()}
        self.rng = rng

    def values(self, model_ids):
        return [self.factor * self.mean_.get(model_id, 0.0) for model_id in model_ids]

    def predict(self, query, model_ids):
        return self.values(model_ids)


class ByArray(Mine):
    def predict(self, query, model_ids):
        return np.array(self.values(model_ids))


class ByDict(Mine):
    def predict(self, query, model_ids):
        return dict(zip(model_ids, self.values(model_ids), strict=True)) | {"another": 9.0}


class BySeries(Mine):
    """By model id, in another order than was asked for."""

    def predict(self, query, model_ids):
        return pd.Series(self.values(model_ids), index=list(model_ids)).sort_index(ascending=False)


class Short(Mine):
    def predict(self, query, model_ids):
        return self.values(model_ids)[:-1]


class Undecided(Mine):
    def predict(self, query, model_ids):
        return [float("nan")] * len(model_ids)


class Forgetful(Mine):
    def predict(self, query, model_ids):
        return {model_ids[0]: 1.0}


class Estimator:
    """What scikit-learn has: another contract."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X


def top_is_best(prediction, outcomes):
    return float(np.argmax(prediction.order) == np.argmax(outcomes))
