import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.history import History
from recsys_ms.history.quarantine import Reject
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import read_table, replay_row
from recsys_ms.history.store.schema import RUN_SCHEMA

MAPPING = FieldMapping(
    map={"model_id": "{model}", "task_id": "{task}", "value": "{acc}"},
    set={"metric": "accuracy"},
)
#: Of a metric without a range.
SCORES = MAPPING.overridden(set={"metric": "my score", "direction": "max"})


def read(tmp_path, text, mapping=MAPPING, name="runs.csv", **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    reader = read_table(path, mapping, **options)
    batches = list(reader)
    runs = pa.concat_tables([batch.runs for batch in batches])
    assert runs.schema == RUN_SCHEMA
    rejects = [reject for batch in batches for reject in batch.rejects]
    n_left_out = sum(batch.n_left_out for batch in batches)
    assert [line for batch in batches for line in batch.lines].__len__() == runs.num_rows
    return runs.to_pylist(), rejects, n_left_out, reader.warnings


def test_a_plain_table(tmp_path):
    (run,), rejects, n_left_out, warnings = read(tmp_path, "model,task,acc\nm,t,0.5\n")
    assert (run["model_id"], run["task_id"], run["value"]) == ("m", "t", 0.5)
    assert (run["metric"], run["direction"], run["status"]) == ("accuracy", "max", "finished")
    assert run["source"] == "runs.csv"
    assert run["run_id"].startswith("r-")
    # What the table does not say stays unknown.
    assert run["value_kind"] is run["split"] is run["epoch"] is run["seed"] is None
    assert (rejects, n_left_out, warnings) == ([], 0, ())


def test_columns_with_names_of_fields_need_no_mapping(tmp_path):
    text = (
        "run_id,model_id,task_id,metric,direction,value,status,seed,epoch,hyperparameters,tags,"
        "started_at,cost_gpu_seconds\n"
        'a,m,t,loss,min,1.5,finished,7,2.5,"{""lr"": 0.1}","{""x"": ""y""}",'
        "2026-01-01T00:00:00+01:00,12\n"
        "b,m,t,loss,min,,failed,,,,,,\n"
    )
    (first, second), rejects, *_ = read(tmp_path, text, FieldMapping())
    assert not rejects
    assert first["hyperparameters"] == '{"lr":0.1}'
    assert first["tags"] == '{"x":"y"}'
    assert (first["seed"], first["epoch"], first["cost_gpu_seconds"]) == (7, 2.5, 12.0)
    assert first["started_at"] == pd.Timestamp("2025-12-31T23:00:00Z")
    assert (second["status"], second["value"], second["hyperparameters"]) == ("failed", None, "{}")


def test_hyperparameters_and_tags_are_put_together(tmp_path):
    mapping = MAPPING.overridden(
        map={
            "hyperparameters": "{configs}",
            "hyperparameters.batch_size": "{bs}",
            "hyperparameters.slice": "{slice}",
            "tags.bs": "{bs}",
        },
        set={"hyperparameters.optimizer": "sgd", "tags.who": "me"},
    )
    text = "model,task,acc,configs,bs,slice\nm,t,1,{'lr': 0.1},64,:800\nm,t,1,,,\n"
    runs, rejects, *_ = read(tmp_path, text, mapping)
    assert not rejects
    assert json.loads(runs[0]["hyperparameters"]) == {
        "lr": 0.1,
        "batch_size": 64,
        "slice": ":800",
        "optimizer": "sgd",
    }
    assert json.loads(runs[0]["tags"]) == {"bs": "64", "who": "me"}
    assert json.loads(runs[1]["hyperparameters"]) == {"optimizer": "sgd"}
    assert runs[0]["run_id"] != runs[1]["run_id"]


def test_constant_dicts(tmp_path):
    mapping = MAPPING.overridden(set={"hyperparameters": '{"lr": 1}', "tags": '{"a": 2}'})
    (run,), *_ = read(tmp_path, "model,task,acc\nm,t,1\n", mapping)
    assert (run["hyperparameters"], run["tags"]) == ('{"lr":1}', '{"a":"2"}')


def test_invalid_values_go_to_quarantine_with_line_reason_and_text(tmp_path):
    text = (
        "model,task,acc,note\r\n"
        "m,t,0.1,fine\r\n"
        'm,t,abc,"two\r\nlines"\r\n'
        "m,t,nan,x\r\n"
        "m,t,inf,x\r\n"
        ",t,0.5,x\r\n"
        "m,,0.5,x\r\n"
        "m,t,,x\r\n"
        "m,t,1_0,x\r\n"
        'm,t,"0,5",x\r\n'
        "m,t,0.9\r\n"
        "m,t,0.2,fine\r\n"
    )
    runs, rejects, *_ = read(tmp_path, text)
    assert [run["value"] for run in runs] == [0.1, 0.2]
    assert [reject.line for reject in rejects] == [3, 5, 6, 7, 8, 9, 10, 11, 12]
    reasons = [reject.reason for reject in rejects]
    assert reasons[0] == "value: got 'abc', expected a number"
    assert "nan" in reasons[1]
    assert "inf" in reasons[2]
    assert "model_id" in reasons[3]
    assert "task_id" in reasons[4]
    assert "value: missing" in reasons[5]
    assert "fields" in reasons[8]
    assert rejects[0].raw == 'm,t,abc,"two\r\nlines"'
    assert rejects[0].file == str((tmp_path / "runs.csv").resolve())
    assert {reject.reader for reject in rejects} == {"table"}


def test_other_invalid_fields(tmp_path):
    text = (
        "model,task,acc,direction,seed,started_at,status,configs\n"
        "m,t,1,up,1,,finished,\n"
        "m,t,1,max,1.5,,finished,\n"
        "m,t,1,max,1,2026-01-01,finished,\n"
        "m,t,1,max,1,,COMPLETED,\n"
        "m,t,1,max,1,,finished,not a dict\n"
        'm,t,1,max,"1,000",,finished,\n'
    )
    mapping = FieldMapping(
        map={**MAPPING.map, "hyperparameters": "{configs}"}, set={"metric": "accuracy"}
    )
    runs, rejects, *_ = read(tmp_path, text, mapping)
    assert [run["seed"] for run in runs] == [1000]
    for reject, name in zip(
        rejects, ["direction", "seed", "started_at", "status", "hyperparameters"], strict=True
    ):
        assert reject.reason.startswith(name)


def test_percent_is_divided_and_values_outside_are_refused(tmp_path):
    text = "model,task,acc\nm,a,91.3\nm,b,100\nm,c,0\nm,d,101\nm,e,-1\n"
    runs, rejects, _, warnings = read(tmp_path, text, MAPPING.overridden(unit="percent"))
    assert [run["value"] for run in runs] == [91.3 / 100, 1.0, 0.0]
    assert [reject.line for reject in rejects] == [5, 6]
    assert "accuracy 101.0 % is outside [0 %, 100 %]" in rejects[0].reason
    assert not warnings


def test_percent_given_as_fraction_names_the_way_out(tmp_path):
    text = "model,task,acc\nm,a,0.9\nm,b,91.3\nm,c,-0.5\n"
    runs, rejects, *_ = read(tmp_path, text, MAPPING.overridden(unit="fraction"))
    assert [run["value"] for run in runs] == [0.9]
    assert "--unit percent" in rejects[0].reason
    assert "--unit percent" not in rejects[1].reason


def test_fraction_given_as_percent_is_a_warning(tmp_path, caplog):
    *_, warnings = read(tmp_path, "model,task,acc\nm,a,0.9\n", MAPPING.overridden(unit="percent"))
    assert "--unit fraction" in warnings[0]
    assert "--unit fraction" in caplog.text


def test_without_a_unit_values_stay_as_they_are(tmp_path):
    text = 'model,task,acc\nm,a,-385.2\nm,b,"1,013.01"\n'
    assert [run["value"] for run in read(tmp_path, text, SCORES)[0]] == [-385.2, 1013.01]


def test_missing_markers_make_failed_runs(tmp_path):
    text = "model,task,acc\nm,a,-1\nm,b,-1.0\nm,c,n/a\nm,d,\nm,e,50\n"
    mapping = MAPPING.overridden(unit="percent", missing=("-1", "n/a", ""))
    runs, rejects, *_ = read(tmp_path, text, mapping)
    assert not rejects
    assert [run["status"] for run in runs] == ["failed"] * 4 + ["finished"]
    assert [run["value"] for run in runs] == [None] * 4 + [0.5]
    assert [json.loads(run["tags"]) for run in runs] == [
        {"missing": "-1"},
        {"missing": "-1"},
        {"missing": "n/a"},
        {"missing": ""},
        {},
    ]


def test_where_leaves_rows_out_and_counts_them_but_hides_no_bad_row(tmp_path):
    text = "model,task,acc\nm,a,1\nm,b,-1\nm,c,abc\nm,d,3\n"
    runs, rejects, n_left_out, _ = read(tmp_path, text, SCORES.overridden(where="acc <> -1"))
    assert [run["task_id"] for run in runs] == ["a", "d"]
    assert n_left_out == 1
    assert [reject.line for reject in rejects] == [4]


def test_pseudo_columns(tmp_path):
    mapping = MAPPING.overridden(
        map={"task_id": "{_stem}", "tags.line": "{_line}", "tags.file": "{_file}"},
        columns={"twice": "_line * 2"},
    )
    (run,), *_ = read(tmp_path, "model,task,acc\nm,a,1\n", mapping, name="results-a.csv")
    assert run["task_id"] == "results-a"
    assert json.loads(run["tags"]) == {"file": "results-a.csv", "line": "2"}


def test_a_second_reading_names_the_same_runs(tmp_path):
    text = "model,task,acc\nm,a,1\nm,b,2\n"
    first = read(tmp_path, text)[0]
    (tmp_path / "other").mkdir()
    assert read(tmp_path / "other", text)[0] == first, "the folder is not part of a run's identity"
    renamed = read(tmp_path, text, name="another.csv")[0]
    assert {run["run_id"] for run in renamed}.isdisjoint(run["run_id"] for run in first)


def test_batches_do_not_change_what_is_read(tmp_path):
    text = "model,task,acc\n" + "".join(f"m{i},t,{i if i % 7 else 'x'}\n" for i in range(100))
    whole = read(tmp_path, text, SCORES)
    assert read(tmp_path, text, SCORES, batch_rows=9)[:2] == whole[:2]
    assert len(whole[1]) == 15


def test_json_keeps_types_apart(tmp_path):
    rows = [
        {"model": "m", "task": "t", "acc": 0.5, "lr": 1},
        {"model": "m", "task": "t", "acc": 0.5, "lr": 1.0},
        {"model": "m", "task": "t", "acc": 0.5, "lr": True},
        {"model": "m", "task": "t", "acc": True, "lr": 2},
        {"model": 5, "task": "t", "acc": "0.5", "lr": [1, 2]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    mapping = MAPPING.overridden(map={"hyperparameters.lr": "{lr}"})
    runs, rejects, *_ = read(tmp_path, text, mapping, name="runs.jsonl")
    assert [run["hyperparameters"] for run in runs] == [
        '{"lr":1}',
        '{"lr":1.0}',
        '{"lr":true}',
        '{"lr":[1,2]}',
    ]
    assert runs[3]["model_id"] == "5"
    assert [reject.line for reject in rejects] == [4]


def test_parquet_times_and_rejects(tmp_path):
    frame = pd.DataFrame(
        {
            "model": ["m", "m"],
            "task": ["t", None],
            "acc": [0.5, 0.6],
            "started_at": pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True),
        }
    )
    path = tmp_path / "runs.parquet"
    pq.write_table(pa.Table.from_pandas(frame), path)
    (batch,) = read_table(path, MAPPING)
    assert batch.runs["started_at"].to_pylist() == [pd.Timestamp("2026-01-01", tz="UTC")]
    (reject,) = batch.rejects
    assert reject.line == 2
    assert json.loads(reject.raw)["acc"] == 0.6
    again = replay_row(reject, MAPPING.overridden(set={"task_id": "t"}))
    assert again.runs["value"].to_pylist() == [0.6]


@pytest.mark.parametrize(
    ("mapping", "match"),
    [
        (FieldMapping(), r"--map model_id='\{COLUMN\}' or --set model_id=TEXT"),
        (FieldMapping(map=MAPPING.map), "metric, which every run needs"),
        (MAPPING.overridden(set={"metric": "my score"}), "give --set direction=max or"),
        (MAPPING.overridden(set={"direction": "min"}), "'accuracy' higher is better"),
        (MAPPING.overridden(map={"task_id": "{Task}"}), r"did you mean \{task\}"),
        (MAPPING.overridden(map={"nosuch": "{task}"}), "unknown field 'nosuch'"),
        (MAPPING.overridden(where="accc > 1"), "accc"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_before_rows_are_read(tmp_path, mapping, match):
    with pytest.raises(UsageError, match=match):
        read(tmp_path, "model,task,acc\nm,t,1\n", mapping)


def test_value_is_needed_unless_the_runs_did_not_finish(tmp_path):
    mapping = FieldMapping(map={"model_id": "{model}", "task_id": "{task}"}, set=MAPPING.set)
    with pytest.raises(UsageError, match=r"--map value='\{COLUMN\}'\. Columns"):
        read(tmp_path, "model,task\nm,t\n", mapping)
    (run,), *_ = read(tmp_path, "model,task\nm,t\n", mapping.overridden(set={"status": "failed"}))
    assert run["status"] == "failed"


def test_a_template_that_is_always_empty_is_a_warning(tmp_path):
    mapping = MAPPING.overridden(map={"hyperparameters.lr": "{configs.lrr}"})
    *_, warnings = read(tmp_path, "model,task,acc,configs\nm,t,1,{'lr': 1}\n", mapping)
    assert warnings == (
        "hyperparameters.lr was empty in every row; check its template '{configs.lrr}'",
    )


def test_replay_with_and_without_a_better_mapping(tmp_path):
    text = 'model,task,acc\nm,t,"9,1"\nm,t,91\n'
    _, rejects, *_ = read(tmp_path, text, MAPPING.overridden(unit="fraction"))
    assert [reject.line for reject in rejects] == [2, 3]
    still = replay_row(rejects[1])
    assert still.runs.num_rows == 0
    assert still.rejects[0].id == rejects[1].id
    better = replay_row(rejects[1], MAPPING.overridden(unit="percent"))
    assert better.runs["value"].to_pylist() == [0.91]
    assert better.lines == (3,)
    assert better.rejects == ()
    # The file is not needed, and its name still is part of the run's identity.
    (tmp_path / "runs.csv").unlink()
    assert replay_row(rejects[1], MAPPING.overridden(unit="percent")).runs == better.runs
    left_out = replay_row(rejects[1], MAPPING.overridden(where="acc < 50"))
    assert (left_out.runs.num_rows, left_out.rejects, left_out.n_left_out) == (0, (), 1)


def test_a_row_that_was_not_kept_whole_is_never_replayed_into_a_run(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes(b"model,task,acc\ncaf\xe9,t,0.5\n")
    (batch,) = read_table(path, MAPPING)
    assert batch.runs.num_rows == 0
    again = replay_row(batch.rejects[0])
    assert again.runs.num_rows == 0
    assert again.rejects == batch.rejects
    corrected = replay_row(replace(batch.rejects[0], raw="café,t,0.5"))
    assert corrected.runs["model_id"].to_pylist() == ["café"]


def test_quarantined_rows_are_replayed_by_a_history(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("model,task,acc,n\nm,a,91,1\nm,b,0.5,2\nm,c,abc,3\nm,d,n/a,1\nm,e,0.1,20\n")
    history = History.open(tmp_path / "H")
    mapping = MAPPING.overridden(unit="fraction", columns={"m": "n * 2"}, where="n < 9")
    first = history.ingest(read_table(path, mapping))
    assert (first.n_new, first.n_quarantined, first.n_left_out) == (1, 3, 1)
    assert history.ingest(read_table(path, mapping)).n_new == 0
    assert len(history.quarantine.table()) == 3, "a row is quarantined once"
    replayed = history.replay(partial(replay_row, mapping=mapping.overridden(missing=("n/a",))))
    assert (replayed.n_new, replayed.n_failed_runs) == (1, 1)
    # Predicates still know that acc is a number, though the row at hand holds none.
    laid = MAPPING.overridden(unit="percent", where="acc > 2")
    assert history.replay(partial(replay_row, mapping=laid)).n_new == 1
    (last,) = history.quarantine.pending()
    assert last.line == 4
    assert history.replay(replay_row, edited={last.id: "m,c,0.7,3"}).n_new == 1
    assert sorted(history.runs().value.dropna()) == [0.5, 0.7, 0.91]


def test_replay_refuses_other_rejects():
    for options in ("{}", "[", "[]"):
        reject = Reject(file="f", line=1, reason="r", raw="x", reader="table", options=options)
        with pytest.raises(DataError, match="does not say how it was read"):
            replay_row(reject)
