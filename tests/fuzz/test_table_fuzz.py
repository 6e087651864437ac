"""Damaged and odd tables: no traceback, no hang, no row lost, and no number that the cell is not.

A case is a seed. It names a format, what is done to a good table of that format, and the options it
is read with.
"""

import gzip
import io
import json
import logging
import math
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import run_limited, unwanted

from recsys_ms.core.errors import RecsysError
from recsys_ms.history.history import History
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import TableReader, read_table, replay_row
from recsys_ms.history.readers.wide import Wide

_N_ROWS: Final = 12
#: What may stand where a number was.
_NUMBERS: Final = (
    "0,913",
    "1,105",
    "1.105",
    "1.105,5",
    "1,013.01",
    "91.3%",
    "0.913 ± 0.004",
    "0.9 (0.1)",
    "1e-3",
    "1e999",
    "-1e-400",
    "nan",
    "-inf",
    "\u22120.5",
    "1\u00a0013",
    "1 013,5",
    "0x1f",
    "1_000",
    "٣",
    "½",
    "9/10",
    "1" + "0" * 400,
    "9" * 5000,
    "-0",
    "+.5",
    "5.",
    ".",
    "e5",
    "",
    " ",
    "None",
    "NULL",
    "true",
    "[0.5]",
    "{'a': 1}",
    "=1+1",
    "0.5s",
    "1,2,3",
    "--1",
    "1e",
    "０.５",
    "\u202e5",
    "(0.5)",
    "0.5±",
    "%",
)
_BYTES: Final = (
    b"\x00",
    b'"',
    b"'",
    b"\n",
    b"\r",
    b",",
    b";",
    b"\t",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"{",
    b"[" * 3000,
    b"\x1a",
    b"\x80",
    b'"' * 7,
    b"\xe2\x88\x92",
    b"\\ud800",
    b"NaN",
    b":",
    b"}",
    b'{"a":' * 300,
)
_ENCODINGS: Final = ("utf-16", "utf-8-sig", "latin-1", "cp037", "utf-32-le", "shift_jis")
_PLAIN: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "model": f"m{row}",
            "task": "t",
            "acc": rng.choice(_NUMBERS) if rng.random() < 0.1 else str(round(rng.random(), 3)),
            "epoch": str(rng.randrange(9)),
            "lr": rng.choice(("0.1", "1e-3", "0,01", "abc")),
            "seed": str(row),
        }
        for row in range(_N_ROWS)
    ]


def _delimited(rows: Sequence[dict[str, Any]], rng: random.Random) -> tuple[str, bytes]:
    name, sign = rng.choice((("t.csv", ","), ("t.tsv", "\t"), ("t.tab", "\t")))
    quoted = [
        [f'"{cell}"' if sign in cell or '"' in cell else cell for cell in row.values()]
        for row in rows
    ]
    lines = [list(rows[0]), *quoted]
    return name, "".join(sign.join(line) + "\n" for line in lines).encode()


def _json_lines(rows: Sequence[dict[str, Any]], rng: random.Random) -> tuple[str, bytes]:
    typed = [{**row, "epoch": int(row["epoch"]), "lr": {"x": row["lr"]}} for row in rows]
    return "t.jsonl", "".join(json.dumps(row) + "\n" for row in typed).encode()


def _document(rows: Sequence[dict[str, Any]], rng: random.Random) -> tuple[str, bytes]:
    inside = list(rows) if rng.random() < 0.5 else {f"k{at}": row for at, row in enumerate(rows)}
    return "t.json", json.dumps({"all": inside}).encode()


def _parquet(rows: Sequence[dict[str, Any]], rng: random.Random) -> tuple[str, bytes]:
    odd = rng.choice(
        (
            pa.array([2**31 - 1] * _N_ROWS, pa.int32()).cast(pa.date32()),
            pa.array([2**62] * _N_ROWS, pa.int64()).cast(pa.timestamp("us")),
            pa.array([2**62] * _N_ROWS, pa.int64()).cast(pa.duration("us")),
            pa.array([b"\xff"] * _N_ROWS),
            pa.array([[{"a": math.nan}]] * _N_ROWS),
            pa.array(["x"] * _N_ROWS).dictionary_encode(),
        )
    )
    table = pa.Table.from_pylist(list(rows)).append_column("odd", odd)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=rng.choice(("zstd", "snappy", "none")))
    return "t.parquet", sink.getvalue()


_FORMATS: Final = (_delimited, _delimited, _json_lines, _document, _parquet)


def _damaged(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    until = min(len(data), at + rng.randrange(1, 200))
    kind = rng.randrange(7)
    if kind == 0:
        flipped = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            flipped[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(flipped)
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[until:]
    if kind == 3:
        return data[:until] + data[at:]
    if kind == 4:
        lines = data.split(b"\n")
        rng.shuffle(lines)
        return b"\n".join(lines)
    if kind == 5:
        try:
            return data.decode().encode(rng.choice(_ENCODINGS), errors="replace")
        except UnicodeDecodeError:
            return data[::-1]
    return data[:at] + rng.choice(_BYTES) + data[at:]


def _mapping(rng: random.Random, name: str) -> tuple[FieldMapping, dict[str, Any]]:
    options: dict[str, Any] = {}
    # The cell as it was read is kept as a tag.
    fields = {
        "model_id": "{model}", "task_id": "{task}", "value": "{acc}", "tags.cell": "{acc}",
        "epoch": "{epoch}", "hyperparameters.lr": rng.choice(("{lr}", "{lr.x}")),
    }  # fmt: skip
    if rng.random() < 0.2:
        fields["split"] = rng.choice(("{acc:.3f}", "{epoch:>4}", "{lr:e}", "{seed:d}"))
    if name == "t.json":
        options["records"] = "all"
    if rng.random() < 0.1:
        options["wide"] = Wide(columns=rng.choice(("tasks", "models")))
        fields = {"tags.cell": "{value}"}
    if rng.random() < 0.1:
        options["encoding"] = rng.choice(("latin-1", "cp1252", "undefined", "utf-8-sig", "idna"))
    if rng.random() < 0.1:
        options["delimiter"] = rng.choice((";", "|", ","))
    mapping = FieldMapping(
        map=fields,
        set={"metric": rng.choice(("accuracy", "score")), "direction": "max"},
        decimal=rng.choice((None, None, ".", ",")),
        unit=rng.choice((None, None, None, "percent")),
        ignore_spread=rng.random() < 0.3,
        missing=rng.choice(((), (), ("-1", "", "nan"))),
        where="epoch > 2" if "epoch" in fields and rng.random() < 0.05 else None,
    )
    return mapping, options


def _only_reading(cell: str, mapping: FieldMapping) -> float:
    """The number that a cell is, found without the code under test."""
    text = cell.strip().replace("\u2212", "-")
    text = text.split("±")[0].strip() if mapping.ignore_spread else text
    text = text.split("(")[0].strip() if mapping.ignore_spread else text
    if mapping.unit == "percent":
        text = text.removesuffix("%").strip()
    if mapping.decimal is not None:
        other = "," if mapping.decimal == "." else "."
        whole, sign, part = text.partition(mapping.decimal)
        groups = re.split(rf"[{re.escape(other)} \u00a0]", whole)
        if len(groups) > 1:
            assert all(len(each) == 3 for each in groups[1:]), cell
            assert not groups[0].lstrip("+-").startswith("0"), cell
        text = "".join(groups) + ("." if sign else "") + part
    assert _PLAIN.fullmatch(text), f"{cell!r} is not one number"
    number = float(text)
    return number / 100.0 if mapping.unit == "percent" else number


def _read(path: Path, mapping: FieldMapping, options: dict[str, Any]) -> TableReader:
    return read_table(path, mapping, **options)


def _case(seed: int) -> None:
    rng = random.Random(seed)
    make: Callable[..., tuple[str, bytes]] = rng.choice(_FORMATS)
    name, good = make(_rows(rng), rng)
    data = good
    for _ in range(rng.choice((0, 1, 1, 2))):
        data = _damaged(data, rng) if data else data
    mapping, options = _mapping(rng, name)
    if name != "t.parquet" and rng.random() < 0.15:
        name, data = f"{name}.gz", gzip.compress(data)
        data = _damaged(data, rng) if rng.random() < 0.5 else data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        batches = list(_read(path, mapping, options))
        runs = [run for batch in batches for run in batch.runs.to_pylist()]
        rejects = [reject for batch in batches for reject in batch.rejects]
        for run in runs:
            if run["value"] is not None:
                wanted = _only_reading(json.loads(run["tags"])["cell"], mapping)
                assert run["value"] == wanted, (run["tags"], run["value"])
        if name in ("t.csv", "t.tsv", "t.jsonl") and not options and mapping.where is None:
            _check_nothing_is_lost(good, data, runs, rejects)
        for reject in rejects[:3]:
            again = replay_row(reject)
            assert again.runs.num_rows + len(again.rejects) + again.n_left_out == 1
        if seed % 20 == 0:
            history = History.open(Path(folder, "H"))
            report = history.ingest(_read(path, mapping, options))
            n_rows = sum(b.runs.num_rows + len(b.rejects) + b.n_left_out for b in batches)
            assert report.n_read == n_rows
            assert history.ingest(_read(path, mapping, options)).n_new == 0


def _check_nothing_is_lost(good: bytes, data: bytes, runs: list[Any], rejects: list[Any]) -> None:
    """Rows that the damage left as they were are runs, or wait in quarantine."""
    lines = data.decode(errors="backslashreplace").split("\n")
    rows = good.decode().splitlines()
    if not good.startswith(b"{") and lines[0] != rows.pop(0):
        return
    models = {run["model_id"] for run in runs}
    waiting = "\n".join(reject.raw for reject in rejects)
    for row in rows:
        (model,) = re.findall(r"\bm[0-9]+\b", row)
        assert row not in lines or model in models or row in waiting, row


def _checked(seed: int) -> None:
    logging.disable(logging.WARNING)
    try:
        _case(seed)
    except RecsysError as error:
        if error.exit_code not in (2, 3) or len(str(error)) > 5_000:
            raise AssertionError(str(error)[:500]) from error
        raise


def _run(seeds: Sequence[int]) -> None:
    # Not forked: a history is a Delta table, whose runtime does not survive that.
    outcomes = run_limited(_checked, seeds, start="spawn")
    assert not unwanted(outcomes), "\n\n".join(unwanted(outcomes)[:5])
    assert max(each.peak_bytes for each in outcomes) < 2 << 30
    # Most cases are read: a fuzzer whose tables are all refused tests little.
    assert sum(each.end == "ok" for each in outcomes) > 0.3 * len(outcomes)


def test_five_hundred_odd_tables() -> None:
    _run(range(500))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 11_000, 1_000))
def test_thousands_of_odd_tables(first: int) -> None:
    _run(range(first, first + 1_000))
