"""Fennec: α · transfer score + (1 − α) · meta score (Bai et al. 2024, Eq. 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np

from recsys_ms.cold_start.placement import Placed
from recsys_ms.core.declared import Within
from recsys_ms.core.errors import UsageError
from recsys_ms.core.ranking_metrics import pearson
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray, JsonDict
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import Contributions
from recsys_ms.rankers.held_out import held_out_tasks, predict_held_out
from recsys_ms.rankers.meta import LinearRanker
from recsys_ms.rankers.transfer import NMFRanker

#: Weights of the transfer score to choose from, the paper's .5 first, which wins ties.
_ALPHAS: Final = (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9, 0.1, 1.0, 0.0)
_MAX_FOLDS: Final = 8
_MIN_TASKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FennecConfig:
    """Settings of the :class:`FennecRanker`.

    Attributes
    ----------
    alpha : float or None
        Weight of the transfer score, in [0, 1]. ``None`` (default): the one with the highest mean
        Pearson on tasks that were held out from both.
    """

    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0.0 <= self.alpha <= 1.0:
            raise UsageError(f"FennecConfig: alpha is {self.alpha}, expected a weight in [0, 1]")


class FennecRanker(BaseRanker):
    """Transfer score of the NMF space and meta score of a linear model, merged by α.

    Both are on the standardised scale. A cold task enters the space by its images, class names or
    card, a cold model by its card and architecture, a warm task is folded in.

    Parameters
    ----------
    config : FennecConfig, optional
        Default: the weight is chosen on held-out tasks.
    """

    name: ClassVar[str] = "fennec"
    default_config: ClassVar[FennecConfig] = FennecConfig()
    short_forms: ClassVar[Mapping[str, str]] = {":": "alpha"}

    config: FennecConfig
    choices: Learned[JsonDict]
    _alpha: Learned[Annotated[float, Within(least=0.0, most=1.0)]]
    _transfer: Learned[NMFRanker]
    _meta: Learned[LinearRanker]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        seed = seed_from(rng)
        self.choices = {}
        given = self.config.alpha
        self._alpha = self._chosen(interactions, seed) if given is None else given
        catalog = self._catalog
        self._transfer = NMFRanker().fit(interactions, catalog, rng=named_stream(seed, "transfer"))
        self._meta = LinearRanker().fit(interactions, catalog, rng=named_stream(seed, "meta"))

    def _chosen(self, interactions: Interactions, seed: int) -> float:
        """The best α of the inner back-test; its evidence goes to ``choices``."""
        if interactions.n_tasks < _MIN_TASKS:
            return _ALPHAS[0]
        folds = held_out_tasks(interactions, _MAX_FOLDS, seed)
        transfer, meta = (
            predict_held_out(
                make, interactions, self._catalog, folds, seed=seed, progress=self.progress
            )
            for make in (NMFRanker, LinearRanker)
        )
        score = standardize(interactions, "zscore").scores
        rows = [
            np.flatnonzero((interactions.task_index == task) & ~np.isnan(transfer + meta))
            for task in range(interactions.n_tasks)
        ]
        skill = {}
        for alpha in _ALPHAS:
            merged = alpha * transfer + (1.0 - alpha) * meta
            by_task = [np.nan_to_num(pearson(merged[own], score[own])) for own in rows]
            skill[alpha] = float(np.mean(by_task))
        self.choices = {"alpha_pearson": {f"{alpha:g}": value for alpha, value in skill.items()}}
        return max(_ALPHAS, key=lambda alpha: skill[alpha])

    @property
    def alpha(self) -> float:
        """Weight of the transfer score."""
        return self._alpha

    def place(self, task: TaskView) -> Placed | None:
        """Where a cold task stands in the transfer space."""
        return self._transfer.place(task)

    def _inner(self) -> tuple[BaseRanker, ...]:
        return self._transfer, self._meta

    def parts(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Weight and value of the transfer score and of the meta score."""
        n = len(model_ids)
        return {
            part.name: (np.full(n, weight), part.predict_view(view, model_ids).value)
            for part, weight, view in self._weighed(task)
        }

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Known tasks behind the transfer score, fields behind the meta score."""
        return tuple(
            each.weighted(np.full(len(model_ids), weight))
            for part, weight, view in self._weighed(task)
            for each in part.explain(view, model_ids)
        )

    def _weighed(self, task: TaskView) -> tuple[tuple[BaseRanker, float, TaskView], ...]:
        """Each part, its weight, and its view of the task: the meta score ignores outcomes."""
        described = TaskView(task_id=task.task_id, card=task.card)
        return (self._transfer, self._alpha, task), (self._meta, 1.0 - self._alpha, described)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        parts = self.parts(task, model_ids).values()
        value: FloatArray = np.sum([weight * part for weight, part in parts], axis=0)
        return value
