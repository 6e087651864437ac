"""Cold tasks placed by what their cards say: planted spaces, missing views, round trips."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.cold_start.placement import Outcomes, TaskPlacement
from recsys_ms.cold_start.views import IMAGES, NAMES, CardTable, TaskVectors
from recsys_ms.learners.gaussian.smoothers import make_smoother
from recsys_ms.learners.gaussian.vectors import known_rows

N_TASKS, N_MODELS, N_FACTORS, WIDTH = 24, 30, 2, 12


class Planted:
    """Tasks whose images say where they stand, names that say nothing."""

    def __init__(self, seed: int = 0, noise: float = 0.05) -> None:
        rng = np.random.default_rng(seed)
        self.tasks = rng.standard_normal((N_TASKS, N_FACTORS))
        self.models = rng.standard_normal((N_MODELS, N_FACTORS))
        images = self.tasks @ rng.standard_normal((N_FACTORS, WIDTH))
        images += noise * rng.standard_normal(images.shape)
        names = rng.standard_normal((N_TASKS, WIDTH // 2))
        self.cards = [
            TaskCard(
                task_id=f"t{i:02d}",
                embedding=tuple(images[i]),
                label_embedding=tuple(names[i]),
                embedding_source="proxy",
            )
            for i in range(N_TASKS)
        ]
        task, model = np.divmod(np.arange(N_TASKS * N_MODELS), N_MODELS)
        score = (self.tasks @ self.models.T)[task, model]
        self.outcomes = Outcomes(task_index=task, model_index=model, score=score)

    def factorise(self, keep):
        return self.tasks, self.models

    def placement(self, cards=None, known=slice(None)):
        cards = self.cards if cards is None else cards
        return TaskPlacement.fit(
            cards[known],
            self.tasks[known],
            self.models,
            self._part(len(cards[known])),
            lambda keep: (self.tasks[known], self.models),
            rng=np.random.default_rng(1),
        )

    def _part(self, n):
        kept = self.outcomes.task_index < n
        return Outcomes(
            task_index=self.outcomes.task_index[kept],
            model_index=self.outcomes.model_index[kept],
            score=self.outcomes.score[kept],
        )


@pytest.fixture(scope="module")
def planted():
    return Planted()


def test_a_cold_task_is_put_where_it_belongs(planted):
    placement = planted.placement(known=slice(0, 20))
    for i in range(20, N_TASKS):
        placed = placement.place(planted.cards[i])
        true = planted.models @ planted.tasks[i]
        assert np.corrcoef(planted.models @ placed.factors, true)[0, 1] > 0.95
        assert any(label.endswith("of images") for label in placed.shares)
        assert sum(placed.shares.values()) == pytest.approx(1.0)
        assert sum(placed.weights.values()) == pytest.approx(1.0)


def test_views_count_by_what_they_gained(planted):
    placement = planted.placement()
    skill = placement.skill
    gains = {}
    for view in (IMAGES, NAMES):
        own = {label: value for label, value in skill.items() if label.endswith(f"of {view}")}
        best = max(own, key=lambda label: own[label])
        gains[best] = max(own[best] - skill[f"mean of {view}"], 0.0)
    shares = placement.place(planted.cards[0]).shares
    total = sum(gains.values())
    assert shares == pytest.approx({k: v / total for k, v in gains.items() if v > 0.0})
    assert max(shares, key=lambda label: shares[label]).endswith("of images")
    assert max(shares.values()) > 0.7


def test_two_views_are_averaged_by_their_shares(planted):
    placement = planted.placement(known=slice(0, 20))
    card = planted.cards[22]
    both = placement.place(card)
    alone = [
        placement.place(replace(card, **{field: None}))
        for field in ("label_embedding", "embedding")
    ]
    expected = sum(
        share * next(p for p in alone if label in p.shares).factors
        for label, share in both.shares.items()
    )
    np.testing.assert_allclose(both.factors, expected)


def test_the_factors_are_the_weighted_mean_of_the_known_tasks(planted):
    placement = planted.placement(known=slice(0, 20))
    placed = placement.place(planted.cards[22])
    rows = [int(task[1:]) for task in placed.weights]
    weights = np.array(list(placed.weights.values()))
    np.testing.assert_allclose(weights @ planted.tasks[rows], placed.factors)


def test_similarity_is_the_cosine_of_centred_vectors(planted):
    placement = planted.placement(known=slice(0, 20))
    card = replace(planted.cards[21], label_embedding=None)
    placed = placement.place(card)
    assert len(placed.shares) == 1
    known = np.array([c.embedding for c in planted.cards[:20]])
    a = known - known.mean(axis=0)
    b = np.array(card.embedding) - known.mean(axis=0)
    expected = a @ b / (np.linalg.norm(a, axis=1) * np.linalg.norm(b))
    np.testing.assert_allclose(list(placed.similarity.values()), expected)


@pytest.mark.parametrize(
    "card",
    [
        None,
        TaskCard(task_id="new"),
        TaskCard(task_id="new", embedding=(1.0,) * WIDTH, embedding_source="another proxy"),
        TaskCard(task_id="new", embedding=(1.0,) * (WIDTH + 1), embedding_source="proxy"),
    ],
    ids=["no card", "empty card", "other proxy", "other length"],
)
def test_what_is_not_comparable_is_not_compared(planted, card):
    placed = planted.placement().place(card)
    assert placed.shares == {}
    assert placed.similarity == {}
    np.testing.assert_allclose(placed.factors, planted.tasks.mean(axis=0))


def test_tasks_without_a_view_do_not_vote_by_it(planted):
    cards = [
        replace(card, embedding=None) if i % 3 == 0 else card
        for i, card in enumerate(planted.cards)
    ]
    placement = planted.placement(cards)
    placed = placement.place(replace(planted.cards[1], task_id="new", label_embedding=None))
    votes = {task for task, weight in placed.weights.items() if weight != 0.0}
    assert votes <= {card.task_id for card in cards if card.embedding is not None}


def test_too_few_tasks_with_a_view(planted):
    cards = [
        card if i < 3 else replace(card, embedding=None, label_embedding=None)
        for i, card in enumerate(planted.cards)
    ]
    assert planted.placement(cards).place(planted.cards[5]).shares == {}


def test_a_saved_placement_answers_the_same(planted):
    placement = planted.placement()
    again = TaskPlacement.from_state(placement.state())
    assert again.skill == placement.skill
    for card in (planted.cards[3], TaskCard(task_id="new"), None):
        before, after = placement.place(card), again.place(card)
        np.testing.assert_array_equal(before.factors, after.factors)
        assert before.weights == after.weights
        assert before.shares == after.shares


def test_held_out_tasks_do_not_reach_the_regressor():
    """The back-test must not know what it is asked: on noise, no candidate has skill."""
    rng = np.random.default_rng(3)
    skills = []
    for seed in range(4):
        noise = Planted(seed)
        noise.tasks = rng.standard_normal(noise.tasks.shape)
        score = (noise.tasks @ noise.models.T)[
            noise.outcomes.task_index, noise.outcomes.model_index
        ]
        noise.outcomes = replace(noise.outcomes, score=score)
        skills += list(noise.placement().skill.values())
    assert abs(np.mean(skills)) < 0.15


def test_cards_alone_can_place(planted):
    level = planted.tasks[:, 0] - planted.tasks[:, 0].min() + 1.0
    cards = [
        TaskCard(task_id=f"t{i:02d}", difficulty=float(level[i] / (1.0 + level.max())))
        for i in range(N_TASKS)
    ]
    placement = planted.placement(cards)
    assert max(placement.skill.values()) > 0.3
    assert [label.split()[-1] for label in placement.place(cards[0]).shares] == ["card"]


def test_vectors_are_scaled_by_the_training_cards(planted):
    vectors = TaskVectors().fit(planted.cards[:10])
    table = vectors(planted.cards[:10])
    for view in (IMAGES, NAMES):
        np.testing.assert_allclose(table[view].mean(axis=0), 0.0, atol=1e-12)
        assert (table[view] ** 2).sum(axis=1).mean() == pytest.approx(1.0)
    assert known_rows(vectors([TaskCard(task_id="new")])[IMAGES]).tolist() == [False]
    assert vectors.views == (IMAGES, NAMES)


def test_equal_cards_are_no_view():
    cards = [TaskCard(task_id=f"t{i}", embedding=(1.0, 2.0)) for i in range(6)]
    assert TaskVectors().fit(cards).views == ()


def test_a_fold_is_predicted_by_the_others_alone(planted):
    """The reported skill of one candidate, recomputed by hand."""
    placement = planted.placement()
    order = np.random.default_rng(1).permutation(N_TASKS)
    found = []
    for fold in np.array_split(order, 10):
        seen = np.setdiff1d(np.arange(N_TASKS), fold)
        table = TaskVectors().fit([planted.cards[int(t)] for t in seen])(planted.cards)[IMAGES]
        centred = planted.models - planted.models.mean(axis=0)
        metric = centred.T @ centred / N_MODELS
        smoother = make_smoother("ridge").fit(table[seen], planted.tasks[seen], metric)
        factors = smoother.weights(table[fold]) @ planted.tasks[seen]
        for task, row in zip(fold, factors, strict=True):
            true = planted.models @ planted.tasks[task]
            found.append(np.corrcoef(planted.models @ row, true)[0, 1])
    assert placement.skill["ridge of images"] == pytest.approx(np.mean(found))


def test_a_table_of_cards_gives_what_the_cards_give():
    cards = [
        TaskCard(task_id="a", domain="photos", n_classes=3, embedding=(1.0, 2.0)),
        TaskCard(task_id="b", domain="drawings", n_classes=7, embedding=(0.0, 2.0)),
        TaskCard(task_id="c", metric="accuracy", class_names=("x",), embedding=(5.0, 1.0)),
        TaskCard(task_id="d", traits={"colour": "grey"}),
        TaskCard(task_id="e", n_classes=5),
    ]
    table = CardTable.of(cards)
    assert CardTable.of(table) is table
    # What the other views read, and what every card has, says nothing here.
    assert table.is_silent.tolist() == [False, False, True, False, False]
    index = np.array([4, 0, 1, 2])
    own = [cards[i] for i in index]
    by_table, by_cards = TaskVectors().fit(table.take(index)), TaskVectors().fit(own)
    for found, wanted in ((by_table(table), by_cards(cards)), (by_table(own), by_cards(own))):
        assert found.keys() == wanted.keys() != set()
        for view in wanted:
            np.testing.assert_array_equal(found[view], wanted[view])
