"""A transferability score as a ranker, and rankers whose history is scores instead of runs."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import seed_from
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import BaseRanker, Prediction, TaskView
from recsys_ms.ranker.contributions import Contributions, Source


class ScoreRanker(BaseRanker):
    """The order of one transferability score; learns nothing from the history.

    A model whose score is not known counts as the task's mean.

    Parameters
    ----------
    score : str
        Name of the score in the catalog.
    """

    name: ClassVar[str] = "score"

    def __init__(self, score: str = "logme") -> None:
        self._score = score

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        _require_score(self._catalog, self._score)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        ids = [task.task_id] * len(model_ids)
        values = self._catalog.scores.relative([self._score], ids, model_ids)[:, 0]
        value = np.nan_to_num(values)
        return Prediction(value=value, order=value)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """The score is all there is."""
        value = self.predict_view(task, model_ids).value
        return (Contributions.whole(self.name, value, Source("feature", f"score:{self._score}")),)

    def _state(self) -> State:
        return State(values={"score": self._score})

    def _restore(self, state: State) -> None:
        self._score = str(state.values["score"])


class ScoredHistoryRanker(BaseRanker):
    """A ranker that learns from a score of the training pairs in place of their outcomes.

    Fennec's history is FDA-scored: nothing was fine-tuned for it. The training pairs are the same,
    and so is the answer's scale, standard deviations within the task.

    Parameters
    ----------
    inner : BaseRanker
        What learns, not fitted.
    score : str
        Name of the score in the catalog.
    """

    name: ClassVar[str] = "scored-history"

    def __init__(self, inner: BaseRanker | None = None, score: str = "fda") -> None:
        self._inner = inner
        self._score = score

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        scored = scored_interactions(interactions, self._catalog, self._score)
        self._learner().fit(scored, self._catalog, rng=seed_from(rng))

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        return self._learner().predict_view(task, model_ids)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """What is inside the parts of the ranker that learned."""
        return self._learner().explain(task, model_ids)

    def _learner(self) -> BaseRanker:
        if self._inner is None:
            raise UsageError("ScoredHistoryRanker: give the ranker that shall learn")
        return self._inner

    def _state(self) -> State:
        raise UsageError(
            "a ranker on a scored history is for back-tests; to publish one, train with "
            f"RankerConfig(metric='score:{self._score}')"
        )

    def _restore(self, state: State) -> None:
        raise UsageError("a ranker on a scored history is not saved")


def scored_interactions(interactions: Interactions, catalog: Catalog, score: str) -> Interactions:
    """The pairs of ``interactions`` that have a score, with it as their value.

    Raises
    ------
    DataError
        None has.
    """
    tasks = [interactions.task_ids[int(row)] for row in interactions.task_index]
    models = [interactions.model_ids[int(row)] for row in interactions.model_index]
    return score_history(catalog, score, tasks, models)


def score_history(
    catalog: Catalog,
    score: str,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
) -> Interactions:
    """Interactions whose values are a score of the catalog: of all pairs, or of those named.

    Parameters
    ----------
    catalog : Catalog
        With scores.
    score : str
        Name of the score.
    tasks, models : sequence of str, optional
        The pairs, in parallel.

    Raises
    ------
    DataError
        The catalog has no such score, of any pair.
    """
    _require_score(catalog, score)
    column = catalog.scores.frame[score]
    if tasks is not None and models is not None:
        column = column.reindex(list(zip(tasks, models, strict=True)))
    known = column.dropna()
    if known.empty:
        raise DataError(f"score {score!r} is known of none of the {len(column)} pairs")
    ids = list(known.index)
    values: FloatArray = known.to_numpy(dtype=np.float64)
    return Interactions.from_triplets(
        [str(task) for task, _ in ids],
        [str(model) for _, model in ids],
        values,
        metric=f"score:{score}",
    )


def _require_score(catalog: Catalog, score: str) -> None:
    if score not in catalog.scores.names:
        raise DataError(
            f"the catalog has no score {score!r}; it has "
            f"{', '.join(catalog.scores.names) or 'none'} (recsys-ms score)"
        )
