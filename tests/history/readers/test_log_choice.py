"""The value of a run out of its series, against plain closed forms."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.history.readers.choice import Asked, Chosen, choose_value
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.store.curves import Series


def series(
    name: str,
    values: list[float],
    *,
    metric: str = "accuracy",
    split: str | None = "val",
    **more: Any,
) -> Series:
    n = len(values)
    return Series(
        name=name,
        metric=metric,
        split=split,
        steps=list(range(1, n + 1)),
        epochs=[float(i) for i in range(n)],
        values=values,
        **more,
    )


def run(*found: Series, **more: Any) -> LoggedRun:
    return LoggedRun(file="/logs/a", identity="x:/logs/a", series=found, **more)


def choose(logged: LoggedRun, *, wanted: bool = True, **asked: Any) -> Chosen:
    return choose_value(logged, Asked(**asked), wanted=wanted)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=12),
    st.sampled_from(["max", "min"]),
)
def test_best_is_the_first_extreme_of_the_finite_values(values: list[float], way: str) -> None:
    chosen = choose(run(series("v", values, metric="score")), metric="score", direction=way)
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        assert chosen.diverged == "v"
        assert "value" not in chosen.fields
        return
    best = max(finite) if way == "max" else min(finite)
    assert chosen.fields["value"] == best
    assert chosen.fields["epoch"] == float(values.index(best))
    assert chosen.fields["value_kind"] == "best"


def test_the_series_the_framework_chose_needs_no_metric_from_the_caller() -> None:
    logged = run(series("val_accuracy", [0.25, 0.5]), chosen="val_accuracy")
    chosen = choose(logged, direction="max")
    assert (chosen.fields["value"], chosen.problem, chosen.missing) == (0.5, "", ())


def test_last_is_the_last_and_a_last_nan_is_no_value() -> None:
    good = choose(
        run(series("v", [0.9, 0.5])), metric="accuracy", direction="max", value_kind="last"
    )
    assert (good.fields["value"], good.fields["value_kind"]) == (0.5, "last")
    bad = choose(
        run(series("v", [0.9, math.nan])), metric="accuracy", direction="max", value_kind="last"
    )
    assert bad.diverged == "v"


def test_the_training_split_gives_way_and_is_taken_when_it_is_named() -> None:
    # Keras calls the training series by the metric's bare name.
    both = run(series("accuracy", [0.99], split="train"), series("val_accuracy", [0.7]))
    assert choose(both, metric="accuracy", direction="max").fields["value"] == 0.7
    for asked in ({"split": "train"}, {"series": "accuracy"}):
        chosen = choose(both, metric="accuracy", direction="max", **asked)
        assert (chosen.fields["value"], chosen.fields["split"]) == (0.99, "train")
    alone = run(series("accuracy", [0.99], split="train"))
    assert choose(alone, metric="accuracy", direction="max").fields["split"] == "train"


def test_two_series_of_a_metric_are_a_question() -> None:
    both = run(series("val_accuracy", [0.7]), series("test_accuracy", [0.6], split="test"))
    chosen = choose(both, metric="accuracy", direction="max")
    assert "--map value='{val_accuracy}'" in chosen.problem
    assert choose(both, metric="accuracy", direction="max", split="test").fields["value"] == 0.6
    assert choose(both, metric="test_accuracy", direction="max").fields["value"] == 0.6
    by_framework = run(*both.series, chosen="test_accuracy")
    assert choose(by_framework, metric="accuracy", direction="max").fields["value"] == 0.6


def test_what_the_framework_chose_by_and_what_nobody_says() -> None:
    logged = run(
        series("val_accuracy", [0.5, 0.8]),
        chosen="val_accuracy",
        directions={"val_accuracy": "max"},
    )
    fields = choose(logged).fields
    assert (fields["metric"], fields["direction"], fields["value"]) == ("accuracy", "max", 0.8)
    open_ones = run(series("val_accuracy", [0.5, 0.8]))
    assert choose(open_ones).missing == ("metric",)
    assert choose(open_ones, metric="accuracy").fields["direction"] == "max"
    unknown = run(series("v", [0.5, 0.8], metric="score"))
    assert choose(unknown, metric="score").missing == ("direction",)
    named = choose(open_ones, series="val_accuracy", direction="max")
    assert (named.missing, named.fields["metric"]) == ((), "accuracy")


def test_a_series_that_is_not_there_is_named_with_those_that_are() -> None:
    logged = run(series("val_accuracy", [0.5]))
    for asked in ({"metric": "f1"}, {"metric": "f1", "series": "eval_f1"}):
        chosen = choose(logged, direction="max", **asked)
        assert "f1" in chosen.problem
        assert "val_accuracy" in chosen.problem
        assert not choose(logged, direction="max", wanted=False, **asked).problem


@pytest.mark.parametrize(
    ("percent", "unit", "wanted"),
    [
        (False, None, None),
        (True, None, "percent"),
        (False, "percent", "percent"),
        (True, "percent", "percent"),
        (True, "fraction", "fraction"),
    ],
)
def test_units(percent: bool, unit: str | None, wanted: str | None) -> None:
    chosen = choose(run(series("v", [91.0], percent=percent)), metric="accuracy", unit=unit)
    assert (chosen.fields["value"], chosen.unit) == (91.0, wanted)


def test_kinds_that_the_log_says() -> None:
    ema = run(series("v", [0.1, 0.3, 0.2]), value_kind="ema")
    fields = choose(ema, metric="accuracy", direction="max").fields
    assert (fields["value"], fields["value_kind"]) == (0.3, "ema")
    summary = Series(
        name="v", metric="accuracy", split=None, steps=(None,), epochs=(None,), values=(0.4,)
    )
    assert choose(run(summary), metric="accuracy", direction="max").fields["value_kind"] is None
    last = run(summary, fields={"value_kind": "last"})
    assert choose(last, metric="accuracy", direction="max").fields["value_kind"] == "last"


def test_an_empty_series_of_a_finished_run_is_a_problem_and_of_a_running_one_is_none() -> None:
    empty = run(series("v", []))
    assert "empty" in choose(empty, metric="accuracy", direction="max").problem
    running = choose(empty, metric="accuracy", direction="max", wanted=False)
    assert not running.problem
    assert "value" not in running.fields
