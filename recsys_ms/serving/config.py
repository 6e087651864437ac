"""How a public ranker is trained: its settings, and the interactions they select of a history."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self, get_args

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.configured import changed, differing
from recsys_ms.core.errors import UsageError
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.history.forms import HistoryLike, as_runs
from recsys_ms.history.interactions import Interactions, OnTwoMetrics
from recsys_ms.rankers.base import BaseRanker
from recsys_ms.rankers.by_score import score_history
from recsys_ms.rankers.ranker_names import joined, make_ranker, parse_spec, spec_of

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerConfig:
    """How to train.

    ``RankerConfig(ranker="nmf:8")`` and ``RankerConfig(ranker="nmf", params={"n_factors": 8})``
    are equal; both forms are those of a back-test.

    Attributes
    ----------
    ranker : str
        The ranker: a name of :data:`recsys_ms.rankers.ranker_names.RANKERS`, alone or with settings
        (:data:`recsys_ms.rankers.ranker_names.SPEC_HELP`); afterwards the name alone. Default
        ``auto``.
    params : mapping of setting to value
        Its settings; afterwards those that are not its default.
    metric : str or None
        Learn from runs of this metric only, where tasks have several; or, with ``score:NAME``, from
        a transferability score of the catalog in place of runs, as Fennec does from FDA.
        Predictions are then in that score's unit.
    on_two_metrics : {"error", "most-runs"}
        What to do with a task that has several metrics and no choice is given.
    coverage : float
        Share of outcomes that an interval should hold. Default 0.8.
    seed : int
        Source of every random choice. Default 0.
    """

    ranker: str = "auto"
    params: Mapping[str, object] = field(default_factory=dict, hash=False)
    metric: str | None = None
    on_two_metrics: OnTwoMetrics = "error"
    coverage: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        is_mapping, rules = isinstance(self.params, Mapping), get_args(OnTwoMetrics)
        for setting, is_valid, wanted in (
            ("params", is_mapping, "settings by name, such as {'n_factors': 8}"),
            ("on_two_metrics", self.on_two_metrics in rules, "'error' or 'most-runs'"),
            ("coverage", 0.0 < self.coverage < 1.0, "a share between 0 and 1"),
            ("seed", self.seed >= 0, "a whole number of at least 0"),
        ):
            if not is_valid:
                given = getattr(self, setting)
                raise UsageError(f"RankerConfig: {setting} is {given!r}, expected {wanted}")
        name, found = parse_spec(self.ranker)
        made = make_ranker(name, joined(self.ranker, found, self.params))
        object.__setattr__(self, "ranker", name)
        object.__setattr__(self, "params", differing(made.config, made.default_config))

    @property
    def spec(self) -> str:
        """The ranker and its settings as one text, such as ``nmf:n_factors=8``."""
        return spec_of(self.ranker, self.params)

    def make(self, progress: Progress = NO_PROGRESS) -> BaseRanker:
        """Make the unfitted ranker; its fit tells ``progress`` about long loops."""
        ranker = make_ranker(self.ranker, self.params)
        ranker.progress = progress
        return ranker

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Make a config of TOML or JSON values; unknown keys are refused."""
        return changed(cls(), values, owner=cls.__name__)


def interactions_of(history: HistoryLike, config: RankerConfig, catalog: Catalog) -> Interactions:
    """The interactions that a configuration selects: runs of the history, or scores of the catalog.

    Errors are those of :meth:`recsys_ms.Ranker.fit`.
    """
    if config.metric is not None and config.metric.startswith(_SCORE):
        return score_history(catalog, config.metric.removeprefix(_SCORE))
    if isinstance(history, Interactions):
        return history
    runs = as_runs(history, _RUN_COLUMNS)
    return Interactions.from_runs(runs, metric=config.metric, on_two_metrics=config.on_two_metrics)
