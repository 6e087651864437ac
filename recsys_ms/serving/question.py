"""A question about one task: the options of ``recommend``, ``suggest`` and ``explain``, checked."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError, did_you_mean, kind_of
from recsys_ms.core.types import BoolArray
from recsys_ms.history.plausibility import judge_values
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.arguments import CardLike, Outcomes, read_models
from recsys_ms.rankers.base import BaseRanker, TaskQuery

_LOG: Final = logging.getLogger(__name__)

#: Each bound: its name, the catalog's column, units of the column in one of the bound, and words.
_BOUNDS: Final = (
    ("max_params", "n_parameters", 1e6, "million parameters"),
    ("max_gmacs", "gmacs", 1.0, "GMACs"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Requirements of a recommended model. A model whose card does not tell is left out.

    Attributes
    ----------
    max_params : float or None
        Most parameters, in millions.
    max_gmacs : float or None
        Most GMACs (10^9 multiply-adds for one input).
    licences : tuple of str
        Accepted licences, compared without case; empty for any.
    """

    max_params: float | None = None
    max_gmacs: float | None = None
    licences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, *_ in _BOUNDS:
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise UsageError(f"Constraints: {name} is {bound}, expected a positive number")

    def met_by(self, cards: pd.DataFrame) -> BoolArray:
        """Which rows of the catalog's models meet all, shape (n_models,)."""
        met = np.ones(len(cards), dtype=bool)
        for name, column, unit, _ in _BOUNDS:
            if (bound := getattr(self, name)) is not None:
                met &= (cards[column] <= bound * unit).to_numpy()
        if self.licences:
            accepted = {licence.lower() for licence in self.licences}
            met &= np.array([str(licence).lower() in accepted for licence in cards["licence"]])
        return met

    def describe(self) -> str:
        """The constraints in words; empty where there are none."""
        bounds = [(getattr(self, name), words) for name, _, _, words in _BOUNDS]
        said = [f"at most {bound:g} {words}" for bound, words in bounds if bound is not None]
        if self.licences:
            said.append(f"licence {' or '.join(self.licences)}")
        return ", ".join(said)


class TaskOptions(TypedDict, total=False):
    """Options about the task of a question, in every form that :class:`Question` accepts."""

    observed: Outcomes
    card: CardLike
    metric: str | None


class QuestionOptions(TaskOptions, total=False):
    """Options about the task, and about the models that may be recommended."""

    models: Iterable[str] | None
    constraints: Constraints | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(TaskQuery):
    """A question about one task, its options checked.

    A :class:`~recsys_ms.rankers.base.TaskQuery` whose outcomes are in the metric's own direction.

    Attributes
    ----------
    models : tuple of str or None
        Rank these only; any iterable of ids is read. ``None`` for all models.
    constraints : Constraints or None
        Bounds and licences a model must meet.

    Raises
    ------
    UsageError, DataError
        An invalid option (:mod:`recsys_ms.rankers.arguments`).
    """

    models: tuple[str, ...] | None = None
    constraints: Constraints | None = None

    def __post_init__(self) -> None:
        TaskQuery.__post_init__(self)
        object.__setattr__(self, "models", read_models(self.models))
        if not isinstance(self.constraints, Constraints | None):
            raise UsageError(
                f"constraints is {kind_of(self.constraints)}; "
                "expected Constraints(max_params=...) or None"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question to a fitted ranker: all known outcomes of the task, and models it can answer."""

    query: TaskQuery  # the task with all its outcomes, higher is better
    sign: float  # +1 where higher values of its metric are better, -1 where lower
    models: tuple[str, ...]  # requested models that were not observed
    constraints: Constraints

    @classmethod
    def of(
        cls,
        question: Question,
        base: BaseRanker,
        known: KnownOutcomes,
        all_models: Sequence[str],
    ) -> "Asked":
        """Look up what a fitted ranker knows of the task and of the models.

        Raises
        ------
        UnknownIdError
            A model that has neither runs nor a card.
        UsageError
            An observed value that the metric cannot have.
        DataError
            No training task has the metric.
        """
        task, reached, models = question.task_id, question.observed, question.models
        _require_known(all_models, [*reached, *(models or ())])
        query, given = with_outcomes(question, base, known)
        return cls(
            # Outcomes of the training history are in the ranker already, if the task is hot there.
            query=replace(query, observed={**known.of_task(task), **given}),
            sign=base.scale_prior.sign(base.metric_of(query)),
            models=tuple(m for m in (models or all_models) if m not in reached),
            constraints=question.constraints or Constraints(),
        )

    def candidates(self, catalog: Catalog) -> tuple[str, ...]:
        """Models that may be answered.

        Raises
        ------
        DataError
            All were observed, or none meets the constraints.
        """
        wanted = self.constraints.describe()
        met = self.models
        if wanted:
            allowed = self.constraints.met_by(catalog.models.reindex(list(met)))
            met = tuple(model for model, ok in zip(met, allowed, strict=True) if ok)
        if not met:
            raise DataError(
                f"none of {len(self.models)} models meets the constraints ({wanted}); widen them, "
                "or add cards with size and licence (a model without them on its card is left out)"
                if wanted
                else "no model is left to recommend: all were observed"
            )
        return met


def with_outcomes(
    given: TaskQuery, base: BaseRanker, known: KnownOutcomes
) -> tuple[TaskQuery, dict[str, float]]:
    """The task of a query with its metric, and its observed values as outcomes (higher is better).

    The values are in the metric's own unit and direction. One that nothing in the history explains
    (of a diverged run) is left out and logged.

    Raises
    ------
    UsageError
        A value that the metric cannot have, or that is in another unit than the history's.
    DataError
        No training task has the metric.
    """
    task, metric, inter = given.task_id, given.metric, known.interactions
    if metric is None and task in inter.task_ids:
        metric = inter.metrics[inter.task_position(task)]
    card = None if given.card is None else replace(given.card, task_id=task)
    query = TaskQuery(task_id=task, card=card, metric=metric)
    named = base.metric_of(query)
    sign = base.scale_prior.sign(named)
    if not given.observed:
        return query, {}
    outcomes: dict[str, float] = {}
    verdicts = judge_values(named, given.observed.values(), known.values_in(named))
    for (model, value), judged in zip(given.observed.items(), verdicts, strict=True):
        if judged is None:
            outcomes[model] = sign * value
            continue
        kind, text = judged
        told = f"task {task!r}: observed of model {model!r}: {text}"
        if kind != "outlier":
            raise UsageError(told)
        _LOG.warning("%s; it is left out", told)
    return query, outcomes


def _require_known(all_models: Sequence[str], asked: Sequence[str]) -> None:
    known = set(all_models)
    for model in asked:
        if model not in known:
            raise UnknownIdError(
                f"model {model!r} has neither runs nor a card among the {len(known)} models "
                f"of this ranker{did_you_mean(model, all_models)}"
            )
