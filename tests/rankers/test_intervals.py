"""Coverage of the intervals on planted tasks, and what they fall back to."""

import numpy as np
import pytest
from scipy.special import ndtri

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.calibration import calibrate
from recsys_ms.rankers.intervals import IntervalCalibration
from recsys_ms.rankers.ranker_names import make_ranker


def planted(n_tasks: int, n_models: int, seed: int) -> Interactions:
    """Tasks with random location and spread; popularity and one factor explain most of them."""
    rng, models = np.random.default_rng(seed), np.random.default_rng(0)
    level, loading = models.normal(size=n_models), 0.7 * models.normal(size=n_models)
    values = []
    for _ in range(n_tasks):
        z = level + loading * rng.normal() + 0.5 * rng.normal(size=n_models)
        values.append(0.6 + 0.1 * rng.normal() + 0.05 * np.exp(0.2 * rng.normal()) * z)
    task, model = np.indices((n_tasks, n_models))
    return Interactions.from_triplets(
        [f"t{seed}-{i:03d}" for i in task.ravel()],
        [f"m{j:03d}" for j in model.ravel()],
        np.concatenate(values),
        metric="x",
    )


@pytest.fixture(scope="module")
def fitted():
    history = planted(60, 40, seed=1)
    return {name: make_ranker(name).fit(history, rng=0) for name in ("auto", "popularity")}, history


@pytest.mark.parametrize("name", ["auto", "popularity"])
@pytest.mark.parametrize("coverage", [0.5, 0.8])
def test_new_tasks_are_covered_as_stated_and_runs_narrow_the_interval(
    fitted, name: str, coverage: float
) -> None:
    rankers, history = fitted
    ranker = rankers[name]
    found = calibrate(
        ranker, lambda: make_ranker(name), history, Catalog.empty(), coverage=coverage, seed=0
    )
    fresh = planted(80, 40, seed=2)
    widths = {}
    for n in (0, 1, 3, 10, 20):
        held, width = [], []
        for task in fresh.task_ids:
            columns, outcomes = fresh.of_task(task)
            ids = [fresh.model_ids[int(j)] for j in columns]
            order = np.random.default_rng(len(held)).permutation(len(ids))
            ids, outcomes = [ids[int(i)] for i in order], outcomes[order]
            seen = dict(zip(ids[:n], outcomes[:n].tolist(), strict=True))
            query = TaskQuery(task_id=task, observed=seen, metric="x")
            low, high = ranker.believe(query, ids[n:]).interval(found.at(n))
            held.append(np.mean((outcomes[n:] >= low) & (outcomes[n:] <= high)))
            width.append(np.mean(high - low))
        # Without a run all models of a task are off together: 60 tasks to learn from and 80 to
        # check leave a standard error of 8 points.
        assert np.mean(held) == pytest.approx(coverage, abs=0.1 if n else 0.2)
        widths[n] = np.mean(width)
    assert widths[10] < 0.6 * widths[0]
    assert widths[20] < widths[3] < widths[0]


def test_a_single_task_falls_back_to_the_normal_quantile() -> None:
    history = planted(1, 10, seed=4)
    ranker = make_ranker("auto").fit(history, rng=0)
    found = calibrate(
        ranker, lambda: make_ranker("auto"), history, Catalog.empty(), coverage=0.9, seed=0
    )
    assert found.n_tasks == 0
    for n in (0, 5):
        assert found.at(n) == pytest.approx(ndtri(0.95))


def test_between_measured_numbers_it_is_interpolated() -> None:
    found = IntervalCalibration(0.8, np.array([0.0, 3.0]), np.array([2.0, 1.0]), 5)
    assert found.at(0) == 2.0
    assert found.at(1) == pytest.approx(1.5)
    assert found.at(100) == 1.0


def test_state_round_trip() -> None:
    rng = np.random.default_rng(0)
    strayed = {n: [np.abs(rng.normal(size=20)) for _ in range(8)] for n in (0, 1, 3)}
    found = IntervalCalibration.fit(strayed, coverage=0.8)
    again = IntervalCalibration.from_state(found.state())
    np.testing.assert_array_equal(again.widening, found.widening)
    np.testing.assert_array_equal(again.n_observed, found.n_observed)
    assert (again.coverage, again.n_tasks) == (0.8, 8)
