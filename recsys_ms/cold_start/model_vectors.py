"""Vectors of model cards: architecture, numbers, words."""

from collections.abc import Sequence
from typing import Final, Self

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.encoding import INDICATOR, VECTOR_FIELD, EncodedFeatures
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.cold_start.views import ViewScale
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray

#: The views: the vector of the architecture; numbers such as the size; families, data and words of
#: the name.
ARCHITECTURE: Final = "architecture"
NUMBERS: Final = "numbers"
WORDS: Final = "words"
_TINY: Final = 1e-12


class ModelVectors(Stateful):
    """Turns model cards and names into one vector a view."""

    _encoder: Learned[ModelFeatureEncoder]
    _scales: Learned[dict[str, ViewScale]]

    @property
    def views(self) -> tuple[str, ...]:
        """Views by which the training models differ."""
        return tuple(self._scales)

    def fit(self, catalog: Catalog, model_ids: Sequence[str]) -> Self:
        """Learn vocabularies and scales from the training models."""
        self._encoder = ModelFeatureEncoder().fit(catalog, model_ids)
        self._scales = {}
        for view, vectors in self._raw(catalog, model_ids).items():
            if vectors.shape[1] and np.ptp(vectors, axis=0).max(initial=0.0) > _TINY:
                self._scales[view] = ViewScale.fit(vectors)
        return self

    def __call__(self, catalog: Catalog, model_ids: Sequence[str]) -> dict[str, FloatArray]:
        """Scaled vectors of each of :attr:`views`, shape (n_models, n_dimensions)."""
        raw = self._raw(catalog, model_ids)
        return {view: scale(raw[view]) for view, scale in self._scales.items()}

    def _raw(self, catalog: Catalog, model_ids: Sequence[str]) -> dict[str, FloatArray]:
        encoded = self._encoder.transform(catalog, model_ids)
        is_vector = np.array([field == VECTOR_FIELD for field in encoded.linear_fields], dtype=bool)
        is_word = ~is_vector & (encoded.kinds == INDICATOR)
        return {
            ARCHITECTURE: _columns(encoded, is_vector),
            NUMBERS: _columns(encoded, ~is_vector & ~is_word),
            WORDS: _columns(encoded, is_word),
        }


def _columns(encoded: EncodedFeatures, chosen: np.ndarray) -> FloatArray:
    found: FloatArray = encoded.linear[:, np.flatnonzero(chosen)].toarray()
    return found
