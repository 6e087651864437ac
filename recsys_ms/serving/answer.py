"""The table of an answer: one row a model, in the order to try, with interval and reasons."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.base import BaseRanker
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.intervals import IntervalCalibration
from recsys_ms.serving.question import Asked
from recsys_ms.serving.reasons import explanation_table, nearest_tasks, reasons_of

_TRANSFER_PARTS: Final = frozenset({"nmf", "als", "transfer"})
_META_PARTS: Final = frozenset({"lr", "fm", "gbdt"})


def answer_table(
    asked: Asked,
    *,
    base: BaseRanker,
    known: KnownOutcomes,
    calibration: IntervalCalibration,
    catalog: Catalog,
    top: int | None,
    reasons: bool,
) -> pd.DataFrame:
    """Build the table that :meth:`recsys_ms.Ranker.recommend` documents."""
    query, sign, candidates = asked.query, asked.sign, asked.candidates(catalog)
    history = known.of_task(query.task_id)
    belief = base.believe(query, candidates)
    logged = np.array([history.get(model, np.nan) for model in candidates])
    order = _order_to_try(belief, logged, max(query.observed.values(), default=None))
    order = order[: len(candidates) if top is None else top]
    chosen, told = [candidates[int(i)] for i in order], belief.take(order)
    logged, predicted = logged[order], told.predicted
    low, high = told.interval(calibration.at(len(query.observed)))
    # A logged outcome needs no prediction.
    tried = ~np.isnan(logged)
    for column in (predicted, low, high):
        column[tried] = logged[tried]
    view = base.view(query)
    parts = base.parts(view, chosen)
    table = pd.DataFrame({"rank": np.arange(1, order.size + 1), "model_id": chosen})
    worst, best = (low, high) if sign > 0 else (high, low)
    for name, outcome in (
        ("predicted", predicted),
        ("low", worst),
        ("high", best),
        ("observed", logged),
    ):
        # Back to the metric's own direction; adding 0 turns a -0.0 into 0.
        table[name] = outcome * sign + 0.0
    table["transfer_score"] = _mean_part(parts, _TRANSFER_PARTS, order.size)
    table["meta_score"] = _mean_part(parts, _META_PARTS, order.size)
    counts, costs = known.n_tasks_by_model, known.cost_by_model
    table["n_tasks"] = [counts.get(model, 0) for model in chosen]
    cards = catalog.models.reindex(chosen)
    for name in ("n_parameters", "gmacs"):
        table[name] = cards[name].to_numpy(dtype=np.float64, na_value=np.nan)
    table["cost_gpu_seconds"] = [costs.get(model, np.nan) for model in chosen]
    near = nearest_tasks(base, view)
    if reasons:
        table["reasons"] = reasons_of(base, view, chosen, known=known, catalog=catalog, near=near)
    table.attrs["nearest_tasks"] = [asdict(task) for task in near]
    return table


def _order_to_try(belief: Belief, logged: FloatArray, best: float | None) -> IntArray:
    """Positions of models in the order to try them.

    Models that were run are placed by their outcome, before the first model with no higher
    expectation.
    """
    tried = np.flatnonzero(~np.isnan(logged))
    tried = tried[np.argsort(-logged[tried], kind="stable")]
    rest = np.flatnonzero(np.isnan(logged))
    rest = rest[np.argsort(-belief.take(rest).order(best), kind="stable")]
    expected = np.where(np.isnan(logged), belief.predicted, logged)
    # The largest expectation from each place of the order on.
    ahead = np.maximum.accumulate(expected[rest][::-1])[::-1]
    place = np.searchsorted(-ahead, -logged[tried], side="left")
    found: IntArray = np.insert(rest, place, tried)
    return found


def explanation(
    asked: Asked, model: str, *, base: BaseRanker, known: KnownOutcomes
) -> pd.DataFrame:
    """Build the table that :meth:`recsys_ms.Ranker.explain` documents."""
    table = explanation_table(base, base.view(asked.query), model, known)
    scale = base.scale_of(asked.query)
    table.attrs = {
        "metric": base.metric_of(asked.query),
        "link": scale.link,
        "center": asked.sign * scale.center,
        "scale": asked.sign * scale.scale,
    }
    return table


def _mean_part(
    parts: Mapping[str, tuple[FloatArray, FloatArray]], names: frozenset[str], n_rows: int
) -> FloatArray:
    """Weighted mean of the named parts; plain mean where all their weights are 0."""
    chosen = [part for name, part in parts.items() if name in names]
    if not chosen:
        return np.full(n_rows, np.nan)
    weights, values = np.stack(chosen, axis=1)
    weights = np.where(weights.sum(axis=0) > 0, weights, 1.0)
    mean: FloatArray = (weights * values).sum(axis=0) / weights.sum(axis=0)
    return mean
