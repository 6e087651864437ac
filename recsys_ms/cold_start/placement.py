"""Where a task without runs is placed among the known ones: from its card to factors.

Fennec (Bai et al. 2024, §3.3) regresses the factors of known tasks on CLIP embeddings. Here the
regression is a Gaussian process over the views of cards (images, class names, card): how much each
view counts is learned by marginal likelihood. Its mean is a weighted sum of the known tasks, so
that the weights are the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.views import TaskVectors
from recsys_ms.core.declared import ANY_NUMBER, Shape
from recsys_ms.core.state import Derived, Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.learners.gaussian.card_process import CardProcess

#: With fewer known tasks, cards are not learned from.
_MIN_TASKS: Final = 4
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Placed:
    """How the known tasks place a task.

    Attributes
    ----------
    weights : mapping of task id to float
        What each contributes: the task's factors are the weighted sum of theirs.
    similarity : mapping of task id to float
        Cosine of the features that the process sees, those of a view by what the view explains.
    """

    weights: Mapping[str, float]
    similarity: Mapping[str, float]


class TaskPlacement(Stateful):
    """Factors of tasks by their cards.

    Attributes
    ----------
    process : CardProcess or None
        ``None`` where the cards of the known tasks do not differ, or there are too few.
    """

    process: Learned[CardProcess | None]

    _task_ids: Learned[Annotated[tuple[str, ...], Shape("task")]]
    _factors: Learned[Annotated[FloatArray, Shape("task", "factor")]]
    _center: Learned[Annotated[FloatArray, Shape("factor")]]
    _vectors: Learned[TaskVectors]
    #: NaN throughout where a task's card has no such view.
    _views: Learned[Annotated[dict[str, FloatArray], ANY_NUMBER]]
    _left_out: Derived[tuple[FloatArray, FloatArray] | None] = None

    @classmethod
    def fit(
        cls,
        catalog: Catalog,
        task_ids: Sequence[str],
        factors: FloatArray,
        *,
        centred: bool = True,
        metric: FloatArray | None = None,
    ) -> Self:
        """Learn from the known tasks.

        Parameters
        ----------
        catalog : Catalog
        task_ids : sequence of str
        factors : ndarray of shape (n_tasks, n_factors)
        centred : bool
            Whether a task whose card says nothing has the mean row (``True``, default), or 0.
        metric : ndarray of shape (n_factors, n_factors), optional
            Positive semi-definite: an error e counts as ``eᵀ metric e``. Default: the identity.
        """
        found = cls()
        found._task_ids, found._factors = tuple(task_ids), factors
        found._center = factors.mean(axis=0) if centred else np.zeros(factors.shape[1])
        cards = [catalog.find_task_card(task) or TaskCard(task_id=task) for task in task_ids]
        found._vectors = TaskVectors().fit(cards)
        vectors = found._vectors(cards).items()
        found._views = {view: np.ascontiguousarray(table) for view, table in vectors}
        found.process = None
        weighing = np.eye(factors.shape[1])
        target = factors - found._center
        if metric is not None:
            values, axes = np.linalg.eigh(metric)
            weighing = axes * np.sqrt(np.maximum(values, 0.0))
            weighing /= max(float((target @ weighing).std(axis=0).max(initial=0.0)), _TINY)
        if found._views and len(cards) >= _MIN_TASKS and (target @ weighing).any():
            found.process = CardProcess.fit(found._views, target, weighing)
        return found

    def place(self, card: TaskCard | None) -> tuple[FloatArray, float]:
        """Mean (n_factors,) and variance of a task's factors, by its card alone."""
        if self.process is None or card is None:
            return self._center, 1.0
        mean, variance = self.process.predict(self._vectors([card]))
        return self._center + mean[0], float(variance[0])

    def place_known(self, task_id: str) -> tuple[FloatArray, float]:
        """The same for a known task, its own factors left out."""
        if self.process is None:
            return self._center, 1.0
        if self._left_out is None:
            # Of all tasks at once, and only once.
            target = self._factors - self._center
            self._left_out = self.process.predict_left_out(self._views, target)
        mean, variance = self._left_out
        at = self._task_ids.index(task_id)
        return self._center + mean[at], float(variance[at])

    def placed(self, card: TaskCard | None) -> Placed | None:
        """Weight and similarity of the known tasks; ``None`` where the card says nothing."""
        if self.process is None or card is None:
            return None
        views = self._vectors([card])
        known, own = self.process.features(self._views), self.process.features(views)[0]
        if not own.any():
            return None
        weights = self.process.weights(views, self._views)[0]
        if self._center.any():
            # The centre is the mean of all: the rest of the weight is divided evenly.
            weights = weights + (1.0 - weights.sum()) / len(weights)
        length = np.sqrt((known**2).sum(axis=1) * (own @ own))
        alike = (known @ own) / np.maximum(length, _TINY)
        return Placed(
            dict(zip(self._task_ids, weights.tolist(), strict=True)),
            dict(zip(self._task_ids, alike.tolist(), strict=True)),
        )
