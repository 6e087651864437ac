"""Optuna's studies: what the real package writes, old schemas by hand, and damage."""

import csv
import importlib.util
import json
import math
import shutil
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from history.readers.frameworks import optuna_stores, reading
from history.readers.frameworks.reading import series_of
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.core.errors import StorageError
from recsys_ms.history.readers.formats.optuna import Optuna
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate, LogFiles, LoggedRun
from recsys_ms.history.readers.logs import LogReader
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.store.curves import Series

WRITER = Path(__file__).parent.parent / "frameworks" / "write_optuna.py"
FORMAT = Optuna()
STATUS = {
    "COMPLETE": "finished",
    "PRUNED": "failed",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "running",
}
FUZZ = reading.fuzz(60)
items_of = partial(reading.claimed_items, FORMAT)
runs_of = partial(reading.claimed_runs, FORMAT)
#: Items of a damaged file; the error that ends it is the last one.
tolerant = partial(reading.items_of, FORMAT)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    if importlib.util.find_spec("optuna") is None:
        pytest.skip("optuna is not installed: no real study can be written")
    folder = tmp_path_factory.mktemp("optuna").resolve()
    subprocess.run([sys.executable, str(WRITER), str(folder)], check=True, capture_output=True)
    return folder


def told(folder):
    return json.loads((folder / "expected.json").read_text())


class TestStudyFile:
    def test_every_trial_of_every_study_is_as_optuna_itself_says(self, studies):
        runs = {
            (run.columns["study"], run.columns["number"]): run
            for run in runs_of(studies / "study.db")
        }
        n_trials = 0
        for name, study in told(studies).items():
            for trial in study["trials"]:
                run = runs[name, trial["number"]]
                n_trials += 1
                assert run.identity == f"optuna:{studies / 'study.db'}#{name}#{trial['number']}"
                assert run.columns["state"] == trial["state"]
                assert run.fields["status"] == STATUS[trial["state"]]
                assert run.fields["hyperparameters"] == trial["params"]
                assert {k: type(v) for k, v in run.columns["params"].items()} == {
                    k: type(v) for k, v in trial["params"].items()
                }
                assert run.columns["user_attrs"] == trial["user_attrs"]
                series = series_of(run)
                reported = series.pop("intermediate", None)
                assert [each.values[0] for each in series.values()] == (trial["values"] or [])
                pairs = (
                    [] if reported is None else zip(reported.steps, reported.values, strict=True)
                )
                assert str([list(pair) for pair in pairs]) == str(trial["intermediate"])
        assert n_trials == len(runs)

    def test_directions_and_names_of_metrics_come_from_the_study(self, studies):
        runs = {run.columns["study"]: run for run in runs_of(studies / "study.db")}
        by_number = [r for r in runs_of(studies / "study.db") if r.columns["study"] == "tuned"]
        first = by_number[0]
        assert first.chosen == "value"
        assert first.directions == {"value": "max", "intermediate": "max"}
        assert series_of(first)["value"].metric == ""
        assert first.columns["study_user_attrs"] == {"dataset": "pets"}
        pair = runs["pair"]
        assert pair.chosen is None
        assert pair.directions == {"values_latency": "min", "values_accuracy": "max"}
        assert [each.metric for each in pair.series] == ["latency", "accuracy"]
        named = runs["named #1?"]
        assert (named.chosen, named.fields["metric"]) == ("value_loss", "loss")
        assert named.directions["value_loss"] == "min"
        assert [each.name for each in runs["plain pair"].series] == ["values_0", "values_1"]

    def test_states_infinities_and_nan_are_kept(self, studies):
        runs = [r for r in runs_of(studies / "study.db") if r.columns["study"] == "tuned"]
        states = [run.columns["state"] for run in runs]
        assert [states[n] for n in (3, 4, 5, 10, 11)] == [
            "PRUNED",
            "FAIL",
            "PRUNED",
            "RUNNING",
            "WAITING",
        ]
        assert runs[3].fields["tags"] == {"reason": "pruned"}
        assert "tags" not in runs[4].fields
        assert series_of(runs[6])["value"].values == [math.inf]
        assert series_of(runs[7])["value"].values == [-math.inf]
        assert math.isnan(series_of(runs[9])["intermediate"].values[1])
        assert "value" not in series_of(runs[4])
        assert runs[4].fields["direction"] == "max"

    def test_times_of_an_unknown_zone_are_columns_and_no_fields(self, studies):
        run = runs_of(studies / "study.db")[0]
        assert run.columns["datetime_start"][:2] == "20"
        assert not {"started_at", "finished_at"} & run.fields.keys()

    def test_a_grown_study_keeps_its_ids_and_comes_further(self, studies, tmp_path):
        place = tmp_path / "study.db"
        shutil.copy(studies / "study.db", place)
        before = {run.identity: run for run in runs_of(place)}
        shutil.copy(studies / "grown.db", place)
        after = {run.identity: run for run in runs_of(place)}
        assert before.keys() < after.keys()
        changed = {i for i in before if before[i].fields["status"] != after[i].fields["status"]}
        numbers = {before[i].columns["number"] for i in changed}
        assert numbers == {10, 11}
        for identity in changed:
            assert before[identity].progress < after[identity].progress
        for identity in before.keys() - changed:
            assert before[identity].progress == after[identity].progress
        assert series_of(after[f"optuna:{place.resolve()}#tuned#10"])["value"].values == [0.75]

    def test_the_file_is_never_written_to(self, studies, tmp_path):
        place = tmp_path / "study.db"
        shutil.copy(studies / "study.db", place)
        before = place.read_bytes()
        runs_of(place)
        assert place.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["study.db"]

    def test_a_file_in_wal_mode_is_read_without_a_trace_and_an_open_one_whole(
        self, studies, tmp_path
    ):
        place = tmp_path / "study.db"
        shutil.copy(studies / "study.db", place)
        writer = sqlite3.connect(place)
        assert writer.execute("PRAGMA journal_mode=WAL").fetchall() == [("wal",)]
        writer.execute("UPDATE trials SET number=number")
        writer.commit()
        writer.close()
        assert len(runs_of(place)) == 21
        assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
        writer = sqlite3.connect(place)
        writer.execute(
            "INSERT INTO trials (trial_id, number, study_id, state) VALUES (99, 99, 1, 'RUNNING')"
        )
        writer.commit()
        assert len(runs_of(place)) == 22
        writer.close()

    def test_more_trials_than_one_chunk_are_all_read_once(self, studies, tmp_path):
        place = tmp_path / "many.db"
        shutil.copy(studies / "study.db", place)
        with sqlite3.connect(place) as sql:
            sql.executemany(
                "INSERT INTO trials (trial_id, number, study_id, state) VALUES (?, ?, 1, ?)",
                [(100 + n, 100 + n, "RUNNING") for n in range(1200)],
            )
        runs = runs_of(place)
        assert len(runs) == len({run.identity for run in runs}) == 21 + 1200
        assert [run.line for run in runs] == sorted(run.line for run in runs)

    def test_runs_of_the_history_come_of_it(self, studies):
        mapping = FieldMapping(
            map={"value": "{value}", "model_id": "{params.model}"},
            set={"task_id": "pets", "metric": "accuracy"},
            where="study == 'tuned' and state == 'COMPLETE' and number < 6",
        )
        batches = list(LogReader(find_logs(studies / "study.db", "optuna"), mapping, studies))
        rows = [row for batch in batches for row in batch.runs.to_pylist()]
        assert rows
        assert {row["direction"] for row in rows} == {"max"}
        assert {row["status"] for row in rows} == {"finished"}

    def test_runs_survive_being_kept_as_text(self, studies):
        for name in ("study.db", "tuned.csv", "pair.parquet"):
            for run in runs_of(studies / name):
                text = run.to_json()
                assert LoggedRun.from_json(text).to_json() == text
                text.encode()


@pytest.mark.parametrize("version", optuna_stores.versions())
def test_study_files_of_several_versions_are_as_their_optuna_told(tmp_path, version):
    path, told = optuna_stores.lay_out(version, tmp_path)
    runs = {(run.columns["study"], run.columns["number"]): run for run in runs_of(path)}
    assert len(runs) == sum(map(len, told.values()))
    for study, trials in told.items():
        for number, state, values, params, steps in trials:
            run = runs[study, number]
            assert run.columns["state"] == state
            assert run.fields["hyperparameters"] == params
            series = series_of(run)
            reported = series.pop("intermediate", None)
            # Before 3.0 Optuna kept infinities as other numbers, and told them so.
            found = [min(each.values[0], 3.4028234663852886e38) for each in series.values()]
            assert found == [min(each, 3.4028234663852886e38) for each in values or []]
            pairs = zip(reported.steps, reported.values, strict=True) if reported else ()
            assert [list(pair) for pair in pairs] == steps
    assert runs["tuned", 0].directions == {"value": "max", "intermediate": "max"}
    assert runs["pair", 0].directions == {"values_0": "min", "values_1": "max"}
    assert [each.name for each in tmp_path.iterdir()] == ["study.db"]


def test_a_locked_study_is_found_and_told_of(tmp_path):
    path, _ = optuna_stores.lay_out("4.1.0", tmp_path)
    with reading.locked(path):
        [log] = find_logs(path).logs
        assert log.format_name == "optuna"
        [bad] = tolerant(path)
    assert "locked by another process" in bad.reason


class TestDamagedStudyFile:
    def damaged(self, studies, tmp_path, *statements):
        place = tmp_path.resolve() / "bad.db"
        shutil.copy(studies / "study.db", place)
        with sqlite3.connect(place) as sql:
            for statement in statements:
                sql.execute(statement)
        sql.close()
        return items_of(place)

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("UPDATE trials SET state='ODD' WHERE trial_id=2", "'ODD' is not one of"),
            ("UPDATE trials SET number=NULL WHERE trial_id=2", "number None is not an integer"),
            ("UPDATE trials SET study_id=77 WHERE trial_id=2", "study_id 77"),
            ("UPDATE trial_values SET value_type='X' WHERE trial_id=2", "'X'"),
            ("UPDATE trial_values SET value=NULL WHERE trial_id=2", "None is not a number"),
            (
                "UPDATE trial_intermediate_values SET step='a' WHERE trial_id=2 AND step=0",
                "step 'a'",
            ),
        ],
    )
    def test_invalid_trial_is_bad_alone(self, studies, tmp_path, statement, said):
        items = self.damaged(studies, tmp_path, statement)
        bad = [item for item in items if isinstance(item, BadLog)]
        assert len(bad) == 1
        assert said in bad[0].reason
        assert bad[0].line == 2
        assert len(items) == 21

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("UPDATE trial_params SET distribution_json='{' WHERE trial_id=2", "distribution"),
            (
                "UPDATE trial_params SET distribution_json='[]' WHERE trial_id=2",
                "distribution",
            ),
            (
                """UPDATE trial_params SET distribution_json='{"name": "Odd"}' WHERE trial_id=2""",
                "not known",
            ),
            (
                "UPDATE trial_params SET param_value=99 WHERE trial_id=2 AND param_name='model'",
                "choice 99 of 6",
            ),
            ("UPDATE trial_params SET param_value='x' WHERE trial_id=2", "not a number"),
            ("UPDATE trial_params SET param_value=9e999 WHERE trial_id=2", "cannot"),
            ("UPDATE trial_user_attributes SET value_json='{' WHERE trial_id=2", "not JSON"),
            ("UPDATE trial_user_attributes SET value_json=NULL WHERE trial_id=2", "not JSON"),
        ],
    )
    def test_a_broken_part_stands_beside_its_trial(self, studies, tmp_path, statement, said):
        items = self.damaged(studies, tmp_path, statement)
        bad = [item for item in items if isinstance(item, BadLog)]
        assert len(bad) == 1
        assert said in bad[0].reason
        assert len(items) == 22

    @pytest.mark.parametrize(
        "statement",
        [
            "DROP TABLE study_directions",
            "DROP TABLE trial_user_attributes",
            "ALTER TABLE trials RENAME COLUMN state TO condition",
            "ALTER TABLE trial_values RENAME COLUMN objective TO goal",
        ],
    )
    def test_a_schema_that_is_not_known_is_refused(self, studies, tmp_path, statement):
        with pytest.raises(BadLogError, match="the schema is not one of Optuna"):
            self.damaged(studies, tmp_path, statement)

    def test_undecodable_text_costs_no_other_trial(self, studies, tmp_path):
        items = self.damaged(
            studies,
            tmp_path,
            "UPDATE trial_user_attributes SET value_json=CAST(x'22ff22' AS TEXT) WHERE trial_id=1",
        )
        assert len([item for item in items if isinstance(item, LoggedRun)]) == 21

    def test_a_schema_whose_text_is_not_utf8_is_a_bad_log(self, studies, tmp_path):
        data = (studies / "study.db").read_bytes()
        place = tmp_path / "bad.db"
        place.write_bytes(data.replace(b"CREATE TABLE trials", b"CREATE TABLF tr\xf1als"))
        assert FORMAT.place_of(Candidate(place)) is None
        (bad,) = tolerant(place)
        assert "cannot be read" in bad.reason

    def test_every_truncation_is_a_bad_log_or_runs(self, studies, tmp_path):
        data = (studies / "study.db").read_bytes()
        place = tmp_path / "cut.db"
        n_refused = 0
        for size in range(16, len(data), 1531):
            place.write_bytes(data[:size])
            FORMAT.place_of(Candidate(place))
            n_refused += any(isinstance(item, BadLog) for item in tolerant(place))
        assert n_refused > 10

    @FUZZ
    @given(seeds=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=40))
    def test_changed_bytes_are_no_crash(self, studies, tmp_path, seeds):
        data = bytearray((studies / "study.db").read_bytes())
        for at, byte in seeds:
            data[at % len(data)] = byte
        place = tmp_path / "fuzz.db"
        place.write_bytes(data)
        FORMAT.place_of(Candidate(place))
        assert all(isinstance(item, (LoggedRun, BadLog)) for item in tolerant(place))


OLD_TABLES = """
CREATE TABLE version_info (version_info_id INTEGER PRIMARY KEY, schema_version INTEGER,
  library_version VARCHAR(256));
CREATE TABLE study_user_attributes (study_user_attribute_id INTEGER PRIMARY KEY, study_id INTEGER,
  key VARCHAR(512), value_json TEXT);
CREATE TABLE study_system_attributes (study_system_attribute_id INTEGER PRIMARY KEY,
  study_id INTEGER, key VARCHAR(512), value_json TEXT);
CREATE TABLE trial_user_attributes (trial_user_attribute_id INTEGER PRIMARY KEY, trial_id INTEGER,
  key VARCHAR(512), value_json TEXT);
CREATE TABLE trial_system_attributes (trial_system_attribute_id INTEGER PRIMARY KEY,
  trial_id INTEGER, key VARCHAR(512), value_json TEXT);
CREATE TABLE trial_params (param_id INTEGER PRIMARY KEY, trial_id INTEGER, param_name VARCHAR(512),
  param_value FLOAT, distribution_json TEXT);
INSERT INTO version_info VALUES (1, 12, '2.0.0');
INSERT INTO trial_params VALUES
  (1, 1, 'lr', 0.1, '{"name": "LogUniformDistribution", "attributes": {"low": 0.01, "high": 1}}'),
  (2, 1, 'n', 3.0, '{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4}}'),
  (3, 1, 'q', 0.5, '{"name": "DiscreteUniformDistribution", "attributes": {"low": 0, "high": 1,
    "q": 0.5}}'),
  (4, 1, 'o', 1.0, '{"name": "CategoricalDistribution", "attributes": {"choices": ["a", "b"]}}');
"""
BEFORE_2_4 = """
CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512),
  direction VARCHAR(8) NOT NULL);
CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER, study_id INTEGER,
  state VARCHAR(8) NOT NULL, value FLOAT, datetime_start DATETIME, datetime_complete DATETIME);
CREATE TABLE trial_values (trial_value_id INTEGER PRIMARY KEY, trial_id INTEGER, step INTEGER,
  value FLOAT);
INSERT INTO studies VALUES (1, 'old', 'MAXIMIZE');
INSERT INTO trials VALUES (1, 0, 1, 'COMPLETE', 0.9, '2020-08-01 10:00:00.000000', NULL);
INSERT INTO trials VALUES (2, 1, 1, 'FAIL', NULL, NULL, NULL);
INSERT INTO trial_values VALUES (1, 1, 0, 0.5), (2, 1, 1, NULL), (3, 1, 2, 0.9);
"""
BEFORE_3_0 = """
CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512));
CREATE TABLE study_directions (study_direction_id INTEGER PRIMARY KEY, direction VARCHAR(8),
  study_id INTEGER, objective INTEGER);
CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER, study_id INTEGER,
  state VARCHAR(8) NOT NULL, datetime_start DATETIME, datetime_complete DATETIME);
CREATE TABLE trial_values (trial_value_id INTEGER PRIMARY KEY, trial_id INTEGER NOT NULL,
  objective INTEGER NOT NULL, value FLOAT NOT NULL);
CREATE TABLE trial_intermediate_values (trial_intermediate_value_id INTEGER PRIMARY KEY,
  trial_id INTEGER NOT NULL, step INTEGER NOT NULL, intermediate_value FLOAT);
INSERT INTO studies VALUES (1, 'middle');
INSERT INTO study_directions VALUES (1, 'MAXIMIZE', 1, 1), (2, 'NOT_SET', 1, 0);
INSERT INTO trials VALUES (1, 0, 1, 'COMPLETE', NULL, NULL);
INSERT INTO trial_values VALUES (1, 1, 0, 3.4028234663852886e+38), (2, 1, 1, 0.25);
INSERT INTO trial_intermediate_values VALUES (1, 1, 5, -3.4028234663852886e+38), (2, 1, 2, NULL);
"""


class TestOldSchemas:
    def written(self, tmp_path, script):
        place = tmp_path.resolve() / "old.db"
        with sqlite3.connect(place) as sql:
            sql.executescript(OLD_TABLES + script)
        sql.close()
        return runs_of(place)

    def test_before_2_4_the_value_stands_with_the_trial(self, tmp_path):
        done, failed = self.written(tmp_path, BEFORE_2_4)
        assert done.fields["hyperparameters"] == {"lr": 0.1, "n": 3, "q": 0.5, "o": "b"}
        assert type(done.columns["params"]["n"]) is int
        series = series_of(done)
        assert series["value"].values == [0.9]
        assert list(series["intermediate"].steps) == [0, 1, 2]
        assert math.isnan(series["intermediate"].values[1])
        assert done.directions["value"] == "max"
        assert failed.series == []
        assert failed.fields["status"] == "failed"

    def test_before_3_0_the_largest_numbers_are_infinities(self, tmp_path):
        (run,) = self.written(tmp_path, BEFORE_3_0)
        series = series_of(run)
        assert series["values_0"].values == [math.inf]
        assert series["values_1"].values == [0.25]
        assert run.directions == {"values_1": "max"}
        assert list(series["intermediate"].steps) == [2, 5]
        assert series["intermediate"].values[1] == -math.inf


def same_values(run, trial):
    values = [each.values[0] for each in run.series]
    assert values == (trial["values"] or [])


class TestFrame:
    @pytest.mark.parametrize(
        ("stem", "suffix"),
        [
            (stem, suffix)
            for stem in ("pair", "named", "plain", "tuned")
            for suffix in (".csv", ".parquet", "_nested.csv", "_nested.parquet")
            # pandas cannot write the column of mixed choices as Parquet.
            if (stem, suffix) != ("tuned", "_nested.parquet")
        ],
    )
    def test_each_trial_is_as_optuna_says(self, studies, stem, suffix):
        path = studies / f"{stem}{suffix}"
        name = {"named": "named #1?", "plain": "plain pair"}.get(stem, stem)
        runs = runs_of(path)
        trials = told(studies)[name]["trials"]
        assert len(runs) == len(trials)
        for run, trial in zip(runs, trials, strict=True):
            assert run.identity == f"optuna:{path}#{trial['number']}"
            assert run.fields["status"] == STATUS[trial["state"]]
            same_values(run, trial)
            wanted = {k: v for k, v in trial["params"].items() if v is not None}
            if stem == "tuned" and suffix == ".parquet":
                wanted.pop("model", None)
            assert run.fields["hyperparameters"] == wanted
            assert run.columns["user_attrs"] == trial["user_attrs"]
            assert run.directions == {}
            assert "direction" not in run.fields

    def test_one_objective_is_chosen_and_several_are_not(self, studies):
        assert {run.chosen for run in runs_of(studies / "tuned.csv")} == {"value"}
        assert {run.chosen for run in runs_of(studies / "named.csv")} == {"value_loss"}
        assert {run.chosen for run in runs_of(studies / "pair.csv")} == {None}
        assert runs_of(studies / "pair.csv")[0].series[0] == Series(
            name="values_latency",
            metric="latency",
            split=None,
            steps=[None],
            epochs=[None],
            values=[told(studies)["pair"]["trials"][0]["values"][0]],
        )

    def test_a_frame_whose_trials_ended_comes_further(self, studies, tmp_path):
        text = (studies / "tuned.csv").read_text()
        place = tmp_path / "trials.csv"
        place.write_text(text)
        before = runs_of(place)
        place.write_text(text.replace("RUNNING", "COMPLETE"))
        after = runs_of(place)
        assert after[10].identity == before[10].identity
        assert after[10].progress > before[10].progress > before[11].progress

    def test_invalid_rows_are_bad_with_their_header(self, tmp_path):
        place = tmp_path.resolve() / "trials.csv"
        lines = [
            "number,value,params_a,user_attrs_t,state",
            "0,0.5,1,x,COMPLETE",
            "x,0.5,1,x,COMPLETE",
            "1,0.5,1,x,DONE",
            "2,many,1,x,COMPLETE",
            "0,0.7,1,x,COMPLETE",
            "3,0.5",
            '4,0.5,"{1: nan}","two\nlines",COMPLETE',
        ]
        place.write_text("\n".join(lines) + "\n")
        items = items_of(place)
        good = [item for item in items if isinstance(item, LoggedRun)]
        assert [run.columns["number"] for run in good] == [0, 4]
        assert good[1].columns["user_attrs"] == {"t": "two\nlines"}
        assert good[1].fields["hyperparameters"] == {"a": {"1": "nan"}}
        bad = [item for item in items if isinstance(item, BadLog)]
        assert [item.line for item in bad] == [3, 4, 5, 6, 7]
        assert [item.raw for item in bad] == [
            f"{lines[0]}\n{lines[line - 1]}" for line in range(3, 8)
        ]

    def test_a_corrected_text_is_read_in_place_of_the_file(self, tmp_path):
        place = tmp_path.resolve() / "gone.csv"
        text = "number,value,params_a,state\n7,0.25,3,COMPLETE"
        (run,) = FORMAT.read(place, LogFiles({place: text}))
        assert run.identity == f"optuna:{place}#7"
        assert run.series[0].values == [0.25]

    def test_a_row_of_a_nested_frame_is_replayed(self, studies, tmp_path):
        rows = (studies / "pair_nested.csv").read_text().splitlines()
        rows[3] = rows[3].replace("COMPLETE", "ODD")
        place = tmp_path.resolve() / "nested.csv"
        place.write_text("\n".join(rows) + "\n")
        (bad,) = [item for item in items_of(place) if isinstance(item, BadLog)]
        fixed = LogFiles({place: bad.raw.replace("ODD", "COMPLETE")})
        (run,) = FORMAT.read(place, fixed)
        assert run.columns["number"] == 1
        assert [each.metric for each in run.series] == ["latency", "accuracy"]

    def test_huge_cells_and_wrong_bytes_cost_only_their_rows(self, tmp_path):
        place = tmp_path / "trials.csv"
        place.write_bytes(
            b"number,value,params_a,state\n0,0.5,1,COMPLETE\n1,0.5,\xff,COMPLETE\n2,0.5,"
            + b"x" * 200_000
            + b",COMPLETE\n3,0.5,1,COMPLETE\n"
        )
        items = items_of(place)
        good = [item.columns["number"] for item in items if isinstance(item, LoggedRun)]
        assert good == [0, 3]
        assert len(items) == 4

    def test_duplicated_columns_are_no_crash(self, tmp_path):
        place = tmp_path / "trials.csv"
        place.write_text("number,value,params_a,params_a,state,state\n0,1,2,3,COMPLETE,FAIL\n")
        (run,) = runs_of(place)
        assert run.fields["status"] == "finished"

    @FUZZ
    @given(data=st.binary(max_size=400))
    def test_random_bytes_are_no_crash(self, tmp_path, data):
        place = tmp_path / "trials.csv"
        head = b"number,value,params_a,state\n"
        for body in (data, head + data, b"PAR1" + data, b"SQLite format 3\x00" + data):
            place.write_bytes(body)
            FORMAT.place_of(Candidate(place))
            assert all(isinstance(item, (LoggedRun, BadLog)) for item in tolerant(place))

    def test_truncated_parquet_is_a_bad_log(self, studies, tmp_path):
        data = (studies / "pair.parquet").read_bytes()
        place = tmp_path / "cut.parquet"
        for size in range(4, len(data), 97):
            place.write_bytes(data[:size])
            assert FORMAT.place_of(Candidate(place)) is None
            with pytest.raises(BadLogError):
                list(FORMAT.read(place, LogFiles()))

    def test_a_missing_file_is_a_bad_log(self, tmp_path):
        with pytest.raises((BadLogError, StorageError)):
            list(FORMAT.read(tmp_path / "none.csv", LogFiles()))


class TestNotMine:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "number,value\n1,2\n",
            "number,state,value\n1,on,2\n",
            "model,task,value,state,number\nr,t,1,x,1\n",
            "epoch,train_loss,eval_loss,eval_top1\n0,1,1,1\n",
            ",summary,config,name\n0,{},{},a\n",
            '"Name","State","Notes","User","Tags","Created","Runtime","Sweep"\n',
            '{"number": 1, "state": "x", "value": 2}\n',
            '"number\nstate',
        ],
    )
    def test_other_tables_are_left_alone(self, tmp_path, text):
        place = tmp_path / "x.csv"
        place.write_text(text)
        assert FORMAT.place_of(Candidate(place)) is None

    def test_other_databases_and_parquet_are_left_alone(self, tmp_path):
        place = tmp_path / "mlflow.db"
        with sqlite3.connect(place) as sql:
            sql.execute("CREATE TABLE experiments (a)")
            sql.execute("CREATE TABLE studies (a)")
        sql.close()
        assert FORMAT.place_of(Candidate(place)) is None
        table = tmp_path / "x.parquet"
        pd.DataFrame({"number": [1], "state": ["x"], "model": ["m"]}).to_parquet(table)
        assert FORMAT.place_of(Candidate(table)) is None

    def test_a_view_in_the_place_of_a_table_is_not_run(self, tmp_path):
        place = tmp_path / "trap.db"
        with sqlite3.connect(place) as sql:
            for table in ("studies", "trial_params", "trial_values", "version_info"):
                sql.execute(f"CREATE TABLE {table} (study_id)")
            sql.execute(
                "CREATE VIEW trials AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 "
                "FROM c) SELECT x AS trial_id FROM c"
            )
        sql.close()
        assert FORMAT.place_of(Candidate(place)) is None
        with pytest.raises(BadLogError, match="the schema is not one of Optuna"):
            list(FORMAT.read(place, LogFiles()))


def test_a_frame_of_csv_writer_with_quotes_is_recognised(tmp_path):
    place = tmp_path / "quoted.csv"
    with place.open("w", newline="") as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_ALL)
        writer.writerow(["number", "value", "duration", "state"])
        writer.writerow(["0", "1.5", "0 days", "COMPLETE"])
    (run,) = runs_of(place)
    assert run.series[0].values == [1.5]
