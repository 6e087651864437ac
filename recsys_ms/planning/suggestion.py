"""What to fine-tune next: the models that are expected to add most to the best so far.

The same acquisition that orders a recommendation (:meth:`Belief.order`): runs are chosen one after
the other, each the one that raises the expected maximum most, over draws from the joint belief.
A model with a small chance of being far better is worth a run, two highly correlated models are not
worth two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.planning.run_costs import expected_costs
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.arguments import read_count, read_seconds
from recsys_ms.rankers.base import BaseRanker, TaskQuery
from recsys_ms.rankers.belief import Belief, greedy_maximum

#: Most runs of a plan that is bounded by its cost alone.
MAX_PLAN: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Runs and GPU seconds that can still be spent on a task."""

    n_runs: int | None = None  # None for as many as the cost allows
    cost: float | None = None  # GPU seconds, None for no bound

    def __post_init__(self) -> None:
        if self.n_runs is None and self.cost is None:
            raise UsageError("Budget: give n_runs, cost, or both")
        read_count(self.n_runs, "Budget: n_runs", none="as many as the cost allows")
        read_seconds(self.cost, "Budget: cost")


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """The next runs, in the order to make them, each of shape (n_runs,)."""

    chosen: IntArray  # positions among the candidates
    #: Expected improvement on the best of the observed runs and of those before it; without
    #: observed runs, on the mean of the task's models.
    gain: FloatArray
    p_best: FloatArray  # probability that it is the best of all, observed runs included


def next_runs(
    belief: Belief,
    best: float | None,
    cost: FloatArray,
    budget: Budget,
) -> Suggestion:
    """Choose runs one after the other, each the one that is expected to add most to the best.

    With a bound on the cost there are two plans of runs that fit into it: by gain, and by gain per
    second (Snoek, Larochelle & Adams 2012, section 3.2). The one with the larger expected gain is
    taken, which is within (1 - 1/e) / 2 of the best (Leskovec et al. 2007, section 3.2).

    Parameters
    ----------
    belief : Belief
        About the candidates.
    best : float or None
        Best observed outcome, higher is better; ``None`` before the first run.
    cost : ndarray of shape (n_models,)
        Expected cost of a run in GPU seconds, positive.
    budget : Budget
    """
    fits = np.arange(cost.size) if budget.cost is None else np.flatnonzero(cost <= budget.cost)
    if fits.size == 0:
        return Suggestion(fits, np.empty(0), np.empty(0))
    at = fits[belief.take(fits).candidates()]
    part, price = belief.take(at), cost[at]
    scores = part.draws()
    drawn = part.outcomes(scores)
    floor = float(belief.predicted.mean()) if best is None else best
    greedy = partial(
        greedy_maximum,
        scores,
        part.mean,
        min(at.size, budget.n_runs or MAX_PLAN),
        best=None if best is None else belief.normal(best),
        cost=price,
        budget=float("inf") if budget.cost is None else budget.cost,
    )

    def plan(*, per_cost: bool) -> tuple[IntArray, FloatArray]:
        chosen = greedy(per_cost=per_cost)
        reached = np.maximum.accumulate(np.maximum(drawn[chosen], floor), axis=0)
        before = np.vstack([np.full((1, drawn.shape[1]), floor), reached[:-1]])
        return chosen, (reached - before).mean(axis=1) if chosen.size else np.empty(0)

    found = plan(per_cost=False)
    if budget.cost is not None:
        found = max(found, plan(per_cost=True), key=lambda each: each[1].sum())
    winner = drawn.argmax(axis=0)
    beats = drawn.max(axis=0) > (-np.inf if best is None else best)
    p_best = np.bincount(winner[beats], minlength=at.size) / float(drawn.shape[1])
    return Suggestion(at[found[0]], found[1], p_best[found[0]])


def choose_runs(
    base: BaseRanker,
    known: KnownOutcomes,
    query: TaskQuery,
    candidates: Sequence[str],
    budget: Budget,
) -> pd.DataFrame:
    """Choose the next runs of a task among models that were not run on it.

    One row a run, in the order to make them: ``model_id``, ``gain`` (expected improvement, in the
    task's metric), ``p_best`` and ``expected_cost`` (GPU seconds, NaN where no run has a cost).

    Raises
    ------
    DataError
        All models were run already, the budget is in GPU seconds and no run has a cost, or no run
        fits into it.
    """
    open_to = [model for model in candidates if model not in query.observed]
    if not open_to:
        raise DataError(f"every model that may be suggested for {query.task_id!r} was run already")
    cost = expected_costs(known.interactions, query.task_id, open_to)
    if budget.cost is not None and cost is None:
        raise DataError(
            "a budget in GPU seconds needs runs with a cost (cost_gpu_seconds), and the history "
            "has none; give a number of runs"
        )
    filled = np.ones(len(open_to)) if cost is None else cost
    best = max(query.observed.values(), default=None)
    found = next_runs(base.believe(query, open_to), best, filled, budget)
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
