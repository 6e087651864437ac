"""``recsys-ms report`` as a user calls it."""

import json
import subprocess
from pathlib import Path

import pytest
from nightly_history import logged_history
from warm import warm


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return warm().run(*arguments, cwd=cwd, env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a nightly has run, and a back-test beside it."""
    folder = tmp_path_factory.mktemp("report")
    logged_history(folder / "h")
    (folder / "n.toml").write_text(
        'history = "h"\nregistry = "r"\n[ranker]\nranker = "nmf"\n'
        '[report]\nlearning_curve = ["popularity"]\nfractions = [1.0]\nmax_tasks = 2\n'
    )
    done = run("nightly", "--config", "n.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    options = ("--history", "h", "--rankers", "popularity,lr", "--json", "b.json", "--intervals")
    done = run("evaluate", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_help(tmp_path: Path) -> None:
    done = run("report", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--backtest" in done.stdout


def test_markdown_goes_to_stdout(place: Path) -> None:
    done = run("report", "-R", "r", "-H", "h", "--format", "md", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# recsys-ms: nightly report\n")
    assert "- learned from: 48 outcomes of 6 tasks and 8 models" in done.stdout
    assert "- ranker in service: nmf" in done.stdout
    assert "No run is missing" in done.stdout
    assert "| candidate |" in done.stdout
    assert done.stderr == ""


def test_the_page_is_written_where_asked(place: Path, tmp_path: Path) -> None:
    done = run("report", "-R", "r", "-H", "h", "--out", tmp_path / "mine.html", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "mine.html" in done.stderr
    text = (tmp_path / "mine.html").read_text()
    assert text.startswith("<!doctype html>")
    assert 'id="learning-chart"' in text
    done = run("report", "-R", place / "r", "-H", place / "h", cwd=tmp_path)
    assert (tmp_path / "report.html").exists()


def test_without_a_summary_the_manifest_is_reported(place: Path, tmp_path: Path) -> None:
    summary = place / "r" / "summary.json"
    kept = summary.read_text()
    summary.unlink()
    try:
        done = run("report", "-R", "r", "-H", "h", "--format", "md", cwd=place)
    finally:
        summary.write_text(kept)
    assert done.returncode == 0, done.stderr
    assert "Published: the candidate is in service." in done.stdout
    assert "No learning curve was measured" in done.stdout
    made = json.loads(kept)["reason"]
    assert made.split(":")[0] in done.stdout


def test_a_back_test_alone(place: Path, tmp_path: Path) -> None:
    alone = run("report", "--backtest", place / "b.json", "--format", "md", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith("# recsys-ms: back-test report\n")
    assert "No decision" in alone.stdout
    assert "The history is not available" in alone.stdout
    assert "| lr |" in alone.stdout
    assert "inside intervals that state 80%" in alone.stdout
    options = ("-R", "r", "-H", "h", "--format", "md")
    beside = run("report", "--backtest", "b.json", *options, cwd=place)
    assert "48 pairs of 48 have a finished run" in beside.stdout


def test_what_cannot_be_reported(place: Path, tmp_path: Path) -> None:
    absent = run("report", "-R", "absent", "-H", "h", cwd=place)
    assert absent.returncode == 3
    assert "no registry of rankers here" in absent.stderr
    (tmp_path / "bad.json").write_text("{}")
    bad = run("report", "--backtest", tmp_path / "bad.json", cwd=tmp_path)
    assert bad.returncode == 3
    assert "bad.json" in bad.stderr
    assert "not a back-test result" in bad.stderr
    gone = run("report", "--backtest", tmp_path / "gone.json", cwd=tmp_path)
    assert gone.returncode == 3
    assert "cannot be read" in gone.stderr
    wrong = run("report", "--format", "pdf", cwd=tmp_path)
    assert wrong.returncode == 2
    for done in (absent, bad, gone, wrong):
        assert "Traceback" not in done.stderr
