"""Popularity, predicted from model cards where a model has no runs."""

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.encoding import EncodingConfig
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.core.declared import Shape
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray, RngLike
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.design import FeatureDesign, row_design
from recsys_ms.learners.ensemble import EnsembleHead
from recsys_ms.learners.linear import LinearHead
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions
from recsys_ms.rankers.popularity import lookup, mean_by_model, positions


class CardRegression(Stateful):
    """Properties of models: known for those it was fitted on, predicted from cards for others.

    Parameters
    ----------
    make : callable
        Makes a head, not fitted; each property has one.
    config : EncodingConfig, optional
        How cards are encoded.
    """

    ids: Learned[Annotated[tuple[str, ...], Shape("model")]]
    known: Learned[Annotated[FloatArray, Shape("model", "property")]]
    _encoder: Learned[ModelFeatureEncoder]
    _heads: Learned[Annotated[tuple[EnsembleHead | LinearHead, ...], Shape("property")]]

    def __init__(
        self, make: Callable[[], EnsembleHead | LinearHead], config: EncodingConfig | None = None
    ) -> None:
        self._make, self._encoder = make, ModelFeatureEncoder(config)

    @classmethod
    def ensemble(cls) -> Self:
        """Ridge on features and their products, trees and a Gaussian process, stacked."""
        return cls(EnsembleHead, EncodingConfig(quadratic=True))

    def fit(
        self, catalog: Catalog, ids: Sequence[str], known: FloatArray, *, rng: RngLike = None
    ) -> Self:
        """Learn the properties ``known`` (n_models, n_properties) from the cards of ``ids``."""
        self.ids, self.known = tuple(ids), known
        self._encoder.fit(catalog, ids)
        design = self._design(catalog, ids)
        self._heads = tuple(self._make().fit(design, column, rng=rng) for column in known.T)
        del self._make
        return self

    def rows(self, catalog: Catalog, ids: Sequence[str]) -> FloatArray:
        """Properties of some models, shape (n_models, n_properties)."""
        at = positions(self.ids, ids)
        found: FloatArray = self.known[np.maximum(at, 0)]
        cold = np.flatnonzero(at < 0)
        if cold.size:
            design = self._design(catalog, [ids[int(i)] for i in cold])
            found[cold] = np.column_stack([head.predict(design) for head in self._heads])
        return found

    def explain(self, part: str, catalog: Catalog, ids: Sequence[str]) -> Contributions:
        """Contributions of the cards' fields to the first property as predicted."""
        found = self._heads[0].contributions(self._design(catalog, ids))
        return Contributions.of_fields(part, found)

    def _design(self, catalog: Catalog, ids: Sequence[str]) -> FeatureDesign:
        return row_design(self._encoder.transform(catalog, ids))


class CardRanker(BaseRanker):
    """Popularity where a model has runs; elsewhere an ensemble of learners on model cards.

    The learners (ridge on features and their products, trees, a Gaussian process) see one row a
    model, its mean standardised outcome. The answer is the same for every task.
    """

    name: ClassVar[str] = "cards"

    _popularity: Learned[CardRegression]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        means = mean_by_model(interactions, standardize(interactions, "zscore").scores)
        by_card = CardRegression.ensemble()
        self._popularity = by_card.fit(
            self._catalog, interactions.model_ids, means[:, None], rng=rng
        )

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        return self._popularity.rows(self._catalog, model_ids)[:, 0]

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Popularity of models with runs, fields of the card of the others."""
        popularity = self._popularity
        is_cold = positions(popularity.ids, model_ids) < 0
        known = lookup(popularity.ids, popularity.known[:, 0], model_ids)
        found = [Contributions.whole(self.name, known, POPULARITY)]
        if is_cold.any():
            by_card = popularity.explain(self.name, self._catalog, model_ids)
            found.append(by_card.weighted(is_cold.astype(np.float64)))
        return (Contributions.joined(self.name, found),)
