"""Smoothers against their definitions: refits without a row, closed forms, scikit-learn."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from recsys_ms.core.errors import DataError
from recsys_ms.learners.gaussian.smoothers import (
    SMOOTHER_KINDS,
    GaussianProcessSmoother,
    KernelRidgeSmoother,
    MeanSmoother,
    NearestSmoother,
    RidgeSmoother,
    _Spectrum,
    left_out_error,
    make_smoother,
)
from recsys_ms.learners.gaussian.vectors import median_distance


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((15, 6))
    targets = np.tanh(vectors @ rng.standard_normal((6, 3))) + 0.1 * rng.standard_normal((15, 3))
    return vectors, targets


@pytest.mark.parametrize("kind", SMOOTHER_KINDS)
def test_weights_add_up_to_one(kind, data):
    vectors, targets = data
    smoother = make_smoother(kind).fit(vectors, targets, np.eye(3))
    queries = np.random.default_rng(1).standard_normal((4, 6))
    np.testing.assert_allclose(smoother.weights(queries).sum(axis=1), 1.0)
    left_out = smoother.left_out_weights()
    np.testing.assert_allclose(left_out.sum(axis=1), 1.0)
    np.testing.assert_array_equal(np.diag(left_out), 0.0)


@pytest.mark.parametrize("kind", SMOOTHER_KINDS)
def test_a_saved_smoother_answers_the_same(kind, data):
    vectors, targets = data
    smoother = make_smoother(kind).fit(vectors, targets, np.eye(3))
    again = type(smoother).from_state(smoother.state())
    np.testing.assert_array_equal(again.weights(vectors[:3]), smoother.weights(vectors[:3]))


@pytest.mark.parametrize("kind", SMOOTHER_KINDS)
def test_an_answer_does_not_depend_on_the_other_queries(kind, data):
    vectors, targets = data
    smoother = make_smoother(kind).fit(vectors, targets, np.eye(3))
    queries = np.random.default_rng(2).standard_normal((5, 6))
    together = smoother.weights(queries)
    alone = np.vstack([smoother.weights(query[None]) for query in queries])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def fitted(kind, vectors, targets, settings):
    smoother = kind().fit(vectors, targets, np.eye(targets.shape[1]))
    for name, value in settings.items():
        setattr(smoother, f"_{name}", value)
    return smoother


def test_ridge_is_scikit_learns(data):
    vectors, targets = data
    smoother = fitted(RidgeSmoother, vectors, targets, {"penalty": 0.3, "length": 1.0})
    centred = vectors - vectors.mean(axis=0)
    strength = 0.3 * (centred**2).sum() / len(vectors)
    reference = Ridge(alpha=strength).fit(vectors, targets)
    queries = np.random.default_rng(3).standard_normal((4, 6))
    np.testing.assert_allclose(
        smoother.weights(queries) @ targets, reference.predict(queries), atol=1e-10
    )


def test_left_out_ridge_is_a_ridge_without_the_row(data):
    vectors, targets = data
    smoother = fitted(RidgeSmoother, vectors, targets, {"penalty": 0.3, "length": 1.0})
    centred = vectors - vectors.mean(axis=0)
    strength = 0.3 * (centred**2).sum() / len(vectors)
    predicted = smoother.left_out_weights() @ targets
    for row in range(len(vectors)):
        others = np.arange(len(vectors)) != row
        reference = Ridge(alpha=strength).fit(vectors[others], targets[others])
        np.testing.assert_allclose(
            predicted[row], reference.predict(vectors[row : row + 1])[0], atol=1e-9
        )


def test_kernel_ridge_is_scikit_learns_on_a_centred_kernel(data):
    vectors, targets = data
    smoother = fitted(KernelRidgeSmoother, vectors, targets, {"penalty": 0.1, "length": 1.4})
    length = 1.4 * median_distance(vectors)

    def kernel(a, b):
        return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(axis=2) / length**2)

    n = len(vectors)
    centre = np.eye(n) - 1.0 / n
    gram = kernel(vectors, vectors)
    centred = centre @ gram @ centre
    strength = 0.1 * np.trace(centred) / n
    mean = targets.mean(axis=0)
    reference = KernelRidge(alpha=strength, kernel="precomputed").fit(centred, targets - mean)
    queries = np.random.default_rng(3).standard_normal((4, 6))
    cross = (kernel(queries, vectors) - gram.mean(axis=0)) @ centre
    np.testing.assert_allclose(
        smoother.weights(queries) @ targets, reference.predict(cross) + mean, atol=1e-9
    )


def test_nearest_by_hand():
    vectors = np.array([[0.0], [1.0], [3.0]])
    smoother = fitted(NearestSmoother, vectors, np.eye(3), {"width": 0.5})
    # The median of the distances 1, 3 and 2 is 2, so that a width of .5 is a distance of 1.
    raw = np.exp(-0.5 * np.array([0.25, 0.25, 6.25]))
    np.testing.assert_allclose(smoother.weights(np.array([[0.5]]))[0], raw / raw.sum())
    raw = np.exp(-0.5 * np.array([1.0, 9.0]))
    np.testing.assert_allclose(smoother.left_out_weights()[0, 1:], raw / raw.sum())


def test_the_nearest_answers_however_far_it_is():
    vectors = np.array([[0.0], [1.0], [3.0]])
    smoother = fitted(NearestSmoother, vectors, np.eye(3), {"width": 0.1})
    np.testing.assert_allclose(smoother.weights(np.array([[1e6]]))[0], [0.0, 0.0, 1.0])


def test_the_gaussian_process_maximises_the_likelihood_of_scikit_learn(data):
    vectors, targets = data
    target = targets[:, :1]
    smoother = GaussianProcessSmoother().fit(vectors, target, np.eye(1))
    centred = target - target.mean()
    # The kernel is centred, theirs has a free constant: the optima are near, not equal.
    kernel = ConstantKernel(1.0) * RBF(1.0) + ConstantKernel(10.0) + WhiteKernel(0.1)
    reference = GaussianProcessRegressor(kernel, n_restarts_optimizer=5, random_state=0)
    reference.fit(vectors, centred)
    length = smoother._length * median_distance(vectors)
    theirs = reference.kernel_.k1.k1.k2.length_scale
    assert 0.4 < length / theirs < 2.5
    queries = vectors + 0.1
    mine = (smoother.weights(queries) @ centred).ravel()
    assert np.corrcoef(mine, reference.predict(queries).ravel())[0, 1] > 0.97


@pytest.mark.parametrize("kind", ["ridge", "kernel-ridge"])
def test_the_settings_are_the_best_of_all_that_were_tried(kind, data):
    vectors, targets = data
    metric = np.diag([1.0, 4.0, 0.0])
    smoother = make_smoother(kind).fit(vectors, targets, metric)
    best = left_out_error(smoother.left_out_weights(), targets, metric)
    for penalty in np.logspace(-3.0, 3.0, 7):
        for length in smoother.lengths:
            smoother._penalty, smoother._length = float(penalty), length
            assert best <= left_out_error(smoother.left_out_weights(), targets, metric) + 1e-9


@pytest.mark.parametrize("kind", ["ridge", "kernel-ridge", "nearest", "gp"])
def test_vectors_that_say_nothing_give_the_mean(kind):
    rng = np.random.default_rng(5)
    excess = []
    for _ in range(20):
        vectors, targets = rng.standard_normal((30, 8)), rng.standard_normal((30, 2))
        smoother = make_smoother(kind).fit(vectors, targets, np.eye(2))
        mean = MeanSmoother().fit(vectors, targets, np.eye(2))
        queries = rng.standard_normal((50, 8))
        # Both predict 0 at best; the mean is off by 1 / n a target.
        mine, theirs = ((s.weights(queries) @ targets) ** 2 for s in (smoother, mean))
        excess.append(float((mine - theirs).mean()))
    assert np.mean(excess) < 0.15


@pytest.mark.parametrize("kind", ["ridge", "kernel-ridge", "nearest", "gp"])
def test_vectors_that_say_something_beat_the_mean(kind, data):
    vectors, targets = data
    smoother = make_smoother(kind).fit(vectors, targets, np.eye(3))
    mean = MeanSmoother().fit(vectors, targets, np.eye(3))
    errors = [left_out_error(s.left_out_weights(), targets, np.eye(3)) for s in (smoother, mean)]
    assert errors[0] < 0.8 * errors[1]


def test_equal_vectors_are_no_error(data):
    targets = data[1]
    vectors = np.ones((15, 4))
    for kind in SMOOTHER_KINDS:
        smoother = make_smoother(kind).fit(vectors, targets, np.eye(3))
        np.testing.assert_allclose(smoother.weights(np.ones((1, 4))), 1.0 / 15, atol=1e-6)


def test_one_row_is_too_few():
    with pytest.raises(DataError, match="at least two"):
        RidgeSmoother().fit(np.ones((1, 2)), np.ones((1, 1)), np.eye(1))


@pytest.mark.parametrize("kind", SMOOTHER_KINDS)
def test_a_second_fit_forgets_what_was_worked_out_of_the_first(kind, data):
    vectors, targets = data
    twice = make_smoother(kind).fit(10.0 * vectors[::-1], targets, np.eye(3))
    twice.left_out_weights()
    twice.fit(vectors, targets, np.eye(3))
    once = make_smoother(kind).fit(vectors, targets, np.eye(3))
    assert twice.state().values == once.state().values
    np.testing.assert_array_equal(twice.left_out_weights(), once.left_out_weights())


def test_all_penalties_at_once_are_each_alone(data):
    vectors, targets = data
    centred = targets - targets.mean(axis=0)
    spectrum = _Spectrum(vectors @ vectors.T, centred)
    penalties = np.array([1e-3, 0.5, 40.0])
    for method in (spectrum.left_out_errors, spectrum.unlikelihoods):
        alone = [method(penalties[i : i + 1])[0] for i in range(3)]
        # Sums of a few dozen numbers, added up in another order.
        np.testing.assert_allclose(method(penalties), alone, rtol=1e-12)
