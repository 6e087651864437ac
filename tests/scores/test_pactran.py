"""PACTran's bounds against dense Hessians, enumerated evidence and hand-made numbers."""

import inspect
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_sets import assert_inputs_stay
from scipy.optimize import minimize_scalar
from scipy.special import digamma, gammaln
from sklearn.linear_model import LogisticRegression

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.scores.checks import check_classes
from recsys_ms.scores.pactran import logistic_optimum, pactran_dirichlet, pactran_gaussian

#: The search for weights ends 1e-12 of the objective above its minimum, which moves the weights,
#: and with them the trace, by some 1e-6 of themselves.
SEARCH = 2e-5
#: Sums of a few dozen terms.
ROUNDING = 1e-12


def entropy(labels):
    n = len(labels)
    return -sum(c / n * math.log(c / n) for c in Counter(np.asarray(labels).tolist()).values())


def blobs(n_probe=60, n_features=4, n_classes=3, gap=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_probe) % n_classes)
    means = gap * rng.normal(size=(n_classes, n_features))
    return means[labels] + rng.normal(size=(n_probe, n_features)), labels


def softmax_of(features, weights, intercepts):
    logits = features @ weights + intercepts
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def dense_hessian(features, probs):
    """Second derivatives of the mean cross-entropy, entry by entry, (feature, class) pairs."""
    n_probe, n_features = features.shape
    n_classes = probs.shape[1]
    hessian = np.zeros((n_features, n_classes, n_features, n_classes))
    for i in range(n_probe):
        for d, k, e, m in np.ndindex(hessian.shape):
            second = probs[i, k] * ((k == m) - probs[i, m])
            hessian[d, k, e, m] += features[i, d] * features[i, e] * second / n_probe
    return hessian.reshape(n_features * n_classes, -1)


def aligned(n_probe=60, n_classes=3, seed=0, confidence=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_probe) % n_classes)
    logits = rng.normal(size=(n_probe, n_classes + 2))
    logits[np.arange(n_probe), labels] += confidence
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


SHAPES = [(40, 5), (12, 12), (9, 20)]


# Gaussian, closed form


@pytest.mark.parametrize(("n_probe", "n_features"), SHAPES)
@pytest.mark.parametrize("decay", [1e-3, 0.1, 10.0])
def test_the_gradient_at_the_optimum_is_zero(n_probe, n_features, decay):
    features, labels = blobs(n_probe, n_features)
    optimum = logistic_optimum(features, check_classes(labels, n_probe), weight_decay=decay)
    centered = features - features.mean(axis=0)
    errors = softmax_of(centered, optimum.weights, optimum.intercepts) - np.eye(3)[labels]
    gradient = centered.T @ errors / n_probe + decay * optimum.weights
    # In units of its two parts, which cancel.
    assert np.abs(gradient).max() < SEARCH * np.abs(decay * optimum.weights).max()
    assert np.abs(errors.mean(axis=0)).max() < 1e-5
    loss = -np.log((errors + np.eye(3)[labels])[np.arange(n_probe), labels]).mean()
    assert optimum.cross_entropy == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize(("n_probe", "n_features"), SHAPES)
@pytest.mark.parametrize("decay", [1e-2, 0.3])
def test_the_optimum_equals_scikit_learn(n_probe, n_features, decay):
    features, labels = blobs(n_probe, n_features)
    optimum = logistic_optimum(features, check_classes(labels, n_probe), weight_decay=decay)
    reference = LogisticRegression(C=1 / (n_probe * decay), solver="newton-cg", tol=1e-12)
    reference.fit(features - features.mean(axis=0), labels)
    np.testing.assert_allclose(optimum.weights, reference.coef_.T, atol=1e-4)
    shift = optimum.intercepts - reference.intercept_
    np.testing.assert_allclose(shift, shift[0], atol=1e-4)  # softmax ignores a common shift


@pytest.mark.parametrize(("n_probe", "n_features"), SHAPES)
@pytest.mark.parametrize(("variance", "decay"), [(None, None), (2.0, 0.05), (0.01, 1.0)])
def test_the_bound_equals_its_formula_with_a_dense_hessian(n_probe, n_features, variance, decay):
    features, labels = blobs(n_probe, n_features)
    score = pactran_gaussian(features, labels, prior_variance=variance, weight_decay=decay)
    variance, decay = variance or 1 / n_features, decay or 1 / n_probe
    features = features - features.mean(axis=0)
    reference = LogisticRegression(C=1 / (n_probe * decay), solver="newton-cg", tol=1e-12)
    reference.fit(features, labels)
    weights = reference.coef_.T
    probs = softmax_of(features, weights, reference.intercept_)
    hessian = dense_hessian(features, probs)
    loss = -np.log(probs[np.arange(n_probe), labels]).mean()

    def bound(log_posterior_variance):
        # Expected loss to second order and the divergence of two Gaussians, term by term.
        posterior = math.exp(log_posterior_variance)
        expected = loss + 0.5 * np.trace(posterior * np.eye(len(hessian)) @ hessian)
        divergence = 0.5 * (
            len(hessian) * (posterior / variance - 1.0 + math.log(variance / posterior))
            + (weights**2).sum() / variance
        )
        return expected + divergence * decay * variance

    smallest = minimize_scalar(bound, bounds=(-40, 10), method="bounded", options={"xatol": 1e-9})
    assert score == pytest.approx(-smallest.fun, rel=1e-6)


def test_the_trace_equals_finite_differences_of_the_loss():
    features, labels = blobs(15, 3)
    optimum = logistic_optimum(features, check_classes(labels, 15), weight_decay=0.1)
    centered = features - features.mean(axis=0)

    def loss(weights):
        probs = softmax_of(centered, weights, optimum.intercepts)
        return -np.log(probs[np.arange(15), labels]).mean()

    trace, step = 0.0, 1e-4
    for entry in np.ndindex(optimum.weights.shape):
        move = np.zeros_like(optimum.weights)
        move[entry] = step
        here = optimum.weights
        trace += (loss(here + move) - 2 * loss(here) + loss(here - move)) / step**2
    assert optimum.trace == pytest.approx(trace, rel=1e-6)  # what differences over 1e-4 resolve


# Gaussian, planted answer


def test_separable_features_beat_shuffled_labels():
    features, labels = blobs(gap=2.0)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert pactran_gaussian(features, labels) > pactran_gaussian(features, shuffled) + 0.3


def test_wider_gaps_between_classes_score_higher():
    scores = [pactran_gaussian(*blobs(gap=gap)) for gap in (0.0, 1.0, 2.0, 6.0)]
    assert scores == sorted(scores)


def test_of_two_models_that_fit_all_labels_the_one_with_the_margin_scores_higher():
    # Twenty examples in fifty dimensions are separable whatever their labels.
    features, labels = blobs(20, 50, 2, gap=0.0)
    informed = features.copy()
    informed[:, 0] = 6.0 * labels
    assert pactran_gaussian(informed, labels) > pactran_gaussian(features, labels)


# Gaussian, properties


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(6, 30),
    st.integers(1, 12),
    st.integers(2, 4),
    st.sampled_from([0.1, 1.0, 30.0]),
)
def test_order_names_offsets_and_rotations_do_not_matter(
    seed, n_probe, n_features, n_classes, scale
):
    rng = np.random.default_rng(seed)
    features, labels = blobs(n_probe, n_features, n_classes, gap=1.0, seed=seed)
    features = scale * features
    score = pactran_gaussian(features, labels)
    assert score <= 0.0
    order = rng.permutation(n_probe)
    names = np.array([f"class {name}" for name in rng.permutation(n_classes) * 3])
    turn = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    same = pytest.approx(score, rel=SEARCH, abs=1e-8)
    assert pactran_gaussian(features[order], labels[order]) == same
    assert pactran_gaussian(features, names[labels]) == same
    assert pactran_gaussian(features @ turn, labels) == same
    assert pactran_gaussian(features + scale * rng.normal(size=n_features), labels) == same


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-3, 0.1, 1.0]))
def test_scaling_features_equals_scaling_the_prior(seed, decay):
    # Weights of twice the features are half as large: 4 times the decay, a quarter the variance.
    features, labels = blobs(20, 4, seed=seed)
    plain = pactran_gaussian(features, labels, prior_variance=0.5, weight_decay=decay)
    scaled = pactran_gaussian(2 * features, labels, prior_variance=0.125, weight_decay=4 * decay)
    assert scaled == pytest.approx(plain, rel=SEARCH)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_larger_prior_variance_never_raises_the_score(seed):
    # At a fixed decay the optimum stays, and flatness counts for more.
    features, labels = blobs(20, 4, seed=seed)
    scores = [pactran_gaussian(features, labels, prior_variance=v) for v in (0.01, 0.1, 1.0)]
    assert scores == sorted(scores, reverse=True)


# Gaussian, reference values


def test_two_examples_by_hand():
    # Features ±1 of two classes: by symmetry W = (−w, w), intercepts 0 and p = 1 / (1 + e^{−2w}).
    # The gradient is zero where decay · w · (1 + e^{2w}) = 1; take e^{2w} = 3, so w = log(3) / 2,
    # p = 3/4 and decay = 1 / (2 log 3) = 0.4551196. Then
    #   cross-entropy  log(4/3)                                    = 0.2876821
    #   penalty        decay / 2 · 2 w² = log(3) / 8               = 0.1373265
    #   trace          1 · 2 · 3/4 · 1/4                           = 0.375
    #   flatness       2 · decay / 2 · log(1 + 0.375 / (2 decay))  = 0.1570129
    # for prior variance 1, in sum 0.5820216.
    log3 = math.log(3)
    score = pactran_gaussian(
        [[-1.0], [1.0]], [0, 1], prior_variance=1.0, weight_decay=1 / (2 * log3)
    )
    expected = math.log(4 / 3) + log3 / 8 + math.log1p(0.375 * log3) / (2 * log3)
    assert expected == pytest.approx(0.5820216, abs=1e-7)
    assert score == pytest.approx(-expected, abs=1e-8)


# Gaussian, options, degenerate and bad input


def test_gaussian_defaults_are_the_documented_ones():
    features, labels = blobs(30, 5)
    explicit = pactran_gaussian(features, labels, prior_variance=1 / 5, weight_decay=1 / 30)
    assert pactran_gaussian(features, labels) == explicit


@pytest.mark.parametrize("name", ["prior_variance", "weight_decay"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_invalid_gaussian_options_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} is"):
        pactran_gaussian(*blobs(), **{name: value})


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5, 1e20 / 3])
def test_constant_features_give_minus_the_entropy(value):
    labels = np.array([0] * 11 + [1] * 5 + [2])
    assert pactran_gaussian(np.full((17, 5), value), labels) == pytest.approx(
        -entropy(labels),
        rel=1e-11,  # the search ends at 1e-12
    )


def test_a_constant_feature_counts_as_a_zero_however_large():
    features, labels = blobs(17, 3)
    zero, large = (np.column_stack([features, np.full(17, value)]) for value in (0.0, 1e20 / 3))
    assert pactran_gaussian(large, labels) == pytest.approx(
        pactran_gaussian(zero, labels), rel=SEARCH
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-9])
def test_vanishing_features_give_minus_the_entropy(scale):
    features, labels = blobs(17, 3)
    assert pactran_gaussian(scale * features, labels) == pytest.approx(-entropy(labels), abs=1e-7)


@pytest.mark.parametrize("n_features", [1, 3, 40])
def test_one_example_a_class(n_features):
    features = np.random.default_rng(0).normal(size=(8, n_features))
    score = pactran_gaussian(features, np.arange(8))
    assert math.isfinite(score)
    assert score < -1e-3


def test_a_dependent_column_takes_part_as_its_direction():
    features, labels = blobs(20, 3)
    doubled = np.hstack([features, features])
    turned = np.hstack([math.sqrt(2) * features, np.zeros_like(features)])
    assert pactran_gaussian(doubled, labels) == pytest.approx(
        pactran_gaussian(turned, labels), rel=SEARCH
    )


def test_separable_classes_on_a_large_scale_keep_their_digits():
    # The optimum is 1e-11: sums of 1 − p with p next to 1 would have lost it.
    features, labels = blobs(60, 40, gap=2.0)
    optimum = logistic_optimum(1e5 * features, check_classes(labels, 60), weight_decay=1 / 60)
    assert 0.0 < optimum.cross_entropy < 1e-9
    centered = 1e5 * (features - features.mean(axis=0))
    # At the optimum W = −Xᵀ(P − Y) / (n · decay), so ⟨W, Xᵀ(P − Y)⟩ is minus decay · n · ‖W‖².
    logits = centered @ optimum.weights + optimum.intercepts
    margins = logits - logits[np.arange(60), labels][:, None]
    errors = np.exp(margins)
    errors[np.arange(60), labels] = 0.0
    errors[np.arange(60), labels] = -errors.sum(axis=1)  # P − Y to first order, which is enough
    np.testing.assert_allclose(
        -centered.T @ errors, optimum.weights, atol=1e-3 * np.abs(optimum.weights).max()
    )


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (1e200 * np.random.default_rng(0).normal(size=(30, 2)), "too large"),
        (1e14 * np.random.default_rng(0).normal(size=(300, 2)), "did not converge"),
    ],
)
def test_features_no_regression_can_be_solved_for_are_refused(features, message):
    with pytest.raises(ProbeSetError, match=message):
        pactran_gaussian(features, np.arange(len(features)) % 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": 1e-320}, "did not converge"),
        ({"weight_decay": 10.0, "prior_variance": 1e308}, "the bound is inf"),
    ],
)
def test_options_without_a_finite_bound_are_refused(options, message):
    with pytest.raises(ProbeSetError, match=message):
        pactran_gaussian(*blobs(), **options)


# Dirichlet, closed form


def log_beta(parameters):
    return sum(gammaln(p) for p in parameters) - gammaln(sum(parameters))


def exact_evidence(probs, labels, alpha):
    """log ∫ Π_i Σ_z V θ dPrior(V): a sum over every assignment of examples to source classes."""
    n_probe, n_source = probs.shape
    n_classes = labels.max() + 1
    prior = alpha * np.bincount(labels) / n_probe
    total = 0.0
    for assigned in itertools.product(range(n_source), repeat=n_probe):
        counts = np.zeros((n_source, n_classes))
        for label, z in zip(labels, assigned, strict=True):
            counts[z, label] += 1
        chance = math.prod(probs[i, z] for i, z in enumerate(assigned))
        logs = sum(log_beta(prior + row) - log_beta(prior) for row in counts)
        total += chance * math.exp(logs)
    return math.log(total)


def bound_by_loops(probs, labels, alpha, steps):
    n_probe, n_source = probs.shape
    prior = alpha * np.bincount(labels) / n_probe
    shares = probs.copy()
    for step in range(steps + 1):
        counts = np.zeros((n_source, prior.size))
        for i, label in enumerate(labels):
            counts[:, label] += shares[i]
        total = sum(log_beta(prior + row) - log_beta(prior) for row in counts)
        for q, p in zip(shares.flat, probs.flat, strict=True):
            total += q * math.log(p / q) if q > 0 else 0.0
        if step == steps:
            return total / n_probe
        for i, label in enumerate(labels):
            for z in range(n_source):
                expected = digamma(prior[label] + counts[z, label])
                expected -= digamma(sum(prior + counts[z]))
                shares[i, z] = probs[i, z] * math.exp(expected)
            shares[i] /= shares[i].sum()
    return None


@pytest.mark.parametrize("alpha", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_the_variational_bound_equals_plain_loops(alpha, confidence):
    probs, labels = aligned(15, confidence=confidence)
    expected = bound_by_loops(probs, labels, alpha, steps=3000)
    # Steps end when one gains 1e-10; many such gains may have been left.
    assert pactran_dirichlet(probs, labels, alpha=alpha) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 3), st.sampled_from([0.2, 1.0, 5.0])
)
def test_it_bounds_the_exact_evidence(seed, n_probe, n_source, alpha):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(n_source), size=n_probe)
    labels = np.append([0, 1], rng.integers(0, 2, n_probe - 2))
    exact = exact_evidence(probs, labels, alpha) / n_probe
    assert pactran_dirichlet(probs, labels, alpha=alpha) <= exact + ROUNDING
    certain = np.eye(n_source)[probs.argmax(axis=1)]
    exact = exact_evidence(certain, labels, alpha) / n_probe
    assert pactran_dirichlet(certain, labels, alpha=alpha) == pytest.approx(exact, abs=1e-11)


def test_every_step_lowers_the_bound():
    probs, labels = aligned(20, confidence=1.0)
    values = [bound_by_loops(probs, labels, 1.0, steps) for steps in range(6)]
    assert values == sorted(values)
    assert pactran_dirichlet(probs, labels) > values[-1]


# Dirichlet, planted answer


def test_aligned_source_classes_beat_shuffled_labels():
    probs, labels = aligned()
    shuffled = np.random.default_rng(1).permutation(labels)
    assert pactran_dirichlet(probs, labels) > pactran_dirichlet(probs, shuffled) + 0.2


def test_a_source_class_for_each_example_does_not_look_perfect():
    # LEEP and NCE are 0 in both cases; here the eight classes are charged for.
    labels = np.repeat([0, 1], 4)
    assert pactran_dirichlet(np.eye(8), labels) < pactran_dirichlet(np.eye(2)[labels], labels) - 0.3


# Dirichlet, properties


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 30), st.integers(1, 6), st.integers(2, 4))
def test_order_names_and_unused_source_classes_do_not_matter(seed, n_probe, n_source, n_classes):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_source, 0.5), size=n_probe)
    labels = rng.permutation(np.arange(n_probe) % n_classes)
    score = pactran_dirichlet(probs, labels)
    assert score <= 0.0
    order = rng.permutation(n_probe)
    names = np.array([f"class {name}" for name in rng.permutation(n_classes) * 3])
    # Rounding may end the steps one earlier or later, which is worth 1e-10.
    same = pytest.approx(score, abs=1e-9)
    assert pactran_dirichlet(probs[order], labels[order]) == same
    assert pactran_dirichlet(probs, names[labels]) == same
    assert pactran_dirichlet(probs[:, rng.permutation(n_source)], labels) == same
    assert pactran_dirichlet(np.hstack([probs, np.zeros((n_probe, 3))]), labels) == same


# Dirichlet, reference values


def test_two_examples_and_one_source_class_by_hand():
    # Prior (1, 1): the first label has chance 1/2, the second, the other class, 1/3.
    score = pactran_dirichlet([[1.0], [1.0]], ["cat", "dog"], alpha=2.0)
    assert score == pytest.approx(math.log(1 / 6) / 2, rel=1e-13)


def test_two_aligned_source_classes_by_hand():
    # Prior (1, 1) in each: a class seen twice has chance 1/2 · 2/3 = 1/3, and there are two.
    labels = [0, 0, 1, 1]
    score = pactran_dirichlet(np.eye(2)[labels], labels, alpha=2.0)
    assert score == pytest.approx(math.log(1 / 9) / 4, rel=1e-13)


# Dirichlet, options and degenerate input


def test_the_dirichlet_default_is_the_documented_one():
    assert inspect.signature(pactran_dirichlet).parameters["alpha"].default == 1.0


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf, 1e-10, 1e7])
def test_invalid_alpha_is_refused(alpha):
    with pytest.raises(UsageError, match="alpha is"):
        pactran_dirichlet(*aligned(), alpha=alpha)


@pytest.mark.parametrize("alpha", [1e-9, 1e-3, 1e6])
def test_extreme_priors_stay_finite(alpha):
    assert math.isfinite(pactran_dirichlet(*aligned(), alpha=alpha))


def test_a_probability_next_to_nothing_stays_finite():
    # Where the prior is weak, the second example is worth its improbable source class.
    probs = np.array([[1.0, 1e-320], [1e-320, 1.0], [1e-320, 1.0], [0.0, 1.0]])
    assert -1e3 < pactran_dirichlet(probs, [0, 0, 0, 1], alpha=1e-9) < 0.0


def test_a_strong_prior_is_the_entropy_of_the_labels():
    # Columns V are then the labels' shares, whatever the source classes.
    probs, labels = aligned()
    score = pactran_dirichlet(probs, labels, alpha=1e6)
    assert score == pytest.approx(-entropy(labels), abs=1e-4)


def test_one_example_a_class_is_finite():
    assert -10.0 < pactran_dirichlet(np.eye(6), np.arange(6)) < -1.0


# Both


@pytest.mark.parametrize(
    ("score", "probe_set"), [(pactran_gaussian, blobs()), (pactran_dirichlet, aligned())]
)
def test_inputs_are_left_alone_and_the_answer_is_a_float(score, probe_set):
    given_, labels = probe_set
    assert_inputs_stay(score, given_, labels)
    assert score(given_, labels) == score(given_, labels)
    half = score(given_.astype(np.float32), labels)
    assert half == pytest.approx(score(given_, labels), rel=1e-5)


@pytest.mark.parametrize("score", [pactran_gaussian, pactran_dirichlet])
@pytest.mark.parametrize(
    ("given_", "labels", "message"),
    [
        (np.full((3, 2), 0.5), [0, 1], "labels: got shape"),
        (np.full((3, 2), 0.5), [1, 1, 1], "expected at least 2"),
        (np.array([[np.nan, 0.5]] * 3), [0, 1, 1], "finite"),
        (np.full(3, 0.5), [0, 1, 1], "expected .n_probe, n_features."),
        (np.full((3, 2), 0.5), [0.5, 1, 1], "fractions"),
    ],
)
def test_bad_input_is_refused_with_a_reason(score, given_, labels, message):
    with pytest.raises(ProbeSetError, match=message):
        score(given_, labels)


def test_logits_are_no_probabilities():
    with pytest.raises(ProbeSetError, match="apply a softmax"):
        pactran_dirichlet(*blobs())
