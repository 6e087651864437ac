"""Bootstrap over tasks: the uncertainty of a mean, or of a paired difference of means.

Units (tasks) are drawn with replacement; all columns share the draws, so the difference of two
rankers is paired. A unit where a column is undefined (NaN) is left out of that column's mean, in
the estimate and in every draw alike.
"""

from typing import Final

import numpy as np

from recsys_ms.core.errors import UsageError
from recsys_ms.core.types import FloatArray

N_DRAWS: Final = 2000
COVERAGE: Final = 0.95

#: Draws handled at once: bounds memory at about 2 MB per 1000 units.
_CHUNK: Final = 250
_MIN_UNITS: Final = 2


def mean_over_defined(scores: FloatArray) -> FloatArray:
    """Mean of each column over its defined (not NaN) units, NaN where there is none.

    Parameters
    ----------
    scores : ndarray of shape (n_units, n_columns)

    Returns
    -------
    ndarray of shape (n_columns,)
    """
    defined = ~np.isnan(scores)
    counts = defined.sum(axis=0)
    sums = np.where(defined, scores, 0.0).sum(axis=0)
    means = np.full(counts.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def bootstrap_intervals(
    scores: FloatArray,
    rng: np.random.Generator,
    *,
    n_draws: int = N_DRAWS,
    coverage: float = COVERAGE,
) -> FloatArray:
    """Percentile interval of each column's mean over resampled units (Efron 1979).

    Parameters
    ----------
    scores : ndarray of shape (n_units, n_columns)
        One row per task (or repeat); NaN where undefined.
    rng : Generator
        Source of the draws.
    n_draws : int
        Number of resamples.
    coverage : float
        Nominal coverage, in (0, 1). With few units (seven tasks, say) a percentile interval is
        somewhat too narrow.

    Returns
    -------
    ndarray of shape (n_columns, 2)
        Lower and upper end; NaN where fewer than two units are defined: the spread of one number
        is unknown.

    Raises
    ------
    UsageError
        ``n_draws`` below 1 or ``coverage`` outside (0, 1).
    """
    if n_draws < 1 or not 0.0 < coverage < 1.0:
        raise UsageError(
            f"the bootstrap needs n_draws >= 1 and 0 < coverage < 1, got {n_draws} and {coverage}"
        )
    n_units, n_columns = scores.shape
    defined = ~np.isnan(scores)
    enough = defined.sum(axis=0) >= _MIN_UNITS
    intervals = np.full((n_columns, 2), np.nan)
    if not enough.any():
        return intervals
    filled = np.where(defined, scores, 0.0)[:, enough]
    weights = defined[:, enough].astype(np.float64)
    means = np.empty((n_draws, int(enough.sum())))
    even = np.full(n_units, 1.0 / n_units)
    for begin in range(0, n_draws, _CHUNK):
        end = min(begin + _CHUNK, n_draws)
        times_drawn = rng.multinomial(n_units, even, size=end - begin).astype(np.float64)
        n_defined = times_drawn @ weights
        # A draw may have undefined units only; it is then left out for that column.
        with np.errstate(invalid="ignore", divide="ignore"):
            means[begin:end] = (times_drawn @ filled) / n_defined
    tail = (1.0 - coverage) / 2.0
    intervals[enough] = np.nanquantile(means, [tail, 1.0 - tail], axis=0).T
    # Equal scores leave rounding noise between the draws; the mean must lie inside.
    centre = mean_over_defined(scores)[enough]
    intervals[enough, 0] = np.fmin(intervals[enough, 0], centre)
    intervals[enough, 1] = np.fmax(intervals[enough, 1], centre)
    return intervals
