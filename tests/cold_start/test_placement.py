"""Cold tasks placed by what their cards say: planted spaces, missing views, round trips."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.placement import TaskPlacement
from recsys_ms.cold_start.views import IMAGES, NAMES, TaskVectors
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

    def placement(self, cards=None, known=slice(None)):
        cards = (self.cards if cards is None else cards)[known]
        return TaskPlacement.fit(
            Catalog.from_cards(tasks=cards),
            [card.task_id for card in cards],
            self.tasks[known],
            metric=np.cov(self.models.T),
        )


@pytest.fixture(scope="module")
def planted():
    return Planted()


def test_a_cold_task_is_put_where_it_belongs(planted):
    placement = planted.placement(known=slice(0, 20))
    for i in range(20, N_TASKS):
        factors, _ = placement.place(planted.cards[i])
        true = planted.models @ planted.tasks[i]
        assert np.corrcoef(planted.models @ factors, true)[0, 1] > 0.95
        placed = placement.placed(planted.cards[i])
        assert sum(placed.weights.values()) == pytest.approx(1.0)


def test_views_count_by_what_they_explain(planted):
    found = planted.placement().process.variances
    assert found.keys() == {IMAGES, NAMES, "noise"}
    assert found[NAMES] < 0.05 * found[IMAGES]


def test_an_error_counts_by_what_the_metric_says(planted):
    """With weight on the second factor alone, the view that tells the first one gets none."""
    cards = [
        replace(card, embedding=(level,), label_embedding=None)
        for card, level in zip(planted.cards, planted.tasks[:, 0], strict=True)
    ]
    catalog, ids = Catalog.from_cards(tasks=cards), [card.task_id for card in cards]
    told = []
    for metric in (np.diag([1.0, 0.0]), np.diag([0.0, 1.0])):
        found = TaskPlacement.fit(catalog, ids, planted.tasks, metric=metric).process.variances
        told.append(found[IMAGES] / found["noise"])
    assert told[0] > 50 * told[1]


def test_the_factors_are_the_weighted_mean_of_the_known_tasks(planted):
    placement = planted.placement(known=slice(0, 20))
    placed = placement.placed(planted.cards[22])
    assert list(placed.weights) == [card.task_id for card in planted.cards[:20]]
    weights = np.array(list(placed.weights.values()))
    factors, _ = placement.place(planted.cards[22])
    np.testing.assert_allclose(weights @ planted.tasks[:20], factors, atol=1e-10)


def test_a_task_is_most_similar_to_itself(planted):
    placement = planted.placement()
    for card in planted.cards[:5]:
        similarity = placement.placed(card).similarity
        assert max(similarity, key=lambda task: similarity[task]) == card.task_id
        assert similarity[card.task_id] == pytest.approx(1.0)


def test_a_known_task_is_placed_as_if_it_was_not_known(planted):
    placement = planted.placement()
    for i in (0, 5, 23):
        others = np.arange(N_TASKS) != i
        cards = [card for card, kept in zip(planted.cards, others, strict=True) if kept]
        alone = TaskPlacement.fit(
            Catalog.from_cards(tasks=cards), [c.task_id for c in cards], planted.tasks[others]
        )
        left_out, _ = placement.place_known(planted.cards[i].task_id)
        refitted, _ = alone.place(planted.cards[i])
        # Scales, length and variances of the views are those of all tasks.
        np.testing.assert_allclose(left_out, refitted, atol=0.25)


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
    placement = planted.placement()
    assert placement.placed(card) is None
    np.testing.assert_allclose(placement.place(card)[0], planted.tasks.mean(axis=0), atol=1e-12)


def test_tasks_without_a_view_have_no_similarity_by_it(planted):
    cards = [
        replace(card, embedding=None) if i % 3 == 0 else card
        for i, card in enumerate(planted.cards)
    ]
    placement = planted.placement(cards)
    placed = placement.placed(replace(planted.cards[1], task_id="new", label_embedding=None))
    alike = {task for task, value in placed.similarity.items() if value != 0.0}
    assert alike == {card.task_id for card in cards if card.embedding is not None}


def test_too_few_tasks_to_learn_from(planted):
    placement = planted.placement(known=slice(0, 3))
    assert placement.placed(planted.cards[5]) is None
    np.testing.assert_allclose(placement.place(planted.cards[5])[0], planted.tasks[:3].mean(axis=0))


def test_a_saved_placement_answers_the_same(planted):
    placement = planted.placement()
    again = TaskPlacement.from_state(placement.state())
    for card in (planted.cards[3], TaskCard(task_id="new"), None):
        (before, variance), (after, same) = placement.place(card), again.place(card)
        np.testing.assert_array_equal(before, after)
        assert variance == same
        assert placement.placed(card) == again.placed(card)


def test_cards_that_say_nothing_of_the_factors_change_little():
    """On noise, the place of a task is close to the mean row."""
    rng = np.random.default_rng(3)
    moved = []
    for seed in range(4):
        noise = Planted(seed)
        noise.tasks = rng.standard_normal(noise.tasks.shape)
        placement = noise.placement(known=slice(0, 20))
        for card in noise.cards[20:]:
            moved.append(placement.place(card)[0] - noise.tasks[:20].mean(axis=0))
    # The factors have variance 1.
    assert np.mean(np.square(moved)) < 0.15


def test_cards_alone_can_place(planted):
    level = planted.tasks[:, 0] - planted.tasks[:, 0].min() + 1.0
    cards = [
        TaskCard(task_id=f"t{i:02d}", difficulty=float(level[i] / (1.0 + level.max())))
        for i in range(N_TASKS)
    ]
    placement = planted.placement(cards)
    variances = placement.process.variances
    assert variances["card"] > variances["noise"]


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
