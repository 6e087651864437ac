"""Damaged and hostile run folders: no traceback, no hang, and every value stands in its log.

A case is a seed. It names a run folder (real ones of HF Trainer, timm, Lightning, Keras,
Ultralytics and fastai, a model card, tables of epochs), and what is done to its files: bytes or
lines are changed, a number is replaced, or another kind of entry stands in the place of a file.
"""

import functools
import json
import math
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from harness import Outcome, run_limited, unwanted
from history.readers.frameworks import recorded

from recsys_ms.core.errors import RecsysError
from recsys_ms.history.readers.inspection import inspect_logs
from recsys_ms.history.readers.logs import read_log, replay_log
from recsys_ms.history.readers.mapping import FieldMapping

#: Hostile cells and values, as they stand in the text of a file.
VALUES: Final = (
    "nan",
    "NaN",
    "-inf",
    "1e999",
    "1" + "0" * 400,
    "-0.0",
    "1,5",
    "1_000",
    "0,913",
    "91.3%",
    "0.9 ± 0.1",
    "١٢",
    "",
    " ",
    "null",
    "true",
    "[1, 2]",
    "{}",
    '"',
    "'",
    '"0.5"',
    "!!int ''",
    "!!python/object/apply:os.system ['true']",
    "&a [*a]",
    "\x00",
    "\ufeff",
    r"\ud800",
    "../" * 20 + "etc/passwd",
    "x" * 200_000,
    "[" * 3000,
    "{a: " * 200,
    "9" * 50_000,
    "1." * 20_000,
    "2024-13-45",
    "-1",
    "2147483648",
    "9223372036854775808",
)
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SAID: Final = {"model_id": "m", "task_id": "t", "metric": "accuracy", "direction": "max"}
#: Where it is another one that a folder's runs have.
_METRICS: Final = {"timm": "top1", "timm resumed": "top1", "lightning": "acc"}
_CARD: Final = """---
base_model: org/base
datasets: [org/birds]
model-index:
- name: named
  results:
  - dataset: {name: Birds, type: org/birds, config: small, split: test}
    metrics:
    - {name: Accuracy, type: accuracy, value: 0.8125}
    - {name: F1, type: f1, value: '71.5%'}
---
- learning_rate: 3e-06
"""
_STEPS: Final = "model,epoch,val/accuracy,loss\n" + "".join(
    f"{model},{epoch},0.{5 + epoch}25,{1 / (epoch + 1)}\n" for model in "ab" for epoch in range(4)
)
_LINES: Final = "".join(f'{{"step": {n}, "accuracy": 0.{n}75, "lr": 0.1}}\n' for n in range(5))


@functools.cache
def folders() -> dict[str, dict[str, bytes]]:
    """Content of run folders, by name and path."""

    def real(framework: str, prefix: str) -> dict[str, bytes]:
        path = recorded.HERE / f"recorded_{framework}.json"
        files: dict[str, str] = json.loads(path.read_text("utf-8"))
        return {
            name.removeprefix(prefix): text.replace(recorded.FOLDER, "/logs").encode()
            for name, text in files.items()
            if name.startswith(prefix) and not name.endswith("expected.json")
        }

    return {
        "hf": real("hf_trainer", "plain/"),
        "hf killed": real("hf_trainer", "killed/"),
        "timm": real("timm", "plain/"),
        "timm resumed": real("timm", "resumed/"),
        "lightning": real("lightning", "birds/"),
        "keras": real("keras", ""),
        "ultralytics": real("ultralytics", "detect/"),
        "fastai": real("fastai", ""),
        "card": {"README.md": _CARD.encode()},
        "steps": {"log.csv": _STEPS.encode(), "log.jsonl": _LINES.encode()},
    }


def _bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    noise = rng.randbytes(rng.choice((1, 1, 4, 40)))
    return rng.choice(
        (data[:at], data[:at] + noise + data[at:], data[:at] + noise + data[at + 1 :])
    )


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 1:
        lines.insert(one, lines[other])
    elif kind == 2:
        del lines[one]
    else:
        lines[one] = lines[one].rstrip() + rng.choice(
            (b",1\n", b";\n", b"\r\n", b"\t", b'"\n', b"\r")
        )
    return b"".join(lines)


def _value(data: bytes, rng: random.Random) -> bytes:
    text = data.decode(errors="replace")
    found = [*_NUMBER.finditer(text)]
    if not found:
        return data
    one = rng.choice(found)
    value = rng.choice(VALUES)
    return (text[: one.start()] + value + text[one.end() :]).encode(errors="replace")


def _much(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    return rng.choice(
        (
            data + lines[-1] * (1_000_000 // max(len(lines[-1]), 1)),
            lines[0].rstrip() + b",a" * 20_000 + b"\n" + b"".join(lines[1:]),
            data * 30,
            data.decode(errors="replace").encode("utf-16"),
            b"\xef\xbb\xbf" + data,
            data.replace(b"\n", b"\r\n"),
            data.replace(b",", b";"),
            b"",
        )
    )


_KINDS: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _bytes,
    _lines,
    _value,
    _value,
)


def _stand_in(path: Path, rng: random.Random) -> None:
    """Put another kind of entry in the place of a file."""
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        path.symlink_to(path.name)
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("/dev/zero")
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.symlink_to(path.parent / "nowhere")
    else:
        with path.open("wb") as handle:
            handle.truncate(3 << 30)


def mutant(seed: int, root: Path) -> str:
    """Write the run folder of a case, and say what was done to it."""
    rng = random.Random(seed)
    name = rng.choice([*folders()])
    for file, data in folders()[name].items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    told = [name]
    for _ in range(rng.choice((1, 1, 2, 4))):
        path = root / rng.choice([*folders()[name]])
        if not path.is_file() or path.stat().st_size > 50 << 20:
            continue
        chance = rng.random()
        if chance < 0.08:
            _stand_in(path, rng)
            told.append(f"stand-in for {path.name}")
            continue
        change = _much if chance < 0.12 else rng.choice(_KINDS)
        path.write_bytes(change(path.read_bytes(), rng))
        told.append(f"{change.__name__} {path.name}")
    return ", ".join(told)


def _numbers_in(root: Path) -> set[float]:
    found: set[float] = set()
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_size < 50 << 20:
            text = path.read_bytes().decode(errors="replace")
            found.update(float(number) for number in _NUMBER.findall(text) if len(number) < 400)
    return found


def tried(seed: int) -> str:
    """Look at a mutant, read it, and read again what could not be read."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        told = mutant(seed, root)
        inspect_logs(root)
        taken = []
        said = _SAID | {"metric": _METRICS.get(told.split(",")[0], "accuracy")}
        for mapping in (FieldMapping(), FieldMapping(set=said)):
            try:
                reader = read_log(root, mapping)
                readable: dict[str, bool] = {}
                for batch in reader:
                    taken += batch.runs.select(["value", "status"]).to_pylist()
                    for reject in batch.rejects[:3]:
                        replay_log(reject, FieldMapping(set=said), readable=readable)
                assert all(reader.warnings)
            except RecsysError:
                continue
        known = _numbers_in(root) if taken else set()
        for row in taken:
            value = row["value"]
            if value is not None:
                # A percentage is kept as a fraction.
                stands = value in known or any(math.isclose(100 * value, n) for n in known)
                assert stands, f"{told}: {value} is not in the log"
                assert math.isfinite(value), told
        return f"{told}: {len(taken)} taken"


def check(outcomes: list[Outcome]) -> None:
    assert unwanted(outcomes) == []
    assert max(each.peak_bytes for each in outcomes) < 2 << 30
    assert max(each.seconds for each in outcomes) < 30
    # Some mutants are harmless, and some leave nothing to read.
    kept = Counter(str(each.value).endswith(": 0 taken") for each in outcomes)
    assert min(kept.values()) > len(outcomes) / 20


def test_run_folders() -> None:
    check(run_limited(tried, range(350)))


@pytest.mark.slow
def test_many_run_folders() -> None:
    check(run_limited(tried, range(350, 5_000)))
