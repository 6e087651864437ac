"""LEEP and NCE against plain loops, hand-made numbers and what theory says of both."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from probe_sets import assert_inputs_stay

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores.leep import leep, nce

#: Rounding of sums of up to a few dozen logs.
ROUNDING = 1e-12


@st.composite
def probe_sets(draw, distinct=False):
    """Rows with zeros, ties and single ones among them; ``distinct`` rules out ties in a row."""
    n_probe = draw(st.integers(2, 12))
    n_source = draw(st.integers(1, 5))
    weights = draw(hnp.arrays(np.int64, (n_probe, n_source), elements=st.integers(0, 3)))
    weights = weights.astype(float)
    weights[weights.sum(axis=1) == 0, 0] = 1.0
    if distinct:
        weights += np.linspace(0.0, 0.5, n_source)
        weights[weights.sum(axis=1) == 0] = 1.0
    labels = draw(hnp.arrays(np.int64, n_probe, elements=st.integers(0, 3)))
    labels[:2] = [0, 1]
    return weights / weights.sum(axis=1, keepdims=True), labels


def entropy(labels):
    n = len(labels)
    return -sum(c / n * math.log(c / n) for c in Counter(np.asarray(labels).tolist()).values())


def leep_by_loops(probs, labels):
    n_probe, n_source = probs.shape
    total = 0.0
    for i in range(n_probe):
        expected = 0.0
        for z in range(n_source):
            joint = sum(probs[j, z] for j in range(n_probe) if labels[j] == labels[i]) / n_probe
            marginal = sum(probs[j, z] for j in range(n_probe)) / n_probe
            if marginal > 0:
                expected += joint / marginal * probs[i, z]
        total += math.log(expected)
    return total / n_probe


def nce_by_loops(probs, labels):
    nearest = [max(range(probs.shape[1]), key=lambda z: row[z]) for row in probs]
    pairs = Counter(zip(nearest, labels.tolist(), strict=True))
    sources = Counter(nearest)
    return sum(c / len(labels) * math.log(c / sources[z]) for (z, _), c in pairs.items())


def aligned(n_probe=200, n_classes=4, seed=0, confidence=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_probe)
    logits = rng.normal(size=(n_probe, n_classes + 3))
    logits[np.arange(n_probe), labels] += confidence
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


# Closed form


@given(probe_sets())
def test_leep_equals_its_definition_in_plain_loops(probe_set):
    probs, labels = probe_set
    assert leep(probs, labels) == pytest.approx(leep_by_loops(probs, labels), abs=ROUNDING)


@given(probe_sets())
def test_nce_equals_its_definition_in_plain_loops(probe_set):
    probs, labels = probe_set
    assert nce(probs, labels) == pytest.approx(nce_by_loops(probs, labels), abs=ROUNDING)


# Planted answer


@pytest.mark.parametrize("score", [leep, nce])
def test_aligned_source_classes_beat_shuffled_labels(score):
    probs, labels = aligned()
    shuffled = np.random.default_rng(1).permutation(labels)
    assert score(probs, labels) > score(probs, shuffled) + 0.3


@pytest.mark.parametrize("score", [leep, nce])
def test_source_classes_that_split_the_target_classes_are_perfect(score):
    labels = np.repeat([0, 1, 2], 4)
    probs = np.eye(6)[labels * 2 + np.tile([0, 1], 6)]
    assert score(probs, labels) == 0.0


def test_leep_rises_with_the_confidence_of_an_aligned_source():
    scores = [leep(*aligned(confidence=confidence)) for confidence in (0.0, 1.0, 2.0, 4.0)]
    assert scores == sorted(scores)


# Properties


@given(probe_sets())
def test_both_lie_between_minus_the_entropy_of_the_labels_and_zero(probe_set):
    probs, labels = probe_set
    for score in (leep(probs, labels), nce(probs, labels)):
        assert -entropy(labels) - ROUNDING <= score <= 0.0


@given(probe_sets())
def test_leep_is_at_least_minus_the_entropy_under_the_soft_joint(probe_set):
    # Jensen: log Σ_z P(y|z) θ_z ≥ Σ_z θ_z log P(y|z).
    probs, labels = probe_set
    joint = np.stack([probs[labels == label].sum(axis=0) for label in np.unique(labels)])
    shares = joint / np.where(joint.sum(axis=0) > 0, joint.sum(axis=0), 1.0)
    soft = sum(
        p / len(labels) * math.log(q) for p, q in zip(joint.flat, shares.flat, strict=True) if p
    )
    assert leep(probs, labels) >= soft - ROUNDING


@given(probe_sets())
def test_leep_equals_nce_where_the_source_is_certain(probe_set):
    probs, labels = probe_set
    certain = np.eye(probs.shape[1])[probs.argmax(axis=1)]
    assert leep(certain, labels) == pytest.approx(nce(certain, labels), abs=ROUNDING)


@given(probe_sets(), st.permutations(range(4)))
def test_names_of_classes_do_not_matter(probe_set, renamed):
    probs, labels = probe_set
    for names in (np.array(renamed) * 7 - 3, np.array([f"class {name}" for name in renamed])):
        assert leep(probs, names[labels]) == pytest.approx(leep(probs, labels), abs=ROUNDING)
        assert nce(probs, names[labels]) == pytest.approx(nce(probs, labels), abs=ROUNDING)


@given(probe_sets(), st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(probe_set, random):
    probs, labels = probe_set
    order = random.sample(range(len(labels)), len(labels))
    assert leep(probs[order], labels[order]) == pytest.approx(leep(probs, labels), abs=ROUNDING)
    assert nce(probs[order], labels[order]) == pytest.approx(nce(probs, labels), abs=ROUNDING)


@given(probe_sets(distinct=True), st.randoms(use_true_random=False))
def test_the_order_of_source_classes_does_not_matter(probe_set, random):
    probs, labels = probe_set
    order = random.sample(range(probs.shape[1]), probs.shape[1])
    assert leep(probs[:, order], labels) == pytest.approx(leep(probs, labels), abs=ROUNDING)
    assert nce(probs[:, order], labels) == pytest.approx(nce(probs, labels), abs=ROUNDING)


@given(probe_sets())
def test_a_source_class_never_predicted_does_not_matter(probe_set):
    probs, labels = probe_set
    padded = np.hstack([np.zeros((len(labels), 2)), probs])
    assert leep(padded, labels) == pytest.approx(leep(probs, labels), abs=ROUNDING)
    assert nce(padded, labels) == pytest.approx(nce(probs, labels), abs=ROUNDING)


# Reference values


def test_two_examples_by_hand():
    # Joint counts of class 0: (1/2, 1/2), of class 1: (1, 0); so P(0|z) = (1/3, 1) and
    # P(1|z) = (2/3, 0). The predictor gives 1/2 · 1/3 + 1/2 · 1 = 2/3 to the first label and
    # 1 · 2/3 to the second. Both examples are nearest source class 0 (the first of a tie), which
    # tells nothing: NCE is −log 2.
    probs, labels = [[0.5, 0.5], [1.0, 0.0]], [0, 1]
    assert leep(probs, labels) == pytest.approx(math.log(2 / 3), rel=1e-14)
    assert nce(probs, labels) == pytest.approx(-math.log(2), rel=1e-14)


def test_leep_lies_below_nce_for_an_aligned_but_hesitant_source():
    # P(y|z) = 0.6 on the diagonal, so the predictor gives 0.6² + 0.4² = 0.52; the nearest source
    # class gives the label away.
    probs, labels = [[0.6, 0.4], [0.4, 0.6]], ["a", "b"]
    assert leep(probs, labels) == pytest.approx(math.log(0.52), rel=1e-14)
    assert nce(probs, labels) == 0.0


def test_three_of_four_by_hand():
    # Source class 0 holds labels 0, 0, 1 and source class 1 holds one 1:
    # NCE = 2/4 log 2/3 + 1/4 log 1/3 = (2 log 2 − 3 log 3) / 4.
    probs, labels = np.eye(2)[[0, 0, 0, 1]], [0, 0, 1, 1]
    expected = (2 * math.log(2) - 3 * math.log(3)) / 4
    assert nce(probs, labels) == pytest.approx(expected, rel=1e-14)
    assert leep(probs, labels) == pytest.approx(expected, rel=1e-14)


# Degenerate and bad input


@pytest.mark.parametrize("score", [leep, nce])
def test_a_source_that_says_the_same_of_everything_gives_minus_the_entropy(score):
    labels = np.array([0, 0, 0, 1, 1, 2])
    probs = np.tile([0.2, 0.5, 0.3], (6, 1))
    assert score(probs, labels) == pytest.approx(-entropy(labels), rel=1e-13)
    assert score(np.ones((6, 1)), labels) == pytest.approx(-entropy(labels), rel=1e-13)


@pytest.mark.parametrize("score", [leep, nce])
def test_one_example_a_class(score):
    assert score(np.eye(5), np.arange(5)) == 0.0
    assert score(np.full((5, 5), 0.2), np.arange(5)) == pytest.approx(-math.log(5), rel=1e-13)


@pytest.mark.parametrize("score", [leep, nce])
def test_tiny_probabilities_stay_finite(score):
    probs = np.array([[1.0, 1e-320], [1.0, 0.0], [0.0, 1.0]])
    assert math.isfinite(score(probs, [0, 1, 0]))


@pytest.mark.parametrize("score", [leep, nce])
def test_inputs_are_left_alone_and_the_answer_is_a_float(score):
    probs, labels = aligned(n_probe=20)
    probs *= 1.00005  # within the tolerance of the check, so normalising would show
    assert_inputs_stay(score, probs, labels)


@pytest.mark.parametrize("score", [leep, nce])
@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.full((3, 2), 0.5), [0, 1], "labels: got shape"),
        (np.full((3, 2), 0.5), [1, 1, 1], "expected at least 2"),
        (np.full((3, 2), 0.4), [0, 1, 1], "apply a softmax"),
        (np.array([[1.5, -0.5]] * 3), [0, 1, 1], "expected probabilities"),
        (np.array([[np.nan, 0.5]] * 3), [0, 1, 1], "finite"),
        (np.full(3, 0.5), [0, 1, 1], "expected .n_probe, n_features."),
        (0.5, [0, 1, 1], "expected .n_probe, n_features."),
        (np.zeros((0, 2)), [], "examples"),
        (np.full((3, 2), 0.5), [0.5, 1, 1], "fractions"),
    ],
)
def test_bad_input_is_refused_with_a_reason(score, probs, labels, message):
    with pytest.raises(ProbeSetError, match=message):
        score(probs, labels)
