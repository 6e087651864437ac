"""The map ``g`` from normal scores, which are predicted, to standardised outcomes.

Within a task, outcomes are rarely normal: some runs collapse, many models crowd below the best.
The normal scores of their ranks are, by construction (a Gaussian copula, Liu, Lafferty & Wasserman
2009). ``g`` maps a normal score to the standardised outcome that tasks of this history have there
on average; it is increasing, so that observed outcomes can be mapped back.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Final, Self

import numpy as np

from recsys_ms.core.declared import SORTED, Shape
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize

_KNOTS: Final = np.linspace(-2.5, 2.5, 41)
_STEP: Final = float(_KNOTS[1] - _KNOTS[0])
#: Tasks with fewer models are left out.
_MIN_MODELS: Final = 5
#: Least slope, so that the map has an inverse where many models reached the same value.
_LEAST_SLOPE: Final = 0.05
#: Gauss-Hermite rule for expectations over a normal belief.
_NODES, _raw = np.polynomial.hermite_e.hermegauss(16)
_WEIGHTS: Final = _raw / _raw.sum()


@dataclass(frozen=True, eq=False)
class OutcomeShape:
    """``g``, piecewise linear, extended linearly beyond its knots."""

    #: Standardised outcome at each knot, increasing.
    values: Annotated[FloatArray, Shape("knot"), SORTED]

    @classmethod
    def normal(cls) -> Self:
        """Outcomes are normal: ``g(n) = n``."""
        return cls(_KNOTS.copy())

    @classmethod
    def fit(cls, interactions: Interactions, normal: FloatArray, standard: FloatArray) -> Self:
        """Mean over tasks of the z-score at each normal score, (n_interactions,) both."""
        bounds = np.searchsorted(interactions.task_index, np.arange(interactions.n_tasks + 1))
        total, n_tasks = np.zeros(_KNOTS.size), 0
        for begin, end in pairwise(bounds.tolist()):
            if end - begin < _MIN_MODELS:
                continue
            order = np.argsort(normal[begin:end], kind="stable")
            total += np.interp(_KNOTS, normal[begin:end][order], standard[begin:end][order])
            n_tasks += 1
        if n_tasks == 0:
            return cls.normal()
        step = np.maximum(np.diff(total / n_tasks), _LEAST_SLOPE * np.diff(_KNOTS))
        # The slopes may have grown: keep the mean where it was.
        values = np.concatenate([[0.0], np.cumsum(step)])
        middle = _KNOTS.size // 2
        return cls(values - values[middle] + total[middle] / n_tasks)

    def __call__(self, normal: FloatArray) -> FloatArray:
        """Standardised outcomes at normal scores, any shape."""
        piece = _piece(normal)
        slope, at_zero = self._lines
        found: FloatArray = slope[piece] * normal
        found += at_zero[piece]
        return found

    def inverse(self, standard: FloatArray) -> FloatArray:
        """Normal scores of standardised outcomes, any shape."""
        low, high = self._ends()
        inside = np.interp(standard, self.values, _KNOTS)
        below = np.minimum(standard - self.values[0], 0.0) / low
        above = np.maximum(standard - self.values[-1], 0.0) / high
        found: FloatArray = inside + below + above
        return found

    def slope(self, normal: FloatArray) -> FloatArray:
        """``g'`` at normal scores, any shape."""
        found: FloatArray = self._lines[0][_piece(normal)]
        return found

    def expected(self, mean: FloatArray, sd: FloatArray) -> FloatArray:
        """``E[g(n)]`` for normal beliefs of n, shape (n_models,)."""
        found: FloatArray = self(mean[:, None] + sd[:, None] * _NODES) @ _WEIGHTS
        return found

    @cached_property
    def _lines(self) -> tuple[FloatArray, FloatArray]:
        """Slope and value at 0 of each linear piece, those beyond the knots included."""
        low, high = self._ends()
        slope = np.concatenate([[low], np.diff(self.values) / _STEP, [high]])
        left, at_left = np.append(_KNOTS[0], _KNOTS), np.append(self.values[0], self.values)
        return slope, at_left - slope * left

    def _ends(self) -> tuple[float, float]:
        """Slopes beyond the knots: those of the outermost tenth."""
        n = 4
        span = _KNOTS[n] - _KNOTS[0]
        low = float(self.values[n] - self.values[0]) / span
        high = float(self.values[-1] - self.values[-1 - n]) / span
        return low, high


@dataclass(frozen=True, slots=True, eq=False)
class TrainingScores:
    """Interactions with their normal scores and z-scores within the task, (n_interactions,)."""

    interactions: Interactions
    normal: FloatArray
    standard: FloatArray

    @classmethod
    def of(cls, interactions: Interactions) -> Self:
        """Standardise the outcomes of these interactions."""
        normal, standard = (standardize(interactions, how).scores for how in ("rank", "zscore"))
        return cls(interactions, normal, standard)

    def shape(self) -> OutcomeShape:
        """The map from normal scores to z-scores."""
        return OutcomeShape.fit(self.interactions, self.normal, self.standard)

    def without(self, held_out: BoolArray) -> "TrainingScores":
        """The other interactions; their scores stay those of the whole."""
        keep = ~held_out
        part = self.interactions.select(keep)
        return TrainingScores(part, self.normal[keep], self.standard[keep])

    def model_ids(self, rows: IntArray) -> list[str]:
        """Models of some interactions."""
        ids = self.interactions.model_ids
        return [ids[int(j)] for j in self.interactions.model_index[rows]]


def _piece(normal: FloatArray) -> IntArray:
    """The linear piece of each normal score; 0 is the one below the knots."""
    place = np.floor((normal - _KNOTS[0]) / _STEP)
    found: IntArray = np.clip(place, -1, _KNOTS.size - 1).astype(np.int64) + 1
    return found
