"""Hooks of the documentation site (``mkdocs.yml``): links out of docs, help texts, Sphinx roles.

Pages link to files of the repository by their relative path, as they do on any code host. Here each
such file is put on the site under ``repository/`` and the link leads there.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

import typer
from mkdocs.config.defaults import MkDocsConfig
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
    """Turn links to files of the repository into links on the site; write the help texts."""
    here = page.file.src_uri

    def on_site(match: re.Match[str]) -> str:
        uri = _uri_of(here, match["target"])
        if uri is None:
            return match[0]
        target = posixpath.relpath(uri, posixpath.dirname(here))
        return f"]({target}{match['anchor'] or ''})"

    return _LINK.sub(on_site, markdown).replace(_HELP_MARK, _help_of_every_verb())


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
        first, second = _meant(name, scope)
        attributes = f'optional identifier="{first}" slug="{second}"'
        return f"<autoref {attributes}><code>{shown}</code></autoref>"

    return _ROLE.sub(linked, html).replace("::</p>", ":</p>")


def _source(uri: str) -> Path:
    """The file behind a place on the site."""
    if uri.startswith(_OUTSIDE):
        return _ROOT / uri.removeprefix(_OUTSIDE)
    return _DOCS / uri


def _uri_of(page: str, target: str) -> str | None:
    """Place on the site of what a page links to; ``None`` where there is no such file."""
    found = (_source(page).parent / target).resolve()
    if not found.is_file() or not found.is_relative_to(_ROOT):
        return None
    if found.is_relative_to(_DOCS):
        return found.relative_to(_DOCS).as_posix()
    return _OUTSIDE + found.relative_to(_ROOT).as_posix()


def _meant(name: str, scope: str) -> tuple[str, str]:
    """What a name in the docstring of ``scope`` may stand for: of the module, or of the class."""
    if name.startswith(_PACKAGE):
        return name, name
    parts = scope.split(".")
    classes = [i for i, part in enumerate(parts) if part[:1].isupper()]
    module = parts[: classes[0]] if classes else parts[:-1]
    owner = parts[: classes[0] + 1] if classes else module
    return ".".join([*module, name]), ".".join([*owner, name])


def _help_of_every_verb() -> str:
    """What ``recsys-ms VERB --help`` prints, a section a verb."""
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
