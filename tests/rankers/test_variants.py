"""Fennec's merge, scores alone, scored histories, and the names a back-test asks for them by."""

import numpy as np
import pandas as pd
import pytest

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.by_score import ScoreRanker, score_history
from recsys_ms.rankers.fennec import FennecRanker
from recsys_ms.rankers.meta import LinearRanker
from recsys_ms.rankers.ranker_names import make_ranker
from recsys_ms.rankers.transfer import NMFRanker
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker

QUERY = TaskQuery(task_id="somewhere new", card=TaskCard(task_id="somewhere new", domain="domain1"))


@pytest.fixture
def scored(blocks, cards) -> Catalog:
    """The catalog with a score that is the outcome itself, and one that is noise."""
    rng = np.random.default_rng(0)
    rows = {
        "task_id": [blocks.task_ids[int(i)] for i in blocks.task_index],
        "model_id": [blocks.model_ids[int(j)] for j in blocks.model_index],
        "truth": 100.0 * blocks.outcomes,
        "noise": rng.standard_normal(blocks.n_interactions),
    }
    return cards.with_scores(ScoreTable(pd.DataFrame(rows)))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_fennec_is_the_weighted_sum(blocks, cards, alpha):
    fennec = FennecRanker(alpha=alpha).fit(blocks, cards, rng=0)
    parts = fennec.parts(fennec.view(QUERY), blocks.model_ids)
    assert set(parts) == {"nmf", "lr"}
    assert parts["nmf"][0][0] == alpha
    value = fennec.predict(QUERY, blocks.model_ids).value
    np.testing.assert_allclose(value, alpha * parts["nmf"][1] + (1 - alpha) * parts["lr"][1])


def test_fennecs_ends_are_its_parts(blocks, cards):
    ids = (*blocks.model_ids, "new-model")
    seed = seed_from(np.random.default_rng(0))
    for alpha, part, stream in ((1.0, NMFRanker, "transfer"), (0.0, LinearRanker, "meta")):
        fennec = FennecRanker(alpha=alpha).fit(blocks, cards, rng=0)
        alone = part().fit(blocks, cards, rng=named_stream(seed, stream))
        value = fennec.predict(QUERY, ids).value
        np.testing.assert_allclose(value, alone.predict(QUERY, ids).value)
        assert np.unique(value).size > 1


def test_alpha_is_chosen_where_tasks_differ_by_their_cards(blocks, cards):
    fennec = FennecRanker().fit(blocks, cards, rng=0)
    # The line has no products of task and model: only the transfer score knows the block.
    assert fennec.alpha >= 0.5
    evidence = fennec.choices["alpha_pearson"]
    assert evidence[f"{fennec.alpha:g}"] == max(evidence.values())


def test_an_alpha_that_is_no_weight():
    with pytest.raises(UsageError, match=r"alpha is 1\.5"):
        FennecRanker(alpha=1.5)


def test_a_score_alone_orders_by_itself(blocks, scored):
    ranker = make_ranker("score:truth").fit(blocks, scored, rng=0)
    columns, outcomes = blocks.of_task("t03")
    ids = [blocks.model_ids[int(j)] for j in columns]
    value = ranker.predict(TaskQuery(task_id="t03"), ids).value
    np.testing.assert_allclose(value, (outcomes - outcomes.mean()) / outcomes.std())
    assert ranker.predict(TaskQuery(task_id="t03"), ["never scored"]).value[0] == 0.0


def test_a_score_that_nobody_computed(blocks, scored):
    with pytest.raises(DataError, match="no score 'parc'; it has noise, truth"):
        ScoreRanker(score="parc").fit(blocks, scored, rng=0)


def test_a_history_of_the_true_score_is_the_history(blocks, scored):
    plain = make_ranker("nmf").fit(blocks, scored, rng=0)
    on_score = make_ranker("nmf@truth").fit(blocks, scored, rng=0)
    a, b = (r.predict(QUERY, blocks.model_ids).value for r in (plain, on_score))
    assert np.corrcoef(a, b)[0, 1] > 0.99


def test_a_history_of_noise_teaches_nothing(blocks, scored):
    columns, outcomes = blocks.of_task("t03")
    train = blocks.without_task("t03")
    ids = [blocks.model_ids[int(j)] for j in columns]
    value = make_ranker("popularity@noise").fit(train, scored, rng=0)
    found = value.predict(TaskQuery(task_id="t03"), ids).value
    assert abs(np.corrcoef(found, outcomes)[0, 1]) < 0.5


def test_a_scored_history_holds_only_the_training_pairs(blocks, scored):
    part = blocks.select(blocks.task_index < 4)
    found = score_history(
        scored,
        "truth",
        [part.task_ids[int(i)] for i in part.task_index],
        [part.model_ids[int(j)] for j in part.model_index],
    )
    assert found.task_ids == part.task_ids
    np.testing.assert_allclose(found.values, 100.0 * part.outcomes)
    assert set(found.metrics) == {"score:truth"}


def test_a_ranker_is_published_on_a_scored_history(blocks, scored, tmp_path):
    config = RankerConfig(ranker="popularity", metric="score:truth")
    ranker = Ranker(config).fit(blocks, scored)
    ranker.save(tmp_path / "a")
    answer = Ranker.load(tmp_path / "a").recommend("t03", top=3)
    assert answer["predicted"].between(50.0, 100.0).all()
    with pytest.raises(DataError, match="no score 'fda'"):
        Ranker(RankerConfig(metric="score:fda")).fit(blocks, scored)


@pytest.mark.parametrize(
    ("name", "features"),
    [("lr+truth", {"score:truth"}), ("lr+none", set()), ("lr", {"score:truth", "score:noise"})],
)
def test_heads_learn_from_the_scores_they_are_given(blocks, scored, name, features):
    ranker = make_ranker(name).fit(blocks, scored, rng=0)
    assert {f for f in ranker.feature_names() if f.startswith("score:")} == features


def test_the_rank_of_the_transfer_space(blocks):
    ranker = make_ranker("nmf:5").fit(blocks, rng=0)
    assert ranker.model_factors(blocks.model_ids).shape == (blocks.n_models, 5)
    assert ranker.space(blocks.model_ids).n_factors == 5


@pytest.mark.parametrize(
    "name", ["nope", "score:", "nmf@", "fennec:much", "nmf:3.5", "popularity+logme", "nmf:0"]
)
def test_names_that_mean_nothing(name):
    with pytest.raises(UsageError):
        make_ranker(name)


def test_distance_of_labels_is_a_feature(blocks):
    vectors = np.eye(3)
    catalog = Catalog.from_cards(
        models=[
            ModelCard(model_id=m, source_label_embedding=tuple(vectors[int(m[1:]) % 3]))
            for m in blocks.model_ids
        ],
        tasks=[
            TaskCard(task_id=t, label_embedding=tuple(vectors[int(t[1:]) % 3]))
            for t in blocks.task_ids
        ],
    )
    train = blocks.without_task("t03")
    ranker = make_ranker("lr").fit(train, catalog, rng=0)
    assert "label_distance" in ranker.feature_names()
    columns, outcomes = blocks.of_task("t03")
    ids = [blocks.model_ids[int(j)] for j in columns]
    # Models of the task's own block are best: their labels are at distance 0.
    value = ranker.predict(TaskQuery(task_id="t03"), ids).value
    assert np.corrcoef(value, outcomes)[0, 1] > 0.95
    unknown = ranker.predict(TaskQuery(task_id="?", card=TaskCard(task_id="?")), ids).value
    assert np.corrcoef(unknown, outcomes)[0, 1] < 0.7
