"""Stored trees answer as LightGBM's own class does, bit for bit, and without its imports."""

import pickle

import lightgbm as lgb
import numpy as np
import pytest
import scipy.sparse as sp
from child import loaded_by

from recsys_ms.core.errors import DataError
from recsys_ms.learners import booster
from recsys_ms.learners.booster import StoredTrees, load_trees


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(300, 6))
    found[:, 4] = rng.integers(0, 12, 300)
    found[rng.random(found.shape) < 0.2] = np.nan
    found[:, 5] = np.where(rng.random(300) < 0.7, 0.0, found[:, 5])
    return found


@pytest.fixture(scope="module")
def trained(table: np.ndarray) -> lgb.Booster:
    target = np.nan_to_num(table[:, 0]) - np.nan_to_num(table[:, 4] % 3)
    data = lgb.Dataset(table, label=target, categorical_feature=[4])
    options = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lgb.train(options, data, num_boost_round=30)


def test_the_numbers_are_those_of_lightgbm(trained: lgb.Booster, table: np.ndarray) -> None:
    stored = load_trees(trained.model_to_string())
    assert isinstance(stored, StoredTrees)
    assert stored.model_to_string() == trained.model_to_string()
    again = pickle.loads(pickle.dumps(stored))
    sparse = sp.csr_array(np.nan_to_num(table))
    wide = sp.csr_array(
        (sparse.data, sparse.indices.astype(np.int64), sparse.indptr.astype(np.int64)),
        shape=sparse.shape,
    )
    for asked in (table, np.asfortranarray(table)[::2], table[:1], sparse, wide, sparse[:1]):
        for each in (stored, again):
            np.testing.assert_array_equal(
                each.predict(asked, raw_score=True), trained.predict(asked, raw_score=True)
            )
            expected = trained.predict(asked, pred_contrib=True)
            expected = expected.toarray() if sp.issparse(expected) else expected
            np.testing.assert_array_equal(each.predict(asked, pred_contrib=True), expected)


def test_what_cannot_be_asked(trained: lgb.Booster, table: np.ndarray) -> None:
    stored = StoredTrees(trained.model_to_string())
    with pytest.raises(ValueError, match="set exactly one"):
        stored.predict(table)
    with pytest.raises(DataError, match="number of features"):
        stored.predict(table[:, :3], raw_score=True)
    with pytest.raises(DataError, match="LightGBM"):
        load_trees("no trees")


def test_an_installation_that_hides_its_library(
    trained: lgb.Booster, table: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booster, "_library", lambda: None)
    found = load_trees(trained.model_to_string())
    assert isinstance(found, lgb.Booster)
    np.testing.assert_array_equal(
        found.predict(table, raw_score=True), trained.predict(table, raw_score=True)
    )


def test_neither_lightgbm_nor_scikit_learn_is_imported(trained: lgb.Booster) -> None:
    code = """
        import sys
        from recsys_ms.learners.booster import load_trees
        load_trees(sys.stdin.read())
    """
    text = trained.model_to_string()
    assert loaded_by(code, "lightgbm", "sklearn", "scipy.stats", stdin=text) == set()
