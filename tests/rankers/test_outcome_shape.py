"""The shape of outcomes: increasing, turned around exactly, expectations by quadrature."""

import numpy as np
import pytest

from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.outcome_shape import OutcomeShape


def collapsed(n_tasks: int = 15, n_models: int = 80, seed: int = 0) -> Interactions:
    """A fifth of the runs of every task collapse."""
    rng = np.random.default_rng(seed)
    values = 0.8 + 0.05 * rng.normal(size=(n_tasks, n_models))
    values[rng.random(values.shape) < 0.2] = 0.1
    task, model = np.indices(values.shape)
    return Interactions.from_triplets(
        [f"t{i}" for i in task.ravel()], [f"m{j}" for j in model.ravel()], values.ravel()
    )


def fitted(history: Interactions) -> OutcomeShape:
    return OutcomeShape.fit(
        history, standardize(history, "rank").scores, standardize(history, "zscore").scores
    )


def test_it_is_increasing_and_can_be_turned_around() -> None:
    shape = fitted(collapsed())
    n = np.linspace(-6.0, 6.0, 400)
    assert (np.diff(shape(n)) > 0.0).all()
    np.testing.assert_allclose(shape.inverse(shape(n)), n, atol=1e-9)


def test_it_follows_the_outcomes() -> None:
    history = collapsed()
    shape = fitted(history)
    normal, standard = standardize(history, "rank").scores, standardize(history, "zscore").scores
    error = shape(normal) - standard
    assert np.sqrt(np.mean(error**2)) < 0.3 * np.sqrt(np.mean((normal - standard) ** 2))


def test_normal_outcomes_have_the_normal_shape() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 200))
    task, model = np.indices(values.shape)
    history = Interactions.from_triplets(
        [f"t{i}" for i in task.ravel()], [f"m{j}" for j in model.ravel()], values.ravel()
    )
    n = np.linspace(-2.0, 2.0, 9)
    np.testing.assert_allclose(fitted(history)(n), n, atol=0.1)
    np.testing.assert_allclose(OutcomeShape.normal()(n), n, atol=1e-12)


def test_expectations_are_those_of_many_draws() -> None:
    shape = fitted(collapsed())
    rng = np.random.default_rng(1)
    for mean, sd in ((0.0, 1.0), (-1.5, 0.4), (2.0, 0.7)):
        drawn = shape(mean + sd * rng.normal(size=200_000)).mean()
        found = shape.expected(np.array([mean]), np.array([sd]))[0]
        assert found == pytest.approx(drawn, abs=0.06)


def test_the_slope_is_the_derivative() -> None:
    shape = fitted(collapsed())
    n = np.linspace(-3.3, 3.3, 57) + 1e-3
    step = 1e-7
    numeric = (shape(n + step) - shape(n - step)) / (2 * step)
    np.testing.assert_allclose(shape.slope(n), numeric, rtol=1e-5)


def test_a_history_of_tiny_tasks_has_the_normal_shape() -> None:
    tiny = Interactions.from_triplets(["a", "a"], ["x", "y"], [0.1, 0.2])
    np.testing.assert_allclose(fitted(tiny).values, OutcomeShape.normal().values)
