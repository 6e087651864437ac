"""``ingests``, ``retract`` and ``ingest --replace`` as a user calls them."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from warm import warm

from recsys_ms.history.history import History

MAPPED = ("--map", "model_id={model}", "--map", "task_id={data}", "--set", "metric=accuracy")


def run(*arguments: str, cwd: Path) -> CompletedProcess[str]:
    return warm().run(*arguments, cwd=cwd, env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "runs.csv").write_text(
        "model,data,train,test\nvit,pets,0.99,0.91\nresnet,pets,0.98,0.89\nvit,birds,0.97,0.82\n"
    )
    done = run("ingest", "runs.csv", "-H", "H", *MAPPED, "--map", "value={train}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def listed(place: Path) -> list[dict[str, object]]:
    done = run("ingests", "-H", "H", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_a_wrong_column_is_taken_back_with_replace(place: Path) -> None:
    right = ("ingest", "runs.csv", "-H", "H", *MAPPED, "--map", "value={test}")
    refused = run(*right, cwd=place)
    assert refused.returncode == 3
    assert "--replace" in refused.stderr
    done = run(*right, "--replace", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["sources"].values()
    assert report["n_updated"] == 3
    assert sorted(History.open(place / "H").runs()["value"]) == [0.82, 0.89, 0.91]
    assert [each["operation"] for each in listed(place)] == ["ingest", "ingest", "replace"]
    assert listed(place)[-1]["options"]["mapping"]["map"]["value"] == "{test}"  # type: ignore[index]
    for wrong in (("--inbox",), ("--replay",), ("runs.csv", "--as", "model-cards", "-C", "C")):
        done = run("ingest", "-H", "H", "--replace", *wrong, cwd=place)
        assert (done.returncode, "--replace is for logs" in done.stderr) == (2, True)


def test_an_ingest_is_taken_back_and_brought_back(place: Path) -> None:
    (first,) = listed(place)
    name = str(first["ingest_id"])
    done = run("retract", name, "-H", "H", "--dry-run", cwd=place)
    assert (done.returncode, "3 runs would be retracted" in done.stdout) == (0, True)
    done = run("retract", name, "-H", "H", "--reason", "wrong column", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "3 runs retracted" in done.stdout
    assert History.open(place / "H").runs().empty
    assert (
        "0 runs, 0 tasks, 0 models; 3 retracted runs" in run("doctor", "-H", "H", cwd=place).stdout
    )
    done = run("ingests", "-H", "H", cwd=place)
    assert "wrong column" in done.stdout
    again = run("ingest", "runs.csv", "-H", "H", *MAPPED, "--map", "value={train}", cwd=place)
    assert "3 retracted runs not taken in again" in again.stderr
    done = run("retract", name, "-H", "H", "--undo", "--json", cwd=place)
    assert json.loads(done.stdout)["n_runs"] == 3
    assert len(History.open(place / "H").runs()) == 3


def test_what_a_retraction_cannot_be_about(place: Path) -> None:
    for arguments, code, message in (
        ((), 2, "nothing says which runs"),
        (("i-20200101T000000-0000",), 3, "recsys-ms ingests lists the ids"),
        (("--run-id", "nope"), 3, "no run has the id"),
        (("--where", "vlaue > 1"), 3, "cannot be answered"),
    ):
        done = run("retract", *arguments, "-H", "H", cwd=place)
        assert done.returncode == code
        assert message in done.stderr
    done = run("retract", "--where", "value > 1", "-H", "H", cwd=place)
    assert (done.returncode, "0 runs retracted" in done.stdout) == (0, True)
