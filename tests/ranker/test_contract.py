"""What every ranker must do, asked of every ranker there is."""

from pathlib import Path

import numpy as np
import pytest

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import NotFittedError, UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.artifact import load_artifact, save_artifact
from recsys_ms.ranker.base import TaskQuery
from recsys_ms.ranker.names import RANKER_NAMES, RANKERS, make_ranker

QUERIES = (
    TaskQuery(task_id="t01"),
    TaskQuery(task_id="somewhere new"),
    TaskQuery(task_id="warm", observed={"m00": 0.8, "m01": 0.6, "m05": 0.61}),
)
IDS = ("m03", "m00", "new-model", "never seen", "m17")

every_ranker = pytest.mark.parametrize("name", RANKER_NAMES)


@every_ranker
def test_one_finite_number_per_id_also_for_unknown_ones(
    name: str, blocks: Interactions, cards: Catalog
) -> None:
    for catalog in (None, cards):
        ranker = make_ranker(name).fit(blocks, catalog, rng=0)
        for query in QUERIES:
            answer = ranker.predict(query, IDS)
            assert answer.value.shape == answer.order.shape == (len(IDS),)
            assert np.isfinite(answer.value).all()
            assert np.isfinite(answer.order).all()


@every_ranker
def test_same_seed_same_answer_and_refit_forgets(
    name: str, blocks: Interactions, cards: Catalog
) -> None:
    other = blocks.select(blocks.task_index < 5)
    fresh = make_ranker(name).fit(blocks, cards, rng=3)
    refitted = make_ranker(name).fit(other, rng=1).fit(blocks, cards, rng=3)
    for query in QUERIES:
        a, b = fresh.predict(query, IDS), refitted.predict(query, IDS)
        np.testing.assert_array_equal(a.value, b.value)
        np.testing.assert_array_equal(a.order, b.order)


@every_ranker
def test_round_trip_through_disk_is_bit_equal(
    name: str, blocks: Interactions, cards: Catalog, tmp_path: Path
) -> None:
    before = make_ranker(name).fit(blocks, cards, rng=0)
    save_artifact(before.state(), tmp_path / "a", manifest={})
    after = RANKERS[name].from_state(load_artifact(tmp_path / "a")[0], cards)
    for query in QUERIES:
        a, b = before.predict(query, IDS), after.predict(query, IDS)
        np.testing.assert_array_equal(a.value, b.value)
        np.testing.assert_array_equal(a.order, b.order)
        parts_a = before.parts(before.view(query), IDS)
        parts_b = after.parts(after.view(query), IDS)
        assert parts_a.keys() == parts_b.keys()


@every_ranker
def test_parts_add_up_to_the_value(name: str, blocks: Interactions, cards: Catalog) -> None:
    ranker = make_ranker(name).fit(blocks, cards, rng=0)
    for query in QUERIES:
        parts = ranker.parts(ranker.view(query), IDS)
        total = np.sum([weight * value for weight, value in parts.values()], axis=0)
        np.testing.assert_allclose(total, ranker.predict(query, IDS).value, rtol=1e-12, atol=1e-12)


@every_ranker
def test_values_do_not_depend_on_who_else_is_asked(
    name: str, blocks: Interactions, cards: Catalog
) -> None:
    ranker = make_ranker(name).fit(blocks, cards, rng=0)
    for query in QUERIES:
        together = ranker.predict(query, IDS).value
        alone = [ranker.predict(query, [model]).value[0] for model in IDS]
        # Products of one row and of many rows sum in another order in BLAS.
        np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


@every_ranker
def test_unfitted_use_is_refused(name: str) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        make_ranker(name).predict(TaskQuery(task_id="t"), ["m"])


@every_ranker
@pytest.mark.parametrize(
    "case", ["one task", "two tasks", "one model", "all equal", "one pair", "lonely pairs"]
)
def test_degenerate_histories_are_survived(name: str, case: str) -> None:
    tasks, models, values = {
        "one task": (["t"] * 4, list("abcd"), [0.1, 0.2, 0.3, 0.4]),
        "two tasks": (["t", "t", "u", "u"], list("abab"), [0.1, 0.2, 0.3, 0.5]),
        "one model": (["t", "u", "v"], list("aaa"), [0.1, 0.2, 0.3]),
        "all equal": (["t", "t", "u", "u"], list("abab"), [0.5, 0.5, 0.5, 0.5]),
        "one pair": (["t"], ["a"], [0.5]),
        "lonely pairs": (["t", "u", "v", "w"], list("abcd"), [0.1, 0.2, 0.3, 0.4]),
    }[case]
    ranker = make_ranker(name).fit(Interactions.from_triplets(tasks, models, values), rng=0)
    for query in (TaskQuery(task_id="t"), TaskQuery(task_id="new", observed={"a": 0.3})):
        assert np.isfinite(ranker.predict(query, ["a", "b", "zzz"]).order).all()


@every_ranker
def test_a_minimised_metric_is_the_mirror_image(name: str) -> None:
    rng = np.random.default_rng(5)
    tasks = [f"t{i}" for i in range(5) for _ in range(8)]
    models = [f"m{j}" for _ in range(5) for j in range(8)]
    values = rng.random(40)
    up = Interactions.from_triplets(tasks, models, values, metric="x")
    down = Interactions.from_triplets(tasks, models, -values, metric="x", direction="min")
    a = make_ranker(name).fit(up, rng=0).predict(TaskQuery(task_id="n"), up.model_ids)
    b = make_ranker(name).fit(down, rng=0).predict(TaskQuery(task_id="n"), up.model_ids)
    np.testing.assert_allclose(a.value, b.value, atol=1e-12)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'best'; choose from random, popularity"):
        make_ranker("best")
