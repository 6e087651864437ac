"""Folders of logs from end to end: found by content, asked about, ingested, grown, replayed."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.found_logs import LOG_FORMATS, find_logs, log_format
from recsys_ms.history.readers.inspection import inspect_logs
from recsys_ms.history.readers.logged import LogFiles
from recsys_ms.history.readers.logs import read_log, replay_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.recorder.recording import recording

KERAS = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.0,0.4,1.1\n1,0.7,0.8,0.6,0.9\n"
TIMM = (
    "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n"
    "0,2.0,1.9,40.0,80.0,0.1\n"
    "1,1.5,1.6,55.0,85.0,0.05\n"
)
TIMM_ARGS = "model: vit_tiny\nepochs: 2\neval_metric: top1\nseed: 3\nlr: 0.1\n"
STATE: dict[str, Any] = {
    "best_metric": None,
    "global_step": 4,
    "max_steps": 4,
    "epoch": 2.0,
    "log_history": [
        {"loss": 1.0, "epoch": 1.0, "step": 2},
        {"eval_loss": 0.9, "eval_accuracy": 0.5, "epoch": 1.0, "step": 2},
        {"eval_loss": 0.8, "eval_accuracy": 0.75, "epoch": 2.0, "step": 4},
        {"train_runtime": 1.0, "train_loss": 0.9, "epoch": 2.0, "step": 4},
    ],
}
SAID = {"task_id": "birds"}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder of three frameworks, with files around them that are not logs."""
    folder = tmp_path / "logs"
    for name in ("hf/run", "timm/run", "keras", ".git", "weights"):
        (folder / name).mkdir(parents=True)
    (folder / "hf/run/trainer_state.json").write_text(json.dumps(STATE))
    (folder / "hf/run/training_args.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    (folder / "timm/run/summary.csv").write_text(TIMM)
    (folder / "timm/run/args.yaml").write_text(TIMM_ARGS)
    (folder / "keras/training.log").write_text(KERAS)
    (folder / "weights/model.bin").write_bytes(os.urandom(512))
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    (folder / ".git/summary.csv").write_text(TIMM)
    return folder


def history_in(folder: Path) -> History:
    return History.open(folder / "history")


@pytest.mark.parametrize("damage", ["!!int ''", "!!bool maybe", "!!float x", "!!timestamp x"])
def test_damaged_settings_wait_in_quarantine_and_nothing_is_asked(
    tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "logs"
    for name in ("timm", "lightning"):
        (folder / name).mkdir(parents=True)
    (folder / "timm/summary.csv").write_text(TIMM)
    (folder / "timm/args.yaml").write_text(f"x: {damage}\nmodel: m\n")
    (folder / "lightning/metrics.csv").write_text("epoch,step,top1\n0,1,0.5\n")
    (folder / "lightning/hparams.yaml").write_text(f"x: {damage}\nmodel: m\n")
    mapping = FieldMapping(set={"task_id": "t", "direction": "max", "metric": "top1"})

    batches = list(read_log(folder, mapping))

    assert not any(batch.runs.num_rows for batch in batches)
    rejects = [reject for batch in batches for reject in batch.rejects]
    reasons = {Path(reject.file).name: reject.reason for reject in rejects}
    for name in ("args.yaml", "hparams.yaml"):
        assert "line 1" in reasons.pop(name)
    assert all("model_id" in reason for reason in reasons.values())
    assert len(reasons) == 2


def test_every_format_has_a_reader_of_its_name() -> None:
    for name in LOG_FORMATS:
        assert log_format(name).name == name
        assert log_format(name).wanted
    with pytest.raises(UsageError, match="hf-trainer"):
        log_format("no-such-format")


def test_logs_are_found_by_what_they_hold(logs: Path) -> None:
    found = find_logs(logs)
    assert {(log.format_name, log.place.relative_to(logs).as_posix()) for log in found.logs} == {
        ("hf-trainer", "hf/run"),
        ("timm", "timm/run"),
        ("keras", "keras/training.log"),
    }
    assert logs / "notes.csv" in found.others
    assert not any(".git" in path.parts for path in found.others)
    only = find_logs(logs, "timm")
    assert [log.format_name for log in only.logs] == ["timm"]
    assert [log.place for log in find_logs(logs / "keras/training.log").logs] == [
        logs / "keras/training.log"
    ]


def test_no_log_says_what_would_be_one(tmp_path: Path, logs: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"summary\.csv"):
        read_log(logs / "weights", log_format_name="timm")
    with pytest.raises(DataError, match="hf-trainer"):
        read_log(logs / "weights")


def test_what_no_run_says_is_asked_for_before_anything_is_written(
    logs: Path, tmp_path: Path
) -> None:
    history = history_in(tmp_path)
    with pytest.raises(UsageError, match="--map task_id=") as caught:
        history.ingest(read_log(logs, log_format_name="timm"))
    text = str(caught.value)
    # timm says model, metric and direction itself.
    assert "direction" not in text
    assert "args.model" in text
    assert "eval_top1" in text
    assert history.version == 0
    assert history.quarantine.table().empty


def test_a_folder_of_all_of_them(logs: Path, tmp_path: Path) -> None:
    history = history_in(tmp_path)
    mapping = FieldMapping(
        map={"tags.folder": "{_folder}"}, set={**SAID, "metric": "accuracy", "model_id": "m"}
    )
    timm = FieldMapping(set={"task_id": "birds"})
    assert history.ingest(read_log(logs, mapping, log_format_name="hf-trainer")).n_new == 1
    assert history.ingest(read_log(logs, mapping, log_format_name="keras")).n_new == 1
    assert history.ingest(read_log(logs, timm, log_format_name="timm")).n_new == 1
    runs = history.runs().set_index("source")
    assert runs["value"].to_dict() == {"hf-trainer": 0.75, "keras": 0.6, "timm": 0.55}
    assert set(runs["direction"]) == {"max"}
    assert runs.loc["timm", "model_id"] == "vit_tiny"
    assert runs.loc["timm", "metric"] == "top1"
    assert runs.loc["timm", "seed"] == 3
    assert json.loads(runs.loc["hf-trainer", "tags"])["folder"] == "run"
    curves = history.curves()
    assert set(curves["run_id"]) == set(history.runs()["run_id"])
    # Again changes nothing, neither runs nor curves.
    for name, given in (("hf-trainer", mapping), ("keras", mapping), ("timm", timm)):
        report = history.ingest(read_log(logs, given, log_format_name=name))
        assert (report.n_new, report.n_updated, report.n_duplicate) == (0, 0, 1)
        assert report.n_curve_points == 0
    assert history.curves().equals(curves)


def test_a_log_that_has_grown_updates_its_run(logs: Path, tmp_path: Path) -> None:
    history = history_in(tmp_path)
    mapping = FieldMapping(set={**SAID, "metric": "accuracy", "model_id": "m"})
    path = logs / "keras/training.log"
    history.ingest(read_log(path, mapping))
    with path.open("a") as log:
        log.write("2,0.9,0.5,0.8,0.7\n")
    report = history.ingest(read_log(path, mapping))
    assert (report.n_new, report.n_updated, report.n_quarantined) == (0, 1, 0)
    [run] = history.runs().itertuples()
    assert (run.value, run.epoch) == (0.8, 2.0)
    values = history.curves(metric="accuracy", split="val")["value"]
    assert values.tolist() == [0.4, 0.6, 0.8]
    # An older copy of the log is old news.
    path.write_text(KERAS)
    report = history.ingest(read_log(path, mapping))
    assert (report.n_updated, report.n_duplicate, report.n_quarantined) == (0, 1, 0)
    assert history.runs()["value"].tolist() == [0.8]


def test_curves_are_left_out_when_they_are_not_wanted(logs: Path, tmp_path: Path) -> None:
    history = history_in(tmp_path)
    mapping = FieldMapping(set={**SAID, "metric": "accuracy", "model_id": "m"})
    history.ingest(read_log(logs / "keras", mapping), curves=False)
    assert history.curves().empty
    assert len(history.runs()) == 1


def test_some_runs_that_lack_something_wait_in_quarantine(logs: Path, tmp_path: Path) -> None:
    second = logs / "timm/other"
    second.mkdir()
    (second / "summary.csv").write_text(TIMM)
    history = history_in(tmp_path)
    report = history.ingest(
        read_log(logs, FieldMapping(set={"task_id": "birds"}), log_format_name="timm")
    )
    assert (report.n_new, report.n_quarantined) == (1, 1)
    [reject] = history.quarantine.pending()
    assert "--set model_id" in reject.reason
    more = FieldMapping(
        set={"task_id": "birds", "model_id": "resnet", "metric": "top1", "direction": "max"}
    )
    report = history.replay(lambda reject: replay_log(reject, more))
    assert (report.n_new, report.n_quarantined) == (1, 0)
    assert sorted(history.runs()["model_id"]) == ["resnet", "vit_tiny"]
    assert list(history.quarantine.pending()) == []
    assert len(history.curves()["run_id"].unique()) == 2


def with_a_broken_log(logs: Path, folder: Path) -> tuple[History, Path, str]:
    """A history that has met a truncated log, the log, and its whole text."""
    state = logs / "hf/run/trainer_state.json"
    whole = state.read_text()
    state.write_text(whole[:-20])
    history = history_in(folder)
    mapping = FieldMapping(set={**SAID, "metric": "accuracy", "model_id": "m"})
    report = history.ingest(read_log(logs / "hf", mapping))
    assert (report.n_new, report.n_quarantined) == (0, 1)
    return history, state, whole


def test_a_broken_log_is_kept_whole_and_taken_once_it_is_mended(logs: Path, tmp_path: Path) -> None:
    history, state, whole = with_a_broken_log(logs, tmp_path)
    [reject] = history.quarantine.pending()
    assert reject.raw == whole[:-20]
    assert Path(reject.file) == state
    # Nothing was mended: it stays.
    assert history.replay(replay_log).n_quarantined == 1
    # Mended in the quarantine, while the file is still broken.
    batch = replay_log(replace(reject, raw=whole))
    assert batch.runs["value"].to_pylist() == [0.75]
    # Mended on the disk.
    state.write_text(whole)
    assert history.replay(replay_log).n_new == 1
    assert list(history.quarantine.pending()) == []
    assert history.runs()["value"].tolist() == [0.75]


def test_a_broken_log_whose_file_is_gone_is_mended_by_its_text(logs: Path, tmp_path: Path) -> None:
    history, state, whole = with_a_broken_log(logs, tmp_path)
    state.unlink()
    [reject] = history.quarantine.pending()
    report = history.replay(replay_log, edited={reject.id: whole})
    assert (report.n_new, report.n_quarantined) == (1, 0)


def test_running_runs_and_tables_are_told_of(logs: Path, tmp_path: Path) -> None:
    (logs / "timm/run/args.yaml").write_text(TIMM_ARGS.replace("epochs: 2", "epochs: 9"))
    reader = read_log(logs, FieldMapping(set={**SAID, "model_id": "m", "metric": "loss"}))
    history = history_in(tmp_path)
    history.ingest(reader)
    assert any("1 of 3 runs are not finished" in text for text in reader.warnings)
    assert any("notes.csv" in text for text in reader.warnings)
    # The job went on to its end.
    (logs / "timm/run/summary.csv").write_text(
        TIMM + "".join(f"{epoch},1.0,1.0,60.0,90.0,0.01\n" for epoch in range(2, 9))
    )
    mapping = FieldMapping(set={**SAID, "model_id": "m", "metric": "loss"})
    report = history.ingest(read_log(logs, mapping))
    assert (report.n_updated, report.n_duplicate) == (1, 2)
    assert set(history.runs()["status"]) == {"finished"}


def test_inspection_tells_what_is_there_and_what_is_missing(logs: Path) -> None:
    folder = inspect_logs(logs)
    assert {log.format_name for log in folder.logs} == {"hf-trainer", "timm", "keras"}
    assert folder.tables == (logs / "notes.csv",)
    by_name = {log.format_name: log for log in folder.logs}
    assert by_name["timm"].missing == {"task_id": 1}
    assert "metric" in by_name["keras"].missing
    assert "--set metric=NAME" in by_name["keras"].advice
    assert "val_accuracy" in by_name["keras"].series
    assert "args.model" in by_name["timm"].columns
    ready = inspect_logs(logs / "timm", FieldMapping(set={"task_id": "birds"})).logs[0]
    assert (ready.n_runs, ready.n_ready, ready.missing, ready.advice) == (1, 1, {}, "")


CLAIMS: dict[str, dict[str, str]] = {
    "timm": {"summary.csv": TIMM, "args.yaml": TIMM_ARGS},
    "keras": {"training.csv": KERAS},
    "lightning": {"metrics.csv": "epoch,step,val_acc\n0,1,0.5\n", "hparams.yaml": "lr: 0.1\n"},
    "hf-trainer": {"trainer_state.json": json.dumps(STATE)},
    "wandb": {
        "runs.csv": '"Name","State","Notes","User","Tags","Created","Runtime","accuracy"\n'
        '"calm-sky-1","finished","-","a","","2026-01-01T00:00:00.000Z","12","0.5"\n'
    },
    "optuna": {
        "trials.csv": "number,value,datetime_start,datetime_complete,params_lr,state\n"
        "0,0.5,2026-01-01 00:00:00,2026-01-01 00:01:00,0.1,COMPLETE\n"
    },
}


@pytest.mark.parametrize("name", CLAIMS)
def test_each_log_is_claimed_by_its_format_alone(tmp_path: Path, name: str) -> None:
    for file, text in CLAIMS[name].items():
        (tmp_path / file).write_text(text)
    assert [log.format_name for log in find_logs(tmp_path).logs] == [name]
    for other in LOG_FORMATS:
        claimed = find_logs(tmp_path, other).logs
        # Who asks for "steps" asks for any table of epochs.
        assert other == "steps" or bool(claimed) == (other == name), other


def test_keras_and_lightning_files_of_each_others_names(tmp_path: Path) -> None:
    # A Keras log called metrics.csv, and a Lightning one without settings called training.csv.
    (tmp_path / "metrics.csv").write_text(KERAS)
    (tmp_path / "training.csv").write_text("epoch,step,val_acc\n0,1,0.5\n")
    assert [(log.format_name, log.place.name) for log in find_logs(tmp_path).logs] == [
        ("keras", "metrics.csv"),
        ("steps", "training.csv"),
    ]


def test_deep_folders_links_and_files_that_cannot_be_opened(logs: Path) -> None:
    deep = logs.joinpath(*["d"] * 60)
    deep.mkdir(parents=True)
    (deep / "training.csv").write_text(KERAS)
    (logs / "loop").symlink_to(logs)
    (logs / "dangling.csv").symlink_to(logs / "nowhere.csv")
    os.mkfifo(logs / "pipe.csv")
    found = find_logs(logs, "keras")
    assert [log.place.name for log in found.logs] == ["training.csv", "training.log"]


def test_a_history_among_the_logs_is_not_entered(logs: Path) -> None:
    history = History.open(logs / "H")
    with recording(logs / "H", model_id="m", task_id="t", metric="accuracy") as run:
        run.log(0.5, epoch=1)
    history.ingest_inbox()
    found = find_logs(logs)
    assert not [path for path in found.others if path.is_relative_to(logs / "H")]
    assert not [log for log in found.logs if log.place.is_relative_to(logs / "H")]


def test_a_document_of_runs_and_a_device_are_told_from_logs(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text('[{"model": "vit", "acc": 0.5}]')
    with pytest.raises(DataError, match=r"no log found in 1 file; .* --format json, or --records"):
        read_log(path)
    (tmp_path / "trainer_state.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_log(tmp_path / "trainer_state.json")


def test_many_bad_lines_of_a_log_are_replayed_by_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "epoch,train_loss,eval_top1\n0,1.0,50.0\n"
    file = tmp_path / "run" / "summary.csv"
    file.parent.mkdir()
    file.write_text(head + "1,0.5,abc\n" * 500)
    said = {"metric": "top1", "model_id": "m", "task_id": "t"}
    history = History.open(tmp_path / "H")
    report = history.ingest(read_log(file.parent, FieldMapping(set=said)))
    assert (report.n_new, report.n_quarantined) == (1, 500)
    readings = []
    text = LogFiles.text
    monkeypatch.setattr(LogFiles, "text", lambda *args: readings.append(args) or text(*args))
    report = history.replay(partial(replay_log, readable={}))
    assert (report.n_quarantined, len(readings)) == (500, 1)
    file.write_text(head + "".join(f"{epoch},0.5,60.0\n" for epoch in range(1, 501)))
    readings.clear()
    report = history.replay(partial(replay_log, readable={}))
    assert (report.n_quarantined, len(readings)) == (0, 1)
    assert not list(history.quarantine.pending())
    assert len(history.curves()) == 2 * 501
