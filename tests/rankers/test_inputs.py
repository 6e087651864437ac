"""Forms of arguments that a ranker accepts, and messages for invalid ones."""

import numpy as np
import pandas as pd
import pytest

import recsys_ms as rms
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError
from recsys_ms.rankers.base import TaskQuery

REACHED = {"m00": 0.8, "m01": 0.6, "m05": 0.5}
CARD = {"domain": "domain1", "n_samples": 1000, "n_classes": 10}


@pytest.fixture(scope="module")
def ranker(blocks: rms.Interactions, cards: rms.Catalog) -> rms.Ranker:
    return rms.Ranker(rms.RankerConfig(ranker="nmf")).fit(blocks, cards)


@pytest.mark.parametrize(
    "observed",
    [
        pd.Series(REACHED),
        pd.Series(REACHED, dtype=object),
        {np.str_(model): np.float64(value) for model, value in REACHED.items()},
        {model: np.array(value) for model, value in REACHED.items()},
    ],
)
def test_outcomes_in_every_form(ranker: rms.Ranker, observed: object) -> None:
    wanted = ranker.recommend("x", observed=REACHED)
    pd.testing.assert_frame_equal(ranker.recommend("x", observed=observed), wanted)
    pd.testing.assert_frame_equal(
        ranker.explain("x", "m07", observed=observed), ranker.explain("x", "m07", observed=REACHED)
    )
    assert TaskQuery(task_id="x", observed=observed).observed == REACHED


@pytest.mark.parametrize("kind", [tuple, iter, set, np.array, pd.Index, pd.Series, frozenset])
def test_models_in_every_iterable(ranker: rms.Ranker, kind: type) -> None:
    asked = ["m04", "m05", "m09"]
    wanted = ranker.recommend("x", models=asked)
    pd.testing.assert_frame_equal(ranker.recommend("x", models=kind(asked)), wanted)
    twice = ranker.recommend("x", models=[*asked, "m05"])
    pd.testing.assert_frame_equal(twice, wanted)


def test_a_card_by_its_fields(ranker: rms.Ranker) -> None:
    wanted = ranker.recommend("x", card=rms.TaskCard(task_id="x", **CARD))
    pd.testing.assert_frame_equal(ranker.recommend("x", card=CARD), wanted)
    with_id = {**CARD, "task_id": "another", "embedding": None}
    pd.testing.assert_frame_equal(ranker.recommend("x", card=with_id), wanted)
    assert TaskQuery(task_id="x", card=CARD).card == rms.TaskCard(task_id="x", **CARD)
    listed = TaskQuery(task_id="x", card={"class_names": ["cat", "dog"]}).card
    assert listed is not None
    assert listed.class_names == ("cat", "dog")


def test_a_task_is_added_as_it_is_asked_about(blocks: rms.Interactions, cards: rms.Catalog) -> None:
    ranker = rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(blocks, cards)
    ranker.add_task("x", observed=pd.Series(REACHED), card=CARD)
    assert "x" in ranker.task_ids
    table = ranker.recommend("x", top=None).set_index("model_id")["observed"].dropna()
    assert table.to_dict() == REACHED


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        (
            {"observed": ["m00"]},
            UsageError,
            r"task 'x': observed is \['m00'\] of type list; expected",
        ),
        ({"observed": "m00"}, UsageError, "observed is 'm00' of type str; expected outcomes by"),
        ({"observed": pd.DataFrame(REACHED, index=[0])}, UsageError, "observed is .*DataFrame"),
        ({"observed": pd.Series([0.8])}, UsageError, "a model id in observed is 0 of type int"),
        (
            {"observed": pd.Series([0.8, 0.7], index=["m00", "m00"])},
            UsageError,
            "observed has model 'm00' twice; keep one",
        ),
        ({"observed": {"m00": "good"}}, DataError, "of model 'm00' is 'good' of type str; give a"),
        ({"observed": {"m00": None}}, DataError, "of model 'm00' is None of type NoneType"),
        ({"observed": {"m00": True}}, DataError, "of model 'm00' is True of type bool"),
        ({"observed": {"m00": np.inf}}, DataError, "of model 'm00' is inf; give a finite number"),
        (
            {"card": ["domain1"]},
            UsageError,
            r"card is \['domain1'\] of type list; expected TaskCard",
        ),
        (
            {"card": {"n_class": 2}},
            UsageError,
            r"no field 'n_class' \(did you mean 'n_classes'\?\); it has task_id, domain",
        ),
        ({"card": {1: 2}}, UsageError, "no field 1; it has task_id, domain"),
        ({"card": {"n_classes": "ten"}}, DataError, "the card's fields cannot be read .invalid"),
        ({"card": {"n_classes": -1}}, DataError, "n_classes is -1, expected a whole number"),
        ({"card": {"class_names": "cat"}}, DataError, "names are the text 'cat'; expected a list"),
    ],
)
def test_invalid_descriptions_of_a_task(
    ranker: rms.Ranker, told: dict[str, object], kind: type[Exception], said: str
) -> None:
    for asked in (ranker.recommend, ranker.suggest, ranker.add_task):
        with pytest.raises(kind, match=said):
            asked("x", **told)
    with pytest.raises(kind, match=said):
        ranker.explain("x", "m00", **told)
    with pytest.raises(kind, match=said):
        TaskQuery(task_id="x", **told)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"models": "m00"}, r"models is 'm00' of type str; expected a list .*models=\['m00'\]"),
        ({"models": 3}, "models is 3 of type int; expected a list of model ids"),
        ({"models": [3]}, "a model id in models is 3 of type int; expected a text"),
        ({"models": {"m00": 1}}, "models is {'m00': 1} of type dict; expected a list"),
        ({"models": []}, "models is empty; expected a list of model ids, or None for all"),
        ({"metric": 3}, "metric is 3 of type int; expected a text"),
        ({"metric": ""}, "metric is '' of type str; expected a text that is not empty"),
        (
            {"constraints": {"max_params": 3}},
            r"constraints is .*dict; expected Constraints\(max_par",
        ),
    ],
)
def test_invalid_questions(ranker: rms.Ranker, told: dict[str, object], said: str) -> None:
    for asked in (ranker.recommend, ranker.suggest):
        with pytest.raises(UsageError, match=said):
            asked("x", **told)


@pytest.mark.parametrize("top", [0, -1, 1.5, "3", True])
def test_invalid_numbers_of_rows(ranker: rms.Ranker, top: object) -> None:
    with pytest.raises(UsageError, match=f"top is {top!r} .*expected at least 1, or None for all"):
        ranker.recommend("x", top=top)
    with pytest.raises(UsageError, match=f"n_runs is {top!r} .*expected at least 1"):
        ranker.suggest("x", budget=top)


@pytest.mark.parametrize("cost", [0, -1.0, float("nan"), "3", True])
def test_invalid_costs(ranker: rms.Ranker, cost: object) -> None:
    with pytest.raises(
        UsageError, match=f"cost is {cost!r} .*expected a positive number of seconds"
    ):
        ranker.suggest("x", cost=cost)


def test_numbers_of_numpy_are_numbers(ranker: rms.Ranker) -> None:
    assert len(ranker.recommend("x", top=np.int64(3))) == 3
    assert len(ranker.suggest("x", budget=np.int32(2))) == 2


@pytest.mark.parametrize("task", [None, 3, "", ("x",)])
def test_invalid_tasks(ranker: rms.Ranker, task: object) -> None:
    for asked in (ranker.recommend, ranker.suggest):
        with pytest.raises(UsageError, match=r"task is .*; expected a text that is not empty"):
            asked(task)
    with pytest.raises(UsageError, match=r"task_id is .*; expected a text"):
        ranker.add_task(task, card=CARD)
    with pytest.raises(UsageError, match=r"task is .*; expected a text"):
        ranker.explain(task, "m00")


def test_invalid_models(ranker: rms.Ranker) -> None:
    with pytest.raises(UsageError, match="model_id is None of type NoneType; expected a text"):
        ranker.explain("x", None)
    with pytest.raises(UnknownIdError, match="'unheard' has neither runs nor a card"):
        ranker.explain("x", "unheard")
