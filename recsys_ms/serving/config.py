"""How a public ranker is trained, and what it needs of a history."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from recsys_ms.core.configured import differing
from recsys_ms.core.errors import UsageError
from recsys_ms.history.interactions import OnTwoMetrics
from recsys_ms.rankers.base import BaseRanker
from recsys_ms.rankers.ranker_names import joined, make_ranker, parse_spec, spec_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerConfig:
    """How to train.

    ``RankerConfig(ranker="nmf:8")`` and ``RankerConfig(ranker="nmf", params={"n_factors": 8})``
    are equal: whatever a back-test takes can be trained and published too.

    Attributes
    ----------
    ranker : str
        The ranker: a name of :data:`recsys_ms.rankers.ranker_names.RANKERS`, alone or with settings
        (:data:`recsys_ms.rankers.ranker_names.SPEC_HELP`); afterwards the name alone. Default
        ``auto``.
    params : mapping of setting to value
        Its settings; afterwards those that are not its default.
    metric : str or None
        Learn from runs of this metric only, where tasks were logged in several; or, with
        ``score:NAME``, from a transferability score of the catalog in place of runs, as Fennec does
        from FDA. Predictions are then in that score's unit.
    on_two_metrics : {"error", "most-runs"}
        What to do with a task that has several metrics and no choice is given.
    coverage : float
        Share of outcomes that an interval shall hold. Default 0.8.
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
        if not isinstance(self.params, Mapping):
            raise UsageError(
                f"RankerConfig: params is {self.params!r}, wanted settings by name, such as "
                "{'n_factors': 8}"
            )
        name, found = parse_spec(self.ranker)
        made = make_ranker(name, joined(self.ranker, found, self.params))
        object.__setattr__(self, "ranker", name)
        object.__setattr__(self, "params", differing(made.config, made.default_config))
        if self.on_two_metrics not in ("error", "most-runs"):
            raise UsageError(
                f"RankerConfig: on_two_metrics is {self.on_two_metrics!r}, "
                "wanted 'error' or 'most-runs'"
            )
        if not 0.0 < self.coverage < 1.0:
            raise UsageError(
                f"RankerConfig: coverage is {self.coverage}, wanted a share between 0 and 1"
            )

    @property
    def spec(self) -> str:
        """The ranker and its settings as one text, such as ``nmf:n_factors=8``."""
        return spec_of(self.ranker, self.params)

    def make(self) -> BaseRanker:
        """Make the unfitted ranker."""
        return make_ranker(self.ranker, self.params)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Make a config of TOML or JSON values; unknown keys are refused."""
        known = set(cls.__dataclass_fields__)
        if unknown := sorted(set(values) - known):
            raise UsageError(
                f"RankerConfig: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(known))}"
            )
        return cls(**values)  # type: ignore[arg-type]
