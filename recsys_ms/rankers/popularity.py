"""The two rankers that learn nothing about a task: popularity, and chance."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions


class PopularityRanker(BaseRanker):
    """Mean standardised outcome of a model over the training tasks.

    The baseline that a ranker has to beat: the same order for every task. A model without training
    runs gets 0, the mean of every task.
    """

    name: ClassVar[str] = "popularity"

    model_ids_: Learned[tuple[str, ...]]
    mean_scores_: Learned[FloatArray]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        scores = standardize(interactions, "zscore").scores
        self.model_ids_ = interactions.model_ids
        self.mean_scores_ = mean_by_model(interactions, scores)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        value = lookup(self.model_ids_, self.mean_scores_, model_ids)
        return Prediction(value=value, order=value)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Popularity is all there is."""
        value = self.predict_view(task, model_ids).value
        return (Contributions.whole(self.name, value, POPULARITY),)


class RandomRanker(BaseRanker):
    """A random order per task: what no information is worth."""

    name: ClassVar[str] = "random"

    seed_: Learned[int]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        self.seed_ = seed_from(rng)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        # A stream per (task, model): the answer for a model does not depend on who else is asked.
        value = np.array(
            [
                named_stream(self.seed_, "random", task.task_id, model_id).standard_normal()
                for model_id in model_ids
            ]
        )
        return Prediction(value=value, order=value)


def mean_by_model(interactions: Interactions, scores: FloatArray) -> FloatArray:
    """Mean of ``scores`` (n_interactions,) over each model's tasks, shape (n_models,)."""
    sums = np.bincount(interactions.model_index, weights=scores, minlength=interactions.n_models)
    counts = np.bincount(interactions.model_index, minlength=interactions.n_models)
    means: FloatArray = sums / counts
    return means


def positions(known_ids: Sequence[str], wanted_ids: Sequence[str]) -> np.ndarray:
    """Position of each wanted id in ``known_ids``, -1 where it is not known; shape (n_wanted,)."""
    at = {known: i for i, known in enumerate(known_ids)}
    return np.array([at.get(wanted, -1) for wanted in wanted_ids], dtype=np.int64)


def lookup(
    known_ids: Sequence[str], values: FloatArray, wanted_ids: Sequence[str], *, missing: float = 0.0
) -> FloatArray:
    """``values`` of ``wanted_ids``, with ``missing`` for ids that are not known."""
    at = positions(known_ids, wanted_ids)
    return np.where(at >= 0, values[np.maximum(at, 0)], missing)
