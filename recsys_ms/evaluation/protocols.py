"""Protocols over tasks and models: leave-one-task-out, unseen models, the settings 1 to 3.

Held-out outcomes are removed before the training interactions are built, so they cannot reach a
ranker. Cards are not checked: a catalog column that was computed from outcomes leaks them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.configured import values_of
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import IntArray, JsonDict
from recsys_ms.evaluation.folds import (
    MIN_TEST_MODELS,
    Fold,
    HeldOut,
    Protocol,
    fold_of,
    names_at,
)
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery

FAMILY: Final = "family"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneTaskOut(Protocol):
    """Train on all tasks but one and rank every model of that one; once per task.

    Attributes
    ----------
    n_observed : int
        Runs of the held-out task that are revealed in the query, chosen at random per task; the
        revealed models are not tested. 0 makes every tested task cold.
    max_tasks : int or None
        Hold out at most this many tasks, drawn at random; ``None`` for all.
    history_fraction : float
        Share of the other tasks' outcomes to train on, drawn at random, in (0, 1]; a smaller share
        is a subset of a larger one.
    """

    name: ClassVar[str] = "leave-one-task-out"
    n_observed: int = 0
    max_tasks: int | None = None
    history_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.n_observed < 0:
            raise UsageError(f"n_observed is {self.n_observed}, expected 0 or more")
        if self.max_tasks is not None and self.max_tasks < 1:
            raise UsageError(f"max_tasks is {self.max_tasks}, expected 1 or more")
        if not 0.0 < self.history_fraction <= 1.0:
            raise UsageError(
                f"history_fraction is {self.history_fraction}, expected above 0 and at most 1"
            )

    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield one fold per task; its name is the task's."""
        _require_two_tasks(interactions, self.name)
        drawn = named_stream(seed, self.name).permutation(interactions.n_tasks)
        for position in np.sort(drawn[: self.n_folds(interactions)]):
            task_id = interactions.task_ids[int(position)]
            train = _thinned(interactions.without_task(task_id), self.history_fraction, seed)
            held_out = _reveal(interactions, task_id, self.n_observed, seed)
            yield Fold(
                name=task_id,
                train=train,
                held_out=() if held_out is None else (held_out,),
                left_out=(task_id,) if held_out is None else (),
            )

    def n_folds(self, interactions: Interactions) -> int:
        """One per task, ``max_tasks`` at most."""
        n_tasks = interactions.n_tasks
        return n_tasks if self.max_tasks is None else min(n_tasks, self.max_tasks)

    def settings(self) -> JsonDict:
        """Every option, but ``history_fraction`` only where it is below 1."""
        options = values_of(self)
        return {k: v for k, v in options.items() if k != "history_fraction" or v != 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenModels(Protocol):
    """Hold out models on every task at once and predict them there; ``n_repeats`` times.

    Attributes
    ----------
    n_repeats : int
        Independent random splits.
    test_fraction : float
        Share of the models (or of the groups) that is held out, in (0, 1).
    group_by : {"family"} or None
        Hold out whole families (catalog column ``family``) instead of single models. A model
        whose family is unknown is a group of its own.
    """

    name: ClassVar[str] = "unseen-models"
    n_repeats: int = 10
    test_fraction: float = 0.2
    group_by: Literal["family"] | None = None

    def __post_init__(self) -> None:
        _check_split(self.n_repeats, "test_fraction", self.test_fraction)
        if self.group_by not in (None, FAMILY):
            raise UsageError(f"group_by is {self.group_by!r}, expected 'family' or None")

    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield one fold per repeat, named ``repeat-01`` and so on."""
        groups, names = self._groups(interactions, catalog)
        n_groups = len(names)
        n_test = max(1, round(self.test_fraction * n_groups))
        if n_groups < 2 or n_test >= n_groups:
            raise DataError(
                f"holding out {self.test_fraction:g} of {n_groups} {self.group_by or 'model'} "
                "groups leaves nothing to train on; use a smaller test_fraction or more models"
            )
        for repeat in range(1, self.n_repeats + 1):
            name = f"repeat-{repeat:02d}"
            stream = named_stream(seed, self.name, str(self.group_by), name)
            chosen = np.sort(stream.permutation(n_groups)[:n_test])
            tested = np.isin(groups, chosen)[interactions.model_index]
            held_out_groups = names_at(names, chosen) if self.group_by else ()
            train = interactions.select(~tested)
            yield fold_of(name, interactions, tested, train, groups=held_out_groups)

    def n_folds(self, interactions: Interactions) -> int:
        """One per repeat."""
        return self.n_repeats

    def _groups(
        self, interactions: Interactions, catalog: Catalog | None
    ) -> tuple[IntArray, tuple[str, ...]]:
        if self.group_by is None:
            return np.arange(interactions.n_models), interactions.model_ids
        known = pd.Series(dtype=object) if catalog is None else catalog.models[FAMILY].dropna()
        family = pd.Series(interactions.model_ids).map(known)
        if family.notna().sum() == 0:
            raise DataError(
                f"the family of all {interactions.n_models} models is unknown; "
                "give a catalog whose model cards have a family, or split without group_by"
            )
        # The model's own id stands in for an unknown family; the prefix keeps the two apart.
        label = ("family " + family).fillna("model " + pd.Series(interactions.model_ids))
        codes, names = pd.factorize(label, sort=True)
        return codes.astype(np.int64), tuple(map(str, names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting1(Protocol):
    """Same task, other models: train on a part of one task's models only, test on the rest.

    Settings 1 to 3 are our reading of *Guided Recommendation for Model Fine-tuning* (CVPR 2023):
    they differ in the training runs: some of the target task; only those of other tasks; both.

    Attributes
    ----------
    n_repeats : int
        Random splits per task.
    train_fraction : float
        Share of the task's models that is trained on, in (0, 1).
    """

    name: ClassVar[str] = "settings-1"
    uses_other_tasks: ClassVar[bool] = False
    n_repeats: int = 3
    train_fraction: float = 0.5

    def __post_init__(self) -> None:
        _check_split(self.n_repeats, "train_fraction", self.train_fraction)

    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield ``n_repeats`` folds per task, named ``TASK/repeat-01`` and so on."""
        if self.uses_other_tasks:
            _require_two_tasks(interactions, self.name)
        for row, task_id in enumerate(interactions.task_ids):
            of_task = interactions.task_index == row
            for repeat in range(1, self.n_repeats + 1):
                name = f"{task_id}/repeat-{repeat:02d}"
                # The stream has no protocol in its name: settings 1 and 3 test the same models.
                stream = named_stream(seed, "models-of-task", name)
                own = stream.permutation(np.flatnonzero(of_task))
                tested = np.zeros(of_task.shape, dtype=np.bool_)
                tested[own[max(1, round(self.train_fraction * own.size)) :]] = True
                train = interactions.select(~tested if self.uses_other_tasks else of_task & ~tested)
                fold = fold_of(name, interactions, tested, train)
                yield fold if tested.any() else replace(fold, left_out=(task_id,))

    def n_folds(self, interactions: Interactions) -> int:
        """``n_repeats`` per task."""
        return interactions.n_tasks * self.n_repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting2(Protocol):
    """Other tasks only: the target task is unseen and all of its models are tested.

    Our reading of Guided Recommendation (CVPR 2023), see :class:`Setting1`. The folds equal those
    of :class:`LeaveOneTaskOut` without revealed runs.
    """

    name: ClassVar[str] = "settings-2"

    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield one fold per task; its name is the task's."""
        _require_two_tasks(interactions, self.name)
        yield from LeaveOneTaskOut().folds(interactions, catalog, seed=seed)

    def n_folds(self, interactions: Interactions) -> int:
        """One per task."""
        return interactions.n_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting3(Setting1):
    """Other tasks and a part of the target task's models; test on the task's remaining models.

    Our reading of Guided Recommendation (CVPR 2023), see :class:`Setting1`, whose options and
    tested models it shares, so the two tables can be compared model by model.
    """

    name: ClassVar[str] = "settings-3"
    uses_other_tasks: ClassVar[bool] = True


def _thinned(interactions: Interactions, fraction: float, seed: int) -> Interactions:
    if fraction == 1.0:
        return interactions
    drawn = named_stream(seed, "history").random(interactions.n_interactions)
    kept = drawn < max(fraction, drawn.min() + 1e-12)
    return interactions.select(kept)


def _reveal(interactions: Interactions, task_id: str, n_observed: int, seed: int) -> HeldOut | None:
    columns, outcomes = interactions.of_task(task_id)
    if columns.size < n_observed + MIN_TEST_MODELS:
        return None
    revealed = np.zeros(columns.size, dtype=np.bool_)
    stream = named_stream(seed, "reveal", task_id)
    revealed[stream.permutation(columns.size)[:n_observed]] = True
    ids = names_at(interactions.model_ids, columns[revealed])
    observed = dict(zip(ids, outcomes[revealed].tolist(), strict=True))
    row = interactions.task_position(task_id)
    return HeldOut(
        query=TaskQuery(task_id=task_id, observed=observed, metric=interactions.metrics[row]),
        model_ids=names_at(interactions.model_ids, columns[~revealed]),
        outcomes=outcomes[~revealed],
        warmth="warm" if n_observed else "cold",
        sign=float(interactions.signs[row]),
    )


def _require_two_tasks(interactions: Interactions, protocol: str) -> None:
    if interactions.n_tasks < 2:
        raise DataError(
            f"{protocol} trains on other tasks and the history has {interactions.n_tasks}; "
            "use unseen-models or settings-1, which need one task only"
        )


def _check_split(n_repeats: int, name: str, fraction: float) -> None:
    if n_repeats < 1:
        raise UsageError(f"n_repeats is {n_repeats}, expected 1 or more")
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"{name} must lie between 0 and 1, got {fraction}")
