"""``recsys-ms doctor``: checks the installation, a history and a registry, or folders of logs."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recsys_ms.cli.console import counted, show, show_json, show_table, warn
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    DEFAULT_REGISTRY,
    HistoryOption,
    JsonFlag,
    KeyFileOption,
    MapOption,
    RegistryOption,
    SetOption,
    open_registry,
)
from recsys_ms.core.errors import DataError, RecsysError, UsageError
from recsys_ms.core.types import JsonDict
from recsys_ms.history.findings import findings_of, first_of
from recsys_ms.history.history import History
from recsys_ms.history.maintenance import examine_history, repair_history
from recsys_ms.history.readers.found_logs import AUTO, LOG_FORMATS
from recsys_ms.history.readers.inspection import (
    N_LOOKED_AT,
    FolderInspection,
    LogInspection,
    inspect_logs,
)
from recsys_ms.history.readers.log_mapper import options_for
from recsys_ms.history.readers.mapping import FieldMapping, parse_assignments
from recsys_ms.history.readers.templates import named
from recsys_ms.history.store.repair import REMEDIES, Finding
from recsys_ms.nightly.night_summary import SUMMARY_FILE, last_summary

_PACKAGES = ("numpy", "pandas", "scipy", "lightgbm", "implicit", "deltalake", "duckdb", "numba")
_EXTRAS = {"embed": ("torch", "timm"), "mlflow": ("mlflow",), "cluster": ("distributed",)}
_N_NAMES = 24


def doctor(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders or files of logs: say what an ingest would read, and which fields are "
            "missing.",
            show_default=False,
        ),
    ] = None,
    maps: MapOption = None,
    sets: SetOption = None,
    log_format: Annotated[
        str,
        typer.Option(
            "--format", help=f"Look for one format only: {', '.join((AUTO, *LOG_FORMATS))}."
        ),
    ] = AUTO,
    history: HistoryOption = DEFAULT_HISTORY,
    registry: RegistryOption = DEFAULT_REGISTRY,
    key_file: KeyFileOption = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Show how a damaged history can be put right; with --yes, do it."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --repair: do it. Damaged files are kept aside.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check the installation, a history and a registry; or say what is in a folder of logs.

    Exit code 3 if something is damaged, or if logs cannot be ingested as they are.
    """
    if yes and not repair:
        raise UsageError("--yes confirms a repair; give it with --repair")
    if repair and paths:
        raise UsageError("--repair is for a history: name it with --history, and leave out PATHS")
    if repair:
        _repair(history, yes=yes, as_json=as_json)
        return
    if paths:
        mapping = FieldMapping(
            map=parse_assignments(maps or (), option="--map"),
            set=parse_assignments(sets or (), option="--set"),
        )
        _inspect(paths, mapping, log_format, as_json=as_json)
        return
    facts: dict[str, str] = {
        "recsys-ms": importlib.metadata.version("recsys-ms"),
        "python": platform.python_version(),
        "processors": str(os.cpu_count()),
    }
    facts |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    for extra, names in _EXTRAS.items():
        absent = [name for name in names if not [*importlib.metadata.distributions(name=name)]]
        facts[f"extra {extra}"] = f"absent: {', '.join(absent)}" if absent else "installed"
    problems: dict[str, str] = {}
    damage: list[Finding] = []
    opened: History | None = None
    is_wanted = os.path.lexists(history) or history != DEFAULT_HISTORY
    try:
        damage = examine_history(history) if is_wanted else []
        if damage:
            facts["history"] = problems["history"] = _told(history, damage)
        elif is_wanted:
            opened = History.open(history, create=False)
            facts["history"] = _history(opened)
        else:
            facts["history"] = f"{history}: not there yet"
    except RecsysError as error:
        facts["history"] = problems["history"] = str(error)
    try:
        there = os.path.lexists(registry)
        facts["registry"] = _registry(registry, key_file) if there else f"{registry}: not there yet"
    except RecsysError as error:
        facts["registry"] = problems["registry"] = str(error)
    doubts = findings_of(opened) if opened and "history" not in problems else ()
    if as_json:
        show_json(
            {
                "facts": facts,
                "problems": problems,
                "damage": _findings(damage),
                "findings": list(doubts),
            }
        )
    else:
        rows = [*facts.items(), *(("to look at", text) for text in first_of(doubts))]
        show_table("recsys-ms doctor", (), rows)
        _show_damage(damage)
    if problems:
        raise DataError("; ".join(problems.values()))


def _told(path: Path, damage: Sequence[Finding]) -> str:
    files = "1 file is" if len(damage) == 1 else f"{len(damage)} files are"
    return (
        f"{path}: {files} damaged, first: {damage[0]}; "
        f"'recsys-ms doctor -H {path} --repair' shows how to put it right"
    )


def _repair(path: Path, *, yes: bool, as_json: bool) -> None:
    """Show what a repair would do, or do it."""
    done = repair_history(path) if yes else None
    damage = done.findings if done else examine_history(path)
    report = done.from_archive if done else None
    if as_json:
        show_json(
            {
                "damage": _findings(damage),
                "repaired": yes,
                "damaged_files": str(done.damaged) if done and done.damaged else None,
                "from_archive": asdict(report) if report else None,
                "unread": list(done.unread) if done else [],
                "lost_retractions": list(done.retractions) if done else [],
            }
        )
    elif not damage:
        show(f"{path}: nothing is damaged")
    else:
        _show_damage(damage)
        if done and done.damaged:
            show(f"damaged files were moved to {done.damaged}")
        if report:
            show(
                f"the bundles in archive/ were taken in again: {report.n_new} runs came back, "
                f"{report.n_duplicate} were there"
            )
    for text in done.unread if done else ():
        warn(text)
    for command in done.retractions if done else ():
        warn(f"these runs were retracted and count again; repeat: {command}")
    if damage and not yes:
        raise DataError(f"{path}: damaged; nothing was changed: add --yes to put it right")
    if done and done.lost:
        raise DataError(
            f"{path}: can be used again, but {done.lost[0]} could not be restored"
            f"{_more(len(done.lost))}; ingest these again, or restore the folder from a backup: "
            f"{', '.join(dict.fromkeys(done.sources)) or 'the logs and tables of that time'}"
        )


def _more(n: int) -> str:
    return f", nor {n - 1} more" if n > 1 else ""


def _findings(damage: Sequence[Finding]) -> list[JsonDict]:
    return [{**asdict(each), "remedy": REMEDIES[each.remedy]} for each in damage]


def _show_damage(damage: Sequence[Finding]) -> None:
    if damage:
        rows = [
            (each.file, each.what, each.since, each.runs, REMEDIES[each.remedy]) for each in damage
        ]
        names = ("file", "is damaged", "since", "runs concerned", "repair")
        show_table("damage", names, rows, ruled=True)


def _history(history: History) -> str:
    counts = history.query(
        "SELECT count(*) AS n, count(DISTINCT task_id) AS t, count(DISTINCT model_id) AS m "
        "FROM runs"
    ).iloc[0]
    retracted = history.query("SELECT count(*) AS n FROM retracted_runs")["n"].iloc[0]
    waiting = sum(1 for file in history.inbox.iterdir() if not file.name.startswith("."))
    pending = int((~history.quarantine.table(raw=False)["resolved"].astype(bool)).sum())
    return (
        f"{history.path}: version {history.version}, {counted(counts['n'], 'run')}, "
        f"{counted(counts['t'], 'task')}, {counted(counts['m'], 'model')}; "
        f"{counted(retracted, 'retracted run')}, {counted(waiting, 'file')} in the inbox, "
        f"{counted(pending, 'row')} in quarantine"
    )


def _registry(path: Path, key_file: Path | None) -> str:
    registry = open_registry(path, key_file)
    if os.path.lexists(path / SUMMARY_FILE) and not last_summary(path):
        raise DataError(
            f"{path / SUMMARY_FILE}: damaged; the next 'recsys-ms nightly' writes it anew"
        )
    for text in registry.damaged_versions():
        warn(f"{text}; versions that are not in service are not needed: it can be deleted")
    current = registry.current_folder()
    if current is None:
        return f"{path}: nothing published yet"
    ranker = registry.load_current()
    ranker.check()
    told = ranker.manifest
    return (
        f"{path}: version {int(current.name)}, {len(registry.versions())} kept; "
        f"{told.get('ranker')} trained {told.get('trained_at')} on history version "
        f"{told.get('history_version')}; files intact"
    )


def _inspect(
    paths: Sequence[Path], mapping: FieldMapping, log_format: str, *, as_json: bool
) -> None:
    found = {str(path): inspect_logs(path, mapping, log_format_name=log_format) for path in paths}
    if as_json:
        show_json({path: _as_json(each) for path, each in found.items()})
    else:
        for path, each in found.items():
            _show_folder(path, each)
    open_questions = [
        _question(path, log)
        for path, each in found.items()
        for log in each.logs
        if log.needs or log.reasons
    ]
    empty = [path for path, each in found.items() if not each.logs]
    if open_questions or empty:
        raise DataError("; ".join([*open_questions, *(f"{path}: no log found" for path in empty)]))


def _question(path: str, log: LogInspection) -> str:
    """What keeps logs from being ingested as they are."""
    if log.needs:
        return f"{path}: {log.format_name} cannot be read: {log.needs}"
    if log.missing:
        names = " and ".join(log.missing)
        return f"{log.first}: {log.format_name} does not say {names}; add {log.advice}"
    return f"{log.first}: would go to quarantine: {next(iter(log.reasons))}"


def _show_folder(path: str, folder: FolderInspection) -> None:
    for log in folder.logs:
        part = " looked at (an ingest reads all)" if log.n_runs >= N_LOOKED_AT else ""
        rows: list[tuple[str, object]] = [
            ("logs", log.n_logs),
            ("runs that would be taken", f"{log.n_ready} of {log.n_runs}{part}"),
            *((f"  {status}", n) for status, n in log.statuses.items()),
            *(
                (
                    f"missing: {field}",
                    f"in {n} {'run' if n == 1 else 'runs'}; add {options_for([field])}",
                )
                for field, n in log.missing.items()
            ),
            *(("to quarantine", f"{n} x {reason}") for reason, n in log.reasons.items()),
            *([("needs", log.needs)] if log.needs else ()),
            ("columns for --map", named(log.columns, _N_NAMES)),
            ("series for --map value", named(log.series, _N_NAMES)),
        ]
        show_table(f"{path}: {log.format_name}", (), rows)
    for table in folder.tables:
        show(f"{table}: a table, not a known log format; ingest it by itself, with --map")
    if not folder.logs:
        show(f"{path}: no log of a known format ({folder.n_others} other files)")


def _as_json(folder: FolderInspection) -> JsonDict:
    return {
        "logs": [
            {"format": log.format_name, "advice": log.advice}
            | {name: value for name, value in asdict(log).items() if name != "format_name"}
            for log in folder.logs
        ],
        "tables": [str(path) for path in folder.tables],
        "n_others": folder.n_others,
    }
