"""The process from cards to factors: against scikit-learn, leave one out, planted views."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from recsys_ms.learners.gaussian.card_process import N_LANDMARKS, CardProcess
from recsys_ms.learners.gaussian.process import Evidence, Process
from recsys_ms.learners.gaussian.vectors import median_distance


def planted(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = np.column_stack([np.sin(2 * x[:, 0]), np.cos(x[:, 1])])
    y = y + 0.1 * rng.normal(size=y.shape)
    return x, (y - y.mean(axis=0)) / y.std(axis=0)


def test_predictions_are_those_of_a_gaussian_process_with_the_same_kernel() -> None:
    x, y = planted()
    process = CardProcess.fit({"view": x}, y)
    shares = process.variances
    kernel = ConstantKernel(shares["view"], "fixed") * RBF(median_distance(x), "fixed")
    kernel = kernel + WhiteKernel(shares["noise"], "fixed")
    reference = GaussianProcessRegressor(kernel, optimizer=None).fit(x, y)
    asked = np.random.default_rng(1).normal(size=(10, 2))
    mean, variance = process.predict({"view": asked})
    wanted, sd = reference.predict(asked, return_std=True)
    # Directions of the kernel below a millionth of the largest are left out.
    np.testing.assert_allclose(mean, wanted, atol=5e-3)
    np.testing.assert_allclose(variance, sd[:, 0] ** 2, atol=5e-3)


def test_the_variances_have_the_largest_marginal_likelihood() -> None:
    x, y = planted()
    process = CardProcess.fit({"view": x}, y)

    def likelihood(share: float, noise: float) -> float:
        kernel = ConstantKernel(share, "fixed") * RBF(median_distance(x), "fixed")
        kernel = kernel + WhiteKernel(noise, "fixed")
        fitted = GaussianProcessRegressor(kernel, optimizer=None).fit(x, y)
        return float(fitted.log_marginal_likelihood_value_)

    found = process.variances
    best = likelihood(found["view"], found["noise"])
    for share, noise in ((0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 2.0)):
        assert likelihood(found["view"] * share, found["noise"] * noise) < best + 0.5


def test_leave_one_out_is_a_fit_without_the_row() -> None:
    x, y = planted(20)
    process = CardProcess.fit({"view": x}, y)
    mean, variance = process.predict_left_out({"view": x}, y)
    shares = process.variances
    kernel = ConstantKernel(shares["view"], "fixed") * RBF(median_distance(x), "fixed")
    kernel = kernel + WhiteKernel(shares["noise"], "fixed")
    for row in (0, 7, 19):
        others = np.arange(20) != row
        reference = GaussianProcessRegressor(kernel, optimizer=None).fit(x[others], y[others])
        wanted, sd = reference.predict(x[row : row + 1], return_std=True)
        np.testing.assert_allclose(mean[row], wanted[0], atol=5e-3)
        assert variance[row] == pytest.approx(sd[0, 0] ** 2, abs=5e-3)


def test_a_view_that_says_nothing_gets_no_weight_and_an_unknown_one_is_the_mean() -> None:
    x, y = planted(80)
    noise = np.random.default_rng(5).normal(size=(80, 3))
    process = CardProcess.fit({"told": x, "silent": noise}, y)
    shares = process.variances
    assert shares["told"] > 50 * shares["silent"]
    unknown = {"told": np.full((1, 2), np.nan), "silent": np.full((1, 3), np.nan)}
    mean, variance = process.predict(unknown)
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)
    known = process.predict({"told": x[:1], "silent": noise[:1]})[1]
    assert variance[0] > known[0]


def test_weights_times_targets_are_the_mean() -> None:
    x, y = planted()
    process = CardProcess.fit({"view": x}, y)
    asked = {"view": x[:4] + 0.1}
    mean, _ = process.predict(asked)
    np.testing.assert_allclose(process.weights(asked, {"view": x}) @ y, mean, atol=1e-8)


def test_reduced_rows_tell_as_much_as_all() -> None:
    x, y = planted(200)
    process = CardProcess.fit({"view": x}, y)
    assert len(process._target) < 200
    kernel, logs = process._kernel(), process._logs
    full = process._seen({"view": x})
    likelihoods = [
        Evidence(
            kernel=kernel,
            compared=rows.compare(rows),
            target=target,
            start={"": 0.0},
            n_silent=200 - len(target),
        )(np.array(list(logs.values())))
        for rows, target in ((process._rows, process._target), (full, y))
    ]
    assert likelihoods[0][0] == pytest.approx(likelihoods[1][0], rel=1e-9)
    np.testing.assert_allclose(likelihoods[0][1], likelihoods[1][1], rtol=1e-7, atol=1e-7)
    direct = Process(kernel, logs).condition(full, y)
    asked = process._seen({"view": x[:9] + 0.1})
    np.testing.assert_allclose(process._process.mean(asked), direct.mean(asked), atol=1e-9)
    np.testing.assert_allclose(
        process._process.covariance(asked, full), direct.covariance(asked, full), atol=1e-9
    )


def test_many_rows_are_seen_through_landmarks() -> None:
    x, y = planted(4 * N_LANDMARKS)
    process = CardProcess.fit({"view": x}, y)
    assert process.features({"view": x}).shape[1] <= N_LANDMARKS
    mean, _ = process.predict({"view": x})
    assert np.corrcoef(mean[:, 0], y[:, 0])[0, 1] > 0.95


def test_state_round_trip() -> None:
    x, y = planted(30)
    process = CardProcess.fit({"view": x}, y)
    again = CardProcess.from_state(process.state())
    for first, second in zip(
        process.predict({"view": x[:3]}), again.predict({"view": x[:3]}), strict=True
    ):
        np.testing.assert_array_equal(first, second)
