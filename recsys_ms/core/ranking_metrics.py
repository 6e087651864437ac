"""Ranking metrics of one task: predicted order or values against observed outcomes.

Every function takes one task: two vectors of shape (n_models,), higher is better in both, and
answers NaN where the metric is not defined (fewer than two models, or a constant vector). Ties in a
prediction are broken by position, so callers sort models by id first.
"""

import numpy as np

from recsys_ms.core.types import FloatArray

_MIN_MODELS = 2


def pearson(predicted: FloatArray, outcome: FloatArray) -> float:
    """Linear correlation of predicted and observed outcomes, in [-1, 1]."""
    if predicted.size < _MIN_MODELS:
        return float("nan")
    a = predicted - predicted.mean()
    b = outcome - outcome.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    # A constant vector leaves only rounding noise after centring.
    scale = np.sqrt(predicted @ predicted) * np.sqrt(outcome @ outcome)
    if norm <= 1e-14 * max(float(scale), 1e-300):
        return float("nan")
    return float(np.clip((a @ b) / norm, -1.0, 1.0))


def ndcg_at_k(order: FloatArray, outcome: FloatArray, k: int) -> float:
    """Normalised discounted cumulative gain of the first k, in [0, 1].

    The gain is the outcome min-max scaled over the task's models: it does not depend on the unit.
    """
    spread = float(outcome.max() - outcome.min()) if outcome.size else 0.0
    if outcome.size < _MIN_MODELS or spread == 0.0:
        return float("nan")
    gain = (outcome - outcome.min()) / spread
    top = np.argsort(-order, kind="stable")[:k]
    best = np.argsort(-outcome, kind="stable")[:k]
    discount = 1.0 / np.log2(np.arange(2, top.size + 2))
    return float((gain[top] @ discount) / (gain[best] @ discount))


def regret_at_k(order: FloatArray, outcome: FloatArray, k: int) -> float:
    """Best outcome minus the best among the k recommended, in the outcome's unit; 0 is perfect."""
    if outcome.size == 0:
        return float("nan")
    top = np.argsort(-order, kind="stable")[:k]
    return float(outcome.max() - outcome[top].max())
