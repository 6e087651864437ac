"""Hostile stores of MLflow, Optuna and W&B: no traceback, no hang, nothing written beside them.

A case is a seed. It names a real store (a database, a folder of runs), and what is done to it: its
bytes are changed, hostile values stand in its cells, its tables are others, or other kinds of
entries stand in the place of its files.
"""

import functools
import math
import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from harness import Outcome, run_limited, unwanted
from history.readers.formats.test_wandb_folder import run_folder
from history.readers.frameworks import mlflow_stores, optuna_stores
from test_inbox_fuzz import VALUES, changed_bytes, changed_tokens

from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

#: What the stores do not say themselves.
SAID: Final = {"mlflow": {"metric": "acc"}, "optuna": {"metric": "accuracy"}, "wandb": {}}
CELLS: Final[tuple[Any, ...]] = (
    None,
    "",
    "high",
    "1" * 5_000,
    "\ud7ff\u202e\x00",
    b"\xff\xfe\x00",
    b"x" * 1_000_000,
    "x" * 1_000_000,
    -1,
    2**63 - 1,
    -(2**63),
    0.5,
    9e999,
    -9e999,
    1.7976931348623157e308,
    "NaN",
    '{"name": "CategoricalDistribution", "attributes": {"choices": 3}}',
    "[" * 5_000,
    "MAXIMIZE",
    "FINISHED",
    "deleted",
)
YAML: Final = (
    "x: !!int ''",
    "x: !!bool maybe",
    "x: !!timestamp x",
    "run_id: [",
    "a: &a [*a, *a]",
    "<<: 3",
    "{" * 3_000,
    "start_time: 1" + "0" * 400,
    "start_time: .nan",
    "status: {a: 1}",
    "run_id: 1e400",
    "- a\n- b",
)


@functools.cache
def stores() -> dict[str, dict[str, bytes]]:
    """Files of real stores, by their paths."""
    found: dict[str, dict[str, bytes]] = {}
    for name, make in (
        *(
            (f"mlflow-{version}-{kind}", functools.partial(mlflow_stores.lay_out, version, kind))
            for version, kind in mlflow_stores.STORES
        ),
        *(
            (f"optuna-{version}", functools.partial(optuna_stores.lay_out, version))
            for version in optuna_stores.versions()
        ),
        ("wandb", run_folder),
    ):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            found[name] = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if (path.is_file() and path.parent != Path(folder)) or path.suffix == ".db"
            }
    return found


def hostile_sql(path: Path, chance: random.Random) -> None:
    """Hostile cells in a database, and tables that are not what they seem."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA ignore_check_constraints = ON")
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    tables = [name for (name,) in database.execute(names)]
    for _ in range(chance.choice((1, 1, 3, 20))):
        table = chance.choice(tables)
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        column = chance.choice(columns or ["none"])
        some = f"WHERE rowid % {chance.randint(1, 4)} = 0"
        change: tuple[str, tuple[Any, ...]] = chance.choice(
            (
                *[(f'UPDATE {table} SET "{column}" = ? {some}', (chance.choice(CELLS),))] * 8,
                (f"DELETE FROM {table} {some}", ()),
                (f"DROP TABLE {table}", ()),
                (f'ALTER TABLE {table} RENAME COLUMN "{column}" TO other', ()),
                (f"CREATE TABLE copied AS SELECT * FROM {table}", ()),
                (f"ALTER TABLE {table} RENAME TO other_{table}", ()),
                (
                    f"CREATE VIEW {table} AS WITH RECURSIVE c(n) AS "
                    "(SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c",
                    (),
                ),
                (
                    f"ALTER TABLE {table} ADD COLUMN value_2 GENERATED ALWAYS AS "
                    "(hex(zeroblob(50000000))) VIRTUAL",
                    (),
                ),
                (f"CREATE TRIGGER trap UPDATE ON {table} BEGIN DELETE FROM {table}; END", ()),
            )
        )
        # Not every change fits every table.
        with suppress(sqlite3.Error, UnicodeEncodeError):
            database.execute(*change)
    database.close()


def damaged_database(path: Path, chance: random.Random) -> None:
    """A database whose bytes are others, or that has half a transaction beside it."""
    data = path.read_bytes()
    kind = chance.choice(("bytes", "cut", "page", "wal", "journal", "header"))
    if kind == "bytes":
        data = changed_bytes(data, chance)
    elif kind == "cut":
        data = data[: chance.randrange(len(data))]
    elif kind == "page":
        at = 4096 * chance.randrange(len(data) // 4096)
        data = data[:at] + chance.choice((bytes(4096), data[:4096])) + data[at + 4096 :]
    elif kind == "header":
        at = chance.randrange(100)
        data = data[:at] + chance.randbytes(2) + data[at + 2 :]
    else:
        beside = path.with_name(f"{path.name}-{kind}")
        magic = {"wal": b"\x37\x7f\x06\x82", "journal": b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"}[kind]
        beside.write_bytes(magic + chance.randbytes(chance.choice((0, 100, 9_000))))
        if kind == "wal":
            data = data[:18] + b"\x02\x02" + data[20:]
    path.write_bytes(data)


def hostile_file(path: Path, chance: random.Random) -> None:
    """Another text, or another kind of entry, in the place of a file."""
    data = path.read_bytes()
    value = chance.choice((*VALUES, *YAML)).encode()
    texts: list[Callable[[], bytes]] = [
        lambda: changed_bytes(data, chance),
        lambda: changed_tokens(data, chance),
        lambda: data[: chance.randrange(len(data) + 1)],
        lambda: data + b"\n" + value,
        lambda: value,
        lambda: data * 200,
        lambda: bytes(100),
    ]
    if chance.random() < 0.8:
        path.write_bytes(chance.choice(texts)())
        return
    path.unlink()
    entries: list[Callable[[], object]] = [
        lambda: None,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/etc/passwd"),
        lambda: path.mkdir(),
        lambda: path.symlink_to(".."),
    ]
    chance.choice(entries)()


def listing(folder: Path) -> set[tuple[str, int, int]]:
    return {
        (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


def read_case(seed: int) -> dict[str, Any]:
    """What comes of one store."""
    chance = random.Random(seed)
    name = chance.choice(sorted(stores()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "logs")
        for path, data in stores()[name].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        databases = [path for path in files if path.suffix == ".db"]
        for path in databases:
            chance.choice((hostile_sql, damaged_database))(path, chance)
        if not databases:
            for path in chance.sample(files, min(len(files), chance.choice((1, 1, 3, 10)))):
                hostile_file(path, chance)
        before = listing(folder)
        counts: Counter[str] = Counter()
        try:
            said = {"model_id": "m", "task_id": "t", **SAID[name.partition("-")[0]]}
            for batch in read_log(folder, FieldMapping(set=said)):
                counts["read"] += batch.runs.num_rows
                counts["rejected"] += len(batch.rejects)
                values = batch.runs["value"].to_pylist()
                counts["odd"] += sum(v is not None and not math.isfinite(v) for v in values)
                text = str(batch.runs.to_pylist())
                counts["secret"] += "root:x:0" in text
        finally:
            assert listing(folder) == before, "something was written beside the store"
        return {"name": name, **counts}


def check(outcomes: list[Outcome]) -> Counter[str]:
    """Every case ended well; gives how many in which way."""
    assert unwanted(outcomes) == []
    ways: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome.end == "typed":
            ways["typed"] += 1
            continue
        found = outcome.value
        assert not found.get("secret"), outcome
        assert not found.get("odd"), outcome
        ways["rejected" if found.get("rejected") else "read"] += 1
        ways["with runs"] += bool(found.get("read"))
    return ways


def test_a_hundred_and_fifty_hostile_stores() -> None:
    stores()
    ways = check(run_limited(read_case, range(150)))
    assert ways["rejected"] > 30
    assert ways["with runs"] > 50


@pytest.mark.slow
def test_three_thousand_hostile_stores() -> None:
    stores()
    check(run_limited(read_case, range(1_000, 4_000)))
