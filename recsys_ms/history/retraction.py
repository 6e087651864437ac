"""Takes back runs that should not have been ingested, and brings them back: a state, not a loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.errors import UnknownIdError, UsageError, did_you_mean
from recsys_ms.history.store.dedup import STORED_SCHEMA
from recsys_ms.history.store.delta import to_frame
from recsys_ms.history.store.run_store import RETRACTED_COLUMNS, RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraction:
    """What a retraction did, or would do.

    Attributes
    ----------
    ingest_id : str
        Id of the retraction, for undoing it; "" where nothing was done.
    runs : DataFrame
        The runs that it is about, sorted by ``run_id``: all fields, ``ingest_id`` and what had
        retracted them before, if anything.
    undo : bool
        Whether the runs were brought back.
    version : int
        Version of the history afterwards.
    """

    ingest_id: str
    runs: pd.DataFrame
    undo: bool
    version: int

    @property
    def n_runs(self) -> int:
        """Number of runs."""
        return len(self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which runs: those for which all that is given holds.

    Attributes
    ----------
    ingest : str or None
        Those that came in by this ingest; for bringing back, also those that this one retracted.
    run_ids : tuple of str or None
        Those of these ids.
    where : str or None
        Those for which a DuckDB predicate over the view ``runs`` holds.

    Raises
    ------
    UsageError
        Nothing is given.
    """

    ingest: str | None = None
    run_ids: tuple[str, ...] | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        if self.ingest is None and self.run_ids is None and self.where is None:
            raise UsageError(
                "nothing says which runs: give an ingest id (recsys-ms ingests lists them), run "
                "ids (--run-id), or a predicate (--where)"
            )


def chosen_states(store: RunStore, choice: Choice, *, retracted: bool) -> pa.Table:
    """Present states of the chosen runs that are retracted, or of those that are not.

    Raises
    ------
    UnknownIdError
        No ingest, or no run, of that id.
    DataError
        The predicate cannot be answered.
    """
    conditions: list[pc.Expression] = []
    if choice.ingest is not None:
        _check_ingest(store, choice.ingest)
        of_ingest = pc.field(c.INGEST_ID) == choice.ingest
        conditions.append(
            of_ingest | (pc.field(c.RETRACTION) == choice.ingest) if retracted else of_ingest
        )
    if choice.run_ids is not None:
        wanted = pa.array(choice.run_ids, pa.string())
        known = store.states([c.RUN_ID], where=pc.field(c.RUN_ID).isin(wanted))[c.RUN_ID]
        unknown = sorted(set(choice.run_ids) - set(known.to_pylist()))
        if unknown:
            every = store.states([c.RUN_ID])[c.RUN_ID].to_pylist()
            raise UnknownIdError(
                f"{store.folder}: no run has the id {unknown[0]!r}{did_you_mean(unknown[0], every)}"
            )
        conditions.append(pc.field(c.RUN_ID).isin(wanted))
    if choice.where is not None:
        view = "retracted_runs" if retracted else "runs"
        # A line break closes a comment at the end of the predicate.
        found = store.query(f"SELECT {c.RUN_ID} FROM {view} WHERE ({choice.where}\n)")  # noqa: S608
        conditions.append(pc.field(c.RUN_ID).isin(pa.array(found[c.RUN_ID].tolist(), pa.string())))
    where = conditions[0]
    for condition in conditions[1:]:
        where &= condition
    return store.states(STORED_SCHEMA.names, where=where, retracted=retracted)


def shown(states: pa.Table) -> pd.DataFrame:
    """States as a frame of runs, sorted by id."""
    return to_frame(states.select(RETRACTED_COLUMNS).take(pc.sort_indices(states[c.RUN_ID])))


def _check_ingest(store: RunStore, ingest: str) -> None:
    """Refuse an id that no run has, not even in an earlier state."""
    known: set[str] = set()
    for names in store.values((c.INGEST_ID, c.RETRACTION)):
        known |= names
    if ingest not in known:
        raise UnknownIdError(
            f"{store.folder}: no run came in by, or was retracted by, {ingest!r}"
            f"{did_you_mean(ingest, sorted(known))}; recsys-ms ingests lists the ids"
        )


def joined(run_ids: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Run ids as a tuple; one id may be given as it is."""
    if run_ids is None:
        return None
    return (run_ids,) if isinstance(run_ids, str) else tuple(run_ids)
