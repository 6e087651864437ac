"""Replay: how soon a policy for choosing runs finds the best model of an unseen task.

Each task of a history is held out in turn. A policy picks a model, is given the outcome that the
history holds for it, picks the next, and so on. Its regret after k runs is the best outcome of the
task minus the best among its k picks.

Budgets can be GPU seconds instead. The unit is then the task's average run: a policy may spend as
many seconds as k average runs of the task take.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import Executor, SerialExecutor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.evaluation.bootstrap import bootstrap_intervals
from recsys_ms.evaluation.folds import Fold, HeldOut, can_believe
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.evaluation.result import POPULARITY, RANDOM
from recsys_ms.evaluation.text_table import TextTable
from recsys_ms.history.interactions import Interactions
from recsys_ms.planning.run_costs import expected_costs
from recsys_ms.planning.suggestion import Budget, next_runs
from recsys_ms.rankers.base import BaseRanker
from recsys_ms.rankers.ranker_names import make_ranker

#: Policy that follows expected improvement under a ranker's belief.
EI: Final = "+ei"
#: The same within a budget of GPU seconds.
PLAN: Final = "+plan"
_N_RANDOM: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Regret of every policy after every run.

    Attributes
    ----------
    regret : DataFrame
        Columns ``policy``, ``task_id``, ``n_runs`` and ``regret`` (the task's metric; 0 once its
        best model was tried). With ``by_cost``, ``n_runs`` is the budget of GPU seconds in units of
        the task's average run; where no run fits, the regret is that of the task's worst model.
    seed : int
    by_cost : bool
        Whether budgets are GPU seconds.
    """

    regret: pd.DataFrame
    seed: int
    by_cost: bool = False

    def table(self, after: Sequence[float] = (1, 3, 5, 10)) -> pd.DataFrame:
        """Mean regret over tasks after some numbers of runs, with 95 % bootstrap intervals.

        With ``by_cost``, ``after`` are replayed budgets.

        Returns
        -------
        DataFrame
            One row per policy and number of runs: ``policy``, ``n_runs``, ``mean``, ``low``,
            ``high``, and ``difference``, ``difference_low``, ``difference_high`` to popularity,
            paired over tasks.
        """
        rows = []
        for n_runs in after:
            at = self.regret[self.regret["n_runs"] == n_runs]
            if at.empty:
                continue
            by_task = at.pivot(index="task_id", columns="policy", values="regret")
            for policy in dict.fromkeys(self.regret["policy"]):
                own = by_task[policy].to_numpy()
                both = np.column_stack([own, own - by_task[POPULARITY].to_numpy()])
                rng = named_stream(self.seed, "simulate", policy, f"{n_runs:g}")
                ends = bootstrap_intervals(both, rng)
                rows.append((policy, n_runs, own.mean(), *ends[0], both[:, 1].mean(), *ends[1]))
        names = ["policy", "n_runs", "mean", "low", "high"]
        return pd.DataFrame(
            rows, columns=[*names, "difference", "difference_low", "difference_high"]
        )

    def texts(self, after: Sequence[float] = (1, 3, 5, 10)) -> TextTable:
        """:meth:`table` as texts, a row per policy.

        ``+`` and ``−`` mean better and worse than popularity: the interval of the paired difference
        excludes 0.
        """
        table = self.table(after)
        said = "cost of" if self.by_cost else "after"
        headings = ("policy", *(f"{said} {n:g}" for n in dict.fromkeys(table["n_runs"])))
        rows = []
        for policy, own in table.groupby("policy", sort=False):
            cells = [str(policy)]
            for row in own.to_dict("records"):
                better, worse = row["difference_high"] < 0, row["difference_low"] > 0
                mark = " +" if better else " −" if worse else ""
                cells.append(f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]{mark}")
            rows.append(tuple(cells))
        unit = ", by GPU seconds (unit: the task's average run)" if self.by_cost else ""
        return TextTable(
            caption=f"regret on a held-out task{unit}",
            notes="Mean over tasks [95 % bootstrap interval over tasks]; + / − better / worse than "
            "popularity, where the interval of the paired difference excludes 0.",
            headings=headings,
            rows=tuple(rows),
            numeric=frozenset(range(1, len(headings))),
        )

    def markdown(self, after: Sequence[float] = (1, 3, 5, 10)) -> str:
        """:meth:`texts` as Markdown, without the caption."""
        return self.texts(after).markdown() + "\n"


def simulate(
    interactions: Interactions,
    *,
    catalog: Catalog | None = None,
    policies: Sequence[str],
    n_runs: int = 10,
    budgets: Sequence[float] = (),
    max_tasks: int | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
) -> Simulation:
    """Replay policies on the tasks of a history.

    Parameters
    ----------
    interactions : Interactions
        The history; the candidates of a held-out task are the models that were run on it.
    catalog : Catalog, optional
        Cards, known to every policy, including that of the held-out task.
    policies : sequence of str
        ``NAME``: the ranker's first choice, updated after each outcome; ``NAME+ei``: the
        largest expected improvement under its belief; ``NAME+plan``: the first run that
        ``suggest`` plans for the remaining GPU seconds. ``random`` and ``popularity`` are
        always there; of ``random`` the mean of 50 orders is taken.
    n_runs : int
        Number of runs to replay, at most the number of models of the task.
    budgets : sequence of float
        Instead of ``n_runs``: GPU seconds to spend, each a separate replay, in units of the task's
        average run. Policies leave out models whose expected cost exceeds the remaining budget.
    max_tasks : int, optional
        Number of tasks to hold out at most.
    seed : int
        Of rankers, folds and draws.
    executor : Executor, optional
        Where folds run.
    progress : Progress

    Raises
    ------
    UsageError
        An unknown ranker, or fewer than one run.
    DataError
        Fewer than two tasks; or budgets are given and no run has a cost.
    """
    if n_runs < 1:
        raise UsageError(f"simulate: n_runs is {n_runs}, expected at least 1")
    wanted = list(dict.fromkeys((RANDOM, POPULARITY, *policies)))
    for policy in wanted:
        make_ranker(_name_of(policy))
    if not budgets and any(policy.endswith(PLAN) for policy in wanted):
        raise UsageError(f"simulate: policies {PLAN} plan for GPU seconds; give budgets of them")
    if any(not budget > 0 for budget in budgets):
        raise UsageError(f"simulate: budgets are {list(budgets)}, expected positive numbers")
    if budgets and np.isnan(interactions.costs).all():
        raise DataError(
            "no run of the history has a cost (cost_gpu_seconds), so budgets of GPU seconds cannot "
            "be replayed; map the field, or count runs"
        )
    protocol = LeaveOneTaskOut(max_tasks=max_tasks)
    work = partial(
        _replayed,
        catalog=catalog,
        policies=wanted,
        n_runs=n_runs,
        costs=_costs_by_task(interactions) if budgets else {},
        budgets=tuple(budgets),
        seed=seed,
    )
    folds = protocol.folds(interactions, catalog, seed=seed)
    tables = list(
        progress.track(
            (executor or SerialExecutor()).map(work, folds),
            total=protocol.n_folds(interactions),
            description="replay",
        )
    )
    return Simulation(regret=pd.concat(tables, ignore_index=True), seed=seed, by_cost=bool(budgets))


@dataclass(frozen=True, slots=True, eq=False)
class _Purse:
    """Budget of a task: expected and real cost of each model's run, and the total to spend."""

    expected: FloatArray
    real: FloatArray
    total: float

    @classmethod
    def of_runs(cls, n_models: int, n_runs: int) -> "_Purse":
        """Each run takes 1."""
        return cls(np.ones(n_models), np.ones(n_models), float(n_runs))

    @classmethod
    def of_costs(cls, expected: FloatArray, logged: FloatArray, budget: float) -> "_Purse":
        """The task's average run takes 1; how models differ is known as expected only."""
        expected = expected / expected.mean()
        known = logged > 0.0
        usual = float(logged[known].mean()) if known.any() else 1.0
        # A run without a logged cost takes what is expected.
        return cls(expected, np.where(known, logged / usual, expected), budget)

    def left(self, tried: Sequence[int]) -> float:
        """The remaining budget."""
        return self.total - float(self.real[tried].sum()) + 1e-9

    def open_to(self, tried: Sequence[int]) -> list[int]:
        """Untried models that are expected to fit into the remaining budget."""
        fits = self.expected <= self.left(tried)
        fits[tried] = False
        found: list[int] = np.flatnonzero(fits).tolist()
        return found

    def ended(self, picks: IntArray) -> IntArray:
        """Picks that ended within the budget."""
        return picks[np.cumsum(self.real[picks]) <= self.total + 1e-9]


def _replayed(
    fold: Fold,
    *,
    catalog: Catalog | None,
    policies: Sequence[str],
    n_runs: int,
    costs: Mapping[str, Mapping[str, float]],
    budgets: Sequence[float],
    seed: int,
) -> pd.DataFrame:
    """Regret of all policies on the task of one fold."""
    players: dict[str, _Player] = {}
    rows: list[tuple[str, str, float, float]] = []
    for held_out in fold.held_out:
        task, models, outcomes = held_out.query.task_id, held_out.model_ids, held_out.outcomes
        expected = expected_costs(fold.train, task, models)
        # If only the held-out task was timed, all models are expected to cost the same.
        expected = np.ones(len(models)) if expected is None else expected
        own = costs.get(task, {})
        logged = np.array([own.get(model, np.nan) for model in models])
        purses = [_Purse.of_costs(expected, logged, budget) for budget in budgets]
        for policy in policies:
            name = _name_of(policy)
            if policy != RANDOM and name not in players:
                players[name] = _Player(name, fold, catalog, seed)
            for purse in purses or [_Purse.of_runs(len(models), n_runs)]:
                if policy == RANDOM:
                    orders = _random_picks(purse, seed, task)
                else:
                    orders = [players[name].picks(held_out, policy, purse)]
                if budgets:
                    final = np.mean([_regret(outcomes, purse.ended(picks))[-1] for picks in orders])
                    rows.append((policy, task, purse.total, float(final)))
                else:
                    regret = np.mean([_regret(outcomes, picks)[1:] for picks in orders], axis=0)
                    # Once all models are tried nothing changes.
                    padded = np.append(regret, np.repeat(regret[-1], n_runs - regret.size))
                    rows.extend((policy, task, k + 1, float(v)) for k, v in enumerate(padded))
    return pd.DataFrame(rows, columns=["policy", "task_id", "n_runs", "regret"])


class _Player:
    """A ranker that is trained without the task and chooses runs on it."""

    def __init__(self, name: str, fold: Fold, catalog: Catalog | None, seed: int) -> None:
        catalog = catalog if catalog is not None else Catalog.empty()
        stream = named_stream(seed, "simulate", fold.name, name)
        self._ranker: BaseRanker = make_ranker(name).fit(fold.train, catalog, rng=stream)

    def picks(self, held_out: HeldOut, policy: str, purse: _Purse) -> IntArray:
        """Positions of the models in the order in which they are tried."""
        asked, outcomes = held_out.query, held_out.outcomes
        tried: list[int] = []
        while left := purse.open_to(tried):
            seen = {held_out.model_ids[i]: float(outcomes[i]) for i in tried}
            now = replace(asked, observed=seen)
            names = [held_out.model_ids[i] for i in left]
            if policy == _name_of(policy) or not can_believe(self._ranker, now):
                at = int(np.argmax(self._ranker.predict(now, names).order))
            else:
                is_plan = policy.endswith(PLAN)
                budget = Budget(cost=purse.left(tried)) if is_plan else Budget(n_runs=1)
                best = max(seen.values(), default=None)
                belief = self._ranker.believe(now, names)
                at = int(next_runs(belief, best, purse.expected[left], budget).chosen[0])
            tried.append(left[at])
        return np.array(tried, dtype=np.int64)


def _name_of(policy: str) -> str:
    """The ranker that a policy asks."""
    return policy.removesuffix(PLAN).removesuffix(EI)


def _costs_by_task(interactions: Interactions) -> dict[str, dict[str, float]]:
    costs = pd.Series(interactions.costs, np.take(interactions.model_ids, interactions.model_index))
    return {
        task: costs[interactions.task_index == row].to_dict()
        for row, task in enumerate(interactions.task_ids)
    }


def _regret(outcomes: FloatArray, picks: IntArray) -> FloatArray:
    """Regret before any and after each of some picks, shape (n_picks + 1,)."""
    reached = np.append(outcomes.min(), np.maximum.accumulate(outcomes[picks]))
    found: FloatArray = outcomes.max() - reached
    return found


def _random_picks(purse: _Purse, seed: int, task: str) -> list[IntArray]:
    rng = named_stream(seed, "simulate", "random", task)
    found = []
    for _ in range(_N_RANDOM):
        tried: list[int] = []
        left = purse.total + 1e-9
        for at in rng.permutation(purse.real.size).tolist():
            if purse.expected[at] <= left:
                tried.append(at)
                left -= float(purse.real[at])
        found.append(np.array(tried, dtype=np.int64))
    return found
