"""Learning curve over the size of the history: whether more runs make rankers better."""

from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import Executor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.bootstrap import bootstrap_intervals, mean_over_defined
from recsys_ms.evaluation.metrics import PEARSON, REGRET_AT_1
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.history.interactions import Interactions

#: Metrics that the curve is drawn for.
CURVE_METRICS: Final = (REGRET_AT_1, PEARSON)
CURVE_COLUMNS: Final = (
    *("ranker", "metric", "fraction", "n_outcomes", "n_tasks"),
    *("mean", "low", "high"),
)


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
        Where the folds run; its processes should be kept open, since every share runs apart.
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
    sizes, results = {}, {}
    for share in shares:
        protocol = LeaveOneTaskOut(max_tasks=max_tasks, history_fraction=share)
        folds = protocol.folds(interactions, catalog, seed=seed)
        sizes[share] = float(np.mean([fold.train.n_interactions for fold in folds]))
        results[share] = backtest(
            interactions,
            list(rankers),
            catalog=catalog,
            protocol=protocol,
            seed=seed,
            executor=executor,
            progress=progress,
        )
    keys = list(product(rankers, CURVE_METRICS, shares))
    columns = []
    for name, metric, share in keys:
        by_task = results[share].per_task(name)
        columns.append([by_task[task][metric] for task in sorted(by_task)])
    table = np.array(columns).T
    # One set of draws for all columns: the points of a curve move together.
    ends = bootstrap_intervals(table, named_stream(seed, "learning curve"))
    means, counts = mean_over_defined(table), (~np.isnan(table)).sum(axis=0)
    rows = [
        (name, metric, share, sizes[share], int(counts[i]), means[i], *ends[i])
        for i, (name, metric, share) in enumerate(keys)
    ]
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
