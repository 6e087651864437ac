"""What a proxy says of a task, and how it gets onto the task's card."""

from dataclasses import dataclass, replace

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TaskEmbedding:
    """A task as a proxy sees it.

    Attributes
    ----------
    proxy : str
        Name of the proxy.
    fingerprint : str
        Its digest: vectors of two fingerprints must not be compared.
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
        """Name and digest: what a card's vectors are from."""
        return f"{self.proxy} {self.fingerprint[:12]}"

    def on(self, card: TaskCard) -> TaskCard:
        """The card with these vectors; what this embedding lacks stays as the card has it.

        Raises
        ------
        DataError
            What stays is of another proxy.
        """
        stays = (
            self.images is None and card.embedding is not None,
            self.labels is None and card.label_embedding is not None,
        )
        if any(stays) and card.embedding_source != self.source:
            made = "embedding" if stays[0] else "label_embedding"
            raise DataError(
                f"task card {card.task_id!r}: its {made} is of {card.embedding_source or 'unknown'}"
                f", the new vector of {self.source}; make both anew with one proxy"
            )
        return replace(
            card,
            embedding=card.embedding if self.images is None else tuple(self.images.tolist()),
            label_embedding=card.label_embedding
            if self.labels is None
            else tuple(self.labels.tolist()),
            embedding_source=self.source,
        )
