"""Meta score: heads on features of the task, of the model, and of the model's other outcomes.

Guided Recommendation for Model Fine-tuning (Li et al., CVPR 2023, §3) learns the outcome of a
(task, model) pair from features of both and transferability scores by linear regression, a
factorization machine or gradient boosted trees. Added here: the model's outcomes on *other* tasks,
left out row by row in training, so that a head starts from popularity.

Within a model, a row's own outcome and the mean of the others are perfectly negatively correlated.
Heads that can tell models apart (trees, and a factorization machine with ids) would learn the row's
own outcome from it: on planted blocks a machine with popularity as a feature reached a Pearson of
-.63 on held-out tasks, and .96 with the residual of popularity as its target. They get the residual
as their target; a linear head gets popularity as a feature.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.encoding import ColumnEncoder, EncodedFeatures, RawColumns, id_features
from recsys_ms.catalog.features import ModelFeatureEncoder, TaskFeatureEncoder
from recsys_ms.catalog.label_distance import label_distances
from recsys_ms.catalog.names import parse_model_id
from recsys_ms.core.declared import SORTED, PositionsIn, Shape
from recsys_ms.core.errors import UsageError
from recsys_ms.core.state import Derived, Learned
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.design import FeatureDesign, pair_design
from recsys_ms.learners.fm import FactorizationMachineConfig, FactorizationMachineHead
from recsys_ms.learners.head import Head
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.trees import LightGBMHead
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions
from recsys_ms.rankers.popularity import positions


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRankerConfig:
    """Settings of a :class:`HeadRanker`.

    Attributes
    ----------
    scores : tuple of str or None
        Transferability scores to learn from, of those in the catalog; ``None`` (default) for all,
        an empty tuple for none.
    """

    scores: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given: object = self.scores
        is_tuple = isinstance(given, tuple) and all(isinstance(x, str) and x for x in given)
        if given is not None and not is_tuple:
            raise UsageError(
                f"{type(self).__name__}: scores is {given!r}, expected a tuple of names, "
                "or None for all"
            )


class HeadRanker(BaseRanker):
    """A head on the features of (task, model) pairs.

    A model without runs is described by its card and name, a task without a card by nothing: the
    head can handle both, since every feature may be unknown.

    Parameters
    ----------
    config : HeadRankerConfig, optional
        Default: every score of the catalog.
    """

    default_config: ClassVar[HeadRankerConfig] = HeadRankerConfig()
    short_forms: ClassVar[Mapping[str, str]] = {"+": "scores"}

    config: HeadRankerConfig

    #: Whether a model's own id is a feature (a free parameter a model, drawn to 0 by the head).
    with_ids: ClassVar[bool] = False
    #: Whether the head learns the residual of popularity; otherwise popularity is a feature.
    on_residual: ClassVar[bool] = True

    _model_ids: Learned[Annotated[tuple[str, ...], Shape("model")]]
    _task_ids: Learned[Annotated[tuple[str, ...], Shape("task")]]
    _row_task: Learned[Annotated[IntArray, Shape("row"), PositionsIn("task"), SORTED]]
    _row_model: Learned[Annotated[IntArray, Shape("row"), PositionsIn("model")]]
    _row_score: Learned[Annotated[FloatArray, Shape("row")]]
    _feature_names: Learned[tuple[str, ...]]
    _score_names: Learned[tuple[str, ...]]
    _has_distances: Learned[bool]
    _model_encoder: Learned[ModelFeatureEncoder]
    _task_encoder: Learned[TaskFeatureEncoder]
    _history_encoder: Learned[ColumnEncoder]
    _score_encoder: Learned[ColumnEncoder]
    _head: Learned[Head]
    #: Sums over a model's rows, with one more place for models without any, (n_models + 1,).
    _sums: Derived[FloatArray]
    _squares: Derived[FloatArray]
    _counts: Derived[FloatArray]
    #: The card that was encoded last, and its features: a back-test asks about one task many times.
    _last_task: tuple[TaskCard | None, EncodedFeatures] | None = None

    @abstractmethod
    def _make_head(self) -> Head: ...

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        score = standardize(interactions, "zscore").scores
        self._model_ids, self._task_ids = interactions.model_ids, interactions.task_ids
        self._row_task, self._row_model = interactions.task_index, interactions.model_index
        self._row_score = score
        self._derive()
        self._last_task = None
        self._model_encoder = ModelFeatureEncoder().fit(self._catalog, interactions.model_ids)
        self._task_encoder = TaskFeatureEncoder().fit(self._catalog, interactions.task_ids)
        raw = self._history_columns(interactions.model_index, score)
        self._history_encoder = ColumnEncoder().fit(raw)
        design = self._design(
            self._task_encoder.transform(self._catalog, interactions.task_ids),
            interactions.task_index,
            self._known_features,
            interactions.model_index,
            interactions.model_index,
            self._history_encoder.transform(raw),
            self._fit_scores(interactions),
        )
        self._feature_names = design.linear_names
        target = score - _offset(raw) if self.on_residual else score
        groups = interactions.task_index
        if interactions.n_tasks == 1:
            # Weights of one architecture are near copies, so that whole architectures are left out.
            names = [parse_model_id(model_id).architecture for model_id in self._model_ids]
            groups = np.unique(names, return_inverse=True)[1][interactions.model_index]
        self._head = self._make_head().fit(design, target, groups=groups, rng=rng)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        design, popularity = self._query_design(task, model_ids)
        value = self._head.predict(design)
        return value + popularity if self.on_residual else value

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """What each field of both cards, each score and popularity add, by the head's rule.

        Fields of the task's card have ``task`` before their name.
        """
        design, popularity = self._query_design(task, model_ids)
        found = self._head.contributions(_with_task_fields(design))
        told = [Contributions.of_fields(self.name, found)]
        if self.on_residual:
            told.append(Contributions.whole(self.name, popularity, POPULARITY))
        return (Contributions.joined(self.name, told),)

    def _query_design(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> tuple[FeatureDesign, FloatArray]:
        """Features of one task with some models, and the models' popularity on other tasks."""
        at = positions(self._model_ids, model_ids)
        own = np.full(len(self._model_ids) + 1, np.nan)
        if task.task_id in self._task_ids:
            row = self._task_ids.index(task.task_id)
            begin, end = np.searchsorted(self._row_task, [row, row + 1])
            own[self._row_model[begin:end]] = self._row_score[begin:end]
        raw = self._history_columns(at, own[at])
        if (at >= 0).all():
            features, rows = self._known_features, at
        else:
            features = self._model_encoder.transform(self._catalog, model_ids)
            rows = np.arange(at.size)
        design = self._design(
            self._features_of_task(task),
            np.zeros(at.size, dtype=np.int64),
            features,
            rows,
            at,
            self._history_encoder.transform(raw),
            self._scores_of([task.task_id] * at.size, model_ids, self._distances(task, model_ids)),
        )
        return design, _offset(raw)

    def _features_of_task(self, task: TaskView) -> EncodedFeatures:
        if self._last_task is None or self._last_task[0] is not task.card:
            card = task.card if task.card is not None else TaskCard(task_id=task.task_id)
            self._last_task = task.card, self._task_encoder.transform_cards([card])
        return self._last_task[1]

    def _fit_scores(self, interactions: Interactions) -> EncodedFeatures | None:
        """Learn from the history's pairs: transferability scores, distances of labels."""
        task_ids = [interactions.task_ids[row] for row in interactions.task_index]
        model_ids = [interactions.model_ids[row] for row in interactions.model_index]
        names = self._catalog.scores.names
        wanted = self.config.scores
        if wanted is not None:
            names = tuple(name for name in names if name in wanted)
        values = self._catalog.scores.relative(names, task_ids, model_ids)
        self._score_names = tuple(
            name for at, name in enumerate(names) if np.isfinite(values[:, at]).any()
        )
        cards = map(self._catalog.find_task_card, interactions.task_ids)
        distances = label_distances(
            [card.label_embedding if card is not None else None for card in cards],
            self._source_vectors(interactions.model_ids),
        )[interactions.task_index, interactions.model_index]
        self._has_distances = bool(np.isfinite(distances).any())
        self._score_encoder = ColumnEncoder().fit(_pair_columns(names, values, distances))
        return self._scores_of(task_ids, model_ids, distances)

    def _scores_of(
        self, task_ids: Sequence[str], model_ids: Sequence[str], distances: FloatArray
    ) -> EncodedFeatures | None:
        if not (self._score_names or self._has_distances):
            return None
        values = self._catalog.scores.relative(self._score_names, task_ids, model_ids)
        return self._score_encoder.transform(_pair_columns(self._score_names, values, distances))

    def _distances(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        """Distance of a task's classes from those of each model's source, NaN where unknown."""
        vector = task.card.label_embedding if task.card is not None else None
        if vector is None or not self._has_distances:
            return np.full(len(model_ids), np.nan)
        found: FloatArray = label_distances([vector], self._source_vectors(model_ids))[0]
        return found

    def _source_vectors(self, model_ids: Sequence[str]) -> list[tuple[float, ...] | None]:
        column = self._catalog.models["source_label_embedding"].reindex(list(model_ids))
        return [vector if isinstance(vector, tuple) else None for vector in column]

    @cached_property
    def _known_features(self) -> EncodedFeatures:
        """Features of the models with runs, which most queries ask for."""
        return self._model_encoder.transform(self._catalog, self._model_ids)

    def feature_names(self) -> list[str]:
        """Columns of the linear design matrix."""
        return list(self._feature_names)

    def _design(
        self,
        task_features: EncodedFeatures,
        task_rows: IntArray,
        model_features: EncodedFeatures,
        model_rows: IntArray,
        id_rows: IntArray,
        history: EncodedFeatures,
        scores: EncodedFeatures | None,
    ) -> FeatureDesign:
        extra = []
        if scores is not None:
            extra.append((scores, np.arange(scores.n_rows, dtype=np.int64)))
        if not self.on_residual:
            extra.append((history, np.arange(history.n_rows, dtype=np.int64)))
        if self.with_ids:
            extra.append((id_features("model_id", len(self._model_ids)), id_rows))
        return pair_design(task_features, task_rows, model_features, model_rows, ids=extra)

    def _derive(self) -> None:
        # One place more, for models without runs: position -1.
        n = len(self._model_ids) + 1
        self._counts, self._sums, self._squares = (
            np.bincount(self._row_model, self._row_score**power, n).astype(np.float64)
            for power in range(3)
        )

    def _history_columns(self, model: IntArray, own: FloatArray) -> RawColumns:
        """Statistics of each row's model on other tasks; ``own`` is the row's score or NaN."""
        known = ~np.isnan(own)
        mine = np.where(known, own, 0.0)
        count = self._counts[model] - known
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(count > 0, (self._sums[model] - mine) / count, np.nan)
            second = np.where(count > 1, (self._squares[model] - mine**2) / count, np.nan)
        spread = np.sqrt(np.maximum(second - mean**2, 0.0))
        return _numbers(model.size, {"popularity": mean, "popularity_spread": spread})


def _with_task_fields(design: FeatureDesign) -> FeatureDesign:
    """The same design with ``task`` before the fields of its first block, the task's card."""
    (features, rows), *others = design.blocks
    told = replace(
        features,
        linear_fields=tuple(f"task {field}" for field in features.linear_fields),
        tree_fields=tuple(f"task {field}" for field in features.tree_fields),
    )
    return FeatureDesign(blocks=((told, rows), *others))


def _numbers(n_rows: int, columns: Mapping[str, FloatArray]) -> RawColumns:
    return RawColumns(n_rows=n_rows, numeric=columns, categorical={}, tokens={}, fields={})


def _pair_columns(names: Sequence[str], values: FloatArray, distances: FloatArray) -> RawColumns:
    scores = {f"score:{name}": values[:, at] for at, name in enumerate(names)}
    return _numbers(values.shape[0], {**scores, "label_distance": distances})


def _offset(raw: RawColumns) -> FloatArray:
    """Mean of a model's other tasks, 0 (the mean of any task) where it has none."""
    return np.nan_to_num(raw.numeric["popularity"])


class LinearRanker(HeadRanker):
    """Ridge regression on features of the task and the model, and the model's popularity."""

    name: ClassVar[str] = "lr"
    on_residual: ClassVar[bool] = False

    def _make_head(self) -> Head:
        return LinearHead()


class FactorizationMachineRanker(HeadRanker):
    """Second-order factorization machine on features and ids, for the residual of popularity."""

    name: ClassVar[str] = "fm"
    with_ids: ClassVar[bool] = True

    def _make_head(self) -> Head:
        # One margin, no cross-validation of its own: the nested back-test judges the whole.
        return FactorizationMachineHead(FactorizationMachineConfig(noise_margins=(0.5,)))


class LightGBMRanker(HeadRanker):
    """Gradient boosted trees on features, for the residual of popularity."""

    name: ClassVar[str] = "gbdt"

    def _make_head(self) -> Head:
        return LightGBMHead()
