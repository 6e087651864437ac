"""The page of metrics holds what the code knows."""

from pathlib import Path

from metrics_table import metrics_table

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"


def test_the_page_has_the_table_of_the_code() -> None:
    assert metrics_table() in PAGE.read_text(encoding="utf-8"), (
        "replace the table of docs/reference/metrics.md by what tests/docs/metrics_table.py prints"
    )
