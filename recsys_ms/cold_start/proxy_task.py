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

    def on(self, card: TaskCard) -> TaskCard:
        """The card with these vectors; what this embedding lacks stays as the card has it.

        Raises
        ------
        DataError
            What stays has another width, so that another proxy made it.
        """
        found = replace(
            card,
            embedding=card.embedding if self.images is None else tuple(self.images.tolist()),
            label_embedding=card.label_embedding
            if self.labels is None
            else tuple(self.labels.tolist()),
        )
        if found.embedding is None or found.label_embedding is None:
            return found
        lengths = len(found.embedding), len(found.label_embedding)
        if lengths[0] != 2 * lengths[1]:
            made = "label_embedding" if self.labels is None else "embedding"
            raise DataError(
                f"task card {card.task_id!r}: embedding of {lengths[0]} numbers and "
                f"label_embedding of {lengths[1]}, wanted twice as many as in the second; its "
                f"{made} is of another proxy than {self.proxy}, so make both anew with one"
            )
        return found
