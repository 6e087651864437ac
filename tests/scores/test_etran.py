"""ETran's energy score against plain loops, hand-made numbers and its bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from probe_sets import assert_inputs_stay

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores import etran
from recsys_ms.scores.etran import energy

matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 8), st.integers(1, 6)),
    elements=st.floats(-50, 50, allow_subnormal=False),
)


# Closed form


@given(matrices)
def test_it_equals_the_mean_log_of_sums_of_exponentials(features):
    logs = [math.log(math.fsum(math.exp(value) for value in row)) for row in features]
    # Values within ±50 need no shift, so this is the definition itself.
    assert energy(features) == pytest.approx(math.fsum(logs) / len(logs), abs=1e-12)


def test_blocks_are_put_together(monkeypatch):
    features = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    whole = energy(features)
    monkeypatch.setattr(etran, "_BLOCK_ROWS", 4)
    assert energy(features) == whole
    # Half precision is computed on as float64, so only the features' own rounding shows.
    assert energy(features.astype(np.float16)) == pytest.approx(whole, abs=1e-3)


# Planted answer


def test_examples_the_model_answers_to_beat_examples_it_does_not():
    rng = np.random.default_rng(0)
    unfamiliar = rng.normal(size=(100, 20))
    familiar = unfamiliar.copy()
    familiar[np.arange(100), rng.integers(0, 20, 100)] += 6.0
    assert energy(familiar) > energy(unfamiliar) + 1.0


# Properties


@given(matrices)
def test_it_lies_between_the_mean_maximum_and_that_plus_the_log_of_the_width(features):
    largest = features.max(axis=1).mean()
    score = energy(features)
    assert largest - 1e-12 <= score <= largest + math.log(features.shape[1]) + 1e-12


@given(matrices, st.randoms(use_true_random=False))
def test_the_order_of_examples_and_of_features_does_not_matter(features, random):
    rows = random.sample(range(features.shape[0]), features.shape[0])
    columns = random.sample(range(features.shape[1]), features.shape[1])
    assert energy(features[rows]) == energy(features)
    assert energy(features[:, columns]) == pytest.approx(energy(features), abs=1e-12)


@given(matrices, st.floats(-20, 20))
def test_an_offset_moves_it_by_as_much(features, offset):
    # What the docstring warns of: the score is in the units of the features.
    assert energy(features + offset) == pytest.approx(energy(features) + offset, abs=1e-11)


@given(matrices)
def test_a_larger_feature_never_lowers_it(features):
    raised = features.copy()
    raised[0, 0] += 1.0
    assert energy(raised) >= energy(features)


# Reference values


def test_two_examples_by_hand():
    # log(e⁰ + e^{log 2}) = log 3 and log(e⁰ + e⁰) = log 2, so the mean is log(6) / 2.
    assert energy([[0.0, math.log(2.0)], [0.0, 0.0]]) == pytest.approx(math.log(6) / 2, rel=1e-14)


# Degenerate and bad input


def test_constant_features_give_their_value_plus_the_log_of_the_width():
    assert energy(np.full((4, 8), -3.0)) == pytest.approx(-3.0 + math.log(8), rel=1e-14)


@pytest.mark.parametrize("size", [1e3, 1e200, 1e289])
def test_large_features_do_not_overflow(size):
    assert energy([[size, -size], [size, 0.0], [size, 1.0]]) == pytest.approx(size, rel=1e-12)
    assert energy([[-size], [-size]]) == pytest.approx(-size, rel=1e-12)


def test_inputs_are_left_alone_and_the_answer_is_a_float():
    assert_inputs_stay(energy, np.random.default_rng(0).normal(size=(6, 3)))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([[0.0, np.nan], [1.0, 1.0]], "row 0, column 1"),
        ([[0.0, np.inf], [1.0, 1.0]], "finite"),
        ([[1e295, 0.0], [1.0, 1.0]], "1e.295 are too large"),
        ([1.0, 2.0], "expected .n_probe, n_features."),
        ([["a"], ["b"]], "expected numbers"),
        (np.zeros((3, 0)), "0 features"),
        ([[1.0, 2.0]], "1 examples"),
    ],
)
def test_bad_input_is_refused_with_a_reason(features, message):
    with pytest.raises(ProbeSetError, match=message):
        energy(features)
