"""``recsys-ms ingest`` of tables that are wrong in some way: exit codes, messages, what is kept."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ms.history.history import History

LINE = ("--map", "model_id={name}", "--map", "task_id={dataset}", "--map", "value={acc}")
SETS = ("--set", "metric=accuracy", "--set", "direction=max")


@pytest.fixture
def ingest(run_here: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Ingest a file into the history ``H`` beside it."""

    def call(file: Path | str, *options: object) -> Any:
        return run_here("ingest", file, "-H", tmp_path / "H", *options)

    return call


def values(tmp_path: Path) -> list[float]:
    return History.open(tmp_path / "H").runs()["value"].tolist()


def test_a_decimal_comma(ingest: Callable[..., Any], tmp_path: Path) -> None:
    # The second file of case 01: only the cell with three decimals was taken, as 1000.
    path = tmp_path / "semi.csv"
    path.write_text("name;dataset;acc\na;birds;0,9\nb;birds;0,871\nc;birds;1,000\n")
    asked = ingest(path, *LINE, *SETS, "--delimiter", ";")
    assert asked.returncode == 2
    assert "line 2: value: got '0,9'" in asked.stderr
    assert "a decimal comma (--decimal ,)" in asked.stderr
    assert values(tmp_path) == []
    told = ingest(path, *LINE, *SETS, "--delimiter", ";", "--decimal", ",")
    assert told.returncode == 0, told.stderr
    assert sorted(values(tmp_path)) == [0.871, 0.9, 1.0]


def test_an_odd_row_is_replayed_with_the_option(
    ingest: Callable[..., Any], run_here: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "odd.csv"
    path.write_text('name,dataset,acc\na,birds,0.9\nb,birds,"0,871"\n')
    done = ingest(path, *LINE, *SETS)
    assert done.returncode == 3
    assert "correct the mapping and run again with --replay" in done.stderr
    replay = ("ingest", "--replay", "-H", tmp_path / "H", *LINE, *SETS, "--decimal", ",")
    assert run_here(*replay).returncode == 0
    assert sorted(values(tmp_path)) == [0.871, 0.9]


def test_two_columns_of_one_name(ingest: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "dup.csv"
    path.write_text("name,dataset,acc,acc\nr,birds,0.91,0.85\n")
    asked = ingest(path, *LINE, *SETS)
    assert asked.returncode == 2
    assert "{acc_0} or {acc_1}" in asked.stderr
    assert ingest(path, *LINE[:4], "--map", "value={acc_1}", *SETS).returncode == 0
    assert values(tmp_path) == [0.85]


def test_columns_that_nothing_used_are_named(ingest: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("name,dataset,acc,lerning rate,seeed\na,birds,0.9,0.1,3\n")
    done = ingest(path, *LINE, *SETS)
    assert (
        "columns not used: lerning rate, seeed (did you mean seed?); keep them with "
        "--map hyperparameters.NAME='{lerning rate}'"
    ) in " ".join(done.stdout.split())
    done = ingest(path, *LINE, *SETS, "--json")
    unused = json.loads(done.stdout)["sources"][str(path)]["unused_columns"]
    assert unused == ["lerning rate", "seeed"]


def test_a_wide_table_and_a_json_document(ingest: Callable[..., Any], tmp_path: Path) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text("model,birds,cars\na,0.9,\nb,n/a,0.8\n")
    done = ingest(wide, "--wide", "tasks", *SETS)
    assert done.returncode == 3
    assert "wide.csv:3: column 'birds': value: got 'n/a'" in done.stderr
    document = tmp_path / "all.json"
    document.write_text(json.dumps({"r": {"dogs": {"a": 0.7, "b": 0.6}}}))
    done = ingest(document, "--records", "r", "--wide", "models", *SETS)
    assert done.returncode == 0, done.stderr
    assert sorted(values(tmp_path)) == [0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "seed=x"), "--set seed=x: got 'x', expected a number"),
        (("--set", "status=done"), "--set status=done"),
        (("--encoding", "undefined"), "--encoding 'undefined'"),
        (("--encoding", "idna"), "--encoding 'idna'"),
        (("--row-column", "x"), "--row-column is for wide tables"),
        (("--records", "x", "--format", "csv"), "--records is for JSON documents"),
        (("--map", "split={acc:.3f"), "brace"),
    ],
)
def test_what_is_refused_before_reading(
    ingest: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("name,dataset,acc\na,birds,0.9\n")
    done = ingest(path, *LINE, *SETS, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert values(tmp_path) == []


def test_options_of_tables_are_not_for_logs(ingest: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "log" / "run"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text("epoch,step,val_acc\n0,1,0.5\n")
    for option in (("--records", "x"), ("--encoding", "latin-1")):
        done = ingest(tmp_path / "log", *option)
        assert done.returncode == 2
        assert f"{option[0]} is for tables only" in done.stderr


def test_what_to_do_about_damaged_rows(ingest: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("name,dataset,acc\na,birds,0.9\nb,birds\n")
    done = ingest(path, *LINE, *SETS)
    assert done.returncode == 3
    assert "correct the file and ingest it again with --replace" in done.stderr
    assert "--replay" not in done.stderr
    path.write_text("name,dataset,acc\na,birds,0.9\nb,birds\nc,birds,x\n")
    done = ingest(path, *LINE, *SETS)
    assert "run again with --replay; 1 damaged: correct the file" in done.stderr
    path.write_text("name,dataset,acc\na,birds,0.9\nb,birds,0.8\nc,birds,0.7\n")
    assert ingest(path, *LINE, *SETS, "--replace").returncode == 0
    history = History.open(tmp_path / "H")
    assert sorted(history.runs()["value"]) == [0.7, 0.8, 0.9]
    assert list(history.quarantine.pending()) == []
    path.write_text("name,dataset,acc\na,birds,0.9\nb,birds\nc,birds,x\n")
    done = ingest(path, *LINE, *SETS)
    assert done.returncode == 0
    assert "2 rows that cannot be read: dealt with before" in done.stderr


def test_a_part_of_the_embedded_data_that_is_misspelt(ingest: Callable[..., Any]) -> None:
    done = ingest("embedded:zo")
    assert done.returncode == 3
    assert "did you mean 'zoo'?" in done.stderr


def test_a_date_outside_of_python_waits_in_quarantine(
    ingest: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    far = pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32())
    table = {"name": ["a", "b"], "dataset": ["t", "t"], "acc": [0.5, 0.6], "started": far}
    pq.write_table(pa.table(table), path)
    done = ingest(path, *LINE, *SETS)
    assert done.returncode == 3
    assert "x.parquet:1: column 'started'" in done.stderr
    assert "out of the range of Python" in done.stderr
    assert len(History.open(tmp_path / "H").runs()) == 1
    # Nobody maps the column: the row can be taken as it is.
    assert ingest("--replay").returncode == 0
    assert len(History.open(tmp_path / "H").runs()) == 2
    mapped = ingest(path, *LINE, *SETS, "--map", "started_at={started}")
    assert mapped.returncode == 3
    assert "started_at" in mapped.stderr


def test_a_number_too_large_for_a_format(ingest: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = '{"name": "%s", "dataset": "t", "acc": 0.5, "n": %s}\n'
    path.write_text(row % ("a", "1" + "0" * 4000) + row % ("b", 7) + row % ("c", '"x"'))
    done = ingest(path, *LINE, *SETS, "--map", "split={n:.1f}")
    assert done.returncode == 3
    assert "'x' cannot be written in the format '.1f'" in done.stderr
    assert "a whole number of 4001 digits" in done.stderr
    assert History.open(tmp_path / "H").runs()["split"].tolist() == ["7.0"]


def test_a_small_archive_of_large_rows(ingest: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    row = '{"name": "m%d", "dataset": "t", "acc": 0.5, "cfg": "%s"}\n'
    text = "".join(row % (i, "A" * 500_000) for i in range(20))
    path.write_bytes(gzip.compress(text.encode(), 1))
    done = ingest(path, *LINE, *SETS, "--map", "hyperparameters={cfg}")
    assert done.returncode == 3
    assert "20 rows wait in quarantine" in done.stderr
    assert len(done.stderr) < 5_000
