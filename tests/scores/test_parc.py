"""PARC against Spearman's correlation over explicit pairs, and against answers worked by hand."""

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import ArpackNoConvergence
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.scores.parc import add_depth, parc

# The package may export the function under the module's name.
parc_module = import_module("recsys_ms.scores.parc")

# Both sides then round to one float32 grid of distances, and few pairs change their order by it.
ROUNDING = 1e-7
# Components in float32 move distances by some 1e-6, and swap that share of neighbouring ranks.
FLOAT32 = 2e-5


def problem(n_probe, n_features, n_classes=4, *, spread=0.5, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_probe)
    labels[:n_classes] = np.arange(n_classes)
    centres = spread * rng.normal(size=(n_classes, n_features))
    features = centres[labels] + rng.normal(size=(n_probe, n_features))
    return features.astype(dtype), labels


def label_sets(n_probe, n_labels, seed=0):
    return (np.random.default_rng(seed).random((n_probe, n_labels)) < 0.4).astype(float)


def pearson_distances(rows):
    """1 - Pearson of the pairs i < j, by NumPy; 1 where a row has no variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(np.asarray(rows, dtype=np.float64))
    distances = 1 - np.where(np.isnan(correlation), 0.0, correlation)
    return distances[np.triu_indices(len(rows), 1)]


def reference(features, label_distances):
    """Spearman over explicit pairs; rounded, so that rounding errors break no ties."""
    return spearmanr(pearson_distances(features).round(10), label_distances.round(10))[0]


def one_hot(labels):
    return (np.asarray(labels)[:, None] == np.unique(labels)).astype(float)


def components(features, n_components):
    """scikit-learn's components, the example furthest out on the positive side."""
    features = np.asarray(features, dtype=np.float64)
    scores = PCA(min(n_components, *features.shape), svd_solver="full").fit_transform(features)
    # Directions without variance are rounding errors there.
    scores[:, scores.std(axis=0) < 1e-9 * scores.std()] = 0
    furthest = np.take_along_axis(scores, np.abs(scores).argmax(axis=0)[None], axis=0)
    return scores * np.sign(furthest)


# ---- closed form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_probe", "n_features"), [(3, 2), (5, 40), (60, 7), (300, 20), (600, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_equal_spearman_over_pairs(n_probe, n_features, dtype):
    features, labels = problem(n_probe, n_features, min(4, n_probe - 1), dtype=dtype)
    expected = reference(features, pearson_distances(one_hot(labels)))
    assert parc(features, labels, n_components=None) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("n_probe", [4, 40, 280])
def test_label_sets_equal_spearman_over_pairs(n_probe):
    features, _ = problem(n_probe, 12)
    sets = label_sets(n_probe, 5)
    sets[0], sets[1] = 0, 1  # without variance
    expected = reference(features, pearson_distances(sets))
    assert parc(features, sets, n_components=None) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("n_targets", [1, 3])
def test_targets_equal_spearman_over_pairs(n_targets):
    features, _ = problem(280, 12)
    targets = np.random.default_rng(1).normal(size=(280, n_targets)) * np.logspace(0, 3, n_targets)
    expected = reference(features, pdist(targets / targets.std(axis=0)))
    score = parc(features, targets, n_components=None, kind="regression")
    assert score == pytest.approx(expected, abs=ROUNDING)
    with_constant = np.column_stack([targets, np.full(280, 7.0)])
    assert parc(features, with_constant, n_components=None, kind="regression") == score


def test_one_target_may_be_a_vector_of_any_unit():
    features, _ = problem(50, 12)
    targets = np.random.default_rng(1).normal(size=50)
    score = parc(features, targets, kind="regression")
    assert parc(features, targets[:, None], kind="regression") == score
    assert parc(features, 1e200 * targets, kind="regression") == pytest.approx(score, abs=ROUNDING)


@pytest.mark.parametrize("n_components", [2, 8, 32])
@pytest.mark.parametrize(
    ("n_probe", "n_features"), [(30, 100), (100, 30), (300, 700), (700, 300), (40, 40), (9, 4)]
)
def test_components_are_those_of_scikit_learn(n_probe, n_features, n_components):
    features, labels = problem(n_probe, n_features, dtype=np.float32)
    expected = reference(components(features, n_components), pearson_distances(one_hot(labels)))
    score = parc(features, labels, n_components=n_components)
    assert score == pytest.approx(expected, abs=FLOAT32 if n_probe > 100 else 2e-4)


@pytest.mark.parametrize(("n_probe", "n_features"), [(120, 200), (200, 120)])
@pytest.mark.parametrize("dominance", [0.0, 1.0])
def test_iterations_and_decomposition_agree(monkeypatch, n_probe, n_features, dominance):
    features, labels = problem(n_probe, n_features)
    monkeypatch.setattr(parc_module, "_DOMINANT", dominance)
    decomposed = parc(features, labels, n_components=8)
    calls = []
    eigsh = parc_module.eigsh
    monkeypatch.setattr(parc_module, "eigsh", lambda *a, **k: calls.append(1) or eigsh(*a, **k))
    monkeypatch.setattr(parc_module, "_LANCZOS_SIZE", 100)
    assert parc(features, labels, n_components=8) == pytest.approx(decomposed, abs=FLOAT32)
    assert calls


def test_iterations_that_do_not_converge_are_replaced(monkeypatch):
    features, labels = problem(120, 200)
    decomposed = parc(features, labels, n_components=8)

    def fail(*_, **__):
        raise ArpackNoConvergence("no", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(parc_module, "eigsh", fail)
    monkeypatch.setattr(parc_module, "_LANCZOS_SIZE", 100)
    assert parc(features, labels, n_components=8) == decomposed


def test_a_dominant_component_is_told_from_the_others_in_float64(monkeypatch):
    features, labels = problem(200, 64, dtype=np.float32)
    features[:, 0] *= 3000
    expected = reference(components(features, 32), pearson_distances(one_hot(labels)))
    # Most distances are some 1e-6, of which scikit-learn's float64 leaves seven digits too.
    assert parc(features, labels) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(parc_module, "_DOMINANT", 1.0)
    assert abs(parc(features, labels) - expected) > 1e-3


# ---- planted answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_components", [None, 32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_perfect_clusters_score_one(n_components, dtype):
    centres = np.random.default_rng(0).normal(size=(2, 600)).astype(dtype)
    labels = np.repeat([0, 1], [31, 42])
    assert parc(centres[labels], labels, n_components=n_components) == 1.0


def test_separated_classes_beat_shuffled_ones():
    features, labels = problem(200, 64, spread=1.0)
    shuffled = np.random.default_rng(1).permutation(labels)
    # Standard deviation of Spearman's correlation under no relation is below 0.02 here.
    assert abs(parc(features, shuffled)) < 0.1 < 0.4 < parc(features, labels)


def test_the_score_grows_with_separation():
    scores = [parc(*problem(200, 64, spread=spread)) for spread in (0.0, 0.3, 0.6, 1.2)]
    assert scores == sorted(scores)


def test_features_that_follow_a_target_score_high():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 300)
    # Rows on a half circle: correlation falls with the difference of angles.
    plane = np.linalg.qr(np.c_[np.ones(9), rng.normal(size=(9, 2))])[0][:, 1:]
    features = np.c_[np.cos(angle), np.sin(angle)] @ plane.T
    score = parc(features, angle, n_components=None, kind="regression")
    assert score == pytest.approx(1.0, abs=ROUNDING)
    assert parc(features, rng.permutation(angle), n_components=None, kind="regression") < 0.1


def test_label_sets_of_single_labels_are_classes():
    features, labels = problem(150, 40, 5)
    assert parc(features, one_hot(labels)) == pytest.approx(parc(features, labels), abs=1e-12)


# ---- by hand -------------------------------------------------------------------------------------


def test_four_examples_worked_by_hand():
    # Distances 12: 0, 13: 2, 14: .5, 23: 2, 24: .5, 34: 1.5, of ranks 1, 5.5, 2.5, 5.5, 2.5, 4 and
    # squared deviations 16.5 in all. Pairs 12 and 34 are of one class, of rank sum 5 (mean 7):
    # (7 - 5) * sqrt(6 / (2 * 4 * 16.5)) = 2 / sqrt(22).
    features = [[1, 2, 3], [2, 4, 6], [3, 2, 1], [1, 3, 2]]
    by_hand = 2 / np.sqrt(22)
    assert parc(features, ["a", "a", "b", "b"], n_components=None) == pytest.approx(by_hand)
    # Labels at distances 1, 5, 6, 4, 5, 1 of ranks 1.5, 4.5, 6, 3, 4.5, 1.5, squared deviations
    # 16.5, and products of deviations 5 + 2 - 2.5 - 1 - 1 - 1 = 1.5.
    targets = [0, 1, 5, 6]
    score = parc(features, targets, n_components=None, kind="regression")
    assert score == pytest.approx(1.5 / 16.5)


def test_a_row_without_variance_is_at_distance_one_from_all():
    # Distances 12: 0, 14 and 24: 2, and 1 of the third row: 13, 23, 34; of ranks 1, 5.5 and 3.
    features = np.array([[1.0, 2, 4], [2, 4, 8], [5, 5, 5], [-1, -2, -4]])
    # Pairs 12 and 34: rank sum 4; squared deviations 6.25 + 2 * 4 + 3 * 0.25 = 15.
    by_hand = (7 - 4) * np.sqrt(6 / (2 * 4 * 15))
    labels = [0, 0, 1, 1]
    assert parc(features, labels, n_components=None) == pytest.approx(by_hand)
    features[2] = 0
    assert parc(features, labels, n_components=None) == pytest.approx(by_hand)
    # 0.1 has no exact mean of three.
    features[2] = 0.1
    assert parc(features, labels, n_components=None) == pytest.approx(by_hand)


def test_an_example_at_the_mean_is_at_distance_one_from_all():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(20, 9))
    features = np.vstack([half, -half, np.zeros((1, 9))]) + 3.0
    labels = np.r_[np.zeros(20), np.ones(21)].astype(int)
    unit, _ = parc_module._directions(features, 4)
    assert not unit[-1].any()
    np.testing.assert_array_equal(parc_module._pearson_distances(unit)(slice(0, 40))[:, 40], 1.0)
    assert -1 <= parc(features, labels, n_components=4) <= 1


def test_the_published_code_has_components_of_equal_deviation():
    # dbolya/parc, methods.py at b05d062, puts a StandardScaler between components and correlation,
    # which the paper's definition does not have: its numbers are had by scaling first.
    features, labels = problem(300, 100)
    scaled = StandardScaler().fit_transform(components(features, 32))
    published = reference(scaled, pearson_distances(one_hot(labels)))
    assert parc(scaled, labels, n_components=None) == pytest.approx(published, abs=ROUNDING)
    assert parc(features, labels) != pytest.approx(published, abs=1e-3)


# ---- properties ----------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, n_components=st.sampled_from([None, 2, 6]), wide=st.booleans())
@settings(max_examples=40, deadline=None)
def test_order_and_names_do_not_matter(seed, n_components, wide):
    features, labels = problem(40, 60 if wide else 20, seed=seed)
    rng = np.random.default_rng(seed)
    score = parc(features, labels, n_components=n_components)
    assert -1 <= score <= 1
    names = rng.permutation(["c", "b", "d", "a"])
    order = rng.permutation(40)
    moved = parc(features[order], names[labels[order]], n_components=n_components)
    # One swap of neighbours among 780 pairs moves the score by some 1e-5.
    assert moved == pytest.approx(score, abs=ROUNDING if n_components is None else 2e-4)


@given(seed=SEEDS, scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_scale_and_shift_of_a_row_do_not_matter(seed, scale, shift):
    features, labels = problem(40, 20, seed=seed)
    moved = features.copy()
    moved[seed % 40] = scale * (moved[seed % 40] + shift)
    score = parc(features, labels, n_components=None)
    # One of 780 pairs may change its place.
    assert parc(moved, labels, n_components=None) == pytest.approx(score, abs=1e-5)


@given(seed=SEEDS, scale=st.floats(1e-6, 1e6), wide=st.booleans())
@settings(max_examples=40, deadline=None)
def test_components_do_not_depend_on_axes_origin_and_unit(seed, scale, wide):
    features, labels = problem(40, 60 if wide else 20, seed=seed)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(features.shape[1],) * 2))[0]
    moved = scale * (features @ turn + rng.normal(size=features.shape[1]))
    score = parc(features, labels, n_components=6)
    assert parc(moved, labels, n_components=6) == pytest.approx(score, abs=2e-4)


@given(seed=SEEDS, n_levels=st.integers(2, 3), kind=st.sampled_from(["classes", "multilabel"]))
@settings(max_examples=60, deadline=None)
def test_ties_are_at_the_mean_of_their_ranks(seed, n_levels, kind):
    rng = np.random.default_rng(seed)
    features = rng.integers(0, n_levels, (25, 4)).astype(float)
    labels = rng.integers(0, 3, 25) if kind == "classes" else label_sets(25, 3, seed)
    rows = one_hot(labels) if kind == "classes" else labels
    expected = reference(features, pearson_distances(rows))
    assert parc(features, labels, n_components=None) == pytest.approx(expected, abs=1e-9)


def test_duplicates_are_ties_after_a_decomposition_too():
    centres = np.random.default_rng(0).normal(size=(5, 300))
    labels = np.arange(60) % 5
    distinct = pearson_distances(components(centres[labels], 32)).round(6)
    assert np.unique(distinct).size <= 11
    expected = spearmanr(distinct, pearson_distances(one_hot(labels)).round(10))[0]
    for dtype in (np.float32, np.float64):
        assert parc(centres[labels].astype(dtype), labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", ["classes", "multilabel", "regression"])
@pytest.mark.parametrize("n_components", [None, 4])
def test_inputs_stay_as_they_are(kind, n_components):
    features, labels = problem(30, 12)
    if kind == "multilabel":
        labels = label_sets(30, 4)
    features.flags.writeable = labels.flags.writeable = False
    parc(features, labels, n_components=n_components, kind=kind)


@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1e30, 1e300])
def test_the_unit_of_features_may_be_any(unit):
    features, labels = problem(60, 80)
    for n_components in (None, 8):
        score = parc(features, labels, n_components=n_components)
        scaled = parc(unit * features, labels, n_components=n_components)
        assert scaled == pytest.approx(score, abs=2e-4)


def test_other_layouts_and_half_precision_are_read():
    features, labels = problem(60, 80, dtype=np.float16)
    score = parc(features.astype(np.float32), labels)
    assert parc(features, labels) == score
    assert parc(np.asfortranarray(features.astype(np.float32)), labels) == score
    assert parc(np.repeat(features.astype(np.float32), 2, axis=1)[:, ::2], labels) == score


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_components", [None, 32])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_constant_features_are_refused_with_the_reason(n_components, value, dtype, shape):
    labels = np.arange(shape[0]) % 3
    with pytest.raises(ProbeSetError, match="features: no two examples are closer"):
        parc(np.full(shape, value, dtype=dtype), labels, n_components=n_components)
    # The same row of any values, which has no zero variance, is all distances 0.
    rows = np.tile(np.random.default_rng(0).normal(size=shape[1]).astype(dtype), (shape[0], 1))
    with pytest.raises(ProbeSetError, match="features: no two examples are closer"):
        parc(rows, labels, n_components=n_components)
    with pytest.raises(ProbeSetError, match="features: no two examples are closer"):
        parc(rows, one_hot(labels), n_components=n_components)


@pytest.mark.parametrize(
    ("features", "labels", "arguments", "reason"),
    [
        (np.ones((5, 1)) * np.arange(5)[:, None], [0, 0, 1, 1, 1], {}, "more than one feature"),
        (np.eye(5), [0, 0, 1, 1, 1], {"n_components": 1}, "more than one feature or component"),
        (np.eye(2), [0, 1], {}, "at least 3 examples"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], {}, "row 0, column 0 is nan"),
        (np.ones(4), [0, 0, 1, 1], {}, "expected .n_probe, n_features."),
        (np.eye(4), [0, 0, 1], {}, r"labels: got shape \(3,\)"),
        (np.eye(4), [0, 0, 0, 0], {}, "1 class among 4"),
        (np.eye(4), [0, 1, 2, 3], {}, "no two examples share a class"),
        (np.eye(4), [0.5, 0, 1, 1], {}, "kind='regression'"),
        (np.eye(4), np.eye(4) / 2, {}, "kind='regression'"),
        (np.eye(4), np.ones((4, 3)), {}, "labels: no two examples are closer"),
        (np.eye(4), np.eye(4)[:, :1], {}, "labels: no two examples are closer"),
        (np.eye(4), np.ones(4), {"kind": "regression"}, "labels: no two examples are closer"),
        (np.eye(4), np.full(4, np.nan), {"kind": "regression"}, "finite"),
        ([[1.7e308, 0], [-1.7e308, 1], [0, 2]], [0, 0, 1], {}, "overflow"),
        (np.eye(3)[[0, 1] * 30000, :2], [0, 1] * 30000, {}, "take a sample of 46340"),
    ],
)
def test_bad_probe_sets_are_refused_with_the_reason(features, labels, arguments, reason):
    with pytest.raises(ProbeSetError, match=reason):
        parc(features, labels, **arguments)


@pytest.mark.parametrize("arguments", [{"n_components": 0}, {"kind": "ranking"}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(UsageError, match=next(iter(arguments))):
        parc(np.eye(4), [0, 0, 1, 1], **arguments)


# ---- depth ---------------------------------------------------------------------------------------


def test_depth_is_added_as_worked_by_hand():
    # Mean 2, deviation of a sample 1; depths as shares of 50 (the paper's four architectures).
    result = add_depth([1.0, 2.0, 3.0], [50, 18, 8])
    np.testing.assert_allclose(result, [-1 + 1, 0 + 0.36, 1 + 0.16], rtol=1e-12)


def test_depth_is_added_to_any_unit_of_score_alike():
    scores, depths = np.array([0.3, 0.1, 0.4, 0.15]), [8, 50, 18, 22]
    np.testing.assert_allclose(add_depth(100 * scores - 7, depths), add_depth(scores, depths))


def test_a_model_without_a_score_counts_for_nothing():
    result = add_depth([1.0, np.nan, 2.0, 3.0], [10, 20, 10, 10])
    np.testing.assert_allclose(result, [-0.5, np.nan, 0.5, 1.5])


@pytest.mark.parametrize("scores", [[0.2, 0.2, 0.2], [0.2, np.nan, np.nan], [np.nan] * 3])
def test_depth_alone_decides_between_equal_scores(scores):
    result = add_depth(scores, [5, 10, 20])
    np.testing.assert_allclose(result, np.where(np.isnan(scores), np.nan, [0.25, 0.5, 1.0]))


def test_no_models_have_no_scores():
    assert add_depth([], []).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "depths"),
    [
        ([1.0, 2.0], [1]),
        ([[1.0, 2.0]], [[1, 2]]),
        ([1.0, 2.0], [0, 5]),
        ([1.0, 2.0], [np.nan, 5]),
        ([1.0, 2.0], [np.inf, 5]),
        ([1.0, np.inf], [1, 5]),
    ],
)
def test_bad_depths_are_refused(scores, depths):
    with pytest.raises(UsageError, match="depths: "):
        add_depth(scores, depths)
