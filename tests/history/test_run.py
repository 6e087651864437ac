import hashlib
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.history.run import Run, canonical_json, make_run_id

REQUIRED = {"model_id": "resnet50", "task_id": "pets", "metric": "accuracy", "direction": "max"}


def run(**fields: object) -> Run:
    return Run(**{**REQUIRED, "value": 0.5, **fields})


def test_a_run_keeps_what_it_was_given_and_leaves_the_rest_unknown() -> None:
    made = run(seed=3, hyperparameters={"lr": 0.1}, tags={"team": "a"})
    assert (made.model_id, made.value, made.seed) == ("resnet50", 0.5, 3)
    assert made.status == "finished"
    assert made.epoch is None
    assert made.hyperparameters == {"lr": 0.1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_id": " "}, "model_id: missing"),
        ({"task_id": None}, "task_id: missing"),
        ({"metric": 3}, "metric: got 3, expected text"),
        ({"direction": "up"}, "direction: got 'up', expected 'max' or 'min'"),
        ({"status": "done"}, "expected 'finished' or 'failed' or 'running'"),
        ({"value_kind": "median"}, "expected 'best' or 'last' or 'ema'"),
        ({"value": "0.5"}, "value: got '0.5', expected a number"),
        ({"value": True}, "value: got True, expected a number"),
        ({"value": float("nan")}, "value: got nan, expected a finite number"),
        ({"value": float("-inf")}, "value: got -inf, expected a finite number"),
        ({"value": 10**400}, "too large"),
        ({"value": np.zeros(2)}, "expected a number"),
        ({"value": None}, "value: missing; a finished run needs a value"),
        ({"epoch": float("nan")}, "epoch: got nan"),
        ({"cost_gpu_seconds": -1}, "cost_gpu_seconds: got -1, expected 0 or more"),
        ({"seed": 1.5}, "seed: got 1.5, expected a whole number"),
        ({"seed": 2**63}, "expected a whole number of 64 bits"),
        ({"seed": 10**400}, "expected a whole number of 64 bits"),
        ({"started_at": datetime(2026, 1, 1)}, "without a time zone"),
        ({"started_at": "yesterday"}, "expected an ISO 8601 time with its time zone"),
        ({"started_at": 3}, "expected an ISO 8601 time"),
        ({"hyperparameters": [1]}, "is not a JSON object"),
        ({"hyperparameters": {"lr": float("nan")}}, "cannot be written as JSON"),
        ({"hyperparameters": {1: 2}}, "key 1 is not text"),
        ({"hyperparameters": {"a": object()}}, "cannot be written as JSON"),
        ({"tags": {"a": 1}}, "tag 'a' is 1, expected text"),
        ({"source": "\ud800"}, "expected valid Unicode"),
    ],
)
def test_invalid_fields_are_refused_with_field_and_value(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        run(**fields)
    assert message in str(caught.value)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(DataError, match=r"direction.*seed"):
        run(direction="up", seed="x")


@pytest.mark.parametrize("status", ["failed", "running"])
def test_a_run_that_did_not_finish_needs_no_value_and_nan_is_none(status: str) -> None:
    assert run(status=status, value=None).value is None
    assert run(status=status, value=float("nan")).value is None
    assert run(status=status, value=0.25).value == 0.25


def test_numbers_of_numpy_are_numbers() -> None:
    made = run(
        value=np.float32(0.5),
        seed=np.int64(7),
        epoch=np.array(3),
        hyperparameters={"n": np.int8(1)},
    )
    assert (made.value, made.seed, made.epoch, made.hyperparameters) == (0.5, 7, 3.0, {"n": 1})
    assert type(made.seed) is int


def test_times_become_utc() -> None:
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert run(started_at=there).started_at == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert run(started_at="2026-01-01T12:00:00+02:00").started_at == there


def test_the_mapping_of_the_caller_is_neither_kept_nor_changed() -> None:
    settings = {"b": 1, "a": [1]}
    made = run(hyperparameters=settings)
    settings["a"].append(2)
    assert made.hyperparameters == {"a": [1], "b": 1}


def test_payload_round_trip() -> None:
    made = run(started_at=datetime(2026, 1, 1, tzinfo=UTC), seed=2**62, tags={"a": "ü"})
    assert Run.from_payload(made.to_payload()) == made


def test_payload_with_an_unknown_or_missing_field() -> None:
    with pytest.raises(DataError, match="unknown field 'modle_id'"):
        Run.from_payload({**REQUIRED, "modle_id": "x"})
    with pytest.raises(DataError, match="task_id: missing; every run needs it; metric: missing"):
        Run.from_payload({"model_id": "x"})
    assert Run.from_payload({**REQUIRED, "value": 1}).value == 1.0


def test_run_id_is_the_digest_of_the_identifying_fields() -> None:
    made = run(seed=3, hyperparameters={"b": 2, "a": 1}, started_at="1970-01-01T00:00:01Z")
    text = (
        "model_id=8:resnet50;task_id=4:pets;metric=8:accuracy;seed=1:3;"
        'hyperparameters=13:{"a":1,"b":2};started_at=7:1000000;'
    )
    assert made.run_id == "r-" + hashlib.sha256(text.encode()).hexdigest()[:32]
    assert make_run_id(made.to_payload() | {c.STARTED_AT: made.started_at}) == made.run_id


def test_the_value_does_not_tell_runs_apart_and_every_identifying_field_does() -> None:
    base = run()
    assert run(value=0.9, epoch=3.0, tags={"a": "b"}).run_id == base.run_id
    others = {
        c.MODEL_ID: "vit",
        c.MODEL_REVISION: "v2",
        c.TASK_ID: "birds",
        c.METRIC: "f1",
        c.VALUE_KIND: "best",
        c.SPLIT: "val",
        c.SEED: 0,
        c.HYPERPARAMETERS: {"lr": 0.1},
        c.DATASET_FINGERPRINT: "x",
        c.SOURCE: "log.csv",
        c.STARTED_AT: datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert set(others) == set(c.IDENTIFYING_COLUMNS)
    ids = {run(**{name: value}).run_id for name, value in others.items()}
    assert len(ids | {base.run_id}) == len(others) + 1


def test_a_given_run_id_stays_and_a_blank_one_is_made() -> None:
    assert run(run_id="mine").run_id == "mine"
    assert run(run_id=" ").run_id == run().run_id


def test_canonical_json_sorts_keys_and_reads_text() -> None:
    assert canonical_json('{"b": 1, "a": {"d": 1, "c": "ü"}}') == '{"a":{"c":"ü","d":1},"b":1}'
    deep = "[" * 100_000
    with pytest.raises(DataError):
        canonical_json('{"a": ' + deep)
