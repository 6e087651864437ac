"""Popularity of models that nobody has run, predicted from their cards."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recsys_ms.catalog.encoding import EncodingConfig
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.design import row_design
from recsys_ms.learners.ensemble import EnsembleHead
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions
from recsys_ms.rankers.popularity import mean_by_model, positions


class CardRanker(BaseRanker):
    """Popularity where a model has runs; elsewhere a blend of learners on model cards.

    The learners (ridge on features and their products, trees, a Gaussian process) see one row a
    model, its mean standardised outcome, so that their cost does not grow with the number of
    tasks. The answer is the same for every task.
    """

    name: ClassVar[str] = "cards"

    _model_ids: Learned[tuple[str, ...]]
    _means: Learned[FloatArray]
    _encoder: Learned[ModelFeatureEncoder]
    _head: Learned[EnsembleHead]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        self._model_ids = interactions.model_ids
        self._means = mean_by_model(interactions, standardize(interactions, "zscore").scores)
        self._encoder = ModelFeatureEncoder(EncodingConfig(quadratic=True))
        self._encoder.fit(self._catalog, self._model_ids)
        features = self._encoder.transform(self._catalog, self._model_ids)
        self._head = EnsembleHead().fit(row_design(features), self._means, rng=rng)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        at = positions(self._model_ids, model_ids)
        value = self._means[np.maximum(at, 0)].copy()
        cold = np.flatnonzero(at < 0)
        if cold.size:
            features = self._encoder.transform(self._catalog, [model_ids[int(i)] for i in cold])
            value[cold] = self._head.predict(row_design(features))
        return Prediction(value=value, order=value)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Popularity of models with runs; of others what each field of the card adds."""
        at = positions(self._model_ids, model_ids)
        known = np.where(at >= 0, self._means[np.maximum(at, 0)], 0.0)
        found = Contributions.whole(self.name, known, POPULARITY)
        if (at >= 0).all():
            return (found,)
        features = self._encoder.transform(self._catalog, model_ids)
        by_card = Contributions.of_fields(
            self.name, self._head.contributions(row_design(features))
        ).weighted((at < 0).astype(np.float64))
        return (Contributions.joined(self.name, [found, by_card]),)
