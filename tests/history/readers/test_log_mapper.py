"""Runs of logs with a mapping: what is taken from where, what is asked for, what goes aside."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.readers.log_mapper import LOG_RUN_READER, LogMapper, log_run_id
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.readers.logs import replay_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.store.curves import CURVE_SCHEMA, Series


def logged(name: str = "a", **more: Any) -> LoggedRun:
    given: dict[str, Any] = {
        "file": f"/logs/birds/{name}",
        "identity": f"x:/logs/birds/{name}",
        "columns": {"args": {"model": "vit_b", "lr": 0.1}, "_folder": name},
        "fields": {"hyperparameters": {"lr": 0.1}, "tags": {"who": "me"}},
        "series": (
            Series(
                name="val_acc",
                metric="acc",
                split="val",
                steps=(1, 2, 3),
                epochs=(0.0, 1.0, 2.0),
                values=(0.2, 0.6, 0.5),
            ),
        ),
        "progress": 3,
    }
    return LoggedRun(**(given | more))


ALL: dict[str, Any] = {
    "map": {"model_id": "{args.model}"},
    "set": {"task_id": "birds", "metric": "acc", "direction": "max"},
}


def rows(mapping: FieldMapping, *runs: LoggedRun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = LogMapper("x", mapping).map(runs).batch.runs.to_pylist()
    return found


def test_a_run_whole() -> None:
    [row] = rows(FieldMapping(**ALL), logged())
    assert row["run_id"] == log_run_id("x:/logs/birds/a")
    assert (row["model_id"], row["task_id"], row["metric"]) == ("vit_b", "birds", "acc")
    assert (row["value"], row["epoch"], row["value_kind"], row["split"]) == (
        0.6,
        1.0,
        "best",
        "val",
    )
    assert (row["status"], row["source"]) == ("finished", "x")
    assert json.loads(row["hyperparameters"]) == {"lr": 0.1}
    assert json.loads(row["tags"]) == {"who": "me", "log": "x:/logs/birds/a"}


def test_the_curve_comes_under_the_run_s_id_with_percent_as_fractions() -> None:
    run = logged()
    top1 = replace(run.series[0], percent=True, values=(20.0, 60.0, 50.0))
    batch = LogMapper("x", FieldMapping(**ALL)).map([replace(run, series=(top1,))]).batch
    assert batch.curves is not None
    assert batch.curves.schema == CURVE_SCHEMA
    assert batch.curves.to_pylist()[1] == {
        "run_id": batch.runs["run_id"][0].as_py(),
        "step": 2,
        "epoch": 1.0,
        "metric": "acc",
        "split": "val",
        "value": 0.6,
    }
    assert batch.runs["value"].to_pylist() == [0.6]
    assert batch.progress == (3,)


def test_the_mapping_goes_before_the_log_and_the_log_before_nothing() -> None:
    said = logged(fields={"model_id": "resnet", "task_id": "cars", "seed": 7})
    plain = FieldMapping(set={"metric": "acc", "direction": "max"})
    [row] = rows(plain, said)
    assert (row["model_id"], row["task_id"], row["seed"]) == ("resnet", "cars", 7)
    [row] = rows(FieldMapping(**ALL), said)
    assert (row["model_id"], row["task_id"]) == ("vit_b", "birds")
    # A template that is empty for a run leaves what its log says.
    empty = plain.overridden(map={"model_id": "{args.none}"})
    assert rows(empty, said)[0]["model_id"] == "resnet"


def test_templates_see_the_place_and_computed_columns_see_the_groups() -> None:
    mapping = FieldMapping(
        map={"model_id": "{args.model}", "task_id": "{task}", "tags.run": "{_folder}"},
        set={"metric": "acc", "direction": "max"},
        columns={"task": "split_part(_path, '/', 3)"},
        where="_folder <> 'b'",
    )
    mapped = LogMapper("x", mapping).map([logged("a"), logged("b")])
    [row] = mapped.batch.runs.to_pylist()
    assert row["task_id"] == "birds"
    assert json.loads(row["tags"])["run"] == "a"
    assert mapped.batch.n_left_out == 1


def test_what_nobody_says_is_asked_for_with_the_option_that_says_it() -> None:
    mapped = LogMapper("x", FieldMapping()).map([logged()])
    assert mapped.batch.runs.num_rows == 0
    assert mapped.missing == (("model_id", "task_id", "metric"),)
    [reject] = mapped.batch.rejects
    for option in ("--map model_id=", "--set task_id=", "--set metric="):
        assert option in reject.reason
    assert reject.reader == LOG_RUN_READER
    # Whether the direction is known depends on the metric.
    unknown = FieldMapping(set={"model_id": "m", "task_id": "t", "metric": "my score"})
    named = unknown.overridden(map={"value": "{val_acc}"})
    assert LogMapper("x", named).map([logged()]).missing == (("direction",),)
    assert mapped.series == ("val_acc",)
    assert "args.model" in mapped.columns


def test_a_reject_is_the_whole_run_and_a_replay_with_a_mapping_takes_it() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    run = logged(fields={"started_at": moment, "hyperparameters": {"lr": 0.1}})
    [reject] = LogMapper("x", FieldMapping()).map([run]).batch.rejects
    again = replay_log(reject)
    assert again.runs.num_rows == 0
    assert len(again.rejects) == 1
    taken = replay_log(reject, FieldMapping(**ALL))
    direct = LogMapper("x", FieldMapping(**ALL)).map([run]).batch
    assert taken.runs.equals(direct.runs)
    assert taken.progress == direct.progress
    assert taken.curves is not None
    assert taken.curves.equals(direct.curves)


def test_an_edited_reject_that_is_no_run_stays_one() -> None:
    [reject] = LogMapper("x", FieldMapping()).map([logged()]).batch.rejects
    for text in ("", "[]", "{", '{"file": 1}', '{"series": [{"name": "a"}]}', reject.raw[:-9]):
        again = replay_log(replace(reject, raw=text), FieldMapping(**ALL))
        assert again.runs.num_rows == 0
        assert len(again.rejects) == 1
    with pytest.raises(DataError, match="how it was read"):
        replay_log(replace(reject, options="{}"))


def test_runs_that_did_not_end_well() -> None:
    nan = replace(logged().series[0], values=(float("nan"),) * 3)
    found = rows(
        FieldMapping(**ALL),
        logged("a", series=(nan,)),
        logged("b", fields={"status": "running"}, series=()),
        logged("c", fields={"status": "failed"}, series=()),
        logged("d"),
    )
    assert [row["status"] for row in found] == ["failed", "running", "failed", "finished"]
    assert [row["value"] for row in found] == [None, None, None, 0.6]
    assert json.loads(found[0]["tags"])["error"] == "no finite val_acc"
    # A finished run without the series has lost its value: it is asked about, not dropped.
    mapped = LogMapper("x", FieldMapping(**ALL)).map([logged("e", series=())])
    assert "no series" in mapped.batch.rejects[0].reason


def test_markers_of_missing_results() -> None:
    minus = replace(logged().series[0], values=(-1.0,) * 3)
    [row] = rows(FieldMapping(**ALL, missing=("-1",)), logged(series=(minus,)))
    assert (row["status"], row["value"]) == ("failed", None)
    assert json.loads(row["tags"])["missing"] == "-1"


def test_logs_of_different_forms_in_one_batch() -> None:
    other = logged("b", columns={"params": {"backbone": "resnet"}, "_folder": "b"})
    mapping = FieldMapping(
        map={"model_id": "{args.model}", "hyperparameters.net": "{params.backbone}"},
        set={"task_id": "birds", "metric": "acc", "direction": "max"},
    )
    mapper = LogMapper("x", mapping)
    first = mapper.map([logged("a")])
    assert first.batch.runs.num_rows == 1
    second = mapper.map([other, logged("c")])
    assert second.batch.runs.num_rows == 1
    assert second.missing == (("model_id",),)


@pytest.mark.parametrize(
    ("mapping", "wanted"),
    [
        ({"map": {"value": "{val_acc} or so"}}, "one series"),
        ({"map": {"vaule": "{val_acc}"}}, "value"),
        ({"map": {"model_id": "{_folder:zz}"}}, "format"),
        ({"where": "nothing = 1"}, "nothing"),
    ],
)
def test_invalid_mapping(mapping: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        LogMapper("x", FieldMapping(**mapping)).map([logged()])


def test_ids_of_runs() -> None:
    assert log_run_id("mlflow:0a1b2c") == "mlflow-0a1b2c"
    by_place = log_run_id("keras:/logs/a.csv")
    assert by_place.startswith("keras-")
    assert by_place == log_run_id("keras:/logs/a.csv") != log_run_id("keras:/logs/b.csv")
    # The framework's own id cannot leave its field.
    assert "/" not in log_run_id("wandb:../../x")
    [row] = rows(FieldMapping(**ALL | {"map": {**ALL["map"], "run_id": "{_run_id}/acc"}}), logged())
    assert row["run_id"] == f"{log_run_id('x:/logs/birds/a')}/acc"


def test_no_runs_at_all() -> None:
    mapped = LogMapper("x", FieldMapping(**ALL)).map([])
    assert mapped.batch.runs.num_rows == 0
    assert mapped.batch.rejects == ()
