"""The contract of rankers, for every ranker of the package."""

from collections.abc import Sequence
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import ClassVar

import numpy as np
import pytest

import recsys_ms.rankers
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import NotSavableError, UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskQuery, TaskView
from recsys_ms.rankers.ranker_names import RANKER_NAMES, RANKERS, make_ranker
from recsys_ms.testing import RankerContract

QUERIES = (
    TaskQuery(task_id="t01"),
    TaskQuery(task_id="somewhere new"),
    TaskQuery(task_id="warm", observed={"m00": 0.8, "m01": 0.6, "m05": 0.61}),
)
IDS = ("m03", "m00", "new-model", "never seen", "m17")

every_ranker = pytest.mark.parametrize("name", RANKER_NAMES)


#: One spec of every ranker, and some whose settings are not the default.
SPECS = (
    *RANKERS.own,
    "nmf:5",
    "als:n_factors=3,n_sweeps=4",
    "fennec:0.3",
    "lr+logme+parc",
    "gp+none",
)


@pytest.mark.parametrize("spec", SPECS)
class TestRankers(RankerContract):
    @pytest.fixture(autouse=True)
    def _chosen(self, spec: str) -> None:
        self._spec = spec

    def make_ranker(self) -> BaseRanker:
        return make_ranker(self._spec)


def test_no_ranker_is_forgotten() -> None:
    for module in iter_modules(recsys_ms.rankers.__path__):
        import_module(f"recsys_ms.rankers.{module.name}")
    found, asked = set(), [BaseRanker]
    while asked:
        each = asked.pop()
        asked += each.__subclasses__()
        if each.__module__.startswith("recsys_ms.") and not isabstract(each):
            found.add(each)
    assert found == {RANKERS[name] for name in RANKERS.own}


class _Bare(BaseRanker):
    """The least that a ranker is."""

    name: ClassVar[str] = "bare"

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        self._ids = interactions.model_ids

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        value = np.array([float(model_id in self._ids) for model_id in model_ids])
        return Prediction(value=value, order=value)


class TestBareRanker(RankerContract):
    def make_ranker(self) -> BaseRanker:
        return _Bare()


def test_a_ranker_that_declares_nothing_cannot_be_saved(blocks: Interactions) -> None:
    ranker = _Bare().fit(blocks)
    with pytest.raises(NotSavableError, match=r"_Bare cannot be saved: _ids is not declared"):
        ranker.state()
    with pytest.raises(NotSavableError, match=r"_Bare cannot be saved: it does not declare"):
        ranker.require_savable()


@every_ranker
def test_parts_add_up_to_the_value(name: str, blocks: Interactions, cards: Catalog) -> None:
    ranker = make_ranker(name).fit(blocks, cards, rng=0)
    for query in QUERIES:
        parts = ranker.parts(ranker.view(query), IDS)
        total = np.sum([weight * value for weight, value in parts.values()], axis=0)
        np.testing.assert_allclose(total, ranker.predict(query, IDS).value, rtol=1e-12, atol=1e-12)


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
