"""The contract of scores, over every score there is."""

from inspect import isfunction

import pytest

import recsys_ms.scores
from recsys_ms.scores import methods
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
    # Functions that the package exports and that are not scores themselves.
    others = {"add_depth", "label_embeddings", "logme", "score_all"}
    exported = {n for n in recsys_ms.scores.__all__ if isfunction(getattr(recsys_ms.scores, n))}
    assert exported - others == {n for n in vars(methods) if n in exported}
    assert {name: method.name for name, method in METHODS.items()} == {n: n for n in METHODS}
