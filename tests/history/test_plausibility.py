"""Runs that cannot be right beside the others: found, named, and left out of learning."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_ms.history.embedded import RUNS_FILE, embedded_folder
from recsys_ms.history.findings import findings_of, first_of
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.plausibility import implausible, plausible
from recsys_ms.history.run import Run
from recsys_ms.history.store import schema

BLEU = [0.25, 0.31, 0.28, 0.35, 0.3]


def runs(values: list[float], metric: str, way: str = "max", task: str = "t") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task_id": task,
            "model_id": [f"m{at}" for at in range(len(values))],
            "metric": metric,
            "direction": way,
            "value": values,
            "status": "finished",
            "run_id": [f"{task}-r{at}" for at in range(len(values))],
        }
    )


def found(frame: pd.DataFrame) -> list[tuple[str, list[int]]]:
    return [(each.kind, each.rows.tolist()) for each in implausible(frame)]


@pytest.mark.parametrize(
    ("metric", "way", "values", "wanted"),
    [
        ("bleu", "max", [*BLEU, 31.0], [("unit", [5])]),
        ("bleu", "max", [100 * each for each in BLEU] + [0.31], [("unit", [5])]),
        # One of each: the ones in percent are left out, since fractions are what is kept.
        ("bleu", "max", [0.92, 92.0], [("unit", [1])]),
        ("eval_wer", "min", [0.24, 0.2, 0.3, 24.0, 31.0], [("unit", [3, 4])]),
        ("my score", "max", [*BLEU, 31.0], [("unit", [5])]),
        # A collapsed run of a task in percent.
        ("bleu", "max", [25.0, 31.0, 28.0, 35.0, 0.02], []),
        ("my score", "max", [0.5, 91.0], []),
        ("eval_loss", "min", [0.3, 0.4, 0.35, 0.5, 1e30], [("outlier", [4])]),
        ("eval_loss", "min", [0.3, 0.4, 0.35, 0.5, 50.0], []),
        ("my score", "max", [0.5, 0.6, 0.55, 0.7, 1e9], [("outlier", [4])]),
        ("r2", "max", [0.5, 0.6, 0.55, 0.7, -1e9], [("outlier", [4])]),
        ("r2", "max", [0.5, 0.6, 0.55, 0.7, -8.0], []),
        # Too few to say what is usual.
        ("eval_loss", "min", [0.3, 1e30], []),
        ("accuracy", "max", [0.5, 0.6, 0.55, 61.0], [("range", [3])]),
        ("eval_loss", "max", [0.5, 0.6], [("direction", [0, 1])]),
    ],
)
def test_what_is_found(
    metric: str, way: str, values: list[float], wanted: list[tuple[str, list[int]]]
) -> None:
    assert found(runs(values, metric, way)) == wanted


def test_both_groups_and_the_run_are_named() -> None:
    (finding,) = implausible(runs([*BLEU, 31.0], "bleu"))
    assert finding.text == (
        "task 't', bleu: 5 values from 0.25 to 0.35 and one value of 31, about 100 times as large, "
        "cannot be in one unit; read the ones in percent with --unit percent; "
        "1 run is left out (t-r5)"
    )


def test_a_task_of_few_runs_is_judged_by_the_other_tasks() -> None:
    known = [runs([0.3, 0.4, 0.5], "rmse", "min", f"t{at}") for at in range(4)]
    frame = pd.concat([*known, runs([0.4, 1e30], "rmse", "min", "new")], ignore_index=True)
    assert found(frame) == [("outlier", [13])]


def test_a_metric_has_one_direction_in_all_tasks() -> None:
    known = [runs([0.3, 0.4], "my score", "max", f"t{at}") for at in range(3)]
    frame = pd.concat([*known, runs([0.4, 0.6], "my score", "min", "new")], ignore_index=True)
    assert found(frame) == [("direction", [6, 7])]
    assert Interactions.from_runs(frame).task_ids == ("t0", "t1", "t2")


def test_a_history_in_percent_of_an_earlier_version_is_learned_from_as_it_is() -> None:
    frame = runs([61.0, 72.0, 0.4, 93.0, 193.0], "accuracy")
    first, second = implausible(frame)
    assert (first.task_id, first.rows.size) == ("", 0)
    assert "4 of 5 values are above 1" in first.text
    assert "accuracy 193.0 % is outside [0 %, 100 %]" in second.text
    assert Interactions.from_runs(frame).values.tolist() == [61.0, 72.0, 0.4, 93.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.2, 0.9), min_size=5, max_size=30),
    st.data(),
    st.sampled_from(["bleu", "rougeL", "eval_wer", "my score"]),
    st.booleans(),
)
def test_any_mixture_of_units_is_found_in_any_order(
    values: list[float], data: st.DataObject, metric: str, mostly_percent: bool
) -> None:
    n_other = data.draw(st.integers(1, (len(values) - 1) // 2))
    plain = np.array(values)
    other = np.arange(plain.size) < n_other
    # The others must look like these: a fraction below all percentages may be a collapsed run.
    assume(not mostly_percent or np.ptp(plain) < 0.1)
    shown = np.where(other != mostly_percent, 100.0 * plain, plain)
    way = "min" if metric == "eval_wer" else "max"
    frame = runs(shown.tolist(), metric, way)
    (finding,) = implausible(frame)
    assert (finding.kind, finding.rows.tolist()) == ("unit", np.flatnonzero(other).tolist())
    order = np.array(data.draw(st.permutations(range(plain.size))))
    (again,) = implausible(frame.iloc[order])
    assert (again.text, set(order[again.rows])) == (finding.text, set(finding.rows.tolist()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30))
def test_fractions_are_never_marked(values: list[float]) -> None:
    assert found(runs(values, "accuracy")) == []


def test_the_embedded_history_has_no_mark() -> None:
    assert implausible(pd.read_parquet(embedded_folder() / RUNS_FILE)) == ()


def test_an_absurd_value_cannot_move_what_is_learned() -> None:
    good = runs([0.3, 0.4, 0.35, 0.5], "rmse", "min")
    bad = pd.concat([good, runs([1e30], "rmse", "min").assign(model_id="m9")], ignore_index=True)
    more = pd.concat([bad, runs([0.45], "rmse", "min").assign(model_id="m8")], ignore_index=True)
    kept = Interactions.from_runs(more)
    assert kept.model_ids == ("m0", "m1", "m2", "m3", "m8")
    assert kept.values.max() == 0.5
    assert len(plausible(more)) == len(more) - 1


def test_rows_of_an_earlier_version_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History.open(tmp_path / "H")
    with monkeypatch.context() as earlier:
        # Earlier versions had no gate.
        earlier.setattr(schema, "_impossible", lambda *_: iter(()))
        history.append(
            Run(model_id=f"m{at}", task_id="t", metric="accuracy", direction=way, value=value)
            for at, (value, way) in enumerate(
                [(0.5, "max"), (0.6, "max"), (0.55, "max"), (61.0, "max"), (0.5, "min")]
            )
        )
    texts = findings_of(history)
    assert len(texts) == 2
    assert "accuracy 61.0 is outside" in texts[0]
    assert "not min" in texts[1]
    assert Interactions.from_runs(history.runs()).n_interactions == 3


def test_many_findings_are_counted() -> None:
    shown = first_of([f"finding {at}" for at in range(13)])
    assert (len(shown), shown[-1]) == (
        11,
        "3 more findings of this kind: recsys-ms doctor --json",
    )
