"""The answer of a ranker: one row a model, in the order to try, with interval and reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError
from recsys_ms.core.types import BoolArray, FloatArray
from recsys_ms.ranker.base import BaseRanker, TaskQuery, TaskView
from recsys_ms.ranker.intervals import IntervalCalibration
from recsys_ms.ranker.known import KnownOutcomes

_TRANSFER_PARTS: Final = frozenset({"nmf", "als"})
_META_PARTS: Final = frozenset({"lr", "fm", "gbdt"})
_PART_NAMES: Final = {
    "popularity": "popularity over past tasks",
    "cards": "popularity over past tasks",
    "nmf": "transfer space (nmf)",
    "als": "transfer space (als)",
    "lr": "features (lr)",
    "fm": "features (fm)",
    "gbdt": "features (gbdt)",
    "gp": "Gaussian process (gp)",
    "fennec": "transfer and meta score",
    "auto": "blend",
}
#: Known tasks that the place of a cold task is told by.
_N_NEAREST: Final = 3
#: Contributions below this many standard deviations are left out of the reasons.
_MIN_CONTRIBUTION: Final = 0.005


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


def answer_table(
    *,
    base: BaseRanker,
    known: KnownOutcomes,
    calibration: IntervalCalibration,
    catalog: Catalog,
    all_models: Sequence[str],
    task: str,
    observed: Mapping[str, float],
    card: TaskCard | None,
    metric: str | None,
    top: int | None,
    models: Sequence[str] | None,
    constraints: Constraints,
) -> pd.DataFrame:
    """Build the table that :meth:`recsys_ms.Ranker.recommend` documents."""
    _require_known(all_models, [*observed, *(models or ())])
    if card is not None and card.task_id != task:
        card = replace(card, task_id=task)
    history = known.of_task(task)
    query = TaskQuery(task_id=task, card=card, metric=metric or _metric_of(known, task))
    sign = base.scale_prior.sign(base.metric_of(query))
    given = {model: sign * value for model, value in observed.items()}
    # Outcomes of the training history are in the ranker already, as long as the task is hot there.
    query = replace(query, observed={**history, **given})
    candidates = _candidates(
        all_models if models is None else models, observed, catalog, constraints
    )
    view = base.view(query)
    scale = base.scale_of(query)
    prediction = base.predict_view(view, candidates)
    logged = np.array([history.get(model, np.nan) for model in candidates])
    predicted, low, high = calibration.around(scale, prediction.value, len(query.observed))
    # What was reached is known: no prediction is better than the log.
    tried = ~np.isnan(logged)
    for column in (predicted, low, high):
        column[tried] = logged[tried]
    key = np.where(tried.any(), predicted, prediction.order)
    by_id = np.argsort(np.array(candidates, dtype=object), kind="stable")
    order = by_id[np.argsort(-key[by_id], kind="stable")][: len(candidates) if top is None else top]
    chosen = [candidates[int(i)] for i in order]
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
        table[name] = outcome[order] * sign + 0.0
    table["transfer_score"] = _mean_part(parts, _TRANSFER_PARTS, order.size)
    table["meta_score"] = _mean_part(parts, _META_PARTS, order.size)
    counts, costs = known.n_tasks_by_model(), known.cost_by_model()
    table["n_tasks"] = [counts.get(model, 0) for model in chosen]
    cards = catalog.models.reindex(chosen)
    for name in ("n_parameters", "gmacs"):
        table[name] = cards[name].to_numpy(dtype=np.float64, na_value=np.nan)
    table["cost_gpu_seconds"] = [costs.get(model, np.nan) for model in chosen]
    near = nearest_tasks(base, view)
    table["reasons"] = [
        _reasons(model, i, parts, known, counts.get(model, 0), catalog, view, near)
        for i, model in enumerate(chosen)
    ]
    table.attrs["nearest_tasks"] = [asdict(task) for task in near]
    return table


@dataclass(frozen=True, slots=True)
class NearTask:
    """A known task that a cold task was placed by.

    Attributes
    ----------
    task_id : str
    similarity : float
        Cosine of what both tasks' views say, in [-1, 1].
    weight : float
        Share of the known task in the cold task's place.
    """

    task_id: str
    similarity: float
    weight: float


def nearest_tasks(base: BaseRanker, view: TaskView) -> list[NearTask]:
    """The known tasks that weigh most in the place of a cold task, heaviest first."""
    placed = base.place(view)
    if placed is None or not placed.similarity:
        return []
    heaviest = sorted(placed.weights, key=lambda task: -placed.weights[task])[:_N_NEAREST]
    return [
        NearTask(task, placed.similarity[task], placed.weights[task])
        for task in heaviest
        if placed.weights[task] > 0.0
    ]


def _reasons(
    model: str,
    row: int,
    parts: Mapping[str, tuple[FloatArray, FloatArray]],
    known: KnownOutcomes,
    n_tasks: int,
    catalog: Catalog,
    view: TaskView,
    near: Sequence[NearTask],
) -> tuple[str, ...]:
    """Exact contributions to the predicted standardised outcome, then what is behind them."""
    contributions = [
        (float(weight[row] * value[row]), name) for name, (weight, value) in parts.items()
    ]
    found = []
    for amount, name in sorted(contributions, key=lambda pair: -abs(pair[0])):
        if abs(amount) < _MIN_CONTRIBUTION:
            continue
        label = _PART_NAMES.get(name, name)
        if name == "observed runs":
            label = f"{len(view.observed_ids)} observed runs of this task"
        found.append(f"{amount:+.2f} sd from {label}")
    for task in near:
        place = known.rank_on(model, task.task_id)
        liked = "not run there" if place is None else f"rank {place[0]} of {place[1]} there"
        found.append(f"like {task.task_id} (similarity {task.similarity:.2f}): {liked}")
    if n_tasks:
        told = [f"rank {rank} of {n} on {task}" for task, rank, n in known.best_tasks(model)]
        found.append(f"run on {n_tasks} past tasks: {', '.join(told)}")
    traits = _traits(catalog.find_model_card(model))
    if not n_tasks:
        found.append(f"no run yet, judged by its card{f' ({traits})' if traits else ''}")
    elif traits:
        found.append(traits)
    return tuple(found)


def _traits(card: ModelCard | None) -> str:
    """What the card says of family, pre-training and size."""
    if card is None:
        return ""
    said = [] if card.family is None else [card.family]
    if card.pretrained_domain is not None:
        said.append(f"pre-trained on {card.pretrained_domain}")
    if card.n_parameters is not None:
        said.append(f"{card.n_parameters / 1e6:.3g} M parameters")
    return ", ".join(said)


def _candidates(
    models: Sequence[str],
    observed: Mapping[str, float],
    catalog: Catalog,
    constraints: Constraints,
) -> list[str]:
    asked = [model for model in dict.fromkeys(models) if model not in observed]
    if not constraints.describe():
        met = asked
    else:
        allowed = constraints.met_by(catalog.models.reindex(asked))
        met = [model for model, ok in zip(asked, allowed, strict=True) if ok]
    if not met:
        wanted = constraints.describe()
        raise DataError(
            f"none of {len(asked)} models meets the constraints ({wanted}); widen them, or add "
            "cards that say what a model needs (a model whose card does not say is left out)"
            if wanted
            else "no model is left to recommend: all were observed"
        )
    return met


def _require_known(all_models: Sequence[str], asked: Sequence[str]) -> None:
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
