"""Boosted trees: unknown values, ranking labels, threads, text state."""

import numpy as np
import pytest

from recsys_ms.catalog.encoding import ColumnEncoder, RawColumns
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners import trees as lightgbm
from recsys_ms.learners.design import row_design
from recsys_ms.learners.trees import LightGBMConfig, LightGBMHead, group_labels, label_gains

SMALL = LightGBMConfig(n_trees=60, learning_rate=0.1)


def problem(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n_rows, 4))
    return design, np.sin(2 * design[:, 0]) + design[:, 1] * (design[:, 2] > 0)


def ranking(n_groups, n_models, seed=0):
    """Groups with offsets and scales of their own; the order within all follows one score."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), n_models)
    design = rng.normal(size=(groups.size, 3))
    score = design[:, 0] + 0.5 * design[:, 1] ** 2
    return design, score + 0.1 * rng.normal(size=groups.size), groups


def test_a_function_of_the_columns_is_learned():
    design, target = problem(800)
    head = LightGBMHead(LightGBMConfig(n_trees=300, learning_rate=0.1)).fit(
        design[:600], target[:600], rng=0
    )
    assert head.objective_ == "regression"
    assert np.corrcoef(head.predict(design[600:]), target[600:])[0, 1] > 0.95


def test_a_design_with_categories_and_unknown_numbers_is_understood():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 400)
    numbers = np.where(kinds == 3, np.nan, rng.normal(size=400))
    raw = RawColumns(
        n_rows=400,
        numeric={"x": numbers},
        categorical={"c": [["a", "b", "c", None][i] for i in rng.permutation(kinds)]},
        tokens={},
        fields={},
    )
    features = ColumnEncoder().fit(raw).transform(raw)
    code = features.trees[:, features.categorical[0]]
    target = 2.0 * np.isnan(numbers) + np.where((code == 0) | (code == 3), 1.0, -1.0)
    head = LightGBMHead(LightGBMConfig(n_trees=200, learning_rate=0.1)).fit(
        row_design(features), target, rng=0
    )
    # An unknown number is not a 0; the unknown category goes with one that is not its neighbour.
    # Steps of 2 apart, so 0.3 tells every state from every other.
    np.testing.assert_allclose(head.predict(row_design(features)), target, atol=0.3)


def test_the_answer_depends_on_the_seed_and_not_on_the_threads():
    design, target, groups = ranking(40, 100)
    for objective in ("regression", "lambdarank"):
        predictions = {}
        for seed, threads in ((0, 1), (0, 2), (1, 1)):
            config = LightGBMConfig(objective=objective, n_trees=40, n_threads=threads)
            head = LightGBMHead(config).fit(design, target, groups=groups, rng=seed)
            predictions[seed, threads] = head.predict(design)
        np.testing.assert_array_equal(predictions[0, 1], predictions[0, 2])
        assert not np.array_equal(predictions[0, 1], predictions[1, 1])


def test_lambdarank_learns_the_order_from_scattered_groups():
    design, target, groups = ranking(40, 40)
    config = LightGBMConfig(objective="lambdarank", n_trees=100)
    shuffled = np.random.default_rng(1).permutation(groups.size)
    head = LightGBMHead(config).fit(design[shuffled], target[shuffled], groups=groups[shuffled])
    assert head.objective_ == "lambdarank"
    test_design, test_target, _ = ranking(1, 500, seed=2)
    predicted = head.predict(test_design)
    assert (
        np.corrcoef(np.argsort(np.argsort(predicted)), np.argsort(np.argsort(test_target)))[0, 1]
        > 0.9
    )
    # The line brings scores to the unit of the target.
    assert abs(predicted.mean() - test_target.mean()) < 0.3
    assert 0.5 < predicted.std() / test_target.std() < 1.5


@pytest.mark.parametrize(("n_groups", "n_models"), [(9, 200), (20, 20), (200, 1)])
def test_a_small_history_falls_back_to_regression(n_groups, n_models):
    design, target, groups = ranking(n_groups, n_models)
    config = LightGBMConfig(objective="lambdarank", n_trees=5)
    assert LightGBMHead(config).fit(design, target, groups=groups).objective_ == "regression"


def test_without_groups_there_is_nothing_to_rank_within():
    design, target, _ = ranking(40, 40)
    config = LightGBMConfig(objective="lambdarank", n_trees=5)
    assert LightGBMHead(config).fit(design, target).objective_ == "regression"


def test_labels_are_quantiles_within_the_group():
    groups = np.array([7, 3, 7, 3, 7, 7, 5])
    target = np.array([0.1, 9.0, 0.3, 8.0, 0.3, 0.2, 1.0])
    np.testing.assert_array_equal(group_labels(target, groups), [0, 31, 31, 0, 31, 16, 0])
    many = group_labels(np.random.default_rng(0).normal(size=1000), np.zeros(1000, dtype=np.int64))
    assert set(np.unique(many)) == set(range(32))
    assert len(label_gains()) == 32
    assert list(label_gains()) == sorted(label_gains())


def test_groups_that_lightgbm_refuses_are_dealt_out(monkeypatch):
    monkeypatch.setattr(lightgbm, "_MAX_QUERY", 30)
    groups = np.array([1] * 70 + [0] * 10)[np.random.default_rng(0).permutation(80)]
    queries = lightgbm._queries(groups)
    assert np.bincount(queries).tolist() == [10, 24, 23, 23]
    for query in range(4):
        assert np.unique(groups[queries == query]).size == 1


@pytest.mark.parametrize("objective", ["regression", "lambdarank"])
def test_state_is_arrays_and_restores_bit_for_bit(objective):
    design, target, groups = ranking(20, 60)
    config = LightGBMConfig(objective=objective, n_trees=20)
    head = LightGBMHead(config).fit(design, target, groups=groups, rng=3)
    before = head.predict(design), head.contributions(design).amounts
    state = head.state()
    assert state.children["_trees"].arrays["leaf_value"].size > 20
    assert not state.texts
    restored = LightGBMHead.from_state(state)
    assert restored.objective_ == objective
    assert restored.config == config
    for each in (head, restored):
        np.testing.assert_array_equal(each.predict(design), before[0])
        np.testing.assert_array_equal(each.contributions(design).amounts, before[1])


def test_a_handful_of_rows_is_enough():
    design, target = problem(12)
    head = LightGBMHead(SMALL).fit(design, target, rng=0)
    assert np.corrcoef(head.predict(design), target)[0, 1] > 0.3


@pytest.mark.parametrize(
    ("design", "target"),
    [(np.zeros((5, 0)), np.arange(5.0)), (np.arange(10.0).reshape(5, 2), np.full(5, 2.0))],
    ids=["no columns", "constant target"],
)
def test_without_information_the_answer_is_the_mean(design, target):
    head = LightGBMHead(SMALL).fit(design, target)
    np.testing.assert_array_equal(head.predict(design), np.full(5, 2.0))
    np.testing.assert_array_equal(head.contributions(design).total, np.full(5, 2.0))
    restored = LightGBMHead.from_state(head.state())
    np.testing.assert_array_equal(restored.predict(design), np.full(5, 2.0))


def test_inputs_stay_and_a_second_fit_forgets_the_first():
    design, target = problem(100)
    before = design.copy()
    head = (
        LightGBMHead(SMALL).fit(design[:, ::-1].copy(), -target, rng=0).fit(design, target, rng=0)
    )
    np.testing.assert_array_equal(
        head.predict(design), LightGBMHead(SMALL).fit(design, target, rng=0).predict(design)
    )
    np.testing.assert_array_equal(design, before)
    assert head.predict(design[:0]).shape == (0,)


def test_misuse_is_refused():
    design, target = problem(20)
    with pytest.raises(DataError, match="3 columns"):
        LightGBMHead(SMALL).fit(design, target).predict(design[:, :3])
    with pytest.raises(UsageError, match="objective"):
        LightGBMConfig(objective="poisson")
    with pytest.raises(UsageError, match="n_leaves"):
        LightGBMConfig(n_leaves=1)
    with pytest.raises(UsageError, match="learning_rate"):
        LightGBMConfig(learning_rate=0.0)
    with pytest.raises(UsageError, match="min_rows_in_leaf"):
        LightGBMConfig(min_rows_in_leaf=0)
