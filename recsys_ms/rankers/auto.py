"""The default ranker: one Gaussian posterior over a task's models (docs/explanation/ranker.md)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.cold_start.placement import Placed
from recsys_ms.core.declared import SORTED, Shape, Within
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import Derived, Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.learners.factor_model import FactorModelConfig
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskQuery, TaskView
from recsys_ms.rankers.contributions import OBSERVED_PART, POPULARITY, Contributions, Source
from recsys_ms.rankers.evidence import COLUMNS, PARTS, Evidence, stack_columns
from recsys_ms.rankers.outcome_shape import OutcomeShape, TrainingScores
from recsys_ms.rankers.posterior import TaskPrior
from recsys_ms.rankers.stack import Stack
from recsys_ms.rankers.strengths import Strengths
from recsys_ms.rankers.transfer_model import ModelRows, TransferModel

#: The part that maps expected normal scores to standardised outcomes.
_SHAPE_PART: Final = "shape of outcomes"


@dataclass(frozen=True, slots=True, eq=False)
class _KnownModels:
    """All models of the history and of the catalog, and their weights in the stack."""

    ids: tuple[str, ...]
    at: dict[str, int]
    rows: ModelRows
    weights: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _ToldOfTask:
    """Columns of the stack for all known models on one task, and the task's place."""

    task_id: str
    card: TaskCard | None
    columns: FloatArray
    factors: FloatArray
    variance: float


class AutoRanker(BaseRanker):
    """Popularity, similar tasks and models, and the task's own outcomes in one posterior.

    The standardised outcome of a model is, in normal scores, a linear stack of popularity, transfer
    score (factors of tasks and models, placed by cards) and heads on features of the pair, plus
    factors that the task's own runs tell, plus noise. Weights and variances are estimated on tasks
    that were held out. Observed runs condition one Gaussian posterior, from which expected value,
    interval, order and the next run are read.
    """

    name: ClassVar[str] = "auto"
    default_config: ClassVar[FactorModelConfig] = FactorModelConfig()
    short_forms: ClassVar[Mapping[str, str]] = {":": "n_factors"}
    config: FactorModelConfig

    _shape: Learned[OutcomeShape]
    _row_task: Learned[Annotated[NDArray[np.int32], Shape("row"), Within(least=0), SORTED]]
    _row_model: Learned[Annotated[NDArray[np.int32], Shape("row"), Within(least=0)]]
    _row_outcome: Learned[Annotated[FloatArray, Shape("row")]]
    _stack: Learned[Stack]
    _cold_stack: Learned[Stack]
    _strengths: Learned[Strengths]
    _model: Learned[TransferModel]
    _parts: Learned[dict[str, BaseRanker]]
    _errors: Derived[dict[int, list[FloatArray]]]
    _told: _ToldOfTask | None = None

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        seed, catalog = seed_from(rng), self._catalog
        data = TrainingScores.of(interactions)
        self._row_task = interactions.task_index.astype(np.int32)
        self._row_model = interactions.model_index.astype(np.int32)
        self._row_outcome = interactions.outcomes
        found = Evidence.gather(data, catalog, self.config, seed=seed, progress=self.progress)
        self._stack, self._cold_stack = found.stack, found.cold_stack
        self._strengths, self._errors = found.strengths, found.errors
        self._shape = data.shape()
        cards = named_stream(seed, "cards")
        self._model = TransferModel().fit(data, self._shape, catalog, self.config, rng=cards)
        weights = dict(zip(COLUMNS, self._stack.weights + self._cold_stack.weights, strict=True))
        self._parts = {
            name: make().fit(interactions, catalog, rng=named_stream(seed, "part", name))
            for name, make in PARTS.items()
            if weights[name] > 0.0
        }

    def _derive(self) -> None:
        self._errors = {}

    def _inner(self) -> Iterable[BaseRanker]:
        return self._parts.values()

    def _forget(self) -> None:
        super()._forget()
        self._told = None

    def strayed(self) -> dict[int, list[FloatArray]] | None:
        """Errors on held-out tasks, measured by the fit itself."""
        return self._errors if any(self._errors.values()) else None

    def place(self, task: TaskView) -> Placed | None:
        """Place of a task without runs among the known ones."""
        return None if task.task_id in self._model.task_ids else self._model.tasks.placed(task.card)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        query = _query_of(task)
        belief = self.believe(query, model_ids)
        return Prediction(value=belief.value, order=belief.order(self._seen(query).best))

    def _trained_on(self, task_id: str) -> Mapping[str, float]:
        if task_id not in self._model.task_ids:
            return {}
        task = self._model.task_ids.index(task_id)
        begin, end = np.searchsorted(self._row_task, [task, task + 1])
        ids = [self._model.model_ids[int(j)] for j in self._row_model[begin:end]]
        return dict(zip(ids, self._row_outcome[begin:end].tolist(), strict=True))

    def _prior(self, task: TaskView, model_ids: Sequence[str]) -> TaskPrior:
        columns, weights, rows, variance = self._expected(task, model_ids)
        return self._strengths.prior(
            (columns * weights).sum(axis=1),
            float(np.sqrt(self._model.level_variance)),
            float(np.sqrt(variance)),
            rows,
        )

    def _expected(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> tuple[FloatArray, FloatArray, ModelRows, float]:
        """Columns and weights of the stack, rows of the models, and variance of the factors."""
        known, told = self._known_models, self._told_of(task)
        at = np.array([known.at.get(model_id, -1) for model_id in model_ids], dtype=np.int64)
        if (at >= 0).all():
            return told.columns[at], known.weights[at], known.rows.take(at), told.variance
        # A model that is neither in the history nor in the catalog: only its name is known.
        rows = self._model.rows(self._catalog, model_ids)
        weights = np.where((at >= 0)[:, None], known.weights[at], self._cold_stack.weights)
        columns = stack_columns(rows, told.factors, self._parts, task, model_ids)
        return columns, weights, rows, told.variance

    @cached_property
    def _known_models(self) -> _KnownModels:
        model = self._model
        cold = self._catalog.models.index.difference(list(model.model_ids))
        ids = (*model.model_ids, *cold)
        has_runs = np.arange(len(ids)) < len(model.model_ids)
        return _KnownModels(
            ids=ids,
            at={model_id: i for i, model_id in enumerate(ids)},
            rows=model.rows(self._catalog, ids) if len(cold) else model.known_rows(),
            weights=np.where(has_runs[:, None], self._stack.weights, self._cold_stack.weights),
        )

    def _told_of(self, task: TaskView) -> _ToldOfTask:
        """What is worked out of a task, once for all models: a request asks many times."""
        if self._told is None or self._told.task_id != task.task_id or self._told.card != task.card:
            known = self._known_models
            if task.task_id in self._model.task_ids:
                factors, variance = self._model.tasks.place_known(task.task_id)
            else:
                factors, variance = self._model.tasks.place(task.card)
            columns = stack_columns(known.rows, factors, {}, task, known.ids)
            described = TaskView(task_id=task.task_id, card=task.card)
            for at, name in enumerate(COLUMNS):
                rows = np.flatnonzero(known.weights[:, at] > 0.0)
                if name in self._parts and rows.size:
                    ids = [known.ids[int(j)] for j in rows]
                    columns[rows, at] = self._parts[name].predict_view(described, ids).value
            self._told = _ToldOfTask(task.task_id, task.card, columns, factors, variance)
        return self._told

    def parts(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Weight and value of each column of the stack, then what observed runs and shape add."""
        columns, weights, _, _ = self._expected(task, model_ids)
        found = {name: (weights[:, i], columns[:, i]) for i, name in enumerate(COLUMNS)}
        belief = self.believe(_query_of(task), model_ids)
        ones = np.ones(len(model_ids))
        found[OBSERVED_PART] = (ones, belief.mean - (columns * weights).sum(axis=1))
        found[_SHAPE_PART] = (ones, belief.value - belief.mean)
        return found

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Popularity, the known tasks behind the transfer score, fields, and observed outcomes.

        The place of a task is a weighted sum of known tasks' factors, and what observed outcomes
        add is linear in their errors: each adds its share. Where the location and spread of the
        task are uncertain, shares are averaged over their hypotheses.
        """
        query = _query_of(task)
        described = TaskView(task_id=task.task_id, card=self._card_of(query))
        columns, weights, rows, _ = self._expected(described, model_ids)
        popularity, transfer = COLUMNS[:2]
        found = [Contributions.whole(popularity, weights[:, 0] * rows.level, POPULARITY)]
        if weights[:, 1].any():
            level = Contributions.whole(transfer, weights[:, 1] * rows.level, POPULARITY)
            placed = self.place(described)
            if placed is None:
                amount = weights[:, 1] * (columns[:, 1] - columns[:, 0])
                rest = Contributions.whole(transfer, amount)
            else:
                share = np.array([placed.weights[known] for known in self._model.task_ids])
                scores = rows.loadings @ self._model.factors.T
                sources = tuple(Source.task(known) for known in self._model.task_ids)
                rest = Contributions(transfer, sources, weights[:, 1][:, None] * scores * share)
            found.append(Contributions.joined(transfer, [level, rest]))
        for at, name in enumerate(COLUMNS):
            if name in self._parts and weights[:, at].any():
                pieces = self._parts[name].explain(described, model_ids)
                found += [piece.weighted(weights[:, at]) for piece in pieces]
        belief = self.believe(query, model_ids)
        ids, told = self._seen(query).posterior.told
        if ids:
            moved = self._prior(described, model_ids).loadings @ told
            sources = tuple(Source.observed(model_id) for model_id in ids)
            found.append(Contributions(OBSERVED_PART, sources, moved))
        shape = Source("base", _SHAPE_PART)
        found.append(Contributions.whole(_SHAPE_PART, belief.value - belief.mean, shape))
        return tuple(found)


def _query_of(task: TaskView) -> TaskQuery:
    return task.query or TaskQuery(task_id=task.task_id, card=task.card)
