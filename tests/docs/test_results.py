"""The tables of the documentation are those of the files in ``results/``."""

from pathlib import Path

import pytest
from pages import DOCS

from tests.benchmarks.result_tables import left_out, observed_runs, read

RESULTS = DOCS.parent / "results"


@pytest.mark.parametrize("kind", ["leave_one_task_out", "observed_runs"])
def test_results_quotes_the_newest_file(kind: str) -> None:
    newest = max((RESULTS / kind).iterdir(), key=lambda path: path.name)
    table = left_out(newest) if newest.is_dir() else observed_runs(read(newest))
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert table in page
    assert Path(kind, newest.name).as_posix() in page
