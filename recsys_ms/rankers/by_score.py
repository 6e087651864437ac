"""A transferability score as a ranker, and rankers that learn from scores instead of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import seed_from
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.rankers.contributions import Contributions, Source
from recsys_ms.rankers.ranker_names import make_ranker


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig:
    """Settings of the :class:`ScoreRanker`.

    Attributes
    ----------
    score : str
        Name of the score in the catalog.
    """

    score: str = "logme"

    def __post_init__(self) -> None:
        if not isinstance(self.score, str) or not self.score:
            raise UsageError(
                f"{type(self).__name__}: score is {self.score!r}, expected the name of a score"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredHistoryConfig(ScoreConfig):
    """Settings of the :class:`ScoredHistoryRanker`.

    Attributes
    ----------
    score : str
        Name of the score in the catalog.
    ranker : str
        Spec of the ranker that learns, such as ``nmf`` or ``lr+parc``.
    """

    score: str = "fda"
    ranker: str = "nmf"


class ScoreRanker(BaseRanker):
    """The order of one transferability score; learns nothing from the history.

    A model without a score is predicted the task's mean.

    Parameters
    ----------
    config : ScoreConfig, optional
        Default: LogME.
    """

    name: ClassVar[str] = "score"
    default_config: ClassVar[ScoreConfig] = ScoreConfig()
    short_forms: ClassVar[Mapping[str, str]] = {":": "score"}
    learns_nothing: ClassVar[bool] = True

    config: ScoreConfig

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        _require_score(self._catalog, self.config.score)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        ids = [task.task_id] * len(model_ids)
        values = self._catalog.scores.relative([self.config.score], ids, model_ids)[:, 0]
        return np.nan_to_num(values)

    def _source(self) -> Source:
        return Source("feature", f"score:{self.config.score}")


class ScoredHistoryRanker(BaseRanker):
    """A ranker that learns from a score of the training pairs in place of their outcomes.

    Fennec's history is FDA-scored, without any fine-tuning. Answers are on the same scale, standard
    deviations within the task.

    Parameters
    ----------
    config : ScoredHistoryConfig, optional
        Default: the NMF on FDA, as in the paper.
    """

    name: ClassVar[str] = "scored-history"
    default_config: ClassVar[ScoredHistoryConfig] = ScoredHistoryConfig()

    config: ScoredHistoryConfig
    _learner: Learned[BaseRanker]

    def __init__(self, config: ScoredHistoryConfig | None = None, /, **params: object) -> None:
        super().__init__(config, **params)
        # An unknown spec is refused at once.
        self._learner = make_ranker(self.config.ranker)

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        tasks = [interactions.task_ids[int(row)] for row in interactions.task_index]
        models = [interactions.model_ids[int(row)] for row in interactions.model_index]
        scored = score_history(self._catalog, self.config.score, tasks, models)
        self._learner = make_ranker(self.config.ranker)
        self._learner.fit(scored, self._catalog, rng=seed_from(rng))

    def _inner(self) -> tuple[BaseRanker]:
        return (self._learner,)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        return self._learner.predict_view(task, model_ids)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Contributions of the ranker that learned."""
        return self._learner.explain(task, model_ids)


def score_history(
    catalog: Catalog,
    score: str,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
) -> Interactions:
    """Interactions whose values are a score of the catalog, of all pairs or of those given.

    ``tasks`` and ``models`` are the pairs, in parallel. Raises ``DataError`` where the catalog does
    not have the score for any of them.
    """
    _require_score(catalog, score)
    column = catalog.scores.frame[score]
    if tasks is not None and models is not None:
        column = column.reindex(list(zip(tasks, models, strict=True)))
    known = column.dropna()
    if known.empty:
        raise DataError(f"score {score!r} is missing for all {len(column)} pairs")
    values: FloatArray = known.to_numpy(dtype=np.float64)
    of_task, of_model = (known.index.get_level_values(level).tolist() for level in range(2))
    return Interactions.from_triplets(of_task, of_model, values, metric=f"score:{score}")


def _require_score(catalog: Catalog, score: str) -> None:
    if score not in catalog.scores.names:
        known = ", ".join(catalog.scores.names) or "none"
        raise DataError(
            f"the catalog has no score {score!r}; it has {known} (compute it with recsys-ms score)"
        )
