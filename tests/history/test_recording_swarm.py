"""Many recorders open at once on one folder, their processes killed at random.

What every process did is told by a file of its own, written before and after each step, so that
what the history holds is compared value by value.
"""

import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys_ms.history.history import History
from recsys_ms.history.recorder.journal import list_journals

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5

WORKER = """
import os, random, sys, time
from recsys_ms.history.recorder.recording import recording

history, side, worker, count, rounds = sys.argv[1:4] + [int(each) for each in sys.argv[4:]]
channel = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def tell(*words):
    os.write(channel, (" ".join(map(str, words)) + "\\n").encode())
chance = random.Random(int(worker))
runs = []
for number in range(count):
    name = f"{worker}-{number}"
    run = recording(history, model_id="m", task_id="t", metric="acc", direction="max", run_id=name)
    tell("?", name, "open")
    run.start()
    tell("!", name, "open")
    runs.append(run)
print("ready", flush=True)
sys.stdin.readline()
for step in range(rounds):
    for run in runs:
        tell("?", run.run_id, step)
        run.log(chance.random(), step=step)
        tell("!", run.run_id, step)
    time.sleep(0.3)
for number, run in enumerate(runs):
    tell("?", run.run_id, "end")
    run.finish(ValueError("diverged") if number % 3 == 0 else None)
    tell("!", run.run_id, "end")
"""


@dataclass
class Told:
    """What a process says it was going to do with a run, and what it says it did."""

    meant: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)


def told(folder: Path) -> dict[str, Told]:
    runs: dict[str, Told] = defaultdict(Told)
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            sign, run_id, what = line.split()
            (runs[run_id].meant if sign == "?" else runs[run_id].done).add(what)
    return runs


def kill(processes: list[subprocess.Popen[str]], chance: random.Random) -> None:
    for process in processes:
        time.sleep(chance.uniform(0.0, 0.15))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))


@pytest.mark.parametrize(
    ("n_processes", "n_recorders"),
    [(10, 50), pytest.param(50, 200, marks=pytest.mark.slow, id="ten-thousand")],
)
def test_recorders_whose_processes_are_killed_at_random_lose_nothing(
    tmp_path: Path, n_processes: int, n_recorders: int
) -> None:
    history = History.open(tmp_path / "history")
    side = tmp_path / "side"
    side.mkdir()
    command = [sys.executable, "-c", WORKER, str(history.path)]
    sizes = [str(n_recorders), str(ROUNDS)]
    processes = [
        subprocess.Popen(
            [*command, str(side / str(n)), str(n), *sizes],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(n_processes)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert len(list_journals(history.inbox)) == n_processes * n_recorders
    chance = random.Random(0)
    victims = chance.sample(processes, n_processes // 2)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    n_ingests = 0
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill, victims, chance)
        while not killing.done():
            history.ingest_inbox()
            n_ingests += 1
        killing.result()
    for process in processes:
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait()
        assert "Traceback" not in errors
        if process in victims:
            assert code in (0, -signal.SIGKILL, -signal.SIGTERM)
        else:
            assert code == 0, errors
    assert n_ingests > 0
    assert history.ingest_inbox().n_quarantined == 0
    assert list(history.inbox.glob("[!.]*")) == []
    assert list_journals(history.inbox) == []
    compare(history, told(side), n_processes * n_recorders)


def compare(history: History, expected: dict[str, Told], n_runs: int) -> None:
    runs = history.runs().set_index("run_id")
    assert runs.index.is_unique
    assert len(expected) == len(runs) == n_runs
    got: dict[str, dict[str, float]] = defaultdict(dict)
    curves = history.curves()
    for run_id, step, value in zip(curves["run_id"], curves["step"], curves["value"], strict=True):
        assert str(step) not in got[run_id]
        got[run_id][str(step)] = value
    ends = {"finished": 0, "failed": 0}
    for run_id, each in expected.items():
        row, curve = runs.loc[run_id], got[run_id]
        logged = {what for what in each.done if what.isdigit()}
        assert logged <= set(curve) <= each.meant
        if curve:
            assert row["value"] == max(curve.values())
        diverged = int(run_id.split("-")[1]) % 3 == 0
        complete = "failed" if diverged else "finished"
        if "end" in each.done:
            assert row["status"] == complete
            assert ('"ValueError"' in str(row["tags"])) == diverged
        elif "end" not in each.meant:
            assert row["status"] == "failed"
            assert '"killed"' in row["tags"] or '"SIGTERM"' in row["tags"]
        ends[row["status"]] += 1
    # The kills hit: without them two thirds would be finished.
    assert 0 < ends["finished"] < 0.65 * len(expected)
