"""A hundred nightly jobs killed at random moments lose no run and leave no file behind."""

import random
import signal
import time
from pathlib import Path

import pytest
from nightly_history import logged_history
from warm import warm

from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.maintenance import examine_history
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry

#: Runs the job; a process of its own kills it after the given time, if any.
_JOB = """
import os, sys, time
from pathlib import Path
root, delay = Path(sys.argv[1]), float(sys.argv[2])
job = os.getpid()
if delay and os.fork() == 0:
    time.sleep(delay)
    os.kill(job, 9)
    os._exit(0)
sys.path.insert(0, sys.argv[3])
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.settings import ReportSettings
from test_nightly import config
settings = ReportSettings(html=sys.argv[4] == "html", learning_curve=())
run_nightly(config(root, "popularity", report=settings, keep_versions=2))
"""


def run_job(root: Path, report: str, delay: float = 0.0) -> int:
    done = warm().python(_JOB, root, delay, Path(__file__).parent, report)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def record(root: Path, number: int) -> list[str]:
    """Three runs with curves and a damaged file, as training jobs drop them."""
    (root / "h" / "inbox" / f"damaged{number}.json").write_text(f'{{"half": {number}')
    recorded = [
        record_run(
            root / "h",
            model_id=f"m{number % 11}",
            task_id=f"t{task}",
            metric="accuracy",
            direction="max",
            value=0.5,
            seed=number,
            curve=[(step, None, "accuracy", "eval", 0.1 * step) for step in range(4)],
            on_error="raise",
        )
        for task in range(3)
    ]
    return [run_id for run_id in recorded if run_id is not None]


def left_over(root: Path) -> list[Path]:
    """Temporary files, data that no commit knows, and staged candidates of dead jobs."""
    listed = set(History.open(root / "h")._inventory.files)
    data = (p for name in ("runs", "curves") for p in (root / "h" / name).rglob("*.parquet"))
    return [
        *(path for path in root.rglob(".*.tmp*")),
        *(path for path in data if path.relative_to(root / "h").as_posix() not in listed),
        *(path for path in (root / "h" / "inbox").iterdir()),
        *(path for path in (root / "r" / "staging").iterdir()),
        *(path for path in root.rglob("_commit_*")),
    ]


def killed_jobs(
    root: Path, n_kills: int, *, check_every: int, report: str = "html", seed: int = 0
) -> int:
    """Kill jobs; whenever some were, the next one must find everything. Gives how many were hit."""
    chance = random.Random(seed)
    logged_history(root / "h")
    run_job(root, report)
    recorded = set(record(root, 0))
    started = time.monotonic()
    run_job(root, report)
    lasts = time.monotonic() - started
    n_hit = 0
    for kill in range(1, n_kills + 1):
        recorded |= set(record(root, kill))
        n_hit += run_job(root, report, chance.uniform(0.02, 1.1) * lasts) != 0
        if kill % check_every and kill < n_kills:
            continue
        assert run_job(root, report) == 0
        assert left_over(root) == []
        assert examine_history(root / "h") == []
        history = History.open(root / "h", create=False).check()
        assert recorded <= set(history.runs(["run_id"])["run_id"])
        assert history.curves().groupby("run_id").size().reindex(sorted(recorded)).eq(4).all()
        assert len(history.quarantine.table()) == kill + 1
        Ranker.load(Registry.open(root / "r").require_current())
    return n_hit


def test_a_few_kills(tmp_path: Path) -> None:
    killed_jobs(tmp_path, 3, check_every=3, report="none")


@pytest.mark.slow
def test_a_hundred_kills_lose_no_run_and_leave_no_file(tmp_path: Path) -> None:
    assert killed_jobs(tmp_path, 100, check_every=4) >= 60
