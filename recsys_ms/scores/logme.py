"""LogME: the evidence of a Bayesian linear model of the labels."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import Classes, check_classes, check_targets
from recsys_ms.scores.statistics import ProbeStatistics, refuse_constant, statistics_of

_EPSILON: Final = float(np.finfo(np.float64).eps)
#: Noise over prior precision that is searched, in units of the largest eigenvalue.
_LOG_RANGE: Final = (-32.0, 23.0)
_N_GRID: Final = 56
_N_NEWTON: Final = 40
#: Of ``log l``; the evidence is flat there, so that its error is the square of it.
_TOLERANCE: Final = 1e-7


class Evidence(NamedTuple):
    """Largest log evidence of each target in nats, of all examples together, and where it is.

    ``alpha`` and ``beta`` are the precisions of the weights' prior and of the noise.
    """

    value: FloatArray
    alpha: FloatArray
    beta: FloatArray


def logme(features: ArrayLike | ProbeStatistics, labels: ArrayLike) -> float:
    """LogME for classes: mean log evidence of the one-vs-rest indicators, per example.

    You et al. (2021), Eq. 4 and Algorithm 1. For a target ``y`` the model is
    ``y = X w + noise`` with ``w ~ N(0, 1/alpha)`` and noise of precision ``beta``; its evidence is
    the density of ``N(0, I/beta + XX'/alpha)`` at ``y``, maximised over both. See
    :func:`largest_evidence` for how; it holds for any rank of the features.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features) or ProbeStatistics
        As the paper has them, neither centred nor scaled.
    labels : array-like of shape (n_probe,)
        Integers or texts; classes that no example has do not exist.

    Returns
    -------
    float
        Nats per example; higher is better.

    Raises
    ------
    ProbeSetError
        Bad features or labels, or features that are the same for every example.
    """
    statistics = statistics_of(features)
    return logme_of_classes(statistics, check_classes(labels, statistics.n_probe))


def logme_regression(features: ArrayLike | ProbeStatistics, targets: ArrayLike) -> float:
    """LogME for numbers or label sets: mean log evidence of the columns, per example.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features) or ProbeStatistics
        As for :func:`logme`.
    targets : array-like of shape (n_probe,) or (n_probe, n_targets)
        Numbers, or zeros and ones for label sets. Scaling a target by ``s`` lowers the score by
        ``log s``: compare models on the same targets only.

    Returns
    -------
    float
        Nats per example; higher is better.

    Raises
    ------
    ProbeSetError
        As for :func:`logme`, or a target that is zero throughout.
    """
    statistics = statistics_of(features)
    matrix = check_targets(targets, statistics.n_probe).copy()
    peaks = np.abs(matrix).max(axis=0)
    if not peaks.all():
        raise ProbeSetError("labels: a column is zero throughout, so its evidence is unbounded")
    # The density of s·y is that of y over s an example: squares stay in range for any unit.
    matrix /= peaks
    squares = np.square(matrix).sum(axis=0)
    evidence = _mean_evidence(statistics, statistics.coordinates(matrix), squares)
    return evidence - float(np.log(peaks).mean())


def logme_of_classes(statistics: ProbeStatistics, classes: Classes) -> float:
    """:func:`logme` of a probe set that was decomposed and checked."""
    coordinates = statistics.coordinates(classes)
    return _mean_evidence(statistics, coordinates, classes.counts.astype(np.float64))


def _mean_evidence(
    statistics: ProbeStatistics, coordinates: FloatArray, squares: FloatArray
) -> float:
    refuse_constant(statistics)
    statistics.refuse_offset()
    found = largest_evidence(
        statistics.eigenvalues, np.square(coordinates), squares, statistics.n_probe
    )
    return float(found.value.mean() / statistics.n_probe)


def largest_evidence(
    eigenvalues: FloatArray, energies: FloatArray, squares: FloatArray, n_probe: int
) -> Evidence:
    """Maximise the log evidence of targets over both precisions.

    With ``s`` the nonzero eigenvalues of ``XX'`` (``eigenvalues``, ascending), ``a`` the squared
    coordinates ``(U'y)²`` (``energies``, of shape (rank, n_targets)), ``y'y`` (``squares``) and
    ``l = alpha / beta``, the evidence at the best ``beta = n / E(l)`` is

        ``n/2 log(n / (2 pi E(l))) - n/2 + 1/2 sum_j log(l / (l + s_j))``,
        ``E(l) = y'y - sum_j a_j + sum_j a_j l / (l + s_j)``,

    a function of one number. Directions that the features do not span drop out: the published
    code, which sums over them with ``s = 0`` and without ``log alpha``, errs by
    ``(n_features - rank)/2 log alpha``. The maximum is bracketed on a grid and found by Newton's
    method on ``log l``. Where the features fit a target without any error, ``l`` and ``E`` end at
    the precision of float64, so that the evidence is large and finite.
    """
    scale = float(eigenvalues[-1])
    relative = eigenvalues / scale
    outside = _outside_energy(energies, squares, n_probe)
    grid = np.linspace(*_LOG_RANGE, _N_GRID)
    best = _on_grid(relative, energies, outside, n_probe, grid).argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, _N_GRID - 1)]
    at = grid[best]
    for _ in range(_N_NEWTON):
        slope, curvature = _derivatives(relative, energies, outside, n_probe, at)
        low, high = np.where(slope > 0, at, low), np.where(slope > 0, high, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = at - slope / curvature
        inside = (curvature < 0) & (step > low) & (step < high)
        following = np.where(inside, step, 0.5 * (low + high))
        moved = np.abs(following - at).max()
        at = following
        if moved < _TOLERANCE:
            break
    ratio = np.exp(at)
    shrunk = ratio / (ratio + relative[:, None])
    misfit = outside + (energies * shrunk).sum(axis=0)
    beta = n_probe / misfit
    value = 0.5 * n_probe * (np.log(beta / (2.0 * np.pi)) - 1.0) + 0.5 * np.log(shrunk).sum(axis=0)
    return Evidence(value=value, alpha=ratio * scale * beta, beta=beta)


def best_shared_ratio(
    eigenvalues: FloatArray, energies: FloatArray, squares: FloatArray, n_probe: int
) -> float:
    """``alpha / beta`` at which the evidence of all targets together is largest, on a grid.

    The strength of a ridge regression that all targets share.
    """
    grid = np.linspace(*_LOG_RANGE, _N_GRID)
    outside = _outside_energy(energies, squares, n_probe)
    relative = eigenvalues / eigenvalues[-1]
    total = _on_grid(relative, energies, outside, n_probe, grid).sum(axis=1)
    return float(np.exp(grid[total.argmax()]) * eigenvalues[-1])


def _outside_energy(energies: FloatArray, squares: FloatArray, n_probe: int) -> FloatArray:
    """Squared length of the part of each target that the features cannot fit."""
    if energies.shape[0] >= n_probe:
        return np.zeros_like(squares)
    # A difference of nearly equal numbers is known to the last bits of the larger one.
    outside: FloatArray = squares - energies.sum(axis=0)
    np.maximum(outside, 4 * _EPSILON * squares, out=outside)
    return outside


def _on_grid(
    relative: FloatArray, energies: FloatArray, outside: FloatArray, n_probe: int, grid: FloatArray
) -> FloatArray:
    """Evidence up to a constant, of shape (n_grid, n_targets)."""
    ratios = np.exp(grid)[:, None]
    shrunk = ratios / (ratios + relative)
    misfit = outside + shrunk @ energies
    values: FloatArray = -0.5 * n_probe * np.log(misfit)
    values += 0.5 * np.log(shrunk).sum(axis=1)[:, None]
    return values


def _derivatives(
    relative: FloatArray, energies: FloatArray, outside: FloatArray, n_probe: int, at: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """First and second derivative of the evidence by ``log l``, of each target."""
    shrunk = relative[:, None] * np.exp(-at)
    shrunk += 1.0
    np.reciprocal(shrunk, out=shrunk)
    # Sums of s, s(1 - s) and s(1 - s)(1 - 2s) come from powers of s.
    weighted = energies * shrunk
    one = weighted.sum(axis=0)
    two = _dots(weighted, shrunk)
    weighted *= shrunk
    three = _dots(weighted, shrunk)
    plain, square = shrunk.sum(axis=0), _dots(shrunk, shrunk)
    misfit = outside + one
    first = (one - two) / misfit
    second = (one - 3.0 * two + 2.0 * three) / misfit
    slope: FloatArray = -0.5 * n_probe * first + 0.5 * (relative.size - plain)
    curvature: FloatArray = -0.5 * n_probe * (second - first**2) - 0.5 * (plain - square)
    return slope, curvature


def _dots(left: FloatArray, right: FloatArray) -> FloatArray:
    """Inner products of columns, without a matrix of products."""
    dots: FloatArray = np.einsum("jk,jk->k", left, right)
    return dots
