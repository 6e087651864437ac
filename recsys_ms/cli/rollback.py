"""``recsys-ms rollback``: put an earlier ranker back into service."""

from typing import Annotated

import typer
from rich.text import Text

from recsys_ms.cli.console import show, show_json
from recsys_ms.cli.options import (
    DEFAULT_REGISTRY,
    JsonFlag,
    KeyFileOption,
    RegistryOption,
    open_registry,
)


def rollback(
    registry: RegistryOption = DEFAULT_REGISTRY,
    to: Annotated[
        int | None, typer.Option(help="Version; default: the newest before the current.")
    ] = None,
    key_file: KeyFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put an earlier ranker back into service; it stays until a newer one is published."""
    opened = open_registry(registry, key_file)
    with opened.lock(timeout_seconds=10.0):
        version = opened.roll_back(to)
    trained = version.manifest.get("trained_at")
    if as_json:
        show_json({"version": version.number, "folder": str(version.folder), "trained_at": trained})
    else:
        show(Text(f"version {version.number}, trained {trained}, is in service"))
