"""Ultralytics' run folders: real ones, older shapes, and what only the settings tell."""

import csv
from pathlib import Path

import pytest
from history.readers.frameworks.reading import read_log_of, series_of
from history.readers.frameworks.recorded import WAYS, framework_log

from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.ultralytics import Ultralytics
from recsys_ms.history.readers.logged import BadLog, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = Ultralytics()
HEADER = "epoch,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss\n"
ROWS = "1,2.0,0.5,0.2,1.5\n2,1.5,0.6,0.4,1.2\n3,1.0,0.6,0.3,1.4\n"
#: As YOLOv5 pads its columns.
YOLOV5 = (
    "               epoch,      train/box_loss,     metrics/mAP_0.5,metrics/mAP_0.5:0.95\n"
    "                   0,               0.105,               0.250,                0.10\n"
    "                   1,               0.095,               0.500,                0.25\n"
)


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ultralytics")
    return framework_log(request.param, "ultralytics", folder, ("ultralytics",))


def read(path: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    return read_log_of(FORMAT, path)


def run_of(folder: Path, results: str = HEADER + ROWS, args: str | None = None) -> LoggedRun:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.csv").write_text(results)
    if args is not None:
        (folder / "args.yaml").write_text(args)
    [run], bad = read(folder / "results.csv")
    assert bad == []
    return run


def column(path: Path, name: str) -> list[float]:
    with path.open() as handle:
        return [float(row[name]) for row in csv.DictReader(handle)]


def test_real_trainings_need_no_mapping(trained: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    report = history.ingest(read_log(trained))
    assert (report.n_new, report.n_quarantined) == (3, 0)
    runs = history.runs().set_index("model_id")
    best = max(column(trained / "detect/train/results.csv", "metrics/mAP50-95(B)"))
    assert best > 0.1
    row = runs.loc["yolo11n.yaml"]
    assert (row["task_id"], row["metric"], row["direction"]) == (
        "white-boxes",
        "mAP50-95(B)",
        "max",
    )
    assert (row["value"], row["split"], row["seed"]) == (best, "val", 7)
    # It stopped early: no epoch was better for eight.
    assert row["status"] == "finished"
    top1 = column(trained / "classify/train/results.csv", "metrics/accuracy_top1")
    row = runs.loc["yolo11n-cls.yaml"]
    assert (row["task_id"], row["metric"], row["value"]) == ("shades", "accuracy_top1", max(top1))
    assert runs.loc["yolov8n.yaml", "status"] == "running"


def test_every_column_is_a_series(trained: Path) -> None:
    [run], _ = read(trained / "detect/train/results.csv")
    found = series_of(run)
    each = found["metrics/mAP50-95(B)"]
    assert (each.metric, each.split, each.epochs[0]) == ("mAP50-95(B)", "val", 1.0)
    assert (found["train/box_loss"].metric, found["train/box_loss"].split) == ("box_loss", "train")
    assert run.directions["val/box_loss"] == "min"
    assert run.directions["metrics/recall(B)"] == "max"
    assert "lr/pg0" not in run.directions
    assert list(each.values) == column(trained / "detect/train/results.csv", each.name)


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (None, "finished"),
        ("epochs: 3\n", "finished"),
        ("epochs: 9\n", "running"),
        ("epochs: 9\npatience: 1\n", "finished"),
        ("epochs: 9\npatience: 2\n", "running"),
        ("epochs: 9\npatience: 0\n", "running"),
    ],
)
def test_when_a_training_has_ended(tmp_path: Path, args: str | None, status: str) -> None:
    assert run_of(tmp_path, args=args).fields["status"] == status
    if status == "running":
        (tmp_path / "results.png").touch()
        assert run_of(tmp_path, args=args).fields["status"] == "finished"


@pytest.mark.parametrize(
    ("args", "model", "task"),
    [
        ("model: yolo11s.pt\ndata: coco8.yaml\n", "yolo11s", "coco8"),
        ("model: /content/yolov8n.pt\ndata: /content/Dogs-2/data.yaml\n", "yolov8n", "Dogs-2"),
        ("model: C:\\w\\yolov8n.pt\ndata: C:\\w\\dogs\\data.yaml\n", "yolov8n", "dogs"),
        ("model: yolo11n.yaml\ndata: datasets/imagenette\n", "yolo11n.yaml", "imagenette"),
        ("model: yolo11n.yaml\npretrained: yolo11n.pt\ndata: x\n", "yolo11n", "x"),
        ("model: runs/detect/train3/weights/best.pt\ndata: data/data.yaml\n", None, None),
        ("model: null\ndata: [1]\n", None, None),
    ],
)
def test_names_are_what_the_settings_say(
    tmp_path: Path, args: str, model: str | None, task: str | None
) -> None:
    fields = run_of(tmp_path, args=args).fields
    assert (fields.get("model_id"), fields.get("task_id")) == (model, task)


def test_the_results_of_yolov5(tmp_path: Path) -> None:
    (tmp_path / "opt.yaml").write_text(
        "weights: yolov5s.pt\ncfg: ''\ndata: data/birds.yaml\nepochs: 2\n"
    )
    run = run_of(tmp_path, YOLOV5)
    assert run.chosen == "metrics/mAP_0.5:0.95"
    assert max(series_of(run)[run.chosen].values) == 0.25
    told = (run.fields["model_id"], run.fields["task_id"], run.fields["status"])
    assert told == ("yolov5s", "birds", "finished")


def test_masks_are_chosen_before_boxes(tmp_path: Path) -> None:
    text = "epoch,train/loss,metrics/mAP50-95(B),metrics/mAP50-95(M)\n1,1.0,0.6,0.4\n"
    assert run_of(tmp_path, text).chosen == "metrics/mAP50-95(M)"


def test_a_file_of_another_name_is_found_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "yolo (1).csv").write_text(HEADER + ROWS)
    # Settings are those of results.csv.
    (tmp_path / "args.yaml").write_text("model: yolo11s.pt\ndata: coco8.yaml\n")
    mapping = FieldMapping(set={"model_id": "m", "task_id": "t"})
    [batch] = list(read_log(tmp_path, mapping))
    [row] = batch.runs.to_pylist()
    assert (row["value"], row["epoch"], row["metric"]) == (0.4, 2.0, "mAP50-95(B)")


def test_the_folder_is_that_of_the_project(tmp_path: Path) -> None:
    run_of(tmp_path / "dogs/runs/detect/train2", args="model: yolo11s.pt\ndata: data.yaml\n")
    run_of(tmp_path / "mine", args="model: yolo11n.pt\ndata: data.yaml\n")
    mapping = FieldMapping(map={"task_id": "{_folder}"})
    rows = [row for batch in read_log(tmp_path, mapping) for row in batch.runs.to_pylist()]
    assert {row["model_id"]: row["task_id"] for row in rows} == {
        "yolo11s": "dogs",
        "yolo11n": "mine",
    }
