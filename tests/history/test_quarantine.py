from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ms.core.errors import DataError, RefusedError, StorageError, UnknownIdError
from recsys_ms.history.quarantine import Quarantine, ReadBatch, Reject
from recsys_ms.history.store.schema import RUN_SCHEMA

REJECT = Reject(file="a.csv", line=3, reason="text in value", raw="m,t,x", reader="table")


def test_a_reject_is_kept_once_whatever_the_reason(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    assert quarantine.add([REJECT, REJECT]) == 1
    assert quarantine.add([replace(REJECT, reason="otherwise worded")]) == 0
    assert quarantine.add([replace(REJECT, line=4), replace(REJECT, line=None)]) == 2
    table = quarantine.table()
    assert list(table.columns) == [
        *("id", "file", "line", "reason", "raw", "reader", "options", "seen_at", "resolved")
    ]
    assert table["line"].tolist()[:2] == [3, 4]
    assert table["line"].isna().tolist() == [False, False, True]
    assert str(table["seen_at"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    "changed", [{"file": "b.csv"}, {"line": 4}, {"raw": "m"}, {"reader": "run"}, {"options": "[]"}]
)
def test_everything_but_the_reason_makes_the_id(changed: dict[str, object]) -> None:
    assert replace(REJECT, **changed).id != REJECT.id


def test_resolved_rejects_stay_in_the_table_and_are_not_pending(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    other = replace(REJECT, line=9)
    quarantine.add([REJECT, other])
    quarantine.resolve([REJECT.id])
    quarantine.resolve([REJECT.id])
    assert list(quarantine.pending()) == [other]
    assert quarantine.table()["resolved"].tolist() == [True, False]
    assert quarantine.add([REJECT]) == 0
    assert list(quarantine.pending()) == [other]


def test_pending_rejects_come_file_by_file_and_the_table_without_their_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine = Quarantine(tmp_path / "q")
    each = [replace(REJECT, line=line) for line in range(4)]
    quarantine.add(each[:2])
    quarantine.add(each[2:])
    read = []
    opened = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path: read.append(path) or opened(path))
    pending = quarantine.pending()
    assert next(pending) == each[0]
    assert len(read) == 1
    assert list(pending) == each[1:]
    table = quarantine.table(raw=False)
    assert "raw" not in table
    assert table["line"].tolist() == [0, 1, 2, 3]


def test_an_empty_quarantine_has_no_files(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    assert quarantine.add([]) == 0
    assert len(quarantine.table()) == 0
    assert list(quarantine.pending()) == []
    assert not (tmp_path / "q").exists()


def test_undecodable_and_very_long_raw_text_comes_back(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    undecodable = replace(REJECT, raw=b"\xff\x00m".decode(errors="surrogateescape"))
    long = replace(REJECT, raw="x" * 100_000_000)
    quarantine.add([undecodable, long])
    back = list(quarantine.pending())
    assert back == [undecodable, long]
    assert [reject.id for reject in back] == [undecodable.id, long.id]
    assert back[0].raw == "\\udcff\x00m"


def test_unknown_ids_read_only_and_damage(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    quarantine.add([REJECT])
    with pytest.raises(UnknownIdError, match="no reject has the id 'x'"):
        quarantine.resolve(["x"])
    past = Quarantine(tmp_path / "q", read_only=True)
    assert len(past.table()) == 1
    with pytest.raises(RefusedError):
        past.add([REJECT])
    with pytest.raises(RefusedError):
        past.resolve([REJECT.id])
    (part,) = (tmp_path / "q").glob("rejects-*.parquet")
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(DataError, match="damaged"):
        quarantine.table()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("")
    with pytest.raises(StorageError, match="cannot be"):
        Quarantine(tmp_path / "q").add([REJECT])


def test_a_batch_is_cut_with_its_files_and_lines() -> None:
    runs = pa.table({name: pa.nulls(3, RUN_SCHEMA.field(name).type) for name in RUN_SCHEMA.names})
    batch = ReadBatch(
        runs=runs, rejects=(REJECT,), n_left_out=2, file=("a", "b", "c"), lines=(1, 2, 3)
    )
    parts = list(batch.slices(2))
    assert [(p.runs.num_rows, p.file, p.lines) for p in parts] == [
        (2, ("a", "b"), (1, 2)),
        (1, ("c",), (3,)),
    ]
    assert [(len(p.rejects), p.n_left_out) for p in parts] == [(1, 2), (0, 0)]
    empty = ReadBatch(runs=runs.slice(0, 0), rejects=(REJECT,))
    assert [len(p.rejects) for p in empty.slices(2)] == [1]
    with pytest.raises(DataError, match="lines has 1 entries for 3 runs"):
        ReadBatch(runs=runs, lines=(1,))
