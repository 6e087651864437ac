"""Intervals of a fitted ranker, from predictions that did not see their task."""

from collections.abc import Callable
from typing import Final

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import BaseRanker
from recsys_ms.ranker.folds import held_out_tasks, predict_held_out
from recsys_ms.ranker.intervals import IntervalCalibration

_N_FOLDS: Final = 10


def calibrate(
    base: BaseRanker,
    make: Callable[[], BaseRanker],
    interactions: Interactions,
    catalog: Catalog,
    *,
    coverage: float,
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> IntervalCalibration:
    """Measure how far a ranker is off on training tasks that it did not see.

    Parameters
    ----------
    base : BaseRanker
        Fitted on ``interactions``. Where it made held-out predictions itself, those are used;
        otherwise it is trained again without each tenth of the tasks.
    make : callable
        Makes an unfitted ranker of the same kind.
    interactions, catalog
        What ``base`` was fitted on.
    coverage : float
        Share of outcomes that an interval is to hold, in (0, 1).
    seed : int
        Of the folds, and of the outcomes that play observed ones.
    """
    held_out = base.held_out_value()
    if held_out is None:
        held_out = predict_held_out(
            make,
            interactions,
            catalog,
            held_out_tasks(interactions, _N_FOLDS, seed),
            axis="task",
            seed=seed,
            progress=progress,
            description="intervals",
        ).value
    return IntervalCalibration.fit(interactions, held_out, coverage=coverage, seed=seed)
