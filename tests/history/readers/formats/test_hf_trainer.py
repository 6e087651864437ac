"""Run folders of transformers' Trainer: real ones, older shapes, and damaged ones."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from history.readers.frameworks.reading import fuzz, read_log_of, series_of
from history.readers.frameworks.recorded import WAYS, framework_log
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.hf_trainer_state import HfTrainer
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = HfTrainer()
#: As transformers 4.0 wrote it.
OLD: dict[str, Any] = {
    "best_metric": 0.75,
    "best_model_checkpoint": "out/checkpoint-2",
    "epoch": 2.0,
    "global_step": 3,
    "max_steps": 4,
    "log_history": [
        {"loss": 0.9, "learning_rate": 0.1, "epoch": 0.5, "step": 1},
        {"eval_loss": 0.8, "eval_accuracy": 0.5, "epoch": 0.5, "step": 1},
        {"eval_loss": 0.7, "eval_accuracy": 0.75, "epoch": 1.0, "step": 2},
        {"eval_loss": 0.6, "eval_accuracy": 0.25, "epoch": 1.5, "step": 3},
    ],
}


@pytest.fixture(scope="module", params=WAYS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs = ("transformers", "accelerate", "torch")
    return framework_log(request.param, "hf_trainer", tmp_path_factory.mktemp("hf_trainer"), needs)


def read(folder: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    return read_log_of(FORMAT, folder)


def run_of(folder: Path) -> LoggedRun:
    [run], bad = read(folder)
    assert bad == []
    return run


def write(folder: Path, document: object, name: str = "trainer_state.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_a_plain_training(trained: Path) -> None:
    run = run_of(trained / "plain")
    state = json.loads((trained / "plain" / "trainer_state.json").read_text())
    series = series_of(run)
    logged = [row["eval_loss"] for row in state["log_history"] if "eval_loss" in row]
    assert list(series["eval_loss"].values)[:4] == logged[:4]
    assert (series["eval_accuracy"].metric, series["eval_accuracy"].split) == ("accuracy", "eval")
    assert series["loss"].split == "train"
    assert not any("runtime" in name or "per_second" in name for name in series)
    assert run.fields["status"] == "finished"
    assert run.fields["model_id"] == "org/tiny-bert"
    assert run.fields["task_id"] == "birds/small"
    assert (run.chosen, run.directions) == ("eval_loss", {"eval_loss": "min"})
    assert run.fields["seed"] == 7
    assert run.fields["hyperparameters"]["learning_rate"] == 0.1
    assert run.fields["source_version"].startswith("transformers ")
    assert run.columns["final"]["train_runtime"] > 0


def test_several_evaluation_sets(trained: Path) -> None:
    run = run_of(trained / "sets")
    splits = {each.name: (each.metric, each.split) for each in run.series}
    assert (run.chosen, run.directions) == ("eval_a_loss", {"eval_a_loss": "min"})
    size = run.fields["hyperparameters"]["train_batch_size"]
    assert (type(size), size) == (int, 4)
    assert splits["eval_a_loss"] == ("loss", "eval_a")
    assert splits["eval_a_b_accuracy"] == ("accuracy", "eval_a_b")


def test_a_killed_training_goes_on(trained: Path) -> None:
    killed, resumed = run_of(trained / "killed"), run_of(trained / "resumed")
    assert killed.fields["status"] == "running"
    assert resumed.fields["status"] == "finished"
    assert killed.progress is not None
    assert resumed.progress is not None
    assert resumed.progress > killed.progress
    inner = trained / "killed" / "checkpoint-2" / "trainer_state.json"
    assert FORMAT.place_of(Candidate(inner)) == trained / "killed"
    assert killed.identity == f"hf-trainer:{trained / 'killed'}"


def test_a_real_early_stop_is_an_end(trained: Path) -> None:
    run = run_of(trained / "stopped")
    state = json.loads((trained / "stopped" / "trainer_state.json").read_text())
    assert state["global_step"] < state["max_steps"]
    assert run.fields["status"] == "finished"


def test_a_real_training_that_diverged(trained: Path) -> None:
    run = run_of(trained / "diverged")
    series = series_of(run)
    assert any(math.isnan(value) for value in series["eval_loss"].values)
    # Saved under a name of the caller's own; NaN is as good a value there.
    assert "test_loss" not in (trained / "diverged" / "trainer_state.json").read_text()
    assert (series["test_loss"].metric, series["test_loss"].split) == ("loss", "test")
    assert math.isnan(series["test_loss"].values[0])


def test_a_damaged_state_beside_a_good_checkpoint(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "plain", tmp_path / "run")
    (tmp_path / "run" / "trainer_state.json").write_text('{"log_history": [')
    [run], [bad] = read(tmp_path / "run")
    assert bad.file == tmp_path / "run" / "trainer_state.json"
    assert "not JSON" in bad.reason
    assert {"eval_loss", "eval_accuracy"} <= {each.name for each in run.series}


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    write(tmp_path, {"base_model_name_or_path": "org/llm", "r": 8}, "adapter_config.json")
    run = run_of(write(tmp_path, OLD))
    assert run.fields["model_id"] == "org/llm"
    assert run.columns["adapter"]["r"] == 8


def test_a_real_folder_becomes_runs(trained: Path, tmp_path: Path) -> None:
    history = History.open(tmp_path / "h")
    mapping = FieldMapping(
        map={"task_id": "{_folder}"},
        set={"model_id": "bert", "metric": "accuracy", "direction": "max", "split": "eval"},
    )
    report = history.ingest(read_log(trained, mapping))
    # With two evaluation sets there is none that is called eval.
    assert (report.n_new, report.n_quarantined) == (5, 1)
    assert "on the split 'eval'; its series are" in history.quarantine.table().iloc[0]["reason"]
    runs = history.runs().set_index("task_id")
    assert runs["status"].to_dict() == {
        "diverged": "finished",
        "killed": "running",
        # The card of this run names its data set, which the folder's name does not replace.
        "birds/small": "finished",
        "resumed": "finished",
        "stopped": "finished",
    }
    state = json.loads((trained / "plain" / "trainer_state.json").read_text())
    best = max(row["eval_accuracy"] for row in state["log_history"] if "eval_accuracy" in row)
    assert runs.loc["birds/small", "value"] == best
    again = history.ingest(read_log(trained, mapping))
    assert (again.n_new, again.n_updated, again.n_duplicate) == (0, 0, 5)


def test_rows_that_are_none_cost_no_other_row(tmp_path: Path) -> None:
    rows = [OLD["log_history"][0], 7, *OLD["log_history"][1:], None]
    folder = write(tmp_path, {**OLD, "log_history": rows})
    [run], [bad] = read(folder)
    assert "2 entries" in bad.reason
    assert bad.raw == (folder / "trainer_state.json").read_text()
    assert {each.name: len(each.values) for each in run.series}["eval_accuracy"] == 3


def test_an_older_version(tmp_path: Path) -> None:
    run = run_of(write(tmp_path, OLD))
    assert run.fields["status"] == "running"
    assert run.chosen == "eval_accuracy"
    assert run.directions == {"eval_accuracy": "max"}
    assert "model_id" not in run.fields


@pytest.mark.parametrize(
    "change",
    [
        {"best_metric": None},
        {"best_metric": 0.99},
        {"best_global_step": 3},
        {"best_global_step": 9},
    ],
)
def test_a_best_metric_that_fits_nothing_says_nothing(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    run = run_of(write(tmp_path, OLD | change))
    assert (run.chosen, run.directions) == (None, {})


def test_a_best_metric_that_fits_two_series_says_nothing(tmp_path: Path) -> None:
    rows = [row | {"eval_f1": row.get("eval_accuracy", 0.1)} for row in OLD["log_history"]]
    assert run_of(write(tmp_path, OLD | {"log_history": rows})).chosen is None


@pytest.mark.parametrize(("stop", "status"), [(True, "finished"), (False, "running")])
def test_an_early_stop_is_an_end(tmp_path: Path, stop: bool, status: str) -> None:
    control = {"TrainerControl": {"args": {"should_training_stop": stop}}}
    run = run_of(write(tmp_path, OLD | {"stateful_callbacks": control}))
    assert run.fields["status"] == status


@pytest.mark.parametrize(
    ("said", "model"),
    [
        ("org/bert", "org/bert"),
        ("./out", None),
        ("/data/out", None),
        ("out/checkpoint-5", None),
    ],
)
def test_a_path_is_no_model(tmp_path: Path, said: str, model: str | None) -> None:
    write(tmp_path, {"_name_or_path": said}, "config.json")
    assert run_of(write(tmp_path, OLD)).fields.get("model_id") == model


def test_results_without_a_state(tmp_path: Path) -> None:
    write(tmp_path, {"train_runtime": 1.0, "eval_f1": 0.5, "epoch": 1.0}, "all_results.json")
    assert FORMAT.place_of(Candidate(tmp_path / "all_results.json")) == tmp_path
    run = run_of(tmp_path)
    assert [(each.name, list(each.values)) for each in run.series] == [("eval_f1", [0.5])]
    assert run.fields["status"] == "finished"


@pytest.mark.parametrize(
    "front",
    ["a: !!python/object/apply:os.system ['touch x']", "a: [1", "a: &a [1]\nb: *c", "[1, 2]"],
)
def test_a_card_with_bad_front_matter_is_quarantined(tmp_path: Path, front: str) -> None:
    write(write(tmp_path, OLD), f"---\n{front}\n---\n", "README.md")
    runs, bad = read(tmp_path)
    assert len(runs) == 1
    assert [each.file.name for each in bad] == ["README.md"]


def test_every_truncation_is_quarantined(tmp_path: Path) -> None:
    text = json.dumps(OLD)
    for end in range(len(text)):
        runs, bad = read(write(tmp_path, text[:end]))
        assert runs == []
        assert [each.raw for each in bad] == [text[:end]]


WRONG: list[Any] = [
    None,
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    "x",
    [],
    [1],
    {},
    {"a": {}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: str(value)[:8])
def test_wrong_types_at_every_key(tmp_path: Path, wrong: object) -> None:
    for key in [*OLD, "trial_params", "stateful_callbacks", "best_global_step"]:
        runs, bad = read(write(tmp_path, OLD | {key: wrong}))
        # Of a list without rows, what else the state says is a run all the same.
        partly = key == "log_history" and isinstance(wrong, list) and wrong
        assert (len(runs), len(bad)) == (1, 1) if partly else len(runs) + len(bad) == 1
        for run in runs:
            assert LoggedRun.from_json(run.to_json()).identity == run.identity
    for key in ("loss", "eval_loss", "epoch", "step"):
        rows = [row | {key: wrong} for row in OLD["log_history"]]
        assert len(read(write(tmp_path, OLD | {"log_history": rows}))[0]) == 1


def test_deep_nesting_is_quarantined(tmp_path: Path) -> None:
    assert len(read(write(tmp_path, "[" * 100_000))[1]) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@fuzz(40)
@given(VALUES, st.binary(max_size=60))
def test_any_content_ends_as_run_or_quarantine(tmp_path: Path, value: Any, data: bytes) -> None:
    write(tmp_path, OLD | {"log_history": [value], "trial_params": value})
    (tmp_path / "config.json").write_bytes(data)
    (tmp_path / "README.md").write_bytes(b"---\n" + data + b"\n---\n")
    runs, bad = read(tmp_path)
    assert runs or bad
