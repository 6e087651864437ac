"""Factorization machine: Eq. 1 against Eq. 5, ridge, stationarity, planted interactions, safety."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from child import outputs_by_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.ranking_metrics import pearson
from recsys_ms.learners.fm import FactorizationMachineConfig, FactorizationMachineHead
from recsys_ms.learners.fm_solver import InteractionMatrix, Problem, column_sizes

Config = FactorizationMachineConfig
Head = FactorizationMachineHead


def one_hot(task, model, n_tasks, n_models):
    n = task.size
    columns = np.stack([task, n_tasks + model], axis=1).ravel()
    return sp.csr_array(
        (np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), shape=(n, n_tasks + n_models)
    )


def planted(seed, *, n_tasks=20, n_models=60, density=0.7, strength=1.0, noise=0.3):
    rng = np.random.default_rng(seed)
    task, model = np.nonzero(rng.random((n_tasks, n_models)) < density)
    signal = 0.6 * rng.normal(size=n_models)[model]
    latent = rng.normal(size=(n_tasks, 2))[task] * rng.normal(size=(n_models, 2))[model]
    signal = signal + strength * latent.sum(axis=1) / np.sqrt(2)
    target = signal + noise * rng.normal(size=task.size)
    return one_hot(task, model, n_tasks, n_models), target, signal, task, rng


def double_sum(head, dense):
    """Eq. 1 as it is written."""
    v = head.factors_.T
    total = head.intercept_ + dense @ head.coefficients_
    for i in range(dense.shape[1]):
        for j in range(i + 1, dense.shape[1]):
            total += (v[i] @ v[j]) * dense[:, i] * dense[:, j]
    return total


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_columns=st.integers(1, 7), n_factors=st.integers(0, 4))
def test_one_pass_equals_the_double_sum(seed, n_columns, n_factors):
    rng = np.random.default_rng(seed)
    head = Head(Config(n_factors=n_factors))
    head.fit(rng.normal(size=(6, n_columns)), rng.normal(size=6), rng=0)
    head.coefficients_ = rng.normal(size=n_columns)
    head.factors_ = rng.normal(size=(n_factors, n_columns))
    dense = rng.normal(size=(9, n_columns)) * (rng.random((9, n_columns)) < 0.6)
    expected = double_sum(head, dense)
    np.testing.assert_allclose(head.predict(dense), expected, atol=1e-10)
    np.testing.assert_allclose(head.predict(sp.csr_array(dense)), expected, atol=1e-10)


def test_without_factors_it_is_ridge_regression():
    rng = np.random.default_rng(0)
    design = np.hstack([rng.normal(2.0, 1.0, (80, 6)), rng.random((80, 30)) < 0.1])
    target = rng.normal(size=80)
    head = Head(Config(n_factors=0, l2_linear=0.7)).fit(design, target)
    ridge = Ridge(alpha=0.7).fit(design, target)
    np.testing.assert_allclose(head.coefficients_, ridge.coef_, atol=1e-8)
    assert head.intercept_ == pytest.approx(ridge.intercept_, abs=1e-8)
    np.testing.assert_allclose(head.predict(design), ridge.predict(design), atol=1e-8)
    assert head.factors_.shape == (0, 36)


def penalised_error(parameters, dense, target, head, sizes):
    n = dense.shape[1]
    w0, w, v = parameters[0], parameters[1 : n + 1], parameters[n + 1 :].reshape(-1, n)
    interactions = 0.5 * (((dense @ v.T) ** 2) - (dense**2) @ (v**2).T).sum(axis=1)
    error = target - w0 - dense @ w - interactions
    return (
        (error**2).sum()
        + head.config.l2_linear * (w**2).sum()
        + head.l2_factors_ * (sizes * v**2).sum()
    )


def test_gradient_vanishes_by_finite_differences_where_learning_stops():
    rng = np.random.default_rng(1)
    design, target, *_ = planted(1, n_tasks=6, n_models=8, strength=2.0)
    dense = np.hstack([design.toarray(), rng.normal(size=(target.size, 2))])
    config = Config(n_factors=2, l2_factors=0.3, tolerance=1e-14, max_sweeps=20_000)
    head = Head(config).fit(dense, target, rng=0)
    assert head.converged_
    assert np.abs(head.factors_).max() > 0.1
    sizes = column_sizes(sp.csr_array(dense))
    best = np.r_[head.intercept_, head.coefficients_, head.factors_.ravel()]
    cost = penalised_error(best, dense, target, head, sizes)
    assert head.objective_[-1] == pytest.approx(cost, rel=1e-9)
    for at in range(best.size):
        step = np.zeros_like(best)
        step[at] = 1e-5
        rise = penalised_error(best + step, dense, target, head, sizes)
        fall = penalised_error(best - step, dense, target, head, sizes)
        # An objective exact to 1e-14 of itself leaves gradients of about 1e-7 of its curvature.
        assert abs(rise - fall) / 2e-5 < 1e-4 * cost
        assert min(rise, fall) >= cost * (1 - 1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), l2=st.sampled_from([0.0, 0.1, 1.0]))
def test_objective_never_rises(seed, l2):
    design, target, *_ = planted(seed, n_tasks=6, n_models=9)
    head = Head(Config(n_factors=3, l2_factors=l2, tolerance=0.0, max_sweeps=30))
    path = np.array(head.fit(design, target, rng=seed).objective_)
    assert (np.diff(path) <= 1e-9 * path[0]).all()


def test_planted_interactions_are_learned_and_beat_a_linear_head():
    design, target, signal, _, rng = planted(0)
    train = rng.random(target.size) < 0.8
    fm = Head().fit(design[train], target[train], rng=0)
    linear = Head(Config(n_factors=0)).fit(design[train], target[train])
    wrong = np.mean((fm.predict(design[~train]) - signal[~train]) ** 2)
    linear_wrong = np.mean((linear.predict(design[~train]) - signal[~train]) ** 2)
    assert linear_wrong > 0.5
    assert wrong < 0.3 * linear_wrong


@pytest.mark.parametrize(("n_tasks", "n_models"), [(7, 32), (12, 100)])
def test_does_not_overfit_small_histories_without_interactions(n_tasks, n_models):
    losses = []
    for seed in range(5):
        design, target, signal, task, rng = planted(
            seed, n_tasks=n_tasks, n_models=n_models, strength=0.0, noise=0.6
        )
        train = rng.random(target.size) < 0.8
        fm = Head().fit(design[train], target[train], groups=task[train], rng=seed)
        linear = Head(Config(n_factors=0)).fit(design[train], target[train])
        gap = np.mean((fm.predict(design[~train]) - signal[~train]) ** 2) - np.mean(
            (linear.predict(design[~train]) - signal[~train]) ** 2
        )
        losses.append(gap)
    # The noise has variance 0.36; what overfitting adds must be lost in it.
    assert np.mean(losses) < 0.01


def test_noise_level_is_about_the_same_for_every_size_of_history():
    levels = []
    for n_tasks, n_models in ((7, 32), (20, 200)):
        design, target, *_ = planted(0, n_tasks=n_tasks, n_models=n_models, strength=0.0, noise=1.0)
        problem = Problem(design, target, 1.0)
        levels.append(problem.noise_level(np.random.default_rng(0)))
    # Balanced columns bring the largest eigenvalue of noise near 2 standard deviations.
    assert 1.2 < min(levels) <= max(levels) < 3.0


def test_column_sizes_balance_the_design():
    rng = np.random.default_rng(0)
    design = sp.csr_array(np.hstack([rng.normal(size=(60, 5)), np.zeros((60, 1))]))
    sizes = column_sizes(design, n_rounds=200)
    assert sizes[-1] == 0.0
    squares = design.toarray() ** 2
    room = squares.T @ squares
    np.fill_diagonal(room, 0.0)
    balanced = (room[:5, :5] / np.outer(sizes[:5], sizes[:5])).sum(axis=1)
    np.testing.assert_allclose(balanced, 1.0, rtol=1e-6)
    alone = column_sizes(sp.csr_array(np.eye(4)))
    assert np.array_equal(alone, np.zeros(4))


def test_dense_and_lanczos_spectra_agree(monkeypatch):
    design, target, *_ = planted(3, n_tasks=20, n_models=60)
    matrix = InteractionMatrix(design, column_sizes(design))
    error = target - target.mean()
    dense, _ = matrix.top(error, 3, np.random.default_rng(0))
    monkeypatch.setattr("recsys_ms.learners.fm_solver._DENSE_COLUMNS", 0)
    steps, vectors = matrix.top(error, 3, np.random.default_rng(0))
    assert vectors.shape == (3, 80)
    np.testing.assert_allclose(steps, dense, rtol=0.02)
    wide = sp.csr_array(np.hstack([design.toarray(), np.ones((target.size, 18))]))
    both = InteractionMatrix(wide, column_sizes(wide))
    monkeypatch.setattr("recsys_ms.learners.fm_solver._DENSE_COLUMNS", 512)
    spread, _ = both.top(error, 3, np.random.default_rng(0))
    monkeypatch.setattr("recsys_ms.learners.fm_solver._DENSE_ENTRIES", 0)
    sparse, _ = both.top(error, 3, np.random.default_rng(0))
    np.testing.assert_allclose(spread, sparse, rtol=1e-9)


def test_state_survives_json_bit_for_bit():
    design, target, *_ = planted(4)
    head = Head(Config(n_factors=3)).fit(design, target, rng=0)
    state = head.state()
    values = json.loads(json.dumps(state.values))
    restored = Head.from_state(replace(state, values=values))
    assert restored.config == head.config
    assert np.array_equal(restored.predict(design), head.predict(design))
    assert restored.objective_ == head.objective_


def test_a_row_is_predicted_the_same_alone_or_among_others():
    design, target, *_ = planted(5)
    head = Head(Config(l2_factors=0.2)).fit(design, target, rng=0)
    together = head.predict(design)
    alone = np.concatenate([head.predict(design[[i]]) for i in range(20)])
    assert np.array_equal(together[:20], alone)
    assert np.array_equal(head.predict(design.toarray()), together)


def test_same_seed_same_bits_and_inputs_unchanged():
    design, target, _, task, _ = planted(6)
    before = design.copy(), target.copy(), task.copy()
    first = Head().fit(design, target, groups=task, rng=3)
    again = Head().fit(design, target, groups=task, rng=3)
    assert np.array_equal(first.factors_, again.factors_)
    assert first.l2_factors_ == again.l2_factors_
    assert first.l2_factors_ != Head().fit(design, target, groups=task, rng=4).l2_factors_
    assert np.array_equal(design.data, before[0].data)
    assert np.array_equal(design.indices, before[0].indices)
    assert np.array_equal(target, before[1])
    assert np.array_equal(task, before[2])


def test_repeated_entries_of_a_design_add_up_without_touching_it():
    twice = sp.csr_array(
        (np.array([1.0, 2.0, 1.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2)
    )
    head = Head().fit(np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]), rng=0)
    expected = head.predict(np.array([[3.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(head.predict(twice), expected)
    assert twice.nnz == 3


def test_a_second_fit_forgets_the_first_and_unseen_columns_say_nothing():
    design, target, *_ = planted(7)
    head = Head(Config(l2_factors=0.3))
    head.fit(-2.0 * design, target, rng=0)
    head.fit(design, target, rng=0)
    fresh = Head(Config(l2_factors=0.3)).fit(design, target, rng=0)
    assert np.array_equal(head.factors_, fresh.factors_)
    padded = sp.csr_array(sp.hstack([design, sp.csr_array((design.shape[0], 1))]))
    wider = Head(Config(l2_factors=0.3)).fit(padded, target, rng=0)
    assert wider.coefficients_[-1] == 0.0
    assert (wider.factors_[:, -1] == 0.0).all()


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_tiny_and_constant_data_give_finite_answers(n_rows):
    design = np.eye(5)[:n_rows]
    for target in (np.zeros(n_rows), np.arange(n_rows, dtype=float)):
        head = Head().fit(design, target, groups=np.zeros(n_rows, dtype=np.int64), rng=0)
        assert np.isfinite(head.predict(np.eye(5))).all()
    assert Head().fit(np.zeros((3, 2)), np.ones(3), rng=0).predict(np.zeros((1, 2)))[0] == 1.0


def test_large_designs_take_the_second_margin_without_validation():
    design, target, *_ = planted(8)
    margins = (1.0, 0.4)
    head = Head(Config(noise_margins=margins, max_validation_entries=0)).fit(design, target, rng=0)
    level = Head(Config(noise_margins=(1.0,))).fit(design, target, rng=0).l2_factors_
    assert head.l2_factors_ == pytest.approx(0.4 * level)


def test_bad_input_is_refused():
    head = Head()
    with pytest.raises(DataError, match="NaN"):
        head.fit(np.array([[np.nan]]), np.ones(1))
    with pytest.raises(DataError, match="target"):
        head.fit(np.ones((2, 1)), np.ones(1))
    with pytest.raises(DataError, match="target"):
        head.fit(np.ones((1, 1)), np.array([np.inf]))
    with pytest.raises(DataError, match="no rows"):
        head.fit(np.ones((0, 1)), np.ones(0))
    with pytest.raises(DataError, match="groups"):
        head.fit(np.ones((2, 1)), np.ones(2), groups=np.zeros(1, dtype=np.int64))
    head.fit(np.ones((2, 1)), np.ones(2), rng=0)
    with pytest.raises(DataError, match="columns"):
        head.predict(np.ones((1, 2)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_factors": -1},
        {"max_sweeps": 0},
        {"n_folds": 1},
        {"max_validation_entries": -1},
        {"l2_linear": 0.0},
        {"l2_factors": -1.0},
        {"tolerance": np.nan},
        {"noise_margins": ()},
        {"noise_margins": (0.5, 1.0)},
        {"noise_margins": (1.0, 0.0)},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Config(**wrong)


THREADS = """
import hashlib, numpy as np, scipy.sparse as sp
from recsys_ms.learners.fm import FactorizationMachineHead
rng = np.random.default_rng(0)
n, m = 12000, 700
rows = np.arange(n)
design = np.zeros((n, 6))
design[:] = rng.normal(size=design.shape)
one_hot = sp.csr_array((np.ones(n), (rows, rng.integers(0, m, n))), shape=(n, m))
design = sp.csr_array(sp.hstack([one_hot, sp.csr_array(design)]))
head = FactorizationMachineHead().fit(design, rng.normal(size=n), rng=0)
print(hashlib.sha256(head.factors_.tobytes() + head.coefficients_.tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads():
    assert len(outputs_by_threads(THREADS)) == 1


def parc(shared_data):
    runs = pd.read_csv(shared_data / "histories" / "raw" / "parc_controlled.csv")
    model = runs["Architecture"] + "@" + runs["Source Dataset"]
    features = pd.DataFrame(
        {"model": model, "source": runs["Source Dataset"], "arch": runs["Architecture"]}
    )
    task = runs["Target Dataset"]
    score = runs.groupby(task)["Oracle"].transform(lambda v: (v - v.mean()) / v.std(ddof=0))
    return features, task, score.to_numpy()


@pytest.mark.shared_data
def test_leave_one_task_out_on_parc_is_near_popularity(shared_data):
    features, task, score = parc(shared_data)
    design = pd.get_dummies(features, dtype=float).to_numpy()
    popularity, machine = [], []
    for name in task.unique():
        test = (task == name).to_numpy()
        mean = pd.Series(score[~test]).groupby(features["model"][~test].to_numpy()).mean()
        known = features["model"][test].map(mean).fillna(0.0).to_numpy()
        popularity.append(pearson(known, score[test]))
        head = Head().fit(design[~test], score[~test], groups=pd.factorize(task[~test])[0], rng=0)
        machine.append(pearson(head.predict(design[test]), score[test]))
    assert np.mean(popularity) == pytest.approx(0.703, abs=0.005)
    assert np.mean(machine) > np.mean(popularity) - 0.02


@pytest.mark.shared_data
def test_hidden_cells_of_parc_are_filled_in_better_than_by_ridge(shared_data):
    features, task, score = parc(shared_data)
    design = pd.get_dummies(features.assign(task=task), dtype=float).to_numpy()
    wrong, ridge_wrong = 0.0, 0.0
    for seed in range(5):
        test = np.random.default_rng(seed).random(score.size) < 0.2
        head = Head().fit(design[~test], score[~test], rng=seed)
        ridge = Head(Config(n_factors=0)).fit(design[~test], score[~test])
        wrong += float(np.mean((head.predict(design[test]) - score[test]) ** 2))
        ridge_wrong += float(np.mean((ridge.predict(design[test]) - score[test]) ** 2))
    assert wrong < 0.95 * ridge_wrong
