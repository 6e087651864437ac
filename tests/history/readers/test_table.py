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
from recsys_ms.history.readers.wide import Wide
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
        "n,t,0.2,fine\r\n"
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
        map={**MAPPING.map, "hyperparameters": "{configs}"},
        set={"metric": "accuracy"},
        decimal=".",
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
    text, mapping = "model,task,acc\nm,a,0.9\n", MAPPING.overridden(unit="percent")
    *_, warnings = read(tmp_path, text, mapping)
    assert "--unit fraction" in warnings[0]
    (tmp_path / "p.csv").write_text(text)
    History.open(tmp_path / "h").ingest(read_table(tmp_path / "p.csv", mapping=mapping))
    assert "p.csv: the unit is percent" in caplog.text


def test_without_a_unit_values_stay_as_they_are(tmp_path):
    text = "model,task,acc\nm,a,-385.2\nm,b,1013.01\n"
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
        (
            MAPPING.overridden(set={"direction": "min"}),
            "min contradicts what is known: of 'accuracy' higher values are better",
        ),
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
    text = "model,task,acc\nm,t,9-1\nm,t,91\n"
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


COMMAS = "model;task;acc;epoch;lr\na;t;0,913;1;0,1\nb;t;0,871;2;0,01\nc;t;1,000;3;1e-3\n"


def test_a_decimal_comma_is_asked_for_once_and_then_read_everywhere(tmp_path):
    mapping = MAPPING.overridden(map={"hyperparameters.lr": "{lr}", "tags.r": "{acc:.2f}"})
    with pytest.raises(UsageError, match=r"line 2: value: .* decimal comma \(--decimal ,\)"):
        read(tmp_path, COMMAS, mapping, delimiter=";")
    told = mapping.overridden(decimal=",", columns={"twice": "acc * 2"}, where="twice > 1.8")
    runs, rejects, n_left_out, _ = read(tmp_path, COMMAS, told, delimiter=";")
    assert [run["value"] for run in runs] == [0.913, 1.0]
    assert [json.loads(run["hyperparameters"])["lr"] for run in runs] == [0.1, 0.001]
    assert [json.loads(run["tags"])["r"] for run in runs] == ["0.91", "1.00"]
    assert (rejects, n_left_out) == ([], 1)


def test_what_a_format_made_has_a_point_whatever_the_table_has(tmp_path):
    fields = {"value": "{acc:.3f}", "epoch": "{epoch:.1f}", "hyperparameters.x": "{x:.3f}"}
    mapping = SCORES.overridden(decimal=",", map=fields)
    text = "model;task;acc;epoch;x\nm;t;1,1049;2,25;1,1051\n"
    (run,), rejects, *_ = read(tmp_path, text, mapping, delimiter=";")
    assert not rejects
    assert (run["value"], run["epoch"], run["hyperparameters"]) == (1.105, 2.2, '{"x":1.105}')


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        (["1,105", "2,310"], "1105 with a decimal point .*1.105 with a decimal comma"),
        # These would be read as 1.105 and 2.31 if the last cell did not show what they are.
        (["1.105", "2.310", "987,5"], "987.5 with a decimal comma"),
        (["1 013", "2"], "1013 with a decimal point"),
        (["91.3%", "88%"], "--unit percent"),
        (["91.3 \u00b1 0.4", "88 (0.2)"], "--ignore-spread"),
    ],
)
@pytest.mark.parametrize("name", ["runs.tsv", "runs.jsonl"])
def test_a_column_that_nothing_explains_is_a_question(tmp_path, cells, match, name):
    rows = [{"model": f"m{i}", "task": "t", "acc": cell} for i, cell in enumerate(cells)]
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    text = "\n".join(lines if name == "runs.tsv" else map(json.dumps, rows)) + "\n"
    with pytest.raises(UsageError, match=match) as error:
        read(tmp_path, text, name=name)
    assert "Nothing was taken" in str(error.value)


def test_an_odd_cell_of_a_column_that_is_clear_waits_in_quarantine(tmp_path):
    text = "model;task;acc\na;t;0.9\nb;t;0,8\nc;t;91.3%\nd;t;0.9 (0.1)\n"
    (run,), rejects, *_ = read(tmp_path, text, delimiter=";")
    assert run["value"] == 0.9
    for reject, option in zip(
        rejects, ["--decimal ,", "--unit percent", "--ignore-spread"], strict=True
    ):
        assert option in reject.reason
    again = replay_row(rejects[0], MAPPING.overridden(decimal=","))
    assert again.runs["value"].to_pylist() == [0.8]
    again = replay_row(rejects[2], MAPPING.overridden(ignore_spread=True))
    assert again.runs["value"].to_pylist() == [0.9]
    # A row that is read again by itself waits: it stops nothing.
    assert replay_row(rejects[0]).rejects[0].reason == rejects[0].reason


def test_a_marker_of_no_result_explains_no_sign(tmp_path):
    for cells, option in ((("91.3%", "n/a"), "--unit percent"), (("0,9", "-1.0"), "--decimal ,")):
        text = "model;task;acc\n" + "".join(f"m;t{i};{cell}\n" for i, cell in enumerate(cells))
        with pytest.raises(UsageError, match=option):
            read(tmp_path, text, MAPPING.overridden(missing=("n/a", "-1")), delimiter=";")


def test_batches_before_a_sign_are_not_taken_either(tmp_path):
    text = "model;task;acc\n" + "m;t;1.105\n" * 5 + "m;t;987,5\n"
    with pytest.raises(UsageError, match="line 7"):
        read(tmp_path, text, delimiter=";", batch_rows=2)


def test_percent_signs_and_spreads_of_values_only(tmp_path):
    text = "model,task,acc,epoch,drop\na,t,91.3% \u00b1 0.4%,3,10%\nb,t,88,50%,3 (2)\n"
    mapping = MAPPING.overridden(
        unit="percent", ignore_spread=True, map={"hyperparameters.drop": "{drop}"}
    )
    (run,), (reject,), *_ = read(tmp_path, text, mapping)
    assert (run["value"], run["hyperparameters"]) == (91.3 / 100, '{"drop":"10%"}')
    assert reject.reason == "epoch: got '50%', which carries a percent sign, expected a number"
    fraction = MAPPING.overridden(unit="fraction")
    _, (first, _), *_ = read(tmp_path, "model,task,acc\na,t,91.3%\nb,t,9\n", fraction)
    assert "--unit fraction says" in first.reason


@pytest.mark.parametrize("name", ["runs.csv", "runs.jsonl", "runs.parquet"])
def test_two_columns_of_one_name_are_told_apart(tmp_path, name):
    names = ["model", "task", "acc", "acc"]
    path = tmp_path / name
    if name == "runs.parquet":
        cells = [["m"], ["t"], [0.9], [0.5]]
        pq.write_table(pa.Table.from_arrays([pa.array(each) for each in cells], names), path)
    elif name == "runs.csv":
        path.write_text("model,task,acc,acc\nm,t,0.9,0.5\n")
    else:
        path.write_text('{"model": "m", "task": "t", "acc": 0.9, "acc": 0.5}\n')
        with pytest.raises(DataError, match="'acc' stands twice"):
            read_table(path, MAPPING)
        return
    with pytest.raises(UsageError, match=r"2 columns are named 'acc'.*\{acc_0\} or \{acc_1\}"):
        read_table(path, MAPPING)
    (batch,) = read_table(path, MAPPING.overridden(map={"value": "{acc_1}"}))
    assert batch.runs["value"].to_pylist() == [0.5]


def test_a_field_that_two_columns_are_named_after_is_asked_for(tmp_path):
    text = "model_id,task_id,metric,direction,value,value\nm,t,accuracy,max,0.9,0.5\n"
    with pytest.raises(UsageError, match="2 columns are named 'value'"):
        read(tmp_path, text, FieldMapping())


@pytest.mark.parametrize(
    ("constant", "match"),
    [
        ({"direction": "maximum"}, "--set direction=maximum: .*'max' or 'min'"),
        ({"seed": "x"}, "--set seed=x"),
        ({"seed": "1.5"}, "whole number"),
        ({"status": "done"}, "'finished' or 'failed' or 'running'"),
        ({"value_kind": "first"}, "value_kind"),
        ({"epoch": "1,5"}, "--decimal ,"),
        ({"cost_gpu_seconds": "-1"}, "expected 0 or more"),
        ({"started_at": "yesterday"}, "ISO 8601"),
        ({"started_at": "2026-01-01T00:00:00"}, "time zone"),
        ({"hyperparameters": "lr=1"}, "hyperparameters"),
        ({"model_id": " "}, "missing"),
        ({"metric": ""}, "missing"),
        ({"value": "nan"}, "finite"),
    ],
)
def test_a_constant_that_no_run_can_have_is_refused_before_reading(tmp_path, constant, match):
    path = tmp_path / "runs.csv"
    path.write_text("model,task,acc\nm,t,0.5\n")
    with pytest.raises(UsageError, match=match):
        read_table(path, MAPPING.overridden(set=constant))


def test_columns_that_nothing_used(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("model,task,acc,modle_id,seeed,lr,Best Epoch\nm,t,0.5,,,,\n")
    mapping = MAPPING.overridden(map={"tags.x": "{lr:.3f}"}, where='"Best Epoch" IS NULL')
    assert read_table(path, mapping).unused_columns == ("modle_id", "seeed")


WIDE = "model,birds,cars,note\nr50,0.9,0.8,x\nvit,,n/a,y\n"


def test_a_wide_table_of_tasks(tmp_path):
    mapping = FieldMapping(set=MAPPING.set, map={"tags.note": "{note}"})
    wide = Wide(columns="tasks", row_columns=("note",))
    runs, (reject,), *_ = read(tmp_path, WIDE, mapping, wide=wide)
    assert [(run["model_id"], run["task_id"], run["value"]) for run in runs] == [
        ("r50", "birds", 0.9),
        ("r50", "cars", 0.8),
    ]
    assert json.loads(runs[0]["tags"]) == {"note": "x"}
    assert (reject.line, reject.reason) == (
        3,
        "column 'cars': value: got 'n/a', expected a number",
    )
    again = replay_row(reject, mapping.overridden(missing=("n/a",)))
    assert again.runs["status"].to_pylist() == ["failed"]
    corrected = replay_row(replace(reject, raw=reject.raw.replace("n/a", "0.7")))
    assert corrected.runs["value"].to_pylist() == [0.7]
    assert corrected.runs["task_id"].to_pylist() == ["cars"]


def test_blank_and_marked_cells_of_a_wide_table(tmp_path):
    mapping = FieldMapping(set=MAPPING.set, missing=("", "n/a"), where="task_id <> 'note'")
    runs, rejects, n_left_out, _ = read(tmp_path, WIDE, mapping, wide=Wide(columns="tasks"))
    assert [run["status"] for run in runs] == ["finished", "finished", "failed", "failed"]
    assert (rejects, n_left_out) == ([], 2)


def test_a_wide_table_of_models_in_other_formats(tmp_path):
    wide = Wide(columns="models")
    mapping = FieldMapping(set=MAPPING.set)
    wanted = [("r50", "birds", 0.9), ("vit", "birds", 0.8), ("r50", "cars", 0.7)]
    path = tmp_path / "runs.parquet"
    frame = pd.DataFrame({"task": ["birds", "cars"], "r50": [0.9, 0.7], "vit": [0.8, None]})
    pq.write_table(pa.Table.from_pandas(frame), path)
    document = tmp_path / "runs.json"
    document.write_text('{"all": {"birds": {"r50": 0.9, "vit": 0.8}, "cars": {"r50": 0.7}}}')
    for place, options in ((path, {}), (document, {"records": "all"})):
        (batch,) = read_table(place, mapping, wide=wide, **options)
        rows = batch.runs.select(["model_id", "task_id", "value"]).to_pylist()
        assert [tuple(row.values()) for row in rows] == wanted


def test_a_wide_table_comes_in_batches_of_runs(tmp_path):
    path = tmp_path / "wide.csv"
    head = ",".join(f"t{i}" for i in range(10))
    path.write_text(f"m,{head}\n" + "".join(f"m{i}{',0.5' * 10}\n" for i in range(7)))
    reader = read_table(
        path, FieldMapping(set=MAPPING.set), wide=Wide(columns="tasks"), batch_rows=20
    )
    assert [batch.runs.num_rows for batch in reader] == [20, 20, 20, 10]


def test_a_damaged_row_of_a_wide_table_is_not_replayed(tmp_path):
    mapping = FieldMapping(set=MAPPING.set)
    _, (reject,), *_ = read(tmp_path, "m,a,b\nx,1\n", mapping, wide=Wide(columns="tasks"))
    assert replay_row(reject).rejects == (reject,)


@pytest.mark.parametrize(
    ("text", "wide", "match"),
    [
        ("m,a,a\nx,1,2\n", Wide(columns="tasks"), "2 columns are named 'a'"),
        ("m\nx\n", Wide(columns="tasks"), "no column of tasks"),
        ("m,a\nx,1\n", Wide(columns="tasks", row_columns=("b",)), "--row-column b"),
        ("m,a,value\nx,1,2\n", Wide(columns="tasks", row_columns=("value",)), "rename it"),
    ],
)
def test_what_is_no_wide_table(tmp_path, text, wide, match):
    with pytest.raises(UsageError, match=match):
        read(tmp_path, text, FieldMapping(set=MAPPING.set), wide=wide)
    with pytest.raises(UsageError, match="expected 'tasks' or 'models'"):
        Wide(columns="rows")


@pytest.mark.parametrize(
    ("document", "records"),
    [
        ([{"model": "m", "task": "t", "r": {"acc": 0.5}}], None),
        ({"results": {"items": [{"model": "m", "task": "t", "r": {"acc": 0.5}}]}}, "results.items"),
        ({"m": {"task": "t", "r": {"acc": 0.5}}}, None),
        ([[], {"x": {"m": {"task": "t", "r": {"acc": 0.5}}}}], "1.x"),
        ({"model": "m", "task": "t", "r": {"acc": 0.5}}, None),
    ],
)
def test_records_inside_a_json_document(tmp_path, document, records):
    text = json.dumps(document)
    model = "{model}" if '"model"' in text else "{_key}"
    mapping = MAPPING.overridden(map={"model_id": model, "value": "{r.acc}"})
    (run,), rejects, *_ = read(tmp_path, text, mapping, name="runs.json", records=records)
    assert (run["model_id"], run["task_id"], run["value"]) == ("m", "t", 0.5)
    assert not rejects


def test_records_that_are_none_wait_in_quarantine(tmp_path):
    text = '[{"model": "m", "task": "t", "acc": 0.5}, 3, {"model": "m", "task": "u", "acc": "x"}]'
    (run,), rejects, *_ = read(tmp_path, text, name="runs.json")
    assert [(each.line, each.raw) for each in rejects] == [
        (2, "3"),
        (3, '{"model": "m", "task": "u", "acc": "x"}'),
    ]
    corrected = replay_row(replace(rejects[1], raw=rejects[1].raw.replace('"x"', "0.7")))
    assert corrected.runs["value"].to_pylist() == [0.7]
    assert run["value"] == 0.5


@pytest.mark.parametrize(
    ("text", "records", "match"),
    [
        ("{", None, "not whole JSON"),
        ("3", None, "expected a list or an object of records"),
        ('{"a": [1]}', "b", "no 'b' in"),
        ('{"a": [1]}', "a.3", "no '3' in list"),
        ("[]", None, "the file is empty"),
        ("[1]", None, "no row is a JSON object"),
        ("[" * 500 + "]" * 500, None, "inside each other"),
    ],
)
def test_what_is_no_json_document_of_records(tmp_path, text, records, match):
    with pytest.raises(DataError, match=match):
        read(tmp_path, text, name="runs.json", records=records)


def test_records_are_for_json_documents(tmp_path):
    with pytest.raises(UsageError, match="--records is for JSON documents"):
        read(tmp_path, "a\n1\n", records="x", table_format="csv")


def test_fractions_among_percentages_are_told_of(tmp_path):
    text = "model,task,acc\na,t,91\nb,t,92\nc,t,0.93\nd,t,0\n"
    runs, _, _, warnings = read(tmp_path, text, MAPPING.overridden(unit="percent"))
    assert len(runs) == 4
    assert warnings[0].startswith("the unit is percent, 1 of the values are not above 1 and all")
    text += "e,t,1.2\n"
    assert read(tmp_path, text, MAPPING.overridden(unit="percent"))[3] == ()
