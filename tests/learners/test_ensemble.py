"""The blend: weights from left-out folds, whole groups, state."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from recsys_ms.core.errors import ArtifactError, DataError, UsageError
from recsys_ms.learners.ensemble import EnsembleConfig, EnsembleHead, default_heads, simplex_weights
from recsys_ms.learners.gaussian.kernel_head import KernelConfig, KernelHead
from recsys_ms.learners.linear import LinearConfig, LinearHead
from recsys_ms.learners.trees import LightGBMConfig, LightGBMHead

QUICK = {
    "linear": LinearHead,
    "lightgbm": partial(LightGBMHead, LightGBMConfig(n_trees=30)),
    "kernel": partial(KernelHead, KernelConfig(n_tuning_rows=60, max_iterations=15)),
}


class Recording(LinearHead):
    """A linear head that notes which groups it learned from."""

    seen: list  # of arrays

    def fit(self, design, target, *, groups=None, rng=None):
        type(self).seen.append(np.unique(groups))
        return super().fit(design, target, groups=groups, rng=rng)


def problem(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n_rows, 4))
    return design, design @ np.array([1.0, -1.0, 0.5, 0.0]) + 0.1 * rng.normal(size=n_rows)


def test_the_head_that_predicts_left_out_rows_best_weighs_most():
    design, target = problem(150)
    head = EnsembleHead(heads=QUICK).fit(design, target, rng=0)
    assert sum(head.weights_.values()) == pytest.approx(1.0)
    assert head.fold_errors_["lightgbm"] > 2 * head.fold_errors_["linear"]
    assert head.weights_.get("lightgbm", 0.0) < head.weights_["linear"]
    blend = sum(w * head.heads[n].predict(design) for n, w in head.weights_.items())
    np.testing.assert_allclose(head.predict(design), blend)


def test_groups_are_left_out_whole():
    design, target = problem(60)
    groups = np.arange(60) % 12
    Recording.seen = []
    heads = {"a": Recording, "b": partial(LinearHead, LinearConfig(penalty=1.0))}
    EnsembleHead(heads=heads, n_folds=3).fit(design, target, groups=groups, rng=0)
    *folds, last = Recording.seen
    assert last.size == 12
    assert [fold.size for fold in folds] == [8, 8, 8]
    left_out = np.concatenate([np.setdiff1d(last, fold) for fold in folds])
    np.testing.assert_array_equal(np.sort(left_out), last)


def test_too_few_groups_give_equal_weights():
    design, target = problem(40)
    heads = {"a": LinearHead, "b": QUICK["lightgbm"]}
    head = EnsembleHead(heads=heads).fit(design, target, groups=np.arange(40) % 3, rng=0)
    assert head.weights_ == {"a": 0.5, "b": 0.5}
    assert head.fold_errors_ == {}


def test_weights_solve_the_constrained_problem():
    rng = np.random.default_rng(0)
    target = rng.normal(size=80)
    noise = rng.normal(size=(80, 3)) * [0.3, 0.5, 3.0]
    predictions = target[:, None] + noise
    equal = np.sum((target - predictions.mean(axis=1)) ** 2)

    def loss(w):
        return np.sum((target - predictions @ w) ** 2) + 0.1 * equal * np.sum((w - 1 / 3) ** 2)

    found = minimize(
        loss,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(simplex_weights(predictions, target), found.x, atol=1e-4)


@given(st.integers(2, 5), st.integers(3, 20), st.integers(0, 2**31 - 1))
def test_weights_are_a_mixture(n_heads, n_rows, seed):
    rng = np.random.default_rng(seed)
    weights = simplex_weights(rng.normal(size=(n_rows, n_heads)), rng.normal(size=n_rows))
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1.0)


def test_heads_that_agree_share_the_weight():
    target = np.arange(5.0)
    np.testing.assert_allclose(simplex_weights(np.full((5, 2), 2.0), target), 0.5)
    np.testing.assert_allclose(simplex_weights(np.ones((5, 2)), np.ones(5)), 0.5)
    np.testing.assert_allclose(simplex_weights(np.stack([target] * 2, axis=1), target), 0.5)


def test_state_restores_bit_for_bit_and_seeds_repeat():
    design, target = problem(80)
    head = EnsembleHead(heads=QUICK).fit(design, target, rng=1)
    restored = EnsembleHead.from_state(head.state())
    np.testing.assert_array_equal(restored.predict(design), head.predict(design))
    assert restored.weights_ == head.weights_
    assert restored.fold_errors_ == head.fold_errors_
    again = EnsembleHead(heads=QUICK).fit(design, target, rng=1)
    np.testing.assert_array_equal(again.predict(design), head.predict(design))


def test_the_kernel_is_left_to_small_histories():
    assert list(default_heads(5000)) == ["linear", "lightgbm", "kernel"]
    assert list(default_heads(5001)) == ["linear", "lightgbm"]


def test_misuse_is_refused():
    design, target = problem(20)
    with pytest.raises(UsageError, match="no heads given"):
        EnsembleHead(heads={})
    with pytest.raises(UsageError, match="n_folds"):
        EnsembleConfig(n_folds=1)
    with pytest.raises(DataError, match="target has shape"):
        EnsembleHead(heads=QUICK).fit(design, target[:3])


def test_only_heads_are_restored():
    design, target = problem(1)
    state = EnsembleHead(heads={"linear": LinearHead}).fit(design, target).state()
    heads = {"dict": [["linear", {"object": "os.system", "state": "_heads.0.1"}]]}
    with pytest.raises(ArtifactError, match=r"has a os\.system, expected Head"):
        EnsembleHead.from_state(replace(state, values={**state.values, "_heads": heads}))
