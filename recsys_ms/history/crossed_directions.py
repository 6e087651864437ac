"""Finds runs that say the contrary of known runs about what is better: a metric has one direction.

Of a metric with a known direction the gate refuses the other one (``store/schema.py``). Of all
others the first runs of a task decide.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.known_metrics import direction_of

#: What a crossed direction is found by; runs without an outcome do not count.
DIRECTED: Final = (c.TASK_ID, c.METRIC, c.DIRECTION, c.STATUS)
Pair: TypeAlias = tuple[str, str]


class Directions:
    """Direction of each task and metric, as the first runs say it; ``None`` where they differ."""

    def __init__(self, known: pa.Table) -> None:
        self._by_pair: dict[Pair, str | None] = {}
        for task, metric, direction in _triples(known):
            self._by_pair[task, metric] = (
                direction if self._by_pair.get((task, metric), direction) == direction else None
            )

    def crossed(self, runs: pa.Table) -> dict[int, str]:
        """Why the runs at some positions cannot be taken; the others decide from now on."""
        contrary: dict[tuple[str, str, str], str] = {}
        for task, metric, direction in _triples(runs):
            known = self._by_pair.setdefault((task, metric), direction)
            if known is not None and known != direction:
                contrary[task, metric, direction] = known
        if not contrary:
            return {}
        found = {}
        rows = zip(*(runs[name].to_pylist() for name in DIRECTED), strict=True)
        for row, (task, metric, direction, status) in enumerate(rows):
            known = contrary.get((task, metric, direction))
            if known is not None and status == "finished":
                found[row] = crossed_reason(task, metric, direction, known)
        return found


def asks_for_directions(runs: pa.Table) -> bool:
    """Whether a run has a metric whose direction is not known by its name."""
    return any(direction_of(name) is None for name in pc.unique(runs[c.METRIC]).to_pylist())


def crossed_reason(task: str, metric: str, direction: str, known: str) -> str:
    """What is wrong with a run, and the ways out."""
    where = f"{c.TASK_ID} = '{task}' AND {c.METRIC} = '{metric}'".replace('"', '\\"')
    return (
        f"{c.DIRECTION}: of {metric!r} on task {task!r} the history has runs with {known!r}, this "
        f"one says {direction!r}, and a metric has one direction: give --set direction={known}, or "
        "another --set metric=NAME; if the stored ones are wrong, read their log again with "
        f'--replace, or recsys-ms retract --where "{where}"'
    )


def first_crossed(kept: pa.Table, added: Iterable[pa.Table]) -> str | None:
    """Why runs cannot be added to those that are kept, or ``None``."""
    directions = Directions(kept)
    return next((reason for runs in added for reason in directions.crossed(runs).values()), None)


def _triples(runs: pa.Table) -> list[tuple[str, str, str]]:
    """Distinct task, metric and direction of finished runs, in order, of unknown metrics only."""
    finished = runs.select(DIRECTED).filter(pc.equal(runs[c.STATUS], "finished"))
    metrics = pc.unique(finished[c.METRIC]).to_pylist()
    unknown = pa.array([name for name in metrics if direction_of(name) is None], pa.string())
    chosen = finished.filter(pc.is_in(finished[c.METRIC], value_set=unknown))
    grouped = chosen.group_by(list(DIRECTED[:3]), use_threads=False).aggregate([])
    return list(zip(*(grouped[name].to_pylist() for name in DIRECTED[:3]), strict=True))
