"""How a public ranker is trained, and what it needs of a history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import pandas as pd

from recsys_ms.core.errors import UsageError
from recsys_ms.history.interactions import OnTwoMetrics
from recsys_ms.ranker.names import RANKERS


class RunTable(Protocol):
    """What a ranker needs of a history; :class:`recsys_ms.History` is one."""

    @property
    def version(self) -> int:
        """Version of the table."""
        ...

    def runs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The latest state of every run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerConfig:
    """How to train.

    Attributes
    ----------
    ranker : str
        Name of the ranker: ``auto`` (default) chooses by nested back-test.
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
    metric: str | None = None
    on_two_metrics: OnTwoMetrics = "error"
    coverage: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ranker not in RANKERS:
            raise UsageError(
                f"RankerConfig: no ranker is named {self.ranker!r}; "
                f"choose from {', '.join(RANKERS)}"
            )
        if self.on_two_metrics not in ("error", "most-runs"):
            raise UsageError(
                f"RankerConfig: on_two_metrics is {self.on_two_metrics!r}, "
                "wanted 'error' or 'most-runs'"
            )
        if not 0.0 < self.coverage < 1.0:
            raise UsageError(
                f"RankerConfig: coverage is {self.coverage}, wanted a share between 0 and 1"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Make a config of TOML or JSON values; unknown keys are refused."""
        known = set(cls.__dataclass_fields__)
        if unknown := sorted(set(values) - known):
            raise UsageError(
                f"RankerConfig: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(known))}"
            )
        return cls(**values)  # type: ignore[arg-type]
