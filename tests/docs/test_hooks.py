"""Hooks of the site: links that leave ``docs/``, quoted rows, roles of docstrings."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from pages import DOCS

pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
from mkdocs.exceptions import PluginError


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_out_of_docs_leads_to_a_copy_on_the_site(hooks: ModuleType) -> None:
    text = "[a](../../training/deploy/cronjob.yaml) [b](../scores.md#x) [c](https://x/d.md) [d](#e)"
    assert hooks._rebased(text, "how-to/cron.md", "how-to/cron.md") == (
        "[a](../repository/training/deploy/cronjob.yaml) [b](../scores.md#x) "
        "[c](https://x/d.md) [d](#e)"
    )


def test_a_quoted_link_holds_where_it_is_quoted(hooks: ModuleType) -> None:
    assert hooks._rebased("[a](architectures.md)", "cold_start.md", "explanation/fennec.md") == (
        "[a](../architectures.md)"
    )


def test_a_link_to_nothing_is_left_for_mkdocs_to_refuse(hooks: ModuleType) -> None:
    assert hooks._rebased("[a](../gone.py)", "scores.md", "scores.md") == "[a](../gone.py)"


TABLES = """# One

| ranker | x |
|---|---:|
| nmf | 1 |

# Two

| ranker | x |
|---|---:|
| **auto** | 2 |
| nmf | 3 |
| nmf, all | 4 |

| α | 0 |
|---|---|
| Pearson | 5 |
"""


def test_rows_are_quoted_by_name(hooks: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TABLES)
    head = "| ranker | x |\n|---|---:|\n"
    quoted = hooks._quoted_rows
    assert quoted(page, "One", ["nmf"]) == f"{head}| nmf | 1 |"
    assert quoted(page, "Two", ["nmf", "auto"]) == f"{head}| nmf | 3 |\n| **auto** | 2 |"
    assert quoted(page, "Two", ["nmf…"]) == f"{head}| nmf | 3 |\n| nmf, all | 4 |"
    assert quoted(page, "Two", ["Pearson"]) == "| α | 0 |\n|---|---|\n| Pearson | 5 |"


@pytest.mark.parametrize(("heading", "name"), [("Three", "nmf"), ("One", "auto"), ("One", "nmf…x")])
def test_a_row_that_is_gone_ends_the_build(
    heading: str, name: str, hooks: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(TABLES)
    with pytest.raises(PluginError, match=heading):
        hooks._quoted_rows(page, heading, [name])


@pytest.mark.parametrize(
    ("scope", "name", "meant"),
    [
        ("recsys_ms.a.Thing.open", "History.open", "recsys_ms.a.History.open"),
        ("recsys_ms.a.Thing.open", "ingest", "recsys_ms.a.Thing.ingest"),
        ("recsys_ms.a.make", "other", "recsys_ms.a.other"),
        ("recsys_ms.a.make", "recsys_ms.b.Run", "recsys_ms.b.Run"),
    ],
)
def test_names_in_docstrings(scope: str, name: str, meant: str, hooks: ModuleType) -> None:
    assert meant in hooks._full_names(name, scope)


def test_roles_become_references(hooks: ModuleType) -> None:
    html = '<h3 id="recsys_ms.a.T"></h3><p>See :class:<code>~recsys_ms.b.Run</code>. So::</p>'
    assert hooks.on_page_content(html).endswith(
        '<p>See <autoref optional identifier="recsys_ms.b.Run" slug="recsys_ms.b.Run">'
        "<code>Run</code></autoref>. So:</p>"
    )
