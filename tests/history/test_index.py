import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core import columns as c
from recsys_ms.history.run import Run
from recsys_ms.history.store.dedup import (
    DIGEST,
    SEQUENCE,
    SUPERSEDES,
    DigestSet,
    RunIndex,
    progress_array,
)
from recsys_ms.history.store.identity import run_digests
from recsys_ms.history.store.schema import runs_to_table


def make(run_id: str, status: str = "finished", value: float = 0.5, **fields: Any) -> Run:
    return Run(
        **{"model_id": "m", "task_id": "t", "metric": "accuracy", "direction": "max", **fields},
        run_id=run_id,
        status=status,
        value=value,
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.binary(min_size=16, max_size=16), max_size=30), max_size=8))
def test_a_digest_set_is_a_set(pieces: list[list[bytes]]) -> None:
    digests = DigestSet()
    seen: set[bytes] = set()
    for piece in pieces:
        array = np.array(piece, dtype="S16")
        # NumPy strips trailing zero bytes when it hands a value out; so does this reference.
        names = array.tolist()
        assert digests.contains(array).tolist() == [name in seen for name in names]
        digests.add(array)
        seen |= set(names)
    assert digests.contains(np.array([b"\x00" * 16], dtype="S16")).tolist() == [b"" in seen]


def test_content_is_everything_but_the_time_of_ingest() -> None:
    base = make("r")
    same = make("r", ingested_at="2026-01-01T00:00:00Z")
    others = [
        make("r", value=0.25),
        make("r", status="failed"),
        make("r", tags={"a": "b"}),
        make("r", source="x"),
        make("r", source_version="x"),
        make("r", seed=0),
        make("r", finished_at="2026-01-01T00:00:00Z"),
    ]
    keys, contents = run_digests(runs_to_table([base, same, *others]))
    assert len(set(keys.tolist())) == 1
    assert contents[0] == contents[1]
    assert len(set(contents.tolist())) == 1 + len(others)


def test_digests_are_not_fooled_by_separators_or_minus_zero() -> None:
    pairs = [
        (make("r", split="a;source=1:b"), make("r", split="a", source="b")),
        (make("r", epoch=-0.0), make("r", epoch=0.0)),
    ]
    (_, split), (_, zero) = (run_digests(runs_to_table(pair)) for pair in pairs)
    assert split[0] != split[1]
    assert zero[0] == zero[1]


def test_digests_are_blake2b_of_the_written_out_fields() -> None:
    # Stored digests are compared with new ones for ever, so the text may never change.
    keys, contents = run_digests(
        runs_to_table([make("r", seed=1, started_at="1970-01-01T00:00:01Z")])
    )
    half = int.from_bytes(struct.pack(">d", 0.5), "big")
    text = (
        f"run_id=1:r;model_id=1:m;task_id=1:t;metric=8:accuracy;direction=3:max;value=19:{half};"
        "seed=1:1;hyperparameters=2:{};status=8:finished;started_at=7:1000000;tags=2:{};"
    )
    assert keys[0] == hashlib.blake2b(b"run_id=1:r;", digest_size=16).digest()
    assert contents[0] == hashlib.blake2b(text.encode(), digest_size=16).digest()


def reference(known: dict[str, list[Run]], run: Run) -> str:
    """What the docstring of ``History.ingest`` says, with plain Python objects."""
    states = known.setdefault(run.run_id, [])
    if run in states:
        return "duplicate"
    if not states:
        states.append(run)
        return "new"
    if any(state.status != "running" for state in states):
        return "conflict"
    states.append(run)
    return "updated"


RUNS = st.builds(
    make,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["running", "running", "finished", "failed"]),
    st.sampled_from([0.25, 0.5, 0.75]),
)


def test_two_runs_that_grow_in_one_batch_keep_their_own_last_state() -> None:
    # All rows are accepted, in two rounds: their order is not the table's.
    batch = [make(name, "running", value) for name in "ba" for value in (0.25, 0.5)]
    rows = RunIndex().admit(runs_to_table(batch)).rows.to_pylist()
    gone = {row[SUPERSEDES] for row in rows}
    latest = {row[c.RUN_ID]: row[c.VALUE] for row in rows if row[SEQUENCE] not in gone}
    assert latest == {"a": 0.5, "b": 0.5}


def reopened(stored: list[pa.Table], shuffled: Any) -> RunIndex:
    """An index of stored rows, which may be read back in any order."""
    rows = pa.concat_tables(stored)
    index = RunIndex()
    order = list(range(rows.num_rows))
    shuffled.shuffle(order)
    for at in order:
        index.learn(rows.slice(at, 1))
    return index


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(RUNS, max_size=12), max_size=4),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_decisions_are_those_of_runs_that_come_one_by_one(
    batches: list[list[Run]], reopened_after: int, shuffled: Any
) -> None:
    known: dict[str, list[Run]] = {}
    index = RunIndex()
    stored: list[pa.Table] = []
    for number, batch in enumerate(batches):
        expected = [reference(known, run) for run in batch]
        got = index.admit(runs_to_table(batch))
        stored.append(got.rows)
        assert got.conflicts.tolist() == [i for i, e in enumerate(expected) if e == "conflict"]
        counts = (got.n_new, got.n_updated, got.n_duplicate)
        assert counts == tuple(map(expected.count, ("new", "updated", "duplicate")))
        if number == reopened_after:
            index = reopened(stored, shuffled)
    if not stored:
        return
    rows = pa.concat_tables(stored)
    assert rows[SEQUENCE].to_pylist() == list(range(rows.num_rows))
    assert all(len(digest) == 32 for digest in rows[DIGEST].to_pylist())
    gone = set(rows[SUPERSEDES].to_pylist())
    latest = [row for row in rows.to_pylist() if row[SEQUENCE] not in gone]
    assert sorted((row[c.RUN_ID], row[c.STATUS], row[c.VALUE]) for row in latest) == sorted(
        (states[-1].run_id, states[-1].status, states[-1].value) for states in known.values()
    )


@dataclass
class Known:
    """A run as the rules of ``ReadBatch.progress`` see it, in plain Python."""

    states: list[Run]
    progress: int | None


def growing_reference(known: dict[str, Known], run: Run, came: int | None) -> str:
    state = known.get(run.run_id)
    if state is None:
        known[run.run_id] = Known([run], came)
        return "new"
    if run == state.states[-1]:
        return "duplicate"
    if state.progress is None and run in state.states:
        return "duplicate"
    if state.progress is not None and came is not None and came < state.progress:
        return "outdated"
    further = state.progress is not None and came is not None and came > state.progress
    if further or state.states[-1].status == "running":
        state.states.append(run)
        both = [each for each in (state.progress, came) if each is not None]
        state.progress = max(both) if both else None
        return "updated"
    return "duplicate" if run in state.states else "conflict"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(RUNS, st.none() | st.integers(0, 4)), max_size=12), max_size=4),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_runs_whose_logs_grow_are_decided_on_one_by_one(
    batches: list[list[tuple[Run, int | None]]], reopened_after: int, shuffled: Any
) -> None:
    known: dict[str, Known] = {}
    index = RunIndex()
    stored: list[pa.Table] = []
    for number, batch in enumerate(batches):
        expected = [growing_reference(known, run, came) for run, came in batch]
        runs = runs_to_table([run for run, _ in batch])
        got = index.admit(runs, progress_array([came for _, came in batch]))
        stored.append(got.rows)
        assert got.conflicts.tolist() == [i for i, e in enumerate(expected) if e == "conflict"]
        assert got.outdated.tolist() == [i for i, e in enumerate(expected) if e == "outdated"]
        assert (got.n_new, got.n_updated) == (expected.count("new"), expected.count("updated"))
        assert got.n_duplicate == expected.count("duplicate") + expected.count("outdated")
        if number == reopened_after:
            index = reopened(stored, shuffled)
    if not stored:
        return
    rows = pa.concat_tables(stored)
    gone = set(rows[SUPERSEDES].to_pylist())
    latest = {r[c.RUN_ID]: r for r in rows.to_pylist() if r[SEQUENCE] not in gone}
    assert {name: (row[c.STATUS], row[c.VALUE]) for name, row in latest.items()} == {
        name: (one.states[-1].status, one.states[-1].value) for name, one in known.items()
    }


def test_a_run_that_ends_as_it_ended_before_going_on_is_ended() -> None:
    # Trained on after it had finished, with no better value: the last state equals the first.
    index = RunIndex()
    for status, came in (("finished", 9), ("running", 12), ("finished", 21)):
        got = index.admit(runs_to_table([make("r", status)]), progress_array([came]))
        assert got.n_new + got.n_updated == 1
