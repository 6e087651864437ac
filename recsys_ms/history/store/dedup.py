"""Index of known runs, in a few bytes each: a new run, an update, a duplicate or a conflict."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.types import BoolArray, IntArray
from recsys_ms.history.recorder.state_order import are_of_two_recordings
from recsys_ms.history.store.identity import DIGEST_BYTES, Digests, as_digests, run_digests
from recsys_ms.history.store.schema import RUN_SCHEMA

#: Position of a row in the whole table, over all versions: rows are never changed or removed.
SEQUENCE: Final = "_sequence"
#: Sequence of the row whose state this one replaces; null for the first row of a run.
SUPERSEDES: Final = "_supersedes"
#: Digest of ``run_id``, then digest of everything the log says.
DIGEST: Final = "_digest"

#: Progress of the run's log, for logs that grow; see ``ReadBatch.progress``.
PROGRESS: Final = "_progress"
#: Log that the row was read from, so that it can be read again over what it gave.
FILE: Final = "_file"

#: Schema of the stored table: the run and what the writer needs to stay idempotent.
STORED_SCHEMA: Final = pa.schema(
    [
        *RUN_SCHEMA,
        pa.field(SEQUENCE, pa.int64()),
        pa.field(SUPERSEDES, pa.int64()),
        pa.field(DIGEST, pa.binary()),
        pa.field(PROGRESS, pa.int64()),
        pa.field(c.INGEST_ID, pa.string()),
        pa.field(c.RETRACTION, pa.string()),
        pa.field(FILE, pa.string()),
    ]
)
#: Columns that tables of earlier versions do not have; they are null there.
ADDED_LATER: Final = frozenset({PROGRESS, c.INGEST_ID, c.RETRACTION, FILE})
#: What :meth:`RunIndex.learn` needs of a stored row.
LEARNED: Final = (DIGEST, c.STATUS, SEQUENCE, SUPERSEDES, PROGRESS, c.RETRACTION)


class DigestSet:
    """Growing set of digests, held as a few sorted arrays (each at least twice the next)."""

    def __init__(self) -> None:
        self._pieces: list[Digests] = []

    def add(self, digests: Digests) -> None:
        """Add digests of shape (n,)."""
        if not digests.size:
            return
        piece = np.sort(digests)
        while self._pieces and self._pieces[-1].size < 2 * piece.size:
            # Two sorted halves: the stable sort of NumPy merges them in one pass.
            piece = np.sort(np.concatenate([self._pieces.pop(), piece]), kind="stable")
        self._pieces.append(piece)

    def contains(self, digests: Digests) -> BoolArray:
        """Which of the digests are in the set, shape (n,)."""
        found: BoolArray = np.zeros(digests.size, dtype=bool)
        if not digests.size:
            return found
        # Sorted needles walk the haystack in order, which the processor's cache likes.
        order = np.argsort(digests)
        needles = digests[order]
        for piece in self._pieces:
            at = np.searchsorted(piece, needles)
            at[at == piece.size] = 0
            found[order] |= piece[at] == needles
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Decisions on the runs of one table; ``rows`` of :data:`STORED_SCHEMA` are to be written."""

    rows: pa.Table
    #: Positions of runs that contradict a settled run of the same id.
    conflicts: IntArray
    #: Positions of duplicates that are older than the known state.
    outdated: IntArray
    n_new: int
    n_updated: int
    n_duplicate: int
    #: Among the new and updated ones.
    n_failed: int
    #: Known or updated runs that were retracted and stay so.
    n_still_retracted: int


@dataclass(slots=True)
class _State:
    """Present state of a run whose log has a progress, or that was changed since it was new."""

    sequence: int
    progress: int
    content: bytes
    running: bool
    finished: bool
    retraction: str | None
    #: Whether the log that is read again over it has given it already.
    given_again: bool = False


@dataclass(slots=True)
class _Decisions:
    """Decisions so far: positions of runs, and for each accepted one the row it replaces, or -1."""

    accepted: list[int] = field(default_factory=list)
    previous: list[int] = field(default_factory=list)
    #: Of accepted runs that stay retracted: by which retraction.
    retracted: dict[int, str] = field(default_factory=dict)
    conflicts: list[int] = field(default_factory=list)
    outdated: list[int] = field(default_factory=list)
    n_duplicate: int = 0
    n_still_retracted: int = 0

    def accept(self, row: int, state: _State, retraction: str | None) -> None:
        """Take a run in place of a known state."""
        self.accepted.append(row)
        self.previous.append(state.sequence)
        if retraction is not None:
            self.retracted[row] = retraction
            self.n_still_retracted += 1

    def known(self, state: _State) -> None:
        """Count a run that says nothing new."""
        self.n_duplicate += 1
        self.n_still_retracted += state.retraction is not None


class RunIndex:
    """Knows every state of every run, and decides: new, update, duplicate or conflict.

    A run is the same as before (duplicate), replaces a *running* state or one from a shorter log
    (update), is older than the known state (duplicate, outdated), or contradicts a settled run
    (conflict). A retracted run stays retracted when its log is read again or has come further; a
    run that would contradict it takes its place. Memory is about 32 bytes for each stored row, and
    a Python entry only for each run that is *running*, whose log has a progress, or that was
    changed since it was new.
    """

    def __init__(self) -> None:
        # Sequence of the next row.
        self._next = 0
        self._contents = DigestSet()
        self._settled = DigestSet()
        self._running: dict[bytes, int] = {}
        # An update without a progress inherits it from the state before, and a row that replaces
        # another says so: the last row of such a run is always here.
        self._states: dict[bytes, _State] = {}

    def learn(self, stored: pa.Table) -> None:
        """Add rows that are already stored, in any order, with the columns :data:`LEARNED`."""
        if not stored.num_rows:
            return
        keys, contents = _split(stored[DIGEST])
        settled = _mask(pc.not_equal(stored[c.STATUS], "running"))
        sequences = stored[SEQUENCE].to_numpy()
        self._next = max(self._next, int(sequences.max()) + 1)
        reached = progress_array(stored[PROGRESS])
        kept = np.flatnonzero((reached >= 0) | _mask(stored[SUPERSEDES].is_valid()))
        retractions = stored[c.RETRACTION].take(pa.array(kept)).to_pylist()
        self._note(keys, contents, settled, sequences)
        self._keep(kept, keys, contents, stored[c.STATUS], sequences, reached, retractions)

    def look_at(self, stored: pa.Table) -> None:
        """Note the present states of some stored runs, so that they can be replaced."""
        keys, contents = _split(stored[DIGEST])
        self._keep(
            np.arange(keys.size),
            keys,
            contents,
            stored[c.STATUS],
            stored[SEQUENCE].to_numpy(),
            progress_array(stored[PROGRESS]),
            stored[c.RETRACTION].to_pylist(),
        )

    def numbered(self, rows: pa.Table, retraction: str | None) -> pa.Table:
        """Present states of runs as new rows that replace them, retracted or not."""
        sequences = pa.array(np.arange(self._next, self._next + rows.num_rows), pa.int64())
        self._next += rows.num_rows
        given = pa.repeat(pa.scalar(retraction, pa.string()), rows.num_rows)
        for name, column in (
            (SUPERSEDES, rows[SEQUENCE]),
            (SEQUENCE, sequences),
            (c.RETRACTION, given),
        ):
            rows = rows.set_column(
                rows.schema.get_field_index(name), STORED_SCHEMA.field(name), column
            )
        return rows

    def admit(
        self, runs: pa.Table, progress: IntArray | None = None, *, replace: bool = False
    ) -> Admitted:
        """Decide on runs of ``build_runs``, as if they came one after the other; remember them.

        ``progress`` of shape (n_runs,) is that of ``ReadBatch``, -1 if unknown. ``runs`` may have
        further columns of :data:`STORED_SCHEMA`. With ``replace`` a run takes the place of a stored
        state that differs or was retracted; the caller has called :meth:`look_at`.
        """
        keys, contents = run_digests(runs)
        settled = _mask(pc.not_equal(runs[c.STATUS], "running"))
        finished = _mask(pc.equal(runs[c.STATUS], "finished"))
        reached = np.full(keys.size, -1, dtype=np.int64) if progress is None else progress.copy()
        found = _Decisions()
        # One round for each repetition of an id, so that within a round every id is unique.
        for rows in _rounds(keys):
            n_before = len(found.accepted)
            self._decide(rows, keys, contents, settled, finished, reached, found, replace=replace)
            take = np.asarray(found.accepted[n_before:], dtype=np.int64)
            sequences = self._next + np.arange(take.size)
            self._next += take.size
            self._note(keys[take], contents[take], settled[take], sequences)
            changed = np.asarray(found.previous[n_before:], dtype=np.int64) >= 0
            at = np.flatnonzero((reached[take] >= 0) | changed)
            retractions = [found.retracted.get(row) for row in take[at].tolist()]
            self._keep(
                at,
                keys[take],
                contents[take],
                runs[c.STATUS].take(pa.array(take)),
                sequences,
                reached[take],
                retractions,
                given_again=True,
            )
        order = np.asarray(found.accepted, dtype=np.int64)
        supersedes = np.asarray(found.previous, dtype=np.int64)
        # Accepted runs are in the order of the rounds, which is the table's own only if no id came
        # twice and none was refused.
        in_order = np.array_equal(order, np.arange(runs.num_rows))
        rows_out = runs if in_order else runs.take(pa.array(order))
        extra: dict[str, pa.Array] = {
            SEQUENCE: pa.array(np.arange(self._next - order.size, self._next)),
            SUPERSEDES: pa.array(supersedes, mask=supersedes < 0),
            DIGEST: _paired(keys[order], contents[order]),
            PROGRESS: pa.array(reached[order], mask=reached[order] < 0),
            c.RETRACTION: pa.array(
                [found.retracted.get(row) for row in found.accepted], pa.string()
            ),
        }
        for name in STORED_SCHEMA.names:
            if name not in extra and name not in rows_out.column_names:
                extra[name] = pa.nulls(order.size, STORED_SCHEMA.field(name).type)
        for name, column in extra.items():
            rows_out = rows_out.append_column(STORED_SCHEMA.field(name), column)
        n_updated = int((supersedes >= 0).sum())
        return Admitted(
            rows=rows_out.select(STORED_SCHEMA.names),
            conflicts=np.sort(np.asarray(found.conflicts, dtype=np.int64)),
            outdated=np.sort(np.asarray(found.outdated, dtype=np.int64)),
            n_new=order.size - n_updated,
            n_updated=n_updated,
            n_duplicate=found.n_duplicate,
            n_failed=int(_mask(pc.equal(rows_out[c.STATUS], "failed")).sum()),
            n_still_retracted=found.n_still_retracted,
        )

    def _decide(
        self,
        rows: IntArray,
        keys: Digests,
        contents: Digests,
        settled: BoolArray,
        finished: BoolArray,
        reached: IntArray,
        found: _Decisions,
        *,
        replace: bool,
    ) -> None:
        """Decide on the rows of one round, in which every id is unique."""
        changed: BoolArray = np.zeros(rows.size, dtype=bool)
        if self._states:
            changed = np.array([key in self._states for key in keys[rows].tolist()], dtype=bool)
        plain = rows[~changed]
        known = self._contents.contains(contents[plain])
        rest = plain[~known]
        refused = self._settled.contains(keys[rest])
        take = rest[~refused]
        found.accepted += take.tolist()
        found.previous += [self._running.get(key, -1) for key in keys[take].tolist()]
        found.conflicts += rest[refused].tolist()
        found.n_duplicate += int(known.sum())
        for row in rows[changed].tolist():
            state = self._states[keys[[row]].tolist()[0]]
            progress = int(reached[row])
            reached[row] = max(progress, state.progress)
            same = contents[[row]].tolist()[0] == state.content
            older = 0 <= progress < state.progress
            further = state.running or 0 <= state.progress < progress
            # Without a progress, a state that was seen before is an older one.
            seen = not same and bool(self._contents.contains(contents[[row]])[0])
            over = replace and not state.given_again
            state.given_again = same or state.given_again
            if over and (state.retraction is not None or not (same or older)):
                # Read again from its beginning, the log has come as far as this reading says.
                reached[row] = progress if progress >= 0 else state.progress
                found.accept(row, state, None)
            elif not same and are_of_two_recordings(progress, state.progress):
                reached[row] = progress
                if seen or (state.finished and not settled[row]):
                    found.known(state)
                    found.outdated.append(row)
                elif state.finished and not finished[row] and state.retraction is None:
                    found.conflicts.append(row)
                else:
                    # Another recording is another reading: a retraction is not about it.
                    found.accept(row, state, None)
            elif same or older or (seen and (state.progress < 0 or not further)):
                found.known(state)
                found.outdated += [row] * (older and not same)
            elif further:
                found.accept(row, state, state.retraction)
            elif state.retraction is not None:
                found.accept(row, state, None)
            else:
                found.conflicts.append(row)

    def _note(
        self, keys: Digests, contents: Digests, settled: BoolArray, sequences: IntArray
    ) -> None:
        """Remember stored rows."""
        self._contents.add(contents)
        self._settled.add(keys[settled])
        if self._running:
            for key in keys[settled].tolist():
                self._running.pop(key, None)
        if not settled.all():
            # Stored rows come in the order of the files: the run may have been settled before.
            still = np.flatnonzero(~settled)
            still = still[~self._settled.contains(keys[still])]
            for key, sequence in zip(keys[still].tolist(), sequences[still].tolist(), strict=True):
                self._running[key] = max(sequence, self._running.get(key, -1))

    def _keep(
        self,
        at: IntArray,
        keys: Digests,
        contents: Digests,
        statuses: pa.ChunkedArray,
        sequences: IntArray,
        reached: IntArray,
        retractions: Sequence[str | None],
        *,
        given_again: bool = False,
    ) -> None:
        """Keep the states of the rows ``at``; ``retractions`` are of these rows only."""
        told = statuses.take(pa.array(at, pa.int64())).to_pylist()
        of_rows = (keys[at].tolist(), contents[at].tolist(), at.tolist(), told, retractions)
        for key, content, row, status, retraction in zip(*of_rows, strict=True):
            state = self._states.get(key)
            if state is None or state.sequence < sequences[row]:
                self._states[key] = _State(
                    sequence=int(sequences[row]),
                    progress=int(reached[row]),
                    content=content,
                    running=status == "running",
                    finished=status == "finished",
                    retraction=retraction,
                    given_again=given_again,
                )


def progress_array(column: pa.ChunkedArray | Sequence[int | None] | None) -> IntArray:
    """Progress as integers, -1 if unknown."""
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([pa.array(column or (), pa.int64())])
    filled: IntArray = pc.fill_null(column, -1).to_numpy()
    return filled.astype(np.int64)


def _rounds(keys: Digests) -> list[IntArray]:
    """Positions split so that each part holds a key once, and repetitions come in order."""
    if not keys.size:
        return []
    codes = np.unique(keys, return_inverse=True)[1]
    occurrence = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    by_round = np.argsort(occurrence, kind="stable")
    return np.split(by_round, np.cumsum(np.bincount(occurrence))[:-1])


def _paired(keys: Digests, contents: Digests) -> pa.Array:
    both = np.empty((keys.size, 2), dtype=keys.dtype)
    both[:, 0], both[:, 1] = keys, contents
    width = 2 * DIGEST_BYTES
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), keys.size, [None, pa.py_buffer(both.tobytes())]
    )
    return fixed.cast(pa.binary())


def _split(column: pa.ChunkedArray) -> tuple[Digests, Digests]:
    both = as_digests(b"".join(column.to_pylist())).reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()


def _mask(array: pa.ChunkedArray) -> BoolArray:
    mask: BoolArray = array.to_numpy()
    return mask
