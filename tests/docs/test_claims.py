"""What the documentation says is not there yet: when it comes, the page has to change."""

from pathlib import Path

import pytest
from pages import DOCS

from recsys_ms.core.errors import UsageError
from recsys_ms.history.history import History


def test_a_history_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "how-to" / "object_store.md").read_text(encoding="utf-8")
    assert "is not supported in this version" in page
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^s3://bucket/history: a history lives in a folder"):
        History.open("s3://bucket/history")
