"""Coverage of the intervals on planted tasks, and what they fall back to."""

import numpy as np
import pytest
from scipy.special import ndtri

from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.intervals import IntervalCalibration, predicted_sd
from recsys_ms.ranker.scale import ScalePrior


def planted(n_tasks: int, n_models: int, seed: int) -> tuple[Interactions, np.ndarray]:
    """Tasks with random location and spread; the held-out value explains half of the variance."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=n_models)
    tasks, models, outcomes, predicted = [], [], [], []
    for t in range(n_tasks):
        center, scale = 0.6 + 0.1 * rng.normal(), 0.1 * np.exp(0.2 * rng.normal())
        z = np.sqrt(0.5) * value + np.sqrt(0.5) * rng.normal(size=n_models)
        tasks += [f"t{t:03d}"] * n_models
        models += [f"m{m:03d}" for m in range(n_models)]
        outcomes.append(center + scale * z)
        predicted.append(np.sqrt(0.5) * value)
    inter = Interactions.from_triplets(tasks, models, np.concatenate(outcomes), metric="x")
    return inter, np.concatenate(predicted)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("n_observed", [0, 3])
def test_new_tasks_are_covered_as_stated(coverage: float, n_observed: int) -> None:
    inter, value = planted(60, 30, seed=1)
    calibration = IntervalCalibration.fit(inter, value, coverage=coverage, seed=0)
    prior = ScalePrior.fit(inter)
    fresh, fresh_value = planted(300, 30, seed=2)
    held = []
    for task in range(fresh.n_tasks):
        rows = np.flatnonzero(fresh.task_index == task)
        shown, hidden = rows[:n_observed], rows[n_observed:]
        scale = prior.posterior(
            "x",
            predicted=fresh_value[shown],
            outcomes=fresh.outcomes[shown],
            residual_sd=calibration.residual_sd,
        )
        predicted = scale.center + scale.scale * fresh_value[hidden]
        half = calibration.half_width(scale, n_observed)
        held.append(np.mean(np.abs(fresh.outcomes[hidden] - predicted) <= half))
    # 60 calibration tasks leave a standard error of about 5 points.
    assert np.mean(held) == pytest.approx(coverage, abs=0.08)


def test_observed_outcomes_narrow_the_interval() -> None:
    inter, value = planted(40, 30, seed=3)
    calibration = IntervalCalibration.fit(inter, value, coverage=0.8, seed=0)
    prior = ScalePrior.fit(inter)
    none = prior.posterior("x", predicted=np.empty(0), outcomes=np.empty(0), residual_sd=0.7)
    some = prior.posterior("x", predicted=value[:10], outcomes=inter.outcomes[:10], residual_sd=0.7)
    assert calibration.half_width(some, 10) < calibration.half_width(none, 0)


def test_a_single_task_falls_back_to_the_normal_quantile() -> None:
    inter, value = planted(1, 10, seed=4)
    calibration = IntervalCalibration.fit(inter, value, coverage=0.9, seed=0)
    assert calibration.n_tasks == 0
    np.testing.assert_allclose(calibration.quantiles, ndtri(0.95))
    scale = ScalePrior.fit(inter).posterior(
        "x", predicted=np.empty(0), outcomes=np.empty(0), residual_sd=1.0
    )
    assert calibration.half_width(scale, 0) == pytest.approx(ndtri(0.95) * predicted_sd(scale, 1.0))


def test_state_round_trip() -> None:
    inter, value = planted(10, 10, seed=5)
    calibration = IntervalCalibration.fit(inter, value, coverage=0.8, seed=0)
    again = IntervalCalibration.from_state(calibration.state())
    np.testing.assert_array_equal(again.quantiles, calibration.quantiles)
    assert (again.coverage, again.residual_sd, again.n_tasks) == (
        calibration.coverage,
        calibration.residual_sd,
        calibration.n_tasks,
    )
