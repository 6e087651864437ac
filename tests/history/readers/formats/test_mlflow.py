"""MLflow's stores as several versions of MLflow wrote them, grown, locked and damaged."""

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from history.readers.frameworks import mlflow_stores
from history.readers.frameworks.reading import locked

from recsys_ms.core.errors import StorageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.formats import mlflow_database, mlflow_folder
from recsys_ms.history.readers.formats.mlflow import Mlflow
from recsys_ms.history.readers.formats.mlflow_run import MetricPoint, MlflowRun
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate, LogFiles, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = Mlflow()
MAPPING = FieldMapping(set={"metric": "acc", "direction": "max"})
#: What the metrics of every store are, as its own version of MLflow told.
TOLD = {
    "plain": [0.5, 0.9, 0.7],
    "nan": [math.nan, math.nan],
    "infinite": [math.inf, -math.inf, 0.25],
    "child": [0.4],
    "crashed": [0.2],
    "running": [0.3],
    "deleted": [0.99],
    "stepless": [0.6, 0.8, 0.65],
    "data": [0.6],
    "gone": [0.1],
}


@pytest.fixture(
    scope="module",
    params=[
        *mlflow_stores.STORES,
        *(pytest.param(("now", k), marks=pytest.mark.slow) for k in ("sqlite", "folder")),
    ],
    ids="-".join,
)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a store."""
    version, kind = request.param
    folder = tmp_path_factory.mktemp("store").resolve()
    if version == "now":
        pytest.importorskip("mlflow", reason="extra mlflow: no store can be written")
        mlflow_stores.write(sys.executable, kind, folder)
    else:
        mlflow_stores.lay_out(version, kind, folder)
    return folder


def of_kind(kind: str) -> pytest.MarkDecorator:
    versions = [each for each in mlflow_stores.STORES if each[1] == kind]
    return pytest.mark.parametrize("stored", [versions[-1]], indirect=True, ids="-".join)


of_databases = of_kind("sqlite")
of_folders = of_kind("folder")


@pytest.fixture
def store(stored: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may change."""
    copy = tmp_path / "copy"
    shutil.copytree(stored, copy)
    return copy


def places(folder: Path) -> list[Path]:
    return [log.place for log in find_logs(folder, "mlflow").logs]


def items(*paths: Path) -> Iterator[LoggedRun | BadLog]:
    for path in paths:
        try:
            yield from FORMAT.read(path, LogFiles())
        except BadLogError as error:
            yield error.bad


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, with its time and its size."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


def runs_of(folder: Path) -> dict[str, LoggedRun]:
    ids = {run: name for name, run in json.loads((folder / "ids.json").read_text()).items()}
    found = list(items(*places(folder)))
    assert not [item for item in found if isinstance(item, BadLog)]
    return {ids[item.identity.removeprefix("mlflow:")]: item for item in found}  # type: ignore[union-attr]


def values_of(run: LoggedRun, name: str) -> list[float]:
    return [value for each in run.series if each.name == name for value in each.values]


def test_a_store_is_found_by_what_it_holds(stored: Path) -> None:
    found = places(stored)
    if (stored / "mlflow.db").exists():
        assert found == [stored / "mlflow.db"]
    else:
        # One experiment is a log, also one that was deleted.
        assert {path.parent.name for path in found} == {"mlruns", ".trash"}
        assert len(found) == 3


def test_every_run_of_every_experiment_is_read(stored: Path) -> None:
    runs = runs_of(stored)
    assert set(runs) == set(json.loads((stored / "ids.json").read_text()))
    plain = runs["plain"]
    assert plain.columns["experiment"] == "fine-tuning"
    assert plain.columns["run_name"] == "plain"
    assert (plain.fields["model_id"], plain.fields["task_id"]) == ("resnet18", "birds")
    assert plain.fields["hyperparameters"] == {
        "model": "resnet18",
        "dataset": "birds",
        "lr": 0.1,
        "depth": 18,
        "amp": "True",
    }
    assert plain.fields["tags"]["team"] == "vision"
    assert plain.fields["started_at"] < plain.fields["finished_at"]
    status = {name: run.fields["status"] for name, run in runs.items()}
    finished = ("plain", "nan", "infinite", "child", "parent", "stepless", "data")
    assert status == {
        **{name: "finished" for name in finished if name in runs},
        **dict.fromkeys(("crashed", "killed", "deleted"), "failed"),
        "running": "running",
        # Its experiment was deleted, and its runs with it in a folder; a database keeps them.
        "gone": status["gone"],
    }
    assert runs["deleted"].fields["tags"]["mlflow.lifecycle_stage"] == "deleted"
    assert runs["child"].columns["parent_run_id"] == runs["parent"].columns["mlflow_run_id"]
    assert runs["parent"].series == ()


def test_every_value_is_as_mlflow_itself_tells(stored: Path) -> None:
    runs = runs_of(stored)
    for name, values in TOLD.items():
        if name in runs:
            assert repr(values_of(runs[name], "val_acc")) == repr(values), name
    told = json.loads((stored / "told.json").read_text())
    for name in ("plain", "child", "crashed", "running", "deleted", "stepless"):
        for key, values in told[name].items():
            assert values_of(runs[name], key) == values


def test_the_whole_history_of_a_metric(stored: Path) -> None:
    runs = runs_of(stored)
    by_name = {series.name: series for series in runs["plain"].series}
    accuracy = by_name["val_acc"]
    assert (accuracy.metric, accuracy.split) == ("acc", "val")
    assert list(accuracy.steps) == [0, 1, 2]
    assert list(accuracy.epochs) == [0.0, 0.5, 1.0]
    assert (by_name["train/loss"].metric, by_name["train/loss"].split) == ("loss", "train")
    # Logged without a step, which MLflow keeps as step 0: numbered in the order of logging.
    [stepless] = runs["stepless"].series
    assert list(stepless.steps) == [0, 1, 2]


def test_a_data_set_that_was_logged_names_task_and_fingerprint(stored: Path) -> None:
    runs = runs_of(stored)
    if "data" in runs:  # MLflow logs data sets since 2.4
        run = runs["data"]
        [data] = run.columns["datasets"]
        assert (data["name"], data["context"]) == ("birds-csv", "training")
        assert run.fields["task_id"] == "birds-csv"
        assert run.fields["dataset_fingerprint"] == data["digest"] != ""
    assert "dataset_fingerprint" not in runs["plain"].fields


def test_best_and_last_through_the_history(stored: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    report = history.ingest(read_log(stored, MAPPING))
    # Those that name no model wait in quarantine.
    n_data = "data" in runs_of(stored)
    assert (report.n_new, report.n_quarantined) == (7 + n_data, 4)
    runs = history.runs().set_index("run_id")
    ids = json.loads((stored / "ids.json").read_text())
    plain = runs.loc[f"mlflow-{ids['plain']}"]
    assert (plain["value"], plain["epoch"], plain["value_kind"]) == (0.9, 0.5, "best")
    stepless = runs.loc[f"mlflow-{ids['stepless']}"]
    assert (stepless["value"], stepless["value_kind"]) == (0.8, "best")
    curve = history.curves([f"mlflow-{ids['stepless']}"])
    assert list(curve["value"]) == [0.6, 0.8, 0.65]
    assert json.loads(runs.loc[f"mlflow-{ids['nan']}", "tags"])["error"] == "no finite val_acc"
    assert json.loads(runs.loc[f"mlflow-{ids['deleted']}", "tags"])["mlflow.lifecycle_stage"]
    last = History.open(tmp_path / "last")
    last.ingest(read_log(stored, MAPPING.overridden(set={"value_kind": "last"})))
    assert last.runs().set_index("run_id").loc[f"mlflow-{ids['plain']}", "value"] == 0.7
    active = History.open(tmp_path / "active")
    left = active.ingest(read_log(stored, MAPPING.overridden(where="lifecycle_stage = 'active'")))
    assert left.n_left_out >= 1
    again = history.ingest(read_log(stored, MAPPING))
    assert (again.n_new, again.n_updated, again.n_duplicate) == (0, 0, 7 + n_data)


def test_nothing_is_written_beside_a_store(stored: Path) -> None:
    before = listing(stored)
    runs_of(stored)
    assert listing(stored) == before


def grow(path: Path, run_id: str) -> None:
    """What a job that goes on and ends leaves in a database."""
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
        "VALUES ('val_acc', 0.8, 9000000000000, ?, 2, 0)",
        (run_id,),
    )
    connection.execute(
        "UPDATE runs SET status = 'FINISHED', end_time = 9000000000001 WHERE run_uuid = ?",
        (run_id,),
    )
    connection.commit()
    connection.close()


@of_databases
def test_a_running_run_that_ends_is_updated(store: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    mapping = MAPPING.overridden(set={"model_id": "m", "task_id": "t"})
    history.ingest(read_log(store, mapping))
    run_id = json.loads((store / "ids.json").read_text())["running"]
    row = history.runs().set_index("run_id").loc[f"mlflow-{run_id}"]
    assert (row["status"], row["value"]) == ("running", 0.3)
    grow(store / "mlflow.db", run_id)
    report = history.ingest(read_log(store, mapping))
    assert (report.n_new, report.n_updated) == (0, 1)
    row = history.runs().set_index("run_id").loc[f"mlflow-{run_id}"]
    assert (row["status"], row["value"]) == ("finished", 0.8)
    assert len(history.curves([f"mlflow-{run_id}"])) == 2


@of_databases
def test_more_runs_than_one_chunk_are_all_read_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store / "mlflow.db"
    connection = sqlite3.connect(path)
    for number in range(600):
        connection.execute(
            "INSERT INTO runs (run_uuid, status, start_time, experiment_id, lifecycle_stage) "
            "VALUES (?, 'FINISHED', 1, 1, 'active')",
            (f"{number:032x}",),
        )
        connection.execute(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "VALUES ('val_acc', ?, 1, ?, 0, 0)",
            (number / 600, f"{number:032x}"),
        )
    connection.commit()
    connection.close()
    whole = [item.to_json() for item in items(path) if isinstance(item, LoggedRun)]
    assert len(set(whole)) == len(whole) == 600 + len(json.loads((store / "ids.json").read_text()))
    # A few values at a time give the same.
    monkeypatch.setattr(mlflow_database, "_POINTS_PER_CHUNK", 3)
    assert [item.to_json() for item in items(path) if isinstance(item, LoggedRun)] == whole


@of_databases
def test_a_locked_store_is_told_of_and_nothing_is_asked(store: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    with locked(store / "mlflow.db"):
        report = history.ingest(read_log(store / "mlflow.db", FieldMapping()))
    assert (report.n_new, report.n_quarantined) == (0, 1)
    [reason] = history.quarantine.table()["reason"]
    assert "locked by another process" in reason
    # Once the lock is gone, the next ingest reads it.
    assert history.ingest(read_log(store / "mlflow.db", MAPPING)).n_new > 0


def problems(path: Path) -> list[str]:
    return [item.reason for item in items(path) if isinstance(item, BadLog)]


@of_databases
def test_a_store_before_steps_and_nan_is_read(store: Path) -> None:
    connection = sqlite3.connect(store / "mlflow.db")
    connection.executescript(
        "CREATE TABLE old AS SELECT key, value, timestamp, run_uuid FROM metrics;"
        "DROP TABLE metrics; ALTER TABLE old RENAME TO metrics;"
        "CREATE TABLE old AS SELECT run_uuid, status, experiment_id FROM runs;"
        "DROP TABLE runs; ALTER TABLE old RENAME TO runs; DROP TABLE datasets;"
    )
    connection.close()
    runs = runs_of(store)
    assert values_of(runs["plain"], "val_acc") == [0.5, 0.9, 0.7]
    assert runs["plain"].fields["status"] == "finished"


@of_databases
def test_a_damaged_database_is_named(store: Path, tmp_path: Path) -> None:
    whole = (store / "mlflow.db").read_bytes()
    path = tmp_path / "other.db"
    for size in (100, 5_000, len(whole) // 2, len(whole) - 3_000):
        path.write_bytes(whole[:size])
        if FORMAT.place_of(Candidate(path)) is not None:
            # Either the damage is seen, or it hit no page that is read.
            assert problems(path) or size > len(whole) // 2
    path.write_bytes(b"\x00\xff" * 2_048)
    assert FORMAT.place_of(Candidate(path)) is None
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE runs (a)").connection.close()
    assert FORMAT.place_of(Candidate(path)) is None
    # By the name that MLflow gives it is claimed, whatever it holds.
    named = tmp_path / "mlflow.db"
    for content, told in (
        (b"\x00\xff" * 2_048, "cannot be read"),
        (path.read_bytes(), "no such table"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
    ):
        named.write_bytes(content)
        assert FORMAT.place_of(Candidate(named)) == named
        [reason] = problems(named)
        assert told in reason


@of_databases
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE metrics SET value = 'high' WHERE value = 0.9", "metric 'val_acc': value 'high'"),
        ("UPDATE metrics SET step = 'two' WHERE step = 2", "step 'two'"),
        ("UPDATE metrics SET timestamp = x'00'", "timestamp b'"),
        ("UPDATE params SET value = x'ff00' WHERE key = 'lr'", "'lr' is b'"),
        ("UPDATE metrics SET key = x'00'", "metric b'"),
    ],
)
def test_a_value_of_another_type_costs_itself_and_is_told(
    store: Path, change: str, told: str
) -> None:
    connection = sqlite3.connect(store / "mlflow.db")
    connection.execute("PRAGMA ignore_check_constraints = on; ")
    connection.execute(change)
    connection.commit()
    connection.close()
    found = list(items(store / "mlflow.db"))
    bad = [item.reason for item in found if isinstance(item, BadLog)]
    assert bad
    assert all(told in reason for reason in bad)
    ids = json.loads((store / "ids.json").read_text())
    assert {f"mlflow:{i}" for i in ids.values()} == {
        item.identity for item in found if isinstance(item, LoggedRun)
    }


@of_folders
def test_folders_as_git_leaves_them(store: Path) -> None:
    before = {name: run.to_json() for name, run in runs_of(store).items()}
    ids = json.loads((store / "ids.json").read_text())
    for folder in sorted(store.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    assert {name: run.to_json() for name, run in runs_of(store).items()} == before
    # Without the file of the experiment each run is a log of its own.
    [home] = store.glob(f"mlruns/*/{ids['plain']}/..")
    (home.resolve() / "meta.yaml").unlink()
    assert runs_of(store).keys() == before.keys()
    assert runs_of(store)["plain"].columns["experiment"] == home.resolve().name
    # One folder of a run is that run alone, wherever it is.
    assert [Path(each).name for each in places(home.resolve() / ids["plain"])] == [ids["plain"]]


@of_folders
def test_damaged_runs_of_a_folder_leave_the_others(store: Path) -> None:
    ids = json.loads((store / "ids.json").read_text())
    folder = {
        run: next((store / "mlruns").glob(f"*/{ids[run]}"))
        for run in ("plain", "nan", "stepless", "child", "infinite")
    }
    (folder["plain"] / "metrics" / "val_acc").write_text("yesterday 0.5\n1 0.9 1\n1\n")
    (folder["nan"] / "meta.yaml").write_text("run_id: [\n")
    (folder["stepless"] / "meta.yaml").unlink()
    (folder["infinite"] / "meta.yaml").write_text("status: !!int ''\n")
    # Cut while it was written.
    (folder["child"] / "metrics" / "val_acc").write_text("1 0.4 0\n2 0.6 1\n3 0.")
    found = list(items(*places(store)))
    bad = {str(item.file.relative_to(store)): item for item in found if isinstance(item, BadLog)}
    runs = {item.identity: item for item in found if isinstance(item, LoggedRun)}
    assert {f"mlflow:{ids[run]}" for run in ("child", "crashed", "running")} <= runs.keys()
    assert values_of(runs[f"mlflow:{ids['plain']}"], "val_acc") == [0.9]
    assert values_of(runs[f"mlflow:{ids['child']}"], "val_acc") == [0.4, 0.6]
    told = {Path(name).parts[2:]: item for name, item in bad.items()}
    assert told[ids["plain"], "metrics", "val_acc"].line == 1
    assert "and 1 more lines" in told[ids["plain"], "metrics", "val_acc"].reason
    assert told[ids["child"], "metrics", "val_acc"].cut
    assert (ids["nan"], "meta.yaml") in told
    assert (ids["infinite"], "meta.yaml") in told


def test_more_values_than_any_training_are_refused(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (mlflow_database, mlflow_folder):
        monkeypatch.setattr(module, "MOST_VALUES", 3)
    found = list(items(*places(stored)))
    reasons = [item.reason for item in found if isinstance(item, BadLog)]
    assert reasons
    assert all("more than the 3 of any training" in reason for reason in reasons)
    assert any(isinstance(item, LoggedRun) for item in found)


@of_folders
def test_links_and_pipes_in_a_folder_are_told_and_not_followed(store: Path) -> None:
    ids = json.loads((store / "ids.json").read_text())
    [folder] = store.glob(f"mlruns/*/{ids['plain']}")
    (folder / "params" / "secret").symlink_to("/etc/hostname")
    os.mkfifo(folder / "metrics" / "pipe")
    found = list(items(*places(store)))
    bad = {item.file.name: item for item in found if isinstance(item, BadLog)}
    assert set(bad) == {"secret", "pipe"}
    assert not any(item.raw for item in bad.values())


def test_metrics_before_1_0_have_no_step(tmp_path: Path) -> None:
    folder = tmp_path / "0" / "a1"
    (folder / "metrics" / "val").mkdir(parents=True)
    (folder / "meta.yaml").write_text("run_uuid: a1\nexperiment_id: 0\nstatus: 3\n")
    (folder / "metrics" / "val" / "acc").write_text("1552800000 0.5\n1552800001 0.9\n")
    [run] = [item for item in items(*places(tmp_path)) if isinstance(item, LoggedRun)]
    [series] = run.series
    assert (series.name, series.metric, series.split) == ("val/acc", "acc", "val")
    assert (list(series.values), run.fields["status"]) == ([0.5, 0.9], "finished")


@pytest.mark.parametrize(
    ("params", "model", "task"),
    [
        ({"_name_or_path": "org/m", "model_type": "vit"}, "org/m", None),
        ({"model": "yolo11n.pt", "task": "detect", "data": "/a/coco8.yaml"}, "yolo11n", "coco8"),
        ({"_name_or_path": "./out/checkpoint-5", "model_name": "org/m"}, "org/m", None),
        ({"model": "Net(\n  (fc): Linear()\n)", "model_name": "net"}, "net", None),
        ({"model_name": "None", "arch": "resnet50", "dataset_name": "pets"}, "resnet50", "pets"),
        ({"lr": "0.1"}, None, None),
    ],
)
def test_model_and_task_are_what_the_parameters_say(
    params: dict[str, str], model: str | None, task: str | None
) -> None:
    run = MlflowRun(run_id="a", experiment_id="0", experiment="Default", params=params).logged("f")
    assert (run.fields.get("model_id"), run.fields.get("task_id")) == (model, task)


def test_the_best_model_is_chosen_as_the_parameters_say() -> None:
    points = {name: [MetricPoint(1, 1, 0.5)] for name in ("eval_loss", "eval_f1", "val_loss")}
    params = {"metric_for_best_model": "loss", "greater_is_better": "False"}
    told = {"run_id": "a", "experiment_id": "0", "experiment": "e", "points": points}
    run = MlflowRun(**told, params=params).logged("f")
    assert (run.chosen, run.directions) == ("eval_loss", {"eval_loss": "min"})
    run = MlflowRun(**told, params={"monitor": "val_loss", "mode": "min"}).logged("f")
    assert (run.chosen, run.directions) == ("val_loss", {"val_loss": "min"})
    assert (
        MlflowRun(**told, params={"monitor": "val_loss", "mode": "auto"}).logged("f").chosen is None
    )


def test_a_model_that_was_logged_names_its_source() -> None:
    history = [{"flavors": {"transformers": {"source_model_name": "org/m"}, "python_function": {}}}]
    tags = {"mlflow.log-model.history": json.dumps(history)}
    run = MlflowRun(run_id="a", experiment_id="0", experiment="e", tags=tags).logged("f")
    assert run.fields["model_id"] == "org/m"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_real_server_gives_what_its_database_holds(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="extra mlflow: no server can be started")
    mlflow_stores.write(sys.executable, "sqlite", tmp_path)
    whole = {name: run.to_json() for name, run in runs_of(tmp_path).items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StorageError, match="does not answer"):
        list(read_log(f"mlflow+{address}"))
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--workers", "1"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(240):
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            time.sleep(0.5)
        ids = {run: name for name, run in json.loads((tmp_path / "ids.json").read_text()).items()}
        found = [item for item in FORMAT.read(Path(f"mlflow+{address}"), LogFiles())]
        runs = {ids[run.identity.removeprefix("mlflow:")]: run for run in found}
        database = str(tmp_path / "mlflow.db")
        assert {name: replace(run, file=database).to_json() for name, run in runs.items()} == whole
        history = History.open(tmp_path / "h")
        assert history.ingest(read_log(f"mlflow+{address}", MAPPING)).n_new == 8
        assert history.ingest(read_log(tmp_path / "mlflow.db", MAPPING)).n_duplicate == 8
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
