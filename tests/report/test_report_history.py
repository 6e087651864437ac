"""What the history fills: matrix, map, learning curve, missing runs."""

import numpy as np
import pandas as pd
import pytest
from evaluation.planted import planted, planted_catalog

from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import ProcessExecutor, kept_open
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.history.interactions import Interactions
from recsys_ms.report.learning import CURVE_COLUMNS, learning_curve
from recsys_ms.report.matrix import run_matrix
from recsys_ms.report.missing import (
    MISSING_COLUMNS,
    missing_runs,
)
from recsys_ms.report.space_chart import SPACE_COLUMNS, names_below, transfer_map
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker


def test_every_pair_with_a_run_is_a_tile():
    inter = planted(5, 7, density=0.6)
    matrix = run_matrix(inter)
    assert not matrix.in_blocks
    assert (matrix.n_tasks, matrix.n_models, matrix.n_pairs) == (
        inter.n_tasks,
        inter.n_models,
        inter.n_interactions,
    )
    assert len(matrix.cells) == inter.n_tasks * inter.n_models
    dense = pd.DataFrame(inter.dense(), index=inter.task_ids, columns=inter.model_ids)
    for cell in matrix.cells.itertuples():
        value = dense.loc[cell.tasks, cell.models]
        assert cell.share == (0.0 if np.isnan(value) else 1.0)
        if not np.isnan(value):
            own = dense.loc[cell.tasks].dropna()
            beaten = ((own < value).sum() + ((own == value).sum() - 1) / 2) / (len(own) - 1)
            assert cell.standing == pytest.approx(beaten)
            assert cell.outcome == value
    # The fullest tasks and models come first.
    runs = matrix.cells.groupby("row")["share"].sum()
    assert runs.is_monotonic_decreasing
    assert matrix.cells.groupby("column")["share"].sum().is_monotonic_decreasing


def test_a_large_matrix_is_drawn_in_blocks():
    inter = planted(9, 13, density=0.5)
    matrix = run_matrix(inter, max_tasks=4, max_models=5)
    assert matrix.in_blocks
    assert len(matrix.cells) == 20
    sizes = np.outer(np.bincount(np.arange(9) * 4 // 9), np.bincount(np.arange(13) * 5 // 13))
    filled = matrix.cells["share"].to_numpy() * sizes.ravel()
    assert filled.sum() == pytest.approx(inter.n_interactions)
    assert matrix.cells["n_runs"].sum() == inter.counts.sum()
    assert matrix.cells["outcome"].isna().all()
    assert "(" in matrix.cells["tasks"].iloc[0]


def test_tasks_stand_near_the_models_they_want():
    # Two kinds of tasks, each with its own good models.
    rng = np.random.default_rng(0)
    rows = [
        (f"t{kind}{i}", f"m{own}{j}", (0.9 if kind == own else 0.5) + 0.01 * rng.normal())
        for kind in (0, 1)
        for i in range(5)
        for own in (0, 1)
        for j in range(6)
    ]
    frame = transfer_map(Interactions.from_triplets(*map(list, zip(*rows, strict=True))))
    assert tuple(frame.columns) == SPACE_COLUMNS
    assert len(frame) == 10 + 12
    place = {row.name: np.array([row.x, row.y]) for row in frame.itertuples(index=False)}
    kind = {name: name[1] for name in place}
    for task in (name for name in place if name[0] == "t"):
        away = {
            own: np.mean(
                [
                    np.linalg.norm(place[task] - place[m])
                    for m in place
                    if m[0] == "m" and kind[m] == own
                ]
            )
            for own in "01"
        }
        assert away[kind[task]] < away["0" if kind[task] == "1" else "1"]
    assert 0.9 < frame.attrs["explained"] <= 1.0 + 1e-12
    own = frame[frame["kind"] == "task"].set_index("name")["best"]
    assert all(best[1] == task[1] for task, best in own.items())


def test_names_that_would_overlap_stand_above_and_below():
    places = [("task", 0.5, 0.52), ("task", 0.52, 0.5), ("task", 0.0, 0.0), ("task", 1.0, 0.01)]
    frame = pd.DataFrame([*places, ("model", 0.5, 0.51), ("model", 0.2, 1.0)])
    frame.columns = ["kind", "x", "y"]
    assert names_below(frame) == [False, True, False, False, False, False]
    assert names_below(frame.iloc[:0]) == []
    assert names_below(frame.iloc[:1]) == [False]


def test_the_map_is_the_same_again_and_can_be_cut():
    inter = planted(6, 10)
    pd.testing.assert_frame_equal(transfer_map(inter, seed=3), transfer_map(inter, seed=3))
    cut = transfer_map(inter, max_points=8)
    assert (cut["kind"] == "task").sum() == 4
    assert cut.attrs["n_left_out"] == 16 - 8


def test_the_whole_history_gives_the_plain_back_test():
    inter, catalog = planted(6, 10), planted_catalog(6, 10)
    options = {"rankers": ["popularity", "lr"], "max_tasks": 4}
    curve = learning_curve(inter, catalog, fractions=(1.0, 0.3), seed=5, **options)
    assert tuple(curve.columns) == CURVE_COLUMNS
    assert len(curve) == 2 * 2 * 2
    plain = backtest(
        inter,
        catalog=catalog,
        protocol=LeaveOneTaskOut(max_tasks=4),
        rankers=["popularity"],
        seed=5,
    )
    for metric in ("regret@1", "pearson"):
        own = curve[(curve["ranker"] == "popularity") & (curve["metric"] == metric)]
        whole = own[own["fraction"] == 1.0].iloc[0]
        assert whole["mean"] == pytest.approx(plain.mean("popularity", metric))
        assert whole["low"] <= whole["mean"] <= whole["high"]
        assert whole["n_tasks"] == 4
    sizes = curve.groupby("fraction")["n_outcomes"].first()
    assert sizes[0.3] == pytest.approx(0.3 * sizes[1.0], rel=0.25)


def test_the_curve_depends_neither_on_processes_nor_on_order():
    inter = planted(5, 8)
    options = {"rankers": ["popularity"], "max_tasks": 3}
    here = learning_curve(inter, None, fractions=(0.5, 1.0), **options)
    with kept_open(ProcessExecutor(2)) as processes:
        there = learning_curve(inter, None, fractions=(1.0, 0.5), executor=processes, **options)
    pd.testing.assert_frame_equal(here, there)


@pytest.mark.parametrize(
    ("fractions", "max_tasks"), [((), 3), ((0.0, 1.0), 3), ((1.5,), 3), ((1.0,), 0)]
)
def test_invalid_settings_of_the_curve(fractions, max_tasks):
    with pytest.raises(UsageError, match="shares in"):
        learning_curve(
            planted(4, 6), None, rankers=["popularity"], fractions=fractions, max_tasks=max_tasks
        )


def _with_holes(direction="max", costs=None, metrics=("score",)):
    rng = np.random.default_rng(0)
    quality = np.linspace(0.2, 0.8, 8)
    rows = [
        {
            "task_id": f"t{i}",
            "model_id": f"m{j}",
            "metric": metrics[i % len(metrics)],
            "direction": direction,
            "value": (1 if direction == "max" else -1) * (quality[j] + 0.02 * rng.normal()),
            "status": "finished",
            "cost_gpu_seconds": None if costs is None else costs[j],
        }
        for i in range(6)
        for j in range(8)
        # The best model was never run on the first task.
        if not (i == 0 and j in {7, 0})
    ]
    return Interactions.from_runs(pd.DataFrame(rows))


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_best_model_that_was_never_run_is_most_valuable(direction):
    inter = _with_holes(direction)
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(inter)
    found = missing_runs(ranker, inter)
    assert tuple(found.columns) == MISSING_COLUMNS
    assert found.attrs["n_missing"] == 2
    assert found.attrs["order"] == "expected improvement"
    assert list(zip(found["task_id"], found["model_id"], strict=True)) == [
        ("t0", "m7"),
        ("t0", "m0"),
    ]
    _, outcomes = inter.of_task("t0")
    sign = 1 if direction == "max" else -1
    assert found["best_known"].iloc[0] == pytest.approx(sign * outcomes.max())
    assert (found["low"] < found["predicted"]).all()
    assert (found["predicted"] < found["high"]).all()
    assert found["gain"].iloc[0] > found["gain"].iloc[1] >= 0.0
    said = ranker.recommend("t0", models=["m7"])
    assert found["predicted"].iloc[0] == pytest.approx(said["predicted"].iloc[0])


def test_costs_decide_where_they_are_known():
    # The better model is far dearer than what it is expected to add.
    costs = [3.6] + [360.0] * 6 + [3.6e9]
    inter = _with_holes(costs=costs)
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(inter)
    found = missing_runs(ranker, inter).set_index("model_id")
    assert found.attrs["order"].endswith("per GPU hour")
    assert found.loc["m7", "gpu_hours"] == pytest.approx(1e6)
    assert found.loc["m7", "value"] == pytest.approx(found.loc["m7", "gain"] / 1e6)
    assert list(found["value"]) == sorted(found["value"], reverse=True)


def test_tasks_in_several_metrics_are_compared_by_their_spread():
    inter = _with_holes(metrics=("score", "other"))
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(inter)
    found = missing_runs(ranker, inter)
    assert "spread" in found.attrs["order"]
    _, outcomes = inter.of_task("t0")
    np.testing.assert_allclose(found["value"], found["gain"] / outcomes.std())


def test_a_full_matrix_misses_nothing():
    inter = planted(4, 6, density=1.0)
    found = missing_runs(Ranker(RankerConfig(ranker="popularity")).fit(inter), inter)
    assert found.empty
    assert found.attrs["n_missing"] == 0


def test_a_task_that_the_ranker_has_not_seen_is_told():
    inter = _with_holes()
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(inter.without_task("t0"))
    found = missing_runs(ranker, inter)
    assert list(found["model_id"]) == ["m7", "m0"]
