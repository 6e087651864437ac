"""MLflow's stores as the real MLflow writes them, paged, grown and damaged."""

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import run_python

from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.mlflow import Mlflow
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate, LogFiles, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

WRITER = Path(__file__).parent.parent / "frameworks" / "write_mlflow.py"
FORMAT = Mlflow()
MAPPING = FieldMapping(
    map={"model_id": "{params.model}", "task_id": "{experiment}"},
    set={"metric": "acc", "direction": "max"},
)
# MLflow and the packages under it warn of their own future.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", params=["sqlite", "folder"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed (extra mlflow): no real store can be written")
    folder = tmp_path_factory.mktemp(request.param).resolve()
    subprocess.run(
        [sys.executable, str(WRITER), str(folder), request.param],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return folder


of_databases = pytest.mark.parametrize("stored", ["sqlite"], indirect=True)
of_folders = pytest.mark.parametrize("stored", ["folder"], indirect=True)


@pytest.fixture
def store(stored: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage."""
    copy = tmp_path / "copy"
    shutil.copytree(stored, copy)
    return copy


def place(folder: Path) -> Path:
    database = folder / "mlflow.db"
    return database if database.exists() else folder / "mlruns"


def items(path: Path) -> Iterator[LoggedRun | BadLog]:
    try:
        yield from FORMAT.read(path, LogFiles())
    except BadLogError as error:
        yield error.bad


def runs_of(folder: Path) -> dict[str, LoggedRun]:
    ids = {run: name for name, run in json.loads((folder / "ids.json").read_text()).items()}
    found = list(items(place(folder)))
    assert not [item for item in found if isinstance(item, BadLog)]
    return {ids[item.identity.removeprefix("mlflow:")]: item for item in found}  # type: ignore[union-attr]


def test_a_store_is_found_by_what_it_holds(stored: Path) -> None:
    [log] = find_logs(stored).logs
    assert (log.format_name, log.place) == ("mlflow", place(stored))


def test_every_run_of_every_experiment_is_read(stored: Path) -> None:
    runs = runs_of(stored)
    assert set(runs) == set(json.loads((stored / "ids.json").read_text()))
    plain = runs["plain"]
    assert plain.columns["experiment"] == "birds"
    assert plain.columns["params"]["model"] == "resnet18"
    assert plain.fields["hyperparameters"] == {
        "model": "resnet18",
        "task": "birds",
        "lr": 0.1,
        "depth": 18,
        "amp": "True",
    }
    assert plain.fields["tags"]["team"] == "vision"
    assert plain.fields["started_at"] < plain.fields["finished_at"]
    status = {name: run.fields["status"] for name, run in runs.items()}
    assert status == {
        **dict.fromkeys(("plain", "nan", "infinite", "child", "parent", "data"), "finished"),
        **dict.fromkeys(("crashed", "killed", "deleted"), "failed"),
        "running": "running",
        # Its experiment was deleted, and its runs with it in a folder; a database keeps them.
        "gone": status["gone"],
    }
    assert runs["deleted"].fields["tags"]["mlflow.lifecycle_stage"] == "deleted"
    assert runs["child"].columns["parent_run_id"] == runs["parent"].columns["mlflow_run_id"]
    assert runs["parent"].series == ()


def test_the_whole_history_of_a_metric(stored: Path) -> None:
    runs = runs_of(stored)
    by_name = {series.name: series for series in runs["plain"].series}
    accuracy = by_name["val_acc"]
    assert (accuracy.metric, accuracy.split) == ("acc", "val")
    assert (list(accuracy.steps), list(accuracy.values)) == ([0, 1, 2], [0.5, 0.9, 0.7])
    assert list(accuracy.epochs) == [0.0, 0.5, 1.0]
    assert (by_name["train/loss"].metric, by_name["train/loss"].split) == ("loss", "train")
    nan, infinite = runs["nan"].series, runs["infinite"].series
    assert all(v != v for s in nan if s.name == "val_acc" for v in s.values)
    assert next(list(s.values) for s in infinite if s.name == "val_acc") == [float("inf"), 0.25]
    # Twice at one step: what was logged last counts.
    twice = next(s for s in runs["data"].series if s.name == "val_acc")
    assert (list(twice.steps), list(twice.values)) == ([0], [0.65])


def test_a_data_set_that_was_logged_names_its_fingerprint(stored: Path) -> None:
    run = runs_of(stored)["data"]
    [data] = run.columns["datasets"]
    assert (data["name"], data["context"]) == ("birds-csv", "training")
    assert run.fields["dataset_fingerprint"] == data["digest"] != ""
    assert "dataset_fingerprint" not in runs_of(stored)["plain"].fields


def test_best_and_last_through_the_history(stored: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    report = history.ingest(read_log(stored, MAPPING))
    # Those without the parameter wait in quarantine.
    assert (report.n_new, report.n_quarantined) == (7, 4)
    runs = history.runs().set_index("run_id")
    ids = json.loads((stored / "ids.json").read_text())
    plain = runs.loc[f"mlflow-{ids['plain']}"]
    assert (plain["value"], plain["epoch"], plain["value_kind"]) == (0.9, 0.5, "best")
    assert json.loads(runs.loc[f"mlflow-{ids['nan']}", "tags"])["error"] == "no finite val_acc"
    assert json.loads(runs.loc[f"mlflow-{ids['deleted']}", "tags"])["mlflow.lifecycle_stage"]
    last = History.open(tmp_path / "last")
    last.ingest(read_log(stored, MAPPING.overridden(set={"value_kind": "last"})))
    assert last.runs().set_index("run_id").loc[f"mlflow-{ids['plain']}", "value"] == 0.7
    active = History.open(tmp_path / "active")
    left = active.ingest(read_log(stored, MAPPING.overridden(where="lifecycle_stage = 'active'")))
    assert left.n_left_out >= 1
    again = history.ingest(read_log(stored, MAPPING))
    assert (again.n_new, again.n_updated, again.n_duplicate) == (0, 0, 7)


def test_a_store_is_only_read(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path.relative_to(stored)): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in stored.rglob("*")
            if path.is_file()
        }

    before = state()
    environment = dict(os.environ)
    runs_of(stored)
    assert state() == before
    assert dict(os.environ) == environment
    assert list(tmp_path.iterdir()) == []


def grow(folder: Path, run_id: str) -> None:
    """A job that goes on and ends, by MLflow itself."""
    path = place(folder)
    uri = f"sqlite:///{path}" if path.is_file() else path.as_uri()
    code = (
        "import os, sys; os.environ['MLFLOW_ALLOW_FILE_STORE'] = 'true'\n"
        "from mlflow import MlflowClient\n"
        "client = MlflowClient(sys.argv[1])\n"
        "client.log_metric(sys.argv[2], 'val_acc', 0.8, step=2)\n"
        "client.set_terminated(sys.argv[2])\n"
    )
    run_python(code, uri, run_id)


# A store in a folder keeps absolute addresses and cannot be copied.
@of_databases
def test_a_running_run_that_ends_is_updated(stored: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    shutil.copytree(stored, folder)
    history = History.open(tmp_path / "h")
    mapping = MAPPING.overridden(
        set={"model_id": "m"}, where="mlflow_run_id = parent_run_id OR state = 'RUNNING' OR true"
    )
    history.ingest(read_log(folder, mapping))
    run_id = json.loads((folder / "ids.json").read_text())["running"]
    row = history.runs().set_index("run_id").loc[f"mlflow-{run_id}"]
    assert (row["status"], row["value"]) == ("running", 0.3)
    grow(folder, run_id)
    report = history.ingest(read_log(folder, mapping))
    assert (report.n_new, report.n_updated) == (0, 1)
    row = history.runs().set_index("run_id").loc[f"mlflow-{run_id}"]
    assert (row["status"], row["value"]) == ("finished", 0.8)
    assert len(history.curves([f"mlflow-{run_id}"])) == 2


@of_databases
def test_pages_beyond_a_thousand_runs(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    shutil.copytree(stored, folder)
    connection = sqlite3.connect(folder / "mlflow.db")
    [(experiment,)] = connection.execute(
        "SELECT experiment_id FROM experiments WHERE name = 'birds'"
    ).fetchall()
    for number in range(1_100):
        run = f"{number:032x}"
        connection.execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, "
            "experiment_id, lifecycle_stage, artifact_uri) "
            "VALUES (?, 'r', 'u', 'FINISHED', 1, 2, ?, 'active', '/a')",
            (run, experiment),
        )
        for table, columns in (("metrics", "is_nan"), ("latest_metrics", "is_nan")):
            connection.execute(
                f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, {columns}) "
                "VALUES ('val_acc', ?, 1, ?, 0, 0)",
                (number / 1_100, run),
            )
    connection.commit()
    connection.close()
    found = {item.identity for item in items(folder / "mlflow.db") if isinstance(item, LoggedRun)}
    assert len(found) == 1_100 + len(json.loads((folder / "ids.json").read_text()))
    # Asked for few values at a time, the store gives the same.
    from recsys_ms.history.readers.formats import mlflow_store

    whole = {i.identity: i.series for i in items(folder / "mlflow.db") if isinstance(i, LoggedRun)}
    monkeypatch.setattr(mlflow_store, "_POINTS_PER_QUERY", 3)
    few = {i.identity: i.series for i in items(folder / "mlflow.db") if isinstance(i, LoggedRun)}
    assert repr(few) == repr(whole)
    # So does the client's own call, which is asked for each metric of each run.
    monkeypatch.setattr(mlflow_store.TrackingStore, "_metric_model", lambda self: None)
    one_by_one = {
        i.identity: i.series for i in items(folder / "mlflow.db") if isinstance(i, LoggedRun)
    }
    assert repr(one_by_one) == repr(whole)


def problems(path: Path) -> list[str]:
    return [item.reason for item in items(path) if isinstance(item, BadLog)]


@of_databases
def test_a_damaged_database_is_named(stored: Path, tmp_path: Path) -> None:
    whole = (stored / "mlflow.db").read_bytes()
    path = tmp_path / "mlflow.db"
    for size in (100, 5_000, len(whole) // 2, len(whole) - 3_000):
        path.write_bytes(whole[:size])
        claimed = FORMAT.place_of(Candidate(path))
        if claimed is not None:
            # Either the damage is seen, or it hit no page that is read.
            assert problems(path) or size > len(whole) // 2
    path.write_bytes(os.urandom(4_096))
    assert FORMAT.place_of(Candidate(path)) is None
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE runs (a)").connection.close()
    assert FORMAT.place_of(Candidate(path)) is None


@of_databases
def test_the_schema_of_another_version_is_named(stored: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(stored / "mlflow.db", path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.commit()
    connection.close()
    [reason] = problems(path)
    assert "mlflow db upgrade" in reason
    assert sqlite3.connect(path).execute("SELECT version_num FROM alembic_version").fetchall() == [
        ("451aebb31d03",)
    ]


@of_databases
def test_a_database_that_is_written_to_can_be_read(stored: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(stored / "mlflow.db", path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE runs SET user_id = 'someone'")
    assert not problems(path)
    writer.execute("ROLLBACK")
    writer.close()


@of_folders
def test_damaged_runs_of_a_folder_leave_the_others(store: Path) -> None:
    ids: dict[str, Any] = json.loads((store / "ids.json").read_text())
    folder = {
        run: next((store / "mlruns").glob(f"*/{ids[run]}")) for run in ("plain", "nan", "data")
    }
    (folder["plain"] / "metrics" / "val_acc").write_text("yesterday 0.5\n")
    (folder["nan"] / "meta.yaml").write_text("run_id: [\n")
    (folder["data"] / "meta.yaml").unlink()
    found = list(items(store / "mlruns"))
    bad = [item for item in found if isinstance(item, BadLog)]
    runs = {item.identity for item in found if isinstance(item, LoggedRun)}
    assert {f"mlflow:{ids[run]}" for run in ("child", "crashed", "running")} <= runs
    assert {ids[run] for run in ("nan", "data")} <= {p for item in bad for p in item.file.parts}
    assert any(ids["plain"] in item.file.parts for item in bad)


def test_without_mlflow_the_extra_is_named(stored: Path) -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from recsys_ms.cli import main\n"
        "sys.argv = ['recsys-ms', 'ingest', sys.argv[1], '--format', 'mlflow', '-H', sys.argv[2]]\n"
        "main()\n"
    )
    done = run_python(code, place(stored), stored / "h", returncode=5)
    assert "recsys-ms[mlflow]" in done.stderr
