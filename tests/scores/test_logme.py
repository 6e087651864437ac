"""LogME against the Gaussian evidence, by its definition and at its maximum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_sets import clustered, turned
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores.logme import best_shared_ratio, largest_evidence, logme, logme_regression
from recsys_ms.scores.statistics import ProbeStatistics

#: (n_probe, n_features, rank): above, at and below full column rank.
RANKS = [(60, 20, 20), (30, 30, 30), (20, 50, 20), (60, 20, 7), (20, 50, 5), (100, 512, 100)]


def low_rank(n_probe: int, n_features: int, rank: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_probe, rank)) @ rng.normal(size=(rank, n_features)) / rank**0.5


def evidence(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """The closed form: density of a target whose weights were integrated out."""
    n_probe = target.size
    covariance = np.eye(n_probe) / beta + features @ features.T / alpha
    return float(multivariate_normal.logpdf(target, np.zeros(n_probe), covariance))


@pytest.mark.parametrize(("n_probe", "n_features", "rank"), RANKS)
def test_the_value_is_the_gaussian_evidence(n_probe: int, n_features: int, rank: int) -> None:
    features = low_rank(n_probe, n_features, rank)
    targets = np.random.default_rng(1).normal(size=(n_probe, 3)) + features[:, :3]
    statistics = ProbeStatistics(features)
    found = largest_evidence(
        statistics.eigenvalues,
        np.square(statistics.coordinates(targets)),
        np.square(targets).sum(axis=0),
        n_probe,
    )
    for column in range(3):
        alpha, beta = found.alpha[column], found.beta[column]
        expected = evidence(features, targets[:, column], alpha, beta)
        assert found.value[column] == pytest.approx(expected, abs=1e-6 * n_probe)


@pytest.mark.parametrize(("n_probe", "n_features", "rank"), RANKS[:5])
def test_no_other_precisions_have_a_larger_one(n_probe: int, n_features: int, rank: int) -> None:
    features = low_rank(n_probe, n_features, rank)
    labels = np.random.default_rng(2).integers(0, 3, n_probe)
    best = []
    for label in range(3):
        target = (labels == label).astype(float)

        def loss(at: np.ndarray, target: np.ndarray = target) -> float:
            return -evidence(features, target, *np.exp(np.clip(at, -25, 25)))

        starts = [(0, 0), (3, 3), (10, 3), (-3, 3)]
        best.append(-min(minimize(loss, start, method="Nelder-Mead").fun for start in starts))
    assert logme(features, labels) == pytest.approx(np.mean(best) / n_probe, abs=1e-6)


def test_the_published_code_errs_by_the_null_space() -> None:
    # The default path of the published code sums over all features, with an eigenvalue of 0 and
    # without log alpha where there is none: it differs by (n_features - rank)/2 log alpha.
    n_probe, n_features = 100, 512
    features = low_rank(n_probe, n_features, n_probe)
    target = np.random.default_rng(3).normal(size=n_probe)
    statistics = ProbeStatistics(features)
    energies = np.square(statistics.coordinates(target[:, None]))
    found = largest_evidence(statistics.eigenvalues, energies, [target @ target], n_probe)
    alpha, beta = float(found.alpha[0]), float(found.beta[0])
    precision = alpha * np.eye(n_features) + beta * features.T @ features
    mean = beta * np.linalg.solve(precision, features.T @ target)
    misfit = np.square(features @ mean - target).sum()
    plain = 0.5 * (
        n_probe * np.log(beta / (2 * np.pi))
        - beta * misfit
        - alpha * mean @ mean
        - np.linalg.slogdet(precision)[1]
    )
    assert found.value[0] == pytest.approx(plain + 0.5 * n_features * np.log(alpha), abs=1e-6)
    published = plain + 0.5 * n_probe * np.log(alpha) + 0.5 * (n_features - n_probe) * np.log(alpha)
    assert published == pytest.approx(found.value[0], abs=1e-6)
    without = plain + 0.5 * n_probe * np.log(alpha)
    gap = 0.5 * (n_features - n_probe) * np.log(alpha)
    assert found.value[0] - without == pytest.approx(gap, abs=1e-6)


def test_a_scalar_by_hand() -> None:
    # One feature x = (1, 1), y = (1, 1): XX' has the eigenvalue 2, y lies in its direction, so that
    # E(l) = 2 l / (l + 2) and the evidence is -log(2 pi E) - 1 + log(l / (l + 2)) / 2, up to E's
    # own rounding. With r = l / (l + 2) it is -log(4 pi) - 1 - log(r) / 2, largest as r -> 0: there
    # is not an error at all, and l ends where it is told to.
    found = largest_evidence(np.array([2.0]), np.array([[2.0]]), np.array([2.0]), 2)
    assert np.isfinite(found.value[0])
    assert found.value[0] > 10
    # y = (1, -1) is orthogonal to x: l -> infinity, pure noise of variance 1.
    noise = largest_evidence(np.array([2.0]), np.array([[0.0]]), np.array([2.0]), 2)
    assert noise.value[0] == pytest.approx(-np.log(2 * np.pi) - 1.0, abs=1e-6)


@pytest.mark.parametrize("n_features", [20, 120])
def test_features_of_the_classes_are_worth_more(n_features: int) -> None:
    rng = np.random.default_rng(0)
    scores = []
    for apart in (0.0, 0.2, 0.6):
        features, labels = clustered(80, n_features, 4, apart=apart)
        scores.append(logme(features, labels))
        assert scores[-1] >= logme(features, rng.permutation(labels)) - 0.05
    assert scores == sorted(scores)


def test_missing_classes_do_not_exist() -> None:
    features, labels = clustered(60, 10, 3)
    spread = np.array([4, 17, 1000])[labels]
    assert logme(features, spread) == logme(features, labels)
    assert logme(features, np.array(["a", "b", "c"])[labels]) == logme(features, labels)


def test_regression_of_label_sets_is_that_of_their_columns() -> None:
    features, labels = clustered(60, 10, 3)
    indicators = np.eye(3)[labels]
    assert logme_regression(features, indicators) == pytest.approx(logme(features, labels))
    one = [logme_regression(features, column) for column in indicators.T]
    assert np.mean(one) == pytest.approx(logme(features, labels))
    scaled = logme_regression(features, 10.0 * indicators)
    assert scaled == pytest.approx(logme(features, labels) - np.log(10.0))


def test_float32_is_as_good() -> None:
    features, labels = clustered(300, 40, 5)
    single = features.astype(np.float32)
    assert logme(single, labels) == pytest.approx(logme(single.astype(float), labels), abs=1e-9)
    assert logme(single, labels) == pytest.approx(logme(features, labels), abs=1e-4)


def test_a_perfect_fit_is_large_and_finite() -> None:
    labels = np.arange(60) % 3
    found = logme(np.eye(3)[labels], labels)
    assert 5.0 < found < 60.0


def test_the_shared_strength_is_the_best_of_all() -> None:
    features, labels = clustered(80, 10, 3)
    statistics = ProbeStatistics(features)
    targets = np.eye(3)[labels]
    energies, squares = np.square(statistics.coordinates(targets)), targets.sum(axis=0)
    found = best_shared_ratio(statistics.eigenvalues, energies, squares, 80)

    def total(ratio: float) -> float:
        rest = squares - energies.sum(axis=0)
        shrunk = ratio / (ratio + statistics.eigenvalues)
        misfit = rest + shrunk @ energies
        return float((-40 * np.log(misfit)).sum() + 1.5 * np.log(shrunk).sum())

    for other in found * np.exp([-3.0, -1.0, 1.0, 3.0]):
        assert total(found) > total(other)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(30, 8, 3), (20, 40, 3)]))
def test_rotation_order_and_names_change_nothing(seed: int, shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape, seed=seed)
    expected = logme(features, labels)
    order = np.random.default_rng(seed).permutation(labels.size)
    assert logme(turned(features, seed), labels) == pytest.approx(expected, abs=1e-6)
    assert logme(features[order], labels[order]) == pytest.approx(expected, abs=1e-6)
    assert logme(features, 7 - labels) == pytest.approx(expected, abs=1e-9)
    # A factor goes into the prior's precision.
    assert logme(3.0 * features, labels) == pytest.approx(expected, abs=1e-6)


def test_bad_probe_sets() -> None:
    features, labels = clustered(30, 5, 3)
    with pytest.raises(ProbeSetError, match="same features"):
        logme(np.ones((30, 5)), labels)
    with pytest.raises(ProbeSetError, match="are zero"):
        logme(np.zeros((30, 5)), labels)
    with pytest.raises(ProbeSetError, match="nan"):
        logme(np.where(features > 1, np.nan, features), labels)
    with pytest.raises(ProbeSetError, match="1 class"):
        logme(features, np.zeros(30, dtype=int))
    with pytest.raises(ProbeSetError, match="zero throughout"):
        logme_regression(features, np.zeros(30))
