"""Best value per pair, counts, ids, metrics and directions."""

import numpy as np
import pandas as pd
import pytest

from recsys_ms.core.errors import DataError, UnknownIdError
from recsys_ms.history.interactions import Interactions


def runs(rows: list[tuple[str, str, float | None]], **constant: object) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["task_id", "model_id", "value"])
    defaults = {
        "metric": "accuracy",
        "direction": "max",
        "status": "finished",
        "cost_gpu_seconds": np.nan,
    }
    return frame.assign(**(defaults | constant))


def test_best_value_by_direction_and_counts() -> None:
    rows = [("t", "a", 0.5), ("t", "a", 0.8), ("t", "b", 0.6), ("s", "b", 0.1)]
    best = Interactions.from_runs(runs(rows))
    assert best.task_ids == ("s", "t")
    assert best.model_ids == ("a", "b")
    assert best.values.tolist() == [0.1, 0.8, 0.6]
    assert best.counts.tolist() == [1, 2, 1]
    smallest = Interactions.from_runs(runs(rows, metric="loss", direction="min"))
    assert smallest.values.tolist() == [0.1, 0.5, 0.6]
    assert smallest.outcomes.tolist() == [-0.1, -0.5, -0.6]
    np.testing.assert_array_equal(smallest.signs, [-1.0, -1.0])


def test_failed_running_and_valueless_runs_are_no_outcomes() -> None:
    frame = runs([("t", "a", 0.5), ("t", "b", 0.9), ("t", "c", None), ("t", "d", 0.7)])
    frame["status"] = ["finished", "failed", "finished", "running"]
    assert Interactions.from_runs(frame).model_ids == ("a",)


def test_costs_average_over_the_runs_that_say() -> None:
    frame = runs([("t", "a", 0.5), ("t", "a", 0.6), ("t", "a", 0.4), ("t", "b", 0.1)])
    frame["cost_gpu_seconds"] = [10.0, 20.0, np.nan, np.nan]
    got = Interactions.from_runs(frame).costs
    assert got[0] == 15.0
    assert np.isnan(got[1])


def test_two_metrics_for_one_task_are_asked_about() -> None:
    frame = runs([("t", "a", 0.5), ("t", "b", 0.6), ("t", "a", 1.5)])
    frame["metric"] = ["accuracy", "accuracy", "loss"]
    frame["direction"] = ["max", "max", "min"]
    with pytest.raises(DataError, match=r"'t' has runs in 2 metrics \(accuracy, loss\).*metric="):
        Interactions.from_runs(frame)
    assert Interactions.from_runs(frame, metric="loss").values.tolist() == [1.5]
    assert Interactions.from_runs(frame, metric={"t": "accuracy"}).n_interactions == 2
    assert Interactions.from_runs(frame, on_two_metrics="most-runs").metrics == ("accuracy",)


def test_runs_of_the_other_direction_are_left_out_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = runs([("t", "a", 0.5), ("t", "b", 0.6), ("t", "c", 0.7)], metric="my score")
    frame["direction"] = ["max", "min", "max"]
    assert Interactions.from_runs(frame).model_ids == ("a", "c")
    assert "2 runs of the metric say that higher is better, 1 that lower is" in caplog.text
    # Nobody can say which half is right.
    with pytest.raises(DataError, match=r"no finished run .* among 2 runs.*1 that lower"):
        Interactions.from_runs(frame[:2])


def test_nothing_usable_is_an_error_with_a_way_out() -> None:
    with pytest.raises(DataError, match="ingest runs first"):
        Interactions.from_runs(runs([]))


def test_dense_and_sparse_agree_and_keep_zeros() -> None:
    got = Interactions.from_runs(runs([("t", "a", 0.0), ("t", "b", 1.0), ("u", "b", 0.5)]))
    dense = got.dense()
    assert np.isnan(dense[1, 0])
    assert got.matrix().nnz == 3
    np.testing.assert_array_equal(got.matrix().toarray(), np.nan_to_num(dense))


def test_without_task_drops_models_that_only_it_had() -> None:
    got = Interactions.from_runs(runs([("t", "a", 0.5), ("t", "b", 0.6), ("u", "b", 0.7)]))
    rest = got.without_task("t")
    assert rest.task_ids == ("u",)
    assert rest.model_ids == ("b",)


def test_unknown_ids_name_the_nearest() -> None:
    got = Interactions.from_runs(runs([("digits", "a", 0.5)]))
    with pytest.raises(UnknownIdError, match="did you mean 'digits'"):
        got.of_task("digit")


def test_arrays_are_read_only_and_the_frame_is_untouched() -> None:
    frame = runs([("t", "a", 0.5), ("t", "b", 0.6)])
    before = frame.copy()
    got = Interactions.from_runs(frame)
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(ValueError, match="read-only"):
        got.values[0] = 1.0


def test_order_of_rows_is_irrelevant() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"t{i % 4}", f"m{i % 7}", float(v)) for i, v in enumerate(rng.random(60))]
    frame = runs(rows)
    a, b = Interactions.from_runs(frame), Interactions.from_runs(frame.sample(frac=1.0))
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.counts, b.counts)


def test_the_run_that_reached_the_value_is_named() -> None:
    frame = runs([("a", "x", 0.5), ("a", "x", 0.7), ("a", "y", 0.6), ("b", "x", 0.9)])
    assert Interactions.from_runs(frame).run_ids == ()
    frame["run_id"] = ["r0", "r1", None, "r3"]
    inter = Interactions.from_runs(frame)
    assert inter.run_ids == ("r1", "", "r3")
    assert inter.select(inter.task_index == 1).run_ids == ("r3",)
    assert inter.without_task("b").run_ids == ("r1", "")
    frame = frame.assign(metric="loss", direction="min")
    assert Interactions.from_runs(frame).run_ids == ("r0", "", "r3")
