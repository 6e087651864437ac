"""The temporal protocol: train on runs finished before a moment, test on new pairs after it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.folds import Fold, Protocol, fold_of
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.plausibility import plausible


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Temporal(Protocol):
    """Train on runs finished before a cut, test on the (task, model) pairs first seen after it.

    With several cuts, each fold tests what is first seen between its cut and the next. A task
    without a training run stays in the test as a cold one; the result reports cold and hot apart.

    Attributes
    ----------
    runs : DataFrame
        The runs that the interactions were reduced from, with ``finished_at`` (UTC). Failed and
        running runs do not count. Only tasks and metrics of the interactions are used.
    fractions : sequence of float
        Cuts, as the share of finished runs that come before, in (0, 1), ascending.
    before : sequence of datetime or str
        Cuts as moments (UTC without a time zone), ascending; replaces ``fractions``.
    undated : {"error", "leave-out"}
        What to do with finished runs without ``finished_at`` when others have one.
    """

    name: ClassVar[str] = "temporal"
    runs: pd.DataFrame
    fractions: Sequence[float] = (0.8,)
    before: Sequence[datetime | str] = ()
    undated: Literal["error", "leave-out"] = "error"

    def __post_init__(self) -> None:
        if self.undated not in ("error", "leave-out"):
            raise UsageError(f"undated is {self.undated!r}, expected 'error' or 'leave-out'")
        if not self.before:
            cuts = list(self.fractions)
            if not cuts or sorted(set(cuts)) != cuts or not 0.0 < cuts[0] <= cuts[-1] < 1.0:
                raise UsageError(f"fractions must ascend strictly inside (0, 1), got {cuts}")
        elif (moments := self._moments()) != sorted(set(moments)):
            raise UsageError(f"the moments of before must ascend strictly, got {moments}")

    def folds(
        self, interactions: Interactions, catalog: Catalog | None, *, seed: int
    ) -> Iterator[Fold]:
        """Yield one fold per cut, named ``before MOMENT``; there is no randomness."""
        runs = self.dated_runs(interactions)
        finished = runs[c.FINISHED_AT]
        cuts = self._cuts(finished)
        metric = dict(zip(interactions.task_ids, interactions.metrics, strict=True))
        for cut, next_cut in zip(cuts, [*cuts[1:], None], strict=True):
            early = finished < cut
            late = finished >= cut
            if next_cut is not None:
                late &= finished < next_cut
            if not early.any() or not late.any():
                raise DataError(
                    f"the cut at {cut.isoformat()} has {int(early.sum())} runs before it and "
                    f"{int(late.sum())} to test on; the finished runs span {finished.min()} to "
                    f"{finished.max()}: choose cuts inside"
                )
            train = Interactions.from_runs(runs[early], metric=metric)
            test = Interactions.from_runs(runs[late], metric=metric)
            is_new = ~test.pairs().isin(train.pairs())
            yield fold_of(f"before {cut.isoformat()}", test, is_new, train)

    def n_folds(self, interactions: Interactions) -> int:
        """One per cut."""
        return len(self.before or self.fractions)

    def settings(self) -> JsonDict:
        """The cuts, and ``undated``."""
        cuts: JsonDict = {"fractions": list(self.fractions)}
        if self.before:
            cuts = {"before": [moment.isoformat() for moment in self._moments()]}
        return cuts | {"undated": self.undated}

    def dated_runs(self, interactions: Interactions) -> pd.DataFrame:
        """Copy of the usable runs, ``finished_at`` as UTC moments.

        Raises
        ------
        DataError
            No timestamps at all, unreadable ones, or some missing while ``undated`` is "error".
        """
        if c.FINISHED_AT not in self.runs:
            raise DataError(_NO_TIMES.format(n_runs=len(self.runs)))
        metric = dict(zip(interactions.task_ids, interactions.metrics, strict=True))
        usable = (
            (self.runs[c.STATUS] == "finished")
            & self.runs[c.VALUE].notna()
            & (self.runs[c.METRIC] == self.runs[c.TASK_ID].map(metric))
        )
        # Judged as a whole: a part may be too small to tell what cannot be right.
        runs = plausible(self.runs[usable]).reset_index(drop=True)
        try:
            finished = pd.to_datetime(runs[c.FINISHED_AT], utc=True, format="ISO8601")
        except (ValueError, TypeError) as error:
            raise DataError(
                f"finished_at holds a value that is not a time ({error}); write times as ISO 8601, "
                "such as 2026-05-01T12:00"
            ) from error
        dated = finished.notna()
        if not dated.any():
            raise DataError(_NO_TIMES.format(n_runs=len(runs)))
        if not dated.all() and self.undated == "error":
            raise DataError(
                f"{int((~dated).sum())} of {len(runs)} finished runs have no finished_at, so they "
                "cannot be split by time; pass undated='leave-out' to leave them out"
            )
        return runs.assign(**{c.FINISHED_AT: finished})[dated]

    def _moments(self) -> list[pd.Timestamp]:
        moments = []
        for moment in self.before:
            try:
                stamp = pd.Timestamp(moment)
            except ValueError as error:
                raise UsageError(
                    f"before={moment!r} is not a time; write it like 2026-05-01T12:00"
                ) from error
            moments.append(
                stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")
            )
        return moments

    def _cuts(self, finished: "pd.Series[pd.Timestamp]") -> list[pd.Timestamp]:
        if self.before:
            return self._moments()
        times = finished.sort_values().to_list()
        cuts = [times[int(fraction * len(times))] for fraction in self.fractions]
        # Many runs of one moment can make two shares fall on it.
        return sorted(set(cuts))


_NO_TIMES = (
    "none of the {n_runs} runs has a finished_at, so they cannot be split by time; "
    "log finished_at, or evaluate with leave-one-task-out"
)
