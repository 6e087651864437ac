"""The embedding of a task by a proxy, and how it is written to the task's card."""

from dataclasses import dataclass, replace

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TaskEmbedding:
    """Vectors of a task by a proxy.

    Attributes
    ----------
    proxy : str
        Name of the proxy.
    fingerprint : str
        Its digest: vectors of different fingerprints are not comparable.
    images : ndarray of shape (2 * width,), or None
        Mean and standard deviation of the features of its images.
    labels : ndarray of shape (width,), or None
        Mean of the vectors of its class names.
    n_images : int
        Images that were looked at.
    left_out : tuple of str
        Images of the sample that cannot be read.
    """

    proxy: str
    fingerprint: str
    images: FloatArray | None
    labels: FloatArray | None
    n_images: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Name and digest of the proxy, as a card records them."""
        return f"{self.proxy} {self.fingerprint[:12]}"

    def on(self, card: TaskCard) -> TaskCard:
        """The card with these vectors; a vector that is missing here stays as it was.

        Raises
        ------
        DataError
            A vector that stays comes from another proxy.
        """
        stays = (
            self.images is None and card.embedding is not None,
            self.labels is None and card.label_embedding is not None,
        )
        if any(stays) and card.embedding_source != self.source:
            made = "embedding" if stays[0] else "label_embedding"
            raise DataError(
                f"task card {card.task_id!r}: its {made} is from "
                f"{card.embedding_source or 'unknown'}, the new vector from {self.source}; "
                "compute both with one proxy"
            )
        return replace(
            card,
            embedding=card.embedding if self.images is None else tuple(self.images.tolist()),
            label_embedding=card.label_embedding
            if self.labels is None
            else tuple(self.labels.tolist()),
            embedding_source=self.source,
        )
