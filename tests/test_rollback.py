"""An earlier ranker put back into service stays there until something newer is published."""

import json
from pathlib import Path

import pytest
from nightly_history import logged_history
from typer.testing import CliRunner

from recsys_ms.cli.app import app
from recsys_ms.core.errors import DataError
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.night_summary import NightlySummary
from recsys_ms.nightly.settings import NightlyConfig, ReportSettings
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry


def night(root: Path) -> NightlySummary:
    return run_nightly(
        NightlyConfig(
            history=root / "h",
            registry=root / "r",
            ranker=RankerConfig(ranker="popularity"),
            report=ReportSettings(html=False, intervals=False),
        )
    )


def log_one(root: Path, model: str) -> None:
    record_run(
        root / "h", model_id=model, task_id="t0", metric="accuracy", direction="max", value=0.9,
        on_error="raise",
    )  # fmt: skip


@pytest.fixture
def two_nights(tmp_path: Path) -> Path:
    logged_history(tmp_path / "h")
    night(tmp_path)
    log_one(tmp_path, "m8")
    assert night(tmp_path).version == 2
    return tmp_path


def test_the_next_night_does_not_undo_it(two_nights: Path) -> None:
    registry = Registry.open(two_nights / "r")
    with registry.lock():
        back = registry.roll_back()
    assert (back.number, back.is_current) == (1, True)
    assert "m8" not in registry.load_current().model_ids
    quiet = night(two_nights)
    assert (quiet.outcome, quiet.version) == ("unchanged", 1)
    assert quiet.reason == "version 2 was rolled back, and nothing is new since"
    log_one(two_nights, "m9")
    newer = night(two_nights)
    assert (newer.outcome, newer.version) == ("published", 3)
    assert {"m8", "m9"} <= set(registry.load_current().model_ids)


def test_to_a_version_and_forward_again(two_nights: Path) -> None:
    registry = Registry.open(two_nights / "r")
    assert registry.roll_back(1).number == 1
    assert registry.roll_back(2).number == 2
    assert night(two_nights).outcome == "unchanged"


def test_a_damaged_version_is_passed_over(two_nights: Path) -> None:
    log_one(two_nights, "m9")
    night(two_nights)
    registry = Registry.open(two_nights / "r")
    damaged = registry.root / "versions" / "000002"
    next(damaged.glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(DataError, match=r"version 2 cannot be used .*SHA-256.*there are 1, 2, 3"):
        registry.roll_back(2)
    assert registry.roll_back().number == 1


def test_where_there_is_none(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    night(tmp_path)
    registry = Registry.open(tmp_path / "r")
    with pytest.raises(DataError, match="no version before 1 to go back to"):
        registry.roll_back()
    with pytest.raises(DataError, match="version 7 does not exist"):
        registry.roll_back(7)


def test_the_verb(two_nights: Path) -> None:
    asked = ["rollback", "-R", str(two_nights / "r"), "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert json.loads(done.stdout)["version"] == 1
    assert Ranker.load(Registry.open(two_nights / "r").require_current()).manifest["trained_at"]
