"""Tests that every ranker, score and reader passes, ours and those of other packages.

A contract is a class of tests. Subclass it in a test file of yours, say what is to be tested, and
run pytest::

    from recsys_ms.testing import RankerContract

    class TestNearest(RankerContract):
        def make_ranker(self):
            return NearestRanker(n_neighbours=3)

Nothing here needs pytest to be imported; it is asked only to skip a test.
"""

from recsys_ms.testing.rankers import RankerContract
from recsys_ms.testing.readers import ReaderContract
from recsys_ms.testing.scores import ScoreContract

__all__ = ["RankerContract", "ReaderContract", "ScoreContract"]
