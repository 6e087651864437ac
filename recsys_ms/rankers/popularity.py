"""The two rankers that ignore the task, popularity and chance; models looked up by their ids."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np

from recsys_ms.core.declared import Shape, Within
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Source


class PopularityRanker(BaseRanker):
    """Mean standardised outcome of a model over the training tasks.

    The baseline to beat: the same order for every task. A model without training runs gets 0, the
    mean of every task.
    """

    name: ClassVar[str] = "popularity"

    model_ids_: Learned[Annotated[tuple[str, ...], Shape("model")]]
    mean_scores_: Learned[Annotated[FloatArray, Shape("model")]]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        self.model_ids_ = interactions.model_ids
        self.mean_scores_ = mean_by_model(interactions, standardize(interactions, "zscore").scores)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        return lookup(self.model_ids_, self.mean_scores_, model_ids)

    def _source(self) -> Source:
        return POPULARITY


class RandomRanker(BaseRanker):
    """A random order per task, the baseline without any information."""

    name: ClassVar[str] = "random"

    seed_: Learned[Annotated[int, Within(least=0)]]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        self.seed_ = seed_from(rng)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        # A stream per (task, model): the answer for a model does not depend on the other models.
        streams = (named_stream(self.seed_, "random", task.task_id, each) for each in model_ids)
        return np.array([stream.standard_normal() for stream in streams])


def mean_by_model(interactions: Interactions, scores: FloatArray) -> FloatArray:
    """Mean of ``scores`` (n_interactions,) over each model's tasks, shape (n_models,)."""
    sums = np.bincount(interactions.model_index, weights=scores, minlength=interactions.n_models)
    counts = np.bincount(interactions.model_index, minlength=interactions.n_models)
    means: FloatArray = sums / counts
    return means


def positions(known_ids: Sequence[str], wanted_ids: Sequence[str]) -> np.ndarray:
    """Position of each wanted id in ``known_ids``, -1 for an unknown id; shape (n_wanted,)."""
    at = {known: i for i, known in enumerate(known_ids)}
    return np.array([at.get(wanted, -1) for wanted in wanted_ids], dtype=np.int64)


def lookup(
    known_ids: Sequence[str], values: FloatArray, wanted_ids: Sequence[str], *, missing: float = 0.0
) -> FloatArray:
    """``values`` of ``wanted_ids``, with ``missing`` for unknown ids."""
    at = positions(known_ids, wanted_ids)
    return np.where(at >= 0, values[np.maximum(at, 0)], missing)
