"""fastai's CSVLogger: files that a real training wrote."""

import json
from pathlib import Path

import pytest
from history.readers.frameworks.reading import read_log_of, series_of
from history.readers.frameworks.recorded import WAYS, framework_log

from recsys_ms.history.readers.formats.fastai import Fastai
from recsys_ms.history.readers.logged import Candidate
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = Fastai()


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return framework_log(request.param, "fastai", tmp_path_factory.mktemp("fastai"), ("fastai",))


def test_what_the_recorder_of_fastai_holds(trained: Path) -> None:
    path = trained / "history.csv"
    assert FORMAT.place_of(Candidate(path)) == path
    [run], bad = read_log_of(FORMAT, path)
    assert bad == []
    found = series_of(run)
    expected = json.loads((trained / "expected.json").read_text())
    assert {name: list(each.values) for name, each in found.items()} == expected
    assert (found["accuracy"].split, found["train_loss"].split) == ("valid", "train")
    assert (found["valid_loss"].metric, found["valid_loss"].epochs) == ("loss", [0.0, 1.0, 2.0])


def test_the_best_epoch_is_the_outcome(trained: Path) -> None:
    said = {"model_id": "m", "task_id": "t", "metric": "accuracy", "direction": "max"}
    [batch] = list(read_log(trained / "history.csv", FieldMapping(set=said)))
    expected = json.loads((trained / "expected.json").read_text())
    [row] = batch.runs.to_pylist()
    assert (row["value"], row["split"]) == (max(expected["accuracy"]), "valid")
    assert expected["accuracy"][0] < row["value"]


def test_each_fit_of_an_appended_file_is_a_run(trained: Path) -> None:
    runs, bad = read_log_of(FORMAT, trained / "appended.csv")
    assert bad == []
    assert [len(series_of(run)["accuracy"].values) for run in runs] == [1, 2]
    assert len({run.identity for run in runs}) == 2
