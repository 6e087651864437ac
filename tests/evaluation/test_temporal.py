"""The temporal protocol: cuts, pairs seen before, cold tasks, missing times."""

import pandas as pd
import pytest

from evaluation.planted import planted_runs
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.interactions import Interactions


def runs_of(*rows):
    return pd.DataFrame(
        rows, columns=["task_id", "model_id", "value", "finished_at", "status", "metric"]
    ).assign(direction="max")


def run(task, model, value, day, status="finished", metric="accuracy"):
    return task, model, value, f"2026-01-{day:02d}T00:00:00Z", status, metric


HISTORY = runs_of(
    run("old", "a", 0.5, 1),
    run("old", "b", 0.6, 2),
    run("old", "c", 0.1, 3, status="failed"),
    run("old", "a", 0.9, 12),  # seen before: neither tested nor trained on
    run("old", "c", 0.7, 11),
    run("old", "c", 0.8, 13),
    run("old", "d", 0.4, 11),
    run("new", "a", 0.3, 14),
    run("new", "b", 0.2, 15),
    run("thin", "a", 0.2, 15),
)


def folds_of(runs, **options):
    history = Interactions.from_runs(runs)
    return list(Temporal(runs=runs, **options).folds(history, None, seed=0))


def test_a_cut_by_hand():
    (fold,) = folds_of(HISTORY, before=["2026-01-10"])
    assert fold.name == "before 2026-01-10T00:00:00+00:00"
    assert fold.train.task_ids == ("old",)
    assert fold.train.values.tolist() == [0.5, 0.6]
    new, old = fold.held_out
    assert (old.query.task_id, old.warmth, old.model_ids) == ("old", "hot", ("c", "d"))
    assert old.outcomes.tolist() == [0.8, 0.4]
    assert (new.query.task_id, new.warmth, new.model_ids) == ("new", "cold", ("a", "b"))
    assert fold.left_out == ("thin",)


def test_a_run_at_the_cut_is_tested_not_trained():
    (fold,) = folds_of(HISTORY, before=["2026-01-02"])
    assert fold.train.model_ids == ("a",)
    (old,) = (x for x in fold.held_out if x.query.task_id == "old")
    assert "b" in old.model_ids


def test_several_cuts_test_up_to_the_next():
    first, second = folds_of(HISTORY, before=["2026-01-10", "2026-01-14"])
    assert [x.query.task_id for x in first.held_out] == ["old"]
    assert [x.query.task_id for x in second.held_out] == ["new"]
    assert second.train.model_ids == ("a", "b", "c", "d")


def test_fractions_cut_by_count():
    runs = planted_runs()
    (fold,) = folds_of(runs, fractions=(0.7,))
    assert fold.train.counts.sum() == pytest.approx(0.7 * len(runs), abs=3)  # days are shared
    assert {x.warmth for x in fold.held_out} == {"hot", "cold"}


def test_metric_of_the_interactions_is_used():
    more = runs_of(*HISTORY.drop(columns="direction").itertuples(index=False, name=None)).pipe(
        lambda frame: pd.concat([frame, frame.assign(metric="loss", direction="min")])
    )
    history = Interactions.from_runs(more, metric="accuracy")
    (fold,) = Temporal(runs=more, before=["2026-01-10"]).folds(history, None, seed=0)
    assert set(fold.train.metrics) == {"accuracy"}
    assert fold.train.values.tolist() == [0.5, 0.6]


def test_no_times_at_all():
    with pytest.raises(DataError, match=r"finished_at.*leave-one-task-out"):
        folds_of(HISTORY.drop(columns="finished_at"))
    with pytest.raises(DataError, match="none of the 9 runs has a finished_at"):
        folds_of(HISTORY.assign(finished_at=pd.NaT))


def test_some_times_missing():
    runs = HISTORY.assign(finished_at=pd.to_datetime(HISTORY["finished_at"]))
    runs.loc[0, "finished_at"] = pd.NaT
    with pytest.raises(DataError, match=r"1 of 9 finished runs .*leave-out"):
        folds_of(runs)
    (fold,) = folds_of(runs, before=["2026-01-10"], undated="leave-out")
    assert fold.train.model_ids == ("b",)


def test_invalid_times():
    with pytest.raises(DataError, match="not a time"):
        folds_of(HISTORY.assign(finished_at=["yesterday", *HISTORY["finished_at"][1:]]))


def test_a_cut_outside_the_history():
    for moment in ("2020-01-01", "2030-01-01"):
        with pytest.raises(DataError, match="choose cuts inside"):
            folds_of(HISTORY, before=[moment])


def test_all_runs_at_one_moment_cannot_be_cut():
    with pytest.raises(DataError, match="choose cuts inside"):
        folds_of(HISTORY.assign(finished_at="2026-01-01T00:00:00Z"))


@pytest.mark.parametrize(
    "options",
    [
        {"fractions": ()},
        {"fractions": (0.5, 0.5)},
        {"fractions": (0.0,)},
        {"fractions": (0.9, 0.8)},
        {"before": ["2026-01-02", "2026-01-01"]},
        {"before": ["soon"]},
        {"undated": "guess"},
    ],
)
def test_bad_settings(options):
    with pytest.raises(UsageError):
        Temporal(runs=HISTORY, **options)


def test_settings_are_plain():
    assert Temporal(runs=HISTORY).settings() == {"fractions": [0.8], "undated": "error"}
    assert Temporal(runs=HISTORY, before=["2026-01-02"]).settings()["before"] == [
        "2026-01-02T00:00:00+00:00"
    ]


def test_the_runs_are_not_changed():
    runs = HISTORY.copy()
    folds_of(runs, before=["2026-01-10"])
    pd.testing.assert_frame_equal(runs, HISTORY)
