"""Contributions of fields: additivity of every head, Shapley values by brute force."""

from functools import partial
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.catalog.encoding import ColumnEncoder, RawColumns
from recsys_ms.core.errors import DataError, NotFittedError
from recsys_ms.learners.design import pair_design, row_design
from recsys_ms.learners.ensemble import EnsembleHead
from recsys_ms.learners.fm import FactorizationMachineConfig, FactorizationMachineHead
from recsys_ms.learners.gaussian.kernel_head import KernelConfig, KernelHead
from recsys_ms.learners.head_contributions import HeadContributions
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.product_shapley import shapley_of_products
from recsys_ms.learners.trees import LightGBMConfig, LightGBMHead

KERNEL = KernelConfig(n_tuning_rows=60, max_iterations=15)
HEADS = {
    "linear": LinearHead,
    "fm": partial(FactorizationMachineHead, FactorizationMachineConfig(l2_factors=0.3)),
    "lightgbm": partial(LightGBMHead, LightGBMConfig(n_trees=60, learning_rate=0.1)),
    "kernel": partial(KernelHead, KERNEL),
    "ensemble": partial(
        EnsembleHead,
        heads={
            "linear": LinearHead,
            "trees": partial(LightGBMHead, LightGBMConfig(n_trees=30)),
            "kernel": partial(KernelHead, KERNEL),
        },
    ),
}
every_head = pytest.mark.parametrize("name", HEADS)


def raw_columns(n_rows, seed):
    """Numbers (some unknown), a vector of three, categories and words."""
    rng = np.random.default_rng(seed)
    unknown = rng.random(n_rows) < 0.2
    return RawColumns(
        n_rows=n_rows,
        numeric={
            "size": np.where(unknown, np.nan, rng.normal(size=n_rows)),
            **{f"embedding_{i}": rng.normal(size=n_rows) for i in range(3)},
        },
        categorical={"family": rng.choice(["a", "b", "c"], n_rows).tolist()},
        tokens={"name": [tuple(rng.choice(["x", "y", "z"], 2)) for _ in range(n_rows)]},
        fields={f"embedding_{i}": "embedding" for i in range(3)},
    )


def problem(n_rows=150, seed=0):
    """A design of pairs with an interaction of both sides."""
    left, right = raw_columns(20, seed), raw_columns(25, seed + 1)
    first, second = (ColumnEncoder().fit(raw).transform(raw) for raw in (left, right))
    rng = np.random.default_rng(seed + 2)
    rows, others = rng.integers(0, 20, n_rows), rng.integers(0, 25, n_rows)
    target = (
        np.nan_to_num(left.numeric["size"])[rows] * right.numeric["embedding_0"][others]
        + np.array([family == "a" for family in right.categorical["family"]])[others]
        + 0.1 * rng.normal(size=n_rows)
    )
    return pair_design(first, rows, second, others), target


def shapley(value, n_players):
    """Shapley values by their definition, of a set function."""
    found = []
    for player in range(n_players):
        others = [p for p in range(n_players) if p != player]
        total = 0.0
        for size in range(n_players):
            weight = factorial(size) * factorial(n_players - size - 1) / factorial(n_players)
            for chosen in combinations(others, size):
                total += weight * (value({*chosen, player}) - value(set(chosen)))
        found.append(total)
    return np.array(found)


@every_head
@pytest.mark.parametrize("seed", [0, 7])
def test_base_and_amounts_are_the_prediction(name, seed):
    design, target = problem(seed=seed)
    head = HEADS[name]().fit(design, target, rng=0)
    found = head.contributions(design)
    np.testing.assert_allclose(found.total, head.predict(design), rtol=0, atol=1e-9)
    assert set(found.fields) == {"size", "embedding", "family", "name"}
    assert found.amounts.shape == (target.size, 4)
    # Every head has learned something from more than one field.
    assert (np.abs(found.amounts).max(axis=0) > 1e-3).sum() >= 2


@every_head
def test_a_plain_matrix_has_a_field_a_column(name):
    rng = np.random.default_rng(3)
    matrix = np.hstack([rng.normal(size=(80, 2)), rng.integers(0, 2, (80, 2))])
    head = HEADS[name]().fit(matrix, matrix[:, 0] * matrix[:, 1] + matrix[:, 2], rng=0)
    found = head.contributions(matrix)
    assert set(found.fields) == {"0", "1", "2", "3"}
    np.testing.assert_allclose(found.total, head.predict(matrix), rtol=0, atol=1e-9)
    sparse = head.contributions(sp.csr_array(matrix))
    np.testing.assert_allclose(sparse.amounts, found.amounts, rtol=0, atol=1e-12)


@every_head
def test_rows_stand_alone_and_a_restored_head_says_the_same(name):
    design, target = problem()
    head = HEADS[name]().fit(design, target, rng=0)
    found = head.contributions(design)
    restored = type(head).from_state(head.state()).contributions(design)
    np.testing.assert_array_equal(restored.amounts, found.amounts)
    assert (restored.base, restored.fields) == (found.base, found.fields)
    for row in (0, 17):
        alone = head.contributions(design.take(np.array([row])))
        np.testing.assert_allclose(alone.amounts[0], found.amounts[row], rtol=0, atol=1e-12)
    assert head.contributions(design.take(np.empty(0, dtype=np.int64))).amounts.shape == (0, 4)


@every_head
def test_contributions_of_an_unfitted_head_or_another_design_are_refused(name):
    with pytest.raises(NotFittedError, match="call fit"):
        HEADS[name]().contributions(np.zeros((1, 2)))
    rng = np.random.default_rng(0)
    head = HEADS[name]().fit(rng.normal(size=(30, 2)), rng.normal(size=30), rng=0)
    with pytest.raises(DataError, match="3 columns"):
        head.contributions(np.zeros((1, 3)))


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(["linear", "fm", "lightgbm", "kernel"]),
    seed=st.integers(0, 10_000),
    n_rows=st.integers(2, 40),
    n_columns=st.integers(0, 6),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
)
def test_any_design_adds_up(name, seed, n_rows, n_columns, scale):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < 0.7)
    matrix[:, : n_columns // 2] = matrix[:, : n_columns // 2] != 0.0
    target = scale * rng.normal(size=n_rows)
    head = HEADS[name]().fit(matrix, target, rng=0)
    found = head.contributions(matrix)
    np.testing.assert_allclose(found.total, head.predict(matrix), rtol=0, atol=1e-9 * scale)
    assert found.amounts.shape == (n_rows, n_columns)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n_columns=st.integers(1, 6), n_factors=st.integers(0, 4))
def test_a_machine_shares_its_interactions_as_shapley_does(seed, n_columns, n_factors):
    rng = np.random.default_rng(seed)
    config = FactorizationMachineConfig(n_factors=n_factors, max_sweeps=1)
    head = FactorizationMachineHead(config)
    head.fit(rng.normal(size=(3, n_columns)), rng.normal(size=3), rng=0)
    head.intercept_, head.coefficients_ = 0.7, rng.normal(size=n_columns)
    head.factors_ = rng.normal(size=(n_factors, n_columns))
    row = rng.normal(size=n_columns) * (rng.random(n_columns) < 0.8)

    def value(known):
        kept = np.where(np.isin(np.arange(n_columns), list(known)), row, 0.0)
        return float(head.predict(kept[None])[0])

    found = head.contributions(row[None])
    np.testing.assert_allclose(found.amounts[0], shapley(value, n_columns), rtol=0, atol=1e-10)
    assert found.base == pytest.approx(value(set()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_players=st.integers(1, 6), n_terms=st.integers(1, 5))
def test_products_are_shared_as_shapley_does(seed, n_players, n_terms):
    rng = np.random.default_rng(seed)
    factors = np.exp(-rng.exponential(size=(n_players, 2, n_terms)) * rng.choice([0.1, 1.0, 500.0]))
    addends = rng.normal(size=(n_players, 2, n_terms)) * (rng.random((n_players, 1, 1)) < 0.6)
    weights = rng.normal(size=n_terms)
    found = shapley_of_products(factors, addends, weights, alone=0.8, joint=1.7)
    for row in range(2):

        def value(known, row=row):
            own = sorted(known)
            added = 0.8 + 1.7 * addends[own, row].sum(axis=0)
            return float(weights @ (added * np.prod(factors[own, row], axis=0)))

        np.testing.assert_allclose(found[row], shapley(value, n_players), rtol=0, atol=1e-10)


def test_the_kernel_shares_by_field_what_its_formula_says():
    design, target = problem(60)
    head = KernelHead(KERNEL).fit(design, target, rng=0)
    found = head.contributions(design)
    columns = np.array(design.linear_fields)
    kinds, matrix = design.kinds, design.linear().toarray()
    numbers, words = kinds == 0, kinds == 2
    fields, sizes = np.unique(columns[numbers], return_counts=True)
    order = list(dict.fromkeys(columns[numbers]))
    setting = {name: np.exp(log) for name, log in head._logs.items()}
    scales = {name: setting[f"rate {i}"] / dict(zip(fields, sizes, strict=True))[name] for i, name
              in enumerate(order)}  # fmt: skip
    v1, v2, v3, v4 = (setting[name] for name in ("smooth", "words", "joint", "products"))
    per_row = (matrix[:, words] ** 2).sum() / matrix.shape[0]
    weights, (center, scale) = head._weights, head._target

    def value(known):
        names = [found.fields[p] for p in known]
        own_numbers = numbers & np.isin(columns, names)
        own_words = words & np.isin(columns, names)
        exponent = np.zeros(matrix.shape[0])
        for name in {*names} & {*order}:
            at = numbers & (columns == name)
            exponent += scales[name] * ((matrix[:, at] - matrix[0, at]) ** 2).sum(axis=1)
        smooth = np.exp(-0.5 * exponent)
        alike = matrix[:, own_words] @ matrix[0, own_words] / per_row
        product = matrix[:, own_numbers] @ matrix[0, own_numbers] / numbers.sum()
        kernel = v1 * smooth + v2 * alike + v3 * alike * smooth + v4 * product
        return center + scale * float(kernel @ weights)

    assert value(set(range(4))) == pytest.approx(float(head.predict(design)[0]))
    assert value(set()) == pytest.approx(found.base)
    np.testing.assert_allclose(found.amounts[0], shapley(value, 4), rtol=0, atol=1e-8)


def expected_of_tree(node, row, known):
    """Mean of a tree's leaves that a row reaches; both sides of a split on what is not known."""
    if "leaf_value" in node:
        return node["leaf_value"]
    sides = [node["left_child"], node["right_child"]]
    if node["split_feature"] in known:
        value = row[node["split_feature"]]
        if node["decision_type"] == "==":
            codes = {int(code) for code in node["threshold"].split("||")}
            goes_left = not np.isnan(value) and int(value) in codes
        elif np.isnan(value) and node["missing_type"] == "NaN":
            goes_left = node["default_left"]
        else:
            goes_left = np.nan_to_num(value) <= node["threshold"]
        return expected_of_tree(sides[0 if goes_left else 1], row, known)
    counts = [side.get("internal_count", side.get("leaf_count")) for side in sides]
    means = [expected_of_tree(side, row, known) for side in sides]
    return float(np.dot(counts, means) / sum(counts))


def test_trees_share_as_path_dependent_shapley_values():
    raw = raw_columns(120, seed=4)
    features = ColumnEncoder().fit(raw).transform(raw)
    design = row_design(features)
    target = np.nan_to_num(raw.numeric["size"], nan=2.0) * raw.numeric["embedding_0"] + np.array(
        [family == "a" for family in raw.categorical["family"]]
    )
    config = LightGBMConfig(n_trees=4, learning_rate=0.5, n_leaves=6, feature_fraction=1.0)
    head = LightGBMHead(config).fit(design, target, rng=0)
    trees = [tree["tree_structure"] for tree in head._trees.booster.dump_model()["tree_info"]]
    n_columns = features.trees.shape[1]
    found = head.contributions(design)
    fields = np.array(features.tree_fields)
    used = str(trees)
    assert "'decision_type': '=='" in used
    assert "'missing_type': 'NaN'" in used
    unknown = int(np.flatnonzero(np.isnan(raw.numeric["size"]))[0])
    for row in (unknown, 3, 50):
        values = features.trees[row].astype(np.float64)

        def value(known, values=values):
            return sum(expected_of_tree(tree, values, known) for tree in trees)

        columns = shapley(value, n_columns)
        expected = [columns[fields == field].sum() for field in found.fields]
        np.testing.assert_allclose(found.amounts[row], expected, rtol=0, atol=1e-9)
        assert found.base == pytest.approx(value(set()), abs=1e-9)


def test_a_line_adds_weight_times_value():
    design, target = problem()
    head = LinearHead().fit(design, target)
    found = head.contributions(design)
    matrix, fields = design.linear().toarray(), np.array(design.linear_fields)
    for position, field in enumerate(found.fields):
        own = fields == field
        expected = matrix[:, own] @ head.coef_[own]
        np.testing.assert_allclose(found.amounts[:, position], expected, rtol=0, atol=1e-12)
    assert found.base == head.intercept_


def test_sums_meet_by_field():
    first = HeadContributions.of_columns(1.0, np.array([[1.0, 2.0, 4.0]]), ["a", "b", "a"])
    second = HeadContributions.of_columns(0.5, np.array([[8.0, 16.0]]), ["c", "b"])
    assert first.fields == ("a", "b")
    np.testing.assert_array_equal(first.amounts, [[5.0, 2.0]])
    both = HeadContributions.sum_of([first, second.weighted(0.5)])
    assert both.fields == ("a", "b", "c")
    np.testing.assert_array_equal(both.amounts, [[5.0, 10.0, 4.0]])
    assert both.base == 1.25
    np.testing.assert_array_equal(both.total, [20.25])


def test_lambdarank_contributions_are_in_the_unit_of_the_target():
    rng = np.random.default_rng(0)
    matrix, groups = rng.normal(size=(1200, 3)), np.repeat(np.arange(20), 60)
    target = matrix[:, 0] + 0.1 * rng.normal(size=1200)
    config = LightGBMConfig(objective="lambdarank", n_trees=40)
    head = LightGBMHead(config).fit(matrix, target, groups=groups, rng=0)
    assert head.objective_ == "lambdarank"
    found = head.contributions(matrix)
    np.testing.assert_allclose(found.total, head.predict(matrix), rtol=0, atol=1e-9)
    assert np.corrcoef(found.amounts[:, 0], matrix[:, 0])[0, 1] > 0.9
