"""Run folders and charts of Weights & Biases, as its versions leave and export them."""

import json
from functools import partial
from pathlib import Path

import pytest
from history.readers.frameworks import reading
from history.readers.frameworks.reading import series_of

from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.wandb import Wandb
from recsys_ms.history.readers.formats.wandb_chart import WandbChart
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate, LogFiles
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

ID = "abcd1234"
#: What W&B 0.19 wrote at the end of a run of Hugging Face's Trainer, shortened.
SUMMARY = (
    '{"eval/loss":1.2230346202850342,"eval/accuracy":0.8,"train/epoch":0.96,"train/loss":1.4705,'
    '"eval/f1":0.7823684210526316,"odd":NaN,"far":"Infinity","graph":{"_type":"graph-file"},'
    '"best":{"max":0.9},"_wandb":{"runtime":74},"_runtime":74.686,"_timestamp":1.734047795616679e+09,'
    '"_step":3}'
)
CONFIG = """\
wandb_version: 1
_wandb:
    value:
        cli_version: 0.19.1
        framework: huggingface
_name_or_path:
    value: google/vit-base-patch16-224
dataset_name:
    desc: null
    value: birds
learning_rate:
    value: 1e-04
seed:
    value: 42
greater_is_better:
    value: true
metric_for_best_model:
    value: accuracy
layers:
    value: [1, 2]
"""
METADATA = {
    "startedAt": "2024-12-12T23:55:21.113Z",
    "program": "train.py",
    "git": {"commit": "0123abc", "remote": "git@host:me/code"},
    "email": "me@example.org",
    "host": "my-laptop",
    "gpu": "NVIDIA A100",
}
FOLDER = partial(reading.claimed_items, Wandb())


def run_folder(root: Path, *, run: str = f"run-20241212_235521-{ID}", **texts: str | None) -> Path:
    texts = {
        "wandb-summary.json": SUMMARY,
        "config.yaml": CONFIG,
        "wandb-metadata.json": json.dumps(METADATA),
        **{name.replace("_", "."): text for name, text in texts.items()},
    }
    folder = root / "wandb" / run
    (folder / "files").mkdir(parents=True)
    (folder / f"run-{ID}.wandb").write_bytes(b":W&B\xe1\xbe\x00more")
    for name, text in texts.items():
        if text is not None:
            (folder / "files" / name).write_text(text)
    return folder


def read(place: Path) -> list[object]:
    return reading.items_of(Wandb(), place)


def test_a_run_folder_is_one_run_by_whichever_file(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "project")
    (tmp_path / "project/wandb/latest-run").symlink_to(folder, target_is_directory=True)
    for given in (tmp_path, folder, folder / "files", tmp_path / "project/wandb/latest-run"):
        assert [log.place for log in find_logs(given).logs] == [folder]
    [run] = read(folder)
    assert run.identity == f"wandb:{ID}"
    assert {name: each.values[0] for name, each in series_of(run).items()} == {
        "eval/loss": 1.2230346202850342,
        "eval/accuracy": 0.8,
        "train/loss": 1.4705,
        "eval/f1": 0.7823684210526316,
        "odd": pytest.approx(float("nan"), nan_ok=True),
        "far": float("inf"),
        "best.max": 0.9,
    }
    assert series_of(run)["eval/f1"].split == "eval"
    told = {**run.fields}
    assert str(told.pop("started_at")).startswith("2024-12-12 23:55:21")
    assert told == {
        "model_id": "google/vit-base-patch16-224",
        "task_id": "birds",
        "seed": 42,
        "status": "finished",
        "source_version": "0123abc",
        "hyperparameters": {
            "_name_or_path": "google/vit-base-patch16-224",
            "dataset_name": "birds",
            "learning_rate": 0.0001,
            "seed": 42,
            "greater_is_better": True,
            "metric_for_best_model": "accuracy",
            "layers": [1, 2],
        },
    }
    assert (run.chosen, run.directions) == ("eval/accuracy", {"eval/accuracy": "max"})
    # Names, addresses and the machine stay where they are.
    assert "example.org" not in run.to_json()
    assert "my-laptop" not in run.to_json()


def test_it_is_ingested_without_any_option(tmp_path: Path) -> None:
    run_folder(tmp_path / "project")
    history = History.open(tmp_path / "h")
    assert history.ingest(read_log(tmp_path / "project")).n_new == 1
    [row] = history.runs().to_dict("records")
    assert (row["run_id"], row["metric"], row["value"]) == (f"wandb-{ID}", "accuracy", 0.8)


def test_the_folder_of_a_run_is_that_of_its_project(tmp_path: Path) -> None:
    place = run_folder(tmp_path / "pets", config_yaml="model: {value: resnet18}")
    mapping = FieldMapping(map={"task_id": "{_folder}"}, set={"metric": "accuracy"})
    history = History.open(tmp_path / "h")
    history.ingest(read_log(place, mapping.overridden(set={"direction": "max"})))
    [row] = history.runs().to_dict("records")
    assert (row["model_id"], row["task_id"]) == ("resnet18", "pets")


@pytest.mark.parametrize("missing", ["config_yaml", "wandb-metadata_json"])
def test_a_file_that_is_missing_is_no_damage(tmp_path: Path, missing: str) -> None:
    [run] = read(run_folder(tmp_path, **{missing: None}))
    assert series_of(run)["eval/accuracy"].values == [0.8]


def test_a_run_that_was_not_ended_is_running(tmp_path: Path) -> None:
    [run] = read(run_folder(tmp_path, **{"wandb-summary_json": '{"acc": 0.5, "_step": 3}'}))
    assert run.fields["status"] == "running"
    [run] = read(run_folder(tmp_path / "b", **{"wandb-summary_json": '{"acc": 0.5}'}))
    assert run.fields["status"] == "finished"


def test_the_files_of_a_run_that_were_downloaded(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "wandb-summary.json").write_text(SUMMARY)
    [log] = find_logs(tmp_path).logs
    [run] = read(log.place)
    assert run.identity == f"wandb:{tmp_path}"
    assert run.fields["model_id"] == "google/vit-base-patch16-224"


@pytest.mark.parametrize("summary", [None, "{}", '{"_wandb": {"runtime": 0}}'])
def test_an_offline_run_says_how_to_get_its_values(tmp_path: Path, summary: str | None) -> None:
    folder = run_folder(
        tmp_path,
        run=f"offline-run-20241212_235521-{ID}",
        **{"wandb-summary_json": summary, "config_yaml": None, "wandb-metadata_json": None},
    )
    assert Wandb().place_of(Candidate(folder / f"run-{ID}.wandb")) == folder
    [bad] = read(folder)
    assert isinstance(bad, BadLog)
    assert "wandb sync" in bad.reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wandb-summary.json", SUMMARY[:40]),
        ("wandb-summary.json", "[1, 2]"),
        ("wandb-summary.json", '{"a":' * 5_000),
        ("config.yaml", "x: !!int ''\n_wandb: 1\n"),
        ("config.yaml", "_wandb: [\n"),
        ("wandb-metadata.json", "{"),
    ],
)
def test_a_damaged_file_waits_in_quarantine_with_its_text(
    tmp_path: Path, name: str, text: str
) -> None:
    folder = run_folder(tmp_path)
    (folder / "files" / name).write_text(text)
    bad = [item for item in read(folder) if isinstance(item, BadLog)]
    assert [(each.file.name, each.raw) for each in bad] == [(name, text)]
    # Its correction gives the run.
    good = {"wandb-summary.json": SUMMARY, "config.yaml": CONFIG}.get(name, "{}")
    corrected = LogFiles({(folder / "files" / name).resolve(): good})
    [run] = Wandb().read(folder, corrected)
    assert series_of(run)["eval/accuracy"].values == [0.8]


CHART = (
    '"Step","calm - sky - val/acc","calm - sky - val/acc__MIN","calm - sky - val/acc__MAX",'
    '"wild - val/acc","wild - val/acc__MIN","wild - val/acc__MAX","wild - _step",'
    '"wild - _step__MIN","wild - _step__MAX"\n'
    '"0","0.5","0.5","0.5","0.25","0.25","0.25","0","0","0"\n'
    '"10","0.9","0.8","1.0","","","","","",""\n'
    '"20","0.7","0.7","0.7","0.125","0.125","0.125","20","20","20"\n'
)


def chart(path: Path, text: str = CHART) -> Path:
    path.write_text(text)
    return path


def test_a_chart_is_one_curve_of_each_run(tmp_path: Path) -> None:
    path = chart(tmp_path / "wandb_export.csv")
    first, second = reading.claimed_runs(WandbChart(), path)
    assert [run.columns["run_name"] for run in (first, second)] == ["calm - sky", "wild"]
    [series] = first.series
    assert (series.name, series.metric, series.split) == ("val/acc", "acc", "val")
    assert (list(series.steps), list(series.values)) == ([0, 10, 20], [0.5, 0.9, 0.7])
    assert list(second.series[0].steps) == [0, 20]


def test_the_best_of_a_chart_is_taken(tmp_path: Path) -> None:
    path = chart(tmp_path / "wandb_export.csv")
    mapping = FieldMapping(map={"model_id": "{run_name}"}, set={"task_id": "t", "metric": "acc"})
    history = History.open(tmp_path / "h")
    history.ingest(read_log(path, mapping.overridden(set={"direction": "max"})))
    runs = history.runs().set_index("model_id")
    assert dict(runs["value"]) == {"calm - sky": 0.9, "wild": 0.25}
    assert len(history.curves(list(runs["run_id"]))) == 5


@pytest.mark.parametrize(
    ("axis", "steps", "epochs"),
    [("epoch", None, [0.0, 10.0, 20.0]), ("Relative Time (Process)", None, None)],
)
def test_another_axis_of_a_chart(
    tmp_path: Path, axis: str, steps: list[int] | None, epochs: list[float] | None
) -> None:
    path = chart(tmp_path / "a.csv", CHART.replace('"Step"', f'"{axis}"'))
    [series] = reading.claimed_runs(WandbChart(), path)[0].series
    assert list(series.steps) == (steps or [None] * 3)
    assert list(series.epochs) == (epochs or [None] * 3)


def test_two_runs_of_one_name_in_a_chart_are_refused(tmp_path: Path) -> None:
    path = chart(tmp_path / "a.csv", CHART.replace("calm - sky", "wild"))
    with pytest.raises(BadLogError, match="two runs have the column"):
        list(WandbChart().read(path, LogFiles()))


def test_the_summary_of_a_metric_is_the_metric(tmp_path: Path) -> None:
    # What define_metric("eval/accuracy", summary="max") leaves.
    summary = '{"eval/accuracy":{"max":0.85},"_wandb":{"runtime":7}}'
    folder = run_folder(tmp_path, **{"wandb-summary_json": summary})
    mapping = FieldMapping(set={"metric": "accuracy"})
    [batch] = list(read_log(folder, mapping))
    assert batch.runs["value"].to_pylist() == [0.85]
