"""Conditioning on observed residuals: the textbook formula, and how far it is trusted."""

import numpy as np
import pytest

from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.correction import ResidualCorrection, _condition


@pytest.mark.parametrize(("n_tasks", "n_observed"), [(3, 5), (8, 4), (5, 5)])
def test_conditioning_equals_the_dense_gaussian_formula(n_tasks: int, n_observed: int) -> None:
    rng = np.random.default_rng(n_tasks)
    residuals = rng.normal(size=(n_tasks, 9))
    observed = rng.permutation(9)[:n_observed]
    values = rng.normal(size=n_observed)
    noise = 0.7
    covariance = residuals.T @ residuals / n_tasks
    spread = noise * np.mean(residuals**2)
    inner = covariance[np.ix_(observed, observed)] + spread * np.eye(n_observed)
    expected = covariance[:, observed] @ np.linalg.solve(inner, values)
    np.testing.assert_allclose(
        _condition(residuals, observed, values, noise), expected, rtol=1e-9, atol=1e-12
    )


def history(*, planted: bool, seed: int = 0) -> Interactions:
    rng = np.random.default_rng(seed)
    n_tasks, n_models = 30, 24
    wish = rng.normal(size=(n_tasks, 2)) @ rng.normal(size=(2, n_models))
    score = wish if planted else rng.normal(size=(n_tasks, n_models))
    values = 0.5 + 0.05 * score
    tasks = np.repeat([f"t{i:02d}" for i in range(n_tasks)], n_models)
    models = np.tile([f"m{j:02d}" for j in range(n_models)], n_tasks)
    return Interactions.from_triplets(tasks.tolist(), models.tolist(), values.ravel())


def test_pure_noise_is_not_believed_and_planted_structure_is() -> None:
    for planted in (False, True):
        inter = history(planted=planted)
        found = ResidualCorrection.fit(
            inter, np.zeros(inter.n_interactions), np.arange(inter.n_tasks), seed=0
        )
        if planted:
            assert found.noise[2] <= 1.0
            assert found.noise[3] <= found.noise[1]
        else:
            assert (found.noise >= 8.0).all()


def test_many_observed_outcomes_reveal_the_others() -> None:
    inter = history(planted=True)
    tasks = np.arange(inter.n_tasks)
    found = ResidualCorrection.fit(inter, np.zeros(inter.n_interactions), tasks, seed=0)
    target = found.residuals[0]
    expected = found.expected(np.arange(12), target[:12], without_task=0)
    assert np.corrcoef(expected[12:], target[12:])[0, 1] > 0.9


def test_nothing_observed_moves_nothing_and_state_is_exact() -> None:
    inter = history(planted=True)
    found = ResidualCorrection.fit(
        inter, np.zeros(inter.n_interactions), np.arange(inter.n_tasks), seed=0
    )
    assert not found.expected(np.empty(0, dtype=np.int64), np.empty(0)).any()
    again = ResidualCorrection.from_state(found.state())
    seen, values = np.array([1, 4]), np.array([0.5, -1.0])
    np.testing.assert_array_equal(again.expected(seen, values), found.expected(seen, values))
