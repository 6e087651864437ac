"""A history in every form is one table of runs."""

import numpy as np
import pandas as pd
import pytest

import recsys_ms as rms
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.forms import as_runs

NESTED = {"s": {"b": 0.1}, "t": {"a": 0.8, "b": 0.6}}
ROWS = [("s", "b", 0.1), ("t", "a", 0.8), ("t", "b", 0.6)]
WIDE = pd.DataFrame(NESTED).T
BY_PAIR = pd.Series({(task, model): value for task, model, value in ROWS})

FORMS = {
    "nested": NESTED,
    "nested Series": {task: pd.Series(models) for task, models in NESTED.items()},
    "pairs": BY_PAIR.to_dict(),
    "Series": BY_PAIR,
    "Series by model": BY_PAIR.swaplevel().rename_axis(["model_id", None]),
    "wide": WIDE,
    "wide by model": WIDE.T.rename_axis(columns="task_id"),
    "wide in place": WIDE.rename_axis("task_id"),
    "long": pd.DataFrame(ROWS, columns=["task_id", "model_id", "value"]),
    "triplets": ROWS,
    "NumPy": [(np.str_(task), np.str_(model), np.float64(v)) for task, model, v in ROWS],
}


def triplets(runs: pd.DataFrame) -> list[tuple[str, str, float]]:
    own = runs[["task_id", "model_id", "value"]]
    return sorted(own.itertuples(index=False, name=None))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_runs(form: str) -> None:
    assert triplets(as_runs(FORMS[form])) == ROWS
    made = rms.Interactions.from_runs(FORMS[form])
    assert (made.task_ids, made.model_ids) == (("s", "t"), ("a", "b"))
    assert made.values.tolist() == [0.1, 0.8, 0.6]
    ranker = rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(FORMS[form])
    assert ranker.task_ids == ("s", "t")
    assert ranker.manifest["history_version"] is None


def test_triplets_may_come_one_by_one() -> None:
    assert triplets(as_runs(iter(ROWS))) == ROWS


def test_ids_become_texts() -> None:
    made = rms.Interactions.from_runs({3: {"a": 0.1, "b": 0.2}})
    assert made.task_ids == ("3",)


def test_runs_in_what_from_runs_takes_may_be_reduced_by_metric() -> None:
    frame = pd.DataFrame(ROWS, columns=["task_id", "model_id", "value"])
    frame = frame.assign(metric=["loss", "accuracy", "accuracy"], direction=["min", "max", "max"])
    assert rms.Interactions.from_runs(frame, metric="accuracy").task_ids == ("t",)


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index])
def test_triplets_of_any_sequence(kind) -> None:
    tasks, models, values = (kind(part) for part in zip(*ROWS, strict=True))
    made = rms.Interactions.from_triplets(tasks, models, values)
    assert made.values.tolist() == [0.1, 0.8, 0.6]
    assert made.task_ids == ("s", "t")
    assert all(type(each) is str for each in (*made.task_ids, *made.model_ids))
    scalars = [np.float32(value) for value in values]
    np.testing.assert_allclose(
        rms.Interactions.from_triplets(tasks, models, scalars).values, made.values, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        (
            ("st", ["a", "b"], [1, 2]),
            UsageError,
            "task_id is 'st' of type str; expected a sequence",
        ),
        ((["s"], {"a"}, [1]), UsageError, "model_id is {'a'} of type set; expected a sequence"),
        ((["s"], ["a"], 1.0), UsageError, "value is 1.0 of type float; expected a sequence"),
        ((["s"], ["a"], np.eye(1)), UsageError, "value is array.* of type ndarray; expected"),
        ((["s"], ["a"], [1, 2]), DataError, "the lengths differ, {'task_id': 1, .*'value': 2}"),
        ((["s"], ["a"], ["x"]), DataError, "the history's values are not numbers"),
        ((["s"], [None], [1.0]), DataError, "no 'model_id' in row 0"),
    ],
)
def test_what_are_not_triplets(told, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        rms.Interactions.from_triplets(*told)


def test_a_direction_is_max_or_min() -> None:
    with pytest.raises(DataError, match="the direction 'up'; expected 'max' or 'min'"):
        rms.Interactions.from_triplets(["s"], ["a"], [1.0], direction="up")


@pytest.mark.parametrize("given", [3, None, "runs.csv", pd.Series([1.0])])
def test_what_is_no_history_is_none_for_a_ranker(given: object) -> None:
    with pytest.raises(UsageError, match=r"the history is .*; expected a History"):
        rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(given)
