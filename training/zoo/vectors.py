"""Vectors of tasks for cards: by the project's proxy, or by the study's first text encoder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.cold_start.proxy import Proxy
from recsys_ms.core.errors import DataError
from recsys_ms.scores.label_embeddings import LabelEncoder
from training.zoo.encoders import names_vector
from training.zoo.study import Study

_LOG = logging.getLogger(__name__)

#: Unlabelled training images that the proxy looks at, and their side in pixels.
N_IMAGES: Final = 300
SIDE: Final = 64


@dataclass(frozen=True, slots=True)
class TaskVectors:
    """What describes tasks by vectors.

    Attributes
    ----------
    proxy : Proxy or None
        Sees images and reads class names.
    encoder : LabelEncoder or None
        Reads class names where there is no proxy.
    """

    proxy: Proxy | None = None
    encoder: LabelEncoder | None = None

    @classmethod
    def of(cls, encoders: Sequence[LabelEncoder]) -> Self:
        """The package's own proxy, and the first of the encoders that are there."""
        return cls(_embedded_proxy(), encoders[0] if encoders else None)

    def names(self, class_names: Sequence[str]) -> tuple[float, ...] | None:
        """Mean of the unit vectors of class names, or None where nothing reads them."""
        if self.proxy is not None:
            return tuple(self.proxy.label_embedding(class_names).tolist())
        return None if self.encoder is None else names_vector(self.encoder, class_names)

    def on(self, card: TaskCard, study: Study) -> TaskCard:
        """The card with the vectors of the task's training images and of its class names."""
        task = study.book.get(card.task_id)
        if self.proxy is None:
            return replace(card, label_embedding=self.names(task.class_names))
        n_images = study.book.at_most(card.task_id, "train", N_IMAGES, seed=study.seed)
        seen = task.sample("train", n_images, seed=study.seed, size=SIDE)
        return self.proxy.task_embedding(list(seen.images), task.class_names).on(card)


def _embedded_proxy() -> Proxy | None:
    try:
        return Proxy()
    except DataError as error:
        _LOG.warning("cards without vectors of images: %s", error)
        return None
