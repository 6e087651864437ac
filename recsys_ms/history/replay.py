"""Reads rejects of the quarantine again: those that become runs are taken in and resolved."""

from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeAlias

import pyarrow as pa

from recsys_ms.core.pieces import pieces
from recsys_ms.history.ingestion import Ingest, IngestReport
from recsys_ms.history.quarantine import Quarantine, ReadBatch, Reject

_REJECTS_PER_STEP: Final = 1_000
_CHARACTERS_PER_STEP: Final = 16 << 20

#: Reads a reject again: the run it became, or a batch with a reject that says why not.
Retry: TypeAlias = Callable[[Reject], ReadBatch]


def replay(
    ingest: Ingest, quarantine: Quarantine, chosen: Collection[str], again: Retry
) -> IngestReport:
    """Read the rejects of some ids again, in one commit; the others stay pending.

    ``ingest`` has no quarantine: what is refused is there already.
    """
    failed: set[str] = set()

    def retried() -> Iterator[pa.Table]:
        waiting = ((each.id, each) for each in quarantine.pending())
        for piece in pieces(
            (each for each in waiting if each[0] in chosen),
            most=_REJECTS_PER_STEP,
            size_of=lambda each: len(each[1].raw),
            largest=_CHARACTERS_PER_STEP,
        ):
            owners: list[str] = []
            batches: list[ReadBatch] = []
            for identity, reject in piece:
                batch = again(reject)
                if batch.rejects or not (batch.runs.num_rows or batch.n_left_out):
                    failed.add(identity)
                owners += [identity] * batch.runs.num_rows
                batches.append(batch)
            merged = ReadBatch.joined(batches)
            table, refused = ingest.admit(merged)
            failed.update(owners[row] for row in refused)
            yield table
            ingest.keep_curves(merged)

    report = ingest.commit(retried())
    quarantine.resolve(set(chosen) - failed)
    return report
