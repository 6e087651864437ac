"""What to fine-tune next: the models that are expected to improve most on the best so far.

Recommending orders models by what is expected of them. Suggesting also asks what is *not* known: a
model that may turn out far better is worth a run, and two models that stand or fall together are
not worth two. Both follow from a joint normal belief about all outcomes of the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import ndtri

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.ranker.base import BaseRanker, TaskQuery
from recsys_ms.ranker.costs import expected_costs
from recsys_ms.ranker.intervals import IntervalCalibration
from recsys_ms.ranker.joint import Joint
from recsys_ms.ranker.known import KnownOutcomes

#: Draws behind what depends on several outcomes at once.
_N_DRAWS: Final = 4096
#: Runs of a plan that only a cost bounds: a hundredth adds nothing any more.
MAX_PLAN: Final = 100
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
        GPU seconds; ``None`` for no bound.
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
        Expected improvement by this run on the best of the observed ones and of those before it;
        where none was observed, on the mean of the task's models.
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
    return joint.scaled(
        scale.center,
        scale.scale,
        sd=sd,
        center_sd=min(scale.center_sd, sd),
        highest=scale.range[1],
    )


def next_runs(
    joint: Joint,
    best: float | None,
    cost: FloatArray,
    budget: Budget,
    *,
    order: FloatArray,
    seed: int = 0,
) -> Suggestion:
    """Choose runs one after the other, each the one that is expected to add most to the best.

    The first is by expected improvement in closed form, each further one by what it adds to the
    best of all before it, over draws from the joint belief: a greedy choice, within 1 - 1/e of the
    best set since the expected maximum is submodular. Before any outcome, the improvement is that
    on the mean of the task's models, and the ranker's own first choice goes first: its order is
    made for finding a good model among the first few.

    A bound on the cost makes two plans of runs that fit into it: by gain, and by gain per second
    (Snoek, Larochelle & Adams 2012, section 3.2). By the second, many cheap runs of poor models may
    crowd out the one that counts; by gain, one dear run may leave nothing for others. The plan that
    is expected to reach more is taken, which is within (1 - 1/e) / 2 of the best (Leskovec et al.
    2007, section 3.2).

    Parameters
    ----------
    joint : Joint
        Belief about the candidates, higher is better.
    best : float or None
        Best observed outcome; ``None`` before the first run.
    cost : ndarray of shape (n_models,)
        Expected cost of a run in GPU seconds, positive.
    budget : Budget
    order : ndarray of shape (n_models,)
        The ranker's sort key, higher first.
    seed : int
        Of the draws.
    """
    n_models = joint.mean.size
    drawn = np.ascontiguousarray(joint.draws(_N_DRAWS, named_stream(seed, "suggest")).T)
    floor = np.full(_N_DRAWS, -np.inf if best is None else best)
    is_best = np.bincount(
        drawn.argmax(axis=0)[drawn.max(axis=0) > floor], minlength=n_models
    ) / float(_N_DRAWS)
    # Among models drawn above the best possible value, the one drawn highest counts as the best.
    drawn = np.minimum(drawn, joint.highest)
    if best is None:
        floor = drawn.mean(axis=0)
        first_gain = np.maximum(drawn - floor, 0.0).mean(axis=1)
    else:
        first_gain = joint.improvement(best)
    first_key = order if best is None else first_gain
    search = partial(_planned, drawn, floor, first_gain, cost, budget, joint.mean)
    found = search(first_key=first_key)
    if budget.cost is not None:
        by_second = search(first_key=first_gain / cost, per=cost)
        found = max(found, by_second, key=lambda plan: plan[1].sum())
    return Suggestion(*found, is_best[found[0]])


def _planned(
    drawn: FloatArray,
    floor: FloatArray,
    first_gain: FloatArray,
    cost: FloatArray,
    budget: Budget,
    mean: FloatArray,
    *,
    first_key: FloatArray,
    per: FloatArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Greedy choice: positions and gains of the runs, by gain, or by gain per something.

    ``drawn`` has shape (n_models, n_draws), ``floor`` (n_draws,).
    """
    n_models = mean.size
    unit = np.ones(n_models) if per is None else per
    left = np.inf if budget.cost is None else budget.cost
    open_to = np.ones(n_models, dtype=bool)
    chosen: list[int] = []
    gains: list[float] = []
    gain, reached = first_gain, floor
    while len(chosen) < min(n_models, budget.n_runs or MAX_PLAN):
        open_to &= cost <= left
        if not open_to.any():
            break
        if len(chosen) == 1:
            gain = np.maximum(drawn - reached, 0.0).mean(axis=1)
        is_fresh = np.full(n_models, len(chosen) <= 1)
        while True:
            key = first_key if not chosen else gain / unit
            # Where nothing is expected of any, the likeliest go first.
            at = int(np.lexsort((-mean, -np.where(open_to, key, -np.inf)))[0])
            if is_fresh[at]:
                break
            # What a run adds never grows as others are made: gains of before bound those of now.
            gain[at] = np.maximum(drawn[at] - reached, 0.0).mean()
            is_fresh[at] = True
        chosen.append(at)
        gains.append(float(gain[at]))
        reached = np.maximum(reached, drawn[at])
        open_to[at] = False
        left -= float(cost[at])
    return np.array(chosen, dtype=np.int64), np.array(gains)


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
    prediction = base.predict(query, open_to)
    order = prediction.order
    if len(open_to) > MAX_JOINT:
        ahead = np.argsort(-prediction.value, kind="stable")[:MAX_JOINT]
        open_to, order = [open_to[int(i)] for i in ahead], order[ahead]
    cost = expected_costs(known.interactions, query.task_id, open_to)
    if budget.cost is not None and cost is None:
        raise DataError(
            "no run of the history says what it cost (cost_gpu_seconds), so that a budget in GPU "
            "seconds cannot be kept; give a number of runs"
        )
    filled = np.ones(len(open_to)) if cost is None else cost
    best = max(query.observed.values(), default=None)
    joint = believed(base, calibration, query, open_to)
    found = next_runs(joint, best, filled, budget, order=order, seed=seed)
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
            "expected_cost": np.nan if cost is None else cost[found.chosen],
        }
    )
