"""What the pages tell to run does run, and prints what they show."""

from pathlib import Path

import pytest
from pages import DOCS, all_pages, marked_blocks, run_page

_RUN = [page for page in all_pages() if any(b.kind == "run" for b in marked_blocks(page))]


def test_the_tutorial_is_run() -> None:
    assert DOCS / "tutorial" / "csv_to_recommendation.md" in _RUN


#: What pages need besides the core.
_NEEDS = {"executors": ("distributed",), "mlflow": ("mlflow",), "images": ("torch", "open_clip")}


@pytest.mark.parametrize("page", _RUN, ids=lambda page: page.stem)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    for needed in _NEEDS.get(page.stem, ()):
        pytest.importorskip(needed, reason="needs an extra")
    run_page(page, tmp_path)


def test_a_line_that_was_not_printed_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run -->\n```bash\necho one\n```\n<!-- output -->\n```text\ntwo\n```\n")
    with pytest.raises(AssertionError, match="'two' not in"):
        run_page(page, tmp_path)


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run -->\n```bash\nfalse\ntrue\n```\n")
    with pytest.raises(AssertionError, match="false"):
        run_page(page, tmp_path)


def test_a_mark_without_a_block_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run -->\nsome text\n")
    with pytest.raises(AssertionError, match="no fenced block"):
        run_page(page, tmp_path)
