"""Ridge regression against its closed form, scikit-learn, and brute-force cross-validation."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from recsys_ms.catalog.encoding import ColumnEncoder, RawColumns, id_features
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners import linear
from recsys_ms.learners.design import group_folds, pair_design
from recsys_ms.learners.linear import LinearConfig, LinearHead


def problem(n_rows, n_columns, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < 0.5) + 0.7
    return design, design @ rng.normal(size=n_columns) + 5.0 + noise * rng.normal(size=n_rows)


@pytest.mark.parametrize(("n_rows", "n_columns"), [(60, 8), (20, 20), (15, 50)])
@pytest.mark.parametrize("penalty", [1e-2, 3.0, 1e4])
def test_weights_equal_scikit_learn(n_rows, n_columns, penalty):
    design, target = problem(n_rows, n_columns)
    head = LinearHead(LinearConfig(penalty=penalty)).fit(design, target)
    reference = Ridge(alpha=penalty, solver="cholesky").fit(design, target)
    # The eigenvalues of a Gram matrix carry half the digits of the matrix's own.
    np.testing.assert_allclose(head.coef_, reference.coef_, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(head.intercept_, reference.intercept_, rtol=1e-7)
    np.testing.assert_allclose(head.predict(design), reference.predict(design), rtol=1e-7)


def test_weights_solve_the_normal_equations():
    design, target = problem(40, 6)
    head = LinearHead(LinearConfig(penalty=2.5)).fit(design, target)
    x, y = design - design.mean(axis=0), target - target.mean()
    expected = np.linalg.solve(x.T @ x + 2.5 * np.eye(6), x.T @ y)
    np.testing.assert_allclose(head.coef_, expected, rtol=1e-9)


@pytest.mark.parametrize("sparse", [True, False])
def test_the_iterative_solver_gives_the_same_weights(monkeypatch, sparse):
    design, target = problem(80, 30)
    exact = LinearHead(LinearConfig(penalty=0.5)).fit(design, target)
    monkeypatch.setattr(linear, "_MAX_CELLS", 0)
    given = sp.csr_array(design) if sparse else design
    iterative = LinearHead(LinearConfig(penalty=0.5)).fit(given, target)
    np.testing.assert_allclose(iterative.coef_, exact.coef_, atol=1e-7)
    np.testing.assert_allclose(iterative.intercept_, exact.intercept_, atol=1e-7)


def test_a_design_of_pairs_is_solved_without_being_made(monkeypatch):
    rng = np.random.default_rng(0)
    raw = RawColumns(
        n_rows=30,
        numeric={"x": rng.normal(size=30)},
        categorical={"c": [["a", "b", "c"][i] for i in rng.integers(0, 3, 30)]},
        tokens={},
        fields={},
    )
    features = ColumnEncoder().fit(raw).transform(raw)
    tasks, models = rng.integers(0, 10, 400), rng.integers(0, 30, 400)
    design = pair_design(
        id_features("task_id", 10), tasks, features, models, ids=[(id_features("m", 30), models)]
    )
    target = rng.normal(size=30)[models] + 0.1 * rng.normal(size=400)
    exact = LinearHead().fit(design, target, groups=tasks)
    monkeypatch.setattr(linear, "_MAX_CELLS", 0)
    made = LinearHead().fit(design.linear(), target, groups=tasks)
    kept = LinearHead().fit(design, target, groups=tasks)
    assert made.penalty_ == pytest.approx(kept.penalty_)
    np.testing.assert_allclose(made.coef_, kept.coef_, atol=1e-7)
    # Another grid, and a fifth of the groups in place of all: as good, not the same weights.
    assert np.corrcoef(exact.predict(design), kept.predict(design))[0, 1] > 0.99


def test_generalised_cross_validation_picks_the_least_score():
    design, target = problem(50, 20, noise=3.0)
    head = LinearHead().fit(design, target)
    x, y = design - design.mean(axis=0), target - target.mean()

    def score(penalty):
        hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(20), x.T) + 1.0 / 50
        return 50 * np.sum((target - hat @ target) ** 2) / np.trace(np.eye(50) - hat) ** 2

    grid = linear._GRID * np.trace(x.T @ x) / 20
    assert head.penalty_ == pytest.approx(grid[np.argmin([score(p) for p in grid])], rel=1e-9)
    assert y.size == 50


@pytest.mark.parametrize("n_columns", [5, 90])
def test_the_left_out_error_equals_refitting(n_columns):
    design, target = problem(60, n_columns, noise=2.0)
    groups = np.repeat(np.arange(12), 5)[np.random.default_rng(1).permutation(60)]
    head = LinearHead().fit(design, target, groups=groups)
    folds = group_folds(groups, 20)
    x = design - design.mean(axis=0)
    grid = linear._GRID * (x**2).sum() / min(x.shape)

    def brute(penalty):
        total = 0.0
        for fold in np.unique(folds):
            kept = folds != fold
            model = Ridge(alpha=penalty, solver="svd").fit(design[kept], target[kept])
            total += np.sum((target[~kept] - model.predict(design[~kept])) ** 2)
        return total

    assert head.penalty_ == pytest.approx(grid[np.argmin([brute(p) for p in grid])], rel=1e-9)


def test_a_target_that_is_noise_is_shrunk_to_its_mean():
    rng = np.random.default_rng(5)
    design, target = rng.normal(size=(200, 50)), rng.normal(size=200)
    head = LinearHead().fit(design, target)
    ordinary = np.linalg.lstsq(design - design.mean(axis=0), target - target.mean(), rcond=None)[0]
    assert np.linalg.norm(head.coef_) < 0.3 * np.linalg.norm(ordinary)


def test_state_restores_bit_for_bit_and_inputs_stay():
    design, target = problem(30, 7)
    before = design.copy(), target.copy()
    head = LinearHead().fit(design, target)
    restored = LinearHead.from_state(head.state())
    np.testing.assert_array_equal(restored.predict(design), head.predict(design))
    assert restored.config == head.config
    np.testing.assert_array_equal(design, before[0])
    np.testing.assert_array_equal(target, before[1])


def test_a_row_does_not_depend_on_the_others():
    design, target = problem(30, 7)
    head = LinearHead().fit(design, target)
    single = [head.predict(design[[i]])[0] for i in range(30)]
    np.testing.assert_array_equal(single, head.predict(design))


@pytest.mark.parametrize(
    "design", [np.zeros((4, 0)), np.ones((4, 2)), np.zeros((4, 3))], ids=["empty", "ones", "zeros"]
)
def test_columns_without_information_give_the_mean(design):
    target = np.array([1.0, 2.0, 3.0, 6.0])
    head = LinearHead().fit(design, target, groups=np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(head.predict(design), 3.0)


def test_one_row_and_a_constant_target_give_that_value():
    assert LinearHead().fit(np.ones((1, 2)), np.array([4.0])).predict(np.ones((1, 2)))[0] == 4.0
    design, _ = problem(10, 3)
    np.testing.assert_array_equal(LinearHead().fit(design, np.full(10, 2.0)).predict(design), 2.0)


def test_misuse_is_refused():
    with pytest.raises(UsageError, match="penalty"):
        LinearConfig(penalty=0.0)
    design, target = problem(10, 3)
    with pytest.raises(DataError, match="2 columns"):
        LinearHead().fit(design, target).predict(design[:, :2])
