"""Planted answers that a sane ranker must find."""

import numpy as np
import pytest

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.ranking_metrics import pearson
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.ranker_names import make_ranker


def skill(
    name: str, blocks: Interactions, catalog: Catalog | None, *, n_observed: int = 0
) -> float:
    """Mean Pearson over the first tasks, one of each block, each held out."""
    found = []
    for task in blocks.task_ids[:3]:
        columns, outcomes = blocks.of_task(task)
        ids = [blocks.model_ids[int(j)] for j in columns]
        # One model of each block first, so that three observed runs tell the block.
        observed = dict(zip(ids[:n_observed], outcomes[:n_observed].tolist(), strict=True))
        ranker = make_ranker(name).fit(blocks.without_task(task), catalog, rng=0)
        answer = ranker.predict(TaskQuery(task_id=task, observed=observed), ids[n_observed:])
        found.append(pearson(answer.value, outcomes[n_observed:]))
    return float(np.nanmean(found))


@pytest.mark.parametrize("name", ["nmf", "auto"])
def test_three_observed_runs_tell_the_block(name: str, blocks: Interactions) -> None:
    assert skill("popularity", blocks, None, n_observed=3) < 0.4
    assert skill(name, blocks, None, n_observed=3) > 0.8


@pytest.mark.parametrize("name", ["nmf", "fm", "gbdt", "auto"])
def test_cards_tell_the_block_of_a_task_without_runs(
    name: str, blocks: Interactions, cards: Catalog
) -> None:
    assert skill("popularity", blocks, cards) < 0.4
    assert skill(name, blocks, cards) > 0.8


def test_a_model_without_runs_is_judged_by_its_card(blocks: Interactions, cards: Catalog) -> None:
    ranker = make_ranker("auto").fit(blocks, cards, rng=0)
    own = ranker.predict(TaskQuery(task_id="t01"), ["new-model"]).value[0]
    other = ranker.predict(TaskQuery(task_id="t02"), ["new-model"]).value[0]
    assert own > other + 0.5


def test_nothing_of_a_held_out_task_reaches_a_prediction(
    blocks: Interactions, cards: Catalog
) -> None:
    rng = np.random.default_rng(0)
    own = blocks.task_index == 4
    shuffled = blocks.values.copy()
    shuffled[own] = rng.permutation(shuffled[own])
    other = Interactions.from_triplets(
        [blocks.task_ids[i] for i in blocks.task_index],
        [blocks.model_ids[j] for j in blocks.model_index],
        shuffled,
        metric="accuracy",
    )
    for name in ("nmf", "gbdt", "auto"):
        answers = [
            make_ranker(name)
            .fit(history.without_task("t04"), cards, rng=0)
            .predict(TaskQuery(task_id="t04"), history.model_ids)
            for history in (blocks, other)
        ]
        np.testing.assert_array_equal(answers[0].value, answers[1].value)
        np.testing.assert_array_equal(answers[0].order, answers[1].order)


def test_vectors_that_say_nothing_do_not_harm_a_line_on_new_architectures() -> None:
    """Weights of one architecture are near copies: chosen row by row, the penalty is too weak."""
    rng = np.random.default_rng(0)
    n_architectures, n_tags = 200, 4
    size = rng.normal(size=n_architectures)
    vectors = rng.normal(size=(n_architectures, 60)) / 60**0.5
    # Half of an architecture's quality is its size, half is unknown.
    quality = size + rng.normal(size=n_architectures)
    ids = [f"net{a}.tag{t}" for a in range(n_architectures) for t in range(n_tags)]
    architecture = np.repeat(np.arange(n_architectures), n_tags)
    outcomes = 0.5 + 0.05 * (quality[architecture] + 0.1 * rng.normal(size=len(ids)))
    catalog = Catalog.from_cards(
        models=[
            ModelCard(
                model_id=name,
                n_parameters=int(1e7 * 2 ** size[a]),
                embedding=tuple(map(float, vectors[a])),
            )
            for name, a in zip(ids, architecture, strict=True)
        ]
    )
    known = architecture < 120
    trained = [name for name, is_known in zip(ids, known, strict=True) if is_known]
    history = Interactions.from_triplets(
        ["t"] * len(trained), trained, outcomes[known].tolist(), metric="accuracy"
    )
    ranker = make_ranker("lr").fit(history, catalog, rng=0)
    unseen = [name for name, is_known in zip(ids, known, strict=True) if not is_known]
    answer = ranker.predict(TaskQuery(task_id="t"), unseen).value
    by_size = pearson(size[architecture[~known]], outcomes[~known])
    assert pearson(answer, outcomes[~known]) > by_size - 0.08
