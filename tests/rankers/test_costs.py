"""Expected cost of a run: a task's size times a model's."""

import numpy as np
import pytest

from recsys_ms.history.interactions import Interactions
from recsys_ms.planning.run_costs import expected_costs

SIZE = np.array([1.0, 10.0, 100.0, 3.0])
SLOW = np.array([1.0, 2.0, 5.0, 0.5, 8.0])


def history(costs: np.ndarray) -> Interactions:
    """One run of each model on each task; ``costs`` of shape (n_tasks, n_models), NaN unknown."""
    i, j = np.indices(costs.shape).reshape(2, -1)
    return Interactions(
        task_ids=tuple(f"t{k}" for k in range(costs.shape[0])),
        model_ids=tuple(f"m{k}" for k in range(costs.shape[1])),
        task_index=i,
        model_index=j,
        values=np.linspace(0.0, 1.0, i.size),
        counts=np.ones(i.size, dtype=np.int64),
        costs=costs.ravel(),
        metrics=("accuracy",) * costs.shape[0],
        signs=np.ones(costs.shape[0]),
    )


def ratios(found: np.ndarray) -> np.ndarray:
    return found / found[0]


def test_a_product_is_taken_apart_however_unevenly_tasks_were_tried():
    costs = 7.0 * SIZE[:, None] * SLOW[None, :]
    whole = expected_costs(history(costs), "new", ["m0", "m1", "m2", "m3", "m4"])
    np.testing.assert_allclose(ratios(whole), SLOW, rtol=1e-5)
    # The slowest model was run on the smallest task alone: the mean of its runs is the lowest.
    uneven = costs.copy()
    uneven[1:3, 4] = np.nan
    assert np.nanmean(uneven[:, 4]) < np.nanmean(uneven[:, 0])
    found = expected_costs(history(uneven), "new", ["m0", "m4"])
    assert ratios(found)[1] == pytest.approx(8.0, rel=1e-3)


def test_a_large_task_costs_more():
    logged = history(7.0 * SIZE[:, None] * SLOW[None, :])
    small, large, new = (expected_costs(logged, task, ["m1"])[0] for task in ("t0", "t2", "new"))
    assert large / small == pytest.approx(100.0, rel=1e-5)
    assert small < new < large


def test_units_do_not_matter():
    costs = np.random.default_rng(0).lognormal(3.0, 1.0, size=(4, 5))
    seconds = expected_costs(history(costs), "t1", ["m0", "m3"])
    hours = expected_costs(history(costs / 3600.0), "t1", ["m0", "m3"])
    np.testing.assert_allclose(hours * 3600.0, seconds, rtol=1e-9)


def test_what_nobody_timed():
    costs = SIZE[:, None] * SLOW[None, :]
    costs[:, 2] = np.nan
    costs[0, 3] = 0.0
    found = expected_costs(history(costs), "t3", ["m2", "m3", "never seen"])
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert found[0] == found[2]
    assert expected_costs(history(np.full((2, 3), np.nan)), "t0", ["m0"]) is None
    assert expected_costs(history(np.zeros((2, 3))), "t0", ["m0"]) is None
