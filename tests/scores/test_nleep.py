"""N-LEEP against mixtures whose posteriors are known, and what must not change it."""

import inspect
import math
import warnings
from collections import Counter
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_sets import assert_inputs_stay

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.scores.leep import leep
from recsys_ms.scores.nleep import nleep

# The package has the function under the module's name.
module = import_module("recsys_ms.scores.nleep")


def entropy(labels):
    n = len(labels)
    return -sum(c / n * math.log(c / n) for c in Counter(np.asarray(labels).tolist()).values())


def clusters(counts, n_features=6, gap=100.0, seed=0):
    """Tight clusters far apart: ``counts`` rows are clusters, columns how many of each label."""
    rng = np.random.default_rng(seed)
    counts = np.asarray(counts)
    centers = gap * np.linalg.qr(rng.normal(size=(n_features, n_features)))[0][: len(counts)]
    cluster = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    labels = np.concatenate([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    return centers[cluster] + rng.normal(size=(cluster.size, n_features)), labels


def blobs(seed=0, n_probe=150, n_classes=3, n_features=10, gap=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_probe)
    means = gap * rng.normal(size=(n_classes, n_features)) / math.sqrt(2)
    return means[labels] + rng.normal(size=(n_probe, n_features)), labels


# Closed form


def test_clusters_far_apart_give_the_conditional_entropy_of_their_counts():
    counts = np.array([[30, 10], [5, 25], [20, 20]])
    features, labels = clusters(counts)
    shares = counts / counts.sum(axis=1, keepdims=True)
    expected = (counts * np.log(shares)).sum() / counts.sum()
    # Posteriors of clusters a hundred deviations apart are certain.
    assert nleep(features, labels, n_components=3, energy=1.0) == pytest.approx(expected, rel=1e-9)


def test_two_overlapping_gaussians_equal_a_plain_expectation_maximization():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(-2, 1.0, 120), rng.normal(2, 0.7, 80)])
    labels = (values + rng.normal(0, 1, 200) > 0).astype(int)
    weight, mean, variance = [0.5, 0.5], [-1.0, 1.0], [1.0, 1.0]
    for _ in range(2000):
        posterior = np.array(
            [
                [
                    w * math.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(v)
                    for w, m, v in zip(weight, mean, variance, strict=True)
                ]
                for x in values
            ]
        )
        posterior /= posterior.sum(axis=1, keepdims=True)
        size = posterior.sum(axis=0)
        weight, mean = size / 200, (posterior * values[:, None]).sum(axis=0) / size
        variance = (posterior * (values[:, None] - mean) ** 2).sum(axis=0) / size
    expected = leep(posterior, labels)
    # The mixture stops when the likelihood gains less than 1e-5 a step.
    found = nleep(values[:, None], labels, n_components=2, energy=1.0)
    assert found == pytest.approx(expected, abs=1e-3)
    assert -entropy(labels) < expected < -0.1


# Planted answer


def test_separable_features_beat_shuffled_labels():
    features, labels = blobs()
    shuffled = np.random.default_rng(1).permutation(labels)
    assert nleep(features, labels) > nleep(features, shuffled) + 0.3


def test_wider_gaps_between_classes_score_higher():
    scores = [nleep(*blobs(gap=gap)) for gap in (0.0, 1.0, 2.0, 6.0)]
    assert scores == sorted(scores)


def test_the_energy_decides_whether_a_small_direction_counts():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    features = np.column_stack([10 * rng.normal(size=120), labels + 0.01 * rng.normal(size=120)])
    assert nleep(features, labels, n_components=6, energy=0.9) < -0.5
    assert nleep(features, labels, n_components=6, energy=1.0) > -0.1


# Properties


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(10, 60), st.integers(1, 8), st.integers(2, 5))
def test_it_lies_between_minus_the_entropy_and_zero_in_any_order_and_with_any_names(
    seed, n_probe, n_features, n_classes
):
    rng = np.random.default_rng(seed)
    features = np.round(rng.normal(size=(n_probe, n_features)), 1)  # ties among the rows
    labels = rng.integers(0, n_classes, n_probe)
    labels[:2] = [0, 1]
    score = nleep(features, labels)
    assert -entropy(labels) - 1e-12 <= score <= 0.0
    order = rng.permutation(n_probe)
    names = np.array([f"class {name}" for name in rng.permutation(n_classes) * 3])
    # Sorting makes the mixture the same to the last bit; only sums over labels are reordered.
    assert nleep(features[order], labels[order]) == pytest.approx(score, abs=1e-12)
    assert nleep(features, names[labels]) == pytest.approx(score, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(-30, 30))
def test_the_scale_of_the_features_does_not_matter(seed, exponent):
    features, labels = blobs(seed=seed, n_probe=40)
    # Powers of two scale without rounding.
    assert nleep(features * 2.0**exponent, labels) == nleep(features, labels)


def test_a_large_offset_does_not_matter():
    counts = np.array([[30, 10], [5, 25]])
    features, labels = clusters(counts)
    plain = nleep(features, labels, n_components=2)
    assert nleep(features + 1e7, labels, n_components=2) == pytest.approx(plain, rel=1e-6)


def test_signs_of_zero_do_not_matter():
    features, labels = blobs(n_probe=40)
    features[:, 0] = 0.0
    signed = features.copy()
    signed[::2, 0] = -0.0
    assert nleep(signed, labels) == nleep(features, labels)


def test_one_seed_one_answer():
    features, labels = blobs(gap=0.7)
    assert nleep(features, labels) == nleep(features, labels, rng=0)
    assert nleep(features, labels, rng=5) == nleep(features, labels, rng=5)
    generator = np.random.default_rng(5)
    assert nleep(features, labels, rng=generator) == nleep(features, labels, rng=5)
    assert len({nleep(features, labels, rng=seed) for seed in range(5)}) > 1
    assert math.isfinite(nleep(features, labels, rng=None))


def test_the_global_generator_is_left_alone():
    features, labels = blobs(n_probe=30)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (what must not be used)
    nleep(features, labels)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# Reference values


def test_two_clusters_by_hand():
    # Labels 0, 0, 0, 1 in one cluster and 1, 1, 1, 1 in the other:
    # (3 log 3/4 + log 1/4 + 4 log 1) / 8 = (3 log 3 − 8 log 2) / 8.
    features = [[0.0], [0.1], [0.2], [0.3], [90.0], [90.1], [90.2], [90.3]]
    labels = [0, 0, 0, 1, 1, 1, 1, 1]
    expected = (3 * math.log(3) - 8 * math.log(2)) / 8
    assert nleep(features, labels, n_components=2) == pytest.approx(expected, rel=1e-12)


# Options


def test_defaults_are_the_documented_ones():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(nleep).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    assert defaults == {"n_components": None, "energy": 0.8, "rng": 0}
    features, labels = blobs(n_probe=150, n_classes=3)
    assert nleep(features, labels) == nleep(features, labels, n_components=15)
    assert nleep(features[:60], labels[:60]) == nleep(features[:60], labels[:60], n_components=12)


@pytest.mark.parametrize(
    "options",
    [
        {"n_components": 0},
        {"n_components": 31},
        {"n_components": 2.5},
        {"energy": 0.0},
        {"energy": 1.5},
        {"energy": math.nan},
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(UsageError, match=f"nleep: {next(iter(options))} is"):
        nleep(*blobs(n_probe=30), **options)


def test_numpy_integers_are_integers():
    features, labels = blobs(n_probe=30)
    assert nleep(features, labels, n_components=np.int64(3)) == nleep(
        features, labels, n_components=3
    )


# Degenerate and bad input


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
def test_constant_features_give_minus_the_entropy(value):
    labels = np.arange(30) % 4
    assert nleep(np.full((30, 5), value), labels) == pytest.approx(-entropy(labels), rel=1e-12)


def test_features_that_differ_by_rounding_are_constant():
    features = np.full((30, 2), 0.1)
    features[::2] = np.nextafter(0.1, 1.0)
    # Taken at its word, the rounding would tell the classes apart.
    labels = np.arange(30) % 2
    assert nleep(features, labels) == pytest.approx(-entropy(labels), rel=1e-12)


def test_fewer_than_ten_examples_leave_one_component():
    features, labels = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9)
    assert nleep(features, labels) == pytest.approx(-math.log(9), rel=1e-12)


def test_one_example_a_class():
    features = np.random.default_rng(0).normal(size=(25, 3))
    assert -math.log(25) <= nleep(features, np.arange(25)) <= 0.0


def test_more_components_than_distinct_examples():
    features = np.repeat(np.eye(3), 10, axis=0)
    labels = np.repeat([0, 1, 2], 10)
    assert nleep(features, labels, n_components=20, energy=1.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
@pytest.mark.parametrize("shape", [(40, 3), (30, 80)])
def test_extreme_scales_and_wide_features_stay_finite(scale, shape):
    rng = np.random.default_rng(0)
    assert math.isfinite(nleep(scale * rng.normal(size=shape), np.arange(shape[0]) % 2))


def test_no_warning_escapes(monkeypatch):
    monkeypatch.setattr(module, "_MAX_ITERATIONS", 1)
    features, labels = blobs(gap=0.5)
    before = warnings.filters.copy()
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        nleep(features, labels)
        nleep(np.repeat(features[:20], 3, axis=0), np.repeat(labels[:20], 3), n_components=60)
        nleep(np.ones((20, 3)), np.arange(20) % 2)
    assert escaped == []
    assert warnings.filters == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_inputs_are_left_alone_and_the_answer_is_a_float(dtype):
    features, labels = blobs(n_probe=40)
    assert_inputs_stay(nleep, (10 * features).astype(dtype), labels)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1], "labels: got shape"),
        (np.ones((3, 2)), [1, 1, 1], "expected at least 2"),
        ([[np.nan, 1.0]] * 3, [0, 1, 1], "finite"),
        (np.ones(3), [0, 1, 1], "expected .n_probe, n_features."),
        (np.ones((3, 2)), [0.5, 1, 1], "fractions"),
    ],
)
def test_bad_input_is_refused_with_a_reason(features, labels, message):
    with pytest.raises(ProbeSetError, match=message):
        nleep(features, labels)
