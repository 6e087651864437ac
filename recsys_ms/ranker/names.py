"""Rankers by name, as the command line and the back-test ask for them."""

from typing import Final

from recsys_ms.core.errors import UsageError
from recsys_ms.ranker.auto import AutoRanker
from recsys_ms.ranker.base import BaseRanker
from recsys_ms.ranker.cards import CardRanker
from recsys_ms.ranker.meta import FactorizationMachineRanker, LightGBMRanker, LinearRanker
from recsys_ms.ranker.popularity import PopularityRanker, RandomRanker
from recsys_ms.ranker.transfer import ALSRanker, NMFRanker

RANKERS: Final[dict[str, type[BaseRanker]]] = {
    ranker.name: ranker
    for ranker in (
        RandomRanker,
        PopularityRanker,
        CardRanker,
        NMFRanker,
        ALSRanker,
        LinearRanker,
        FactorizationMachineRanker,
        LightGBMRanker,
        AutoRanker,
    )
}
RANKER_NAMES: Final = tuple(RANKERS)


def make_ranker(name: str) -> BaseRanker:
    """Make an unfitted ranker.

    Raises
    ------
    UsageError
        No ranker has that name.
    """
    if name not in RANKERS:
        raise UsageError(f"no ranker is named {name!r}; choose from {', '.join(RANKER_NAMES)}")
    return RANKERS[name]()
