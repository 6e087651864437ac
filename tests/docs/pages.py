"""Pages of the documentation as tests read them: blocks that are run, files they make, commands.

A comment before a fenced block says what it is:

``<!-- run -->``
    bash or Python, run in the page's folder, one after the other; ``<!-- run: exit 3 -->`` for a
    command that shall fail.
``<!-- file: NAME -->``
    the content of a file in that folder.
``<!-- output -->``
    lines that the block run last prints; ``…`` stands for anything.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from warm import warm

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_MARKED = re.compile(
    r"^<!-- (?P<kind>run|file|output)(?:: (?P<what>[^>]+?))? -->\n\n?"
    r"```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
#: A command of ours: at the start of a line, after another one or ``uv run``, or in a bin folder.
_COMMAND = re.compile(r"(?:^|[;&|(] |run |bin/)recsys-ms ([^\n]+)")
_INLINE = re.compile(r"`(recsys-ms [^`\n]+)`")
_BOXES = str.maketrans(dict.fromkeys("│┃║|", " "))


@dataclass(frozen=True)
class Block:
    kind: str
    what: str | None
    language: str
    text: str


def all_pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def marked_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(*match.group("kind", "what", "language", "text")) for match in _MARKED.finditer(text)
    ]
    n_marks = len(re.findall(r"^<!-- (?:run|file|output)\b", text, re.MULTILINE))
    assert len(found) == n_marks, f"{page}: a mark has no fenced block right below it"
    return found


def commands(page: Path) -> Iterator[list[str]]:
    """Words after ``recsys-ms`` of every command on a page, in fenced blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line
        for fence in _FENCE.finditer(text)
        if fence["language"] in ("bash", "sh", "")
        for line in fence["text"].replace("\\\n", " ").splitlines()
    ]
    for line in [*lines, *_INLINE.findall(_FENCE.sub("", text))]:
        for rest in _COMMAND.findall(line):
            words = shlex.split(rest, comments=True)
            ends = [i for i, word in enumerate(words) if word in ("|", "||", "&&", ";", ">")]
            yield words[: min(ends, default=len(words))]


def run_page(page: Path, folder: Path) -> None:
    """Run the marked blocks of a page in ``folder``, from top to bottom."""
    printed = ""
    for block in marked_blocks(page):
        if block.kind == "file":
            assert block.what
            (folder / block.what).write_text(block.text, encoding="utf-8")
        elif block.kind == "run":
            wanted = int(block.what.removeprefix("exit ")) if block.what else 0
            done = _run(block, folder)
            assert done.returncode == wanted, f"{block.text}\n{done.stdout}\n{done.stderr}"
            printed = f"{done.stdout}\n{done.stderr}"
        else:
            lines = [_plain(line) for line in printed.splitlines()]
            for line in block.text.splitlines():
                assert _is_among(_plain(line), lines), f"{page.name}: {line!r} not in\n{printed}"


def _run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    if block.language == "python":
        command = [str(warm().folder / "python"), "-c", block.text]
    else:
        assert block.language == "bash", block
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    # Commands of ours, and Python, from a process that has the heavy imports behind it.
    places = [str(warm().folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PATH": os.pathsep.join(places), "NO_COLOR": "1", "COLUMNS": "200"},
    )


def _plain(line: str) -> str:
    return " ".join(line.translate(_BOXES).split())


def _is_among(shown: str, lines: list[str]) -> bool:
    pattern = ".*".join(re.escape(part.strip()) for part in shown.split("…"))
    return any(re.search(pattern, line) for line in lines)
