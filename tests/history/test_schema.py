import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.known_metrics import direction_problem, range_problem
from recsys_ms.history.run import Run
from recsys_ms.history.store.schema import RUN_SCHEMA, build_runs, runs_to_table

REQUIRED = {"model_id": "m", "task_id": "t", "metric": "accuracy", "direction": "max"}


def build(n_rows: int = 1, **columns: list[Any] | pa.Array) -> Any:
    given = {**{k: [v] * n_rows for k, v in REQUIRED.items()}, "value": [0.5] * n_rows, **columns}
    arrays = {
        k: v if isinstance(v, pa.Array | pa.ChunkedArray) else pa.array(v) for k, v in given.items()
    }
    return build_runs(arrays, n_rows)


def test_the_schema_has_the_columns_of_a_run() -> None:
    assert tuple(RUN_SCHEMA.names) == c.RUN_COLUMNS


def test_absent_columns_are_unknown_and_ids_are_made() -> None:
    made = build(2, seed=[1, 2]).runs
    assert made.schema == RUN_SCHEMA
    assert made[c.STATUS].to_pylist() == ["finished"] * 2
    assert made[c.HYPERPARAMETERS].to_pylist() == ["{}"] * 2
    assert made[c.EPOCH].null_count == 2
    assert made[c.RUN_ID].to_pylist() == [
        Run(**REQUIRED, value=0.5, seed=seed).run_id for seed in (1, 2)
    ]


def test_text_is_read_as_numbers_and_times() -> None:
    made = build(
        5,
        metric=["score"] * 5,
        value=["0.5", " 1e-3", "+.25", "2.", "-7"],
        seed=["1", "+3", "9.0", "", "123456789012345678"],
        started_at=[
            "2026-01-01T00:00:00Z",
            "2026-01-01 02:00:00.5+02:00",
            None,
            " ",
            "2026-01-01T00:00+0000",
        ],
    )
    assert made.problems == {}
    assert made.runs[c.VALUE].to_pylist() == [0.5, 1e-3, 0.25, 2.0, -7.0]
    assert made.runs[c.SEED].to_pylist() == [1, 3, 9, None, 123456789012345678]
    started = made.runs[c.STARTED_AT].cast(pa.int64()).to_pylist()
    assert started == [1767225600000000, 1767225600500000, None, None, 1767225600000000]


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("value", "n/a", "value: got 'n/a', expected a number"),
        ("value", "1,5", "expected a number"),
        ("value", "nan", "value: got nan, expected a finite number"),
        ("value", "-Infinity", "value: got -inf, expected a finite number"),
        ("value", "", "value: missing"),
        ("value", True, "value: got True, expected a number"),
        ("epoch", "inf", "epoch: got 'inf', expected a finite number"),
        ("seed", "1.5", "seed: got '1.5', expected a whole number"),
        ("seed", "1e30", "expected a whole number of 64 bits"),
        ("cost_gpu_seconds", -1.0, "expected 0 or more"),
        ("started_at", "2026-01-01T00:00:00", "a time without a time zone"),
        ("started_at", "2026-13-01T00:00:00Z", "expected an ISO 8601 time"),
        ("started_at", 3, "expected an ISO 8601 time"),
        ("model_id", " ", "model_id: missing"),
        ("model_id", 3, "model_id: got 3, expected text"),
        ("direction", "MAX", "expected 'max' or 'min'"),
        ("status", None, "status: missing"),
        ("hyperparameters", "{", "got '{' (not whole JSON"),
        ("hyperparameters", "[1]", "is not a JSON object"),
        ("tags", '{"a": 1}', "tag 'a'"),
    ],
)
def test_a_bad_cell_costs_its_row_and_no_other(column: str, cell: object, message: str) -> None:
    good = {"value": 0.5, "direction": "max", "status": "finished", "model_id": "m"}.get(column)
    cells = [good, cell, good]
    if isinstance(cell, str) and good is not None:
        cells = [str(good), cell, str(good)]
    if isinstance(cell, bool) or (isinstance(cell, int) and column == "model_id"):
        made = build(1, **{column: [cell]})
        assert message in made.problems[0]
        return
    made = build(3, **{column: cells})
    assert list(made.problems) == [1]
    assert message in made.problems[1]
    assert made.rows.tolist() == [0, 2]
    assert made.runs.num_rows == 2


def test_whole_numbers_of_64_bits_are_read_from_text_without_rounding() -> None:
    cells = ["9223372036854775807", "-9223372036854775807", "+0009007199254740993", "0", "-00"]
    assert build(5, seed=cells).runs[c.SEED].to_pylist() == [int(cell) for cell in cells]
    assert list(build(2, seed=["9223372036854775808", "1" * 20]).problems) == [0, 1]


def test_other_arrow_types_are_read_alike() -> None:
    plain = build(2, seed=[1, 2], source=["a", "b"])
    other = build(
        2,
        seed=pa.array([1, 2], pa.int8()),
        source=pa.array(["a", "b"]).dictionary_encode(),
        value=pa.array([0.5, 0.5], pa.float32()),
        metric=pa.chunked_array([["accuracy"], ["accuracy"]], type=pa.large_string()),
        task_id=pa.array(["t", "t"], pa.string_view()),
        epoch=pa.nulls(2),
    )
    assert other.problems == {}
    assert other.runs.equals(plain.runs)


def test_a_time_without_a_zone_is_refused_also_when_typed() -> None:
    made = build(1, started_at=pa.array([0], pa.timestamp("us")))
    assert "without a time zone" in made.problems[0]


def test_no_rows_and_wrong_columns() -> None:
    assert build_runs({}, 0).runs.num_rows == 0
    assert build_runs({c.MODEL_ID: pa.chunked_array([], pa.string())}, 0).runs.num_rows == 0
    with pytest.raises(DataError, match="unknown column 'modle'"):
        build_runs({"modle": pa.array(["a"])}, 1)
    with pytest.raises(DataError, match="has 1 rows, expected 2"):
        build_runs({c.MODEL_ID: pa.array(["a"])}, 2)


NUMBERS = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -1.0, 1e308, math.inf]))
FIELDS = st.fixed_dictionaries(
    {
        c.MODEL_ID: st.sampled_from(["m", "", "  ", None, "ü"]),
        c.TASK_ID: st.sampled_from(["t", "t", "\n"]),
        c.METRIC: st.sampled_from(["accuracy", "val_loss", "score", "bleu"]),
        c.DIRECTION: st.sampled_from(["max", "min", "max", "up", None, ""]),
        c.VALUE: NUMBERS,
        c.VALUE_KIND: st.sampled_from([None, "best", "ema", "other"]),
        c.EPOCH: NUMBERS,
        c.SEED: st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1)),
        c.STATUS: st.sampled_from(["finished", "failed", "running", "finished", "odd"]),
        c.COST_GPU_SECONDS: NUMBERS,
        c.HYPERPARAMETERS: st.sampled_from([None, "{}", '{"b":1,"a":2}', "[]", "{", '{"a":NaN}']),
        c.TAGS: st.sampled_from([None, '{"a":"b"}', '{"a":1}']),
    }
)


@settings(max_examples=120, deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=5))
def test_tables_and_single_runs_are_checked_alike(rows: list[dict[str, Any]]) -> None:
    columns = {
        name: pa.array([row[name] for row in rows], RUN_SCHEMA.field(name).type) for name in rows[0]
    }
    built = build_runs(columns, len(rows))
    expected: list[Run] = []
    for at, row in enumerate(rows):
        try:
            run = Run(**row)
        except DataError:
            assert at in built.problems
            continue
        # A single run is not refused for these, so that a training job can always record it.
        problem = direction_problem(run.metric, str(run.direction))
        if run.value is not None:
            problem = problem or range_problem(run.metric, run.value)
        assert (at in built.problems) == (problem is not None)
        expected += [] if problem else [run]
    assert built.runs.equals(runs_to_table(expected))


def test_the_columns_handed_in_are_not_changed() -> None:
    value = np.array([0.5, np.nan])
    column = pa.array(value)
    build(2, value=column, status=["finished", "failed"])
    assert math.isnan(column[1].as_py())
