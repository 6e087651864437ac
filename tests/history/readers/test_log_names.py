"""Run folders as people have them: whose names are taken, what is one run, what is passed by."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from history.readers.frameworks.recorded import lay_out

from recsys_ms.history.history import History
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logs import LogReader, read_log
from recsys_ms.history.readers.mapping import FieldMapping

CASES = Path(__file__).parents[4] / "shared/cases"
TIMM = "epoch,train_loss,eval_loss,eval_top1,eval_top5\n0,2.0,1.9,40.0,80.0\n1,1.5,1.6,55.0,85.0\n"
FOLDER = FieldMapping(map={"task_id": "{_folder}"})


def timm_runs(folder: Path, *tasks: str) -> Path:
    """One run of each task, in folders with names of their own."""
    for number, task in enumerate(tasks):
        run = folder / f"run-{number}"
        run.mkdir(parents=True)
        (run / "summary.csv").write_text(TIMM)
        (run / "args.yaml").write_text(f"model: m{number}\nepochs: 2\neval_metric: top1\n{task}")
    return folder


def taken(reader: LogReader) -> list[dict[str, Any]]:
    return [row for batch in reader for row in batch.runs.to_pylist()]


def test_the_folder_does_not_replace_what_the_log_states(tmp_path: Path) -> None:
    logs = timm_runs(tmp_path / "l", "dataset: cub\n", "dataset: nabirds\n", "dataset: cub\n", "")
    reader = read_log(logs, FOLDER)
    assert [row["task_id"] for row in taken(reader)] == ["cub", "nabirds", "cub", "run-3"]
    [text] = reader.warnings
    assert "task_id: 3 timm runs state it themselves (2 different: cub, nabirds)" in text
    # The way out that the warning names.
    mapping = FieldMapping(map={"task_id": "{at}"}, columns={"at": "_folder"})
    assert {row["task_id"] for row in taken(read_log(logs, mapping))} == {
        f"run-{number}" for number in range(4)
    }


@pytest.mark.parametrize(
    "mapping",
    [FieldMapping(set={"task_id": "birds"}), FieldMapping(map={"task_id": "{args.eval_metric}"})],
)
def test_what_is_said_against_the_log_is_taken_and_told(
    tmp_path: Path, mapping: FieldMapping
) -> None:
    logs = timm_runs(tmp_path / "l", "dataset: cub\n", "dataset: nabirds\n")
    reader = read_log(logs, mapping)
    given = mapping.set.get("task_id", "top1")
    assert {row["task_id"] for row in taken(reader)} == {given}
    [text] = reader.warnings
    assert "2 timm runs state cub, nabirds" in text
    assert f"gives {given}" in text


def test_what_agrees_with_the_log_is_not_told(tmp_path: Path) -> None:
    logs = timm_runs(tmp_path / "l", "dataset: cub\n")
    reader = read_log(logs, FieldMapping(set={"task_id": "cub"}))
    assert len(taken(reader)) == 1
    assert reader.warnings == ()


@pytest.mark.parametrize(
    ("args", "task"),
    [
        ("dataset: ''\ndata_dir: /data/CUB_200\n", "CUB_200"),
        ("data_dir: /data/birds/train\n", "birds"),
        ("data_dir: /home/data\n", None),
        ("dataset: torch/cifar10\ndata_dir: /x\n", "torch/cifar10"),
    ],
)
def test_timm_s_folder_of_images_is_the_task(tmp_path: Path, args: str, task: str | None) -> None:
    logs = timm_runs(tmp_path / "l", args)
    rows = taken(read_log(logs, FieldMapping(map={"task_id": "{_file}"})))
    assert rows[0]["task_id"] == (task or "run-0")


SETTINGS = {"model_name": "vit", "dataset": "birds", "monitor": "val_acc", "mode": "max", "seed": 3}
#: Files of a run whose settings say its model and its data set, in YAML, which JSON is too.
STATING = {
    "lightning": {
        "version_0/metrics.csv": "epoch,step,val_acc\n0,1,0.5\n1,2,0.75\n",
        "version_0/hparams.yaml": json.dumps(SETTINGS),
    },
    "dvclive": {
        "dvclive/metrics.json": '{"val_acc": 0.75, "step": 1}',
        "dvclive/params.yaml": json.dumps(SETTINGS),
    },
    "ray": {
        "search/trial/result.json": "".join(
            json.dumps({"training_iteration": at, "val_acc": value, "trial_id": "a"}) + "\n"
            for at, value in enumerate((0.5, 0.75), start=1)
        ),
        "search/trial/params.json": json.dumps(SETTINGS),
    },
}


@pytest.mark.parametrize("name", STATING)
def test_settings_name_model_and_task(tmp_path: Path, name: str) -> None:
    for path, text in STATING[name].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    said = {} if name == "lightning" else {"metric": "val_acc", "direction": "max"}
    [run] = taken(read_log(tmp_path, FieldMapping(set=said)))
    assert (run["model_id"], run["task_id"], run["seed"]) == ("vit", "birds", 3)
    assert (run["value"], run["direction"]) == (0.75, "max")
    assert json.loads(run["hyperparameters"])["model_name"] == "vit"


def test_a_version_of_lightning_is_not_a_task(tmp_path: Path) -> None:
    lay_out("lightning", tmp_path / "logs")
    versions = tmp_path / "logs" / "birds"
    shutil.copytree(versions / "version_0", tmp_path / "logs/lightning_logs/version_0")
    said = {"metric": "loss", "direction": "min", "split": "val"}
    given = FieldMapping(map={"model_id": "{hparams.model}"}, set=said)
    report = History.open(tmp_path / "h").ingest(read_log(tmp_path / "logs", given))
    # Who gave no name to the logger is asked for the task.
    assert report.n_quarantined >= 1
    rows = taken(read_log(tmp_path / "logs", given))
    assert {row["task_id"] for row in rows} == {"birds"}
    by_folder = given.overridden(map={"task_id": "{_folder}"})
    found = {row["task_id"] for row in taken(read_log(tmp_path / "logs", by_folder))}
    assert found == {"birds", "lightning_logs"}


def state(folder: Path, n_rows: int, *, loss: float = 0.5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"eval_loss": loss / step, "eval_runtime": 1.0 + step / 7, "epoch": step, "step": step}
        for step in range(1, n_rows + 1)
    ]
    document = {"global_step": n_rows, "max_steps": 4, "log_history": rows}
    (folder / "trainer_state.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "names",
    [
        ("run", "run/last-checkpoint"),
        ("run", "run/best_model"),
        ("run", "run/whatever"),
        ("run/checkpoint-2", "run/last-checkpoint"),
        ("run/best_model", "run/final_model"),
        ("run/last-checkpoint",),
    ],
)
def test_a_copy_of_a_checkpoint_is_not_a_second_run(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        state(tmp_path / name, 4 - number)
    [log] = find_logs(tmp_path).logs
    assert log.place == tmp_path / "run"
    said = {"model_id": "m", "task_id": "t", "metric": "loss", "direction": "min"}
    [row] = taken(read_log(tmp_path, FieldMapping(set=said)))
    assert (row["value"], row["status"]) == (0.5 / 4, "finished")


def test_another_training_in_a_folder_of_that_name_is_a_run(tmp_path: Path) -> None:
    state(tmp_path / "run", 4)
    state(tmp_path / "run/best_model", 3, loss=0.25)
    state(tmp_path / "run/final", 2, loss=0.75)
    places = {log.place.relative_to(tmp_path).as_posix() for log in find_logs(tmp_path).logs}
    assert places == {"run", "run/best_model", "run/final"}


@pytest.mark.parametrize("end", ["2.42", "105,2.4,0.59,86", "105,2.4,0.59,99.9,8", '105,"2'])
def test_a_cut_last_line_costs_the_line(tmp_path: Path, end: str) -> None:
    rows = "".join(f"{n},2.3597,0.5821,{85 + n / 100},97.{42 + n}\n" for n in range(3))
    header = "epoch,train_loss,eval_loss,eval_top1,eval_top5\n"
    (tmp_path / "summary.csv").write_text(header + rows + end)
    (tmp_path / "args.yaml").write_text("model: m\ndataset: cub\neval_metric: top1\n")
    reader = read_log(tmp_path, FieldMapping())
    [batch] = list(reader)
    assert batch.rejects == ()
    # A row of which only the last cell may be cut still counts; that cell does not.
    whole = end.count(",") == 4
    assert batch.runs["value"].to_pylist() == [pytest.approx(0.999 if whole else 0.8502)]
    assert batch.curves is not None
    assert 0.08 not in batch.curves["value"].to_pylist()
    [text] = reader.warnings
    assert "the last line breaks off" in text
    assert repr(end) in text


def test_a_whole_last_line_without_a_newline_counts(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss\n0,1.0,0.5\n1,0.9,0.25\n2,0.8,0.125")
    said = {"model_id": "m", "task_id": "t", "metric": "loss", "direction": "min"}
    reader = read_log(tmp_path, FieldMapping(set=said))
    assert [row["value"] for row in taken(reader)] == [0.125]
    assert reader.warnings == ()


def test_loops_pipes_and_devices_are_not_read_and_told(tmp_path: Path) -> None:
    logs = timm_runs(tmp_path / "l", *["dataset: cub\n"] * 5)
    (logs / "run-0/args.yaml").unlink()
    (logs / "run-0/args.yaml").symlink_to("args.yaml")
    (logs / "run-1/args.yaml").unlink()
    os.mkfifo(logs / "run-1/args.yaml")
    (logs / "run-2/args.yaml").unlink()
    (logs / "run-2/args.yaml").symlink_to("/dev/zero")
    (logs / "run-2/README.md").symlink_to("/dev/zero")
    (logs / "run-3/args.yaml").unlink()
    (logs / "run-3/args.yaml").symlink_to("nowhere.yaml")
    (logs / "run-4/args.yaml").unlink()
    (logs / "run-4/args.yaml").mkdir()
    (logs / "loop").symlink_to(logs, target_is_directory=True)
    os.mkfifo(logs / "trainer_state.json")
    said = FieldMapping(map={"model_id": "{_folder}"}, set={"task_id": "t", "metric": "top1"})
    batches = list(read_log(logs, said.overridden(set={"direction": "max"})))
    rows = [row for batch in batches for row in batch.runs.to_pylist()]
    assert [row["model_id"] for row in rows] == [f"run-{i}" for i in range(5)]
    assert [row["value"] for row in rows] == [0.55] * 5
    reasons = [bad.reason.partition(",")[0] for batch in batches for bad in batch.rejects]
    assert [reason.partition(";")[0] for reason in reasons] == [
        "is a loop of links",
        "is a pipe",
        "is a device",
        "the file is gone",
        "is a folder",
    ]


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not here: {CASES} is absent")
@pytest.mark.parametrize(
    ("case", "mapping", "expected"),
    [
        (
            "logs/03-curve-table-first-epoch/ultralytics_results.csv",
            {
                "map": {"value": "{metrics/mAP50-95(B)}"},
                "set": {"model_id": "y", "task_id": "dogs", "metric": "mAP50-95"},
            },
            [("y", "dogs", 0.69994)],
        ),
        (
            "logs/03-curve-table-first-epoch/fastai_history.csv",
            {"set": {"model_id": "y", "task_id": "t", "metric": "error_rate"}},
            [("y", "t", 0.017174), ("y", "t", 0.099607)],
        ),
        (
            "logs/05-lightning-folder-is-version",
            {
                "map": {"task_id": "{_folder}"},
                "set": {"metric": "loss", "direction": "min", "model_id": "r"},
            },
            [
                ("r", "lightning_logs", 1.876805),
                ("r", "my_model", 1.951858),
                ("r", "my_model", 1.994583),
            ],
        ),
        (
            "logs/10-model-card-alone/model",
            {},
            [("openai/whisper-tiny", "NbAiLab/NCC_S/no", 24.878197320341048)],
        ),
        ("logs/14-timm-truncated-last-line", {}, [("ctfg_1472", "CUB_200_2011", 0.8683120)]),
    ],
)
def test_the_cases(
    case: str, mapping: dict[str, dict[str, str]], expected: list[tuple[str, str, float]]
) -> None:
    reader = read_log(CASES / case, FieldMapping(**mapping))
    rows = sorted((row["model_id"], row["task_id"], row["value"]) for row in taken(reader))
    assert rows == [
        (model, task, pytest.approx(value, abs=1e-6)) for model, task, value in expected
    ]
