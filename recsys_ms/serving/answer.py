"""The answer of a ranker: one row a model, in the order to try, with interval and reasons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError, kind_of
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.arguments import (
    CardLike,
    Outcomes,
    read_card,
    read_models,
    read_outcomes,
    read_text,
)
from recsys_ms.rankers.base import BaseRanker, TaskQuery
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.intervals import IntervalCalibration
from recsys_ms.serving.reasons import explanation_table, nearest_tasks, reasons_of

_TRANSFER_PARTS: Final = frozenset({"nmf", "als", "transfer"})
_META_PARTS: Final = frozenset({"lr", "fm", "gbdt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a recommended model must meet. A model whose card does not say is left out.

    Attributes
    ----------
    max_params : float or None
        Most parameters, in millions.
    max_gmacs : float or None
        Most GMACs (10^9 multiply-adds for one input).
    licences : tuple of str
        Accepted licences, compared without case; empty for any.
    """

    max_params: float | None = None
    max_gmacs: float | None = None
    licences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_params", "max_gmacs"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise UsageError(f"Constraints: {name} is {bound}, wanted a positive number")

    def met_by(self, cards: pd.DataFrame) -> BoolArray:
        """Which rows of the catalog's models meet all, shape (n_models,)."""
        met = np.ones(len(cards), dtype=bool)
        if self.max_params is not None:
            met &= (cards["n_parameters"] <= self.max_params * 1e6).to_numpy()
        if self.max_gmacs is not None:
            met &= (cards["gmacs"] <= self.max_gmacs).to_numpy()
        if self.licences:
            accepted = {licence.lower() for licence in self.licences}
            met &= np.array([str(licence).lower() in accepted for licence in cards["licence"]])
        return met

    def describe(self) -> str:
        """The constraints as a person would say them."""
        said = []
        if self.max_params is not None:
            said.append(f"at most {self.max_params:g} million parameters")
        if self.max_gmacs is not None:
            said.append(f"at most {self.max_gmacs:g} GMACs")
        if self.licences:
            said.append(f"licence {' or '.join(self.licences)}")
        return ", ".join(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asks, whose arguments are read and whose models are known.

    Attributes
    ----------
    query : TaskQuery
        The task with all its outcomes, higher is better.
    sign : float
        +1 where higher values of its metric are better, -1 where lower.
    models : tuple of str
        Models that are asked about and were not observed.
    constraints : Constraints
    """

    query: TaskQuery
    sign: float
    models: tuple[str, ...]
    constraints: Constraints

    def candidates(self, catalog: Catalog) -> tuple[str, ...]:
        """Models that may be answered.

        Raises
        ------
        DataError
            All were observed, or none meets the constraints.
        """
        wanted = self.constraints.describe()
        met = self.models
        if wanted:
            allowed = self.constraints.met_by(catalog.models.reindex(list(met)))
            met = tuple(model for model, ok in zip(met, allowed, strict=True) if ok)
        if not met:
            raise DataError(
                f"none of {len(self.models)} models meets the constraints ({wanted}); widen them, "
                "or add cards that say what a model needs (a model whose card does not say is left "
                "out)"
                if wanted
                else "no model is left to recommend: all were observed"
            )
        return met


def read_question(
    base: BaseRanker,
    known: KnownOutcomes,
    all_models: Sequence[str],
    task: str,
    *,
    observed: Outcomes = None,
    card: CardLike = None,
    metric: str | None = None,
    models: Iterable[str] | None = None,
    constraints: Constraints | None = None,
) -> Asked:
    """Read the arguments that :meth:`recsys_ms.Ranker.recommend` documents, errors too."""
    task = read_text(task, "task")
    own, reached = read_card(card, task), read_outcomes(observed, task)
    chosen = read_models(models)
    if not isinstance(constraints, Constraints | None):
        raise UsageError(
            f"constraints is {kind_of(constraints)}; wanted Constraints(max_params=...) or None"
        )
    _require_known(all_models, [*reached, *(chosen or ())])
    query = TaskQuery(
        task_id=task,
        card=own if own is None else replace(own, task_id=task),
        metric=_metric_of(known, task) if metric is None else metric,
    )
    sign = base.scale_prior.sign(base.metric_of(query))
    given = {model: sign * value for model, value in reached.items()}
    return Asked(
        # Outcomes of the training history are in the ranker already, while the task is hot there.
        query=replace(query, observed={**known.of_task(task), **given}),
        sign=sign,
        models=tuple(m for m in (all_models if chosen is None else chosen) if m not in reached),
        constraints=constraints or Constraints(),
    )


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
    # What was reached is known: no prediction is better than the log.
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

    Models that were run already stand where what they reached is: before the first model that is
    not expected to reach more.
    """
    tried = np.flatnonzero(~np.isnan(logged))
    tried = tried[np.argsort(-logged[tried], kind="stable")]
    rest = np.flatnonzero(np.isnan(logged))
    rest = rest[np.argsort(-belief.take(rest).order(best), kind="stable")]
    expected = np.where(np.isnan(logged), belief.predicted, logged)
    # The most that is still expected, from each place of the order on.
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


def _require_known(all_models: Sequence[str], asked: Sequence[str]) -> None:
    """Refuse models that have neither runs nor a card."""
    known = set(all_models)
    for model in asked:
        if model not in known:
            near = get_close_matches(model, all_models, n=3)
            hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
            raise UnknownIdError(
                f"model {model!r} has neither runs nor a card among the {len(known)} models "
                f"of this ranker{hint}"
            )


def _metric_of(known: KnownOutcomes, task: str) -> str | None:
    inter = known.interactions
    return inter.metrics[inter.task_position(task)] if task in inter.task_ids else None


def _mean_part(
    parts: Mapping[str, tuple[FloatArray, FloatArray]], names: frozenset[str], n_rows: int
) -> FloatArray:
    """Weighted mean of the parts by name; plain mean where all their weights are 0."""
    chosen = [parts[name] for name in parts if name in names]
    if not chosen:
        return np.full(n_rows, np.nan)
    weights = np.stack([weight for weight, _ in chosen])
    values = np.stack([value for _, value in chosen])
    total = weights.sum(axis=0)
    weights = np.where(total > 0, weights, 1.0)
    mean: FloatArray = (weights * values).sum(axis=0) / weights.sum(axis=0)
    return mean
