"""Lightning's CSVLogger: folders that real trainings wrote, and damaged ones."""

import csv
import json
from pathlib import Path

import pytest
from history.readers.frameworks.reading import always_told, fuzz, read_log_of, series_of
from history.readers.frameworks.recorded import WAYS, framework_log
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.lightning_log import Lightning
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = Lightning()
HEADER = "epoch,step,train_loss,val_acc\n"
ROWS = "0,4,1.5,\n0,5,,0.5\n1,9,1.0,\n1,10,,0.75\n"
MAPPING = FieldMapping(
    map={"model_id": "{hparams.model}", "value": "{val_acc}"},
    set={"task_id": "birds", "direction": "max"},
)


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs = ("lightning", "torch")
    return framework_log(request.param, "lightning", tmp_path_factory.mktemp("lightning"), needs)


def read(folder: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    return read_log_of(FORMAT, folder, "metrics.csv")


def folder_of(place: Path, metrics: str, hparams: str | None = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "metrics.csv").write_text(metrics)
    if hparams is not None:
        (place / "hparams.yaml").write_text(hparams)
    return place


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as handle:
        return [float(row[name]) for row in csv.DictReader(handle) if row[name]]


def test_a_training_with_a_test_behind_it(trained: Path) -> None:
    folder = trained / "birds" / "version_0"
    [run], bad = read(folder)
    assert bad == []
    assert (run.columns["experiment"], run.columns["version"]) == ("birds", "version_0")
    assert run.fields["hyperparameters"] == {
        "lr": 0.1,
        "model": "linear",
        "nested": {"depth": 2},
        "seed": 7,
    }
    assert run.fields["seed"] == 7
    found = series_of(run)
    for name, each in found.items():
        assert list(each.values) == column(folder, name)
    assert {name: (each.metric, each.split) for name, each in found.items()} == {
        "train_loss_step": ("loss_step", "train"),
        "train_loss_epoch": ("loss_epoch", "train"),
        "val_acc": ("acc", "val"),
        "val/loss": ("loss", "val"),
        "test_acc": ("acc", "test"),
    }
    assert (list(found["val_acc"].epochs), list(found["val_acc"].steps)) == ([0.0, 1.0], [1, 3])


def test_several_loaders_are_splits_of_their_own(trained: Path) -> None:
    [run], bad = read(trained / "birds" / "version_1")
    assert bad == []
    found = series_of(run)
    assert {each.split for name, each in found.items() if name.startswith("val")} == {
        "val/0",
        "val/1",
    }
    assert {each.metric for name, each in found.items() if name.startswith("val_acc")} == {"acc"}


def test_a_resumed_training_ends_where_lightning_says(trained: Path) -> None:
    [run], _ = read(trained / "birds" / "version_2")
    expected = json.loads((trained / "expected.json").read_text())
    found = series_of(run)
    assert found["val/loss"].values[-1] == pytest.approx(expected["val/loss"])
    assert found["val_acc"].values[-1] == pytest.approx(expected["val_acc"])
    assert list(found["val_acc"].epochs) == [2.0, 3.0]


def test_a_folder_of_real_versions(trained: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    # The run of two loaders has no single val_acc: it waits, the others go in.
    report = history.ingest(read_log(trained, MAPPING))
    assert (report.n_new, report.n_quarantined) == (2, 1)
    assert "val_acc/dataloader_idx_0" in history.quarantine.table().iloc[0]["reason"]
    assert set(history.runs()["model_id"]) == {"linear"}
    again = history.ingest(read_log(trained, MAPPING))
    assert (again.n_new, again.n_updated, again.n_duplicate) == (0, 0, 2)


def test_a_training_that_grows_is_one_run(tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    mapping = MAPPING.overridden(set={"task_id": "b", "direction": "max", "model_id": "m"}, map={})
    mapping = FieldMapping(map={"value": "{val_acc}"}, set=mapping.set)
    folder = folder_of(tmp_path / "version_0", HEADER + ROWS)
    assert history.ingest(read_log(folder, mapping)).n_new == 1
    folder_of(folder, HEADER + ROWS + "2,15,,0.875\n")
    assert history.ingest(read_log(folder, mapping)).n_updated == 1
    # Lightning writes the whole file anew when a column comes up.
    folder_of(
        folder, "epoch,step,test_acc,train_loss,val_acc\n0,5,,,0.5\n2,15,,,0.875\n3,15,0.3,,\n"
    )
    assert history.ingest(read_log(folder, mapping)).n_read == 1
    assert history.runs()["value"].tolist() == [0.875]


@pytest.mark.parametrize(
    ("name", "metric", "split"),
    [
        ("val_acc", "acc", "val"),
        ("val/acc", "acc", "val"),
        ("valid.acc", "acc", "valid"),
        ("validation_f1_epoch", "f1_epoch", "validation"),
        ("acc", "acc", None),
        ("test-top5", "top5", "test"),
        ("acc/dataloader_idx_3", "acc", "loader/3"),
        ("value", "value", None),
    ],
)
def test_splits_of_names(tmp_path: Path, name: str, metric: str, split: str | None) -> None:
    [run], _ = read(folder_of(tmp_path / "v", f"epoch,step,{name}\n0,1,0.5\n"))
    [each] = run.series
    assert (each.name, each.metric, each.split) == (name, metric, split)


def test_settings_that_cannot_be_read_leave_the_run(tmp_path: Path) -> None:
    for number, text in enumerate(["- a\n", "a: [", "!!python/name:os.system\n", "\x00"]):
        folder = folder_of(tmp_path / str(number), HEADER + ROWS, text)
        [run], [bad] = read(folder)
        assert bad.file.name == "hparams.yaml"
        assert run.fields["hyperparameters"] == {}
        assert len(series_of(run)["val_acc"].values) == 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2,0.5", "2 fields, but the header has 4"),
        ('2,"0.5,1.0,0.4', "not CSV"),
        ("2,12,x,0.4", "train_loss: 'x' is not a number"),
    ],
)
def test_a_row_that_cannot_be_read_goes_aside_alone(tmp_path: Path, line: str, what: str) -> None:
    [run], [bad] = read(folder_of(tmp_path / "v", HEADER + ROWS + line + "\n"))
    assert what in bad.reason
    assert (bad.line, bad.raw) == (6, f"{HEADER}{line}\n")
    assert len(series_of(run)["val_acc"].values) == (3 if "x" in line else 2)


def test_no_validation_yet(tmp_path: Path) -> None:
    [run], bad = read(folder_of(tmp_path / "v", HEADER, "lr: 1\n"))
    assert (run.fields["status"], run.series, bad) == ("running", (), [])
    folder = folder_of(tmp_path / "w", "a,b\n1,2\n", "lr: 1\n")
    runs, [broken] = read(folder)
    assert runs == []
    assert "no column step or epoch" in broken.reason


def test_other_files_are_not_claimed(tmp_path: Path) -> None:
    for name, text in (
        ("metrics.csv", "a,b\n1,2\n"),
        ("other.csv", HEADER),
        ("metrics.csv", ""),
        ("metrics.csv", "\x00\xff"),
    ):
        (tmp_path / name).write_text(text)
        assert FORMAT.place_of(Candidate(tmp_path / name)) is None


@fuzz(150)
@given(st.binary(max_size=200), st.integers(0, len(HEADER + ROWS)), st.binary(max_size=60))
def test_no_bytes_stop_the_reader(tmp_path: Path, noise: bytes, at: int, hparams: bytes) -> None:
    whole = (HEADER + ROWS).encode()
    (tmp_path / "metrics.csv").write_bytes(whole[:at] + noise + whole[at:])
    (tmp_path / "hparams.yaml").write_bytes(hparams)
    always_told("lightning", tmp_path, tmp_path)
