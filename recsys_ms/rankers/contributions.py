"""Exact contributions to a prediction: of fields, known tasks, runs and observed outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

import numpy as np

from recsys_ms.core.types import FloatArray
from recsys_ms.learners.head_contributions import HeadContributions

#: ``base``: the constant; ``feature``: a field of a card, a score of the pair, or the model's
#: popularity; ``task``: a known task; ``run``: the outcome of a known (task, model) pair;
#: ``factor``: a dimension of the transfer space; ``observed``: an outcome observed on the task of
#: the question; ``part``: a whole part.
SourceKind: TypeAlias = Literal["base", "feature", "task", "run", "factor", "observed", "part"]


@dataclass(frozen=True, slots=True)
class Source:
    """A source of a prediction."""

    kind: SourceKind
    name: str  # unique among the sources of its kind
    task_id: str | None = None  # the known task, of a task or a run
    model_id: str | None = None  # the model, of a run or an observed outcome

    @classmethod
    def task(cls, task_id: str) -> Self:
        """A known task."""
        return cls("task", task_id, task_id=task_id)

    @classmethod
    def run(cls, task_id: str, model_id: str) -> Self:
        """The best run of a model on a known task."""
        return cls("run", f"{model_id} on {task_id}", task_id=task_id, model_id=model_id)

    @classmethod
    def observed(cls, model_id: str) -> Self:
        """The observed outcome of a model on the task of the question."""
        return cls("observed", model_id, model_id=model_id)


#: Name of the part that holds outcomes observed on the task itself.
OBSERVED_PART: Final = "observed runs"
#: The constant that contributions start from.
BASE: Final = Source("base", "base")
#: Mean standardised outcome of a model over the known tasks.
POPULARITY: Final = Source("feature", "popularity")


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What each source adds to one part of a ranker's predictions for some models.

    Amounts are in standard deviations over the task's models; a row adds up to the part's
    contribution to the predicted value.
    """

    part: str  # as in :meth:`recsys_ms.rankers.base.BaseRanker.parts`
    sources: tuple[Source, ...]
    amounts: FloatArray  # (n_models, n_sources)

    @classmethod
    def whole(cls, part: str, value: FloatArray, source: Source | None = None) -> Self:
        """A part with one source, by default the part itself; ``value`` is (n_models,)."""
        return cls(part, (source or Source("part", part),), value[:, None])

    @classmethod
    def of_fields(cls, part: str, found: HeadContributions) -> Self:
        """The contributions of the fields of a head's design."""
        base = np.full((found.amounts.shape[0], 1), found.base)
        fields = tuple(Source("feature", field) for field in found.fields)
        return cls(part, (BASE, *fields), np.hstack([base, found.amounts]))

    @classmethod
    def joined(cls, part: str, pieces: Sequence[Self]) -> Self:
        """The sources of several pieces side by side."""
        return cls(
            part,
            tuple(source for piece in pieces for source in piece.sources),
            np.hstack([piece.amounts for piece in pieces]),
        )

    @property
    def total(self) -> FloatArray:
        """The part's contribution to each prediction, shape (n_models,)."""
        total: FloatArray = self.amounts.sum(axis=1)
        return total

    def weighted(self, weights: FloatArray) -> Self:
        """The contributions times a weight for each model, shape (n_models,)."""
        return type(self)(self.part, self.sources, self.amounts * weights[:, None])
