"""Which runs the history knows, in a few bytes each, and what to do with a run that comes in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.types import BoolArray, IntArray
from recsys_ms.history.digest import DIGEST_BYTES, Digests, as_digests, run_digests
from recsys_ms.history.schema import RUN_SCHEMA

#: Position of a row in the whole table, over all versions: rows are never changed or removed.
SEQUENCE: Final = "_sequence"
#: Sequence of the row whose state this one replaces; null for the first row of a run.
SUPERSEDES: Final = "_supersedes"
#: Digest of ``run_id``, then digest of everything the log says.
DIGEST: Final = "_digest"

#: Schema of the stored table: the run and what the writer needs to stay idempotent.
STORED_SCHEMA: Final = pa.schema(
    [
        *RUN_SCHEMA,
        pa.field(SEQUENCE, pa.int64()),
        pa.field(SUPERSEDES, pa.int64()),
        pa.field(DIGEST, pa.binary()),
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
    """What became of the runs of one table.

    Attributes
    ----------
    rows : pyarrow.Table
        Rows to write, with :data:`STORED_SCHEMA`.
    conflicts : ndarray of shape (n_conflicts,)
        Positions of the runs that contradict a settled run of the same id.
    n_new, n_updated, n_duplicate, n_failed : int
        Counts; failed runs are counted among the new and updated ones.
    """

    rows: pa.Table
    conflicts: IntArray
    n_new: int
    n_updated: int
    n_duplicate: int
    n_failed: int


class RunIndex:
    """Knows every state of every run, and decides: new, update, duplicate or conflict.

    Memory is about 32 bytes for each stored row, and a Python entry only for each run that is
    *running*.
    """

    def __init__(self) -> None:
        # Sequence of the next row.
        self._next = 0
        self._contents = DigestSet()
        self._settled = DigestSet()
        self._running: dict[bytes, int] = {}

    def learn(self, stored: pa.Table) -> None:
        """Take in rows that are already stored (columns digest, status, sequence), in any order."""
        if stored.num_rows:
            keys, contents = _split(stored[DIGEST])
            settled = _mask(pc.not_equal(stored[c.STATUS], "running"))
            sequences = stored[SEQUENCE].to_numpy()
            self._next = max(self._next, int(sequences.max()) + 1)
            self._note(keys, contents, settled, sequences)

    def admit(self, runs: pa.Table) -> Admitted:
        """Decide on valid runs, as if they came one after the other, and remember them.

        Parameters
        ----------
        runs : pyarrow.Table
            Rows of ``RUN_SCHEMA`` that ``build_runs`` accepted.
        """
        keys, contents = run_digests(runs)
        settled = _mask(pc.not_equal(runs[c.STATUS], "running"))
        accepted: list[IntArray] = []
        conflicts: list[IntArray] = []
        previous: list[int] = []
        n_duplicate = n_accepted = 0
        # One round for each repetition of an id, so that within a round every id is unique.
        for rows in _rounds(keys):
            known = self._contents.contains(contents[rows])
            n_duplicate += int(known.sum())
            rest = rows[~known]
            refused = self._settled.contains(keys[rest])
            conflicts.append(rest[refused])
            take = rest[~refused]
            previous += self._running_rows(keys[take])
            sequences = self._next + np.arange(take.size)
            self._next += take.size
            self._note(keys[take], contents[take], settled[take], sequences)
            accepted.append(take)
            n_accepted += take.size
        order = np.concatenate(accepted) if accepted else np.zeros(0, dtype=np.int64)
        supersedes = np.asarray(previous, dtype=np.int64)
        # Accepted runs lie in the order of the rounds, which is the table's own only where no id
        # came twice and none was refused.
        in_order = np.array_equal(order, np.arange(runs.num_rows))
        rows_out = runs if in_order else runs.take(pa.array(order))
        first = self._next - n_accepted
        extra: Mapping[str, pa.Array] = {
            SEQUENCE: pa.array(np.arange(first, self._next)),
            SUPERSEDES: pa.array(supersedes, mask=supersedes < 0),
            DIGEST: _paired(keys[order], contents[order]),
        }
        for name, column in extra.items():
            rows_out = rows_out.append_column(STORED_SCHEMA.field(name), column)
        n_updated = int((supersedes >= 0).sum())
        return Admitted(
            rows=rows_out,
            conflicts=np.sort(np.concatenate(conflicts)) if conflicts else order,
            n_new=n_accepted - n_updated,
            n_updated=n_updated,
            n_duplicate=n_duplicate,
            n_failed=int(_mask(pc.equal(rows_out[c.STATUS], "failed")).sum()),
        )

    def _running_rows(self, keys: Digests) -> list[int]:
        """Sequence of the present running row of each key, -1 where there is none."""
        if not self._running:
            return [-1] * keys.size
        return [self._running.get(key, -1) for key in keys.tolist()]

    def _note(
        self, keys: Digests, contents: Digests, settled: BoolArray, sequences: IntArray
    ) -> None:
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


def _rounds(keys: Digests) -> list[IntArray]:
    """Positions split so that each part holds a key once, and repetitions come in order."""
    if not keys.size:
        return []
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    if starts.size == keys.size:
        return [np.arange(keys.size)]
    repeats = np.diff(np.r_[starts, keys.size])
    occurrence = np.empty(keys.size, dtype=np.int64)
    occurrence[order] = np.arange(keys.size) - np.repeat(starts, repeats)
    by_round = np.argsort(occurrence, kind="stable")
    bounds = np.cumsum(np.bincount(occurrence))[:-1]
    return np.split(by_round, bounds)


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
