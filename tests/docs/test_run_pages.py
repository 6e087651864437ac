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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "<!-- run -->\n```bash\necho one\n```\n<!-- output -->\n```text\ntwo\n```\n",
            "'two' not in",
        ),
        ("<!-- run -->\n```bash\nfalse\ntrue\n```\n", "false"),
        ("<!-- run -->\nsome text\n", "no fenced block"),
    ],
    ids=["a line that was not printed", "a command that fails", "a mark without a block"],
)
def test_a_page_that_is_wrong_is_noticed(tmp_path: Path, text: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=message):
        run_page(page, tmp_path)
