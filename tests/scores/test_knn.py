"""Nearest neighbours against scikit-learn, and against sorting in plain Python."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.scores import knn as knn_module
from recsys_ms.scores.knn import knn_accuracy

METRICS = ["cosine", "euclidean"]


def problem(n_probe, n_features, n_classes=4, *, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_probe)
    labels[:n_classes] = np.arange(n_classes)
    centres = 0.5 * rng.normal(size=(n_classes, n_features))
    return (centres[labels] + rng.normal(size=(n_probe, n_features))).astype(dtype), labels


def in_plain_python(features, labels, n_neighbors, metric):
    """Sort all others by distance and class; most votes win, then the first one named."""
    distances = pairwise_distances(features, metric=metric).round(10)
    right = 0
    for i, label in enumerate(labels):
        others = sorted((distances[i, j], labels[j]) for j in range(len(labels)) if j != i)
        votes = [name for _, name in others[:n_neighbors]]
        counts = Counter(votes)
        winner = next(name for name in votes if counts[name] == max(counts.values()))
        right += winner == label
    return right / len(labels)


@pytest.fixture(params=[1024, 7])
def tile_rows(request, monkeypatch):
    """Everything in one tile, and in many, the last of which is smaller."""
    monkeypatch.setattr(knn_module, "_TILE_ROWS", request.param)


# ---- closed form ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("tile_rows")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_neighbors", [1, 3, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_classes_equal_scikit_learn_left_one_out(metric, n_neighbors, dtype):
    # An odd number of votes for two classes has a majority: scikit-learn breaks ties otherwise.
    features, labels = problem(45, 12, 2, dtype=dtype)
    peer = KNeighborsClassifier(n_neighbors, metric=metric, algorithm="brute")
    predicted = cross_val_predict(peer, features, labels, cv=LeaveOneOut())
    score = knn_accuracy(features, labels, n_neighbors=n_neighbors, metric=metric)
    assert score == np.mean(predicted == labels)


@pytest.mark.usefixtures("tile_rows")
@pytest.mark.parametrize("metric", METRICS)
def test_one_neighbour_of_many_classes_equals_scikit_learn(metric):
    features, labels = problem(80, 12, 6)
    peer = KNeighborsClassifier(1, metric=metric, algorithm="brute")
    predicted = cross_val_predict(peer, features, labels, cv=LeaveOneOut())
    assert knn_accuracy(features, labels, metric=metric) == np.mean(predicted == labels)


@pytest.mark.usefixtures("tile_rows")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_neighbors", [1, 2, 4, 5, 29])
@pytest.mark.parametrize("seed", range(5))
def test_ties_go_to_the_nearer_and_then_to_the_smaller_class(metric, n_neighbors, seed):
    rng = np.random.default_rng(seed)
    # Few values: many equal distances, equal examples, and rows of zeros.
    features = rng.integers(0, 3, (30, 3)).astype(np.float32)
    features[::11] = 0
    labels = rng.integers(0, 4, 30)
    expected = in_plain_python(features, labels, n_neighbors, metric)
    assert knn_accuracy(features, labels, n_neighbors=n_neighbors, metric=metric) == expected


# ---- planted answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_neighbors", [1, 5])
def test_perfect_clusters_score_one(metric, n_neighbors):
    centres = np.random.default_rng(0).normal(size=(6, 30))
    labels = np.repeat(np.arange(6), 8)
    score = knn_accuracy(centres[labels], labels, n_neighbors=n_neighbors, metric=metric)
    assert score == 1.0


def test_separated_classes_beat_shuffled_ones():
    features, labels = problem(300, 30)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert knn_accuracy(features, shuffled) < 0.35 < 0.6 < knn_accuracy(features, labels)


def test_cosine_sees_directions_and_euclidean_sees_lengths():
    angles, lengths = np.array([0.0, 0.01, 0.1, 0.11]), np.array([1.0, 9.0, 1.2, 9.2])
    features = lengths[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    by_direction, by_length = [0, 0, 1, 1], [0, 1, 0, 1]
    assert knn_accuracy(features, by_direction, metric="cosine") == 1.0
    assert knn_accuracy(features, by_direction, metric="euclidean") == 0.0
    assert knn_accuracy(features, by_length, metric="euclidean") == 1.0


# ---- by hand -------------------------------------------------------------------------------------


def test_a_line_worked_by_hand():
    features = [[0.0], [1.0], [3.0], [4.0], [9.0]]
    labels = ["a", "a", "b", "a", "b"]
    # The nearest are at 1, 0, 4, 3 and 4, of classes a, a, a, b and a.
    assert knn_accuracy(features, labels, metric="euclidean") == 2 / 5
    # The three nearest are aba, aba, aaa, baa and aba: always a.
    assert knn_accuracy(features, labels, n_neighbors=3, metric="euclidean") == 3 / 5


def test_rows_of_zeros_are_at_cosine_distance_one_from_all():
    # Of the first row the rows of zeros (distance 1) are nearer than its opposite (2); of them all
    # others are equally near, so that the smaller class counts.
    features = [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert knn_accuracy(features, ["b", "a", "b", "b"]) == 1 / 4
    assert knn_accuracy(features, ["b", "c", "b", "b"]) == 3 / 4


def test_the_only_example_of_a_class_is_never_right():
    features = np.vstack([np.eye(3)[[0, 0, 1, 1]], [[0, 0, 1]]])
    assert knn_accuracy(features, [0, 0, 1, 1, 2]) == 4 / 5


# ---- properties ----------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)


@given(
    seed=SEEDS,
    metric=st.sampled_from(METRICS),
    n_neighbors=st.integers(1, 8),
    scale=st.floats(1e-6, 1e6),
)
@settings(max_examples=60, deadline=None)
def test_order_axes_and_unit_do_not_matter(seed, metric, n_neighbors, scale):
    features, labels = problem(40, 10, seed=seed)
    rng = np.random.default_rng(seed)
    order, turn = rng.permutation(40), np.linalg.qr(rng.normal(size=(10, 10)))[0]
    score = knn_accuracy(features, labels, n_neighbors=n_neighbors, metric=metric)
    assert 0 <= score <= 1
    assert (
        knn_accuracy(
            scale * features[order] @ turn, labels[order], n_neighbors=n_neighbors, metric=metric
        )
        == score
    )


@given(seed=SEEDS, metric=st.sampled_from(METRICS), n_neighbors=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_names_of_classes_do_not_matter(seed, metric, n_neighbors):
    features, labels = problem(40, 10, seed=seed)
    names = np.random.default_rng(seed).permutation(["c", "b", "d", "a"])
    score = knn_accuracy(features, labels, n_neighbors=n_neighbors, metric=metric)
    renamed = knn_accuracy(features, names[labels], n_neighbors=n_neighbors, metric=metric)
    assert renamed == score


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_order_of_ties_does_not_matter_either(seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.integers(0, 2, (30, 4)).astype(float), rng.integers(0, 3, 30)
    labels[:3] = range(3)
    order = rng.permutation(30)
    for metric in METRICS:
        score = knn_accuracy(features, labels, n_neighbors=4, metric=metric)
        assert knn_accuracy(features[order], labels[order], n_neighbors=4, metric=metric) == score


@given(seed=SEEDS, scale=st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_the_length_of_a_row_does_not_matter_to_cosine(seed, scale):
    features, labels = problem(40, 10, seed=seed)
    moved = features.copy()
    moved[seed % 40] *= scale
    assert knn_accuracy(moved, labels) == knn_accuracy(features, labels)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1e30, 1e300])
def test_the_unit_of_features_may_be_any(metric, unit):
    features, labels = problem(60, 20)
    score = knn_accuracy(features, labels, metric=metric)
    assert knn_accuracy(unit * features, labels, metric=metric) == score


def test_an_origin_far_away_does_not_matter_to_euclidean_distances():
    features, labels = problem(60, 20)
    score = knn_accuracy(features, labels, metric="euclidean")
    assert knn_accuracy(features + 1e6, labels, metric="euclidean") == score


@pytest.mark.parametrize("metric", METRICS)
def test_equal_features_tell_the_smallest_class(metric):
    assert knn_accuracy(np.ones((7, 3)), [0, 0, 0, 1, 1, 2, 2], metric=metric) == 3 / 7


@pytest.mark.parametrize("metric", METRICS)
def test_inputs_stay_as_they_are(metric):
    features, labels = problem(30, 12)
    features.flags.writeable = labels.flags.writeable = False
    knn_accuracy(features, labels, metric=metric)


@pytest.mark.parametrize("metric", METRICS)
def test_neither_the_pairs_nor_the_features_are_held_twice(monkeypatch, metric):
    monkeypatch.setattr(knn_module, "_TILE_ROWS", 64)
    features, labels = problem(2000, 1000, dtype=np.float32)
    tracemalloc.start()
    knn_accuracy(features, labels, n_neighbors=3, metric=metric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 8 MB of features, 32 MB of distances; the tiles alone are 1 MB, with what makes them 2 MB.
    assert peak < 4e6


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "labels", "arguments", "reason"),
    [
        (np.full((4, 2), np.inf), [0, 0, 1, 1], {}, "row 0, column 0 is inf"),
        (np.ones(4), [0, 0, 1, 1], {}, "expected .n_probe, n_features."),
        (np.eye(4), [0, 0, 1], {}, r"labels: got shape \(3,\)"),
        (np.eye(4), [0, 0, 0, 0], {}, "1 class among 4"),
        (np.eye(4), [0.5, 0, 1, 1], {}, "fractions"),
        (np.eye(4), [0, 0, 1, 1], {"n_neighbors": 4}, "more than n_neighbors=4"),
        ([[1.7e308], [1.7e308], [-1.7e308]], [0, 0, 1], {"metric": "euclidean"}, "overflow"),
    ],
)
def test_bad_probe_sets_are_refused_with_the_reason(features, labels, arguments, reason):
    with pytest.raises(ProbeSetError, match=reason):
        knn_accuracy(features, labels, **arguments)


def test_more_examples_than_places_are_refused(monkeypatch):
    monkeypatch.setattr(knn_module, "_PLACE_BITS", 1)
    with pytest.raises(ProbeSetError, match="at most 2"):
        knn_accuracy(np.eye(3), [0, 0, 1])


@pytest.mark.parametrize("arguments", [{"n_neighbors": 0}, {"metric": "manhattan"}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(UsageError, match=next(iter(arguments))):
        knn_accuracy(np.eye(4), [0, 0, 1, 1], **arguments)
