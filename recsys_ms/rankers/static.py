"""The static order: the largest model first, whatever the task."""

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.rankers.popularity import lookup

#: Share of the training models whose cards must say a size, before size decides.
_ENOUGH_SIZES: Final = 0.5


class StaticRanker(BaseRanker):
    """One order for every task: by size, or by what one task showed.

    The rule: where cards tell ``n_parameters`` of at least half of the training models, a model is
    worth the standardised logarithm of its size, larger first. A model without a size, and every
    model where fewer sizes are known, is worth its z-score on the largest common task: the training
    task with most models (the first by id among equals). A model that was not run there is worth 0.

    Published score methods lose to such an order, so it stands in every table.
    """

    name: ClassVar[str] = "static"

    common_task_: Learned[str]
    common_ids_: Learned[list[str]]
    common_scores_: Learned[FloatArray]
    by_size_: Learned[bool]
    size_mean_: Learned[float]
    size_sd_: Learned[float]

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
        # Equal sizes tell nothing: every model with a size is worth 0 then.
        self.size_sd_ = float(known.std()) if self.by_size_ and np.ptp(known) > 0.0 else 1.0

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        value = lookup(self.common_ids_, self.common_scores_, model_ids)
        if self.by_size_:
            size = self._log_sizes(model_ids)
            worth = (size - self.size_mean_) / self.size_sd_
            value = np.where(np.isnan(size), value, worth)
        return Prediction(value=value, order=value)

    def _log_sizes(self, model_ids: Sequence[str]) -> FloatArray:
        """Logarithm of the number of parameters, NaN where no card says it, (n_models,)."""
        said = self._catalog.models["n_parameters"].reindex(list(model_ids))
        sizes: FloatArray = np.log10(said.to_numpy(dtype=np.float64))
        return sizes
