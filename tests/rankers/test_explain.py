"""Contributions add up to the prediction, in every ranker."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions, Source
from recsys_ms.rankers.gp import PairProcessRanker
from recsys_ms.rankers.ranker_names import RANKER_NAMES, make_ranker

QUERIES = (
    TaskQuery(task_id="t01"),
    TaskQuery(task_id="somewhere new"),
    TaskQuery(task_id="warm", observed={"m00": 0.8, "m01": 0.6, "m05": 0.61}),
    TaskQuery(task_id="t02", observed={"m00": 0.8, "m07": 0.6}),
    TaskQuery(task_id="one outcome", observed={"new-model": 0.7}),
)
IDS = ("m03", "m00", "new-model", "never seen", "m17")


@pytest.mark.parametrize("name", [*RANKER_NAMES, "lr+none", "fennec:0.3"])
@pytest.mark.parametrize("with_cards", [True, False])
def test_contributions_add_up_to_each_part_and_to_the_value(
    name: str, with_cards: bool, blocks: Interactions, cards: Catalog
) -> None:
    ranker = make_ranker(name).fit(blocks, cards if with_cards else None, rng=0)
    for query in QUERIES:
        task = ranker.view(query)
        found = ranker.explain(task, IDS)
        total = np.sum([each.total for each in found], axis=0)
        np.testing.assert_allclose(total, ranker.predict(query, IDS).value, rtol=0, atol=1e-9)
        parts = ranker.parts(task, IDS)
        explained = {each.part: each for each in found}
        assert len(explained) == len(found)
        assert explained.keys() <= parts.keys()
        for part, (weight, value) in parts.items():
            amounts = explained[part].total if part in explained else np.zeros(len(IDS))
            np.testing.assert_allclose(amounts, weight * value, rtol=0, atol=1e-9)
        for each in found:
            assert each.amounts.shape == (len(IDS), len(each.sources))


def by_source(found: Contributions) -> dict[Source, FloatArray]:
    """Amounts of each source, (n_models,); a source that is named twice would hide an amount."""
    assert len(set(found.sources)) == len(found.sources)
    return dict(zip(found.sources, found.amounts.T, strict=True))


def placed(blocks: Interactions) -> Catalog:
    """Tasks with class names' embeddings that tell their block, so that cold ones are placed."""
    rng = np.random.default_rng(0)

    def card(task_id: str, block: int) -> TaskCard:
        vector = np.eye(3)[block] + 0.1 * rng.normal(size=3)
        return TaskCard(
            task_id=task_id, embedding=tuple(vector), embedding_source="planted vectors"
        )

    tasks = [card(task_id, i % 3) for i, task_id in enumerate(blocks.task_ids)]
    return Catalog.from_cards(tasks=[*tasks, card("cold", 1)])


@pytest.mark.parametrize("name", ["nmf", "als"])
def test_a_cold_task_is_the_weighted_mean_of_known_ones(name: str, blocks: Interactions) -> None:
    ranker = make_ranker(name).fit(blocks, placed(blocks), rng=0)
    task = ranker.view(TaskQuery(task_id="cold"))
    place = ranker.place(task)
    assert place is not None
    assert place.similarity
    (found,) = ranker.explain(task, blocks.model_ids)
    amounts = by_source(found)
    for known, weight in place.weights.items():
        own = ranker.predict(TaskQuery(task_id=known), blocks.model_ids).value
        np.testing.assert_allclose(amounts[Source.task(known)], weight * own, rtol=0, atol=1e-10)
    # Tasks of the same block speak for its models.
    same = sum(amounts[Source.task(t)] for i, t in enumerate(blocks.task_ids) if i % 3 == 1)
    assert np.abs(same).sum() > 0.5 * np.abs(found.total).sum()


def test_an_outcome_folded_in_adds_in_proportion_to_itself(blocks: Interactions) -> None:
    """While the same factors stay above 0, an outcome's contribution is its score times a slope."""
    ranker = make_ranker("nmf").fit(blocks, rng=0)
    seen, scores = ("m00", "m01", "m05"), np.array([1.4, -0.8, -0.7])

    def told(amounts: FloatArray) -> tuple[Contributions, FloatArray]:
        view = TaskView(task_id="warm", card=None, observed_ids=seen, observed_scores=amounts)
        (found,) = ranker.explain(view, IDS)
        return found, ranker.predict_view(view, IDS).value

    found, value = told(scores)
    for position, model_id in enumerate(seen):
        moved = scores.copy()
        moved[position] *= 1.0 + 1e-3
        difference = told(moved)[1] - value
        amount = by_source(found)[Source.observed(model_id)]
        np.testing.assert_allclose(difference, 1e-3 * amount, rtol=0, atol=1e-10)
        assert np.abs(amount).max() > 0.01


def test_a_known_task_is_shared_out_by_factor(blocks: Interactions) -> None:
    ranker = make_ranker("nmf").fit(blocks, rng=0)
    (found,) = ranker.explain(ranker.view(TaskQuery(task_id="t01")), blocks.model_ids)
    assert [source.kind for source in found.sources] == ["base", "factor", "factor", "factor"]
    # Models of one block differ from the others by one factor, which a task of that block names.
    (largest,) = np.unique(np.argmax(found.amounts[1::3, 1:], axis=1))
    assert int(found.sources[1 + largest].name.split("most in t")[1][:2]) % 3 == 1


def test_a_run_of_the_process_adds_what_the_prediction_would_lose_without_it(
    blocks: Interactions, cards: Catalog
) -> None:
    ranker = PairProcessRanker().fit(blocks, cards, rng=0)
    for query in (QUERIES[1], QUERIES[2]):
        view = ranker.view(query)
        (found,) = ranker.explain(view, IDS)
        amounts = by_source(found)
        value = ranker.predict(query, IDS).value
        for row in (0, 100, 215):
            state = ranker.state()
            target = state.children["own"].arrays["_target"].copy()
            assert abs(target[row]) > 0.01
            target[row] = 0.0
            state.children["own"].arrays["_target"] = target
            without = PairProcessRanker.from_state(state, cards).predict_view(view, IDS).value
            source = Source.run(
                blocks.task_ids[blocks.task_index[row]], blocks.model_ids[blocks.model_index[row]]
            )
            np.testing.assert_allclose(amounts[source], value - without, rtol=0, atol=1e-8)
    # An observed outcome as well, of the last query.
    scores = view.observed_scores.copy()
    scores[0] = 0.0
    without = ranker.predict_view(replace(view, observed_scores=scores), IDS).value
    seen = amounts[Source.observed(view.observed_ids[0])]
    np.testing.assert_allclose(seen, value - without, rtol=0, atol=1e-8)
    assert np.abs(seen).max() > 1e-3


def test_a_sample_of_a_large_history_keeps_popularity_apart(
    blocks: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ms.rankers.gp._MAX_ROWS", 100)
    ranker = PairProcessRanker().fit(blocks, rng=0)
    for query in QUERIES:
        view = ranker.view(query)
        (found,) = ranker.explain(view, IDS)
        np.testing.assert_allclose(found.total, ranker.predict(query, IDS).value, atol=1e-9)
        amount = by_source(found)[POPULARITY]
        assert amount[0] != 0.0
        assert amount[3] == 0.0  # without runs


def test_fields_of_task_and_model_are_told_apart(blocks: Interactions, cards: Catalog) -> None:
    ranker = make_ranker("lr").fit(blocks, cards, rng=0)
    (found,) = ranker.explain(ranker.view(TaskQuery(task_id="t01")), blocks.model_ids)
    names = {source.name for source in found.sources if source.kind == "feature"}
    assert {"family", "n_parameters", "popularity", "task domain"} <= names
    amounts = by_source(found)
    # What the task's card says is the same for every model; popularity differs.
    assert np.ptp(amounts[Source("feature", "task domain")]) < 1e-12
    assert np.ptp(amounts[POPULARITY]) > 0.1


def test_models_without_runs_are_told_by_their_card(blocks: Interactions, cards: Catalog) -> None:
    ranker = make_ranker("cards").fit(blocks, cards, rng=0)
    (found,) = ranker.explain(TaskView(task_id="nothing is known", card=None), IDS)
    amounts = by_source(found)
    is_cold = np.array([i not in blocks.model_ids for i in IDS])
    assert (amounts[POPULARITY] != 0.0).tolist() == (~is_cold).tolist()
    by_card = found.amounts[:, 1:]
    assert not by_card[~is_cold].any()
    assert by_card[is_cold].any(axis=1).all()


def test_scores_say_their_name(blocks: Interactions, cards: Catalog) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "task_id": [blocks.task_ids[i] for i in blocks.task_index],
            "model_id": [blocks.model_ids[j] for j in blocks.model_index],
            "logme": blocks.outcomes + 0.01 * rng.normal(size=blocks.n_interactions),
        }
    )
    catalog = cards.with_scores(ScoreTable(rows))
    view = make_ranker("lr").fit(blocks, catalog, rng=0).view(TaskQuery(task_id="t01"))
    source = Source("feature", "score:logme")
    alone = make_ranker("score:logme").fit(blocks, catalog)
    (found,) = alone.explain(view, blocks.model_ids)
    assert found.sources == (source,)
    inner = make_ranker("lr@logme").fit(blocks, catalog, rng=0)
    for ranker in (make_ranker("lr").fit(blocks, catalog, rng=0), inner):
        (found,) = ranker.explain(view, blocks.model_ids)
        value = ranker.predict_view(view, blocks.model_ids).value
        np.testing.assert_allclose(found.total, value, rtol=0, atol=1e-9)
        # The score is the outcome itself, nearly: it carries the prediction.
        assert np.corrcoef(by_source(found)[source], value)[0, 1] > 0.9
