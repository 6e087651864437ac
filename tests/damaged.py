"""Damage to the files of a folder, for tests: one byte, one file, one kind at a time."""

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.run import Run
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.schema import runs_to_table


def _cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def _empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def _delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def _alter(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


def _folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.symlink_to(chance.choice(["/dev/zero", "/nowhere", path.name]))


#: By name: what is done to a file.
DAMAGES: Final[Mapping[str, Callable[[Path, random.Random], None]]] = {
    "cut": _cut,
    "empty": _empty,
    "delete": _delete,
    "alter": _alter,
    "folder": _folder,
    "link": _link,
}


def filled_history(path: Path, *, n_nights: int = 2) -> History:
    """A history with runs and curves of the inbox and of a log, merged files, and rejects."""
    history = History.open(path)
    for night in range(n_nights):
        for model in range(4):
            for task in range(3):
                record_run(
                    path,
                    model_id=f"m{model}",
                    task_id=f"t{task}",
                    metric="accuracy",
                    direction="max",
                    value=0.5 + 0.1 * model + 0.01 * task,
                    seed=night,
                    curve=[(step, None, "accuracy", "eval", 0.1 * step) for step in range(5)],
                    on_error="raise",
                )
        (history.inbox / f"bad{night}.json").write_text("{")
        history.ingest_inbox()
    # As Delta does after a hundred commits.
    history._store.at_version().create_checkpoint()
    logged = [
        Run(
            run_id=f"log{i}",
            model_id=f"m{i}",
            task_id="of-a-log",
            metric="accuracy",
            direction="max",
            value=0.5 + 0.1 * i,
        )
        for i in range(4)
    ]
    points = {
        "run_id": [f"log{i}" for i in range(4)],
        "step": [1] * 4,
        "epoch": [None] * 4,
        "metric": ["accuracy"] * 4,
        "split": ["eval"] * 4,
        "value": [0.5] * 4,
    }
    reject = Reject(file="a.csv", line=2, reason="no", raw="x", reader="table")
    curves = pa.table(points, schema=CURVE_SCHEMA)
    history.ingest([ReadBatch(runs=runs_to_table(logged), curves=curves, rejects=(reject,))])
    return history


def content(history: History) -> tuple[str, ...]:
    """What a history holds, to compare."""
    runs = history.runs().drop(columns=["ingested_at"])
    rejects = history.quarantine.table()[["id", "resolved"]].sort_values("id")
    curves = history.curves()
    return tuple(frame.to_csv(index=False) for frame in (runs, curves, rejects))


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder, links as links."""
    shutil.copytree(source, target, symlinks=True)
    return target
