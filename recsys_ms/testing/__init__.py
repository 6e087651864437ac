"""Contracts: tests that every ranker, score and reader must pass, ours and those of plugins.

A contract is a class of tests. Subclass it in a test file, return what is to be tested, and run
pytest::

    from recsys_ms.testing import RankerContract

    class TestNearest(RankerContract):
        def make_ranker(self):
            return NearestRanker(n_neighbours=3)

pytest is imported only to skip a test.
"""

from recsys_ms.testing.rankers import RankerContract
from recsys_ms.testing.readers import ReaderContract
from recsys_ms.testing.scores import ScoreContract

__all__ = ["RankerContract", "ReaderContract", "ScoreContract"]
