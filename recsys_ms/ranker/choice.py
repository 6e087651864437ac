"""What the blend chooses on held-out predictions: weights of candidates, and the order.

Both choices are cautious: a candidate replaces the default only if it is better on the held-out
tasks by more than two standard errors of the paired difference. With seven tasks, the best of ten
candidates on the training tasks is often not the best on the eighth.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy.optimize import nnls

from recsys_ms.core.metrics import pearson, regret_at_k
from recsys_ms.core.types import FloatArray, IntArray

#: Standard errors that the paired gain of another blend, or another order, must exceed.
_CAUTION: Final = 2.0
#: Name of the blend whose weights are learned.
_STACKED: Final = "stacked"
#: A gain in mean Pearson below this is not worth another blend, however sure it is.
_LEAST_GAIN: Final = 0.0005
#: An order is judged by regret@k in standard deviations of the task; the first pick counts double.
_REGRET_WEIGHTS: Final = {1: 0.4, 3: 0.2, 5: 0.2, 10: 0.2}


def blends(names: Sequence[str], default: str) -> dict[str, FloatArray]:
    """Weight vectors to choose from: each candidate, the default with each, and all alike."""
    unit = dict(zip(names, np.eye(len(names)), strict=True))
    found = dict(unit)
    for name in names:
        if name != default:
            found[f"{default} + {name}"] = (unit[default] + unit[name]) / 2
    if len(names) > 2:
        found["all"] = np.full(len(names), 1.0 / len(names))
    return found


def choose_blend(
    names: Sequence[str],
    held_out: FloatArray,
    score: FloatArray,
    group: IntArray,
    *,
    default: str,
) -> tuple[FloatArray, dict[str, float]]:
    """Weights of the candidates with the highest mean Pearson over groups.

    Besides fixed blends there is a stacked one (Wolpert 1992; Breiman 1996, Eq. 7): non-negative
    least squares on the held-out predictions. It is judged group by group with the weights that the
    other groups give it.

    Parameters
    ----------
    names : sequence of str
        Candidates, the columns of ``held_out``.
    held_out : ndarray of shape (n_rows, n_candidates)
        Predictions that did not see the row's group; NaN where there is none.
    score : ndarray of shape (n_rows,)
        Standardised outcomes.
    group : ndarray of shape (n_rows,)
        Task (or fold) of each row: what the correlation is taken within.
    default : str
        The candidate to stay with when in doubt.

    Returns
    -------
    weights : ndarray of shape (n_candidates,)
        Non-negative; summing to 1 unless they are stacked.
    table : dict of str to float
        Mean Pearson of every blend considered.
    """
    usable = ~np.isnan(held_out).any(axis=1)
    parts = [np.flatnonzero(usable & (group == g)) for g in np.unique(group[usable])]
    skill: dict[str, FloatArray] = {}
    considered = blends(names, default)
    for name, weights in considered.items():
        blended = held_out @ weights
        # A prediction without spread orders nothing: it is worth a correlation of 0.
        skill[name] = np.nan_to_num(
            np.array([pearson(blended[rows], score[rows]) for rows in parts])
        )
    considered[_STACKED], skill[_STACKED] = _stacked(held_out, score, parts)
    chosen = cautious_best(skill, default=default, caution=_CAUTION, least=_LEAST_GAIN)
    return considered[chosen], {name: float(values.mean()) for name, values in skill.items()}


def _stacked(
    held_out: FloatArray, score: FloatArray, parts: Sequence[IntArray]
) -> tuple[FloatArray, FloatArray]:
    """Weights from all groups, and the Pearson of each group under those from the others."""
    grams = np.array([held_out[rows].T @ held_out[rows] for rows in parts])
    products = np.array([held_out[rows].T @ score[rows] for rows in parts])
    gram, product = grams.sum(axis=0), products.sum(axis=0)
    skill = [
        pearson(held_out[rows] @ _least_squares(gram - own, product - its), score[rows])
        for rows, own, its in zip(parts, grams, products, strict=True)
    ]
    return _least_squares(gram, product), np.nan_to_num(np.array(skill))


def _least_squares(gram: FloatArray, product: FloatArray) -> FloatArray:
    """Minimise ``wᵀ gram w − 2 wᵀ product`` over w ≥ 0."""
    size = max(float(np.trace(gram)) / len(gram), 1e-12)
    root = np.linalg.cholesky(gram + 1e-8 * size * np.eye(len(gram)))
    weights: FloatArray = nnls(root.T, np.linalg.solve(root, product))[0]
    return weights


def order_loss(key: FloatArray, outcome: FloatArray) -> float:
    """Weighted regret of an order on one task, in standard deviations of the task's outcomes."""
    spread = float(outcome.std())
    if spread == 0.0:
        return 0.0
    total = sum(w * regret_at_k(key, outcome, k) for k, w in _REGRET_WEIGHTS.items())
    return total / spread


def choose_order(losses: Mapping[str, Sequence[float]], *, default: str) -> str:
    """The order with the smallest mean loss, or ``default`` when in doubt."""
    gains = {name: -np.asarray(values) for name, values in losses.items()}
    return cautious_best(gains, default=default, caution=_CAUTION)


def cautious_best(
    skill: Mapping[str, FloatArray], *, default: str, caution: float, least: float = 1e-12
) -> str:
    """The best of the names that are clearly better than ``default``; that one if none is.

    Clearly better: the mean gain, less ``caution`` standard errors, is above ``least``. Among those
    the highest mean wins: caution is about leaving the default, not about how to.

    Parameters
    ----------
    skill : mapping of name to ndarray of shape (n_tasks,)
        Higher is better.
    """
    best, best_gain = default, 0.0
    for name, values in skill.items():
        difference = values - skill[default]
        if difference.size < 2:
            continue
        error = float(difference.std(ddof=1)) / np.sqrt(difference.size)
        gain = float(difference.mean())
        if gain - caution * error > least and gain > best_gain:
            best, best_gain = name, gain
    return best
