"""Trees kept as arrays answer as LightGBM does, bit for bit; damaged ones are refused."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
import scipy.sparse as sp
from child import loaded_by

from recsys_ms.core.errors import ArtifactError, DataError
from recsys_ms.core.state import State
from recsys_ms.learners import booster
from recsys_ms.learners.booster import MAX_DEPTH, BoostedTrees, TrainedTrees

#: What changes how LightGBM splits, treats unknown values, or writes its trees.
SETTINGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "zero is unknown": {"zero_as_missing": True},
    "nothing is unknown": {"use_missing": False},
    "sets of categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.0, "min_data_per_group": 5},
    "stumps": {"num_leaves": 2},
    "many leaves": {"num_leaves": 200, "min_data_in_leaf": 1},
    "parts of the rows": {"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5},
    "at random": {"extra_trees": True},
    "dart": {"boosting": "dart"},
    "huber": {"objective": "huber", "linear_lambda": 0.0},
    "no split": {"min_gain_to_split": 1e9},
}


def a_table(n_rows: int, seed: int) -> np.ndarray:
    """Numbers, two columns of codes, many 0 and many unknown, one unknown or 1."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(n_rows, 6))
    found[rng.random(found.shape) < 0.2] = 0.0
    found[:, 3], found[:, 4] = rng.integers(0, 70, n_rows), rng.integers(0, 4, n_rows)
    found[rng.random(found.shape) < 0.2] = np.nan
    found[:, 5] = np.where(rng.random(n_rows) < 0.5, np.nan, 1.0)
    return found


def train(*, categorical: list[int], n_trees: int = 40, **options: Any) -> lgb.Booster:
    table = a_table(400, seed=0)
    known = np.nan_to_num(table)
    target = known[:, 0] - known[:, 3] % 3 + known[:, 4] + 3.0 * np.isnan(table[:, 5])
    options = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, **options}
    data = lgb.Dataset(table, label=target, categorical_feature=categorical, params=options)
    return lgb.train(options, data, num_boost_round=n_trees)


@pytest.fixture(scope="module")
def trained() -> lgb.Booster:
    return train(categorical=[3, 4], max_cat_to_onehot=1, cat_smooth=0.0, min_data_per_group=5)


@pytest.fixture(scope="module")
def stored(trained: lgb.Booster) -> State:
    return TrainedTrees(trained).stored().state()


@pytest.mark.parametrize("categorical", [[3, 4], []], ids=["categories", "numbers"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_numbers_are_those_of_lightgbm(name: str, categorical: list[int]) -> None:
    trained = train(categorical=categorical, n_trees=10, **SETTINGS[name])
    restored = BoostedTrees.from_state(TrainedTrees(trained).stored().state())
    asked = a_table(300, seed=1)
    # Categories that training did not have, and values beyond those of training.
    asked[:50, 3] = np.arange(-10, 40) * 10.0
    asked[50:60] *= 1e6
    asked[60:70] = np.inf
    np.testing.assert_array_equal(restored.predict(asked), trained.predict(asked, raw_score=True))
    np.testing.assert_array_equal(
        restored.contributions(asked), trained.predict(asked, pred_contrib=True)
    )


def test_every_form_of_rows(trained: lgb.Booster, stored: State) -> None:
    trees = BoostedTrees.from_state(stored)
    table = a_table(100, seed=2)
    sparse = sp.csr_matrix(np.nan_to_num(table))
    wide = sp.csr_matrix(
        (sparse.data, sparse.indices.astype(np.int64), sparse.indptr.astype(np.int64)),
        shape=sparse.shape,
    )
    fresh = TrainedTrees(trained)
    forms = (table, np.asfortranarray(table)[::2], table[:1], sparse, wide, sparse[:1])
    for asked in forms:
        expected = trained.predict(asked, pred_contrib=True)
        expected = expected.toarray() if sp.issparse(expected) else expected
        for each in (trees, pickle.loads(pickle.dumps(trees)), fresh):
            np.testing.assert_array_equal(
                each.predict(asked), trained.predict(asked, raw_score=True)
            )
            np.testing.assert_array_equal(each.contributions(asked), expected)
    again = pickle.loads(pickle.dumps(fresh))
    np.testing.assert_array_equal(again.predict(table), trees.predict(table))


def test_what_cannot_be_asked_or_stored(stored: State) -> None:
    with pytest.raises(DataError, match="3 columns, the trees 6"):
        BoostedTrees.from_state(stored).predict(np.zeros((1, 3)))
    with pytest.raises(DataError, match="expected one output"):
        BoostedTrees.from_text("no trees")
    with pytest.raises(DataError, match="got linear ones"):
        TrainedTrees(train(categorical=[], n_trees=2, linear_tree=True)).stored()
    with pytest.raises(DataError, match="one output"):
        TrainedTrees(
            train(categorical=[], boosting="rf", bagging_fraction=0.5, bagging_freq=1)
        ).stored()


def at(name: str, row: int, value: float) -> Callable[[State], State]:
    """A change of one number, as it comes from a file."""

    def change(state: State) -> State:
        arrays = {k: v.astype(np.float64 if v.dtype.kind == "f" else np.int64) for k, v in
                  state.arrays.items()}  # fmt: skip
        arrays[name][row] = value
        values = {name: {"array": name} for name in arrays}
        return replace(state, arrays=arrays, values={**state.values, **values})

    return change


def cut(name: str) -> Callable[[State], State]:
    """The last number of an array is missing."""
    return lambda state: replace(state, arrays={**state.arrays, name: state.arrays[name][:-1]})


def chain(n_leaves: int) -> State:
    """One tree, each split of which has the next on its right."""
    trees = BoostedTrees()
    trees.n_columns = 1
    n_splits = n_leaves - 1
    trees.n_leaves, trees.n_sets = np.array([n_leaves]), np.array([0])
    trees.feature = np.zeros(n_splits, dtype=np.int64)
    trees.threshold = np.arange(n_splits) + 0.5
    trees.decision = np.full(n_splits, 2)
    trees.left = ~np.arange(n_splits)
    trees.right = np.append(np.arange(1, n_splits), ~n_splits)
    trees.leaf_value = np.arange(n_leaves) * 1.0
    trees.leaf_count = np.ones(n_leaves, dtype=np.int64)
    trees.set_words = trees.words = np.zeros(0, dtype=np.int64)
    trees._counts, trees._engine = np.zeros(0, dtype=np.int64), None
    return trees.state()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("feature", 3, 6), "a column that is not there"),
        (at("feature", 3, -1), "expected at least 0"),
        (at("feature", 3, 2**40), "a column that is not there"),
        (at("threshold", 3, np.nan), "a threshold that is NaN"),
        (at("decision", 0, 3), "a comparison of an unknown kind"),
        (at("decision", 0, 255), "a comparison of an unknown kind"),
        (at("right", 3, 0), "a branch that leads outside or back"),
        (at("left", 0, 1_000_000), "a branch that leads outside or back"),
        (at("left", 0, -1_000_000), "a branch that leads outside or back"),
        (at("left", 0, -(2**63)), "a branch that leads outside or back"),
        (at("right", 0, 2**63 - 1), "a branch that leads outside or back"),
        (at("leaf_value", 0, np.nan), "numbers that are not finite"),
        (at("leaf_value", 0, np.inf), "numbers that are not finite"),
        (at("leaf_count", 0, 0), "expected at least 1"),
        (at("leaf_count", 0, 2**40), "at most 2.14748e"),
        (at("n_leaves", 0, 0), "expected at least 1"),
        (at("n_leaves", 0, 2**62), "expected at least 1, at most"),
        (at("n_leaves", 0, 5), "splits, expected"),
        (at("n_sets", 0, 1000), "sets, expected"),
        (at("set_words", 0, 1000), "words, expected"),
        (at("words", 0, -1), "expected at least 0"),
        (at("words", 0, 2**32), "at most 4.29497e"),
        *((cut(name), "expected|along the axis") for name in
          ("left", "leaf_value", "leaf_count", "n_leaves", "set_words", "words", "threshold")),
        (lambda state: replace(state, values={**state.values, "n_columns": 2**31}), "at most"),
        (lambda state: replace(state, values={**state.values, "n_columns": 3}), "a column that"),
        (lambda _: chain(MAX_DEPTH + 2), "more than 64 splits above a leaf"),
    ],
)  # fmt: skip
def test_damaged_trees_are_refused(
    stored: State, change: Callable[[State], State], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        BoostedTrees.from_state(change(stored))


def test_a_leaf_with_two_branches_is_refused(stored: State) -> None:
    leaves = [int(i) for i in np.flatnonzero(stored.arrays["left"] < 0)[:2]]
    twice = at("left", leaves[0], int(stored.arrays["left"][leaves[1]]))
    with pytest.raises(ArtifactError, match="no branch"):
        BoostedTrees.from_state(twice(stored))


def test_a_set_of_categories_that_is_not_there_is_refused(stored: State) -> None:
    is_set = np.flatnonzero(stored.arrays["decision"] & 1)
    for value in (1000.0, -1.0, 0.5, np.inf):
        with pytest.raises(ArtifactError, match="an unknown set"):
            BoostedTrees.from_state(at("threshold", int(is_set[0]), value)(stored))


def test_the_deepest_tree_that_is_taken() -> None:
    trees = BoostedTrees.from_state(chain(MAX_DEPTH + 1))
    np.testing.assert_array_equal(
        trees.predict(np.arange(MAX_DEPTH + 1.0)[:, None]), np.arange(MAX_DEPTH + 1.0)
    )
    # Every row of training once: the expected value is the mean.
    assert trees.contributions(np.zeros((1, 1)))[0, -1] == pytest.approx(MAX_DEPTH / 2)


def test_an_installation_that_hides_its_library(
    trained: lgb.Booster, stored: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    booster._library.cache_clear()
    monkeypatch.setattr(booster, "_PLACES", ())
    table = a_table(10, seed=2)
    found = BoostedTrees.from_state(stored).predict(table)
    booster._library.cache_clear()
    np.testing.assert_array_equal(found, trained.predict(table, raw_score=True))


def test_neither_lightgbm_nor_scikit_learn_is_imported(trained: lgb.Booster) -> None:
    code = """
        import sys
        from recsys_ms.learners.booster import BoostedTrees
        BoostedTrees.from_text(sys.stdin.read())
    """
    text = trained.model_to_string()
    assert loaded_by(code, "lightgbm", "sklearn", "scipy.stats", stdin=text) == set()
