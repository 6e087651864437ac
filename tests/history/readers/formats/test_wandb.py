"""Files of Weights & Biases, made as its guides say: exports by pandas, histories by Arrow."""

import json
import math
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from history.readers.frameworks import reading
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.history.readers.formats.optuna import Optuna
from recsys_ms.history.readers.formats.plain_values import parse_cell
from recsys_ms.history.readers.formats.wandb import Wandb
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LoggedRun
from recsys_ms.history.readers.logs import LogReader
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = Wandb()
FUZZ = reading.fuzz(80)
items_of = partial(reading.claimed_items, FORMAT)
runs_of = partial(reading.claimed_runs, FORMAT)
#: Items of a damaged file; the error that ends it is the last one.
tolerant = partial(reading.items_of, FORMAT)
SUMMARIES = [
    {
        "val/acc": 0.91,
        "val/loss": float("nan"),
        "train_loss": float("inf"),
        "acc": {"max": 0.93, "min": 0.1},
        "best": True,
        "note": 'it\'s "fine"',
        "hist": {"_type": "histogram", "values": [1, 2], "bins": [0, 1, 2]},
        "epoch": 3,
        "_step": 41,
        "_runtime": 12.5,
        "_timestamp": 1700000000.25,
        "_wandb": {"runtime": 12},
    },
    {"val/acc": 0.5, "_timestamp": 1700000100.0, "odd": "NaN"},
]
CONFIGS = [
    {"lr": 1e-3, "model": "resnet18", "layers": [1, 2], "_wandb": {"x": 1}, "seed": 7},
    {"lr": {"value": 0.01, "desc": None}, "model": {"value": "vit", "desc": "which"}},
]


def api_export(path, **more):
    """As the guide of the public API exports runs."""
    summary_list, config_list, name_list = [], [], []
    for summary, config, name in zip(SUMMARIES, CONFIGS, ("calm-sky-1", "wild-sea-2"), strict=True):
        summary_list.append(summary)
        config_list.append({k: v for k, v in config.items() if not k.startswith("_")})
        name_list.append(name)
    frame = pd.DataFrame({"summary": summary_list, "config": config_list, "name": name_list})
    for name, cells in more.items():
        frame[name] = cells
    frame.to_csv(path)
    return path


def values_of(run):
    return {each.name: list(each.values) for each in run.series}


class TestApiExport:
    def test_summary_is_the_series_and_config_the_hyperparameters(self, tmp_path):
        first, second = runs_of(api_export(tmp_path / "project.csv"))
        assert values_of(first).keys() == {
            "val/acc",
            "val/loss",
            "train_loss",
            "acc.max",
            "acc.min",
        }
        assert values_of(first)["val/acc"] == [0.91]
        assert values_of(first)["acc.max"] == [0.93]
        assert math.isnan(values_of(first)["val/loss"][0])
        assert values_of(first)["train_loss"] == [math.inf]
        assert math.isnan(values_of(second)["odd"][0])
        assert {(each.split, each.metric) for each in first.series} == {
            ("val", "acc"),
            ("val", "loss"),
            ("train", "loss"),
            (None, "acc.max"),
            (None, "acc.min"),
        }
        assert first.fields["hyperparameters"] == {
            "lr": 1e-3,
            "model": "resnet18",
            "layers": [1, 2],
            "seed": 7,
        }
        assert first.fields["seed"] == 7
        assert second.fields["hyperparameters"] == {"lr": 0.01, "model": "vit"}
        assert first.columns["name"] == "calm-sky-1"
        assert first.columns["summary"]["note"] == 'it\'s "fine"'
        assert (first.chosen, first.directions) == (None, {})

    def test_without_a_state_nothing_is_said_of_it(self, tmp_path):
        for run in runs_of(api_export(tmp_path / "project.csv")):
            assert not {"status", "finished_at", "started_at"} & run.fields.keys()

    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("finished", "finished"),
            ("crashed", "failed"),
            ("failed", "failed"),
            ("killed", "failed"),
            ("running", "running"),
            ("pending", "running"),
        ],
    )
    def test_state_id_and_time_are_taken_where_they_are_exported(self, tmp_path, state, status):
        first, _ = runs_of(
            api_export(
                tmp_path / "project.csv",
                id=["1a2b3c4d", "5e6f7g8h"],
                state=[state, "finished"],
                created_at=["2025-11-13T09:48:11Z", "2025-11-13T09:48:11"],
            )
        )
        assert first.identity == "wandb:1a2b3c4d"
        assert first.fields["status"] == status
        assert first.fields["started_at"] == datetime(2025, 11, 13, 9, 48, 11, tzinfo=UTC)
        assert first.fields.get("tags") == ({"reason": state} if status == "failed" else None)

    def test_a_time_without_a_zone_is_not_guessed(self, tmp_path):
        path = api_export(tmp_path / "p.csv", created_at=["2025-11-13T09:48:11"] * 2)
        assert all("started_at" not in run.fields for run in runs_of(path))

    def test_columns_called_like_fields_do_not_become_them(self, tmp_path):
        path = api_export(
            tmp_path / "p.csv", tags=["['a']", "[]"], epoch=[1, 2], metric=["x", "y"], group="g"
        )
        run = runs_of(path)[0]
        assert run.columns["export"] == {"tags": ["a"], "epoch": 1, "metric": "x"}
        assert run.columns["group"] == "g"

    def test_identity_does_not_depend_on_the_order_of_the_rows(self, tmp_path):
        path = api_export(tmp_path / "p.csv")
        before = {run.columns["name"]: run.identity for run in runs_of(path)}
        rows = path.read_text().splitlines()
        path.write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
        assert {run.columns["name"]: run.identity for run in runs_of(path)} == before
        assert len(set(before.values())) == 2

    def test_runs_of_one_name_and_config_stay_two_runs(self, tmp_path):
        frame = pd.DataFrame({"summary": [{"a": 1}, {"a": 2}], "config": [{}, {}], "name": "same"})
        frame.to_csv(tmp_path / "p.csv")
        assert len({run.identity for run in runs_of(tmp_path / "p.csv")}) == 2

    def test_a_grown_run_comes_further_and_its_end_too(self, tmp_path):
        ids = {"id": ["1a2b3c4d", "5e6f7g8h"]}
        path = tmp_path / "p.csv"
        running, _ = runs_of(api_export(path, **ids, state="running"))
        ended, _ = runs_of(api_export(path, **ids, state="finished"))
        path.write_text(path.read_text().replace("1700000000.25", "1700000001.25"))
        later, _ = runs_of(path)
        assert running.identity == ended.identity == later.identity
        assert running.progress < ended.progress < later.progress

    def test_the_same_as_parquet(self, tmp_path):
        frame = pd.DataFrame(
            {"summary": [{"a": 0.5, "b": 1.0}, {"a": 0.25}], "config": [{"lr": 1}] * 2}
        )
        frame["name"] = ["x", "y"]
        frame.to_parquet(tmp_path / "runs.parquet")
        first, second = runs_of(tmp_path / "runs.parquet")
        assert values_of(first) == {"a": [0.5], "b": [1.0]}
        assert values_of(second) == {"a": [0.25]}
        assert second.fields["hyperparameters"] == {"lr": 1}

    def test_json_cells_are_read_too(self, tmp_path):
        frame = pd.DataFrame({"summary": ['{"a": NaN}'], "config": ['{"b": null}'], "name": ["x"]})
        frame.to_csv(tmp_path / "p.csv", index=False)
        (run,) = runs_of(tmp_path / "p.csv")
        assert math.isnan(values_of(run)["a"][0])
        assert run.fields["hyperparameters"] == {"b": None}

    def test_bad_rows_are_kept_with_their_header_and_replayed(self, tmp_path):
        path = api_export(tmp_path.resolve() / "p.csv", state=["finished", "finished"])
        lines = path.read_text().splitlines()
        more = [
            "2,\"{'a': f()}\",{},evil,finished",
            "3,\"{'a': 1\",{},cut,finished",
            "4,{},[1],list,finished",
            "5,\"{'a': 1}\",{},odd,exploded",
            "6,{}",
            "7,{'a': __import__('os')},{},evil,finished",
        ]
        path.write_text("\n".join([*lines, *more]) + "\n")
        items = items_of(path)
        assert len([item for item in items if isinstance(item, LoggedRun)]) == 2
        bad = [item for item in items if isinstance(item, BadLog)]
        assert [item.raw.splitlines()[1] for item in bad] == more
        assert [item.line for item in bad] == [4, 5, 6, 7, 8, 9]
        fixed = bad[3].raw.replace("exploded", "finished")
        (run,) = FORMAT.read(path, LogFiles({path: fixed}))
        assert (run.columns["name"], values_of(run)) == ("odd", {"a": [1.0]})

    def test_an_id_that_stands_twice_is_bad(self, tmp_path):
        items = items_of(api_export(tmp_path / "p.csv", id=["1a2b3c4d", "1a2b3c4d"]))
        assert [type(item) for item in items] == [LoggedRun, BadLog]

    def test_runs_of_the_history_come_of_it(self, tmp_path):
        api_export(tmp_path / "p.csv", id=["1a2b3c4d", "5e6f7g8h"], state="finished")
        mapping = FieldMapping(
            map={"model_id": "{config.model}"},
            set={"task_id": "pets", "metric": "acc", "direction": "max"},
        )
        batches = list(LogReader(find_logs(tmp_path, "wandb"), mapping, tmp_path))
        rows = {row["run_id"]: row for batch in batches for row in batch.runs.to_pylist()}
        assert rows["wandb-1a2b3c4d"]["value"] == 0.91
        assert rows["wandb-1a2b3c4d"]["split"] == "val"
        assert rows["wandb-5e6f7g8h"]["model_id"] == "vit"

    def test_runs_survive_being_kept_as_text(self, tmp_path):
        for run in runs_of(api_export(tmp_path / "p.csv", created_at="2025-11-13T09:48:11Z")):
            text = run.to_json()
            assert LoggedRun.from_json(text).to_json() == text


class TestCells:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (
                "{'a': -inf, 'b': [1, (2, 3)], 3: None}",
                {"a": -math.inf, "b": [1, [2, 3]], "3": None},
            ),
            ('{"a": -Infinity}', {"a": -math.inf}),
            ("{'a': {1}}", {"a": [1]}),
        ],
    )
    def test_data_is_read(self, text, value):
        assert parse_cell(text) == value

    @pytest.mark.parametrize(
        "text",
        [
            "{'a': open('x')}",
            "{**{}}",
            "{'a': b}",
            "{'a': 1 + 1}",
            "[x for x in y]",
            "-True",
            "{",
            "[" * 5000,
            "{'a':" * 90 + "1" + "}" * 90,
            "9" * 6000,
            "\x00",
        ],
    )
    def test_what_is_no_data_is_refused(self, text):
        with pytest.raises(ValueError, match=r"\w"):
            parse_cell(text)

    def test_half_surrogate_pairs_become_text(self):
        json.dumps(parse_cell('{"a": "\\ud800"}'), ensure_ascii=False).encode()

    @FUZZ
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_the_repr_of_any_data_comes_back(self, value):
        assert repr(parse_cell(repr([value]))) == repr([value])

    @FUZZ
    @given(st.text(max_size=60))
    def test_any_text_is_data_or_a_value_error(self, text):
        try:
            found = parse_cell(text)
        except ValueError:
            return
        json.dumps(found, ensure_ascii=False).encode()


#: As the web page exports the runs table: every cell quoted, config, then summary.
RUNS_TABLE = (
    '"Name","Agent","State","Notes","User","Tags","Created","Runtime","Sweep","batch_size","lr",'
    '"metric.name","model_type","seed","epoch","eval/ssim_mean","train_loss","val_loss","val_loss"\n'
    '"unetr_1","","failed","-","me","a, b","2025-11-13T09:48:11.000Z","9910","1wfh","8","0.0001",'
    '"x","unetr","3","100","0.93","NaN","","0.5"\n'
    '"swin_2","","finished","two\nlines","me","","2025-11-14T09:48:11.000Z","59","1wfh","16","",'
    '"x","swin","","7","0.5","0.25","true",""\n'
)


class TestRunsTable:
    def test_every_number_is_a_series_and_every_column_is_there(self, tmp_path):
        path = tmp_path.resolve() / "wandb_export.csv"
        path.write_text(RUNS_TABLE)
        first, second = runs_of(path)
        assert first.fields == {
            "status": "failed",
            "tags": {"reason": "failed"},
            "started_at": datetime(2025, 11, 13, 9, 48, 11, tzinfo=UTC),
        }
        assert second.fields["status"] == "finished"
        assert {name: values[0] for name, values in values_of(second).items()} == {
            "batch_size": 16.0,
            "eval/ssim_mean": 0.5,
            "train_loss": 0.25,
        }
        assert math.isnan(values_of(first)["train_loss"][0])
        assert values_of(first)["val_loss#2"] == [0.5]
        assert first.columns["metric.name"] == "x"
        assert first.columns["export"] == {"epoch": 100}
        assert first.columns["seed"] == 3
        assert second.columns["Notes"] == "two\nlines"
        assert first.identity != second.identity

    def test_hyperparameters_are_named_by_the_mapping(self, tmp_path):
        (tmp_path / "wandb_export.csv").write_text(RUNS_TABLE)
        mapping = FieldMapping(
            map={"model_id": "{model_type}", "hyperparameters.lr": "{lr}"},
            set={"task_id": "t", "metric": "ssim_mean", "direction": "max"},
        )
        (batch,) = LogReader(find_logs(tmp_path, "wandb"), mapping, tmp_path)
        rows = {row["model_id"]: row for row in batch.runs.to_pylist()}
        assert json.loads(rows["unetr"]["hyperparameters"]) == {"lr": 0.0001}
        assert rows["swin"]["value"] == 0.5
        assert rows["unetr"]["seed"] == 3

    def test_an_id_column_names_the_run(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text('"Name","ID","State","Notes","User","Tags","loss"\na,k3,running,,,,0.5\n')
        (run,) = runs_of(path)
        assert run.identity == "wandb:k3"
        assert run.fields["status"] == "running"

    @FUZZ
    @given(data=st.binary(max_size=300))
    def test_random_bytes_are_no_crash(self, tmp_path, data):
        for head in (RUNS_TABLE.encode(), b",summary,config,name\n", b"PAR1", b""):
            place = tmp_path / "x.csv"
            place.write_bytes(head + data)
            FORMAT.place_of(Candidate(place))
            assert all(isinstance(item, (LoggedRun, BadLog)) for item in tolerant(place))

    def test_every_truncation_is_no_crash(self, tmp_path):
        data = RUNS_TABLE.encode()
        place = tmp_path / "x.csv"
        for size in range(len(data)):
            place.write_bytes(data[:size])
            FORMAT.place_of(Candidate(place))
            assert all(isinstance(item, (LoggedRun, BadLog)) for item in tolerant(place))

    def test_huge_cells_and_wrong_bytes_cost_only_their_rows(self, tmp_path):
        place = api_export(tmp_path / "p.csv")
        with place.open("ab") as handle:
            handle.write(b'2,"{' + b" " * 200_000 + b'}",{},big\n3,{},{},\xff\n4,{},{},ok\n')
        items = items_of(place)
        names = [item.columns["name"] for item in items if isinstance(item, LoggedRun)]
        assert names == ["calm-sky-1", "wild-sea-2", "ok"]
        assert len(items) == 5


def history(path, rows, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    base = {
        "_step": list(rows),
        "_timestamp": [1700000000.0 + row for row in rows],
        "_runtime": [float(row) for row in rows],
    }
    pq.write_table(pa.table({**base, **columns}), path)
    return path


class TestHistory:
    def test_parts_of_one_folder_are_one_run_with_its_curves(self, tmp_path):
        folder = tmp_path.resolve() / "run-1a2b3c4d-history-v0"
        first = history(
            folder / "0000.parquet",
            range(3),
            **{"train/loss": [1.0, None, 0.5], "val/acc": [None, 0.25, None], "epoch": [0, 0, 1]},
        )
        history(folder / "0001.parquet", range(3, 5), **{"val/acc": [0.75, math.nan]})
        assert FORMAT.place_of(Candidate(first)) == folder
        (run,) = runs_of(first)
        assert run.identity == "wandb:1a2b3c4d"
        series = {each.name: each for each in run.series}
        assert series.keys() == {"train/loss", "val/acc"}
        assert (series["train/loss"].metric, series["train/loss"].split) == ("loss", "train")
        assert list(series["train/loss"].steps) == [0, 2]
        assert list(series["train/loss"].epochs) == [0.0, 1.0]
        assert list(series["val/acc"].steps) == [1, 3, 4]
        assert list(series["val/acc"].epochs) == [0.0, None, None]
        assert math.isnan(series["val/acc"].values[2])
        assert run.progress == 2 * 1_700_000_004_000

    @pytest.mark.parametrize(
        ("folder", "run_id"),
        [
            ("run-1a2b3c4d-history:v12", "1a2b3c4d"),
            ("run-my-own-id-history-v0", "my-own-id"),
            ("run-x-history", "x"),
            ("1a2b3c4d-history:v0", "1a2b3c4d"),
            ("training-history", None),
            ("some", None),
        ],
    )
    def test_the_id_stands_in_the_name_of_the_folder(self, tmp_path, folder, run_id):
        place = tmp_path.resolve() / folder
        (run,) = runs_of(history(place / "0000.parquet", range(2), a=[0.5, 1]))
        assert run.identity == f"wandb:{run_id or place}"

    def test_exports_of_several_runs_in_one_folder_are_kept_apart(self, tmp_path):
        root = tmp_path.resolve()
        for run, part, rows in (
            ("1a2b3c4d", 0, range(2)),
            ("1a2b3c4d", 1, range(2, 4)),
            ("5e6f7g8h", 0, range(2)),
        ):
            path = root / f"my_team_my_project_{run}_{part}.runhistory.parquet"
            history(path, rows, loss=[0.5] * len(rows))
        found = find_logs(root, "wandb")
        assert len(found.logs) == 2
        runs = [run for log in found.logs for run in FORMAT.read(log.place, LogFiles())]
        assert {run.identity: len(run.series[0].values) for run in runs} == {
            "wandb:1a2b3c4d": 4,
            "wandb:5e6f7g8h": 2,
        }

    def test_files_of_their_own_names_are_runs_of_their_own(self, tmp_path):
        root = tmp_path.resolve()
        history(root / "a.parquet", range(2), loss=[1.0, 2.0])
        history(root / "b.parquet", range(2), loss=[1.0, 2.0])
        assert {log.place.name for log in find_logs(root, "wandb").logs} == {
            "a.parquet",
            "b.parquet",
        }

    def test_nested_text_and_media_columns(self, tmp_path):
        path = history(
            tmp_path / "h.parquet",
            range(2),
            nested=pa.array([{"a": 1, "b": {"c": 2.5}}, None]),
            image=pa.array([{"_type": "image", "size": 3}, None]),
            spelt=["NaN", "-Infinity"],
            words=["x", None],
            flag=[True, False],
            many=[[1.0], [2.0]],
            nothing=pa.nulls(2),
            half=pa.array([1.5, 2.5], pa.float32()),
            _wandb=pa.array([{"runtime": 1}, None]),
        )
        (run,) = runs_of(path)
        values = values_of(run)
        assert values.keys() == {"nested.a", "nested.b.c", "spelt", "half"}
        assert values["nested.b.c"] == [2.5]
        assert values["spelt"][1] == -math.inf
        assert values["half"] == [1.5, 2.5]

    def test_the_later_row_of_a_step_counts_and_steps_are_in_order(self, tmp_path):
        path = tmp_path / "h.parquet"
        steps = pa.array([0, 1, 2, 1, None], pa.int64())
        pq.write_table(
            pa.table({"_step": steps, "_runtime": [0.0] * 5, "a": [0.0, 1.0, 2.0, 9.0, 5.0]}), path
        )
        (run,) = runs_of(path)
        assert list(run.series[0].steps) == [0, 1, 2, None]
        assert list(run.series[0].values) == [0.0, 9.0, 2.0, 5.0]

    def test_a_longer_history_comes_further(self, tmp_path):
        path = tmp_path / "h.parquet"
        (before,) = runs_of(history(path, range(2), a=[1.0, 2.0]))
        (after,) = runs_of(history(path, range(3), a=[1.0, 2.0, 3.0]))
        assert before.identity == after.identity
        assert before.progress < after.progress

    def test_a_damaged_part_stands_beside_the_run(self, tmp_path):
        folder = tmp_path / "run-1a2b3c4d-history-v0"
        good = history(folder / "0000.parquet", range(2), a=[1.0, 2.0])
        (folder / "0001.parquet").write_bytes(b"PAR1 nothing")
        run, bad = items_of(good)
        assert values_of(run) == {"a": [1.0, 2.0]}
        assert bad.file.name == "0001.parquet"

    def test_a_history_that_is_damaged_is_claimed_by_its_name_and_refused(self, tmp_path):
        path = tmp_path / "run-1a2b3c4d-history-v0" / "0000.parquet"
        data = history(path, range(50), a=[0.5] * 50).read_bytes()
        for size in range(0, len(data), 61):
            path.write_bytes(data[:size])
            assert FORMAT.place_of(Candidate(path)) == path.parent
            assert isinstance(tolerant(path.parent)[-1], BadLog)

    @FUZZ
    @given(seeds=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8))
    def test_changed_bytes_are_no_crash(self, tmp_path, seeds):
        path = history(tmp_path / "run-k-history-v0" / "0000.parquet", range(9), a=[0.5] * 9)
        data = bytearray(path.read_bytes())
        for at, byte in seeds:
            data[at % len(data)] = byte
        path.write_bytes(data)
        FORMAT.place_of(Candidate(path))
        assert all(isinstance(item, (LoggedRun, BadLog)) for item in tolerant(path.parent))


class TestNotMine:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "model,task,value\nr,t,1\n",
            "summary,config,name\nplain text,other,x\n",
            "Name,State,value\na,on,1\n",
            "epoch,train_loss,eval_loss,eval_top1,lr\n0,1,1,1,1\n",
            "epoch,accuracy,loss\n0,0.5,NA\n",
            "epoch,step,train_loss,val_loss\n0,1,0.5,\n",
            "number,value,params_a,datetime_start,state\n0,1,1,x,COMPLETE\n",
            '{"summary": {}, "config": {}, "name": "x"}\n',
        ],
    )
    def test_other_tables_are_left_alone(self, tmp_path, text):
        path = tmp_path / "x.csv"
        path.write_text(text)
        assert FORMAT.place_of(Candidate(path)) is None

    def test_other_parquet_is_left_alone(self, tmp_path):
        path = tmp_path / "0000.parquet"
        pd.DataFrame({"step": [1], "loss": [0.5]}).to_parquet(path)
        assert FORMAT.place_of(Candidate(path)) is None

    def test_optuna_does_not_claim_files_of_wandb(self, tmp_path):
        (tmp_path / "table.csv").write_text(RUNS_TABLE)
        paths = [api_export(tmp_path / "p.csv"), history(tmp_path / "h.parquet", range(1), a=[1])]
        for path in [*paths, tmp_path / "table.csv"]:
            assert Optuna().place_of(Candidate(Path(path))) is None
