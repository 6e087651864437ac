"""LFC, H-score, FDA, SFDA, TransRate, GBC and the linear probe against their definitions."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_sets import SHAPES, assert_inputs_stay, clustered, turned, within
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores.class_geometry import geometry_of
from recsys_ms.scores.gbc import gbc
from recsys_ms.scores.h_score import h_score, h_score_shrunk, ledoit_wolf
from recsys_ms.scores.lfc import lfc
from recsys_ms.scores.linear_probe import linear_probe
from recsys_ms.scores.logme import best_shared_ratio
from recsys_ms.scores.sfda import fda, sfda, shrinkage_of
from recsys_ms.scores.statistics import ProbeStatistics
from recsys_ms.scores.transrate import transrate

Score = Callable[..., float]
SCORES: list[Score] = [lfc, h_score, h_score_shrunk, fda, sfda, transrate, gbc, linear_probe]


def means_of(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([features[labels == label].mean(axis=0) for label in np.unique(labels)])


# ------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("shape", SHAPES)
def test_lfc_is_the_alignment_of_kernels(shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape)
    centring = np.eye(labels.size) - 1 / labels.size
    one = centring @ features @ features.T @ centring
    other = centring @ np.where(labels[:, None] == labels, 1.0, -1.0) @ centring
    expected = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
    assert lfc(features, labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_h_scores(shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape)
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / labels.size
    between = means_of(centred, labels)
    counts = np.bincount(labels)
    between = (between * counts[:, None]).T @ between / labels.size
    expected = np.trace(np.linalg.pinv(covariance, rcond=1e-10) @ between)
    assert h_score(features, labels) == pytest.approx(expected, abs=1e-8)
    shrunk, amount = sklearn_ledoit_wolf(features)
    assert ledoit_wolf(ProbeStatistics(features))[0] == pytest.approx(amount, abs=1e-10)
    expected = (1 - amount) * np.trace(np.linalg.solve(shrunk, between))
    assert h_score_shrunk(features, labels) == pytest.approx(expected, abs=1e-9)


def test_h_score_reaches_its_bound_when_features_span_the_examples() -> None:
    features, labels = clustered(30, 60, 5)
    assert h_score(features, np.random.default_rng(0).permutation(labels)) == pytest.approx(4.0)
    assert h_score_shrunk(features, labels) < 4.0


def posteriors(features: np.ndarray, labels: np.ndarray, shrinkage: float) -> np.ndarray:
    """Log posterior of the true class under Gaussians of one regularised covariance."""
    means = means_of(features, labels)
    covariance = (1 - shrinkage) * within(features, labels)
    covariance += shrinkage * np.eye(features.shape[1])
    inverse = np.linalg.inv(covariance)
    logits = features @ inverse @ means.T - 0.5 * np.einsum("cd,de,ce->c", means, inverse, means)
    logits += np.log(np.bincount(labels) / labels.size)
    logits -= logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logs[np.arange(labels.size), labels]


@pytest.mark.parametrize("shape", SHAPES)
def test_fda_and_sfda(shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape, apart=0.1)
    spread = np.linalg.eigvalsh(within(features, labels))[-1]
    shrinkage = float(np.exp(-5.0 * spread))
    assert shrinkage_of(geometry_of(features, labels)) == pytest.approx(shrinkage, rel=1e-5)
    first = posteriors(features, labels, shrinkage)
    assert fda(features, labels) == pytest.approx(first.mean(), abs=1e-7)
    outer = np.array([features[labels != label].mean(axis=0) for label in np.unique(labels)])
    own = np.exp(first)[:, None]
    mixed = own * features + (1 - own) * outer[labels]
    expected = posteriors(mixed, labels, shrinkage).mean()
    assert sfda(features, labels) == pytest.approx(expected, abs=1e-7)


def test_the_discriminant_is_sklearn_s() -> None:
    features, labels = clustered(200, 8, 3, apart=0.2)
    peer = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels)
    geometry = geometry_of(features, labels)
    weights, offsets = geometry.discriminant(1e-10)
    logits = geometry.statistics.apply(weights) + offsets
    np.testing.assert_allclose(
        logits - logits.mean(axis=1, keepdims=True),
        (lambda a: a - a.mean(axis=1, keepdims=True))(peer.decision_function(features)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_transrate_is_a_difference_of_coding_rates(shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape)
    centred = features - features.mean(axis=0)

    def rate(rows: np.ndarray) -> float:
        inner = np.eye(rows.shape[1]) + rows.T @ rows / (rows.shape[0] * 1e-3)
        return 0.5 * float(np.linalg.slogdet(inner)[1])

    parts = [(labels == label).mean() * rate(centred[labels == label]) for label in set(labels)]
    expected = rate(centred) - sum(parts)
    assert transrate(features, labels, distortion=1e-3) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
@pytest.mark.parametrize("shape", [(80, 10, 3), (200, 250, 4), (300, 220, 3)])
def test_gbc_sums_bhattacharyya_coefficients(shape: tuple[int, int, int], covariance: str) -> None:
    features, labels = clustered(*shape, apart=0.03)
    reduced = PCA(min(shape[1], 64)).fit_transform(features)
    means = means_of(reduced, labels)
    variances = np.array([reduced[labels == label].var(axis=0) for label in np.unique(labels)])
    if covariance == "spherical":
        variances[:] = variances.mean(axis=1, keepdims=True)
    expected = 0.0
    for one in range(shape[2]):
        for other in range(shape[2]):
            if one == other:
                continue
            shared = (variances[one] + variances[other]) / 2
            distance = ((means[one] - means[other]) ** 2 / shared).sum() / 8
            distance += 0.5 * np.log(shared / np.sqrt(variances[one] * variances[other])).sum()
            expected -= np.exp(-distance)
    assert gbc(features, labels, covariance=covariance) == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(80, 10, 3), (40, 60, 4), (30, 30, 2)])
def test_the_probe_leaves_each_example_out(shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape, apart=0.1)
    geometry = geometry_of(features, labels)
    ridge = best_shared_ratio(
        geometry.statistics.eigenvalues,
        np.square(geometry.coordinates),
        np.bincount(labels).astype(float),
        labels.size,
    )
    indicators = np.eye(shape[2])[labels]
    n_right = 0
    for row in range(labels.size):
        others = np.arange(labels.size) != row
        mean, share = features[others].mean(axis=0), indicators[others].mean(axis=0)
        centred = features[others] - mean
        weights = np.linalg.solve(
            centred.T @ centred + ridge * np.eye(shape[1]), centred.T @ (indicators[others] - share)
        )
        n_right += int(np.argmax(share + (features[row] - mean) @ weights) == labels[row])
    assert linear_probe(features, labels) == pytest.approx(n_right / labels.size)


# ------------------------------------------------------------------ planted answers


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n_features", [12, 150])
def test_features_that_know_the_classes_score_higher(score: Score, n_features: int) -> None:
    rng = np.random.default_rng(0)
    weak, labels = clustered(120, n_features, 4, apart=0.02)
    strong, _ = clustered(120, n_features, 4, apart=0.3)
    shuffled = rng.permutation(labels)
    if score in (h_score, fda, sfda) and n_features > 120:
        # They look at the examples they were fitted to: at their bound once features span those.
        assert score(strong, labels) >= score(strong, shuffled) - 1e-6
        return
    assert score(strong, labels) > score(weak, labels)
    assert score(strong, labels) > score(strong, shuffled)


def test_perfect_features() -> None:
    labels = np.arange(60) % 3
    features = np.eye(3)[labels]
    assert linear_probe(features, labels) == 1.0
    assert lfc(features, labels) == pytest.approx(1.0)
    assert h_score(features, labels) == pytest.approx(2.0)
    assert gbc(features, labels) == pytest.approx(0.0, abs=1e-6)
    assert fda(features, labels) > -0.7
    assert np.isfinite(sfda(features, labels))


# ------------------------------------------------------------------ properties


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(40, 6, 3), (24, 40, 3)]))
def test_axes_order_and_names_change_nothing(seed: int, shape: tuple[int, int, int]) -> None:
    features, labels = clustered(*shape, apart=0.1, seed=seed)
    order = np.random.default_rng(seed).permutation(labels.size)
    for score in SCORES:
        expected = score(features, labels)
        for other in (
            score(turned(features, seed), labels),
            score(features[order], labels[order]),
            score(features, 9 - 4 * labels),
        ):
            assert other == pytest.approx(expected, rel=1e-5, abs=1e-6), score.__name__


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5.0, 5.0))
def test_a_shift_of_all_examples_changes_none_of_the_centred_scores(
    seed: int, shift: float
) -> None:
    features, labels = clustered(40, 6, 3, apart=0.1, seed=seed)
    for score in (lfc, h_score, h_score_shrunk, fda, sfda, transrate, gbc):
        expected = score(features, labels)
        assert score(features + shift, labels) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_a_factor_changes_none_of_the_scores_without_a_scale(seed: int, factor: float) -> None:
    features, labels = clustered(40, 6, 3, apart=0.1, seed=seed)
    for score in (lfc, h_score, h_score_shrunk, gbc, linear_probe):
        expected = score(features, labels)
        assert score(factor * features, labels) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_bounds(seed: int, apart: float) -> None:
    features, labels = clustered(30, 8, 3, apart=apart, seed=seed)
    assert 0.0 <= lfc(features, labels) <= 1.0
    assert 0.0 <= h_score_shrunk(features, labels) <= h_score(features, labels) + 1e-9 <= 2.0 + 2e-9
    assert fda(features, labels) <= 0.0
    assert sfda(features, labels) <= 0.0
    assert transrate(features, labels) >= -1e-9
    assert -6.0 <= gbc(features, labels) <= 0.0
    assert 0.0 <= linear_probe(features, labels) <= 1.0


# ------------------------------------------------------------------ reference values


def test_values_by_hand() -> None:
    # Two classes at -1 and 1 on a line, each with a spread of 1/2 around them.
    features = np.array([[-1.5], [-0.5], [0.5], [1.5]])
    labels = np.array([0, 0, 1, 1])
    # Variance 5/4, of which 1 is between the classes.
    assert h_score(features, labels) == pytest.approx(1.0 / 1.25)
    # Kernels x x' and +-1 of the halves: <.,.> = (sum of |x|)² = 16, norms 5 and 4.
    assert lfc(features, labels) == pytest.approx(16.0 / (5.0 * 4.0))
    # Two Gaussians of variance 1/4 that are 2 apart: D = 4 / (8/4) = 2, each pair twice.
    assert gbc(features, labels) == pytest.approx(-2.0 * np.exp(-2.0))
    # R = log(1 + 1.25 / e) / 2 for all; both classes have the same second moment.
    expected = 0.5 * (np.log1p(1.25e4) - np.log1p(1.25e4))
    assert transrate(features, labels) == pytest.approx(expected, abs=1e-9)
    # Within variance 1/4: the shrinkage is exp(-5/4), and log-odds of x are 2 x / variance.
    shrinkage = np.exp(-1.25)
    variance = (1 - shrinkage) / 4 + shrinkage
    expected = -np.mean(np.log1p(np.exp(-2.0 * np.abs(features) / variance)))
    assert fda(features, labels) == pytest.approx(expected, abs=1e-9)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("score", SCORES)
def test_what_no_score_can_be_computed_from(score: Score) -> None:
    features, labels = clustered(30, 5, 3)
    with pytest.raises(ProbeSetError, match="same features"):
        score(np.full((30, 5), 2.0), labels)
    with pytest.raises(ProbeSetError, match="1 class"):
        score(features, np.zeros(30, dtype=int))
    with pytest.raises(ProbeSetError, match="inf"):
        score(np.where(features > 1, np.inf, features), labels)
    with pytest.raises(ProbeSetError, match="shape"):
        score(features, labels[:-1])


@pytest.mark.parametrize("score", SCORES)
def test_inputs_are_not_written_to(score: Score) -> None:
    assert_inputs_stay(score, *clustered(30, 5, 3))


@pytest.mark.parametrize("score", SCORES)
def test_degenerate_classes_and_features(score: Score) -> None:
    features, _ = clustered(12, 5, 3)
    one_each = np.arange(12)
    assert np.isfinite(score(features, one_each))
    lonely = np.array([0] * 11 + [1])
    assert np.isfinite(score(features, lonely))
    doubled = np.concatenate([features, features], axis=1)
    assert np.isfinite(score(doubled, np.arange(12) % 3))
    dead = features.copy()
    dead[:, 1:] = 0.0
    assert np.isfinite(score(dead, np.arange(12) % 3))
    huge = features * 1e12
    assert np.isfinite(score(huge, np.arange(12) % 3))
    tiny = features * 1e-12
    assert np.isfinite(score(tiny, np.arange(12) % 3))


def test_invalid_options() -> None:
    features, labels = clustered(30, 5, 3)
    with pytest.raises(ProbeSetError, match="distortion"):
        transrate(features, labels, distortion=0.0)
    with pytest.raises(ProbeSetError, match="n_components"):
        gbc(features, labels, n_components=0)
    with pytest.raises(ProbeSetError, match="covariance"):
        gbc(features, labels, covariance="full")  # type: ignore[arg-type]
