"""A history that nothing can be learned from is reported."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys_ms.cli.app import app
from recsys_ms.core.errors import DataError
from recsys_ms.history.diagnosis import pairing_problem
from recsys_ms.history.history import History
from recsys_ms.history.run import Run


def history_of(folder: Path, *pairs: tuple[str, str, str]) -> History:
    history = History.open(folder / "h")
    history.append(
        Run(model_id=model, task_id=task, metric=metric, direction="max", value=0.5)
        for task, model, metric in pairs
    )
    return history


def test_tasks_of_one_model_each(tmp_path: Path) -> None:
    pairs = [(f"run-{number}", f"m{number % 3}", "acc") for number in range(95)]
    problem = pairing_problem(history_of(tmp_path, *pairs))
    assert problem is not None
    assert "95 tasks, none with two models" in problem
    assert "'run-0'" in problem


@pytest.mark.parametrize(
    ("pairs", "metric", "is_problem"),
    [
        ([("a", "m", "acc")], None, False),
        ([("a", "m", "acc"), ("b", "m", "acc")], None, True),
        ([("a", "m", "acc"), ("a", "n", "acc"), ("b", "m", "acc")], None, False),
        ([("a", "m", "acc"), ("a", "n", "f1"), ("b", "m", "acc")], None, True),
        ([("a", "m", "acc"), ("a", "n", "acc"), ("b", "m", "f1"), ("c", "m", "f1")], "f1", True),
    ],
)
def test_two_models_in_one_metric_can_be_compared(
    tmp_path: Path, pairs: list[tuple[str, str, str]], metric: str | None, is_problem: bool
) -> None:
    assert (pairing_problem(history_of(tmp_path, *pairs), metric) is not None) == is_problem


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpaired")
    history_of(folder, *[(f"run-{number}", f"m{number}", "acc") for number in range(4)])
    return folder


@pytest.mark.parametrize("arguments", [("train", "-o", "out"), ("nightly", "-R", "registry")])
def test_nothing_is_learned_from_them(
    unpaired: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unpaired)
    done = CliRunner().invoke(app, [*arguments, "-H", "h"])
    assert isinstance(done.exception, DataError)
    assert "4 tasks, none with two models" in str(done.exception)
    assert not (unpaired / "out").exists()


def test_ingest_and_doctor_tell_of_them(unpaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unpaired)
    monkeypatch.setenv("COLUMNS", "1000")
    assert "none with two models" in CliRunner().invoke(app, ["doctor", "-H", "h"]).output
    Path("runs.csv").write_text("task_id,model_id,metric,direction,value\na,x,acc,max,0.5\n")
    done = CliRunner().invoke(app, ["ingest", "runs.csv", "-H", "h"])
    assert "5 tasks, none with two models" in done.output
