"""Keras' CSVLogger: files that a real training wrote, and damaged ones."""

import json
from pathlib import Path

import pytest
from history.readers.frameworks.reading import always_told, fuzz, read_log_of, series_of
from history.readers.frameworks.recorded import WAYS, framework_log
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.core.errors import UsageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.keras_log import Keras
from recsys_ms.history.readers.found_logs import is_table_of_log
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import read_table

FORMAT = Keras()
HEADER = "epoch,accuracy,loss,val_accuracy,val_loss\n"
ROWS = "0,0.5,1.0,0.4,1.1\n1,0.7,0.8,0.6,0.9\n"
SAID = {"model_id": "m", "task_id": "t", "metric": "accuracy", "direction": "max"}


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs = ("keras", "torch")
    return framework_log(request.param, "keras", tmp_path_factory.mktemp("keras"), needs)


def read(path: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    assert FORMAT.place_of(Candidate(path)) == path
    return read_log_of(FORMAT, path)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["training.csv", "semicolon.log"])
def test_what_keras_s_own_history_holds(trained: Path, name: str) -> None:
    [run], bad = read(trained / name)
    assert bad == []
    expected = json.loads((trained / "expected.json").read_text())[name]
    found = series_of(run)
    assert {key: pytest.approx(list(each.values), rel=1e-6) for key, each in found.items()} == (
        expected
    )
    assert (found["val_accuracy"].metric, found["val_accuracy"].split) == ("accuracy", "val")
    assert (found["loss"].metric, found["loss"].split) == ("loss", "train")
    assert list(found["loss"].epochs) == [0.0, 1.0]


def test_missing_values_and_lists(trained: Path) -> None:
    [run], bad = read(trained / "extra.csv")
    assert bad == []
    found = series_of(run)
    assert "pair" not in found
    assert (list(found["early"].epochs), list(found["early"].values)) == ([0.0], [1.5])
    assert len(found["val_loss"].values) == 2


def test_trainings_appended_to_one_file(trained: Path, tmp_path: Path) -> None:
    runs, bad = read(trained / "appended.csv")
    assert bad == []
    assert [list(series_of(run)["loss"].epochs) for run in runs] == [[0, 1, 2, 3], [0, 1]]
    history = History.open(tmp_path / "h")
    mapping = FieldMapping(set=SAID)
    assert history.ingest(read_log(trained / "appended.csv", mapping)).n_new == 2
    assert history.ingest(read_log(trained / "appended.csv", mapping)).n_duplicate == 2


def test_a_real_log_becomes_a_run_on_its_validation(trained: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    history.ingest(read_log(trained / "training.csv", FieldMapping(set=SAID)))
    row = history.runs().iloc[0]
    best = max(json.loads((trained / "expected.json").read_text())["training.csv"]["val_accuracy"])
    assert (row["split"], row["status"], row["source"]) == ("val", "finished", "keras")
    assert row["value"] == pytest.approx(best)
    assert len(history.curves()) == 8


def test_a_file_that_grows_is_one_run(tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    mapping = FieldMapping(set=SAID)
    path = written(tmp_path / "log.csv", HEADER + ROWS)
    assert history.ingest(read_log(path, mapping)).n_new == 1
    path.write_text(HEADER + ROWS + "2,0.9,0.7,0.8,0.8\n")
    assert history.ingest(read_log(path, mapping)).n_updated == 1
    assert history.runs()["value"].tolist() == [0.8]
    assert len(history.curves(metric="accuracy", split="val")) == 3


def test_an_epoch_logged_again_counts_as_it_was_logged_last(tmp_path: Path) -> None:
    text = HEADER + ROWS + "1,0.7,0.8,0.9,0.9\n2,0.7,0.8,0.1,0.9\n"
    [run], _ = read(written(tmp_path / "log.csv", text))
    assert list(series_of(run)["val_accuracy"].values) == [0.4, 0.9, 0.1]


def test_a_header_alone_is_a_run_that_has_begun(tmp_path: Path) -> None:
    [run], bad = read(written(tmp_path / "log.csv", HEADER))
    assert bad == []
    assert run.fields["status"] == "running"
    assert run.series == ()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2,0.5", "2 fields, but the header has 5"),
        ("2,0.5,1.0,0.4,1.1,7", "6 fields, but the header has 5"),
        ('2,0.5,"1.0,0.4,1.1', "not CSV"),
        ("2,0.5,x,0.4,1.1", "loss: 'x' is not a number"),
    ],
)
def test_a_row_that_cannot_be_read_goes_aside_alone(tmp_path: Path, line: str, what: str) -> None:
    [run], [bad] = read(written(tmp_path / "log.csv", HEADER + ROWS + line + "\n"))
    assert what in bad.reason
    assert (bad.line, bad.raw) == (4, f"{HEADER}{line}\n")
    assert len(series_of(run)["loss"].values) == 2


def test_infinite_and_nan_losses_are_values_of_the_curve(tmp_path: Path) -> None:
    [run], bad = read(written(tmp_path / "log.csv", HEADER + "0,0.5,nan,0.4,inf\n"))
    assert bad == []
    assert series_of(run)["loss"].values[0] != series_of(run)["loss"].values[0]
    assert series_of(run)["val_loss"].values[0] == float("inf")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "epoch\n0\n",
        "epoch,accuracy\n0,0.5\n",
        "step,loss\n0,0.5\n",
        "epoch,loss\nzero,0.5\n",
        "epoch,train_loss,eval_loss,eval_top1,lr\n0,1,1,1,1\n",
        "epoch,step,loss\n0,1,1\n",
        "\x00\xff",
        '"epoch,loss\n',
    ],
)
def test_other_files_are_not_claimed(tmp_path: Path, text: str) -> None:
    assert FORMAT.place_of(Candidate(written(tmp_path / "log.csv", text))) is None


@fuzz(150)
@given(st.binary(max_size=200), st.integers(0, len(HEADER + ROWS)))
def test_no_bytes_stop_the_reader(tmp_path: Path, noise: bytes, at: int) -> None:
    whole = (HEADER + ROWS).encode()
    path = tmp_path / "log.csv"
    path.write_bytes(whole[:at] + noise + whole[at:])
    always_told("keras", path, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        ",loss,accuracy,val_loss,val_accuracy\n0,1.0,0.5,1.1,0.4\n1,0.8,0.7,0.9,0.6\n"
        "2,0.7,0.8,1.0,0.5\n",
        "loss,accuracy,val_loss,val_accuracy\n1.0,0.5,1.1,0.4\n0.8,0.7,0.9,0.6\n0.7,0.8,1.0,0.5\n",
        "Unnamed: 0,loss,val_loss,accuracy,val_accuracy,lr\n"
        "0,1.0,1.1,0.5,0.4,1e-3\n1,0.8,0.9,0.7,0.6,1e-3\n2,0.7,1.0,0.8,0.5,1e-4\n",
    ],
)
def test_a_history_that_was_saved_as_a_table(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "history.csv", text)
    [run], bad = read(path)
    assert bad == []
    found = series_of(run)
    assert {"column_1", "Unnamed: 0", "epoch"}.isdisjoint(found)
    assert (found["val_accuracy"].epochs, found["val_accuracy"].values) == (
        [0.0, 1.0, 2.0],
        [0.4, 0.6, 0.5],
    )
    assert is_table_of_log(path)
    [batch] = list(read_log(tmp_path, FieldMapping(set=SAID)))
    [row] = batch.runs.to_pylist()
    assert (row["value"], row["epoch"], row["split"]) == (0.6, 1.0, "val")
    # Also where a person says that it is a table.
    mapping = FieldMapping(map={"value": "{val_accuracy}"}, set=SAID)
    with pytest.raises(UsageError, match="the row number rises"):
        list(read_table(path, mapping))


def test_a_table_of_runs_with_losses_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "runs.csv", "model,loss,val_loss\na,1.0,1.1\nb,0.8,0.9\n")
    mapping = FieldMapping(
        map={"value": "{val_loss}", "model_id": "{model}"},
        set={"task_id": "t", "metric": "loss", "direction": "min"},
    )
    assert not is_table_of_log(path)
    assert sum(batch.runs.num_rows for batch in read_table(path, mapping)) == 2
