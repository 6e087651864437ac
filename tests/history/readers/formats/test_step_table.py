"""Tables of epochs that no framework's format claims: curves of runs, and never runs."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from history.readers.frameworks.reading import read_log_of, series_of

from recsys_ms.core.errors import UsageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.step_table import StepTable
from recsys_ms.history.readers.found_logs import find_logs, is_table_of_log
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import read_table

FORMAT = StepTable()
SAID = {"model_id": "m", "task_id": "t", "metric": "accuracy", "direction": "max"}


def written(folder: Path, text: str, name: str = "log.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def read(path: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    assert FORMAT.place_of(Candidate(path)) == path
    return read_log_of(FORMAT, path)


@pytest.mark.parametrize(
    "text",
    [
        "epoch,lr,accuracy\n1,0.1,0.5\n2,0.1,0.75\n3,0.1,0.6\n",
        "Epoch;LR;Accuracy\n0;0.1;0.5\n1;0.1;0.75\n2;0.1;0.6\n",
        "step\tlr\taccuracy\n100\t0.1\t0.5\n200\t0.1\t0.75\n300\t0.1\t0.6\n",
        "iteration,accuracy,time\n100,0.5,00:10\n200,0.75,00:11\n300,0.6,1:00:12\n",
        "date,epoch,step,acc\n2024-01-01 10:00,0,1,0.5\n2024-01-02,0,2,0.75\n2024-01-03,1,3,0.6\n",
        "epoch,batch,accuracy\n0,1,0.5\n0,2,0.75\n1,1,0.6\n",
        '{"epoch": 0, "accuracy": 0.5}\n{"epoch": 1, "accuracy": 0.75, "at": "1:00"}\n'
        '{"epoch": 2, "accuracy": 0.6, "classes": [1, 2]}\n{"epoch": 3, "accu',
    ],
)
def test_rows_are_one_run_with_its_best_value(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text, "log.jsonl" if text.startswith("{") else "log.csv")
    assert is_table_of_log(path)
    metric = next(name for name in ("Accuracy", "accuracy", "acc") if name in text)
    [batch] = list(read_log(tmp_path, FieldMapping(set={**SAID, "metric": metric})))
    assert batch.runs["value"].to_pylist() == [0.75]
    assert batch.curves is not None
    assert 0.6 in batch.curves["value"].to_pylist()


@pytest.mark.parametrize(
    "text",
    [
        # The epoch of the best value, and three trainings of one epoch each.
        "model,dataset,epoch,accuracy\na,d,5,0.5\nb,d,7,0.6\nc,d,9,0.7\n",
        "model,dataset,epoch,accuracy\na,d,5,0.5\na,d,7,0.6\nb,d,9,0.7\n",
        "lr,epoch,accuracy\n0.1,1,0.5\n0.2,1,0.6\n0.3,1,0.7\n",
        "lr,epochs,accuracy\n0.1,1,0.5\n0.2,2,0.6\n",
        "lr,epoch,accuracy\n0.1,30,0.5\n0.2,10,0.6\n0.3,20,0.7\n",
        "epoch,weight\n1,2\n2,3\n",
        "epoch,accuracy\n",
        "a,b\n1,2\n",
    ],
)
def test_other_tables_are_not_claimed(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert not is_table_of_log(path)
    assert find_logs(tmp_path).others == (path,)


def test_texts_tell_the_runs_of_one_table_apart(tmp_path: Path) -> None:
    rows = [
        f"{model},{data},{epoch},{value}\n"
        for epoch, values in enumerate([(0.5, 0.1), (0.25, 0.2), (0.4, 0.15)])
        for (model, data), value in zip([("a", "x"), ("b", "y")], values, strict=True)
    ]
    path = written(tmp_path, "model,dataset,epoch,val/accuracy\n" + "".join(rows))
    mapping = FieldMapping(
        map={"model_id": "{model}", "task_id": "{dataset}"},
        set={"metric": "accuracy", "direction": "max"},
    )
    [batch] = list(read_log(path, mapping))
    found = [(row["model_id"], row["task_id"], row["value"]) for row in batch.runs.to_pylist()]
    assert found == [("a", "x", 0.5), ("b", "y", 0.2)]
    assert batch.runs["split"].to_pylist() == ["val", "val"]


def test_an_epoch_that_begins_again_is_the_next_run(tmp_path: Path) -> None:
    path = written(tmp_path, "epoch,accuracy\n1,0.5\n2,0.6\n1,0.3\n2,0.4\n")
    runs, bad = read(path)
    assert bad == []
    assert [list(series_of(run)["accuracy"].values) for run in runs] == [[0.5, 0.6], [0.3, 0.4]]
    assert len({run.identity for run in runs}) == 2


def test_a_decimal_comma_is_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path, "epoch;accuracy\n1;0,500\n2;0,600\n")
    [run], [bad] = read(path)
    assert run.series == ()
    assert "say how numbers are written: 0.500 with a decimal comma (--decimal ,)" in bad.reason
    [batch] = list(read_log(path, FieldMapping(set=SAID)))
    assert (batch.runs.num_rows, len(batch.rejects)) == (0, 2)
    [batch] = list(read_log(path, FieldMapping(set=SAID, decimal=",")))
    assert (batch.runs["value"].to_pylist(), batch.rejects) == ([0.6], ())


@pytest.mark.parametrize(
    ("cells", "told", "option"),
    [
        (("50%", "75.0 %"), "give --unit percent", {"unit": "percent"}),
        (("0.5 ± 0.1", "0.75 (0.1)"), "--ignore-spread", {"ignore_spread": True}),
        (("5,0e-1", "0,75"), "--decimal ,", {"decimal": ","}),
    ],
)
def test_signs_in_numbers_are_asked_about(
    tmp_path: Path, cells: tuple[str, str], told: str, option: dict[str, Any]
) -> None:
    path = written(tmp_path, f"epoch;accuracy\n1;{cells[0]}\n2;{cells[1]}\n")
    history = History.open(tmp_path / "H")
    history.ingest(read_log(path, FieldMapping(set=SAID)))
    assert len(history.runs()) == 0
    assert any(told in reject.reason for reject in history.quarantine.pending())
    history.ingest(read_log(path, FieldMapping(set=SAID, **option)), replace=True)
    assert history.runs()["value"].tolist() == [0.75]
    assert list(history.quarantine.pending()) == []


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl.gz", ".parquet"])
def test_a_table_reader_does_not_take_the_first_epoch(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"epoch": [1, 2, 3], "lr": [0.1] * 3, "acc": [0.5, 0.75, 0.6]})
    path = tmp_path / f"log{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif "json" in suffix:
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    mapping = FieldMapping(map={"value": "{acc}"}, set=SAID)
    history = History.open(tmp_path / "h")
    with pytest.raises(UsageError, match="epoch rises") as caught:
        history.ingest(read_table(path, mapping))
    assert "3 rows are of 1 run" in str(caught.value)
    assert history.version == 0
    # Each row is a run by the user's word.
    told = mapping.overridden(map={"run_id": "a-{epoch}"})
    assert history.ingest(read_table(path, told)).n_new == 3


HISTORIES = {
    "plain": "loss,val_loss,accuracy,val_accuracy,lr\n"
    "0.9,0.8,0.5,0.55,0.1\n0.5,0.6,0.7,0.75,0.1\n0.3,0.7,0.8,0.6,0.01\n",
    "own_loop": "Unnamed: 0,train_loss,valid_loss,train_acc,valid_acc,time\n"
    "0,0.9,0.8,0.5,0.55,1.5\n1,0.5,0.6,0.7,0.75,1.4\n2,0.3,0.7,0.8,0.6,1.4\n",
    "camel": "trainLoss,valLoss,trainAccuracy,valAccuracy\n"
    "0.9,0.8,0.5,0.55\n0.5,0.6,0.7,0.75\n0.3,0.7,0.8,0.6\n",
    "quoted": '"";"loss";"val_loss";"accuracy";"val_accuracy"\n'
    '"1";0.9;0.8;0.5;0.55\n"2";0.5;0.6;0.7;0.75\n"3";0.3;0.7;0.8;0.6\n',
    "lines": '{"loss": 0.9, "val_loss": 0.8, "accuracy": 0.5, "val_accuracy": 0.55}\n'
    '{"loss": 0.5, "val_loss": 0.6, "accuracy": 0.7, "val_accuracy": 0.75}\n'
    '{"loss": 0.3, "val_loss": 0.7, "accuracy": 0.8, "val_accuracy": 0.6}\n',
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_history_without_a_column_of_epochs_is_one_curve(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, HISTORIES[kind], "log.jsonl" if kind == "lines" else "log.csv")
    assert is_table_of_log(path)
    metric = {"own_loop": "acc", "camel": "Accuracy"}.get(kind, "accuracy")
    [batch] = list(read_log(tmp_path, FieldMapping(set={**SAID, "metric": metric})))
    [run] = batch.runs.to_pylist()
    assert (run["value"], run["epoch"], run["value_kind"]) == (0.75, 1.0, "best")
    assert run["split"] == ("valid" if kind == "own_loop" else "val")
    assert batch.curves is not None
    curve = batch.curves.to_pandas()
    assert curve[curve["value"] == 0.3]["split"].tolist() == ["train"]
    assert curve.groupby(["metric", "split"])["value"].size().min() == 3


@pytest.mark.parametrize(
    "text",
    [
        # Folds of a cross-validation, a search, a frame of runs, and one row, which may be a run.
        ",fit_time,test_loss,train_loss\n0,0.1,0.5,0.4\n1,0.1,0.6,0.4\n",
        "accuracy,f1\n0.5,0.4\n0.6,0.5\n",
        ",loss,accuracy\n0,0.5,0.4\n1,0.6,0.5\n",
        "units,loss,val_loss\n8,0.5,0.4\n16,0.6,0.5\n",
        ",model,loss,val_loss\n0,a,0.5,0.4\n1,b,0.6,0.5\n",
        "name,loss,val_loss\n1,0.5,0.4\n2,0.6,0.5\n",
    ],
)
def test_a_table_that_may_be_one_of_runs_is_not_claimed_as_a_history(
    tmp_path: Path, text: str
) -> None:
    assert not is_table_of_log(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "n_runs"),
    [
        ("accuracy\n0.5\n0.75\n0.6\n", 1),
        ("net,accuracy\na,0.5\na,0.75\nb,0.6\nb,0.5\n", 2),
        (HISTORIES["plain"], 1),
    ],
)
def test_rows_that_nothing_tells_apart_are_asked_for(
    tmp_path: Path, text: str, n_runs: int
) -> None:
    path = written(tmp_path, text)
    given = dict(SAID)
    template = {"value": "{accuracy}"}
    if n_runs == 2:
        del given["model_id"]
        template["model_id"] = "{net}"
    history = History.open(tmp_path / "H")
    with pytest.raises(UsageError, match=rf"rows are of {n_runs} runs?, and .* --format"):
        history.ingest(read_table(path, FieldMapping(map=template, set=given)))
    assert len(history.runs()) == 0


def test_named_rows_without_a_column_of_epochs_are_read_in_their_order(tmp_path: Path) -> None:
    path = written(tmp_path, "net,accuracy\na,0.5\na,0.75\nb,0.6\nb,0.5\n")
    given = {name: text for name, text in SAID.items() if name != "model_id"}
    mapping = FieldMapping(map={"model_id": "{net}"}, set=given)
    [batch] = list(read_log(path, mapping, log_format_name="steps"))
    runs = batch.runs.to_pandas()
    assert runs[["model_id", "value", "epoch"]].values.tolist() == [["a", 0.75, 1], ["b", 0.6, 0]]


@pytest.mark.parametrize("name", ["log.txt", "train.log", "history.json"])
def test_lines_of_json_in_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    # What DeiT and MAE write.
    line = '{{"train_lr": 0.1, "train_loss": 1.5, "test_acc1": {}, "epoch": {}}}\n'
    text = "".join(line.format(value, at) for at, value in enumerate((0.62, 0.75, 0.6)))
    path = written(tmp_path, text, name)
    [batch] = list(read_log(path, FieldMapping(set={**SAID, "metric": "acc1"})))
    [run] = batch.runs.to_pylist()
    assert (run["value"], run["epoch"], run["split"]) == (0.75, 1.0, "test")
    for other in ('{"epoch": 1, "loss": 0.5}\n', "epoch 1 loss 0.5\nepoch 2 loss 0.4\n"):
        assert not find_logs(written(tmp_path, other, name)).logs


def test_columns_of_arrays_are_no_texts(tmp_path: Path) -> None:
    text = "Epoch,Validation Loss,Weights\n1,1.9,[0.9  0.8 0.7]\n2,0.5,[0.9 0.6 0.5]\n"
    [run], bad = read(written(tmp_path, text))
    assert (bad, [*series_of(run)]) == ([], ["Validation Loss"])
    assert [*series_of(run)["Validation Loss"].values] == [1.9, 0.5]
