"""Hostile files in an inbox, each beside a good run: no traceback, no hang, the good run is read.

A case is a seed. It names a real file (of ``record_run``, of a recorder that ended, the journal of
one at work or killed), and what is done to it: bytes are changed, a field or a value is replaced,
or another kind of entry stands in its place.
"""

import functools
import json
import logging
import os
import random
import re
import socket
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from harness import Outcome, run_limited, unwanted

from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import MAX_FILE_BYTES, record_run
from recsys_ms.history.inbox.inbox_files import read_inbox
from recsys_ms.history.recorder.recording import recording

#: Hostile values, as they stand in the text of a file.
VALUES: Final = (
    "1" + "0" * 400,
    "-" + "9" * 5000,
    "9223372036854775808",
    "-1",
    "1e999",
    "NaN",
    "-Infinity",
    "0.1e",
    "01",
    "true",
    "null",
    "{}",
    "[]",
    '""',
    '" "',
    '"0.5"',
    r'"\ud800"',
    r'{"\udfff": 1}',
    r'"a\u0000b"',
    '"\u202e\ufeff\U0010ffff"',
    '"' + "x" * 1_000_000 + '"',
    "[" * 2000 + "]" * 2000,
    '{"a":' * 90 + "1" + "}" * 90,
    '{"a": 1, "a": 2}',
    '[[1, 1.0, "accuracy", null, 0.5]]',
    '[[1, 1.0, "accuracy", null]]',
    '"2026-13-45T99:00:00Z"',
    '"9999-12-31T23:59:59-14:00"',
    '"0001-01-01T00:00:00+14:00"',
    '"0001-01-01T00:00:00Z"',
    '"running"',
    '"' + "../" * 20 + 'etc/passwd"',
)
#: A name or a value in a line of JSON.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')

_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


@functools.cache
def real_files() -> dict[str, bytes]:
    """Content of what jobs leave in an inbox."""
    fields: dict[str, Any] = {
        "model_id": "vit_base",
        "task_id": "pets",
        "metric": "accuracy",
        "direction": "max",
        "seed": 3,
        "split": "val",
        "hyperparameters": {"lr": 1e-3, "sizes": [1, 2], "name": "größe"},
        "tags": {"team": "a", "note": "b"},
    }
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder)
        (history / "history.json").write_text("{}")
        inbox = history / "inbox"

        def taken() -> bytes:
            (path,) = (history / "inbox").iterdir()
            return path.read_bytes()

        record_run(history, **fields, value=0.5, cost_gpu_seconds=7.5, run_id="plain")
        found = {"plain": taken()}
        next(inbox.iterdir()).unlink()
        run = recording(history, **fields, run_id="recorded").start()
        for epoch in range(6):
            run.log(0.5 + epoch / 64, epoch=epoch, step=10 * epoch)
            run.log(2.0 - epoch / 64, epoch=epoch, metric="loss", split="train")
        run.set(cost_gpu_seconds=12.25)
        found["live"] = taken().replace(socket.gethostname().encode(), b"another")
        found["killed"] = found["live"].replace(
            b'"another"', json.dumps(socket.gethostname()).encode()
        )
        run.finish()
        found["ended"] = taken()
    return found


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """A file some of whose bytes are others, gone, or there twice."""
    for _ in range(chance.choice((1, 1, 3, 20))):
        at, to = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        to = min(to, at + chance.choice((1, 1, 8, 200, len(data))))
        piece = chance.choice(
            (
                b"",
                b"\0" * (to - at),
                chance.randbytes(to - at),
                data[at:to] * 2,
                b"\n",
                b"\xff\xfe",
                b"\xed\xa0\x80",
                bytes(each ^ 1 << chance.randrange(8) for each in data[at:to]),
            )
        )
        data = data[:at] + piece + data[to:]
    return chance.choice((data, data, data, data.replace(b"\n", b"\r\n"), data * 2))


def changed_tokens(data: bytes, chance: random.Random) -> bytes:
    """A file in which hostile values stand for names or values."""
    for _ in range(chance.choice((1, 1, 1, 4))):
        tokens = list(_TOKEN.finditer(data))
        if tokens:
            at, to = chance.choice(tokens).span()
            data = data[:at] + chance.choice(VALUES).encode() + data[to:]
    return data


def special_entry(path: Path, data: bytes, chance: random.Random) -> str:
    """Another kind of entry under the name of a file; gives what it is."""
    outside = path.parent.parent / "outside"
    outside.write_bytes(data.replace(b"vit_base", b"secret"))
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to(chance.choice(("/dev/zero", "/dev/random", "/dev/tty"))),
        "link": lambda: path.symlink_to(outside),
        "loop": lambda: path.symlink_to(path),
        "lost link": lambda: path.symlink_to(path.parent / "absent"),
        "folder": path.mkdir,
        "large": lambda: (path.touch(), os.truncate(path, 1 << chance.randrange(31, 42))),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
    }
    kind = chance.choice(list(make))
    make[kind]()
    return kind


def make_case(inbox: Path, seed: int) -> tuple[str, bytes]:
    """Put the hostile file of a seed into an inbox; gives what it is, and what it holds."""
    chance = random.Random(seed)
    name = chance.choice(list(real_files()))
    # Each seed has runs of its own, as different jobs have.
    data = re.sub(rb'"(plain|recorded)"', b'"\\1-%d"' % seed, real_files()[name])
    stem = f"z{seed}" + "n" * chance.choice((0, 0, 0, 200))
    is_journal = name in ("live", "killed")
    path = inbox / (f".open-{stem}.jsonl" if is_journal else f"{stem}.json")
    match chance.choice(("bytes", "bytes", "token", "token", "token", "special")):
        case "special":
            path = inbox / (f".open-z{seed}.jsonl" if is_journal else f"z{seed}.json")
            return f"{name} as {special_entry(path, data, chance)}", b""
        case "bytes":
            data = changed_bytes(data, chance)
        case _:
            data = changed_tokens(data, chance)
    path.write_bytes(data)
    if chance.random() < 0.2:
        moment = chance.choice((0, -(10**9), 2**31, 2**33, 10**11))
        os.utime(path, (moment, moment))
    return name, data


def good_run(inbox: Path) -> None:
    good = {"model_id": "m", "task_id": "t", "metric": "f1", "direction": "max", "value": 0.25}
    (inbox / "a.json").write_text(json.dumps({**good, "status": "finished", "run_id": "good"}))


def read_case(seed: int) -> dict[str, Any]:
    """What an ingest reads of an inbox that holds a good run and the hostile file of a seed."""
    told: list[str] = []
    logger = logging.getLogger("recsys_ms.history")
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        with tempfile.TemporaryDirectory() as folder:
            inbox = Path(folder, "inbox")
            inbox.mkdir()
            good_run(inbox)
            kind, data = make_case(inbox, seed)
            done: list[Path] = []
            batches = list(read_inbox(inbox, done))
            runs = pa.concat_tables([batch.runs for batch in batches])["run_id"].to_pylist()
            curves = [batch.curves for batch in batches if batch.curves is not None]
            numbers = {float(number) for number in _NUMBER.findall(data)}
            values = pa.concat_tables(curves)["value"].to_pylist()
            return {
                "kind": kind,
                "good": runs.count("good"),
                "read": len(runs) - runs.count("good"),
                "rejected": sum(len(batch.rejects) for batch in batches),
                "told": told,
                "left": sorted(path.name for path in {*inbox.iterdir()} - {*done}),
                # Every value that was read stands in the file.
                "made up": sorted({v for v in values if isfinite(v)} - numbers),
                "secret": any("secret" in str(batch.runs.to_pylist()) for batch in batches),
            }
    finally:
        logger.removeHandler(handler)


def check(outcomes: list[Outcome]) -> Counter[str]:
    """Every case ended well; gives how many in which way."""
    assert unwanted(outcomes) == []
    ways: Counter[str] = Counter()
    for outcome in outcomes:
        found = outcome.value
        assert found["good"] == 1, outcome
        assert found["made up"] == [], outcome
        assert not found["secret"], outcome
        # A journal of a recorder that may be at work stays, and is reported when the run ends.
        is_journal = found["kind"].startswith(("live", "killed"))
        waits = is_journal and found["left"] and not found["told"]
        assert found["read"] or found["rejected"] or found["told"] or waits, outcome
        assert bool(found["left"]) == bool(found["told"] or waits), outcome
        way = ("told", "rejected", "read", "left")
        ways[next(name for name in way if found[name])] += 1
    return ways


def test_four_hundred_hostile_files() -> None:
    ways = check(run_limited(read_case, range(400)))
    # Each way occurs often: the cases are not all of one kind.
    assert min(ways[way] for way in ("told", "rejected", "read")) > 30


@pytest.mark.slow
def test_ten_thousand_hostile_files() -> None:
    check(run_limited(read_case, range(1000, 11_000)))


def ingest_together(seeds: range) -> tuple[int, int, int, int]:
    """One ingest of all the files at once, then another one."""
    with tempfile.TemporaryDirectory() as folder:
        history = History.open(Path(folder, "H"))
        good_run(history.inbox)
        for seed in seeds:
            make_case(history.inbox, seed)
        report = history.ingest_inbox()
        runs = history.runs()
        assert runs["run_id"].tolist().count("good") == 1
        assert len(history.curves()) > 0
        n_left = len(list(history.inbox.iterdir()))
        (bundle,) = (history.path / "archive").rglob("*.tar.gz")
        with tarfile.open(bundle) as tar:
            n_kept = len(tar.getnames())
        again = history.ingest_inbox()
        assert (again.n_new, again.n_updated) == (0, 0)
        history.replay()
        return report.n_read, report.n_quarantined, n_left, n_kept


@pytest.mark.parametrize(
    "seeds", [range(400), pytest.param(range(1000, 6000), marks=pytest.mark.slow)]
)
def test_hostile_files_together_stop_no_ingest(seeds: range) -> None:
    (found,) = run_limited(ingest_together, [seeds], start="spawn", seconds_per_case=600)
    assert unwanted([found]) == []
    _, n_quarantined, n_left, n_kept = found.value
    assert n_left + n_kept == len(seeds) + 1
    assert n_quarantined > len(seeds) // 4


def read_long(case: tuple[str, bytes, bytes]) -> tuple[int, int]:
    """Runs and rejects of a file of the greatest length that is read."""
    name, start, unit = case
    with tempfile.TemporaryDirectory() as folder:
        n = (MAX_FILE_BYTES - len(start) - 3) // len(unit)
        Path(folder, name).write_bytes(start + unit * n + b"0]")
        batches = list(read_inbox(Path(folder), []))
        return (
            sum(batch.runs.num_rows for batch in batches),
            sum(len(batch.rejects) for batch in batches),
        )


HEAD = real_files()["killed"].split(b"\n")[0] + b"\n"
VALUE = b'[20310, 7.125, "accuracy", "val", 0.53125]'
RUN = b'{"model_id": "m", "task_id": "t", "metric": "f1", "value": 0.5, "curve": ['
QUICK = [
    (("a.json", b"[", b"[],"), (0, 1)),
    ((".open-a.jsonl", HEAD, b"\n"), (1, 1)),
    ((".open-a.jsonl", HEAD, b"]\n"), (1, 1)),
    ((".open-a.jsonl", b"{}\n", b"{}\n"), (0, 1)),
    ((".open-a.jsonl", HEAD, b"0"), (1, 1)),
]
SLOW = [
    *((("a.json", b"[", unit), (0, 1)) for unit in (b'{"a":0},', b'"",', b"1.5,", b'[1,"m"],')),
    ((".open-a.jsonl", HEAD, b"{}\n"), (1, 1)),
    ((".open-a.jsonl", HEAD, VALUE + b"\n"), (1, 1)),
    # Whole but for its end.
    (("a.json", RUN + VALUE, b"," + VALUE), (0, 1)),
]


@pytest.mark.parametrize("cases", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_the_longest_files_take_seconds_and_two_gigabytes(
    cases: list[tuple[tuple[str, bytes, bytes], tuple[int, int]]],
) -> None:
    # The longest journal takes 10 seconds of a processor.
    found = run_limited(read_long, [case for case, _ in cases], seconds_per_case=120)
    assert unwanted(found) == []
    assert [each.value for each in found] == [expected for _, expected in cases]
