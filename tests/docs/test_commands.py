"""Every ``recsys-ms`` command in the documentation has a verb and options that exist."""

from pathlib import Path
from typing import Any

import pytest
import typer
from pages import ROOT, all_pages, commands

from recsys_ms.cli.app import VERBS, app

PAGES = [*all_pages(), ROOT / "README.md"]


def options_of(verb: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    command = group.get_command(None, verb)
    found = {"--help"}
    for parameter in command.params:
        found.update((*parameter.opts, *parameter.secondary_opts))
    return found


def problems(words: list[str]) -> list[str]:
    verbs = [word for word in words if not word.startswith("-")]
    if not verbs or verbs[0] == "VERB":
        return []
    if verbs[0] not in VERBS:
        return [f"no verb {verbs[0]!r}"]
    known = options_of(verbs[0])
    found = []
    for word in words[words.index(verbs[0]) + 1 :]:
        name = word.partition("=")[0]
        if name.startswith("-") and len(name) > 1 and not name[1].isdigit() and name not in known:
            found.append(f"{verbs[0]} has no option {name}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page: Path) -> None:
    assert [found for words in commands(page) for found in problems(words)] == []


def test_commands_are_found_where_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "| a | `recsys-ms ingest runs/ -H H` |\n```bash\npip install uv && uv run recsys-ms train\n"
        "sudo -u recsys-ms /opt/bin/recsys-ms nightly --config \\\n  x.toml | tail\n```\n"
    )
    assert list(commands(page)) == [
        ["train"],
        ["nightly", "--config", "x.toml"],
        ["ingest", "runs/", "-H", "H"],
    ]


def test_a_stale_command_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nrecsys-ms train -H H --ouput x  # a comment --no\nrecsys-ms rank\n```\n"
    )
    assert [problems(words) for words in commands(page)] == [
        ["train has no option --ouput"],
        ["no verb 'rank'"],
    ]
