"""Popularity of models, factors of tasks and models, and what cards predict of both.

Fennec's transfer space (Bai et al. 2024, §3.1) as one Gaussian model: factors of tasks and models
from the outcomes (:mod:`recsys_ms.learners.factor_model`), and a Gaussian process from cards to
factors on either side (:mod:`recsys_ms.learners.gaussian.card_process`), for tasks and models
without runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.model_vectors import ModelVectors
from recsys_ms.cold_start.placement import TaskPlacement
from recsys_ms.core.declared import Shape, Within
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.factor_model import FactorModelConfig, fit_factor_model
from recsys_ms.learners.gaussian.card_process import CardProcess
from recsys_ms.rankers.by_cards import CardRegression
from recsys_ms.rankers.outcome_shape import OutcomeShape, TrainingScores
from recsys_ms.rankers.popularity import mean_by_model, positions

#: Leading directions of the models' cards that outcomes of a single task may follow.
_N_DIRECTIONS: Final = 32
#: With fewer training rows, cards are not learned from.
_MIN_ROWS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class ModelRows:
    """Expected properties of some models, on any task."""

    level: FloatArray  # (n_models,), popularity in normal scores
    loadings: FloatArray  # (n_models, n_factors)
    directions: FloatArray  # (n_models, n_directions) of cards: similarities are inner products
    noise: FloatArray  # (n_models,), residual variance
    bend: FloatArray  # (n_models,), mean z-score less that of the common shape; 0 without runs

    def take(self, at: IntArray) -> "ModelRows":
        """The rows at some positions."""
        return ModelRows(*(array[at] for array in self.arrays))

    @property
    def arrays(self) -> tuple[FloatArray, ...]:
        """All attributes, in order."""
        return self.level, self.loadings, self.directions, self.noise, self.bend


class TransferModel(Stateful):
    """Factors of tasks and models, and where cards place those without runs."""

    task_ids: Learned[Annotated[tuple[str, ...], Shape("task")]]
    model_ids: Learned[Annotated[tuple[str, ...], Shape("model")]]
    level: Learned[Annotated[FloatArray, Shape("model")]]
    level_variance: Learned[Annotated[float, Within(least=0.0)]]
    loadings: Learned[Annotated[FloatArray, Shape("model", "factor")]]
    noise: Learned[Annotated[FloatArray, Shape("model"), Within(least=0.0)]]
    factors: Learned[Annotated[FloatArray, Shape("task", "factor")]]
    bend: Learned[Annotated[FloatArray, Shape("model")]]
    tasks: Learned[TaskPlacement]
    _model_vectors: Learned[ModelVectors]
    _model_process: Learned[CardProcess | None]
    _target_center: Learned[Annotated[FloatArray, Shape("target")]]
    _target_unit: Learned[Annotated[float, Within(above=0.0)]]
    _directions: Learned[Annotated[FloatArray, Shape("feature", "direction")]]
    _known_directions: Learned[Annotated[FloatArray, Shape("model", "direction")]]
    _level_by_card: Learned[CardRegression | None]

    def fit(
        self,
        data: TrainingScores,
        shape: OutcomeShape,
        catalog: Catalog,
        config: FactorModelConfig,
        *,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """Learn from the training interactions, their normal scores and z-scores.

        ``shape`` maps the first to the second on average. With ``rng``, the popularity of models
        without runs is predicted by an ensemble of heads, which costs more than all else and is
        better than the process (timm, a fifth of the models new: Pearson .942 to .910).
        """
        interactions = data.interactions
        self.task_ids, self.model_ids = interactions.task_ids, interactions.model_ids
        found = fit_factor_model(
            interactions.task_index,
            interactions.model_index,
            data.normal,
            n_tasks=interactions.n_tasks,
            n_models=interactions.n_models,
            config=config,
        )
        self.level, self.level_variance = found.level, found.level_variance
        self.loadings, self.noise = _single(found.loadings), _single(found.noise)
        self.factors = _single(found.factors)
        sd = np.sqrt((self.loadings**2).sum(axis=1) + self.noise)
        self.bend = _single(
            mean_by_model(interactions, data.standard) - shape.expected(self.level, sd)
        )
        self.tasks = TaskPlacement.fit(catalog, self.task_ids, self.factors, centred=False)
        self._fit_models(catalog)
        self._level_by_card = None
        if rng is not None and self._model_process is not None:
            by_card = CardRegression.ensemble()
            self._level_by_card = by_card.fit(catalog, self.model_ids, self.level[:, None], rng=rng)
        return self

    def _fit_models(self, catalog: Catalog) -> None:
        self._model_vectors = ModelVectors().fit(catalog, self.model_ids)
        self._model_process = None
        self._directions = np.zeros((0, 0))
        self._known_directions = np.zeros((len(self.model_ids), 0))
        target = np.column_stack([self.level, self.loadings])
        self._target_center = target.mean(axis=0)
        # Popularity spreads over models more than factors do, and counts by that.
        self._target_unit = max(float(target.std(axis=0).max()), 1e-6)
        if not self._model_vectors.views or len(self.model_ids) < _MIN_ROWS:
            return
        views = self._model_vectors(catalog, self.model_ids)
        weighted = (target - self._target_center) / self._target_unit
        self._model_process = CardProcess.fit(views, weighted)
        features = self._model_process.features(views)
        total = sum(self._model_process.variances.values())
        total -= self._model_process.variances["noise"]
        if total > 0.0:
            _, size, axes = np.linalg.svd(features / np.sqrt(total), full_matrices=False)
            kept = min(_N_DIRECTIONS, int((size > 1e-6).sum()))
            self._directions = axes[:kept].T / np.sqrt(total)
            self._known_directions = _single(features @ self._directions)

    def known_rows(self) -> ModelRows:
        """All models with runs."""
        return ModelRows(self.level, self.loadings, self._known_directions, self.noise, self.bend)

    def rows(self, catalog: Catalog, model_ids: Sequence[str]) -> ModelRows:
        """Models with runs, and models known by their card or name alone."""
        at = positions(self.model_ids, model_ids)
        found = self.known_rows().take(np.maximum(at, 0))
        new = np.flatnonzero(at < 0)
        if new.size == 0:
            return found
        ids = [model_ids[int(i)] for i in new]
        for whole, part in zip(found.arrays, self._from_cards(catalog, ids).arrays, strict=True):
            whole[new] = part
        return found

    def _from_cards(self, catalog: Catalog, model_ids: Sequence[str]) -> ModelRows:
        n = len(model_ids)
        usual = float(np.mean(self.noise))
        if self._model_process is None:
            spread = float(self.level.var() + (self.loadings**2).sum(axis=1).mean())
            return ModelRows(
                np.full(n, float(self.level.mean())),
                np.tile(self.loadings.mean(axis=0), (n, 1)),
                np.zeros((n, self._known_directions.shape[1])),
                np.full(n, usual + spread),
                np.zeros(n),
            )
        views = self._model_vectors(catalog, model_ids)
        mean, variance = self._model_process.predict(views)
        told = self._target_center + mean * self._target_unit
        if self._level_by_card is not None:
            told[:, 0] = self._level_by_card.rows(catalog, model_ids)[:, 0]
        directions = self._model_process.features(views) @ self._directions
        open_variance = variance * self._target_unit**2
        return ModelRows(told[:, 0], told[:, 1:], directions, usual + open_variance, np.zeros(n))


def _single(array: FloatArray) -> FloatArray:
    """The array rounded to single precision, as an artifact stores it."""
    return np.ascontiguousarray(array.astype(np.float32).astype(np.float64))
