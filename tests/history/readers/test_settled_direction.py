"""Direction by the log, the metric's name and the caller: they agree, or it is asked."""

import json
from pathlib import Path

import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.settled_direction import settle_direction
from recsys_ms.history.readers.table import read_table


@pytest.mark.parametrize(
    ("told", "direction", "problem"),
    [
        ({"metric": "accuracy"}, "max", ""),
        ({"metric": "my score"}, None, ""),
        ({"metric": None}, None, ""),
        ({"metric": "my score", "said": "min"}, "min", ""),
        ({"metric": "my score", "logged": "min", "series": "v"}, "min", ""),
        ({"metric": "loss", "said": "max"}, "max", "of 'loss' lower values are better"),
        # A study that minimises what the caller calls an accuracy.
        (
            {"metric": "accuracy", "said": "max", "logged": "min", "series": "value"},
            "max",
            "the log says that lower values of 'value' are better",
        ),
        (
            {"metric": "accuracy", "logged": "min", "series": "value"},
            "max",
            "the log says that lower values of 'value' are better, but of 'accuracy' higher",
        ),
        (
            {"metric": "my score", "said": "max", "logged": "min", "series": "v"},
            "max",
            "the log says that lower values of 'v'",
        ),
        # Both facts are shown.
        (
            {
                "metric": "loss",
                "said": "max",
                "logged": "min",
                "series": "eval_loss",
                "series_metric": "loss",
            },
            "max",
            "of 'loss' lower values are better (min), and the log says that lower values of "
            "'eval_loss' are better",
        ),
        # A Trainer that kept the model of the highest word error rate: the caller decides.
        (
            {"metric": "wer", "logged": "max", "series": "eval_wer", "series_metric": "wer"},
            "min",
            "--set direction=min if the log is wrong",
        ),
        (
            {
                "metric": "wer",
                "said": "min",
                "logged": "max",
                "series": "eval_wer",
                "series_metric": "wer",
            },
            "min",
            "",
        ),
        (
            {"metric": "accuracy", "series": "val_loss", "series_metric": "loss"},
            "max",
            "but of the series 'val_loss' lower ones",
        ),
    ],
)
def test_facts_that_differ_are_a_problem(
    told: dict[str, str | None], direction: str | None, problem: str
) -> None:
    settled = settle_direction(**told)
    assert settled.direction == direction
    assert problem in settled.problem
    assert bool(problem) == bool(settled.problem)


EVALUATIONS = [(0.9, 0.5), (0.4, 0.8), (0.6, 0.7)]


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    """Log of a Trainer that minimised its loss."""
    rows = [
        {"epoch": at, "step": at, "eval_loss": loss, "eval_accuracy": accuracy}
        for at, (loss, accuracy) in enumerate(EVALUATIONS, 1)
    ]
    state = {"best_metric": 0.4, "best_global_step": 2, "log_history": rows, "global_step": 3}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({**state, "max_steps": 3}))
    return tmp_path


def ingested(logs: Path, history: Path, **set_fields: str) -> list[object]:
    said = {"model_id": "m", "task_id": "t", "status": "finished", **set_fields}
    History.open(history).ingest(read_log(logs, FieldMapping(set=said)))
    fields = ["metric", "direction", "value"]
    return History.open(history).runs(fields).to_numpy().tolist()


def test_the_log_s_own_choice_and_a_metric_by_name(trainer: Path, tmp_path: Path) -> None:
    """Case logs/02: with the direction of a README, this was loss max 0.9."""
    assert ingested(trainer, tmp_path / "a") == [["loss", "min", 0.4]]
    assert ingested(trainer, tmp_path / "b", metric="accuracy") == [["accuracy", "max", 0.8]]


@pytest.mark.parametrize(
    "said",
    [
        {"direction": "max"},
        {"direction": "max", "metric": "loss"},
        {"direction": "min", "metric": "accuracy"},
    ],
)
def test_an_option_that_contradicts_is_refused_before_anything_is_taken(
    trainer: Path, tmp_path: Path, said: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="contradicts what is known"):
        ingested(trainer, tmp_path / "H", **said)
    history = History.open(tmp_path / "H")
    assert history.runs().empty
    assert history.quarantine.table().empty


@pytest.mark.parametrize(
    ("text", "said", "match"),
    [
        ("loss", "max", "of 'loss' lower values are better"),
        ("accuracy", "min", "of 'accuracy' higher values are better"),
        ("my score", None, "of 'my score' are better is not known: give --set direction=max"),
    ],
)
def test_the_metrics_of_a_column_are_asked_about_at_once(
    tmp_path: Path, text: str, said: str | None, match: str
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(f"model_id,task_id,metric,value\na,t,{text},0.5\nb,t,{text},0.6\n")
    mapping = FieldMapping(set={} if said is None else {"direction": said})
    history = History.open(tmp_path / "H")
    with pytest.raises(UsageError, match=match):
        history.ingest(read_table(table, mapping))
    assert history.runs().empty


def test_each_row_has_the_direction_of_its_metric(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(
        "model_id,task_id,metric,value,direction\n"
        "a,t,eval_loss,0.5,\na,t,f1,0.6,\na,t,rmse,3,max\na,t,my score,3,max\na,t,other,3,\n"
    )
    history = History.open(tmp_path / "H")
    history.ingest(read_table(table))
    assert sorted(history.runs(["metric", "direction"]).to_numpy().tolist()) == [
        ["eval_loss", "min"],
        ["f1", "max"],
        ["my score", "max"],
    ]
    reasons = sorted(history.quarantine.table()["reason"])
    assert "direction: missing; its metric is unknown" in reasons[0]
    assert "direction: of 'rmse' lower is better (min), not max" in reasons[1]
