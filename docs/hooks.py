"""Hooks of the documentation site (``mkdocs.yml``).

Links: pages link to files of the repository by relative paths. Each such file is copied to the site
under ``repository/``, and the link is changed to it.

Help texts of the command line replace a mark in a page. Rows of tables are quoted from the page of
their measurement, so that each figure is written once::

    <!-- rows of docs/cold_start.md, Images only: popularity; nmf -->

A name that ends with ``…`` matches all rows that begin with it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from recsys_ms.cli.app import VERBS, app

_ROOT: Final = Path(__file__).resolve().parents[1]
_DOCS: Final = _ROOT / "docs"
_OUTSIDE: Final = "repository/"
_LINK: Final = re.compile(r"\]\((?!\w+:|#)(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
#: Replaced by the help texts of all verbs.
_HELP_MARK: Final = "<!-- help of every verb -->"
_HELP_WIDTH: Final = 100
_ROWS: Final = re.compile(
    r"^<!-- rows of (?P<source>[\w./-]+), (?P<heading>[^:\n]+): (?P<names>[^\n]+?) -->$",
    re.MULTILINE,
)
_PACKAGE: Final = "recsys_ms."
#: An anchor of an object of the package, or a Sphinx role as Markdown leaves it.
_ROLE: Final = re.compile(
    r'id="(?P<scope>recsys_ms\.[\w.]+)"'
    r"|:(?:attr|class|data|func|meth|mod|obj):<code>(?P<brief>~?)(?P<name>[\w.]+)</code>"
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside ``docs/`` that pages link to, and those that they link to."""
    waiting = [file.src_uri for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for match in _LINK.finditer(_source(page).read_text(encoding="utf-8")):
            uri = _uri_of(page, match["target"])
            if uri is None or not uri.startswith(_OUTSIDE) or files.get_file_from_path(uri):
                continue
            files.append(
                File.generated(
                    config,
                    uri,
                    abs_src_path=str(_source(uri)),
                    inclusion=InclusionLevel.NOT_IN_NAV,
                )
            )
            if uri.endswith(".md"):
                waiting.append(uri)
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn links to files of the repository into links on the site; write help texts and rows."""
    here = page.file.src_uri
    text = _rebased(markdown, here, here)
    if _HELP_MARK in text:
        text = text.replace(_HELP_MARK, _help_of_every_verb())

    def quoted(match: re.Match[str]) -> str:
        file = _ROOT / match["source"]
        table = _quoted_rows(file, match["heading"], match["names"].split("; "))
        return _rebased(table, _uri(file), here)

    return _ROWS.sub(quoted, text)


def on_page_content(html: str, **_: Any) -> str:
    """Turn Sphinx roles of docstrings into cross-references, and ``::`` into a colon."""
    scope = ""

    def linked(match: re.Match[str]) -> str:
        nonlocal scope
        if match["scope"]:
            scope = match["scope"]
            return match[0]
        name = match["name"]
        if match["brief"] or name.startswith(_PACKAGE):
            shown = name.rpartition(".")[2]
        else:
            shown = name
        first, second = _full_names(name, scope)
        attributes = f'optional identifier="{first}" slug="{second}"'
        return f"<autoref {attributes}><code>{shown}</code></autoref>"

    return _ROLE.sub(linked, html).replace("::</p>", ":</p>")


def _source(uri: str) -> Path:
    """File of the repository for a path on the site."""
    if uri.startswith(_OUTSIDE):
        return _ROOT / uri.removeprefix(_OUTSIDE)
    return _DOCS / uri


def _uri(file: Path) -> str:
    """Path on the site of a file of the repository."""
    if file.is_relative_to(_DOCS):
        return file.relative_to(_DOCS).as_posix()
    return _OUTSIDE + file.relative_to(_ROOT).as_posix()


def _uri_of(page: str, target: str) -> str | None:
    """Path on the site of a link's target; ``None`` if there is no such file."""
    found = (_source(page).parent / target).resolve()
    return _uri(found) if found.is_file() and found.is_relative_to(_ROOT) else None


def _rebased(markdown: str, written_in: str, here: str) -> str:
    """Change links relative to the page ``written_in`` to links relative to ``here``."""

    def on_site(match: re.Match[str]) -> str:
        uri = _uri_of(written_in, match["target"])
        if uri is None:
            return match[0]
        target = posixpath.relpath(uri, posixpath.dirname(here))
        return f"]({target}{match['anchor'] or ''})"

    return _LINK.sub(on_site, markdown)


def _quoted_rows(file: Path, heading: str, names: list[str]) -> str:
    """Header and named rows of the first table under a heading that has these rows.

    Raises
    ------
    PluginError
        The heading or a row does not exist.
    """
    for header, rule, *rows in _tables_under(file, heading):
        found = [[row for row in rows if _is_named(row, name)] for name in names]
        if all(found):
            return "\n".join([header, rule, *(row for own in found for row in own)])
    raise PluginError(f"{file}: no table under {heading!r} has the rows {'; '.join(names)}")


def _tables_under(file: Path, heading: str) -> list[list[str]]:
    """Tables between a heading (or a line in bold) and the next heading, each as its lines."""
    tables: list[list[str]] = []
    is_under = was_table = False
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(("#", "**")):
            is_under = line.strip("#* ") == heading
        if is_under and line.startswith("|"):
            if not was_table:
                tables.append([])
            tables[-1].append(line)
        was_table = line.startswith("|")
    return tables


def _is_named(row: str, name: str) -> bool:
    """Whether a row of a table has this name in its first cell."""
    first = row.split("|")[1].strip(" *")
    return first.startswith(name[:-1]) if name.endswith("…") else first == name


def _full_names(name: str, scope: str) -> tuple[str, str]:
    """Full names for a name in the docstring of ``scope``: in its module, in its class."""
    if name.startswith(_PACKAGE):
        return name, name
    parts = scope.split(".")
    classes = [i for i, part in enumerate(parts) if part[:1].isupper()]
    module = parts[: classes[0]] if classes else parts[:-1]
    owner = parts[: classes[0] + 1] if classes else module
    return ".".join([*module, name]), ".".join([*owner, name])


def _help_of_every_verb() -> str:
    """Output of ``recsys-ms VERB --help``, one section for each verb."""
    group: Any = typer.main.get_command(app)
    sections = []
    for verb, summary in VERBS.items():
        command = group.get_command(None, verb)
        context = typer.Context(
            command,
            info_name=f"recsys-ms {verb}",
            terminal_width=_HELP_WIDTH,
            max_content_width=_HELP_WIDTH,
        )
        help_text = command.get_help(context).rstrip()
        sections.append(f"## {verb}\n\n{summary}\n\n```text\n{help_text}\n```")
    return "\n\n".join(sections)
