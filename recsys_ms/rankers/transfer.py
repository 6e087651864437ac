"""Transfer score: inner products of task and model factors (Fennec, §3.1).

A task without runs is placed in the space by its images, class names or card
(:mod:`recsys_ms.cold_start.placement`), a model without runs by ridge regressions from its card and
architecture; a task with a few observed outcomes is folded in.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.encoding import EncodedFeatures
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.cold_start.placement import Outcomes, Placed, TaskPlacement
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.als import (
    ALSConfig,
    fit_als,
    fold_in_als,
    preference_and_confidence,
)
from recsys_ms.learners.design import row_design
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.nmf import NMFConfig, fit_nmf, fold_in
from recsys_ms.learners.transfer_space import TransferSpace
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.rankers.contributions import BASE, Contributions, Source
from recsys_ms.rankers.fold_in import Folding
from recsys_ms.rankers.popularity import positions

#: Weight of the prior place of a task when a few of its outcomes are folded in, in outcomes.
_FOLD_IN_ALPHA: Final = 1.0


class FactorProjection(Stateful):
    """Ridge regressions from encoded features to factor rows, one a factor.

    The strength of each is chosen on rows left out; where features say nothing it grows until the
    answer is the mean row.
    """

    _heads: Learned[tuple[LinearHead, ...]]

    def __init__(self, heads: Sequence[LinearHead]) -> None:
        self._heads = tuple(heads)

    @classmethod
    def fit(cls, features: EncodedFeatures, factors: FloatArray) -> "FactorProjection":
        """Learn ``factors`` (n_rows, n_factors) from the rows of ``features``."""
        design = row_design(features)
        return cls([LinearHead().fit(design, column) for column in factors.T])

    def predict(self, features: EncodedFeatures) -> FloatArray:
        """Factor rows, shape (n_rows, n_factors)."""
        design = row_design(features)
        factors: FloatArray = np.column_stack([head.predict(design) for head in self._heads])
        return factors


class FactorRanker(BaseRanker):
    """Scores by task factors · model factors, put on the standardised scale by a straight line."""

    _model_ids: Learned[tuple[str, ...]]
    _task_ids: Learned[tuple[str, ...]]
    _tasks: Learned[FloatArray]
    _models: Learned[FloatArray]
    _slope: Learned[float]
    _offset: Learned[float]
    _model_encoder: Learned[ModelFeatureEncoder]
    _model_projection: Learned[FactorProjection]
    _placement: Learned[TaskPlacement]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        score = standardize(interactions, "zscore").scores
        self._model_ids = interactions.model_ids
        self._task_ids = interactions.task_ids
        self._tasks, self._models = self._factorise(interactions, score, rng)
        self._model_encoder = ModelFeatureEncoder().fit(self._catalog, interactions.model_ids)
        self._placement = self._place_tasks(interactions, score, rng)
        self._model_projection = FactorProjection.fit(
            self._model_encoder.transform(self._catalog, interactions.model_ids), self._models
        )
        product = np.einsum(
            "ij,ij->i",
            self._tasks[interactions.task_index],
            self._models[interactions.model_index],
        )
        centred = product - product.mean()
        spread = float(centred @ centred)
        # No spread: every model is predicted the mean of its task.
        self._slope = float(centred @ score) / spread if spread > 1e-12 else 0.0
        self._offset = float(score.mean() - self._slope * product.mean())

    def _place_tasks(
        self, interactions: Interactions, score: FloatArray, rng: np.random.Generator
    ) -> TaskPlacement:
        seed = seed_from(rng)

        def factorise(keep: BoolArray) -> tuple[FloatArray, FloatArray]:
            part = interactions.select(keep)
            stream = named_stream(seed, "placement", "factorise")
            found = self._factorise(part, standardize(part, "zscore").scores, stream)
            return (
                _spread(found[0], part.task_ids, interactions.task_ids),
                _spread(found[1], part.model_ids, interactions.model_ids),
            )

        return TaskPlacement.fit(
            [
                self._catalog.find_task_card(task_id) or TaskCard(task_id=task_id)
                for task_id in interactions.task_ids
            ],
            self._tasks,
            self._models,
            Outcomes(
                task_index=interactions.task_index,
                model_index=interactions.model_index,
                score=score,
            ),
            factorise,
            rng=named_stream(seed, "placement", "folds"),
        )

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        value = self._offset + self._slope * (
            self.model_factors(model_ids) @ self.task_factors(task)
        )
        return Prediction(value=value, order=value)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Known tasks that place a cold task, factors of a known one, outcomes folded in.

        A cold task's factors are a weighted mean of the known tasks', so its score of a model is
        the same mean of theirs: each adds its weight times its own score. The factors of a known
        task are learned together with all others and are shared out by dimension. Folding in is
        linear once it is known which factors stay above 0, and outcomes count by that.
        """
        models = self.model_factors(model_ids)
        folding = self._folding(task)
        seen = models @ folding.gain
        outcomes = seen * (self._offset + self._slope * folding.values)
        kept = models @ folding.keep
        rest = self._offset * (1.0 - seen.sum(axis=1))
        placed = self.place(task)
        if placed is None:
            own = self._tasks[self._task_ids.index(task.task_id)]
            prior = np.column_stack([rest, self._slope * kept * own])
            sources = (BASE, *self._factor_sources())
        else:
            weights = np.array([placed.weights[known] for known in self._task_ids])
            prior = weights * (self._slope * kept @ self._tasks.T + rest[:, None])
            sources = tuple(Source.task(known) for known in self._task_ids)
        observed = tuple(Source.observed(model_id) for model_id in task.observed_ids)
        return (Contributions(self.name, (*sources, *observed), np.hstack([prior, outcomes])),)

    def _factor_sources(self) -> tuple[Source, ...]:
        """A factor is told by the known task that has most of it."""
        most = self._tasks.argmax(axis=0)
        return tuple(
            Source("factor", f"factor {i + 1} (most in {self._task_ids[int(task)]})")
            for i, task in enumerate(most)
        )

    def _folding(self, task: TaskView) -> Folding:
        """How the factors of a task come from its prior place and its outcomes."""
        if not task.observed_ids:
            return Folding.none(self._models.shape[1])
        return self._fold_in_linear(
            self.task_factors(task), self.model_factors(task.observed_ids), task.observed_scores
        )

    def model_factors(self, model_ids: Sequence[str]) -> FloatArray:
        """Factor rows of models, shape (n_models, n_factors); from their cards where no run is."""
        at = positions(self._model_ids, model_ids)
        rows: FloatArray = self._models[np.maximum(at, 0)].copy()
        cold = np.flatnonzero(at < 0)
        if cold.size:
            features = self._model_encoder.transform(
                self._catalog, [model_ids[int(i)] for i in cold]
            )
            rows[cold] = self._model_projection.predict(features)
        return rows

    def space(self, model_ids: Sequence[str]) -> TransferSpace:
        """Some models, with runs or without, ready to be ranked for many tasks."""
        return TransferSpace(model_ids, self.model_factors(model_ids))

    def place(self, task: TaskView) -> Placed | None:
        """Where a task without runs stands and why; ``None`` for one with runs."""
        return None if task.task_id in self._task_ids else self._placement.place(task.card)

    def task_factors(self, task: TaskView) -> FloatArray:
        """Factor row of a task, shape (n_factors,): its own, from its card, or folded in."""
        if task.task_id in self._task_ids:
            prior: FloatArray = self._tasks[self._task_ids.index(task.task_id)]
        else:
            prior = self._placement.place(task.card).factors
        if not task.observed_ids:
            return prior
        return self._fold_in(prior, self.model_factors(task.observed_ids), task.observed_scores)

    @abstractmethod
    def _factorise(
        self, interactions: Interactions, score: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Task factors and model factors."""

    @abstractmethod
    def _fold_in(
        self, prior: FloatArray, model_factors: FloatArray, score: FloatArray
    ) -> FloatArray:
        """Factors of a task whose outcomes on some models are known."""

    @abstractmethod
    def _fold_in_linear(
        self, folded: FloatArray, model_factors: FloatArray, score: FloatArray
    ) -> Folding:
        """The same as a linear map, given the factors that it led to."""


def _spread(factors: FloatArray, ids: Sequence[str], all_ids: Sequence[str]) -> FloatArray:
    """Factor rows of ``ids`` in the places of ``all_ids``; zeros elsewhere."""
    rows = np.zeros((len(all_ids), factors.shape[1]))
    rows[positions(all_ids, ids)] = factors
    return rows


class NMFRanker(FactorRanker):
    """Masked NMF of outcomes scaled to [0, 1] within each task.

    Parameters
    ----------
    config : NMFConfig, optional
        Default: three factors.
    """

    name: ClassVar[str] = "nmf"
    default_config: ClassVar[NMFConfig] = NMFConfig(n_factors=3)
    short_forms: ClassVar[Mapping[str, str]] = {":": "n_factors"}

    config: NMFConfig

    def _factorise(
        self, interactions: Interactions, score: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        n_tasks = interactions.n_tasks
        low, high = np.full(n_tasks, np.inf), np.full(n_tasks, -np.inf)
        np.minimum.at(low, interactions.task_index, score)
        np.maximum.at(high, interactions.task_index, score)
        span = np.where(high > low, high - low, 1.0)
        scaled = (score - low[interactions.task_index]) / span[interactions.task_index]
        factors = fit_nmf(
            interactions.task_index,
            interactions.model_index,
            scaled,
            n_tasks=n_tasks,
            n_models=interactions.n_models,
            config=self.config,
            rng=rng,
        )
        return factors.task_factors, factors.model_factors

    def _fold_in(
        self, prior: FloatArray, model_factors: FloatArray, score: FloatArray
    ) -> FloatArray:
        if self._slope <= 0.0:
            return prior
        value = (score - self._offset) / self._slope
        return fold_in(model_factors, value, alpha=_FOLD_IN_ALPHA, prior=prior)

    def _fold_in_linear(
        self, folded: FloatArray, model_factors: FloatArray, score: FloatArray
    ) -> Folding:
        if self._slope <= 0.0:
            return Folding.none(folded.size, n_observed=score.size)
        # Factors at 0 stay there; the others solve the normal equations without them.
        free = folded > 0.0
        held = np.diag(free.astype(np.float64))
        rows = model_factors @ held
        system = np.linalg.inv(rows.T @ rows + _FOLD_IN_ALPHA * np.eye(folded.size))
        return Folding(
            keep=_FOLD_IN_ALPHA * held @ system @ held,
            gain=held @ system @ rows.T,
            values=(score - self._offset) / self._slope,
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
    short_forms: ClassVar[Mapping[str, str]] = {":": "n_factors"}

    config: ALSConfig

    def _factorise(
        self, interactions: Interactions, score: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        preference, confidence = preference_and_confidence(score)
        factors = fit_als(
            interactions.task_index,
            interactions.model_index,
            preference,
            confidence,
            n_tasks=interactions.n_tasks,
            n_models=interactions.n_models,
            config=self.config,
            rng=rng,
        )
        return factors.task_factors, factors.model_factors

    def _fold_in(
        self, prior: FloatArray, model_factors: FloatArray, score: FloatArray
    ) -> FloatArray:
        preference, confidence = preference_and_confidence(score)
        seen: IntArray = np.arange(score.size, dtype=np.int64)
        own = fold_in_als(
            model_factors,
            seen,
            preference,
            confidence,
            regularization=self.config.regularization,
        )
        share = self._share(score.size, model_factors.shape[1])
        folded: FloatArray = (1.0 - share) * prior + share * own
        return folded

    def _fold_in_linear(
        self, folded: FloatArray, model_factors: FloatArray, score: FloatArray
    ) -> Folding:
        preference, confidence = preference_and_confidence(score)
        weighed = confidence[:, None] * model_factors
        penalty = self.config.regularization * np.eye(folded.size)
        share = self._share(score.size, folded.size)
        system = np.linalg.inv(model_factors.T @ weighed + penalty)
        return Folding(
            keep=(1.0 - share) * np.eye(folded.size),
            gain=share * system @ weighed.T,
            values=preference,
        )

    def _share(self, n_observed: int, n_factors: int) -> float:
        # Hu et al. have no prior place; a few outcomes weigh against it as in the NMF.
        return n_observed / (n_observed + _FOLD_IN_ALPHA * n_factors)
