"""Intervals with stated coverage: conformal quantiles of errors on held-out tasks.

The half-width, in standard deviations of the belief, that holds the stated share of outcomes is
measured on held-out tasks with the predictor that is served, for several numbers of observed runs
(Lei et al. 2018, locally weighted conformal prediction). Outcomes of one task are not exchangeable
with those of another, so every task weighs the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np
from scipy.special import ndtri

from recsys_ms.core.declared import SORTED, Shape, Within
from recsys_ms.core.state import Stateful
from recsys_ms.core.types import FloatArray

#: Levels that are tried: from this share below the stated coverage up to the largest error.
_LEVEL_REACH: Final = 0.25
_N_LEVELS: Final = 60


@dataclass(frozen=True, slots=True, eq=False)
class IntervalCalibration(Stateful):
    """Half-width of intervals in standard deviations."""

    #: Share of outcomes that the interval holds.
    coverage: Annotated[float, Within(above=0.0, most=1.0)]
    #: Numbers of observed runs, increasing, the first 0.
    n_observed: Annotated[FloatArray, Shape("measured"), Within(least=0.0), SORTED]
    #: Half-width for each.
    widening: Annotated[FloatArray, Shape("measured"), Within(least=0.0)]
    #: Held-out tasks behind them; 0 for the normal distribution instead.
    n_tasks: Annotated[int, Within(least=0)]

    @classmethod
    def fit(cls, strayed: Mapping[int, Sequence[FloatArray]], *, coverage: float) -> Self:
        """Measure from errors by the number of observed runs, one array a held-out task."""
        numbers = sorted(n for n, tasks in strayed.items() if len(tasks) > 1)
        if not numbers:
            normal = float(ndtri(0.5 + coverage / 2.0))
            return cls(coverage, np.zeros(1), np.array([normal]), 0)
        widening = [_half_width(strayed[n], coverage) for n in numbers]
        n_tasks = len(strayed[numbers[0]])
        return cls(coverage, np.array(numbers, dtype=np.float64), np.array(widening), n_tasks)

    def at(self, n_observed: int) -> float:
        """Standard deviations for a number of observed runs; between measured ones by its log."""
        asked = np.log1p(n_observed)
        return float(np.interp(asked, np.log1p(self.n_observed), self.widening))


def _half_width(errors: Sequence[FloatArray], coverage: float) -> float:
    """Quantile of all errors at the level that covers each task by the others as stated."""
    value = np.concatenate(errors)
    task = np.repeat(np.arange(len(errors)), [error.size for error in errors])
    weight = np.concatenate([np.full(error.size, 1.0 / error.size) for error in errors])
    order = np.argsort(value, kind="stable")
    value, task, weight = value[order], task[order], weight[order]
    total = np.cumsum(weight) / len(errors)
    levels = np.linspace(coverage - _LEVEL_REACH * coverage, 1.0, _N_LEVELS)
    covered = np.zeros(_N_LEVELS)
    for own in range(len(errors)):
        mine = task == own
        others = np.cumsum(np.where(mine, 0.0, weight)) / (len(errors) - 1)
        bounds = value[np.minimum(np.searchsorted(others, levels - 1e-12), value.size - 1)]
        covered += np.searchsorted(value[mine], bounds, side="right") / mine.sum()
    # The shortfall of a level is proportional to one over the number of tasks; a new task has one
    # more of them than each of these had.
    n_tasks = len(errors)
    expected = levels - (levels - covered / n_tasks) * n_tasks / (n_tasks + 1)
    # Between two tasks it jumps, and the nearer side of the jump is taken.
    level = levels[int(np.argmin(np.abs(expected - coverage)))]
    at = int(np.searchsorted(total, level - 1e-12))
    return float(value[min(at, value.size - 1)])
