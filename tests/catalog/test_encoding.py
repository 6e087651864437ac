"""Columns to matrices: standardisation, unknown and unseen values, names, state."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.decomposition import PCA

from recsys_ms.catalog.encoding import (
    INDICATOR,
    NUMBER,
    PRODUCT,
    ColumnEncoder,
    EncodingConfig,
    RawColumns,
    id_features,
)
from recsys_ms.core.errors import DataError, NotFittedError, UsageError


def raw(*, numeric=None, categorical=None, tokens=None, fields=None):
    columns = [*(numeric or {}).values(), *(categorical or {}).values(), *(tokens or {}).values()]
    return RawColumns(
        n_rows=len(columns[0]),
        numeric={k: np.array(v, dtype=float) for k, v in (numeric or {}).items()},
        categorical=categorical or {},
        tokens=tokens or {},
        fields=fields or {},
    )


def column(features, name):
    return features.linear[:, [features.linear_names.index(name)]].toarray().ravel()


def test_numbers_are_standardised_by_the_training_rows():
    encoder = ColumnEncoder().fit(raw(numeric={"x": [1.0, 3.0]}))
    features = encoder.transform(raw(numeric={"x": [1.0, 2.0, 9.0]}))
    np.testing.assert_allclose(column(features, "x"), [-1.0, 0.0, 7.0])
    np.testing.assert_array_equal(features.trees[:, 0], np.float32([1.0, 2.0, 9.0]))


def test_an_unknown_number_is_a_state_of_its_own():
    encoder = ColumnEncoder().fit(raw(numeric={"x": [1.0, 3.0, np.nan]}))
    features = encoder.transform(raw(numeric={"x": [2.0, np.nan]}))
    # 2.0 is the training mean: in the linear form it differs from unknown by the indicator alone.
    np.testing.assert_array_equal(column(features, "x"), [0.0, 0.0])
    np.testing.assert_array_equal(column(features, "x=unknown"), [0.0, 1.0])
    assert np.isnan(features.trees[1, 0])


def test_unknown_rare_and_unseen_categories_are_told_apart():
    seen = ["a", "a", "b", "b", "rare", None]
    encoder = ColumnEncoder().fit(raw(categorical={"c": seen}))
    features = encoder.transform(raw(categorical={"c": ["a", "b", "rare", "new", None]}))
    assert features.linear_names == ("c=unknown", "c=other", "c=a", "c=b")
    np.testing.assert_array_equal(
        features.linear.toarray(),
        [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]],
    )
    np.testing.assert_array_equal(features.trees.ravel(), [2, 3, 1, 1, 0])
    assert features.categorical == (0,)


def test_a_state_that_training_never_had_gets_no_linear_column():
    encoder = ColumnEncoder().fit(raw(categorical={"c": ["a", "a", "b", "b"]}))
    features = encoder.transform(raw(categorical={"c": ["new", None]}))
    assert features.linear_names == ("c=a", "c=b")
    assert features.linear.nnz == 0
    np.testing.assert_array_equal(features.trees.ravel(), [1, 0])


def test_tokens_are_multi_hot_and_rare_or_general_ones_are_left_out():
    words = [("vit", "x"), ("vit", "base", "x"), ("base", "odd", "x"), ("x",)]
    encoder = ColumnEncoder().fit(raw(tokens={"w": words}))
    features = encoder.transform(raw(tokens={"w": [("base", "vit", "new"), (), None]}))
    assert features.linear_names == ("w=base", "w=vit")
    np.testing.assert_array_equal(features.linear.toarray(), [[1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(features.trees, np.float32([[1, 1], [0, 0], [np.nan, np.nan]]))


def test_columns_without_information_are_dropped():
    encoder = ColumnEncoder().fit(
        raw(
            numeric={"same": [2.0, 2.0], "none": [np.nan, np.nan], "x": [0.0, 1.0]},
            categorical={"one": ["a", "a"], "never": [None, None]},
            tokens={"w": [("a",), ("a",)]},
        )
    )
    features = encoder.transform(raw(numeric={"x": [0.5]}))
    assert features.linear_names == ("x",)
    assert features.tree_names == ("x",)


def test_a_constant_number_that_is_sometimes_unknown_still_says_so():
    encoder = ColumnEncoder().fit(raw(numeric={"x": [2.0, 2.0, np.nan]}))
    features = encoder.transform(raw(numeric={"x": [2.0, np.nan]}))
    assert features.linear_names == ("x=unknown",)
    np.testing.assert_array_equal(features.linear.toarray().ravel(), [0, 1])


def test_quadratic_adds_products_of_standardised_numbers():
    data = raw(numeric={"a": [1.0, 3.0, np.nan], "b": [0.0, 1.0, 2.0]})
    encoder = ColumnEncoder(EncodingConfig(quadratic=True)).fit(data)
    features = encoder.transform(data)
    assert features.linear_names == ("a", "b", "a*a", "a*b", "b*b", "a=unknown")
    np.testing.assert_array_equal(features.kinds, [NUMBER] * 2 + [PRODUCT] * 3 + [INDICATOR])
    np.testing.assert_allclose(
        column(features, "a*b"), column(features, "a") * column(features, "b")
    )


def test_the_numbers_of_a_vector_get_no_products():
    data = raw(
        numeric={"a": [1.0, 3.0], "embedding_0": [0.0, 1.0], "embedding_1": [1.0, 0.0]},
        fields={"embedding_0": "embedding", "embedding_1": "embedding"},
    )
    features = ColumnEncoder(EncodingConfig(quadratic=True)).fit(data).transform(data)
    assert features.linear_names == ("a", "embedding_0", "embedding_1", "a*a")


def test_trees_see_the_leading_directions_of_a_vector():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(12, 5)) * [5.0, 4.0, 3.0, 2.0, 1.0] + 7.0
    names = [f"embedding_{i}" for i in range(5)]
    numeric = dict(zip(names, table.T, strict=True))
    numeric[names[2]] = np.append(numeric[names[2]][:-1], np.nan)
    fields = dict.fromkeys(names, "embedding")
    data = raw(numeric=numeric, fields=fields)
    encoder = ColumnEncoder(EncodingConfig(max_tree_directions=3)).fit(data)
    features = encoder.transform(data)
    assert features.tree_names == ("direction_0", "direction_1", "direction_2")
    assert np.isnan(features.trees[-1]).all()
    # Each column by its own mean and spread over the rows that know it, as linear learners see it.
    known = np.array([column(features, name) for name in names]).T[:-1]
    peer = PCA(3, svd_solver="full").fit(known)
    ours = features.trees[:-1] - features.trees[:-1].mean(axis=0)
    np.testing.assert_allclose(np.abs(ours), np.abs(peer.transform(known)), atol=1e-5)
    alone = encoder.transform(raw(numeric={n: v[3:4] for n, v in numeric.items()}, fields=fields))
    np.testing.assert_array_equal(alone.trees, features.trees[3:4])


def test_a_vector_without_spread_or_unknown_throughout_has_no_direction():
    fields = {"embedding_0": "embedding", "embedding_1": "embedding"}
    flat = raw(numeric={"embedding_0": [1.0, 1.0], "embedding_1": [np.nan, np.nan]}, fields=fields)
    assert ColumnEncoder().fit(flat).transform(flat).tree_names == ()
    apart = raw(numeric={"embedding_0": [1.0, 2.0, np.nan], "embedding_1": [np.nan, 2.0, 1.0]})
    apart = raw(numeric=apart.numeric, fields=fields)
    assert ColumnEncoder().fit(apart).transform(apart).tree_names == ()


def test_caps_keep_the_most_frequent():
    config = EncodingConfig(min_count=1, max_categories=1, max_tokens=2, max_tree_tokens=1)
    data = raw(
        categorical={"c": ["a", "b", "b"]},
        tokens={"w": [("p", "q"), ("p", "q", "r"), ()]},
    )
    features = ColumnEncoder(config).fit(data).transform(data)
    assert features.linear_names == ("c=other", "c=b", "w=p", "w=q")
    assert features.tree_names == ("c", "w=p")


def test_fields_follow_the_columns():
    data = raw(numeric={"log_x": [0.0, 1.0]}, categorical={"c": ["a", "b"]}, fields={"log_x": "x"})
    features = ColumnEncoder(EncodingConfig(min_count=1)).fit(data).transform(data)
    assert features.linear_fields == ("x", "c", "c")
    assert features.tree_fields == ("x", "c")


@given(
    hnp.arrays(float, (7, 2), elements=st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")))),
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=7, max_size=7),
)
def test_order_of_columns_and_state_survive_json(numbers, categories):
    def data(order):
        return raw(
            numeric={name: numbers[:, int(name)] for name in order}, categorical={"c": categories}
        )

    encoder = ColumnEncoder().fit(data("01"))
    one, other = (
        encoder.transform(data("01")),
        ColumnEncoder().fit(data("10")).transform(data("10")),
    )
    assert one.linear_names == other.linear_names
    np.testing.assert_array_equal(one.linear.toarray(), other.linear.toarray())
    assert np.isfinite(one.linear.toarray()).all()
    state = encoder.state()
    values = json.loads(json.dumps(state.values, sort_keys=True))
    restored = ColumnEncoder.from_state(replace(state, values=values)).transform(data("01"))
    assert restored.linear_names == one.linear_names
    np.testing.assert_array_equal(restored.linear.toarray(), one.linear.toarray())
    np.testing.assert_array_equal(restored.trees, one.trees)


def test_a_row_does_not_depend_on_the_others():
    data = raw(numeric={"x": [1.0, 2.0, np.nan]}, categorical={"c": ["a", None, "a"]})
    encoder = ColumnEncoder().fit(data)
    whole = encoder.transform(data)
    single = encoder.transform(raw(numeric={"x": [2.0]}, categorical={"c": [None]}))
    np.testing.assert_array_equal(whole.linear.toarray()[1], single.linear.toarray()[0])
    np.testing.assert_array_equal(whole.trees[1], single.trees[0])


def test_ids_are_one_hot_and_the_unknown_id_is_nothing():
    features = id_features("model_id", 3)
    np.testing.assert_array_equal(features.linear.toarray(), [*np.eye(3), [0, 0, 0]])
    np.testing.assert_array_equal(features.trees.ravel(), np.float32([0, 1, 2, np.nan]))
    with pytest.raises(UsageError, match="at least one id"):
        id_features("model_id", 0)


def test_misuse_is_refused():
    with pytest.raises(NotFittedError, match="fit"):
        ColumnEncoder().transform(raw(numeric={"x": [1.0]}))
    with pytest.raises(NotFittedError, match="fit"):
        ColumnEncoder().state()
    with pytest.raises(DataError, match="at least one row"):
        ColumnEncoder().fit(raw(numeric={"x": []}))
    with pytest.raises(UsageError, match="min_count"):
        EncodingConfig(min_count=0)
    with pytest.raises(UsageError, match="max_tokens"):
        EncodingConfig(max_tokens=-1)
