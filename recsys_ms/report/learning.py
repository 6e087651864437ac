"""Learning curve over the size of the history: whether more runs make a ranker better."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import Executor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.bootstrap import bootstrap_intervals, mean_over_defined
from recsys_ms.evaluation.folds import Fold, Protocol
from recsys_ms.evaluation.metrics import PEARSON, REGRET_AT_1
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.history.interactions import Interactions

#: Metrics that the curve is drawn for.
CURVE_METRICS: Final = (REGRET_AT_1, PEARSON)
CURVE_COLUMNS: Final = (
    *("ranker", "metric", "fraction", "n_outcomes", "n_tasks"),
    *("mean", "low", "high"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingHistory(Protocol):
    """Leave-one-task-out on growing shares of the history, with the same tasks at every share.

    Attributes
    ----------
    fractions : tuple of float
        Shares of the other tasks' outcomes, each in (0, 1].
    max_tasks : int
        Number of tasks held out at most, drawn at random.
    """

    name: ClassVar[str] = "growing-history"
    fractions: tuple[float, ...]
    max_tasks: int

    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield one fold per share and task; its name is the share and the task."""
        for fraction in self.fractions:
            inner = LeaveOneTaskOut(max_tasks=self.max_tasks, history_fraction=fraction)
            for fold in inner.folds(interactions, catalog, seed=seed):
                yield replace(fold, name=_fold_name(fraction, fold.name))

    def n_folds(self, interactions: Interactions) -> int:
        """Shares times tasks."""
        return len(self.fractions) * min(self.max_tasks, interactions.n_tasks)


def learning_curve(
    interactions: Interactions,
    catalog: Catalog | None,
    *,
    rankers: Sequence[str],
    fractions: Sequence[float],
    max_tasks: int,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
) -> pd.DataFrame:
    """Quality of rankers on new tasks when they are trained on parts of the history.

    Parameters
    ----------
    interactions : Interactions
        The whole history.
    catalog : Catalog or None
        Cards, given to every ranker at every share.
    rankers : sequence of str
        Names known to ``make_ranker``.
    fractions : sequence of float
        Shares of the history, each in (0, 1].
    max_tasks : int
        Number of tasks held out at most; the same ones at every share.
    seed : int
        Of the tasks, the shares, the rankers and the bootstrap.
    executor : Executor, optional
        Where the folds run.
    progress : Progress

    Returns
    -------
    DataFrame
        Columns ``CURVE_COLUMNS``, one row per ranker, metric and share: mean over the held-out
        tasks with its 95 % bootstrap interval; ``n_outcomes`` is the mean number of training
        outcomes.

    Raises
    ------
    UsageError
        A share outside (0, 1], fewer than one task, or an unknown ranker.
    DataError
        The history cannot be split.
    """
    shares = tuple(sorted(set(fractions)))
    if not shares or max_tasks < 1 or not all(0.0 < share <= 1.0 for share in shares):
        raise UsageError(
            f"the learning curve needs shares in (0, 1] and at least one task, got {shares} and "
            f"{max_tasks}"
        )
    protocol = GrowingHistory(fractions=shares, max_tasks=max_tasks)
    result = backtest(
        interactions,
        catalog=catalog,
        protocol=protocol,
        rankers=list(rankers),
        seed=seed,
        executor=executor,
        progress=progress,
        n_draws=1,
    )
    sizes: dict[float, list[int]] = {share: [] for share in shares}
    for fold in protocol.folds(interactions, catalog, seed=seed):
        sizes[float(fold.name.partition(" ")[0])].append(fold.train.n_interactions)
    keys = [(n, metric, share) for n in rankers for metric in CURVE_METRICS for share in shares]
    scores = {(cell.ranker, cell.fold): cell.scores for cell in result.cells}
    table = np.array(
        [
            [
                scores.get((name, _fold_name(share, task)), {}).get(metric, np.nan)
                for name, metric, share in keys
            ]
            for task in result.tasks
        ],
        dtype=np.float64,
    )
    # One set of draws for all columns: the points of a curve move together.
    ends = bootstrap_intervals(table, named_stream(seed, "learning curve"))
    means, counts = mean_over_defined(table), (~np.isnan(table)).sum(axis=0)
    rows = [
        (name, metric, share, float(np.mean(sizes[share])), int(counts[i]), means[i], *ends[i])
        for i, (name, metric, share) in enumerate(keys)
    ]
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def _fold_name(fraction: float, task_id: str) -> str:
    return f"{fraction:.17g} {task_id}"
