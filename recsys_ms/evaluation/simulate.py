"""Replay: how soon a way of choosing runs finds the best model of a task nobody has seen.

Each task of a history is held out in turn. A policy picks a model, is told the outcome that the
history holds for it, picks the next, and so on. Its regret after k runs is the best outcome of the
task minus the best among its k picks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import Executor, SerialExecutor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.evaluation.bootstrap import bootstrap_intervals
from recsys_ms.evaluation.folds import Fold
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.evaluation.result import POPULARITY, RANDOM
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import BaseRanker, TaskQuery
from recsys_ms.ranker.calibrate import calibrate
from recsys_ms.ranker.joint import expected_improvement
from recsys_ms.ranker.names import make_ranker
from recsys_ms.ranker.suggest import believed

#: Policy that follows expected improvement under a ranker's belief.
EI: Final = "+ei"
_COVERAGE: Final = 0.8
_N_RANDOM: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Regret of every policy after every run.

    Attributes
    ----------
    regret : DataFrame
        Columns ``policy``, ``task_id``, ``n_runs`` and ``regret`` (the task's metric; 0 once its
        best model was tried).
    seed : int
    """

    regret: pd.DataFrame
    seed: int

    def table(self, after: Sequence[int] = (1, 3, 5, 10)) -> pd.DataFrame:
        """Mean regret over tasks after some numbers of runs, with 95 % bootstrap intervals.

        Returns
        -------
        DataFrame
            One row a policy and number of runs: ``policy``, ``n_runs``, ``mean``, ``low``,
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
                rng = named_stream(self.seed, "simulate", policy, str(n_runs))
                ends = bootstrap_intervals(both, rng)
                rows.append((policy, n_runs, own.mean(), *ends[0], both[:, 1].mean(), *ends[1]))
        names = ["policy", "n_runs", "mean", "low", "high"]
        return pd.DataFrame(
            rows, columns=[*names, "difference", "difference_low", "difference_high"]
        )

    def lines(self, after: Sequence[int] = (1, 3, 5, 10)) -> list[list[str]]:
        """:meth:`table` for people: a heading, then a row a policy.

        ``+`` and ``−`` say better and worse than popularity, where the interval of the paired
        difference leaves out 0.
        """
        table = self.table(after)
        found = [["policy", *(f"after {n}" for n in dict.fromkeys(table["n_runs"]))]]
        for policy, own in table.groupby("policy", sort=False):
            cells = [str(policy)]
            for row in own.to_dict("records"):
                better, worse = row["difference_high"] < 0, row["difference_low"] > 0
                mark = " +" if better else " −" if worse else ""
                cells.append(f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]{mark}")
            found.append(cells)
        return found

    def markdown(self, after: Sequence[int] = (1, 3, 5, 10)) -> str:
        """:meth:`lines` as Markdown."""
        head, *rows = ("| " + " | ".join(cells) + " |" for cells in self.lines(after))
        rule = "|---|" + "---:|" * (head.count("|") - 2)
        return "\n".join([head, rule, *rows, ""])


def simulate(
    interactions: Interactions,
    *,
    catalog: Catalog | None = None,
    policies: Sequence[str],
    n_runs: int = 10,
    max_tasks: int | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
) -> Simulation:
    """Replay policies on the tasks of a history.

    Parameters
    ----------
    interactions : Interactions
        The history; a held-out task offers the models that were run on it.
    catalog : Catalog, optional
        Cards, known to every policy, those of the held-out task too.
    policies : sequence of str
        ``NAME``: the ranker's first choice, asked again after each outcome; ``NAME+ei``: the
        largest expected improvement under its belief. ``random`` and ``popularity`` are always
        there; of ``random`` the mean of 50 orders is taken.
    n_runs : int
        Runs to replay, at most as many as the task has models.
    max_tasks : int, optional
        Tasks to hold out at most.
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
        Fewer than two tasks.
    """
    if n_runs < 1:
        raise UsageError(f"simulate: n_runs is {n_runs}, wanted at least 1")
    wanted = list(dict.fromkeys((RANDOM, POPULARITY, *policies)))
    for policy in wanted:
        make_ranker(policy.removesuffix(EI))
    protocol = LeaveOneTaskOut(max_tasks=max_tasks)
    work = partial(_replayed, catalog=catalog, policies=wanted, n_runs=n_runs, seed=seed)
    folds = protocol.folds(interactions, catalog, seed=seed)
    tables = list(
        progress.track(
            (executor or SerialExecutor()).map(work, folds),
            total=protocol.n_folds(interactions),
            description="replay",
        )
    )
    return Simulation(regret=pd.concat(tables, ignore_index=True), seed=seed)


def _replayed(
    fold: Fold, *, catalog: Catalog | None, policies: Sequence[str], n_runs: int, seed: int
) -> pd.DataFrame:
    """Regret of all policies on the task of one fold."""
    fitted: dict[str, _Player] = {}
    rows: list[tuple[str, str, int, float]] = []
    for held_out in fold.held_out:
        task = held_out.query.task_id
        for policy in policies:
            if policy == RANDOM:
                regret = _random_regret(held_out.outcomes, n_runs, seed, task)
            else:
                name = policy.removesuffix(EI)
                if name not in fitted:
                    fitted[name] = _Player(name, fold, catalog, seed)
                picks = fitted[name].picks(
                    held_out.query,
                    held_out.model_ids,
                    held_out.outcomes,
                    n_runs,
                    by_improvement=policy.endswith(EI),
                )
                regret = _regret(held_out.outcomes, picks)
            # Once all models are tried nothing changes.
            padded = np.append(regret, np.repeat(regret[-1], n_runs - regret.size))
            rows.extend((policy, task, k + 1, float(v)) for k, v in enumerate(padded))
    return pd.DataFrame(rows, columns=["policy", "task_id", "n_runs", "regret"])


class _Player:
    """A ranker that was trained without the task, and chooses runs on it."""

    def __init__(self, name: str, fold: Fold, catalog: Catalog | None, seed: int) -> None:
        self._make = partial(make_ranker, name)
        self._fold, self._seed = fold, seed
        self._catalog = catalog if catalog is not None else Catalog.empty()
        stream = named_stream(seed, "simulate", fold.name, name)
        self._ranker: BaseRanker = self._make().fit(fold.train, self._catalog, rng=stream)
        self._calibration = calibrate(
            self._ranker, self._make, fold.train, self._catalog, coverage=_COVERAGE, seed=seed
        )

    def picks(
        self,
        query: TaskQuery,
        model_ids: Sequence[str],
        outcomes: FloatArray,
        n_runs: int,
        *,
        by_improvement: bool,
    ) -> IntArray:
        """Positions of the models in the order in which they are tried."""
        tried: list[int] = []
        for _ in range(min(n_runs, len(model_ids))):
            seen = {model_ids[i]: float(outcomes[i]) for i in tried}
            now = TaskQuery(
                task_id=query.task_id, card=query.card, metric=query.metric, observed=seen
            )
            left = [i for i in range(len(model_ids)) if i not in tried]
            names = [model_ids[i] for i in left]
            # Before the first outcome there is nothing to improve on, and the ranker's own order
            # is made for finding a good model among the first few.
            metric = self._ranker.metric_of(now)
            known = np.array(list(seen.values()))
            if by_improvement and seen and self._ranker.scale_prior.can_place(metric, known):
                joint = believed(self._ranker, self._calibration, now, names)
                gain = expected_improvement(joint.mean, joint.sd, max(seen.values()))
                tried.append(left[int(np.argmax(gain))])
            else:
                order = self._ranker.predict(now, names).order
                tried.append(left[int(np.argmax(order))])
        return np.array(tried, dtype=np.int64)


def _regret(outcomes: FloatArray, picks: IntArray) -> FloatArray:
    """Regret after each of some picks, shape (n_picks,)."""
    found: FloatArray = outcomes.max() - np.maximum.accumulate(outcomes[picks])
    return found


def _random_regret(outcomes: FloatArray, n_runs: int, seed: int, task: str) -> FloatArray:
    rng = named_stream(seed, "simulate", "random", task)
    size = min(n_runs, outcomes.size)
    orders = [rng.permutation(outcomes.size)[:size] for _ in range(_N_RANDOM)]
    mean: FloatArray = np.mean([_regret(outcomes, picks) for picks in orders], axis=0)
    return mean
