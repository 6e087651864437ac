"""``recsys-ms doctor``: what is installed, and whether history and registry are sound."""

import importlib.metadata
import os
import platform
from pathlib import Path

from rich.table import Table

from recsys_ms.cli.console import show, show_json
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    DEFAULT_REGISTRY,
    HistoryOption,
    JsonFlag,
    RegistryOption,
)
from recsys_ms.core.errors import DataError, RecsysError
from recsys_ms.history.history import History
from recsys_ms.ranker.registry import Registry

_PACKAGES = ("numpy", "pandas", "scipy", "lightgbm", "implicit", "deltalake", "duckdb", "numba")
_EXTRAS = {"embed": ("torch", "timm")}


def doctor(
    history: HistoryOption = DEFAULT_HISTORY,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Check the installation, a history and a registry. Exit code 3 where something is damaged."""
    facts: dict[str, str] = {
        "recsys-ms": importlib.metadata.version("recsys-ms"),
        "python": platform.python_version(),
        "processors": str(os.cpu_count()),
    }
    for name in _PACKAGES:
        facts[name] = importlib.metadata.version(name)
    for extra, names in _EXTRAS.items():
        absent = [name for name in names if not _installed(name)]
        facts[f"extra {extra}"] = f"absent: {', '.join(absent)}" if absent else "installed"
    problems: dict[str, str] = {}
    for name, check in (("history", _history), ("registry", _registry)):
        path = history if name == "history" else registry
        try:
            facts[name] = check(path) if path.exists() else f"{path}: not there yet"
        except RecsysError as error:
            problems[name] = str(error)
            facts[name] = f"damaged: {error}"
    if as_json:
        show_json({"facts": facts, "problems": problems})
    else:
        shown = Table(show_header=False, title="recsys-ms doctor")
        for fact, value in facts.items():
            shown.add_row(fact, value)
        show(shown)
    if problems:
        raise DataError("; ".join(problems.values()))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _history(path: Path) -> str:
    history = History.open(path, create=False)
    counts = history.query(
        "SELECT count(*) AS n, count(DISTINCT task_id) AS t, count(DISTINCT model_id) AS m "
        "FROM runs"
    ).iloc[0]
    waiting = sum(1 for file in history.inbox.iterdir() if not file.name.startswith("."))
    pending = sum(1 for _ in history.quarantine.pending())
    return (
        f"{path}: version {history.version}, {counts['n']} runs, {counts['t']} tasks, "
        f"{counts['m']} models; {waiting} files in the inbox, {pending} rows in quarantine"
    )


def _registry(path: Path) -> str:
    registry = Registry.open(path)
    current = registry.current_folder()
    if current is None:
        return f"{path}: nothing published yet"
    told = registry.load_current().manifest
    return (
        f"{path}: version {int(current.name)}, {len(registry.versions())} kept; {told['ranker']} "
        f"trained {told['trained_at']} on history version {told['history_version']}; files intact"
    )
