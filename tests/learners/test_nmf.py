"""Masked NMF: closed forms, planted answers, independent references, properties."""

from dataclasses import replace

import numpy as np
import pytest
from child import outputs_by_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners.nmf import NMFConfig, fit_nmf, fold_in

EXACT = NMFConfig(n_factors=3, max_sweeps=20_000, tolerance=1e-13)


def masked_problem(rng, *, n_tasks=12, n_models=15, rank=3, density=0.6, noise=0.1):
    task, model = np.nonzero(rng.random((n_tasks, n_models)) < density)
    truth = rng.gamma(1.0, 1.0, (n_tasks, rank)) @ rng.gamma(1.0, 1.0, (n_models, rank)).T
    values = np.maximum(truth[task, model] + noise * rng.normal(size=task.size), 0.0)
    return task, model, values, truth


def objective(fitted, task, model, values, weights, config):
    residual = values - fitted.predict(task, model)
    return (
        (weights * residual**2).sum()
        + config.alpha_models * (fitted.model_factors**2).sum()
        + config.alpha_tasks * (fitted.task_factors**2).sum()
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_factors=st.integers(1, 5),
    alpha=st.sampled_from([0.0, 0.05, 1.0]),
    weighted=st.booleans(),
)
def test_objective_falls_and_is_the_stated_one(seed, n_factors, alpha, weighted):
    rng = np.random.default_rng(seed)
    task, model, values, _ = masked_problem(rng, n_tasks=6, n_models=8)
    weights = rng.uniform(0.0, 3.0, values.size) if weighted else None
    config = NMFConfig(n_factors=n_factors, alpha_models=alpha, alpha_tasks=2 * alpha)
    fitted = fit_nmf(
        task, model, values, n_tasks=6, n_models=8, config=config, weights=weights, rng=seed
    )
    path = np.array(fitted.objective)
    assert (np.diff(path) <= 1e-9 * path[:-1] + 1e-12).all()
    assert fitted.task_factors.min() >= 0.0
    assert fitted.model_factors.min() >= 0.0
    assert fitted.n_sweeps == path.size
    used = np.ones(values.size) if weights is None else weights
    expected = objective(fitted, task, model, values, used, config)
    assert path[-1] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_karush_kuhn_tucker_conditions_hold_at_convergence(seed):
    rng = np.random.default_rng(seed)
    task, model, values, _ = masked_problem(rng)
    weights = rng.uniform(0.5, 2.0, values.size)
    fitted = fit_nmf(
        task, model, values, n_tasks=12, n_models=15, config=EXACT, weights=weights, rng=seed
    )
    pull = weights * (fitted.predict(task, model) - values)
    for own, other, index, other_index, alpha, n in (
        (fitted.task_factors, fitted.model_factors, task, model, EXACT.alpha_tasks, 12),
        (fitted.model_factors, fitted.task_factors, model, task, EXACT.alpha_models, 15),
    ):
        gradient = alpha * own
        np.add.at(gradient, index, pull[:, None] * other[other_index])
        # The last sweep moved the objective by 1e-13 of it, so gradients are about its root.
        scale = 1e-4 * np.abs(values).max() ** 1.5 * n
        assert np.abs(gradient[own > 0]).max() < scale
        assert gradient[own == 0].min(initial=0.0) > -scale


def test_planted_low_rank_cells_are_recovered():
    rng = np.random.default_rng(0)
    task, model, values, truth = masked_problem(rng, n_tasks=40, n_models=60, noise=0.0)
    config = NMFConfig(
        n_factors=3, alpha_models=1e-6, alpha_tasks=1e-6, max_sweeps=5000, tolerance=1e-10
    )
    fitted = fit_nmf(task, model, values, n_tasks=40, n_models=60, config=config, rng=1)
    hidden = np.ones_like(truth, dtype=bool)
    hidden[task, model] = False
    error = (fitted.task_factors @ fitted.model_factors.T - truth)[hidden]
    assert np.sqrt((error**2).mean()) < 0.02 * truth.std()


def test_checkerboard_finds_the_hidden_cell_of_each_row():
    n = 16
    board = np.add.outer(np.arange(n), np.arange(n)) % 2 == 0
    observed = np.ones((n, n), dtype=bool)
    hidden = np.array([(i + 2 * (i % 4)) % n for i in range(n)])
    observed[np.arange(n), hidden] = False
    task, model = np.nonzero(observed)
    fitted = fit_nmf(
        task,
        model,
        board[task, model].astype(float),
        n_tasks=n,
        n_models=n,
        config=NMFConfig(n_factors=2),
        rng=0,
    )
    guess = fitted.predict(np.arange(n), hidden)
    assert board[np.arange(n), hidden].any()
    assert ((guess > 0.5) == board[np.arange(n), hidden]).all()


def test_missing_is_not_zero():
    # Two tasks agree on one model; the second never ran the other one.
    fitted = fit_nmf(
        np.array([0, 0, 1]),
        np.array([0, 1, 0]),
        np.array([1.0, 2.0, 1.0]),
        n_tasks=2,
        n_models=2,
        config=NMFConfig(n_factors=1, alpha_models=1e-4, alpha_tasks=1e-4, tolerance=1e-12),
        rng=0,
    )
    assert fitted.predict(np.array([1]), np.array([1]))[0] == pytest.approx(2.0, abs=0.01)


def test_as_good_as_scikit_learn_on_a_full_matrix():
    rng = np.random.default_rng(3)
    full = rng.gamma(1.0, 1.0, (30, 4)) @ rng.gamma(1.0, 1.0, (4, 20)) + rng.random((30, 20))
    task, model = np.nonzero(np.ones_like(full, dtype=bool))
    best, reference = np.inf, np.inf
    config = NMFConfig(
        n_factors=4, alpha_models=0.0, alpha_tasks=0.0, max_sweeps=5000, tolerance=1e-9
    )
    for seed in range(5):
        fitted = fit_nmf(
            task, model, full[task, model], n_tasks=30, n_models=20, config=config, rng=seed
        )
        best = min(best, fitted.objective[-1])
        peer = NMF(4, init="random", random_state=seed, max_iter=5000, tol=1e-6).fit(full)
        reference = min(reference, peer.reconstruction_err_**2)
    assert best <= 1.001 * reference


def alternating_nnls(task, model, values, weights, n_tasks, n_models, config, seed):
    """Exact minimisation of whole rows in turn, by another solver on another formulation."""
    rng = np.random.default_rng(seed)
    sides = [rng.random((n_tasks, config.n_factors)), rng.random((n_models, config.n_factors))]
    ridge = [np.sqrt(config.alpha_tasks), np.sqrt(config.alpha_models)]
    index = [task, model]
    for _ in range(400):
        for side in (0, 1):
            for row in range(sides[side].shape[0]):
                own = index[side] == row
                root = np.sqrt(weights[own])
                system = np.vstack(
                    [
                        root[:, None] * sides[1 - side][index[1 - side][own]],
                        ridge[side] * np.eye(config.n_factors),
                    ]
                )
                target = np.r_[root * values[own], np.zeros(config.n_factors)]
                sides[side][row] = nnls(system, target)[0]
    residual = values - (sides[0][task] * sides[1][model]).sum(axis=1)
    return (
        (weights * residual**2).sum()
        + config.alpha_tasks * (sides[0] ** 2).sum()
        + config.alpha_models * (sides[1] ** 2).sum()
    )


def test_as_good_as_alternating_exact_least_squares_on_masked_data():
    rng = np.random.default_rng(11)
    task, model, values, _ = masked_problem(rng, n_tasks=7, n_models=8, rank=2)
    weights = rng.uniform(0.5, 2.0, values.size)
    config = NMFConfig(
        n_factors=2, alpha_models=0.3, alpha_tasks=0.2, max_sweeps=5000, tolerance=1e-12
    )
    ours = min(
        fit_nmf(
            task, model, values, n_tasks=7, n_models=8, config=config, weights=weights, rng=seed
        ).objective[-1]
        for seed in range(6)
    )
    reference = min(
        alternating_nnls(task, model, values, weights, 7, 8, config, seed) for seed in range(3)
    )
    # Both reach the better of the local minima within rounding of their stopping rules.
    assert ours <= reference * (1 + 1e-5)


def test_weight_two_is_the_same_value_twice():
    rng = np.random.default_rng(5)
    task, model, values, _ = masked_problem(rng)
    twice = np.r_[np.arange(values.size), np.arange(0, values.size, 3)]
    weights = np.bincount(twice).astype(float)
    once = fit_nmf(task, model, values, n_tasks=12, n_models=15, weights=weights, rng=0)
    repeated = fit_nmf(task[twice], model[twice], values[twice], n_tasks=12, n_models=15, rng=0)
    assert once.objective[-1] == pytest.approx(repeated.objective[-1], rel=1e-6)


def test_same_seed_same_bits_in_any_order_of_triplets_and_inputs_unchanged():
    rng = np.random.default_rng(6)
    task, model, values, _ = masked_problem(rng)
    before = values.copy()
    first = fit_nmf(task, model, values, n_tasks=12, n_models=15, rng=4)
    # Many times: where the arrays lie in memory once changed the order of the kernel's sums.
    for size in range(30):
        shuffled, _elsewhere = rng.permutation(values.size), np.empty(1000 * size)
        again = fit_nmf(
            task[shuffled], model[shuffled], values[shuffled], n_tasks=12, n_models=15, rng=4
        )
        assert np.array_equal(first.task_factors, again.task_factors)
        assert np.array_equal(first.model_factors, again.model_factors)
    other = fit_nmf(task, model, values, n_tasks=12, n_models=15, rng=5)
    assert not np.array_equal(first.task_factors, other.task_factors)
    assert np.array_equal(values, before)


THREADS = """
import hashlib, numpy as np
from recsys_ms.learners.nmf import fit_nmf
rng = np.random.default_rng(0)
task, model = np.nonzero(rng.random((60, 70)) < 0.5)
fitted = fit_nmf(task, model, rng.random(task.size), n_tasks=60, n_models=70, rng=0)
print(hashlib.sha256(fitted.task_factors.tobytes() + fitted.model_factors.tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads():
    assert len(outputs_by_threads(THREADS)) == 1


def test_rows_without_interactions_are_zero_and_a_single_pair_fits():
    fitted = fit_nmf(
        np.array([1]),
        np.array([2]),
        np.array([4.0]),
        n_tasks=3,
        n_models=4,
        rng=0,
        config=replace(EXACT, alpha_models=0.0, alpha_tasks=0.0),
    )
    assert (fitted.task_factors[[0, 2]] == 0).all()
    assert (fitted.model_factors[[0, 1, 3]] == 0).all()
    assert fitted.predict(np.array([1]), np.array([2]))[0] == pytest.approx(4.0)
    zero = fit_nmf(np.array([0]), np.array([0]), np.array([0.0]), n_tasks=1, n_models=1, rng=0)
    assert zero.converged
    assert zero.objective[-1] == 0.0


def test_stops_at_the_bound_and_says_so():
    task, model, values, _ = masked_problem(np.random.default_rng(0))
    fitted = fit_nmf(
        task, model, values, n_tasks=12, n_models=15, config=NMFConfig(max_sweeps=2), rng=0
    )
    assert (fitted.n_sweeps, fitted.converged) == (2, False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": np.array([1.0, -0.5])}, "at least 0"),
        ({"values": np.array([1.0, np.nan])}, "finite"),
        ({"values": np.array([1.0])}, "one length"),
        ({"task_index": np.array([0, 2])}, "expected \\[0, 2\\)"),
        ({"model_index": np.array([0, -1])}, "model"),
        ({"weights": np.array([1.0, -1.0])}, "weight"),
        ({"weights": np.array([1.0])}, "weight"),
    ],
)
def test_bad_triplets_are_refused(change, says):
    given_arrays = {
        "task_index": np.array([0, 1]),
        "model_index": np.array([0, 1]),
        "values": np.array([1.0, 2.0]),
    } | change
    with pytest.raises(DataError, match=says):
        fit_nmf(**given_arrays, n_tasks=2, n_models=2)


def test_nothing_to_factorise_is_refused():
    none = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="no interaction"):
        fit_nmf(none, none, np.array([]), n_tasks=1, n_models=1)


@pytest.mark.parametrize(
    "settings_",
    [{"n_factors": 0}, {"max_sweeps": 0}, {"alpha_models": -1.0}, {"tolerance": np.nan}],
)
def test_bad_settings_are_refused(settings_):
    with pytest.raises(UsageError, match=next(iter(settings_))):
        NMFConfig(**settings_)


def brute_force(factors, values, weights, alpha, prior):
    """Least squares on every set of active factors; the best feasible one is the minimiser."""
    k = factors.shape[1]
    best, found = np.inf, np.zeros(k)
    for mask in range(2**k):
        active = np.array([bool(mask >> f & 1) for f in range(k)])
        x = np.zeros(k)
        if active.any():
            part = factors[:, active]
            gram = part.T @ (weights[:, None] * part) + alpha * np.eye(active.sum())
            x[active] = np.linalg.solve(gram, part.T @ (weights * values) + alpha * prior[active])
        if x.min() < 0:
            continue
        cost = (weights * (values - factors @ x) ** 2).sum() + alpha * ((x - prior) ** 2).sum()
        if cost < best:
            best, found = cost, x
    return found


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_observed=st.integers(1, 6),
    k=st.integers(1, 4),
    alpha=st.sampled_from([0.01, 0.5, 3.0]),
)
def test_fold_in_is_the_exact_minimiser(seed, n_observed, k, alpha):
    rng = np.random.default_rng(seed)
    factors, values = rng.normal(size=(n_observed, k)), rng.normal(size=n_observed)
    weights, prior = rng.uniform(0.2, 2.0, n_observed), rng.normal(size=k)
    folded = fold_in(factors, values, weights, alpha=alpha, prior=prior)
    np.testing.assert_allclose(
        folded, brute_force(factors, values, weights, alpha, prior), atol=1e-9
    )


def test_fold_in_equals_nnls_of_the_augmented_system():
    rng = np.random.default_rng(2)
    factors, values, prior = rng.random((5, 3)), rng.random(5), rng.random(3)
    system = np.vstack([factors, np.sqrt(0.7) * np.eye(3)])
    expected = nnls(system, np.r_[values, np.sqrt(0.7) * prior])[0]
    np.testing.assert_allclose(fold_in(factors, values, alpha=0.7, prior=prior), expected)
    np.testing.assert_allclose(fold_in(factors, values, alpha=0.0), nnls(factors, values)[0])


def test_fold_in_limits():
    factors = np.array([[1.0, 0.0]])
    prior = np.array([0.5, 2.0])
    nothing = fold_in(np.empty((0, 2)), np.array([]), alpha=1.0, prior=prior)
    assert np.array_equal(nothing, prior)
    firm = fold_in(factors, np.array([9.0]), alpha=1e9, prior=prior)
    np.testing.assert_allclose(firm, prior, rtol=1e-6)
    np.testing.assert_allclose(fold_in(factors, np.array([9.0]), alpha=1.0), [4.5, 0.0])


def test_folding_a_fitted_row_in_gives_the_fitted_row():
    task, model, values, _ = masked_problem(np.random.default_rng(9))
    fitted = fit_nmf(task, model, values, n_tasks=12, n_models=15, config=EXACT, rng=0)
    for row in range(12):
        own = np.flatnonzero(task == row)
        folded = fold_in(fitted.model_factors[model[own]], values[own], alpha=EXACT.alpha_tasks)
        np.testing.assert_allclose(folded, fitted.task_factors[row], atol=1e-3)


def test_a_new_row_folds_in_without_a_refit():
    rng = np.random.default_rng(0)
    others, true = rng.random((9, 2)), rng.random(2)
    np.testing.assert_allclose(fold_in(others, others @ true, alpha=1e-9), true, atol=1e-6)


def test_fold_in_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="alpha"):
        fold_in(np.ones((1, 1)), np.ones(1), alpha=-1.0)
    with pytest.raises(DataError, match="do not fit"):
        fold_in(np.ones((2, 1)), np.ones(1), alpha=1.0)
    with pytest.raises(DataError, match="do not fit"):
        fold_in(np.ones((1, 2)), np.ones(1), alpha=1.0, prior=np.ones(3))
    with pytest.raises(DataError, match="NaN"):
        fold_in(np.ones((1, 1)), np.array([np.nan]), alpha=1.0)
