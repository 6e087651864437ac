"""What a ranker learns from: the interactions of a history, or of a table of scores."""

from typing import Final

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.history.forms import HistoryLike, as_runs
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.by_score import score_history
from recsys_ms.serving.config import RankerConfig

#: A metric that is a transferability score of the catalog.
_SCORE: Final = "score:"
_RUN_COLUMNS: Final = (
    c.TASK_ID,
    c.MODEL_ID,
    c.METRIC,
    c.DIRECTION,
    c.VALUE,
    c.STATUS,
    c.COST_GPU_SECONDS,
    c.RUN_ID,
)


def interactions_of(history: HistoryLike, config: RankerConfig, catalog: Catalog) -> Interactions:
    """Make the interactions that the configuration names.

    Raises
    ------
    UsageError
        Something that is no history.
    DataError
        No finished run, or two metrics for a task and no choice between them.
    """
    if config.metric is not None and config.metric.startswith(_SCORE):
        return score_history(catalog, config.metric.removeprefix(_SCORE))
    if isinstance(history, Interactions):
        return history
    return Interactions.from_runs(
        as_runs(history, _RUN_COLUMNS),
        metric=config.metric,
        on_two_metrics=config.on_two_metrics,
    )
