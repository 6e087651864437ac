"""The site builds without a warning and without a network, and is whole."""

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from pages import DOCS, ROOT

import recsys_ms as rms
from recsys_ms.cli.app import VERBS

for needed in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(needed, reason="needs the extra 'docs'")

#: What a browser fetches by itself, by tag.
_LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "object": "data",
}
_LOADED_LINKS = {"stylesheet", "preload", "preconnect", "icon", "modulepreload", "dns-prefetch"}


class Page(HTMLParser):
    """What a page loads, where it links to, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag in _LOADS and given.get(_LOADS[tag]):
            self.loads.append(given[_LOADS[tag]])
        if tag == "link" and _LOADED_LINKS & set(given.get("rel", "").split()):
            self.loads.append(given["href"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def text_of(path: Path) -> str:
    """What a reader sees, with single spaces."""
    shown = html.unescape(re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8")))
    return " ".join(shown.split())


def nav_pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for value in entry.values():
            yield from nav_pages(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from nav_pages(value)


def test_pages_of_the_navigation_exist_and_say_something(site: Path) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = list(nav_pages(config["nav"]))
    assert len(named) == len(set(named)) > 30
    for name in named:
        assert len((DOCS / name).read_text(encoding="utf-8")) > 200, name
        assert (site / name).with_suffix(".html").is_file(), name


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert written == set(nav_pages(config["nav"]))


def test_internal_links_hold(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links start at the root of a server
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                broken.append((path.relative_to(site), link))
            elif parts.fragment and target in pages:
                anchors = pages[target].anchors
                if unquote(parts.fragment) not in anchors and parts.fragment != "__tabbed":
                    broken.append((path.relative_to(site), link))
    assert broken == []


def test_what_a_page_loads_and_links_to_is_seen() -> None:
    page = Page(
        '<script src="https://x.org/a.js"></script><link rel="preconnect" href="//fonts">'
        '<a href="b.html" id="c">d</a>'
    )
    assert page.loads == ["https://x.org/a.js", "//fonts"]
    assert (page.links, page.anchors) == (["b.html"], {"c"})


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loads = [(path, url) for path, page in pages.items() for url in page.loads]
    assert loads
    assert [load for load in loads if re.match(r"(?:\w+:)?//", load[1])] == []
    for style in site.rglob("*.css"):
        urls = re.findall(r"""url\(\s*['"]?((?:https?:)?//[^)]*)""", style.read_text("utf-8"))
        assert urls == [], style
        assert "@import" not in style.read_text("utf-8"), style


def test_every_public_name_is_in_the_reference(pages: dict[Path, Page]) -> None:
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    scores = {f"{getattr(rms.scores, n).__module__}.{n}" for n in rms.scores.__all__}
    wanted = {f"{home}.{name}" for name, home in rms._HOME.items()} | scores
    wanted |= {f"recsys_ms.callbacks.{m}.{name}" for name, (m, _) in rms.callbacks._HOME.items()}
    assert wanted - anchors == set()


def test_help_of_every_verb_is_on_its_page(site: Path, pages: dict[Path, Page]) -> None:
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert set(VERBS) <= pages[site / "reference" / "cli.html"].anchors
    for verb in VERBS:
        assert f"Usage: recsys-ms {verb} [OPTIONS]" in text


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("how-to/cron", "recsys-ms.cron"),
        ("how-to/systemd", "recsys-ms-nightly.service"),
        ("how-to/systemd", "recsys-ms-nightly.timer"),
        ("how-to/kubernetes", "cronjob.yaml"),
        ("how-to/kubernetes", "Containerfile"),
        ("how-to/airflow", "airflow_dag.py"),
    ],
)
def test_recipes_stand_on_their_pages(page: str, file: str, site: Path) -> None:
    shown = text_of((site / page).with_suffix(".html"))
    for line in (ROOT / "training" / "deploy" / file).read_text("utf-8").splitlines():
        assert " ".join(line.split()) in shown, line
    assert "8<" not in shown


def test_defaults_are_those_of_the_signature(site: Path) -> None:
    # griffe takes the first of {"csv", "tsv", …} for the default, which is None
    text = text_of(site / "reference" / "readers.html")
    found = re.search(r"table_format \(\(csv, tsv[^)]*\), default: (\w+)", text)
    assert found is not None
    assert found[1] == "None"


def test_roles_of_docstrings_are_links(site: Path) -> None:
    text = "".join(p.read_text("utf-8") for p in (site / "reference").rglob("*.html"))
    assert re.findall(r":(?:class|func|meth|mod|data):<code>", text) == []
    assert re.search(
        r'<a class="autorefs[^>]*href="[^"]*recording[^>]*><code>recording</code>', text
    )
