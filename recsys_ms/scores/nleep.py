"""N-LEEP: LEEP with the components of a Gaussian mixture for source classes."""

import warnings
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import seed_from
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.scores.checks import Features, check_classes, check_features
from recsys_ms.scores.leep import expected_log_likelihood

_COMPONENTS_PER_CLASS: Final = 5
_EXAMPLES_PER_COMPONENT: Final = 5
_MAX_ITERATIONS: Final = 200
#: Gain in mean log-likelihood below which the mixture has converged, nats per example.
_TOLERANCE: Final = 1e-5
#: Added to every variance, in units of the mean variance of the coordinates kept.
_VARIANCE_FLOOR: Final = 1e-6
#: Features that vary less than this, relative to the largest value, vary by rounding only.
_CONSTANT: Final = 1e-13


def nleep(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    n_components: int | None = None,
    energy: float = 0.8,
    rng: RngLike = 0,
) -> float:
    """N-LEEP: LEEP under the posteriors of a Gaussian mixture fitted to the features.

    Follows Li et al. (2021), "Ranking Neural Checkpoints": principal components that keep a share
    ``energy`` of the variance, a Gaussian mixture on them that sees no label, and its posteriors in
    the place of the source classifier's probabilities in LEEP
    (:func:`recsys_ms.scores.leep.leep`).

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        Model outputs on the probe set.
    labels : array-like of shape (n_probe,)
        Target classes, of any names.
    n_components : int or None
        Components of the mixture. ``None`` (default) takes five a class, as the paper does, but no
        more than n_probe / 5, so that a component has five examples to be learned from.
    energy : float
        Share of the variance that the principal components keep, in (0, 1].
    rng : int, Generator or None
        Where the mixture starts. The default 0 answers the same every time.

    Returns
    -------
    float
        Nats per example, in [−H(Y), 0] for the labels' entropy H(Y); higher means easier transfer.

    Raises
    ------
    ProbeSetError
        Wrong shapes, NaN, or labels of fewer than two classes.
    UsageError
        ``n_components`` or ``energy`` out of range.

    Notes
    -----
    Covariances are diagonal in the principal axes: a full matrix has more entries than a component
    has examples. Each variance has 1e-6 of the mean variance added, so scaling the features does
    not change the score. The order of the examples does not either: they are sorted first. A
    mixture that has not converged after 200 steps is used as it is.

    Constant features and fewer than ten examples leave one component, and −H(Y). The score is made
    on the examples the mixture was fitted to, so it rises with ``n_components``: compare scores of
    the same probe set only.
    """
    matrix = check_features(features)
    classes = check_classes(labels, matrix.shape[0])
    if n_components is None:
        wanted = max(
            1,
            min(
                _COMPONENTS_PER_CLASS * classes.n_classes,
                classes.n_probe // _EXAMPLES_PER_COMPONENT,
            ),
        )
    elif isinstance(n_components, int | np.integer) and 1 <= n_components <= classes.n_probe:
        wanted = int(n_components)
    else:
        raise UsageError(
            f"nleep: n_components is {n_components!r}, expected an integer from 1 to the number "
            f"of examples ({classes.n_probe}), or None for five a class"
        )
    if not 0.0 < energy <= 1.0:
        raise UsageError(f"nleep: energy is {energy!r}; it must lie in (0, 1], e.g. 0.8")
    return expected_log_likelihood(_posteriors(matrix, wanted, energy, rng), classes)


def _posteriors(features: Features, n_components: int, energy: float, rng: RngLike) -> FloatArray:
    """Probability of each component for each example, shape (n_probe, n_components)."""
    order = _sorted_rows(features)
    # One thread: k-means sums over threads in the order they finish.
    with threadpool_limits(limits=1):
        coordinates = _coordinates(features[order], energy) if n_components > 1 else None
        if coordinates is None:
            return np.ones((features.shape[0], 1))
        mixture = GaussianMixture(
            n_components,
            covariance_type="diag",
            reg_covar=_VARIANCE_FLOOR,
            tol=_TOLERANCE,
            max_iter=_MAX_ITERATIONS,
            random_state=seed_from(np.random.default_rng(rng)),
        )
        with warnings.catch_warnings():
            # Nothing the caller could do: a mixture short of its optimum is still a mixture.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(coordinates)
        posteriors: FloatArray = np.empty((features.shape[0], n_components))
        posteriors[order] = mixture.predict_proba(coordinates)
    return posteriors


def _sorted_rows(features: Features) -> IntArray:
    """An order of the rows that their numbers alone decide, whatever their precision or scale."""
    n_columns = 1
    while True:
        order: IntArray = np.lexsort(features[:, :n_columns].T[::-1])
        first = features[order, :n_columns]
        if n_columns >= features.shape[1] or not (first[1:] == first[:-1]).all(axis=1).any():
            return order
        n_columns *= 4


def _coordinates(features: Features, energy: float) -> FloatArray | None:
    """Principal components scaled to mean variance 1; None where there is no variance."""
    matrix = features.astype(np.float64)
    largest = float(np.abs(matrix).max())
    # Of an offset that all examples have nothing is left; half of each stays in range.
    matrix = 0.5 * matrix - 0.5 * matrix[0]
    peak = float(np.abs(matrix).max())
    if peak <= _CONSTANT * largest:
        return None
    # Features near the largest number there is would overflow when squared.
    matrix /= peak
    # The exact solver, always: what "auto" picks depends on scikit-learn's version.
    kept = PCA(energy if energy < 1.0 else None, svd_solver="full").fit_transform(matrix)
    scaled: FloatArray = kept / np.sqrt(np.square(kept).mean())
    return scaled
