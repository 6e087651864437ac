"""Vectors of task cards, one a view: images, class names, and what else the card says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np

from recsys_ms.catalog.cards import TASK_FIELDS, TaskCard
from recsys_ms.catalog.features import TaskFeatureEncoder, card_columns
from recsys_ms.core.declared import Shape, Within
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.learners.gaussian.vectors import commonest_length, known_rows, stacked

#: The proxy's vectors of images and of class names, and numbers and words of the card.
IMAGES: Final = "images"
NAMES: Final = "names"
CARD: Final = "card"
VIEWS: Final = (IMAGES, NAMES, CARD)

#: Fields of the other views.
_ELSEWHERE: Final = frozenset({"embedding", "label_embedding", "embedding_source", "class_names"})
#: Fields that every card has.
_ALWAYS: Final = frozenset({"task_id", "metric", "direction"})
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class ViewScale:
    """Makes the vectors of a view comparable: centred, and of length 1 on average.

    One factor for all dimensions: a dimension in which tasks differ more counts more.
    """

    center: Annotated[FloatArray, Shape("dimension")]
    length: Annotated[float, Within(above=0.0)]

    @classmethod
    def fit(cls, vectors: FloatArray) -> Self:
        """Learn from the training tasks that have the view, shape (n_tasks, n_dimensions)."""
        center = vectors.mean(axis=0)
        length = float(np.sqrt(((vectors - center) ** 2).sum(axis=1).mean()))
        return cls(center, length if length > _TINY else 1.0)

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Scaled vectors."""
        scaled: FloatArray = (vectors - self.center) / self.length
        return scaled


class TaskVectors(Stateful):
    """Turns task cards into one vector a view, NaN throughout where a card has no such view."""

    _encoder: Learned[TaskFeatureEncoder]
    _scales: Learned[dict[str, ViewScale]]
    _source: Learned[str | None]

    @property
    def source(self) -> str | None:
        """Proxy of the training cards; vectors of another one count as unknown."""
        return self._source

    @property
    def views(self) -> tuple[str, ...]:
        """Views that at least two training tasks have, and by which they differ."""
        return tuple(view for view in VIEWS if view in self._scales)

    def fit(self, cards: Sequence[TaskCard]) -> Self:
        """Learn widths and scales from the cards of the training tasks."""
        self._encoder = TaskFeatureEncoder().fit_cards(card_columns(cards, hidden=_ELSEWHERE))
        self._source = _commonest([card.embedding_source for card in cards if _has_vectors(card)])
        self._scales = {}
        for view, vectors in self._raw(cards, {}).items():
            known = vectors[known_rows(vectors)]
            if known.shape[0] >= 2 and known.shape[1] and np.ptp(known, axis=0).max() > _TINY:
                self._scales[view] = ViewScale.fit(known)
        return self

    def __call__(self, cards: Sequence[TaskCard]) -> dict[str, FloatArray]:
        """Scaled vectors of each of :attr:`views`, shape (n_cards, n_dimensions)."""
        widths = {view: scale.center.size for view, scale in self._scales.items()}
        raw = self._raw(cards, widths)
        return {view: scale(raw[view]) for view, scale in self._scales.items()}

    def _raw(self, cards: Sequence[TaskCard], widths: Mapping[str, int]) -> dict[str, FloatArray]:
        columns = card_columns(cards, hidden=_ELSEWHERE)
        table = self._encoder.transform_cards(columns).linear.toarray()

        def table_of(vectors: Sequence[tuple[float, ...] | None], view: str) -> FloatArray:
            own = [
                vector if card.embedding_source == self._source else None
                for card, vector in zip(cards, vectors, strict=True)
            ]
            return stacked(own, widths.get(view, commonest_length(own)))

        # A card that says nothing is unknown, not the mean of all cards.
        table[[_says_nothing(card) for card in cards]] = np.nan
        return {
            IMAGES: table_of([card.embedding for card in cards], IMAGES),
            NAMES: table_of([card.label_embedding for card in cards], NAMES),
            CARD: table,
        }


def _says_nothing(card: TaskCard) -> bool:
    # An absent field is None, and traits are a mapping that may be empty.
    return not any(
        getattr(card, name) not in (None, {}) for name in TASK_FIELDS.keys() - _ALWAYS - _ELSEWHERE
    )


def _has_vectors(card: TaskCard) -> bool:
    return card.embedding is not None or card.label_embedding is not None


def _commonest(sources: Sequence[str | None]) -> str | None:
    """The source of most cards, ties by name; ``None`` counts as a source."""
    ordered = sorted(set(sources), key=lambda source: (-sources.count(source), source or ""))
    return ordered[0] if ordered else None
