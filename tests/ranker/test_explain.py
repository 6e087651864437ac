"""Contributions add up to the prediction, in every ranker."""

import numpy as np
import pytest

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import TaskQuery
from recsys_ms.ranker.names import RANKER_NAMES, make_ranker

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
