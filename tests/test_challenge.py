"""Champion and challenger: the published artifact and the candidate's recipe on newer runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nightly_history import logged_history
from typer.testing import CliRunner

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.app import app
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.run import Run
from recsys_ms.nightly.challenge import challenge, newer_outcomes
from recsys_ms.nightly.decision import CANDIDATE, CURRENT
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.night_summary import NightlySummary
from recsys_ms.nightly.settings import NightlyConfig, ReportSettings
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry


def night(root: Path, ranker: str = "nmf", *, seed: int = 0) -> NightlySummary:
    return run_nightly(
        NightlyConfig(
            history=root / "h",
            registry=root / "r",
            ranker=RankerConfig(ranker=ranker, seed=seed, on_two_metrics="most-runs"),
            report=ReportSettings(html=False, intervals=False),
        )
    )


def log_new_tasks(root: Path, n_tasks: int = 4, *, n_models: int = 8, first: int = 10) -> None:
    """Tasks of the kind that is there already: the model with the highest number is best."""
    rng = np.random.default_rng(first)
    History.open(root / "h").append(
        Run(
            model_id=f"m{model}",
            task_id=f"t{task}",
            metric="accuracy",
            direction="max",
            value=float(0.5 + 0.05 * model + 0.01 * rng.normal()),
            source="test",
        )
        for task in range(first, first + n_tasks)
        for model in range(n_models)
    )


def test_newer_runs_decide_where_there_are_enough(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    first = night(tmp_path, "als")
    assert (first.decided_by, first.newer) == ("back-test", None)
    log_new_tasks(tmp_path)
    second = night(tmp_path, "nmf")
    assert (second.outcome, second.version) == ("published", 2)
    assert second.decided_by == "newer outcomes"
    assert "on newer outcomes" in second.reason
    assert second.newer is not None
    assert second.newer["n_tasks"] == 4
    assert second.newer["settings"] == {
        "trained_at_version": first.history_version,
        "same_recipe": False,
    }
    assert set(second.newer["rankers"]) == {CURRENT, CANDIDATE}
    # The back-test of today still judges the candidate against popularity, and nothing else.
    assert {(check["against"], check["on"]) for check in second.checks} == {
        ("popularity", "back-test"),
        ("current", "newer outcomes"),
    }
    assert second.backtest is not None
    assert CURRENT not in second.backtest["rankers"]


def test_a_candidate_that_is_worse_on_newer_runs_is_refused(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    night(tmp_path)
    log_new_tasks(tmp_path)
    refused = night(tmp_path, "random")
    assert (refused.outcome, refused.version) == ("kept", 1)
    assert refused.decided_by == "newer outcomes"
    failed = {check["on"] for check in refused.checks if not check["passed"]}
    assert "newer outcomes" in failed
    # What was decided is kept with the candidate, and told again.
    again = night(tmp_path, "random")
    assert "train" not in again.seconds
    assert (again.outcome, again.decided_by, again.newer) == (
        "kept",
        "newer outcomes",
        refused.newer,
    )


@pytest.mark.parametrize(("n_tasks", "n_models"), [(0, 0), (2, 8), (4, 1)])
def test_too_few_newer_runs_leave_it_to_the_back_test(
    tmp_path: Path, n_tasks: int, n_models: int
) -> None:
    logged_history(tmp_path / "h")
    night(tmp_path)
    if n_tasks:
        log_new_tasks(tmp_path, n_tasks, n_models=n_models)
    second = night(tmp_path, "als")
    assert (second.decided_by, second.newer) == ("back-test", None)
    assert second.backtest is not None
    assert CURRENT in second.backtest["rankers"]
    assert {check["on"] for check in second.checks} == {"back-test"}


def test_the_same_recipe_is_never_refused_for_its_seed(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    night(tmp_path)
    log_new_tasks(tmp_path)
    second = night(tmp_path)
    assert second.outcome == "published"
    assert second.newer is not None
    assert second.newer["settings"]["same_recipe"] is True
    compared = [check for check in second.checks if check["against"] == "current"]
    assert compared
    assert all(check["candidate"] == check["other"] for check in compared)


def test_the_recipe_of_before_is_the_ranker_of_before(tmp_path: Path) -> None:
    """Trained once more on the history as it was, the same recipe answers bit for bit alike."""
    logged_history(tmp_path / "h")
    night(tmp_path)
    log_new_tasks(tmp_path)
    config = RankerConfig(ranker="nmf", on_two_metrics="most-runs")
    found = challenge(
        Registry.open(tmp_path / "r").load_current(),
        config,
        History.open(tmp_path / "h"),
        Catalog.empty(),
    )
    assert found is not None
    for task in found.tasks:
        own, other = (found.per_task(name)[task] for name in (CURRENT, CANDIDATE))
        assert {**own, "seconds": 0.0} == {**other, "seconds": 0.0}


def test_versions_that_cannot_be_compared(tmp_path: Path) -> None:
    history = logged_history(tmp_path / "h")
    config = RankerConfig(ranker="popularity")
    published = Ranker(config).fit(history)
    log_new_tasks(tmp_path)
    assert challenge(published, config, history, Catalog.empty()) is not None
    for version in (None, history.version, 99, "1"):
        published.manifest = {**published.manifest, "history_version": version}
        assert challenge(published, config, history, Catalog.empty()) is None
    # A version that is gone, or whose runs cannot be learned from: the back-test decides.
    published.manifest = {**published.manifest, "history_version": -5}
    assert challenge(published, config, history, Catalog.empty()) is None
    published.manifest = {**published.manifest, "history_version": 0}
    assert challenge(published, config, history, Catalog.empty()) is None


def test_an_artifact_that_fails_does_not_stop_the_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = logged_history(tmp_path / "h")
    config = RankerConfig(ranker="popularity")
    published = Ranker(config).fit(history)
    log_new_tasks(tmp_path)

    def fails(*_: object) -> None:
        raise RuntimeError("a number that is none")

    monkeypatch.setattr(published, "predict", fails)
    found = challenge(published, config, history, Catalog.empty())
    assert found is not None
    assert {cell.ranker for cell in found.failures} == {CURRENT}


def test_which_outcomes_are_newer() -> None:
    before = Interactions.from_triplets(list("aabb"), list("mnmn"), [0.1, 0.2, 0.3, 0.4])
    now = Interactions.from_triplets(
        list("aaaabbbcc"), list("mnopmnomn"), [0.1, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    )
    found = {each.query.task_id: each for each in newer_outcomes(before, now)}
    # Of b there is one newer model alone; that n did better on a is not a newer pair.
    assert {task: each.model_ids for task, each in found.items()} == {
        "a": ("o", "p"),
        "c": ("m", "n"),
    }
    assert (found["a"].warmth, found["c"].warmth) == ("hot", "cold")
    other = replace(now, metrics=("another", *now.metrics[1:]))
    assert [each.query.task_id for each in newer_outcomes(before, other)] == ["c"]


def test_a_published_ranker_that_this_version_cannot_read_is_replaced(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    night(tmp_path, "popularity")
    manifest = Registry.open(tmp_path / "r").require_current() / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ranker": "popularity"', '"ranker": "gone"'))
    log_new_tasks(tmp_path)
    second = night(tmp_path, "popularity")
    assert (second.outcome, second.version) == ("published", 2)
    assert any("is replaced" in text for text in second.warnings)


def test_the_answer_is_told_before_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_history(tmp_path / "h")
    (tmp_path / "n.toml").write_text(
        'history = "h"\nregistry = "r"\n[ranker]\nranker = "popularity"\n'
    )
    steps: list[str] = []
    monkeypatch.setattr("recsys_ms.nightly.job.report", lambda *_: steps.append("report"))
    shown = "recsys_ms.cli.nightly.show"
    monkeypatch.setattr(shown, lambda answer: steps.append(str(answer)))
    asked = ["nightly", "--config", str(tmp_path / "n.toml")]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    registry = tmp_path / "r"
    assert steps[:6] == [
        "version 1 is published; it answers:",
        f"  recsys-ms recommend --registry {registry} --task t0",
        "  1. m7",
        "  2. m6",
        "  3. m5",
        "report",
    ]
    steps.clear()
    CliRunner().invoke(app, asked, catch_exceptions=False)
    assert steps[0] == "report"
