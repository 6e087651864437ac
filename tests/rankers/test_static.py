"""The static order: size where cards tell it, the largest common task elsewhere."""

import numpy as np
import pytest

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.static import StaticRanker

#: Task "wide" has most models; "narrow" contradicts it.
HISTORY = Interactions.from_triplets(
    ["wide"] * 4 + ["narrow"] * 3,
    ["a", "b", "c", "d", "b", "c", "e"],
    [0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.7],
)
IDS = ["a", "b", "c", "d", "e", "new"]


def sizes(**n_parameters: int) -> Catalog:
    return Catalog.from_cards(
        models=[ModelCard(model_id=name, n_parameters=n) for name, n in n_parameters.items()]
    )


def answer(catalog: Catalog | None = None, task: str = "other") -> np.ndarray:
    ranker = StaticRanker().fit(HISTORY, catalog, rng=0)
    return ranker.predict(TaskQuery(task_id=task), IDS).value


def test_without_sizes_the_largest_common_task_decides():
    got = answer()
    z = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25)
    assert got[:4] == pytest.approx(z)
    # Neither the model of another task nor an unknown one was run there.
    assert got[4:].tolist() == [0.0, 0.0]


def test_the_order_is_the_same_for_every_task():
    assert answer(task="narrow").tolist() == answer(task="wide").tolist() == answer().tolist()


def test_the_larger_model_comes_first():
    got = answer(sizes(a=10**9, b=10**8, c=10**7, d=10**6, e=10**5, new=10**10))
    assert np.argsort(-got).tolist() == [5, 0, 1, 2, 3, 4]
    # Standardised over the training models, by the logarithm.
    assert got[:5] == pytest.approx(np.array([2.0, 1.0, 0.0, -1.0, -2.0]) / np.sqrt(2.0))
    assert got[5] == pytest.approx(3.0 / np.sqrt(2.0))


def test_a_model_without_a_size_keeps_its_score_on_the_common_task():
    got = answer(sizes(a=10**8, b=10**7, c=10**6))
    assert got[3] == pytest.approx(answer()[3])
    assert got[0] > got[1] > got[2]
    assert got[4:].tolist() == [0.0, 0.0]


def test_half_of_the_models_must_have_a_size():
    # Two of five training models; the third card is of a model without runs.
    assert answer(sizes(a=10**9, b=10**8, new=10**10)).tolist() == answer().tolist()
    assert answer(sizes(a=10**9, b=10**8, c=10**7)).tolist() != answer().tolist()


def test_equal_sizes_tell_nothing():
    got = answer(sizes(a=10**6, b=10**6, c=10**6, d=10**6, e=10**6))
    assert got[:5].tolist() == [0.0] * 5


def test_the_first_of_equally_large_tasks_is_the_common_one():
    even = Interactions.from_triplets(["u", "u", "t", "t"], list("abab"), [0.1, 0.2, 0.2, 0.1])
    ranker = StaticRanker().fit(even, rng=0)
    assert ranker.common_task_ == "t"
    assert ranker.predict(TaskQuery(task_id="x"), ["a", "b"]).value == pytest.approx([1.0, -1.0])
