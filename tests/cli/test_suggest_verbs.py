"""``suggest`` and ``simulate`` as a user calls them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from recsys_ms.cli.app import app
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.embedded import embedded_folder
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker

TASKS = ("digits", "dtd10", "flowers5", "letters", "materials", "numerals")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def some_runs() -> pd.DataFrame:
    runs = pd.read_parquet(embedded_folder() / "runs.parquet")
    return runs[runs["task_id"].isin(TASKS)]


@pytest.fixture(scope="module")
def artifact(some_runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranker") / "a"
    learned = Interactions.from_runs(some_runs[some_runs["task_id"] != "digits"])
    Ranker(RankerConfig(ranker="nmf")).fit(learned).save(folder)
    return folder


@pytest.fixture(scope="module")
def history(some_runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("h") / "H"
    file = folder.parent / "runs.parquet"
    some_runs.to_parquet(file)
    History.open(folder)
    assert invoke("ingest", file, "-H", folder).exit_code == 0
    return folder


def test_suggest_as_a_table_and_as_json(artifact):
    asked = ("suggest", "--artifact", artifact, "--task", "digits", "--budget", 3)
    table = invoke(*asked)
    assert table.exit_code == 0
    assert "next runs on digits" in table.stdout
    told = json.loads(invoke(*asked, "--json").stdout)
    assert [row["rank"] for row in told["models"]] == [1, 2, 3]
    assert {"gain", "p_best", "expected_cost", "reasons"} <= set(told["models"][0])
    first = told["models"][0]["model_id"]
    again = json.loads(invoke(*asked, "--observed", f"{first}=0.9", "--json").stdout)
    assert first not in [row["model_id"] for row in again["models"]]


@pytest.mark.parametrize("verb", ["suggest", "recommend"])
def test_observed_values_are_in_the_unit_of_the_metric(artifact, verb):
    asked = (verb, "--artifact", artifact, "--task", "digits", "--json", "--observed")
    model = json.loads(invoke(*asked[:-1]).stdout)["models"][0]["model_id"]
    with pytest.raises(UsageError, match=r"is outside \[0, 1\]: did you mean 0.93\?"):
        invoke(*asked, f"{model}=93")
    percent = json.loads(invoke(*asked, f"{model}=93%").stdout)
    assert percent == json.loads(invoke(*asked, f"{model}=0.93").stdout)


def test_a_budget_of_seconds_needs_runs_that_say_what_they_took(artifact):
    # The zoo was recorded on a machine without a GPU.
    with pytest.raises(DataError, match="a budget in GPU seconds needs runs with a cost"):
        invoke("suggest", "--artifact", artifact, "-t", "digits", "--cost", 60)


def test_suggest_needs_a_task(artifact):
    with pytest.raises(UsageError, match="no task is named"):
        invoke("suggest", "--artifact", artifact)


def test_simulate(history, tmp_path):
    out = tmp_path / "s.json"
    done = invoke(
        "simulate", "-H", history, "--policies", "nmf,nmf+ei", "--runs", 5, "--max-tasks", 2,
        "--json", out, "--markdown",
    )  # fmt: skip
    assert done.exit_code == 0
    assert "| policy | after 1 | after 3 | after 5 |" in done.stdout
    rows = json.loads(out.read_text())["regret"]
    assert {row["policy"] for row in rows} == {"random", "popularity", "nmf", "nmf+ei"}
    assert len(rows) == 4 * 2 * 5
