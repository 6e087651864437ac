"""Popularity, predicted from model cards where a model has no runs."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.encoding import EncodingConfig
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray, RngLike
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.design import row_design
from recsys_ms.learners.ensemble import EnsembleHead
from recsys_ms.learners.linear import LinearHead
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions
from recsys_ms.rankers.popularity import lookup, mean_by_model, positions


class CardRegression(Stateful):
    """Regressions from model cards to properties of models, one head a property.

    Parameters
    ----------
    make : callable
        Makes a head, not fitted.
    config : EncodingConfig, optional
        How cards are encoded.
    """

    _encoder: Learned[ModelFeatureEncoder]
    _heads: Learned[tuple[EnsembleHead | LinearHead, ...]]

    def __init__(
        self, make: Callable[[], EnsembleHead | LinearHead], config: EncodingConfig | None = None
    ) -> None:
        self._make, self._encoder = make, ModelFeatureEncoder(config)

    def fit(
        self, catalog: Catalog, ids: Sequence[str], target: FloatArray, *, rng: RngLike = None
    ) -> Self:
        """Learn ``target`` (n_models, n_properties) from the cards of the models ``ids``."""
        design = row_design(self._encoder.fit(catalog, ids).transform(catalog, ids))
        self._heads = tuple(self._make().fit(design, column, rng=rng) for column in target.T)
        del self._make
        return self

    @classmethod
    def ensemble(cls) -> Self:
        """Ridge on features and their products, trees and a Gaussian process, stacked."""
        return cls(EnsembleHead, EncodingConfig(quadratic=True))

    def predict(self, catalog: Catalog, ids: Sequence[str]) -> FloatArray:
        """Properties of models by their cards, shape (n_models, n_properties)."""
        design = row_design(self._encoder.transform(catalog, ids))
        return np.column_stack([head.predict(design) for head in self._heads])

    def explain(self, part: str, catalog: Catalog, ids: Sequence[str]) -> Contributions:
        """What each field of the cards adds to the first property."""
        design = row_design(self._encoder.transform(catalog, ids))
        return Contributions.of_fields(part, self._heads[0].contributions(design))


class CardRanker(BaseRanker):
    """Popularity where a model has runs; elsewhere an ensemble of learners on model cards.

    The learners (ridge on features and their products, trees, a Gaussian process) see one row a
    model, its mean standardised outcome. The answer is the same for every task.
    """

    name: ClassVar[str] = "cards"

    _model_ids: Learned[tuple[str, ...]]
    _means: Learned[FloatArray]
    _by_card: Learned[CardRegression]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        self._model_ids = interactions.model_ids
        self._means = mean_by_model(interactions, standardize(interactions, "zscore").scores)
        self._by_card = CardRegression.ensemble()
        self._by_card.fit(self._catalog, self._model_ids, self._means[:, None], rng=rng)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        at = positions(self._model_ids, model_ids)
        value: FloatArray = self._means[np.maximum(at, 0)]
        cold = np.flatnonzero(at < 0)
        if cold.size:
            ids = [model_ids[int(i)] for i in cold]
            value[cold] = self._by_card.predict(self._catalog, ids)[:, 0]
        return value

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Popularity of models with runs, fields of the card of the others."""
        is_cold = positions(self._model_ids, model_ids) < 0
        known = lookup(self._model_ids, self._means, model_ids)
        found = [Contributions.whole(self.name, known, POPULARITY)]
        if is_cold.any():
            by_card = self._by_card.explain(self.name, self._catalog, model_ids)
            found.append(by_card.weighted(is_cold.astype(np.float64)))
        return (Contributions.joined(self.name, found),)
