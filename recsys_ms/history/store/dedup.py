"""Index of known runs, in a few bytes each: a new run, an update, a duplicate or a conflict."""

from collections.abc import Mapping, Sequence
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

#: Schema of the stored table: the run and what the writer needs to stay idempotent.
STORED_SCHEMA: Final = pa.schema(
    [
        *RUN_SCHEMA,
        pa.field(SEQUENCE, pa.int64()),
        pa.field(SUPERSEDES, pa.int64()),
        pa.field(DIGEST, pa.binary()),
        pa.field(PROGRESS, pa.int64()),
    ]
)


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


@dataclass(slots=True)
class _Growing:
    """Present state of a run whose log has a progress."""

    sequence: int
    progress: int
    content: bytes
    running: bool
    finished: bool


@dataclass(slots=True)
class _Decisions:
    """Decisions so far: positions of runs, and for each accepted one the row it replaces, or -1."""

    accepted: list[int] = field(default_factory=list)
    previous: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    outdated: list[int] = field(default_factory=list)
    n_duplicate: int = 0


class RunIndex:
    """Knows every state of every run, and decides: new, update, duplicate or conflict.

    A run is the same as before (duplicate), replaces a *running* state or one from a shorter log
    (update), is older than the known state (duplicate, outdated), or contradicts a settled run
    (conflict). Memory is about 32 bytes for each stored row, and a Python entry only for each run
    that is *running* or whose log has a progress.
    """

    def __init__(self) -> None:
        # Sequence of the next row.
        self._next = 0
        self._contents = DigestSet()
        self._settled = DigestSet()
        self._running: dict[bytes, int] = {}
        # An update without a progress inherits it from the state before, so the last row of a run
        # that ever had one is always here.
        self._growing: dict[bytes, _Growing] = {}

    def learn(self, stored: pa.Table) -> None:
        """Add rows that are already stored, in any order: digest, status, sequence, progress.

        The column of the progress may be missing.
        """
        if not stored.num_rows:
            return
        keys, contents = _split(stored[DIGEST])
        settled = _mask(pc.not_equal(stored[c.STATUS], "running"))
        sequences = stored[SEQUENCE].to_numpy()
        self._next = max(self._next, int(sequences.max()) + 1)
        known = PROGRESS in stored.column_names
        reached = progress_array(stored[PROGRESS] if known else [None] * stored.num_rows)
        finished = _mask(pc.equal(stored[c.STATUS], "finished"))
        self._note(keys, contents, settled, finished, sequences, reached)

    def admit(self, runs: pa.Table, progress: IntArray | None = None) -> Admitted:
        """Decide on runs of ``build_runs``, as if they came one after the other; remember them.

        ``progress`` of shape (n_runs,) is that of ``ReadBatch``, -1 if unknown.
        """
        keys, contents = run_digests(runs)
        settled = _mask(pc.not_equal(runs[c.STATUS], "running"))
        finished = _mask(pc.equal(runs[c.STATUS], "finished"))
        reached = np.full(keys.size, -1, dtype=np.int64) if progress is None else progress.copy()
        found = _Decisions()
        # One round for each repetition of an id, so that within a round every id is unique.
        for rows in _rounds(keys):
            n_before = len(found.accepted)
            self._decide(rows, keys, contents, settled, finished, reached, found)
            take = np.asarray(found.accepted[n_before:], dtype=np.int64)
            sequences = self._next + np.arange(take.size)
            self._next += take.size
            self._note(
                keys[take], contents[take], settled[take], finished[take], sequences, reached[take]
            )
        order = np.asarray(found.accepted, dtype=np.int64)
        supersedes = np.asarray(found.previous, dtype=np.int64)
        # Accepted runs are in the order of the rounds, which is the table's own only if no id came
        # twice and none was refused.
        in_order = np.array_equal(order, np.arange(runs.num_rows))
        rows_out = runs if in_order else runs.take(pa.array(order))
        extra: Mapping[str, pa.Array] = {
            SEQUENCE: pa.array(np.arange(self._next - order.size, self._next)),
            SUPERSEDES: pa.array(supersedes, mask=supersedes < 0),
            DIGEST: _paired(keys[order], contents[order]),
            PROGRESS: pa.array(reached[order], mask=reached[order] < 0),
        }
        for name, column in extra.items():
            rows_out = rows_out.append_column(STORED_SCHEMA.field(name), column)
        n_updated = int((supersedes >= 0).sum())
        return Admitted(
            rows=rows_out,
            conflicts=np.sort(np.asarray(found.conflicts, dtype=np.int64)),
            outdated=np.sort(np.asarray(found.outdated, dtype=np.int64)),
            n_new=order.size - n_updated,
            n_updated=n_updated,
            n_duplicate=found.n_duplicate,
            n_failed=int(_mask(pc.equal(rows_out[c.STATUS], "failed")).sum()),
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
    ) -> None:
        """Decide on the rows of one round, in which every id is unique."""
        growing: BoolArray = np.zeros(rows.size, dtype=bool)
        if self._growing:
            growing = np.array([key in self._growing for key in keys[rows].tolist()], dtype=bool)
        plain = rows[~growing]
        known = self._contents.contains(contents[plain])
        rest = plain[~known]
        refused = self._settled.contains(keys[rest])
        take = rest[~refused]
        found.accepted += take.tolist()
        found.previous += [self._running.get(key, -1) for key in keys[take].tolist()]
        found.conflicts += rest[refused].tolist()
        found.n_duplicate += int(known.sum())
        for row in rows[growing].tolist():
            state = self._growing[keys[[row]].tolist()[0]]
            content = contents[[row]]
            progress = int(reached[row])
            if content.tolist()[0] == state.content:
                found.n_duplicate += 1
            elif are_of_two_recordings(progress, state.progress):
                waits = state.finished and not settled[row]
                if waits or self._contents.contains(content)[0]:
                    found.n_duplicate += 1
                    found.outdated.append(row)
                elif state.finished and not finished[row]:
                    found.conflicts.append(row)
                else:
                    found.accepted.append(row)
                    found.previous.append(state.sequence)
            elif 0 <= progress < state.progress:
                found.n_duplicate += 1
                found.outdated.append(row)
            elif progress > state.progress or state.running:
                reached[row] = max(progress, state.progress)
                found.accepted.append(row)
                found.previous.append(state.sequence)
            elif self._contents.contains(content)[0]:
                found.n_duplicate += 1
            else:
                found.conflicts.append(row)

    def _note(
        self,
        keys: Digests,
        contents: Digests,
        settled: BoolArray,
        finished: BoolArray,
        sequences: IntArray,
        reached: IntArray,
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
        at = np.flatnonzero(reached >= 0)
        of_rows = (keys[at].tolist(), contents[at].tolist(), at.tolist())
        for key, content, row in zip(*of_rows, strict=True):
            state = self._growing.get(key)
            if state is None or state.sequence < sequences[row]:
                self._growing[key] = _Growing(
                    sequence=int(sequences[row]),
                    progress=int(reached[row]),
                    content=content,
                    running=not settled[row],
                    finished=bool(finished[row]),
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
