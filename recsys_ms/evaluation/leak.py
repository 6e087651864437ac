"""Detect leaks: predictions that change when only held-out outcomes are changed."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray
from recsys_ms.evaluation.folds import Fold, Protocol
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, Prediction


def find_leaks(
    interactions: Interactions,
    *,
    catalog: Catalog | None = None,
    protocol: Protocol,
    factory: Callable[[], BaseRanker],
    seed: int = 0,
    n_folds: int | None = None,
) -> tuple[str, ...]:
    """Folds whose predictions change when only the tested outcomes do.

    For every fold, the tested values of the history are mirrored and squeezed within their task,
    ``low + (high - value) / 2``: another mean, another spread, the opposite order, still inside the
    metric's range. The changed history is split again, the ranker is fitted again with the same
    random stream, and must give exactly the same answers.

    Parameters
    ----------
    interactions, catalog, protocol, seed
        As for :func:`recsys_ms.evaluation.backtest.backtest`.
    factory : callable
        Makes an unfitted ranker.
    n_folds : int, optional
        Number of folds to check; default all.

    Returns
    -------
    tuple of str
        ``FOLD: TASK`` of each leak; empty without leaks. A fold that the changed history does not
        yield counts as a leak.
    """
    leaks: list[str] = []
    for fold in islice(protocol.folds(interactions, catalog, seed=seed), n_folds):
        if not fold.held_out:
            continue
        before = _answers(fold, catalog, factory, seed)
        altered, split = _with_other_test(interactions, protocol, fold)
        again = next(
            (x for x in split.folds(altered, catalog, seed=seed) if x.name == fold.name), None
        )
        after = {} if again is None else _answers(again, catalog, factory, seed)
        leaks.extend(
            f"{fold.name}: {task}"
            for task, prediction in before.items()
            if task not in after or not _same(prediction, after[task])
        )
    return tuple(leaks)


def _answers(
    fold: Fold, catalog: Catalog | None, factory: Callable[[], BaseRanker], seed: int
) -> dict[str, Prediction]:
    ranker = factory().fit(fold.train, catalog, rng=named_stream(seed, "leak", fold.name))
    return {x.query.task_id: ranker.predict(x.query, x.model_ids) for x in fold.held_out}


def _same(one: Prediction, other: Prediction) -> bool:
    return np.array_equal(one.value, other.value) and np.array_equal(one.order, other.order)


def _with_other_test(
    interactions: Interactions, protocol: Protocol, fold: Fold
) -> tuple[Interactions, Protocol]:
    values = interactions.values.copy()
    task = np.asarray(interactions.task_ids, dtype=object)[interactions.task_index]
    model = np.asarray(interactions.model_ids, dtype=object)[interactions.model_index]
    split = protocol
    for held_out in fold.held_out:
        tested = (task == held_out.query.task_id) & np.isin(model, held_out.model_ids)
        values[tested] = _mirrored(values[tested])
        if isinstance(split, Temporal):
            split = _with_other_runs(split, held_out.query.task_id, held_out.model_ids)
    return replace(interactions, values=values), split


def _with_other_runs(protocol: Temporal, task_id: str, model_ids: tuple[str, ...]) -> Temporal:
    # A tested pair has no run before the cut, so all of its runs are changed.
    runs = protocol.runs
    tested = (
        (runs[c.TASK_ID] == task_id) & runs[c.MODEL_ID].isin(model_ids) & runs[c.VALUE].notna()
    ).to_numpy()
    values = runs[c.VALUE].to_numpy(dtype=np.float64, na_value=np.nan).copy()
    values[tested] = _mirrored(values[tested])
    return replace(protocol, runs=runs.assign(**{c.VALUE: pd.Series(values, index=runs.index)}))


def _mirrored(values: FloatArray) -> FloatArray:
    mirrored: FloatArray = values.min() + (values.max() - values) / 2.0
    return mirrored
