"""Designs of pairs: the same matrix whether it is made or only multiplied with."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.catalog.encoding import ColumnEncoder, RawColumns, id_features
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners.design import (
    as_design,
    check_fit_input,
    group_folds,
    pair_design,
    row_design,
)


def features(n_rows, name, seed):
    rng = np.random.default_rng(seed)
    raw = RawColumns(
        n_rows=n_rows,
        numeric={f"{name}_x": np.where(rng.random(n_rows) < 0.3, np.nan, rng.normal(size=n_rows))},
        categorical={f"{name}_c": [["a", "b", None][i] for i in rng.integers(0, 3, n_rows)]},
        tokens={},
        fields={},
    )
    return ColumnEncoder().fit(raw).transform(raw)


@pytest.fixture(name="design")
def design_fixture():
    rng = np.random.default_rng(0)
    return pair_design(
        features(9, "task", 1),
        rng.integers(0, 9, 40),
        features(11, "model", 2),
        rng.integers(0, 11, 40),
        ids=[(id_features("model_id", 5), rng.integers(-1, 5, 40))],
    )


def test_products_equal_those_of_the_matrix(design):
    rng = np.random.default_rng(3)
    matrix = design.linear()
    weights, values = rng.normal(size=matrix.shape[1]), rng.normal(size=40)
    np.testing.assert_allclose(design.dot(weights), matrix @ weights, atol=1e-12)
    np.testing.assert_allclose(design.transposed_dot(values), matrix.T @ values, atol=1e-12)
    np.testing.assert_allclose(
        design.transposed_dot(values, squared=True), matrix.power(2).T @ values, atol=1e-12
    )


def test_names_fields_and_kinds_fit_the_columns(design):
    n_linear, n_trees = design.linear().shape[1], design.trees().shape[1]
    assert len(design.linear_names) == len(design.linear_fields) == design.n_linear == n_linear
    assert design.kinds.shape == (n_linear,)
    assert len(design.tree_names) == len(design.tree_fields) == n_trees
    assert [design.tree_names[i] for i in design.categorical] == ["task_c", "model_c", "model_id"]


def test_position_minus_one_is_no_id(design):
    unknown = design.blocks[2][1] == 5
    assert unknown.any()
    ids = design.linear()[:, -5:].toarray()
    np.testing.assert_array_equal(ids.sum(axis=1), ~unknown)
    np.testing.assert_array_equal(np.isnan(design.trees()[:, -1]), unknown)


def test_rows_can_be_taken_from_every_form(design):
    rows = np.array([5, 5, 0])
    for form in (design, design.linear(), design.linear().toarray()):
        taken = as_design(form).take(rows)
        assert taken.n_rows == 3
        assert taken.n_linear == design.n_linear
        np.testing.assert_array_equal(taken.linear().toarray(), design.linear().toarray()[rows])
        weights, values = np.arange(1.0, 1.0 + taken.n_linear), np.array([1.0, -2.0, 0.5])
        matrix = taken.linear().toarray()
        np.testing.assert_allclose(taken.dot(weights), matrix @ weights)
        np.testing.assert_allclose(taken.transposed_dot(values), matrix.T @ values)
        squares = taken.transposed_dot(values, squared=True)
        np.testing.assert_allclose(squares, (matrix**2).T @ values)
    np.testing.assert_array_equal(design.take(rows).trees(), design.trees()[rows])


def test_rows_of_one_table():
    own = features(6, "m", 0)
    np.testing.assert_array_equal(row_design(own).linear().toarray(), own.linear.toarray())
    chosen = row_design(own, np.array([2, 1]))
    np.testing.assert_array_equal(chosen.trees(), own.trees[[2, 1]])


def test_misuse_is_refused():
    own = features(6, "m", 0)
    with pytest.raises(DataError, match="do not fit 6 rows"):
        row_design(own, np.array([6]))
    with pytest.raises(UsageError, match="one position a pair"):
        pair_design(own, np.array([0]), own, np.array([0, 1]))
    matrix = np.zeros((3, 1))
    with pytest.raises(DataError, match="no rows"):
        check_fit_input(as_design(np.zeros((0, 1))), np.zeros(0), None)
    with pytest.raises(DataError, match="target has shape"):
        check_fit_input(as_design(matrix), np.zeros(2), None)
    with pytest.raises(DataError, match="groups has shape"):
        check_fit_input(as_design(matrix), np.zeros(3), np.zeros(2, dtype=np.int64))
    with pytest.raises(DataError, match="row 1 is nan"):
        check_fit_input(as_design(sp.csr_array(matrix)), np.array([0.0, np.nan, 1.0]), None)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 8))
def test_folds_keep_groups_whole_and_are_balanced(groups, n_folds):
    groups = np.array(groups)
    folds = group_folds(groups, n_folds)
    for group in np.unique(groups):
        assert np.unique(folds[groups == group]).size == 1
    sizes = np.bincount(folds)
    assert sizes.size == min(n_folds, np.unique(groups).size)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()
