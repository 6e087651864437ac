"""The contract of scores, over every score there is."""

from importlib import import_module
from pkgutil import iter_modules

import pytest

import recsys_ms.scores
from recsys_ms.scores.method import Method
from recsys_ms.scores.methods import METHODS
from recsys_ms.testing import ScoreContract


@pytest.mark.parametrize("name", METHODS.own)
class TestScores(ScoreContract):
    @pytest.fixture(autouse=True)
    def _chosen(self, name: str) -> None:
        self._name = name

    def method(self) -> Method:
        return METHODS[self._name]


def test_no_score_is_forgotten() -> None:
    found = {
        thing.name
        for module in iter_modules(recsys_ms.scores.__path__)
        for thing in vars(import_module(f"recsys_ms.scores.{module.name}")).values()
        if isinstance(thing, Method)
    }
    assert found == set(METHODS.own)
