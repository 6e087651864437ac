"""The stack: popularity where parts tell nothing, their share where they do."""

import numpy as np
import pytest

from recsys_ms.rankers.stack import fit_stack


def rows(n_tasks: int, told: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Popularity, a part that knows ``told`` of what popularity does not, and a part of noise."""
    rng = np.random.default_rng(seed)
    n_models = 40
    group = np.repeat(np.arange(n_tasks), n_models)
    popularity = np.tile(rng.normal(size=n_models), n_tasks)
    own = rng.normal(size=group.size)
    target = popularity + own + 0.3 * rng.normal(size=group.size) + rng.normal(size=n_tasks)[group]
    useful = popularity + told * own + 0.3 * rng.normal(size=group.size)
    useless = popularity + rng.normal(size=group.size)
    return np.column_stack([popularity, useful, useless]), target, group


def test_parts_that_tell_nothing_leave_popularity() -> None:
    predicted, target, group = rows(12, told=0.0)
    found = fit_stack(predicted, target, group)
    assert found.weights[0] > 0.9
    assert found.weights[1:].max() < 0.08
    assert abs(found.gain) < 0.02


def test_a_part_that_tells_something_is_used_as_least_squares_would() -> None:
    predicted, target, group = rows(40, told=1.0)
    found = fit_stack(predicted, target, group)
    centred = predicted - np.array([predicted[group == g].mean(axis=0) for g in range(40)])[group]
    wanted = target - np.array([target[group == g].mean() for g in range(40)])[group]
    least = np.linalg.lstsq(centred, wanted, rcond=None)[0]
    np.testing.assert_allclose(found.weights, np.maximum(least, 0.0), atol=0.06)
    assert found.gain > 0.2


def test_few_tasks_are_drawn_to_popularity_more_than_many() -> None:
    few = fit_stack(*rows(3, told=0.3))
    many = fit_stack(*rows(60, told=0.3))
    assert few.strength >= many.strength


@pytest.mark.parametrize("n_tasks", [0, 1])
def test_without_tasks_to_judge_by_it_is_popularity(n_tasks: int) -> None:
    predicted, target, group = rows(2, told=1.0)
    kept = group < n_tasks
    found = fit_stack(predicted[kept], target[kept], group[kept])
    assert found.weights.tolist() == [1.0, 0.0, 0.0]


def test_rows_that_no_part_predicted_are_left_out() -> None:
    predicted, target, group = rows(10, told=1.0)
    holes = predicted.copy()
    holes[::5, 1] = np.nan
    kept = np.isfinite(holes).all(axis=1)
    first, second = (
        fit_stack(holes, target, group),
        fit_stack(holes[kept], target[kept], group[kept]),
    )
    np.testing.assert_array_equal(first.weights, second.weights)
