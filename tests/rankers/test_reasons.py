"""Reasons and explanations of the default ranker, on the history that ships with the project."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import recsys_ms as rms
from recsys_ms.core.errors import DataError, NotFittedError, UnknownIdError
from recsys_ms.history.embedded import embedded_folder
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.base import TaskQuery

HELD_OUT_TASK, HELD_OUT_MODEL = "digits", "test_vit@scenes"


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return pd.read_parquet(embedded_folder() / "runs.parquet")


@pytest.fixture(scope="module")
def ranker(runs: pd.DataFrame) -> rms.Ranker:
    """The default ranker, which knows one task and one model by their cards alone."""
    kept = runs[(runs["task_id"] != HELD_OUT_TASK) & (runs["model_id"] != HELD_OUT_MODEL)]
    return rms.Ranker().fit(kept, rms.Catalog.read(embedded_folder()))


@pytest.fixture(scope="module")
def process(runs: pd.DataFrame) -> rms.Ranker:
    """A ranker whose predictions are sums over runs, those of ten tasks."""
    kept = runs[(runs["task_id"] != HELD_OUT_TASK) & (runs["model_id"] != HELD_OUT_MODEL)]
    kept = kept[kept["task_id"].isin(sorted(kept["task_id"].unique())[:10])]
    config = rms.RankerConfig(ranker="gp")
    return rms.Ranker(config).fit(kept, rms.Catalog.read(embedded_folder()))


@pytest.fixture(scope="module")
def cold(ranker: rms.Ranker) -> pd.DataFrame:
    return ranker.recommend(HELD_OUT_TASK, top=None)


def test_all_contributions_of_the_blend_add_up(ranker: rms.Ranker, runs: pd.DataFrame) -> None:
    base = ranker._require_base()
    own = runs[runs["task_id"] == HELD_OUT_TASK].groupby("model_id")["value"].max()
    known_task = ranker.task_ids[0]
    queries = (
        TaskQuery(task_id=HELD_OUT_TASK),
        TaskQuery(task_id="no card"),
        TaskQuery(task_id=HELD_OUT_TASK, observed=own.iloc[[0, 5, 20]].to_dict()),
        TaskQuery(task_id=known_task, observed=ranker._known.of_task(known_task)),
    )
    for query in queries:
        view = base.view(query)
        found = base.explain(view, ranker.model_ids)
        total = np.sum([each.total for each in found], axis=0)
        value = base.predict(query, ranker.model_ids).value
        np.testing.assert_allclose(total, value, rtol=0, atol=1e-9)
        parts = base.parts(view, ranker.model_ids)
        for each in found:
            weight, amount = parts[each.part]
            np.testing.assert_allclose(each.total, weight * amount, rtol=0, atol=1e-9)
        assert ("observed runs" in {each.part for each in found}) == bool(query.observed)


def test_the_explanation_is_the_prediction_in_its_metric(
    ranker: rms.Ranker, cold: pd.DataFrame
) -> None:
    predicted = cold.set_index("model_id")["predicted"]
    for model_id in (cold["model_id"][0], HELD_OUT_MODEL, cold["model_id"].iloc[-1]):
        table = ranker.explain(HELD_OUT_TASK, model_id)
        assert list(table.columns) == [
            "part", "kind", "name", "task_id", "model_id", "run_id", "amount"
        ]  # fmt: skip
        assert table.attrs["metric"] == "accuracy"
        value = table.attrs["center"] + table.attrs["scale"] * table["amount"].sum()
        assert value == pytest.approx(predicted[model_id], abs=1e-12)
        assert not table.duplicated(["part", "kind", "name"]).any()
        assert (table["amount"] != 0.0).all()


def test_runs_are_named_by_the_id_of_the_best(process: rms.Ranker, runs: pd.DataFrame) -> None:
    table = process.explain(HELD_OUT_TASK, HELD_OUT_MODEL)
    told = table[table["kind"] == "run"]
    assert len(told) > 500
    assert told["run_id"].notna().all()
    assert table.loc[table["kind"] != "run", "run_id"].isna().all()
    named = told.merge(runs, on="run_id", suffixes=("", "_logged"))
    assert len(named) == len(told)
    assert (named["task_id"] == named["task_id_logged"]).all()
    assert (named["model_id"] == named["model_id_logged"]).all()
    best = runs.groupby(["task_id", "model_id"])["value"].max()
    reached = best.loc[pd.MultiIndex.from_frame(named[["task_id", "model_id"]])]
    np.testing.assert_array_equal(named["value"], reached)


def test_reasons_give_the_numbers_of_the_explanation(
    ranker: rms.Ranker, cold: pd.DataFrame, runs: pd.DataFrame
) -> None:
    inside = 0
    for model_id, reasons in zip(cold["model_id"][:5], cold["reasons"], strict=False):
        table = ranker.explain(HELD_OUT_TASK, model_id)
        parts = table.groupby("part")["amount"].sum()
        for reason in reasons:
            match = re.match(r"([+-]\d+\.\d\d) sd from .*?\((\w+)\)", reason)
            if match is None:
                continue
            assert float(match[1]) == pytest.approx(parts[match[2]], abs=0.0051)
            rows = table[table["part"] == match[2]]
            for task, amount, model, run in re.findall(
                r"runs on (\S+) ([+-]\d+\.\d\d) \((its|\S+,) run (\S+)\)", reason
            ):
                own = rows[rows["task_id"] == task]
                assert float(amount) == pytest.approx(own["amount"].sum(), abs=0.0051)
                ran = model_id if model == "its" else model.removesuffix(",")
                assert set(own.loc[own["run_id"] == run, "model_id"]) == {ran}
                inside += 1
            if match[2] == "gbdt":
                name, amount = re.search(r": (\S+) ([+-]\d+\.\d\d)", reason).groups()
                largest = rows.iloc[0]
                assert (largest["kind"], largest["name"]) == ("feature", name)
                assert float(amount) == pytest.approx(largest["amount"], abs=0.0051)
                inside += 1
    assert inside >= 5
    first = cold["reasons"][0]
    near = [reason for reason in first if reason.startswith("like ")]
    assert len(near) == 3
    ids = set(runs["run_id"])
    assert all(reason.rsplit("run ", 1)[1] in ids for reason in near)


def test_an_observed_outcome_is_named(ranker: rms.Ranker, runs: pd.DataFrame) -> None:
    own = runs[runs["task_id"] == HELD_OUT_TASK].groupby("model_id")["value"].max()
    observed = {str(model): float(v) for model, v in own.sample(20, random_state=0).items()}
    answer = ranker.recommend(HELD_OUT_TASK, observed=observed, top=None)
    told = [
        (row, reason)
        for row, reasons in enumerate(answer["reasons"])
        for reason in reasons
        if "20 observed runs of this task: " in reason
    ]
    assert len(told) > len(answer) / 2
    row, reason = told[0]
    model_id = answer["model_id"][row]
    table = ranker.explain(HELD_OUT_TASK, model_id, observed=observed)
    moved = table[table["kind"] == "observed"]
    assert set(moved["name"]) == set(observed)
    assert f": {moved['name'].iloc[0]} {moved['amount'].iloc[0]:+.2f}" in reason
    value = table.attrs["center"] + table.attrs["scale"] * table["amount"].sum()
    assert value == pytest.approx(answer["predicted"][row], abs=1e-12)


def test_answers_stay_plain_data(cold: pd.DataFrame) -> None:
    rows = json.loads(json.dumps(cold.to_dict(orient="records")))
    assert all(isinstance(reason, str) for row in rows for reason in row["reasons"])
    assert all(isinstance(row, tuple) for row in cold["reasons"])


def test_a_saved_ranker_explains_alike_and_one_without_run_ids_names_pairs(
    process: rms.Ranker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ranker = process
    folder = tmp_path_factory.mktemp("artifact") / "a"
    ranker.save(folder)
    restored = rms.Ranker.load(folder)
    before = ranker.explain(HELD_OUT_TASK, HELD_OUT_MODEL)
    pd.testing.assert_frame_equal(restored.explain(HELD_OUT_TASK, HELD_OUT_MODEL), before)
    without = replace(ranker._known.interactions, run_ids=())
    restored._known = KnownOutcomes.of(without)
    table = restored.explain(HELD_OUT_TASK, HELD_OUT_MODEL)
    assert table["run_id"].isna().all()
    pd.testing.assert_frame_equal(table.drop(columns="run_id"), before.drop(columns="run_id"))
    reasons = restored.recommend(HELD_OUT_TASK, top=1)["reasons"][0]
    pattern = r"runs on \S+ [+-]\d\.\d\d \((its own run|\S+@\S+)\)"
    assert any(re.search(pattern, reason) for reason in reasons)


def test_lower_is_better_has_a_negative_scale() -> None:
    history = rms.Interactions.from_triplets(
        ["a", "a", "a", "b", "b", "b"],
        ["x", "y", "z"] * 2,
        [1.0, 2.0, 3.0, 1.5, 2.0, 4.0],
        metric="loss",
        direction="min",
    )
    ranker = rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(history)
    table = ranker.explain("new", "x")
    assert table.attrs["scale"] < 0 < table["amount"].sum()
    # A loss is compared by its logarithm.
    assert table.attrs["link"] == "log"
    value = np.exp(table.attrs["center"] + table.attrs["scale"] * table["amount"].sum())
    assert value == pytest.approx(ranker.recommend("new")["predicted"][0])
    assert table[["part", "kind", "name"]].to_numpy().tolist() == [
        ["popularity", "feature", "popularity"]
    ]
    # What the part's name says is not said twice.
    assert ranker.recommend("new")["reasons"][0][0].endswith("from popularity over past tasks")


def test_misuse_is_refused(ranker: rms.Ranker) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        rms.Ranker().explain("t", "m")
    with pytest.raises(UnknownIdError, match="'unheard' has neither runs nor a card"):
        ranker.explain(HELD_OUT_TASK, "unheard")
    with pytest.raises(DataError, match=r"outcome of model '.*' is nan"):
        ranker.explain(HELD_OUT_TASK, HELD_OUT_MODEL, observed={HELD_OUT_MODEL: float("nan")})
    card = ranker._catalog.find_task_card(HELD_OUT_TASK)
    assert card is not None
    by_name = ranker.explain(HELD_OUT_TASK, HELD_OUT_MODEL)["amount"].sum()
    bare = rms.TaskCard(task_id="bare", metric="accuracy")
    assert ranker.explain("bare", HELD_OUT_MODEL, card=bare)["amount"].sum() != by_name
    # The card of another id is read as this task's.
    renamed = replace(card, task_id="other")
    with_card = ranker.explain("other", HELD_OUT_MODEL, card=renamed)
    again = ranker.explain("other", HELD_OUT_MODEL, card=card)
    pd.testing.assert_frame_equal(with_card, again)
