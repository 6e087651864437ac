"""timm's run folders: written by timm's own functions in a real training, and damaged ones."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from history.readers.frameworks.reading import always_told, fuzz, read_log_of
from history.readers.frameworks.recorded import WAYS, framework_log
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.history.readers.formats.timm import Timm
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.logs import LogReader
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = Timm()
HEADER = "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n"
ROWS = "0,2.0,1.9,40.0,80.0,0.1\n1,1.5,1.6,55.0,85.0,0.05\n"


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs = ("timm", "torch")
    return framework_log(request.param, "timm", tmp_path_factory.mktemp("timm"), needs)


def read(folder: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    return read_log_of(FORMAT, folder, "summary.csv")


def row_of(folder: Path, **said: str) -> dict[str, Any]:
    reader = LogReader(
        find_logs(folder, "timm"), FieldMapping(set={"task_id": "birds", **said}), folder
    )
    [batch] = list(reader)
    assert batch.rejects == ()
    [row] = batch.runs.to_pylist()
    found: dict[str, Any] = row
    return found


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_a_plain_training(trained: Path) -> None:
    rows = table(trained / "plain")
    best = max(float(row["eval_top1"]) for row in rows)
    row = row_of(trained / "plain")
    assert row["model_id"] == "test_resnet.r160_in1k"
    assert (row["metric"], row["direction"], row["split"]) == ("top1", "max", "eval")
    assert row["value"] == pytest.approx(best / 100)
    assert (row["status"], row["value_kind"], row["seed"]) == ("finished", "best", 42)
    assert yaml.safe_load((trained / "plain/args.yaml").read_text())["lr"] == 0.05
    assert '"lr":0.05' in row["hyperparameters"]


def test_averaged_weights_and_a_named_data_set(trained: Path) -> None:
    [run], bad = read(trained / "ema")
    assert bad == []
    assert run.value_kind == "ema"
    assert run.fields["task_id"] == "torch/cifar10"
    assert row_of(trained / "ema")["value_kind"] == "ema"


def test_the_loss_is_minimised(trained: Path) -> None:
    row = row_of(trained / "by_loss")
    losses = [float(each["eval_loss"]) for each in table(trained / "by_loss")]
    assert (row["metric"], row["direction"]) == ("loss", "min")
    assert row["value"] == min(losses)
    assert row["epoch"] == losses.index(min(losses))


def test_no_evaluation_at_all_is_said(trained: Path) -> None:
    [run], bad = read(trained / "no_eval")
    assert bad == []
    assert {series.name for series in run.series} == {"train_loss", "lr"}
    reader = LogReader(
        find_logs(trained / "no_eval", "timm"), FieldMapping(set={"task_id": "b"}), trained
    )
    [batch] = list(reader)
    assert "no series of 'top1'" in batch.rejects[0].reason
    row = row_of(trained / "no_eval", metric="loss", direction="min")
    assert (row["split"], row["value"]) == (
        "train",
        min(float(each["train_loss"]) for each in table(trained / "no_eval")),
    )


def test_epochs_between_evaluations(trained: Path) -> None:
    # The header was written by an epoch without evaluation: the others have more cells.
    [run], bad = read(trained / "interval")
    assert bad == []
    by_name = {series.name: series for series in run.series}
    assert by_name["eval_top1"].epochs == [1.0, 3.0]
    assert by_name["train_loss"].epochs == [0.0, 1.0, 2.0, 3.0]
    assert by_name["lr"].values == [0.05] * 4


def test_a_header_in_the_middle_after_a_resume(trained: Path) -> None:
    [run], bad = read(trained / "resumed")
    assert bad == []
    loss = next(series for series in run.series if series.name == "train_loss")
    assert loss.epochs == [0.0, 1.0, 2.0]
    lines = (trained / "resumed/summary.csv").read_text().splitlines()
    assert sum(line.startswith("epoch") for line in lines) == 2
    # Epoch 1 was trained twice: what came later counts.
    assert loss.values[1] == float(lines[4].split(",")[1])


def test_a_killed_training_is_running_and_grows(trained: Path, tmp_path: Path) -> None:
    [run], _ = read(trained / "killed")
    assert run.fields["status"] == "running"
    [finished], _ = read(trained / "plain")
    assert finished.progress is not None
    assert run.progress is not None
    assert finished.progress > run.progress


def folder_of(place: Path, summary: str, args: str | None = None) -> Path:
    place.mkdir(exist_ok=True)
    (place / "summary.csv").write_text(summary)
    if args is not None:
        (place / "args.yaml").write_text(args)
    return place


def test_a_header_that_changes_after_a_resume(tmp_path: Path) -> None:
    text = HEADER + ROWS + "epoch,train_loss,eval_loss,eval_top1\n2,1.0,1.5,60.0\n"
    [run], bad = read(folder_of(tmp_path / "r", text))
    assert bad == []
    top1 = next(series for series in run.series if series.name == "eval_top1")
    assert (list(top1.epochs), list(top1.values)) == ([0.0, 1.0, 2.0], [40.0, 55.0, 60.0])


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ("epochs: 2\n", "finished"),
        ("epochs: 2\ncooldown_epochs: 3\n", "running"),
        ("epochs: 1\nwarmup_epochs: 5\nwarmup_prefix: true\n", "running"),
        ("epochs: two\n", None),
        ("model: a\n", None),
    ],
)
def test_how_many_epochs_there_were_to_be(tmp_path: Path, args: str, status: str | None) -> None:
    [run], _ = read(folder_of(tmp_path / "r", HEADER + ROWS, args))
    assert run.fields.get("status") == status


def test_arguments_that_cannot_be_read_leave_the_run(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
    )
    for number, args in enumerate(
        ["- a\n- b\n", "a: [", "!!python/object/apply:os.system ['true']\n", bomb, "x: &x [*x]\n"]
    ):
        runs, bad = read(folder_of(tmp_path / str(number), HEADER + ROWS, args))
        assert [item.file.name for item in bad] == ["args.yaml"]
        assert bad[0].raw == args
        assert len(runs) == 1
        assert "model_id" not in runs[0].fields


def test_rows_that_cannot_be_read_go_aside_with_their_header(tmp_path: Path) -> None:
    text = (
        HEADER + "0,2.0,1.9,3\n" + "1,x,1.6,55.0,85.0,0.05\n" + '2,"1.0,1.6,55.0,85.0,0.05\n' + ROWS
    )
    [run], bad = read(folder_of(tmp_path / "r", text))
    assert [item.line for item in bad] == [2, 3, 4]
    assert all(item.raw.startswith(HEADER) for item in bad)
    top1 = next(series for series in run.series if series.name == "eval_top1")
    # Of a row with one bad cell the others are kept.
    assert list(top1.values) == [40.0, 55.0]


def test_only_timm_s_summaries_are_claimed(tmp_path: Path) -> None:
    for name, text in (
        ("summary.csv", "a,b\n1,2\n"),
        ("other.csv", HEADER),
        ("summary.csv", ""),
        ("summary.csv", "\x00\xff"),
    ):
        (tmp_path / name).write_text(text)
        assert FORMAT.place_of(Candidate(tmp_path / name)) is None


@fuzz(150)
@given(
    st.binary(max_size=200),
    st.integers(0, len(HEADER + ROWS)),
    st.binary(max_size=60) | st.just(b"a: .nan\nb: 2020-01-01\n? [1]\n: 2\n"),
)
def test_no_bytes_stop_the_reader(tmp_path: Path, noise: bytes, at: int, args: bytes) -> None:
    whole = (HEADER + ROWS).encode()
    (tmp_path / "summary.csv").write_bytes(whole[:at] + noise + whole[at:])
    (tmp_path / "args.yaml").write_bytes(args)
    always_told("timm", tmp_path, tmp_path)
