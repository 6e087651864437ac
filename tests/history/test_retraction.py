"""Mistakes are taken back: ingests have ids, runs are retracted, replaced and brought back."""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core.errors import DataError, RefusedError, UnknownIdError, UsageError
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.quarantine import ReadBatch
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import read_table
from recsys_ms.history.run import Run
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.dedup import ADDED_LATER
from recsys_ms.history.store.schema import runs_to_table


def make(run_id: str, value: float | None = 0.5, status: Any = "finished", **more: Any) -> Run:
    fields: dict[str, Any] = {
        "model_id": f"m-{run_id}",
        "task_id": "t",
        "metric": "accuracy",
        "direction": "max",
        **more,
    }
    return Run(run_id=run_id, value=value, status=status, **fields)


def batch(file: str, *runs: Run, progress: tuple[int | None, ...] | None = None) -> ReadBatch:
    return ReadBatch(runs=runs_to_table(runs), file=file, progress=progress)


def values(history: History) -> dict[str, float]:
    frame = history.runs(["run_id", "value"])
    return dict(zip(frame["run_id"], frame["value"], strict=True))


def retracted(history: History) -> set[str]:
    frame = history.runs(retracted=True)
    return set(frame.loc[frame["retraction"].notna(), "run_id"])


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "h")


# Ingests have ids


def test_every_ingest_is_recorded_with_its_source_its_mapping_and_its_counts(
    history: History, tmp_path: Path
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("m,task_id,metric,direction,value\na,t,accuracy,max,.5\nb,t,accuracy,max,\n")
    report = history.ingest(read_table(table, FieldMapping(map={"model_id": "{m}"})))
    history.ingest_inbox()
    again = history.ingest(read_table(table, FieldMapping(map={"model_id": "{m}"})))
    found = history.ingests()
    assert found["ingest_id"].tolist() == sorted([report.ingest_id, again.ingest_id])
    first = found.set_index("ingest_id").loc[report.ingest_id]
    assert first["operation"] == "ingest"
    assert first["sources"] == [str(table.resolve())]
    assert first["options"]["mapping"] == {"map": {"model_id": "{m}"}}
    assert (first["n_read"], first["n_new"], first["n_quarantined"], first["n_runs"]) == (
        2,
        1,
        1,
        1,
    )
    assert first["history_version"] == 1
    assert abs(first["at"] - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=5)
    assert history.runs(["ingest_id"])["ingest_id"].tolist() == [report.ingest_id]
    sql = "SELECT count(*) AS n FROM runs WHERE ingest_id IS NULL"
    assert history.query(sql)["n"].tolist() == [0]


def test_the_ingest_of_an_inbox_has_an_id_and_an_empty_inbox_leaves_no_record(
    history: History,
) -> None:
    assert history.ingest_inbox().ingest_id == ""
    assert history.ingests().empty
    payload = {"run_id": "a", "model_id": "m", "task_id": "t", "metric": "x", "direction": "max"}
    (history.inbox / "a.json").write_text(json.dumps({**payload, "value": 0.5}))
    report = history.ingest_inbox()
    assert history.ingests()["ingest_id"].tolist() == [report.ingest_id]
    assert history.ingests()["sources"].tolist() == [[str(history.inbox)]]


def test_a_damaged_record_is_named(history: History) -> None:
    report = history.append([make("a")])
    path = history.path / "ingests" / f"{report.ingest_id}.json"
    for text in ("", "{", "[]", "null", '{"counts": 3}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(DataError, match=report.ingest_id):
            history.ingests()
    path.unlink()
    # Its runs still say that it took place.
    assert history.ingests()[["ingest_id", "n_runs"]].values.tolist() == [[report.ingest_id, 1]]


def test_ids_sort_in_the_order_of_the_ingests_whatever_the_clock_says(history: History) -> None:
    ids = [history.append([make(name)]).ingest_id for name in "abcdef"]
    record = history.path / "ingests" / f"{ids[-1]}.json"
    later = "i-20990101T000000-00ff"
    text = record.read_text().replace(ids[-1], later)
    record.with_name(f"{later}.json").write_text(text)
    ids += [later, *(history.append([make(name)]).ingest_id for name in "gh")]
    assert ids == sorted(ids)
    assert ids[-1] == "i-20990101T000000-0101"


# Retraction


def test_a_retracted_run_is_kept_and_counts_no_longer(history: History) -> None:
    history.append([make("a", 0.5), make("b", 0.75)])
    wrong = history.append([make("x", 0.061), make("y", 0.062)])
    done = history.retract(wrong.ingest_id, reason="percent")
    assert done.n_runs == 2
    assert values(history) == {"a": 0.5, "b": 0.75}
    assert Interactions.from_runs(history).values.max() == 0.75
    assert history.query("SELECT count(*) AS n FROM runs")["n"].tolist() == [2]
    sql = "SELECT run_id, value, retraction FROM retracted_runs ORDER BY 1"
    assert history.query(sql).values.tolist() == [
        ["x", 0.061, done.ingest_id],
        ["y", 0.062, done.ingest_id],
    ]
    assert len(history.runs(retracted=True)) == 4
    # Versioned: the history as it was is as it was.
    assert len(history.at(2).runs()) == 4
    listed = history.ingests().set_index("ingest_id")
    assert listed.loc[wrong.ingest_id, ["n_runs", "n_runs_retracted"]].tolist() == [0, 2]
    assert listed.loc[done.ingest_id, ["operation", "n_retracted", "reason"]].tolist() == [
        "retract",
        2,
        "percent",
    ]


@pytest.mark.parametrize("by", ["ingest", "retraction", "id", "where"])
def test_undo_brings_back_what_was_retracted(history: History, by: str) -> None:
    ingest = history.append([make("a", 0.5), make("b", 0.75)]).ingest_id
    before = history.runs()
    retraction = history.retract(ingest).ingest_id
    assert history.runs().empty
    asked: dict[str, Any] = {
        "ingest": {"ingest": ingest},
        "retraction": {"ingest": retraction},
        "id": {"run_ids": ["a", "b"]},
        "where": {"where": "value BETWEEN 0 AND 1 -- both"},
    }[by]
    assert history.retract(undo=True, **asked).n_runs == 2
    pd.testing.assert_frame_equal(history.runs(), before)
    assert history.retract(undo=True, **asked).n_runs == 0


def test_conditions_are_joined_and_a_dry_run_changes_nothing(history: History) -> None:
    first = history.append([make("a", 0.5), make("b", 0.75)]).ingest_id
    history.append([make("c", 0.75)])
    version = history.version
    found = history.retract(first, where="value > 0.6", dry_run=True)
    assert found.runs["run_id"].tolist() == ["b"]
    assert (found.ingest_id, history.version, len(history.ingests())) == ("", version, 2)
    history.retract(first, where="value > 0.6")
    assert set(values(history)) == {"a", "c"}
    # Again: nothing to do, and no version.
    version = history.version
    assert history.retract(run_ids="b").n_runs == 0
    assert history.version == version


def test_wrong_questions_of_a_retraction(history: History) -> None:
    ingest = history.append([make("a")]).ingest_id
    with pytest.raises(UsageError, match="--where"):
        history.retract()
    with pytest.raises(UnknownIdError, match="ingests lists"):
        history.retract(ingest[:-1] + "z")
    with pytest.raises(UnknownIdError, match="no run has the id 'b'"):
        history.retract(run_ids=["a", "b"])
    for where in ("vaule > 1", "1) FROM runs; DROP VIEW runs; --", ""):
        with pytest.raises(DataError):
            history.retract(where=where)
    with pytest.raises(RefusedError):
        history.at(0).retract(ingest)
    assert values(history) == {"a": 0.5}


def test_curves_of_retracted_runs_are_kept(history: History) -> None:
    point = {"run_id": "a", "step": 1, "metric": "accuracy", "value": 0.25}
    curves = pa.Table.from_pylist([point], schema=CURVE_SCHEMA)
    history.ingest([ReadBatch(runs=runs_to_table([make("a")]), curves=curves)])
    history.retract(run_ids=["a"])
    assert history.curves(["a"])["value"].tolist() == [0.25]


def test_a_retracted_run_stays_so_when_its_log_is_read_again_or_goes_on(history: History) -> None:
    log = [batch("log", make("a"), make("b", None, "running"), progress=(9, 3))]
    history.ingest(log)
    history.retract(run_ids=["a", "b"])
    report = history.ingest(log)
    assert (report.n_duplicate, report.n_still_retracted) == (2, 2)
    further = batch("log", make("a", 0.6), make("b", 0.7), progress=(12, 6))
    report = history.ingest([further])
    assert (report.n_updated, report.n_still_retracted) == (2, 2)
    assert history.runs().empty
    history.retract(where="true", undo=True)
    assert values(history) == {"a": 0.6, "b": 0.7}


def test_another_reading_takes_the_place_of_a_retracted_run(history: History) -> None:
    ingest = history.append([make("a", 0.061)]).ingest_id
    report = history.append([make("a", 0.61)])
    assert report.n_quarantined == 1
    reason = history.quarantine.table()["reason"].iloc[0]
    assert "--replace" in reason
    assert "recsys-ms retract" in reason
    history.retract(ingest)
    # The way out that the message names.
    report = history.replay()
    assert (report.n_updated, report.n_quarantined) == (1, 0)
    assert values(history) == {"a": 0.61}
    assert history.append([make("a", 0.061)]).n_duplicate == 1
    assert values(history) == {"a": 0.61}


# Replacing


MAPPED = {"map": {"model_id": "{model}", "task_id": "{data}", "value": "{acc}"}}
NAMED = {"set": {"metric": "accuracy", "direction": "max"}}


def test_a_table_in_percent_is_read_again_in_the_right_unit(
    history: History, tmp_path: Path
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("model,data,acc\na,pets,0.61\nb,pets,0.62\n")
    history.ingest(read_table(table, FieldMapping(**MAPPED, **NAMED)))
    report = history.ingest(
        read_table(table, FieldMapping(**MAPPED, **NAMED, unit="percent")), replace=True
    )
    assert (report.n_updated, report.n_retracted, report.n_quarantined) == (2, 0, 0)
    assert sorted(values(history).values()) == pytest.approx([0.0061, 0.0062])
    # And back; then there is nothing to do.
    for n_updated in (2, 0):
        report = history.ingest(read_table(table, FieldMapping(**MAPPED, **NAMED)), replace=True)
        assert report.n_updated == n_updated
        assert sorted(values(history).values()) == [0.61, 0.62]


def test_runs_of_other_ids_are_retracted_in_the_same_commit(
    history: History, tmp_path: Path
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("model,data,acc\na,pets,0.61\nb,pets,0.62\n")
    history.append([make("other")])
    wrong = {"map": {**MAPPED["map"], "task_id": "{_stem}"}}
    history.ingest(read_table(table, FieldMapping(**wrong, **NAMED)))
    version = history.version
    right = FieldMapping(**MAPPED, **NAMED)
    report = history.ingest(read_table(table, right), replace=True)
    assert (report.n_new, report.n_retracted) == (2, 2)
    assert history.version == version + 1
    assert sorted(history.runs()["task_id"]) == ["pets", "pets", "t"]
    assert history.ingests()["operation"].tolist()[-1] == "replace"
    # A row that was deleted from the table goes, too; one that was refused does not come.
    table.write_text("model,data,acc\na,pets,0.61\nc,pets,high\n")
    report = history.ingest(read_table(table, right), replace=True)
    assert (report.n_duplicate, report.n_retracted, report.n_quarantined) == (1, 1, 1)
    assert sorted(history.runs()["model_id"]) == ["a", "m-other"]
    # The wrong mapping again brings its runs back, and retracts the others.
    history.ingest(read_table(table, FieldMapping(**wrong, **NAMED)), replace=True)
    assert sorted(history.runs()["task_id"]) == ["runs", "t"]


def test_a_log_that_gives_no_run_now_keeps_its_runs(history: History, tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("model,data,acc\na,pets,0.61\n")
    mapping = FieldMapping(**MAPPED, **NAMED)
    history.ingest(read_table(table, mapping))
    none = mapping.overridden(where="data = 'birds'")
    assert history.ingest(read_table(table, none), replace=True).n_retracted == 0
    assert len(history.runs()) == 1


def test_what_was_quarantined_of_the_log_is_dealt_with(history: History, tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("model,data,acc\na,pets,n/a\nb,pets,0.62\n")
    history.ingest(read_table(table, FieldMapping(**MAPPED, **NAMED)))
    history.ingest([ReadBatch(runs=runs_to_table([make("x")]).slice(0, 0), file="other")])
    assert len([*history.quarantine.pending()]) == 1
    mapping = FieldMapping(**MAPPED, **NAMED, missing=("n/a",))
    history.ingest(read_table(table, mapping), replace=True)
    assert not [*history.quarantine.pending()]
    assert set(history.runs()["status"]) == {"failed", "finished"}


def test_a_log_of_two_stages_is_replaced_by_its_last(history: History) -> None:
    def log(first: float, last: float) -> list[ReadBatch]:
        return [
            batch("f/10", make("a", first), progress=(10,)),
            batch("f/20", make("a", last), progress=(20,)),
        ]

    history.ingest(log(0.1, 0.2))
    for again in (False, True):
        report = history.ingest(log(0.3, 0.4), replace=True)
        assert values(history) == {"a": 0.4}
        assert report.n_quarantined == 0
        assert report.n_updated == (0 if again else 1)


def test_a_log_that_contradicts_itself_is_replaced_once(history: History) -> None:
    history.ingest([batch("log", make("a", 0.1))])
    for _ in range(2):
        report = history.ingest([batch("log", make("a", 0.2), make("a", 0.3))], replace=True)
        assert values(history) == {"a": 0.2}
        assert report.n_quarantined == 1


CASE = Path(__file__).parents[3] / "shared/cases/logs/15-wrong-run-cannot-be-corrected"


@pytest.mark.skipif(not CASE.is_dir(), reason="../shared/cases is not beside the repository")
@pytest.mark.parametrize("way", ["replace", "retract"])
def test_case_15_a_wrong_mapping_is_corrected(history: History, tmp_path: Path, way: str) -> None:
    log = tmp_path / "log"
    shutil.copytree(CASE, log)
    wrong = FieldMapping(map={"task_id": "{_folder}"}, set={"model_id": "m"})
    right = wrong.overridden(set={"metric": "f1"})
    ingest = history.ingest(read_log(log, wrong)).ingest_id
    assert history.runs()["metric"].tolist() == ["loss"]
    if way == "retract":
        history.retract(ingest)
    history.ingest(read_log(log, right), replace=way == "replace")
    frame = history.runs()
    assert frame[["metric", "direction"]].values.tolist() == [["f1", "max"]]
    assert frame["value"].tolist() == pytest.approx([0.9870875179340028])
    assert not [*history.quarantine.pending()]


# Histories of earlier versions


def test_a_history_of_an_earlier_version_is_read_and_retracted_from(history: History) -> None:
    history.append([make("a", 0.5), make("b", 0.75)])
    rows = DeltaTable(history.path / "runs").to_pyarrow_table()
    old = rows.drop_columns(sorted(ADDED_LATER))
    shutil.rmtree(history.path / "runs")
    shutil.rmtree(history.path / "ingests")
    shutil.rmtree(history.path / "archive" / "copies")
    write_deltalake(history.path / "runs", old.slice(0, 0))
    write_deltalake(history.path / "runs", old, mode="append")
    (history.path / "history.json").write_text('{"format": 1, "version": 1}')
    history = History.open(history.path)
    assert values(history) == {"a": 0.5, "b": 0.75}
    assert history.runs(["ingest_id"])["ingest_id"].isna().all()
    assert history.ingests().empty
    assert history.append([make("a", 0.5), make("c", 0.25)]).n_duplicate == 1
    assert values(history) == {"a": 0.5, "b": 0.75, "c": 0.25}
    history.retract(run_ids=["a"])
    assert values(history) == {"b": 0.75, "c": 0.25}
    # By null, on both sides of the change of columns.
    sql = "SELECT run_id FROM runs WHERE ingest_id IS {} NULL ORDER BY 1"
    assert history.query(sql.format(""))["run_id"].tolist() == ["b"]
    assert history.query(sql.format("NOT"))["run_id"].tolist() == ["c"]
    assert history.ingest([batch("x", make("b", 0.7))], replace=True).n_updated == 1
    history.retract(where="true", undo=True)
    assert values(history) == {"a": 0.5, "b": 0.7, "c": 0.25}


# Any sequence


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Known:
    value: float
    file: str
    ingest: str
    active: bool = True
    #: The replacing ingest that retracted it, if one did.
    retracted_by: str = ""
    seen: set[float] = field(default_factory=set)


class Model:
    """What the documentation says, in plain Python."""

    def __init__(self) -> None:
        self.runs: dict[str, Known] = {}

    def ingest(self, name: str, file: str, rows: list[tuple[str, float]], *, replace: bool) -> None:
        again: set[str] = set()
        for run_id, value in rows:
            known = self.runs.get(run_id)
            over = replace and run_id not in again
            again.add(run_id)
            if known is None:
                self.runs[run_id] = Known(value, file, name, seen={value})
            elif over and (not known.active or known.value != value):
                self._set(known, value, file, name)
            elif value in known.seen:
                continue
            elif not known.active:
                self._set(known, value, file, name)
        if replace and rows:
            for run_id, known in self.runs.items():
                if known.active and known.file == file and run_id not in again:
                    known.active, known.retracted_by = False, name

    @staticmethod
    def _set(known: Known, value: float, file: str, name: str) -> None:
        known.value, known.file, known.ingest = value, file, name
        known.active, known.retracted_by = True, ""
        known.seen.add(value)

    def active(self) -> dict[str, float]:
        return {name: known.value for name, known in self.runs.items() if known.active}


IDS = st.sampled_from(["a", "b", "c", "d"])
ROWS = st.lists(st.tuples(IDS, st.sampled_from([0.25, 0.5, 0.75])), max_size=4)
READS = st.tuples(st.sampled_from(["ingest", "replace"]), st.sampled_from(["f", "g"]), ROWS)
TAKES = st.tuples(
    st.sampled_from(["retract", "undo"]),
    st.sampled_from(["ids", "where", "ingest"]),
    st.tuples(IDS, st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 9)),
)
#: Where a process is killed: a method, and whether what it did has happened by then.
KILLS = st.sampled_from(
    [
        None,
        None,
        "RunStore.append:0",
        "RunStore.append:1",
        "Inventory.update:0",
        "IngestRecords.add:0",
    ]
)


def kill_at(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    name, _, when = place.partition(":")
    target = f"recsys_ms.history.history.{name}"
    owner, _, method = name.rpartition(".")
    import recsys_ms.history.history as module

    real = getattr(getattr(module, owner), method) if owner else getattr(module, name)

    def killed(*given: Any, **named: Any) -> Any:
        if int(when):
            real(*given, **named)
        raise Killed

    monkeypatch.setattr(target, killed)


STEPS = st.lists(st.tuples(READS | TAKES, KILLS), min_size=2, max_size=7)


@settings(max_examples=10, deadline=None)
@given(STEPS)
def test_any_sequence_leaves_what_the_model_says(steps: list[tuple[Any, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_sequence(Path(folder), steps)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_many_sequences_leave_what_the_model_says(steps: list[tuple[Any, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_sequence(Path(folder), steps)


def check_sequence(path: Path, steps: list[tuple[Any, str | None]]) -> None:
    model = Model()
    ingests: list[str] = []
    History.open(path)
    versions: dict[int, dict[str, float]] = {}
    for (operation, what, given_), kill in steps:
        history = History.open(path)
        before = history.version
        with pytest.MonkeyPatch.context() as patch:
            if kill is not None:
                kill_at(patch, kill)
            try:
                if operation in ("ingest", "replace"):
                    rows = [make(run_id, value) for run_id, value in given_]
                    history.ingest([batch(what, *rows)], replace=operation == "replace")
                else:
                    run_id, value, number = given_
                    undo = operation == "undo"
                    asked: dict[str, Any] = {"where": f"value = {value}"}
                    chosen = {n for n, k in model.runs.items() if k.value == value}
                    if what == "ids" and run_id in model.runs:
                        asked, chosen = {"run_ids": [run_id]}, {run_id}
                    if what == "ingest" and ingests:
                        name = ingests[number % len(ingests)]
                        asked = {"ingest": name}
                        chosen = {
                            n
                            for n, k in model.runs.items()
                            if k.ingest == name or (undo and k.retracted_by == name)
                        }
                    history.retract(undo=undo, **asked)
            except Killed:
                pass
        committed = kill != "RunStore.append:0"
        history = History.open(path)
        if operation in ("ingest", "replace"):
            # The id is on the rows, whether or not the record was written.
            name = max(history.ingests()["ingest_id"], default="")
            fresh = {
                *history.runs(retracted=True)["ingest_id"],
                *history.runs(retracted=True)["retraction"].dropna(),
            } - set(ingests)
            if committed:
                model.ingest(max(fresh, default=name), what, given_, replace=operation == "replace")
            ingests = sorted({k.ingest for k in model.runs.values()} | set(ingests))
        elif committed:
            for name in chosen:
                if model.runs[name].active != undo:
                    model.runs[name].active, model.runs[name].retracted_by = undo, ""
        assert values(history) == model.active()
        assert retracted(history) == {n for n, k in model.runs.items() if not k.active}
        every = history.runs(retracted=True)
        assert {*every["ingest_id"], *every["retraction"].dropna()} <= set(
            history.ingests()["ingest_id"]
        )
        # Nothing that was is lost.
        assert history.version >= before
        versions[history.version] = model.active()
        for version, were in versions.items():
            assert values(history.at(version)) == were
