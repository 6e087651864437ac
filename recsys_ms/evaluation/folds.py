"""Folds of a back-test: training interactions and the held-out tasks; the base of protocols."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.configured import plain, values_of
from recsys_ms.core.types import BoolArray, FloatArray, IntArray, JsonDict
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, TaskQuery

#: ``hot``: the task has training runs; ``warm``: only runs given in the query; ``cold``: none.
TaskWarmth: TypeAlias = Literal["cold", "warm", "hot"]
WARMTHS: Final[tuple[TaskWarmth, ...]] = ("cold", "warm", "hot")

#: A single model can be neither ordered nor chosen.
MIN_TEST_MODELS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """One task of a fold's test.

    Attributes
    ----------
    query : TaskQuery
        Everything the ranker is given: the id, the metric and the revealed outcomes, never the
        tested ones.
    model_ids : tuple of str
        Tested models, sorted.
    outcomes : ndarray of shape (n_models,)
        Their outcomes in the metric's unit, higher is better.
    warmth : {"cold", "warm", "hot"}
        What training knows of the task.
    sign : float
        +1 where higher values of the metric are better, -1 where lower.
    """

    query: TaskQuery
    model_ids: tuple[str, ...]
    outcomes: FloatArray
    warmth: TaskWarmth
    sign: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """One training set and its test.

    Attributes
    ----------
    name : str
        Unique within the protocol; seeds of the fold derive from it.
    train : Interactions
        Without any tested outcome.
    held_out : tuple of HeldOut
        The test, one entry per task.
    left_out : tuple of str
        Tasks that were not tested because fewer than two models are left to test.
    groups : tuple of str
        Held-out model groups (families), where the protocol splits by group.
    """

    name: str
    train: Interactions
    held_out: tuple[HeldOut, ...]
    left_out: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol(ABC):
    """A way to split a history into folds. Subclasses are frozen configurations."""

    name: ClassVar[str]

    @abstractmethod
    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield the folds; equal arguments give equal folds.

        Parameters
        ----------
        interactions : Interactions
            The whole history. It is not changed.
        catalog : Catalog or None
            Used for model groups only.
        seed : int
            Every random choice is a stream of this seed and the fold's own name.

        Raises
        ------
        DataError
            The history cannot be split this way.
        """

    @abstractmethod
    def n_folds(self, interactions: Interactions) -> int:
        """Number of folds that :meth:`folds` yields."""

    def settings(self) -> JsonDict:
        """The configuration as JSON values, for the result."""
        return plain(values_of(self))


def fold_of(
    name: str,
    test: Interactions,
    tested: BoolArray,
    train: Interactions,
    *,
    groups: tuple[str, ...] = (),
) -> Fold:
    """A fold that tests the interactions of ``test`` where ``tested`` (n_interactions,) is true."""
    held_out, left_out = hold_out_models(test, tested, train)
    return Fold(name=name, train=train, held_out=held_out, left_out=left_out, groups=groups)


def hold_out_models(
    interactions: Interactions, tested: BoolArray, train: Interactions
) -> tuple[tuple[HeldOut, ...], tuple[str, ...]]:
    """Test entries of the interactions where ``tested`` (n_interactions,) is true, task by task."""
    known = set(train.task_ids)
    held_out: list[HeldOut] = []
    left_out: list[str] = []
    outcomes = interactions.outcomes
    bounds = np.searchsorted(interactions.task_index, np.arange(interactions.n_tasks + 1))
    for row in np.unique(interactions.task_index[tested]):
        task_id = interactions.task_ids[row]
        own = np.arange(bounds[row], bounds[row + 1])
        own = own[tested[own]]
        if own.size < MIN_TEST_MODELS:
            left_out.append(task_id)
            continue
        held_out.append(
            HeldOut(
                query=TaskQuery(task_id=task_id, metric=interactions.metrics[row]),
                model_ids=names_at(interactions.model_ids, interactions.model_index[own]),
                outcomes=outcomes[own],
                warmth="hot" if task_id in known else "cold",
                sign=float(interactions.signs[row]),
            )
        )
    return tuple(held_out), tuple(left_out)


def can_believe(ranker: BaseRanker, query: TaskQuery) -> bool:
    """Whether the ranker can predict values, and not only an order, in the metric of the query."""
    observed = np.array(list(query.observed.values()))
    return ranker.scale_prior.can_place(ranker.metric_of(query), observed)


def names_at(ids: Sequence[str], positions: IntArray) -> tuple[str, ...]:
    """The ids at ``positions``."""
    return tuple(ids[int(position)] for position in positions)
