"""What every ranker has in common: fit on interactions, predict one task at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self, final

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, NotFittedError
from recsys_ms.core.rng import as_generator
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray, RngLike
from recsys_ms.history.interactions import Interactions


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """A task to rank models for.

    Attributes
    ----------
    task_id : str
        A task of the training history (hot), or any other name.
    observed : mapping of model id to float
        Outcomes (higher is better, the metric's unit) that are known besides the training history:
        a new task with some is warm.
    card : TaskCard or None
        Description of the task; ``None`` looks the id up in the training catalog.
    """

    task_id: str
    observed: Mapping[str, float] = field(default_factory=dict)
    card: TaskCard | None = None

    def __post_init__(self) -> None:
        for model_id, outcome in self.observed.items():
            if not np.isfinite(outcome):
                raise DataError(
                    f"task {self.task_id!r}: the observed outcome of model {model_id!r} is "
                    f"{outcome}; give a finite number, or leave the model out"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Two answers about the requested models, each of shape (n_models,).

    Attributes
    ----------
    value : ndarray
        Expected standardised outcome (z-score within the task), higher is better.
    order : ndarray
        Key to sort by, higher first. It may differ from ``value``: what predicts values best is
        not what finds the best model soonest.
    """

    value: FloatArray
    order: FloatArray


class BaseRanker(ABC):
    """Orders models for a task.

    ``fit`` and ``predict`` are finished here; subclasses fill in ``_fit`` and ``_predict``. One
    entry is answered per requested id: a model without runs gets what its card says, or the mean.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self._fitted = False

    @final
    def fit(
        self, interactions: Interactions, catalog: Catalog | None = None, *, rng: RngLike = None
    ) -> Self:
        """Learn from the training interactions; a second call forgets the first.

        Parameters
        ----------
        interactions : Interactions
            Training interactions only; what is held out must not be in them.
        catalog : Catalog, optional
            Cards of models and tasks; may describe more ids than have runs.
        rng : int, Generator or None
            Source of every random choice.
        """
        self._fit(interactions, catalog or Catalog.empty(), as_generator(rng))
        self._fitted = True
        return self

    @final
    def predict(self, query: TaskQuery, model_ids: Sequence[str]) -> Prediction:
        """Predict the standardised outcome and order of ``model_ids`` on one task.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        if not self._fitted:
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit() first")
        prediction = self._predict(query, model_ids)
        for part in (prediction.value, prediction.order):
            if part.shape != (len(model_ids),) or not np.isfinite(part).all():
                raise RuntimeError(
                    f"{type(self).__name__} must answer one finite number per model, "
                    f"got shape {part.shape} for {len(model_ids)} models"
                )
        return prediction

    @abstractmethod
    def _fit(
        self, interactions: Interactions, catalog: Catalog, rng: np.random.Generator
    ) -> None: ...

    @abstractmethod
    def _predict(self, query: TaskQuery, model_ids: Sequence[str]) -> Prediction: ...

    @abstractmethod
    def state(self) -> State:
        """Everything that :meth:`from_state` needs, as plain data."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: State) -> Self:
        """Restore a fitted ranker; predictions equal the saved one's bit for bit."""
