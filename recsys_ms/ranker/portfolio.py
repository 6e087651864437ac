"""The order that finds a good model soonest: a greedy portfolio over plausible tasks.

Trying the k models with the highest expected outcome wastes runs: they tend to succeed and fail on
the same tasks. Regret@k asks for the best *of* k, and the expected best of a set is monotone and
submodular in the set, so greedy choice is within 1 - 1/e of the optimum (Nemhauser, Wolsey & Fisher
1978). Each training task is taken as one scenario of what the new task may be like.
"""

from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray

#: Positions filled greedily; later ones follow the expected outcome.
DEPTH: Final = 20
#: At most this many models compete for the greedy positions (those with the best chances).
_MAX_CANDIDATES: Final = 512
#: At most this many scenarios.
MAX_SCENARIOS: Final = 256


def portfolio_order(
    value: FloatArray, scenarios: FloatArray, *, smoothing: float, depth: int = DEPTH
) -> FloatArray:
    """Sort key of a greedy portfolio.

    The outcome of model j in scenario s is taken as
    ``smoothing * value[j] + (1 - smoothing) * scenarios[s, j]``; each step adds the model that
    raises the mean over scenarios of the best outcome so far the most. Ties go to the higher
    value, then to the earlier position.

    Parameters
    ----------
    value : ndarray of shape (n_models,)
        Expected standardised outcome.
    scenarios : ndarray of shape (n_scenarios, n_models)
        Standardised outcomes of the models on past tasks; NaN where a model was not run, which
        counts as its ``value``.
    smoothing : float
        In [0, 1]; 1 is the order of ``value``.
    depth : int
        Number of greedy positions.

    Returns
    -------
    ndarray of shape (n_models,)
        ``n_models`` for the first pick, then descending to 1.
    """
    n_models = value.size
    by_value = np.argsort(-value, kind="stable")
    if scenarios.shape[0] == 0 or smoothing >= 1.0 or n_models == 0:
        return _key(by_value)
    candidates = _candidates(by_value, scenarios)
    local = scenarios[:, candidates]
    utility = smoothing * value[candidates] + (1.0 - smoothing) * np.where(
        np.isnan(local), value[candidates], local
    )
    best = np.full(scenarios.shape[0], -np.inf)
    open_ = np.ones(candidates.size, dtype=bool)
    chosen: list[int] = []
    for _ in range(min(depth, candidates.size)):
        gain = np.maximum(utility, best[:, None]).mean(axis=0)
        gain[~open_] = -np.inf
        top = np.flatnonzero(gain >= gain.max() - 1e-12)
        # Once every scenario is served, nothing gains: the expected outcome decides.
        pick = int(top[np.argmax(value[candidates[top]])])
        open_[pick] = False
        chosen.append(int(candidates[pick]))
        best = np.maximum(best, utility[:, pick])
    taken = np.zeros(n_models, dtype=bool)
    taken[chosen] = True
    return _key(np.r_[np.array(chosen, dtype=np.int64), by_value[~taken[by_value]]])


def _key(order: IntArray) -> FloatArray:
    key = np.empty(order.size)
    key[order] = np.arange(order.size, 0, -1, dtype=np.float64)
    return key


def _candidates(by_value: IntArray, scenarios: FloatArray) -> IntArray:
    if by_value.size <= _MAX_CANDIDATES:
        return np.arange(by_value.size)
    kept = set(by_value[: _MAX_CANDIDATES // 2].tolist())
    filled = np.where(np.isnan(scenarios), -np.inf, scenarios)
    # Walk down the scenarios' best models, one place of every scenario at a time.
    per_scenario = max(1, _MAX_CANDIDATES // (2 * scenarios.shape[0]))
    leaders = np.argsort(-filled, axis=1, kind="stable")[:, :per_scenario]
    kept.update(leaders.ravel().tolist())
    return np.array(sorted(kept), dtype=np.int64)
