"""A transferability score as a ranker, and rankers whose history is scores instead of runs."""

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
        _check_name(type(self).__name__, self.score)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredHistoryConfig:
    """Settings of the :class:`ScoredHistoryRanker`.

    Attributes
    ----------
    ranker : str
        Spec of the ranker that learns, such as ``nmf`` or ``lr+parc``.
    score : str
        Name of the score in the catalog.
    """

    ranker: str = "nmf"
    score: str = "fda"

    def __post_init__(self) -> None:
        _check_name(type(self).__name__, self.score)


def _check_name(owner: str, score: object) -> None:
    if not isinstance(score, str) or not score:
        raise UsageError(f"{owner}: score is {score!r}, wanted the name of a score")


class ScoreRanker(BaseRanker):
    """The order of one transferability score; learns nothing from the history.

    A model whose score is not known counts as the task's mean.

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

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        ids = [task.task_id] * len(model_ids)
        values = self._catalog.scores.relative([self.config.score], ids, model_ids)[:, 0]
        value = np.nan_to_num(values)
        return Prediction(value=value, order=value)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """The score is all there is."""
        value = self.predict_view(task, model_ids).value
        source = Source("feature", f"score:{self.config.score}")
        return (Contributions.whole(self.name, value, source),)


class ScoredHistoryRanker(BaseRanker):
    """A ranker that learns from a score of the training pairs in place of their outcomes.

    Fennec's history is FDA-scored: nothing was fine-tuned for it. The training pairs are the same,
    and so is the answer's scale, standard deviations within the task.

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
        # A spec that nobody knows is refused at once.
        self._learner = make_ranker(self.config.ranker)

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        scored = scored_interactions(interactions, self._catalog, self.config.score)
        self._learner = make_ranker(self.config.ranker)
        self._learner.fit(scored, self._catalog, rng=seed_from(rng))

    def use_catalog(self, catalog: Catalog) -> None:
        """Use a catalog that has grown since training."""
        super().use_catalog(catalog)
        self._learner.use_catalog(catalog)

    def feature_names(self) -> list[str]:
        """Columns that the ranker which learned learns from."""
        return self._learner.feature_names()

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        return self._learner.predict_view(task, model_ids)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """What is inside the parts of the ranker that learned."""
        return self._learner.explain(task, model_ids)


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
