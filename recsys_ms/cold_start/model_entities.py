"""Labels and vectors of model cards, for the Gaussian process over (task, model) pairs."""

from collections.abc import Callable, Sequence
from typing import Final, Self

import numpy as np

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.names import parse_model_id
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.learners.gaussian.pairs import ITSELF, Entities
from recsys_ms.learners.gaussian.vectors import (
    commonest_length,
    known_rows,
    median_distance,
    stacked,
)

_NUMBERS: Final = ("n_parameters", "gmacs", "macts", "input_size", "hidden_width", "n_layers")
#: Unknown by name where a card does not say.
_LABELS: Final[dict[str, Callable[[ModelCard], str | None]]] = {
    "architecture": lambda card: card.architecture or parse_model_id(card.model_id).architecture,
    "family": lambda card: card.family,
    "source": lambda card: card.pretrained_domain or parse_model_id(card.model_id).tag,
}
_VECTORS: Final[dict[str, Callable[[ModelCard], Sequence[float] | None]]] = {
    "archi2vec": lambda card: card.embedding,
    "source labels": lambda card: card.source_label_embedding,
    "size": lambda card: _sizes(card),
}


class ModelEntities(Stateful):
    """Turns model cards into labels and vectors by which the training models differ."""

    _labels: Learned[tuple[str, ...]]
    _units: Learned[dict[str, float]]
    _widths: Learned[dict[str, int]]

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the kernels of models."""
        return (ITSELF, *self._labels, *self._units)

    def fit(self, cards: Sequence[ModelCard]) -> Self:
        """Choose labels and vectors that differ, and learn the units of vectors."""
        self._labels, self._units, self._widths = (), {}, {}
        seen: list[tuple[int, ...]] = [tuple(range(len(cards)))]
        for name, read in _LABELS.items():
            labels = [read(card) for card in cards]
            parts = _partition(labels)
            # A label that differs for every model, or repeats another's groups, adds nothing.
            if 1 < len(set(parts)) < len(cards) and parts not in seen:
                self._labels += (name,)
                seen.append(parts)
        for name, vector_of in _VECTORS.items():
            given = [vector_of(card) for card in cards]
            width = commonest_length(given)
            table = stacked(given, width)
            known = table[known_rows(table)]
            if len(np.unique(known, axis=0)) > 1:
                self._widths[name] = width
                self._units[name] = median_distance(table)
        return self

    def __call__(self, cards: Sequence[ModelCard]) -> Entities:
        """Labels and vectors of some models."""
        return Entities(
            ids=tuple(card.model_id for card in cards),
            labels={name: tuple(_LABELS[name](card) for card in cards) for name in self._labels},
            vectors={
                name: stacked([_VECTORS[name](card) for card in cards], self._widths[name]) / unit
                for name, unit in self._units.items()
            },
        )


def _sizes(card: ModelCard) -> Sequence[float] | None:
    """Logarithms of what a model costs; 0 where one is unknown, None where all are."""
    values = [getattr(card, name) for name in _NUMBERS]
    if all(value is None for value in values):
        return None
    return [0.0 if value is None else float(np.log(value)) for value in values]


def _partition(labels: Sequence[str | None]) -> tuple[int, ...]:
    """The place of the first equal label; an unknown one is a group of its own."""
    first: dict[str, int] = {}
    return tuple(
        i if label is None else first.setdefault(label, i) for i, label in enumerate(labels)
    )
