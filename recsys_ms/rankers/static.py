"""The static order: the largest model first, on every task."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

import numpy as np

from recsys_ms.core.declared import Shape, Within
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.popularity import lookup

#: Size decides if the cards of this share of the training models give one.
_ENOUGH_SIZES: Final = 0.5


class StaticRanker(BaseRanker):
    """One order for every task, by size or by the outcomes on one task.

    Where cards give ``n_parameters`` of at least half of the training models, a model is worth the
    standardised logarithm of its size, larger first. A model without a size, and every model where
    fewer sizes are known, is worth its z-score on the training task with most models (the first by
    id among equals), or 0 if it was not run there.

    Published score methods lose to such an order, so that every table of results has it.
    """

    name: ClassVar[str] = "static"

    common_task_: Learned[str]
    common_ids_: Learned[Annotated[list[str], Shape("model")]]
    common_scores_: Learned[Annotated[FloatArray, Shape("model")]]
    by_size_: Learned[bool]
    size_mean_: Learned[float]
    size_sd_: Learned[Annotated[float, Within(above=0.0)]]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        counts = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
        largest = int(np.argmax(counts))
        own = interactions.task_index == largest
        self.common_task_ = interactions.task_ids[largest]
        self.common_ids_ = [interactions.model_ids[int(i)] for i in interactions.model_index[own]]
        self.common_scores_ = standardize(interactions, "zscore").scores[own]
        size = self._log_sizes(interactions.model_ids)
        known = size[~np.isnan(size)]
        self.by_size_ = bool(known.size and known.size >= _ENOUGH_SIZES * size.size)
        self.size_mean_ = float(known.mean()) if self.by_size_ else 0.0
        # Of equal sizes, every model with a size is worth 0.
        self.size_sd_ = float(known.std()) if self.by_size_ and np.ptp(known) > 0.0 else 1.0

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        value = lookup(self.common_ids_, self.common_scores_, model_ids)
        if self.by_size_:
            size = self._log_sizes(model_ids)
            worth = (size - self.size_mean_) / self.size_sd_
            value = np.where(np.isnan(size), value, worth)
        return value

    def _log_sizes(self, model_ids: Sequence[str]) -> FloatArray:
        """Decimal logarithm of the number of parameters, NaN where unknown, (n_models,)."""
        said = self._catalog.models["n_parameters"].reindex(list(model_ids))
        sizes: FloatArray = np.log10(said.to_numpy(dtype=np.float64))
        return sizes
