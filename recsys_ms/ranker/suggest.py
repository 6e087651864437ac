"""What to fine-tune next: the models that are expected to improve most on the best so far.

Recommending orders models by what is expected of them. Suggesting also asks what is *not* known: a
model that may turn out far better is worth a run, and two models that stand or fall together are
not worth two. Both follow from a joint normal belief about all outcomes of the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import ndtri

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.ranker.base import BaseRanker, TaskQuery
from recsys_ms.ranker.intervals import IntervalCalibration
from recsys_ms.ranker.joint import Joint, expected_improvement
from recsys_ms.ranker.known import KnownOutcomes

#: Draws behind what depends on several outcomes at once.
_N_DRAWS: Final = 4096
#: Models that are looked at jointly, best first; the others are too far behind to be the next run.
MAX_JOINT: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is still to be spent on a task.

    Attributes
    ----------
    n_runs : int or None
        Runs; ``None`` for as many as the cost allows.
    cost : float or None
        GPU seconds; ``None`` for no bound. Gains are then judged by the second.
    """

    n_runs: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if self.n_runs is None and self.cost is None:
            raise UsageError("Budget: give n_runs, cost, or both")
        if self.n_runs is not None and self.n_runs < 1:
            raise UsageError(f"Budget: n_runs is {self.n_runs}, wanted at least 1")
        if self.cost is not None and not self.cost > 0:
            raise UsageError(f"Budget: cost is {self.cost}, wanted a positive number of seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """The next runs, in the order to make them.

    Attributes
    ----------
    chosen : ndarray of shape (n_runs,)
        Positions among the candidates.
    gain : ndarray of shape (n_runs,)
        Expected improvement by this run on the best of the observed ones and of those before it.
    p_best : ndarray of shape (n_runs,)
        Probability that it is the best of all candidates and better than all observed ones.
    """

    chosen: IntArray
    gain: FloatArray
    p_best: FloatArray


def believed(
    base: BaseRanker,
    calibration: IntervalCalibration,
    query: TaskQuery,
    model_ids: Sequence[str],
) -> Joint:
    """Joint belief about the outcomes of models, higher is better, in the task's metric.

    How far outcomes stray from what is expected is what held-out tasks said, so that the belief
    agrees with the intervals; how they do so together is the ranker's own.

    Parameters
    ----------
    base : BaseRanker
        Fitted.
    calibration : IntervalCalibration
        Of its intervals.
    query : TaskQuery
        The task, with what was observed.
    model_ids : sequence of str, n_models of them
        Models to ask about.
    """
    scale = base.scale_of(query)
    joint = base.joint(base.view(query), model_ids)
    normal = float(ndtri(0.5 + calibration.coverage / 2))
    sd = calibration.half_width(scale, len(query.observed)) / normal
    return joint.scaled(scale.center, scale.scale, sd=sd, center_sd=min(scale.center_sd, sd))


def next_runs(
    joint: Joint, best: float | None, cost: FloatArray, budget: Budget, *, seed: int = 0
) -> Suggestion:
    """Choose runs one after the other, each the one that is expected to add most to the best.

    The first is by expected improvement in closed form; each further one by what it adds to the
    best of all before it (a greedy choice, within 1 - 1/e of the best set since the expected
    maximum is submodular), over draws from the joint belief.

    Parameters
    ----------
    joint : Joint
        Belief about the candidates, higher is better.
    best : float or None
        Best observed outcome; ``None`` before the first run, which then is judged by the mean.
    cost : ndarray of shape (n_models,)
        Expected cost of a run in GPU seconds, positive.
    budget : Budget
        Where it bounds the cost, gains count by the second and a run that does not fit is left out.
    seed : int
        Of the draws.
    """
    n_models = joint.mean.size
    drawn = joint.draws(_N_DRAWS, named_stream(seed, "suggest"))
    reached = np.full(_N_DRAWS, -np.inf if best is None else best)
    is_best = np.bincount(
        drawn.argmax(axis=1)[drawn.max(axis=1) > reached], minlength=n_models
    ) / float(_N_DRAWS)
    left = np.inf if budget.cost is None else budget.cost
    open_to = np.ones(n_models, dtype=bool)
    chosen: list[int] = []
    gains: list[float] = []
    while open_to.any() and len(chosen) < (budget.n_runs or n_models):
        open_to &= cost <= left
        if not open_to.any():
            break
        gain = _gains(joint, best, drawn, reached, first=not chosen)
        worth = gain / cost if budget.cost is not None else gain
        # Where nothing is expected of any, the likeliest go first.
        key = np.where(open_to, worth, -np.inf)
        at = int(np.lexsort((-joint.mean, -key))[0])
        chosen.append(at)
        gains.append(float(gain[at]))
        reached = np.maximum(reached, drawn[:, at])
        open_to[at] = False
        left -= float(cost[at])
    picked = np.array(chosen, dtype=np.int64)
    return Suggestion(picked, np.array(gains), is_best[picked])


def choose_runs(
    base: BaseRanker,
    calibration: IntervalCalibration,
    known: KnownOutcomes,
    query: TaskQuery,
    candidates: Sequence[str],
    budget: Budget,
    *,
    seed: int,
) -> pd.DataFrame:
    """Choose the next runs of a task among models that were not run on it.

    Returns
    -------
    DataFrame
        One row a run, in the order to make them: ``model_id``, ``gain`` (expected improvement, in
        the task's metric), ``p_best`` and ``expected_cost`` (GPU seconds, NaN where no run of the
        history said what it cost).

    Raises
    ------
    DataError
        All models were run already, no run said what it cost and the budget is in GPU seconds, or
        not one run fits into it.
    """
    open_to = [model for model in candidates if model not in query.observed]
    if not open_to:
        raise DataError(f"every model that may be suggested for {query.task_id!r} was run already")
    if len(open_to) > MAX_JOINT:
        value = base.predict_view(base.view(query), open_to).value
        open_to = [open_to[int(i)] for i in np.argsort(-value, kind="stable")[:MAX_JOINT]]
    said = known.cost_by_model()
    known_costs = [value for value in said.values() if np.isfinite(value)]
    if budget.cost is not None and not known_costs:
        raise DataError(
            "no run of the history says what it cost (cost_gpu_seconds), so that a budget in GPU "
            "seconds cannot be kept; give a number of runs"
        )
    # A model that nobody timed is taken to cost what models do.
    usual = float(np.median(known_costs)) if known_costs else 1.0
    cost = np.array([said.get(model, np.nan) for model in open_to])
    filled = np.maximum(np.where(np.isnan(cost), usual, cost), 1e-9)
    best = max(query.observed.values(), default=None)
    joint = believed(base, calibration, query, open_to)
    found = next_runs(joint, best, filled, budget, seed=seed)
    if not found.chosen.size:
        raise DataError(
            f"no run fits into {budget.cost:g} GPU seconds: the cheapest of {len(open_to)} models "
            f"is expected to take {filled.min():.3g}"
        )
    return pd.DataFrame(
        {
            "model_id": [open_to[int(i)] for i in found.chosen],
            "gain": found.gain,
            "p_best": found.p_best,
            "expected_cost": filled[found.chosen] if known_costs else np.nan,
        }
    )


def _gains(
    joint: Joint, best: float | None, drawn: FloatArray, reached: FloatArray, *, first: bool
) -> FloatArray:
    """Expected improvement of every candidate on what is reached."""
    if not first:
        gained: FloatArray = np.maximum(drawn - reached[:, None], 0.0).mean(axis=0)
        return gained
    if best is None:
        # There is nothing to improve on yet: what a run is expected to reach above the mean of all.
        above: FloatArray = np.maximum(joint.mean - joint.mean.mean(), 0.0)
        return above
    return expected_improvement(joint.mean, joint.sd, best)
