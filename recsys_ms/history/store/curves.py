"""Curves: the values a run logged on its way, as rows of a second table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError

#: One row a logged value. ``step`` and ``epoch`` are unknown (null) where the log does not say.
CURVE_SCHEMA: Final = pa.schema(
    [
        pa.field(c.RUN_ID, pa.string()),
        pa.field(c.STEP, pa.int64()),
        pa.field(c.EPOCH, pa.float64()),
        pa.field(c.METRIC, pa.string()),
        pa.field(c.SPLIT, pa.string()),
        pa.field(c.VALUE, pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One metric of one run on one split, in the order it was logged.

    Attributes
    ----------
    name : str
        As the log spells it (``eval_accuracy``); unique in its run.
    metric : str
        Without the split (``accuracy``); empty where the log does not name what it measures.
    split : str or None
        ``train``, ``eval``, ``val``, … as the log spells it; ``None`` where it does not say.
    steps : sequence of int or None
        Optimizer step (or what the log counts) of each value.
    epochs : sequence of float or None
        Epoch of each value.
    values : sequence of float
        The values; NaN and infinities where the log has them.
    percent : bool
        Whether the framework defines the metric in percent.

    Raises
    ------
    DataError
        Sequences of different lengths.
    """

    name: str
    metric: str
    split: str | None
    steps: Sequence[int | None]
    epochs: Sequence[float | None]
    values: Sequence[float]
    percent: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        metric: str,
        split: str | None,
        points: Iterable[tuple[int | None, float | None, float]],
        *,
        percent: bool = False,
    ) -> Self:
        """Series of points ``(step, epoch, value)``."""
        rows = list(points)
        return cls(
            name=name,
            metric=metric,
            split=split,
            steps=[step for step, _, _ in rows],
            epochs=[epoch for _, epoch, _ in rows],
            values=[value for _, _, value in rows],
            percent=percent,
        )

    def __post_init__(self) -> None:
        if not len(self.steps) == len(self.epochs) == len(self.values):
            raise DataError(
                f"series {self.name!r} has {len(self.values)} values, {len(self.steps)} steps and "
                f"{len(self.epochs)} epochs; one of each is needed for every value"
            )


def curve_table(run_ids: Sequence[str], curves: Sequence[Sequence[Series]]) -> pa.Table:
    """Rows of :data:`CURVE_SCHEMA` of the series of each run; percentages become fractions."""
    columns: dict[str, list[object]] = {name: [] for name in CURVE_SCHEMA.names}
    for run_id, series_of_run in zip(run_ids, curves, strict=True):
        for series in series_of_run:
            # The table has one value of a point: the last that was logged.
            points = dict(
                zip(zip(series.steps, series.epochs, strict=True), series.values, strict=True)
            )
            n = len(points)
            columns[c.RUN_ID] += [run_id] * n
            columns[c.STEP] += [step for step, _ in points]
            columns[c.EPOCH] += [epoch for _, epoch in points]
            columns[c.METRIC] += [series.metric or series.name] * n
            columns[c.SPLIT] += [series.split] * n
            scale = 100.0 if series.percent else 1.0
            columns[c.VALUE] += [value / scale for value in points.values()]
    return pa.table(columns, schema=CURVE_SCHEMA)
