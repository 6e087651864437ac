"""Probe sets for the tests of scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.float64], NDArray[np.int64]]

#: (n_probe, n_features, n_classes): more, as many, and fewer examples than features.
SHAPES = [(80, 10, 3), (40, 40, 4), (30, 60, 5), (200, 150, 2)]


def clustered(
    n_probe: int, n_features: int, n_classes: int, *, apart: float = 0.5, seed: int = 0
) -> Arrays:
    """Classes of one shape around means that are ``apart`` from each other, off the origin."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_probe) % n_classes)
    centres = apart * rng.normal(size=(n_classes, n_features))
    features = 0.3 * rng.normal(size=(n_probe, n_features)) + centres[labels] + 0.7
    return features, labels


def turned(features: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """The same features in other axes."""
    rng = np.random.default_rng(seed)
    n_features = features.shape[1]
    turn: NDArray[np.float64] = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    return features @ turn


def within(features: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance within classes, by its definition."""
    means = np.array([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    left = features - means[np.unique(labels, return_inverse=True)[1]]
    scatter: NDArray[np.float64] = left.T @ left / labels.size
    return scatter


def assert_inputs_stay(score: Callable[..., float], *arrays: NDArray[np.generic]) -> None:
    """The score is a finite float, and none of its inputs is written to."""
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    found = score(*arrays)
    assert type(found) is float
    assert np.isfinite(found)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
