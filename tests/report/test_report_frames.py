"""Tables behind the charts that a back-test fills."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_data import HOSTILE_TASK, REGRET, predictions, result
from scipy.special import ndtri

from recsys_ms.evaluation.coverage import task_coverage
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.report.frames import (
    calibration_curve,
    kept_predictions,
    leaderboard,
    per_task,
    ranker_order,
    thinned,
)
from recsys_ms.report.report_data import best_ranker


def test_leaderboard_has_the_baselines_and_their_means():
    frame = leaderboard(result(), "candidate")
    assert list(dict.fromkeys(frame["ranker"])) == ["candidate", "popularity", "random", "oracle"]
    own = frame[frame["metric"] == "regret@1"].set_index("ranker")
    for ranker, by_task in REGRET.items():
        assert own.loc[ranker, "mean"] == pytest.approx(np.mean(list(by_task.values())))
        assert own.loc[ranker, "low"] <= own.loc[ranker, "mean"] <= own.loc[ranker, "high"]
    # Worse than popularity on every task, and by much; the oracle is never worse.
    assert own.loc["random", "verdict"] == -1
    assert own.loc["popularity", "verdict"] == 0


def test_tasks_stand_in_the_order_of_what_is_lost():
    frame = per_task(result(), "candidate")
    assert list(dict.fromkeys(frame["task"])) == [HOSTILE_TASK, "cars", "birds"]
    by_hand = {(r, t): x for r, by_task in REGRET.items() for t, x in by_task.items()}
    found = frame.set_index(["ranker", "task"])["regret@1"].to_dict()
    assert found == pytest.approx(by_hand)
    assert set(frame["n_models"]) == {10}
    assert set(frame["metric"]) == {"accuracy"}


def test_a_ranker_in_focus_comes_first_and_the_best_is_found():
    assert ranker_order(result(), "popularity") == ["popularity", "candidate", "random", "oracle"]
    assert best_ranker(result()) == "candidate"


def test_the_static_order_is_no_candidate_and_stands_after_chance():
    whole = result()
    cells = [
        *whole.cells,
        *(
            replace(cell, ranker="static", scores={**cell.scores, "regret@1": 0.0})
            for cell in whole.cells
            if cell.ranker == "random"
        ),
    ]
    found = BacktestResult.from_cells(
        cells, protocol=whole.protocol, rankers=(*whole.rankers, "static"), seed=0
    )
    assert ranker_order(found, "candidate") == [
        *("candidate", "popularity", "random", "static", "oracle")
    ]
    assert best_ranker(found) == "candidate"


def test_coverage_of_each_task():
    frame = task_coverage(predictions()).set_index("task")
    assert frame["inside"].to_dict() == pytest.approx(
        {"birds": 0.5, HOSTILE_TASK: 0.9, "cars": 1.0}
    )
    assert list(frame.index) == ["birds", HOSTILE_TASK, "cars"]
    np.testing.assert_allclose(frame["width"], 0.2)


def test_calibration_of_normal_errors_is_the_diagonal():
    # Errors at the quantiles of a normal distribution, in intervals that state 0.8 of it.
    n = 2000
    error = ndtri((np.arange(n) + 0.5) / n)
    half = float(ndtri(0.9))
    frame = pd.DataFrame(
        {
            "task_id": np.where(np.arange(n) % 2 == 0, "a", "b"),
            "outcome": error,
            "predicted": 0.0,
            "low": -half,
            "high": half,
        }
    )
    curve = calibration_curve(frame, 0.8, seed=0)
    np.testing.assert_allclose(curve["observed"], curve["level"], atol=2e-3)
    assert curve.loc[curve["stated"], "level"].tolist() == [0.8]
    assert (curve["observed"].diff().dropna() >= 0.0).all()


def test_stated_level_of_the_curve_is_the_observed_coverage():
    curve = calibration_curve(predictions(), 0.8, seed=0)
    at = curve[curve["stated"]].iloc[0]
    assert at["observed"] == pytest.approx((0.5 + 0.9 + 1.0) / 3)
    assert at["low"] <= at["observed"] <= at["high"]


def test_intervals_that_are_cut_where_the_metric_ends_calibrate_the_same():
    # Predictions within .3 of 1, half a width of .2: uncut and cut say the same of every level.
    n = 4000
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.7, 1.0, size=n)
    outcome = predicted - np.abs(rng.normal(0.0, 0.15, size=n))
    whole = pd.DataFrame(
        {
            "task_id": np.where(np.arange(n) % 2 == 0, "a", "b"),
            "outcome": outcome,
            "predicted": predicted,
            "low": predicted - 0.2,
            "high": predicted + 0.2,
        }
    )
    cut = whole.assign(high=np.minimum(whole["high"], 1.0))
    curves = [calibration_curve(frame, 0.8, seed=0) for frame in (whole, cut)]
    np.testing.assert_allclose(curves[0]["observed"], curves[1]["observed"])
    inside = task_coverage(cut)["inside"].mean()
    assert curves[1].loc[curves[1]["stated"], "observed"].tolist() == pytest.approx([inside])


def test_kept_predictions_are_those_with_an_interval():
    both = predictions()
    both.loc[3, ["low", "high", "predicted"]] = np.nan
    other = both.assign(ranker="current")
    found = kept_predictions(result(kept=pd.concat([both, other])), "candidate")
    assert len(found) == len(both) - 1
    assert set(found["ranker"]) == {"candidate"}


def test_thinning_keeps_every_task_and_the_order():
    frame = pd.DataFrame(
        {"task_id": np.repeat(["a", "b", "c"], [600, 300, 100]), "row": np.arange(1000)}
    )
    drawn = thinned(frame, 100, seed=1)
    assert drawn["task_id"].value_counts().to_dict() == {"a": 60, "b": 30, "c": 10}
    assert drawn["row"].is_monotonic_increasing
    assert drawn["row"].is_unique
    pd.testing.assert_frame_equal(drawn, thinned(frame, 100, seed=1))
    assert not drawn.equals(thinned(frame, 100, seed=2))
    assert thinned(frame, 1000, seed=1) is frame
