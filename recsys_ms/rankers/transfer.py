"""Transfer score: inner products of task and model factors (Fennec, §3.1).

A task without runs is placed in the space by its images, class names or card
(:mod:`recsys_ms.cold_start.placement`), a model without runs by ridge regressions from its card and
architecture; a few observed outcomes of a task are folded into its factors.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np

from recsys_ms.cold_start.placement import Placed, TaskPlacement
from recsys_ms.core.declared import Shape
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.als import ALSConfig, fit_als, fold_in_als, preference_and_confidence
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.nmf import NMFConfig, fit_nmf, fold_in
from recsys_ms.learners.transfer_space import TransferSpace
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.by_cards import CardRegression
from recsys_ms.rankers.contributions import BASE, Contributions, Source

#: Weight of the prior place of a task when a few of its outcomes are folded in, in outcomes.
_FOLD_IN_ALPHA: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Folding:
    """Factors of a task with observed outcomes: ``keep @ prior + gain @ values``."""

    factors: FloatArray  # (n_factors,)
    keep: FloatArray  # (n_factors, n_factors)
    gain: FloatArray  # (n_factors, n_observed)
    values: FloatArray  # (n_observed,), outcomes on the scale of the factors' products

    @classmethod
    def none(cls, prior: FloatArray, n_observed: int = 0) -> Self:
        """Outcomes that change nothing."""
        nothing = np.zeros((prior.size, n_observed))
        return cls(
            factors=prior, keep=np.eye(prior.size), gain=nothing, values=np.zeros(n_observed)
        )


class FactorRanker(BaseRanker):
    """Inner products of task and model factors, mapped to standardised outcomes by a line."""

    short_forms: ClassVar[Mapping[str, str]] = {":": "n_factors"}

    _task_ids: Learned[Annotated[tuple[str, ...], Shape("task")]]
    _tasks: Learned[Annotated[FloatArray, Shape("task", "factor")]]
    _slope: Learned[float]
    _offset: Learned[float]
    _models: Learned[CardRegression]
    _placement: Learned[TaskPlacement]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        score = standardize(interactions, "zscore").scores
        self._task_ids = interactions.task_ids
        found = self._fit_factors(
            interactions.task_index,
            interactions.model_index,
            *self._targets(interactions, score),
            n_tasks=interactions.n_tasks,
            n_models=interactions.n_models,
            config=self.config,
            rng=rng,
        )
        self._tasks, factors = found.task_factors, found.model_factors
        # An error e of a task's factors changes how its models differ by eᵀ metric e on average.
        metric = np.cov(factors.T, bias=True).reshape(self._tasks.shape[1], -1)
        self._placement = TaskPlacement.fit(
            self._catalog, self._task_ids, self._tasks, metric=metric
        )
        models = CardRegression(LinearHead)
        self._models = models.fit(self._catalog, interactions.model_ids, factors)
        task, model = interactions.task_index, interactions.model_index
        product = np.einsum("ij,ij->i", self._tasks[task], factors[model])
        centred = product - product.mean()
        spread = float(centred @ centred)
        # No spread: every model is predicted the mean of its task.
        self._slope = float(centred @ score) / spread if spread > 1e-12 else 0.0
        self._offset = float(score.mean() - self._slope * product.mean())

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        product = self.model_factors(model_ids) @ self.task_factors(task)
        return self._offset + self._slope * product

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Known tasks that place a cold task, factors of a known one, outcomes folded in.

        A cold task's factors are a weighted mean of the known tasks', so its score of a model is
        the same mean of theirs: each adds its weight times its own score. The factors of a known
        task are learned together with all others and are shared out by dimension. Folding in is
        linear once it is known which factors stay above 0, and outcomes count by that.
        """
        models = self.model_factors(model_ids)
        folding = self._folded(task)
        seen = models @ folding.gain
        outcomes = seen * (self._offset + self._slope * folding.values)
        kept = models @ folding.keep
        rest = self._offset * (1.0 - seen.sum(axis=1))
        if task.task_id in self._task_ids:
            own = self._tasks[self._task_ids.index(task.task_id)]
            prior = np.column_stack([rest, self._slope * kept * own])
            # A factor is named by the known task that has most of it.
            most = [self._task_ids[int(at)] for at in self._tasks.argmax(axis=0)]
            names = [f"factor {i} (most in {name})" for i, name in enumerate(most, start=1)]
            sources = (BASE, *(Source("factor", name) for name in names))
        else:
            n, placed = len(self._task_ids), self.place(task)
            weights = np.array(list(placed.weights.values())) if placed else np.full(n, 1.0 / n)
            prior = weights * (self._slope * kept @ self._tasks.T + rest[:, None])
            sources = tuple(Source.task(known) for known in self._task_ids)
        observed = tuple(Source.observed(model_id) for model_id in task.observed_ids)
        return (Contributions(self.name, (*sources, *observed), np.hstack([prior, outcomes])),)

    def model_factors(self, model_ids: Sequence[str]) -> FloatArray:
        """Factor rows of models, (n_models, n_factors); without runs, predicted from the card."""
        return self._models.rows(self._catalog, model_ids)

    def space(self, model_ids: Sequence[str]) -> TransferSpace:
        """Some models, with runs or without, ready to be ranked for many tasks."""
        return TransferSpace(model_ids, self.model_factors(model_ids))

    def place(self, task: TaskView) -> Placed | None:
        """Where a task without runs is placed and why; ``None`` for one with runs."""
        return None if task.task_id in self._task_ids else self._placement.placed(task.card)

    def task_factors(self, task: TaskView) -> FloatArray:
        """Factor row of a task, shape (n_factors,): its own, from its card, or folded in."""
        return self._folded(task).factors

    def _folded(self, task: TaskView) -> Folding:
        prior: FloatArray = (
            self._tasks[self._task_ids.index(task.task_id)]
            if task.task_id in self._task_ids
            else self._placement.place(task.card)[0]
        )
        if not task.observed_ids:
            return Folding.none(prior)
        return self._fold_in(prior, self.model_factors(task.observed_ids), task.observed_scores)

    #: Learns the factors of both sides.
    _fit_factors: ClassVar[Callable[..., Any]]

    @abstractmethod
    def _targets(self, interactions: Interactions, score: FloatArray) -> tuple[FloatArray, ...]:
        """Targets of the factors' products, and further arrays that the learner takes."""

    @abstractmethod
    def _fold_in(self, prior: FloatArray, rows: FloatArray, score: FloatArray) -> Folding:
        """Factors of a task whose outcomes on models with factors ``rows`` are known."""


class NMFRanker(FactorRanker):
    """Masked NMF of outcomes scaled to [0, 1] within each task.

    Parameters
    ----------
    config : NMFConfig, optional
        Default: three factors.
    """

    name: ClassVar[str] = "nmf"
    default_config: ClassVar[NMFConfig] = NMFConfig(n_factors=3)

    config: NMFConfig
    _fit_factors = staticmethod(fit_nmf)

    def _targets(self, interactions: Interactions, score: FloatArray) -> tuple[FloatArray, ...]:
        low, high = np.full((2, interactions.n_tasks), [[np.inf], [-np.inf]])
        np.minimum.at(low, interactions.task_index, score)
        np.maximum.at(high, interactions.task_index, score)
        span = np.where(high > low, high - low, 1.0)
        return ((score - low[interactions.task_index]) / span[interactions.task_index],)

    def _fold_in(self, prior: FloatArray, rows: FloatArray, score: FloatArray) -> Folding:
        if self._slope <= 0.0:
            return Folding.none(prior, score.size)
        values = (score - self._offset) / self._slope
        factors = fold_in(rows, values, alpha=_FOLD_IN_ALPHA, prior=prior)
        # Factors at 0 stay there; the others solve the normal equations without them.
        held = np.diag((factors > 0.0).astype(np.float64))
        rows = rows @ held
        system = np.linalg.inv(rows.T @ rows + _FOLD_IN_ALPHA * np.eye(factors.size))
        return Folding(
            factors=factors,
            keep=_FOLD_IN_ALPHA * held @ system @ held,
            gain=held @ system @ rows.T,
            values=values,
        )


class ALSRanker(FactorRanker):
    """Confidence-weighted ALS (``implicit``) of better or worse than the task's average.

    Parameters
    ----------
    config : ALSConfig, optional
        Default: four factors.
    """

    name: ClassVar[str] = "als"
    default_config: ClassVar[ALSConfig] = ALSConfig(n_factors=4)

    config: ALSConfig
    _fit_factors = staticmethod(fit_als)

    def _targets(self, interactions: Interactions, score: FloatArray) -> tuple[FloatArray, ...]:
        return preference_and_confidence(score)

    def _fold_in(self, prior: FloatArray, rows: FloatArray, score: FloatArray) -> Folding:
        preference, confidence = preference_and_confidence(score)
        penalty = self.config.regularization
        own = fold_in_als(
            rows, np.arange(score.size), preference, confidence, regularization=penalty
        )
        # Hu et al. have no prior place; a few outcomes weigh against it as in the NMF.
        share = score.size / (score.size + _FOLD_IN_ALPHA * prior.size)
        weighed = confidence[:, None] * rows
        system = np.linalg.inv(rows.T @ weighed + penalty * np.eye(prior.size))
        return Folding(
            factors=(1.0 - share) * prior + share * own,
            keep=(1.0 - share) * np.eye(prior.size),
            gain=share * system @ weighed.T,
            values=preference,
        )
