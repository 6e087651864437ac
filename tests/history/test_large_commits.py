"""Commits of many bytes are written row group by row group, and are as all others."""

from pathlib import Path

import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import TableReader, read_table
from recsys_ms.history.store import delta

MAPPING = FieldMapping(
    map={"model_id": "{model}", "task_id": "{task}", "value": "{acc}", "epoch": "{acc}"},
    set={"metric": "score", "direction": "max"},
)


def table(tmp_path: Path, rows: str, name: str = "runs.csv") -> TableReader:
    path = tmp_path / name
    path.write_text(f"model,task,acc\n{rows}")
    return read_table(path, MAPPING, batch_rows=10)


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "_HELD_BYTES", 2_000)


def test_a_large_commit_holds_every_row_and_is_followed_by_others(tmp_path: Path) -> None:
    rows = "".join(f"m{i},t{i % 3},0.{i:03}\n" for i in range(1, 100))
    history = History.open(tmp_path / "H")
    first = history.ingest(table(tmp_path, rows))
    assert (first.n_new, first.version) == (99, 1)
    assert len(list((tmp_path / "H" / "runs").glob("*.parquet"))) == 1
    assert history.ingest(table(tmp_path, rows)).n_duplicate == 99
    assert history.ingest(table(tmp_path, "x,t,0.5\n", "one.csv")).n_new == 1
    again = History.open(tmp_path / "H").runs()
    assert len(again) == 100
    assert again.set_index("model_id")["value"]["m42"] == 0.042
    assert again["started_at"].isna().all()
    history.compact()
    assert len(History.open(tmp_path / "H").runs()) == 100


def test_a_large_commit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    rows = "".join(f"m{i},t,1.{i:03}\n" for i in range(1, 100)) + 'z,t,"987,5"\n'
    history = History.open(tmp_path / "H")
    with pytest.raises(UsageError, match="decimal comma"):
        history.ingest(table(tmp_path, rows))
    assert history.version == 0
    assert list((tmp_path / "H" / "runs").glob("*.parquet")) == []
